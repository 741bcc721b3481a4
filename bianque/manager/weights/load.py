"""From the weight files of a snapshot to a model on its device, holding nothing twice.

    config.json  ->  model on the meta device (no memory), its linears replaced where the precision is int8 or int4
    shards       ->  names and shapes, all checked before any weight is read
    one tensor at a time: mapped, cast or quantized on its way to the device, its pages given back

So the host holds what the model keeps there, the tensor at hand, and for int8 and int4 that tensor's integers.

Remote code is never run and pickles are unpickled with `weights_only`.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bianque.errors import SnapshotError
from bianque.manager.download.snapshot import read_json
from bianque.manager.registry import Family, Precision
from bianque.manager.weights.filling import BITS, ModelFiller, Placement, kept_tensors
from bianque.manager.weights.matching import T5_EMBEDDINGS, match_tensors
from bianque.manager.weights.quantized_cache import QuantizedCache
from bianque.manager.weights.shards import StoredTensor, describe_shards, find_shards, open_shard
from bianque.quantization.digit_layers import replace_tied_head
from bianque.quantization.embedding import StoredEmbedding
from bianque.quantization.half import replace_head
from bianque.quantization.linear import replace_linears, selects_linear
from bianque.quantization.scheme import Bits

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

Report = Callable[[int, int], None]


def load_weights(
    folder: Path,
    family: Family,
    *,
    device: str,
    precision: Precision,
    report: Report | None = None,
    cache_folder: Path | None = None,
) -> PreTrainedModel:
    """Load a model in evaluation mode, ready to run.

    Args:
        folder: a checked snapshot, as published: float weights, or already quantized ones.
        family: its architecture.
        device: as torch names it.
        precision: of the weights.
        report: called with bytes read and bytes in all, after every tensor and in the calling thread.
        cache_folder: where quantized weights are kept for the next start; None keeps none. Made if needed; what
            cannot be written there is only logged.

    Raises:
        SnapshotError: when a file is missing or damaged, the configuration is not usable, or tensors are missing,
            left over, misshapen or not finite.
    """
    placement = Placement.choose(device, precision)
    if placement.bits is None or cache_folder is None or _is_quantized_at(folder, placement.bits):
        return _load(folder, family, placement, find_shards(folder), report)
    cache = QuantizedCache.locate(cache_folder, folder, f"{family}-{precision}-{placement.device.type}")
    with cache.lock() as is_mine:
        if cache.path.is_file():
            try:
                return _load(folder, family, placement, [cache.path], report, check=cache.checker())
            except SnapshotError as error:
                logger.warning("%s It is made again.", error)
                if is_mine:
                    cache.discard()
        model = _load(folder, family, placement, find_shards(folder), report)
        if is_mine:
            cache.write(kept_tensors(model))
    return model


def _is_quantized_at(folder: Path, bits: Bits) -> bool:
    """Whether the snapshot itself is quantized to these bits: there is nothing for a cache to save."""
    return read_json(folder, "config.json").get("quantization_bit") == bits


def _load(
    folder: Path,
    family: Family,
    placement: Placement,
    shards: list[Path],
    report: Report | None,
    check: Callable[[str, torch.Tensor], None] | None = None,
) -> PreTrainedModel:
    """Build the model and fill it from these weight files; `check` sees every tensor before it is used."""
    stored = describe_shards(shards)
    model = build_model(folder, family, placement, stored)
    targets = match_tensors(model, family, stored, folder)
    filler = ModelFiller(model, placement, stored, check)
    done, total = 0, sum(tensor.num_bytes for tensor in stored.values())
    for path in shards:
        with open_shard(path) as shard:
            for name in shard.names:
                if stored[name].shard != path:  # a later shard has it too, and wins
                    continue
                filler.fill(shard, name, targets.get(name, ()))
                done += stored[name].num_bytes
                if report is not None:
                    report(done, total)
    _return_freed_memory()
    unfilled = [name for name, tensor in (*model.named_parameters(), *model.named_buffers()) if tensor.is_meta]
    assert not unfilled, unfilled
    return model.eval()


def build_model(
    folder: Path, family: Family, placement: Placement, stored: Mapping[str, StoredTensor]
) -> PreTrainedModel:
    """Return the model without memory for its weights, its linears and embeddings replaced as the placement needs.

    Raises:
        SnapshotError: if the configuration cannot be used.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import GenerationConfig, T5Config, T5ForConditionalGeneration

    from bianque.models.chatglm import ChatGLMConfig, ChatGLMForConditionalGeneration

    content = read_json(folder, "config.json")
    if content.get("quantization_bit") in BITS.values():
        # The stored integers are recognised by their dtype; the model itself is the same.
        content.pop("quantization_bit")
    try:
        with torch.device("meta"):
            model: Any
            if family == "t5":
                config = T5Config.from_dict(content)
                # transformers 5 ties T5's head whatever the file says.
                config.tie_word_embeddings = bool(content.get("tie_word_embeddings", True))
                config.dtype = placement.dtype
                if placement.bits is not None and config.dense_act_fn == "gelu_new":
                    # The same function in one operation instead of eight; its last bits differ.
                    config.dense_act_fn = "gelu_pytorch_tanh"
                model = T5ForConditionalGeneration(config)
            else:
                chatglm_config = ChatGLMConfig.from_dict(content)
                chatglm_config.dtype = placement.dtype
                model = ChatGLMForConditionalGeneration(chatglm_config)
        if (folder / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    except (StrictDataclassError, ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise SnapshotError("snapshot_config_invalid", folder=folder, file="config.json", reason=reason) from error
    if placement.bits is not None:
        replace_linears(
            model,
            placement.bits,
            device=placement.device,
            dtype=placement.dtype,
            select=selects_linear(family),
        )
        if placement.device.type == "cpu" and family == "chatglm":
            replace_tied_head(model)
        elif placement.device.type == "cpu":
            _replace_embeddings(model, placement, stored)
            replace_head(model)
    return model


def _replace_embeddings(model: PreTrainedModel, placement: Placement, stored: Mapping[str, StoredTensor]) -> None:
    """Keep T5's tables of tokens in fp16 where nothing is lost by it, see `StoredEmbedding`."""
    for name in T5_EMBEDDINGS:
        if name not in stored or stored[name].dtype != torch.float16:
            continue
        parent_name, _, child_name = name.removesuffix(".weight").rpartition(".")
        parent = model.get_submodule(parent_name)
        rows, columns = getattr(parent, child_name).weight.shape
        table = StoredEmbedding(rows, columns, stored_dtype=torch.float16, dtype=placement.dtype)
        setattr(parent, child_name, table)


def _return_freed_memory() -> None:
    """Give the system what the C library keeps of freed intermediate results; glibc alone can, and keeps some."""
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
