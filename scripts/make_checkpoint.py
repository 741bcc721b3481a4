"""Write a random checkpoint in the exact layout of a published one, for measurements and tests without a download.

    python scripts/make_checkpoint.py FOLDER                            BianQue-2.0, fp16, 8 shards, 13.4 GB
    python scripts/make_checkpoint.py FOLDER --model bianque-1          BianQue-1.0, fp32, one file, 3.1 GB
    python scripts/make_checkpoint.py FOLDER --size tiny --format safetensors
    python scripts/make_checkpoint.py FOLDER --bits 8                   as published already quantized

Names, shapes, dtypes, shards, index, configuration and tokenizer files are those of the Hub. The vocabulary is the
demonstration models', at full size of BianQue-2.0 padded with pieces that no text uses, so that `[MASK]`, `<sop>` and
the others have their published ids. Weights are normal with unequal rows and a few strong input channels, as trained
ones have, so that quantization errors are of a plausible size. What such a model writes means nothing.

One shard is held in memory at a time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
MINIS = ROOT / "bianque" / "minis"

Model = Literal["bianque-1", "bianque-2"]
Size = Literal["tiny", "small", "full"]
Format = Literal["bin", "safetensors"]

CHATGLM_SIZES: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 64, "num_layers": 2, "num_attention_heads": 4, "inner_hidden_size": 256},
    "small": {"hidden_size": 512, "num_layers": 6, "num_attention_heads": 8, "inner_hidden_size": 2048},
    "full": {"hidden_size": 4096, "num_layers": 28, "num_attention_heads": 32, "inner_hidden_size": 16384},
}
T5_SIZES: dict[str, dict[str, int]] = {
    "tiny": {"d_model": 64, "d_ff": 160, "d_kv": 16, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 2},
    "small": {"d_model": 384, "d_ff": 1024, "d_kv": 64, "num_heads": 6, "num_layers": 6, "num_decoder_layers": 6},
    "full": {"d_model": 1024, "d_ff": 2816, "d_kv": 64, "num_heads": 16, "num_layers": 24, "num_decoder_layers": 24},
}
PUBLISHED_MASK_ID = 130_000
PUBLISHED_ROWS = {"bianque-1": 32_128, "bianque-2": 130_528}
NUM_SURPLUS_ROWS = 8
# One in this many input channels is this much stronger than the others.
OUTLIER_SHARE, OUTLIER_FACTOR = 500, 8.0


class WeightMaker:
    """Makes tensors from one pool of normal numbers: drawing 6.7 billion of them would take minutes."""

    def __init__(self, dtype: torch.dtype, seed: int) -> None:
        """Draw the pool."""
        self._generator = torch.Generator().manual_seed(seed)
        self._dtype = dtype
        self._pool = torch.randn((1 << 22) + 77_777, generator=self._generator).to(dtype)

    def matrix(self, rows: int, columns: int, std: float, *, has_outliers: bool = True) -> torch.Tensor:
        """Return (rows, columns) of about this standard deviation."""
        windows = self._pool.unfold(0, columns, 1)
        weight = windows[torch.randint(len(windows), (rows,), generator=self._generator)]
        row_scale = std * torch.exp(0.25 * torch.randn(rows, 1, generator=self._generator))
        weight.mul_(row_scale.to(self._dtype))
        if has_outliers:
            channel_scale = torch.ones(columns)
            strong = torch.randperm(columns, generator=self._generator)[: max(1, columns // OUTLIER_SHARE)]
            channel_scale[strong] = OUTLIER_FACTOR
            weight.mul_(channel_scale.to(self._dtype))
        return weight

    def vector(self, size: int, mean: float, std: float) -> torch.Tensor:
        """Return (size,)."""
        return (mean + std * torch.randn(size, generator=self._generator)).to(self._dtype)


def chatglm_tensors(config: dict[str, Any], seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of BianQue-2.0 in published order; the head is stored although it equals the embedding."""
    make = WeightMaker(torch.float16, seed)
    hidden, inner = config["hidden_size"], config["inner_hidden_size"]
    half_head = hidden // config["num_attention_heads"] // 2
    inverse_frequencies = (1 / 10000 ** (torch.arange(0, half_head, 2) / half_head)).half()
    embedding = make.matrix(config["vocab_size"], hidden, 0.02, has_outliers=False)
    yield "transformer.word_embeddings.weight", embedding
    for index in range(config["num_layers"]):
        layer = f"transformer.layers.{index}"
        yield f"{layer}.input_layernorm.weight", make.vector(hidden, 1.0, 0.1)
        yield f"{layer}.input_layernorm.bias", make.vector(hidden, 0.0, 0.02)
        yield f"{layer}.attention.rotary_emb.inv_freq", inverse_frequencies.clone()
        yield f"{layer}.attention.query_key_value.weight", make.matrix(3 * hidden, hidden, 0.02)
        yield f"{layer}.attention.query_key_value.bias", make.vector(3 * hidden, 0.0, 0.02)
        yield f"{layer}.attention.dense.weight", make.matrix(hidden, hidden, 0.02)
        yield f"{layer}.attention.dense.bias", make.vector(hidden, 0.0, 0.02)
        yield f"{layer}.post_attention_layernorm.weight", make.vector(hidden, 1.0, 0.1)
        yield f"{layer}.post_attention_layernorm.bias", make.vector(hidden, 0.0, 0.02)
        yield f"{layer}.mlp.dense_h_to_4h.weight", make.matrix(inner, hidden, 0.02)
        yield f"{layer}.mlp.dense_h_to_4h.bias", make.vector(inner, 0.0, 0.02)
        yield f"{layer}.mlp.dense_4h_to_h.weight", make.matrix(hidden, inner, 0.02)
        yield f"{layer}.mlp.dense_4h_to_h.bias", make.vector(hidden, 0.0, 0.02)
    yield "transformer.final_layernorm.weight", make.vector(hidden, 1.0, 0.1)
    yield "transformer.final_layernorm.bias", make.vector(hidden, 0.0, 0.02)
    yield "lm_head.weight", embedding


def t5_tensors(config: dict[str, Any], seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of BianQue-1.0: one embedding stored under three names, and a head of its own."""
    make = WeightMaker(torch.float32, seed)
    width, inner, rows = config["d_model"], config["d_ff"], config["vocab_size"]
    heads_width = config["num_heads"] * config["d_kv"]
    shared = make.matrix(rows, width, 1.0, has_outliers=False)

    def attention(name: str, *, has_bias: bool) -> Iterator[tuple[str, torch.Tensor]]:
        # T5 does not divide by the square root of the head's size; its small queries make up for that.
        yield f"{name}.q.weight", make.matrix(heads_width, width, (width * config["d_kv"]) ** -0.5)
        yield f"{name}.k.weight", make.matrix(heads_width, width, width**-0.5)
        yield f"{name}.v.weight", make.matrix(heads_width, width, width**-0.5)
        yield f"{name}.o.weight", make.matrix(width, heads_width, heads_width**-0.5)
        if has_bias:
            buckets = config["relative_attention_num_buckets"]
            bias = make.matrix(buckets, config["num_heads"], 1.0, has_outliers=False)
            yield f"{name}.relative_attention_bias.weight", bias

    yield "shared.weight", shared
    for part, depth in (("encoder", config["num_layers"]), ("decoder", config["num_decoder_layers"])):
        yield f"{part}.embed_tokens.weight", shared
        for index in range(depth):
            block = f"{part}.block.{index}.layer"
            kinds = ["SelfAttention", "EncDecAttention"] if part == "decoder" else ["SelfAttention"]
            for number, kind in enumerate(kinds):
                yield from attention(f"{block}.{number}.{kind}", has_bias=index == 0 and kind == "SelfAttention")
                yield f"{block}.{number}.layer_norm.weight", make.vector(width, 0.3, 0.05)
            last = f"{block}.{len(kinds)}"
            yield f"{last}.DenseReluDense.wi_0.weight", make.matrix(inner, width, width**-0.5)
            yield f"{last}.DenseReluDense.wi_1.weight", make.matrix(inner, width, width**-0.5)
            yield f"{last}.DenseReluDense.wo.weight", make.matrix(width, inner, inner**-0.5)
            yield f"{last}.layer_norm.weight", make.vector(width, 0.3, 0.05)
        yield f"{part}.final_layer_norm.weight", make.vector(width, 0.3, 0.05)
    yield "lm_head.weight", make.matrix(rows, width, width**-0.5, has_outliers=False)


def quantized_tensors(tensors: Iterator[tuple[str, torch.Tensor]], bits: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield what a published quantized ChatGLM has instead: integers and scales for the four linears of a block."""
    from bianque.quantization.scheme import quantize

    for name, tensor in tensors:
        is_linear = ".layers." in name and name.endswith(".weight") and "layernorm" not in name
        if is_linear:
            integers, scale = quantize(tensor, bits)  # type: ignore[arg-type]
            yield name, integers
            yield f"{name}_scale", scale
        else:
            yield name, tensor


def write_ice_text_model(folder: Path, *, has_published_ids: bool) -> dict[str, int]:
    """Write the tokenizer's model and return what `config.json` says about it."""
    from sentencepiece import sentencepiece_model_pb2

    model: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    model.ParseFromString((MINIS / "mini-adviser" / "ice_text.model").read_bytes())
    pieces = list(model.pieces)
    mask_id = next(index for index, piece in enumerate(pieces) if piece.piece == "[MASK]")
    if has_published_ids:
        unused = model.SentencePiece.UNUSED
        fillers = [
            model.SentencePiece(piece=f"<filler_{index}>", score=0.0, type=unused)
            for index in range(PUBLISHED_MASK_ID - mask_id)
        ]
        del model.pieces[:]
        model.pieces.extend([*pieces[:mask_id], *fillers, *pieces[mask_id:]])
        mask_id = PUBLISHED_MASK_ID
    (folder / "ice_text.model").write_bytes(model.SerializeToString(deterministic=True))
    rows = PUBLISHED_ROWS["bianque-2"] if has_published_ids else len(model.pieces) + NUM_SURPLUS_ROWS
    return {
        "vocab_size": rows,
        "mask_token_id": mask_id,
        "gmask_token_id": mask_id + 1,
        "bos_token_id": mask_id + 4,
        "eos_token_id": mask_id + 5,
        "pad_token_id": 3,
    }


def write_chatglm_files(folder: Path, size: Size, bits: int) -> dict[str, Any]:
    """Write configuration and tokenizer files of BianQue-2.0; return the configuration."""
    ids = write_ice_text_model(folder, has_published_ids=size == "full")
    config = {
        "_name_or_path": "scutcyr/BianQue-2.0",
        "architectures": ["ChatGLMForConditionalGeneration"],
        "auto_map": {
            "AutoConfig": "configuration_chatglm.ChatGLMConfig",
            "AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration",
            "AutoModelForSeq2SeqLM": "modeling_chatglm.ChatGLMForConditionalGeneration",
        },
        **CHATGLM_SIZES[size],
        **ids,
        "layernorm_epsilon": 1e-05,
        "max_sequence_length": 2048,
        "model_type": "chatglm",
        "position_encoding_2d": True,
        "pre_seq_len": None,
        "prefix_projection": False,
        "quantization_bit": bits,
        "torch_dtype": "float16",
        "transformers_version": "4.27.1",
        "use_cache": True,
    }
    write_json(folder / "config.json", config)
    special = {"bos_token_id": ids["bos_token_id"], "eos_token_id": ids["eos_token_id"], "pad_token_id": 3}
    write_json(folder / "generation_config.json", {"_from_model_config": True, **special})
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(MINIS / "mini-adviser" / name, folder / name)
    return config


def write_t5_files(folder: Path, size: Size) -> dict[str, Any]:
    """Write configuration and tokenizer files of BianQue-1.0; return the configuration."""
    import sentencepiece

    for name in ("spiece.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(MINIS / "mini-asker" / name, folder / name)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    config = {
        "_name_or_path": "scutcyr/BianQue-1.0",
        "architectures": ["T5ForConditionalGeneration"],
        **T5_SIZES[size],
        "decoder_start_token_id": 0,
        "dense_act_fn": "gelu_new",
        "dropout_rate": 0.1,
        "eos_token_id": 1,
        "feed_forward_proj": "gated-gelu",
        "initializer_factor": 1.0,
        "is_encoder_decoder": True,
        "is_gated_act": True,
        "layer_norm_epsilon": 1e-06,
        "model_type": "t5",
        "output_past": True,
        "pad_token_id": 0,
        "relative_attention_max_distance": 128,
        "relative_attention_num_buckets": 32,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "transformers_version": "4.28.0",
        "use_cache": True,
        "vocab_size": PUBLISHED_ROWS["bianque-1"] if size == "full" else pieces.get_piece_size() + NUM_SURPLUS_ROWS,
    }
    write_json(folder / "config.json", config)
    special = {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
    write_json(folder / "generation_config.json", {"_from_model_config": True, **special})
    return config


def write_shards(
    folder: Path, tensors: Iterator[tuple[str, torch.Tensor]], total_bytes: int, num_shards: int, file_format: Format
) -> None:
    """Write tensors in order into shards of about equal size, and the index where there is more than one."""
    stem, ending = ("model", "safetensors") if file_format == "safetensors" else ("pytorch_model", "bin")
    shards: list[list[str]] = []
    shard: dict[str, torch.Tensor] = {}
    seen_bytes = 0

    def write() -> None:
        path = folder / f"{stem}-{len(shards) + 1:05}.{ending}"
        if file_format == "safetensors":
            save_file({name: tensor.clone() for name, tensor in shard.items()}, path, {"format": "pt"})
        else:
            torch.save(shard, path)
        shards.append(list(shard))
        shard.clear()

    for name, tensor in tensors:
        if seen_bytes >= (len(shards) + 1) * total_bytes / num_shards:
            write()
        shard[name] = tensor
        seen_bytes += tensor.nbytes
    write()
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        # A small model's large embedding may leave fewer shards than asked for, so the count comes last.
        file = f"{stem}.{ending}" if num_shards == 1 else f"{stem}-{number:05}-of-{len(shards):05}.{ending}"
        (folder / f"{stem}-{number:05}.{ending}").rename(folder / file)
        weight_map |= dict.fromkeys(names, file)
    if num_shards > 1:
        index = {"metadata": {"total_size": seen_bytes}, "weight_map": weight_map}
        write_json(folder / f"{stem}.{ending}.index.json", index)


def make_checkpoint(
    folder: Path,
    model: Model = "bianque-2",
    size: Size = "full",
    file_format: Format = "bin",
    *,
    bits: Literal[0, 4, 8] = 0,
    num_shards: int | None = None,
    seed: int = 1,
) -> None:
    """Write the checkpoint.

    Args:
        folder: made if it does not exist.
        model: which published model's layout.
        size: `full` is the published size.
        file_format: of the shards.
        bits: 8 or 4 for a checkpoint that is quantized already, BianQue-2.0 only.
        num_shards: None for the published number, 8 or 1.
        seed: the same seed gives the same weights.

    Raises:
        ValueError: if BianQue-1.0 is to be quantized; no such checkpoint is published.
    """
    if bits and model == "bianque-1":
        raise ValueError("only BianQue-2.0's architecture has published quantized checkpoints")
    folder.mkdir(parents=True, exist_ok=True)
    config = write_t5_files(folder, size) if model == "bianque-1" else write_chatglm_files(folder, size, bits)
    total_bytes = _total_bytes(config, bits)
    tensors = t5_tensors(config, seed) if model == "bianque-1" else chatglm_tensors(config, seed)
    if bits:
        tensors = quantized_tensors(tensors, bits)
    write_shards(folder, tensors, total_bytes, num_shards or (1 if model == "bianque-1" else 8), file_format)


def _total_bytes(config: dict[str, Any], bits: int) -> int:
    """Return about how large the weights are; it only decides where shards end."""
    if config["model_type"] == "t5":
        width, heads_width = config["d_model"], config["num_heads"] * config["d_kv"]
        layers = config["num_layers"] + config["num_decoder_layers"]
        attentions = layers + config["num_decoder_layers"]
        weights = 4 * width * heads_width * attentions + 3 * width * config["d_ff"] * layers
        return 4 * (weights + 4 * config["vocab_size"] * width)
    width, inner = config["hidden_size"], config["inner_hidden_size"]
    weights = config["num_layers"] * (4 * width * width + 2 * width * inner)
    return weights * (bits or 16) // 8 + 4 * config["vocab_size"] * width


def write_json(path: Path, content: object) -> None:
    """Write a JSON file as the Hub has them."""
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Write a random checkpoint in a published layout.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", choices=("bianque-1", "bianque-2"), default="bianque-2")
    parser.add_argument("--size", choices=("tiny", "small", "full"), default="full")
    parser.add_argument("--format", choices=("bin", "safetensors"), default="bin")
    parser.add_argument("--bits", type=int, choices=(0, 4, 8), default=0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    make_checkpoint(
        arguments.folder, arguments.model, arguments.size, arguments.format, bits=arguments.bits, seed=arguments.seed
    )
    files = sorted(arguments.folder.iterdir())
    print(f"{len(files)} files, {sum(file.stat().st_size for file in files) / 1e9:.2f} GB in {arguments.folder}")


if __name__ == "__main__":
    main()
