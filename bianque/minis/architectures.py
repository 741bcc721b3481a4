"""The two demonstration models as training sees them: size, tokens, batches, loss, and their folder."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Literal

import sentencepiece
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel, T5Config, T5ForConditionalGeneration

from bianque.minis.dialogues import Sample
from bianque.minis.ice_text import IceTextIds
from bianque.minis.knowledge import Knowledge
from bianque.minis.prompts import prompt_of
from bianque.minis.vocabulary import build_adviser_tokenizer, build_asker_tokenizer, write_json
from bianque.models.chatglm import ChatGLMConfig, ChatGLMForConditionalGeneration

SAMPLED_SHARE = 0.6
"""Share of prompts that are cut into pieces at random (subword regularisation): new wordings look less strange."""
DROPPED_SHARE = 0.05
"""Share of the pieces of those prompts that are left out, so that no reply hangs on a single word."""
SAMPLING_SHARPNESS = 0.3
"""0 cuts everywhere alike, 1 nearly as the tokenizer does."""
NUM_DECIDING = 10
DECIDING_WEIGHT = 3.0
"""The first so many target tokens count so many times in the adviser's loss."""
SHARD_SIZE = "9MB"


@dataclass(frozen=True)
class Encoded:
    """One sample as ids; `target` includes the end token."""

    prompt: list[int]
    target: list[int]


@dataclass(frozen=True)
class Batch:
    """Padded ids (B, T) and what belongs to them; labels are -100 where nothing is learnt."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor
    num_tokens: int

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        ids, mask, labels = (tensor.to(device) for tensor in (self.input_ids, self.attention_mask, self.labels))
        return Batch(ids, mask, labels, self.num_tokens)


class MiniModel(ABC):
    """What differs between the two models."""

    name: ClassVar[str]
    speaker: ClassVar[Literal["asker", "adviser"]]
    model_file: ClassVar[str]

    def __init__(self, knowledge: Knowledge, folder: Path, seed: int, start: Path | None = None) -> None:
        """Make the tokenizer files in `folder`, from the corpus with `seed`, or take those of the model in `start`."""
        self.folder = folder
        if start is None:
            self._make_tokenizer(knowledge, seed)
        else:
            self._take_tokenizer(start)
        sentencepiece.set_random_generator_seed(seed)
        self._processor = sentencepiece.SentencePieceProcessor(str(folder / self.model_file))

    def encode(self, sample: Sample, rng: Random) -> Encoded:
        """Return the ids; the prompt is now and then cut into pieces at random."""
        prompt, target = prompt_of(sample).replace("\n", "<n>"), sample.target.text
        ids = self._processor.encode(prompt)
        if rng.random() < SAMPLED_SHARE:
            sampled = self._processor.encode(prompt, enable_sampling=True, alpha=SAMPLING_SHARPNESS, nbest_size=-1)
            # Rarely a marker of a line's end is cut up, which inference never does.
            newline = self._processor.piece_to_id("<n>")
            if sampled.count(newline) == ids.count(newline):
                ids = [piece for piece in sampled if piece == newline or rng.random() > DROPPED_SHARE]
        return self._with_specials(ids, self._processor.encode(target))

    def save(self, model: nn.Module) -> None:
        """Write the weights in fp16, sharded, and the configuration files, as the Hub's folder has them."""
        assert isinstance(model, PreTrainedModel)
        for path in self.folder.glob("*.safetensors*"):
            path.unlink()
        # Cloned, because tensors that share memory would be left out, and the published files hold every name.
        state = {name: value.detach().half().cpu().clone() for name, value in model.state_dict().items()}
        model.save_pretrained(self.folder, state_dict=state, max_shard_size=SHARD_SIZE)
        written = json.loads((self.folder / "config.json").read_text("utf-8"))
        config = self._config()
        write_json(self.folder / "config.json", {**config, "transformers_version": written["transformers_version"]})
        keys = ("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id")
        generation = {key: config[key] for key in keys if key in config}
        version = {"_from_model_config": True, "transformers_version": written["transformers_version"]}
        write_json(self.folder / "generation_config.json", {**generation, **version})

    def rate_scale(self, name: str) -> float:
        """Return by what the learning rate of a parameter is multiplied."""
        return 1.0

    @abstractmethod
    def build(self) -> PreTrainedModel:
        """Return the model with fresh weights."""

    @abstractmethod
    def collate(self, rows: Sequence[Encoded]) -> Batch:
        """Pad rows into a batch."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the mean loss over the targets."""

    @abstractmethod
    def _config(self) -> dict[str, Any]:
        """Return config.json under the published key names."""

    @abstractmethod
    def _make_tokenizer(self, knowledge: Knowledge, seed: int) -> None:
        """Write the tokenizer files."""

    def _take_tokenizer(self, start: Path) -> None:
        """Copy the tokenizer files of a saved model."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in (self.model_file, "special_tokens_map.json", "tokenizer_config.json"):
            shutil.copy(start / name, self.folder)

    @abstractmethod
    def _with_specials(self, prompt: list[int], target: list[int]) -> Encoded:
        """Add the special ids that inference adds."""


class MiniAsker(MiniModel):
    """T5 with few decoder layers: the prompt is read once, and each new token costs little."""

    name = "mini-asker"
    speaker = "asker"
    model_file = "spiece.model"

    def build(self) -> PreTrainedModel:
        """Return the model with fresh weights."""
        config = {key: value for key, value in self._config().items() if key not in ("torch_dtype", "_name_or_path")}
        configuration = T5Config(**config)
        configuration.tie_word_embeddings = False  # transformers 5 overrides the argument
        model = T5ForConditionalGeneration(configuration)
        # Untied, transformers 5 gives encoder and decoder embeddings of their own; the published ones are equal.
        model.set_input_embeddings(model.shared)
        # transformers draws embedding and untied head with a deviation of 1. The head then starts at a loss of 50, and
        # beside such an embedding the decoder hardly feels what cross-attention brings it from the prompt: smaller
        # embeddings and a stronger output of cross-attention end the long phase of answering blindly sooner.
        nn.init.normal_(model.shared.weight, std=0.2)
        nn.init.normal_(model.lm_head.weight, std=0.05)
        block: Any
        for block in model.decoder.block:
            nn.init.normal_(block.layer[1].EncDecAttention.o.weight, std=0.2)
        return model

    def rate_scale(self, name: str) -> float:
        """Slow down the query weights: T5 folds 1/sqrt(d_kv) into them, and Adam's steps do not follow that scale.

        At the full rate the attention saturates within the first steps, and the decoder never learns to look at the
        prompt.
        """
        return 0.125 if name.endswith(".q.weight") else 1.0

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        """Pad on the right, as the published tokenizer does."""
        width, target_width = (
            max(map(len, column)) for column in ((r.prompt for r in rows), (r.target for r in rows))
        )
        input_ids = torch.tensor([row.prompt + [0] * (width - len(row.prompt)) for row in rows])
        labels = torch.tensor([row.target + [-100] * (target_width - len(row.target)) for row in rows])
        return Batch(input_ids, (input_ids != 0).long(), labels, input_ids.numel() + labels.numel())

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return transformers' own loss, which shifts the labels itself."""
        return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss

    def _config(self) -> dict[str, Any]:
        return {
            "_name_or_path": self.name,
            "architectures": ["T5ForConditionalGeneration"],
            "d_ff": 640,
            "d_kv": 64,
            "d_model": 256,
            "decoder_start_token_id": 0,
            "dense_act_fn": "gelu_new",
            "dropout_rate": 0.0,
            "eos_token_id": 1,
            "feed_forward_proj": "gated-gelu",
            "initializer_factor": 1.0,
            "is_encoder_decoder": True,
            "is_gated_act": True,
            "layer_norm_epsilon": 1e-6,
            "model_type": "t5",
            "num_decoder_layers": 2,
            "num_heads": 4,
            "num_layers": 4,
            "output_past": True,
            "pad_token_id": 0,
            "relative_attention_max_distance": 128,
            "relative_attention_num_buckets": 32,
            "tie_word_embeddings": False,
            "torch_dtype": "float16",
            "use_cache": True,
            "vocab_size": self._processor.get_piece_size(),
        }

    def _make_tokenizer(self, knowledge: Knowledge, seed: int) -> None:
        build_asker_tokenizer(knowledge, self.folder, seed)

    def _with_specials(self, prompt: list[int], target: list[int]) -> Encoded:
        return Encoded([*prompt, 1], [*target, 1])


class MiniAdviser(MiniModel):
    """ChatGLM: the prompt in both directions, then `[gMASK] <sop>`, the reply and `<eop>`."""

    name = "mini-adviser"
    speaker = "adviser"
    model_file = "ice_text.model"

    def build(self) -> PreTrainedModel:
        """Return the model with fresh weights."""
        skipped = ("torch_dtype", "_name_or_path", "architectures")
        config = {key: value for key, value in self._config().items() if key not in skipped}
        model = ChatGLMForConditionalGeneration(ChatGLMConfig(**config))
        # The residual scale of 7.5 is made for 28 layers. With the usual start (deviation 0.02, norms of 1) a few
        # layers would add next to nothing to it, and the model would learn many times more slowly.
        layer: Any
        for layer in model.transformer.layers:
            nn.init.constant_(layer.input_layernorm.weight, 0.35)
            nn.init.constant_(layer.post_attention_layernorm.weight, 0.35)
            nn.init.normal_(layer.attention.query_key_value.weight, std=0.17)
            nn.init.normal_(layer.attention.dense.weight, std=0.3)
            nn.init.normal_(layer.mlp.dense_h_to_4h.weight, std=0.17)
            nn.init.normal_(layer.mlp.dense_4h_to_h.weight, std=0.1)
        return model

    def collate(self, rows: Sequence[Encoded]) -> Batch:
        """Pad on the left, as the published tokenizer does."""
        width = max(len(row.prompt) + len(row.target) for row in rows)
        lefts = [width - len(row.prompt) - len(row.target) for row in rows]
        pad = self._ids.pad_token_id
        input_ids = torch.tensor(
            [[pad] * left + row.prompt + row.target for left, row in zip(lefts, rows, strict=True)]
        )
        labels = torch.tensor(
            [[-100] * (left + len(row.prompt)) + row.target for left, row in zip(lefts, rows, strict=True)]
        )
        attention_mask = torch.tensor([[0] * left + [1] * (width - left) for left in lefts])
        return Batch(input_ids, attention_mask, labels, input_ids.numel())

    def loss(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Return the loss; logits are computed for the targets only, which are a third of the tokens."""
        assert isinstance(model, ChatGLMForConditionalGeneration)
        hidden_states = model.transformer(batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        labels = batch.labels[:, 1:]
        is_target = labels != -100
        losses = functional.cross_entropy(
            model.lm_head(hidden_states[:, :-1][is_target]), labels[is_target], reduction="none"
        )
        # A reply's first words decide what it is about; the many that follow nearly always follow from them.
        weights = torch.where(is_target.cumsum(1) <= NUM_DECIDING, DECIDING_WEIGHT, 1.0)[is_target]
        return (losses * weights).sum() / weights.sum()

    def _config(self) -> dict[str, Any]:
        ids = self._ids
        return {
            "_name_or_path": self.name,
            "architectures": ["ChatGLMForConditionalGeneration"],
            "bos_token_id": ids.bos_token_id,
            "eos_token_id": ids.eos_token_id,
            "gmask_token_id": ids.gmask_token_id,
            "hidden_size": 256,
            "inner_hidden_size": 768,
            "layernorm_epsilon": 1e-5,
            "mask_token_id": ids.mask_token_id,
            "max_sequence_length": 2048,
            "model_type": "chatglm",
            "num_attention_heads": 4,
            "num_layers": 4,
            "pad_token_id": ids.pad_token_id,
            "position_encoding_2d": True,
            "pre_seq_len": None,
            "prefix_projection": False,
            "quantization_bit": 0,
            "torch_dtype": "float16",
            "use_cache": True,
            "vocab_size": ids.num_pieces,
        }

    def _make_tokenizer(self, knowledge: Knowledge, seed: int) -> None:
        self._ids = build_adviser_tokenizer(knowledge, self.folder, seed)

    def _take_tokenizer(self, start: Path) -> None:
        super()._take_tokenizer(start)
        config = json.loads((start / "config.json").read_text("utf-8"))
        names = [field.name for field in fields(IceTextIds)]
        self._ids = IceTextIds(**{name: config["vocab_size" if name == "num_pieces" else name] for name in names})

    def _with_specials(self, prompt: list[int], target: list[int]) -> Encoded:
        ids = self._ids
        return Encoded([*prompt, ids.gmask_token_id, ids.bos_token_id], [*target, ids.eos_token_id])


MINIS: dict[str, type[MiniModel]] = {"asker": MiniAsker, "adviser": MiniAdviser}
