"""From a checked snapshot folder to a model on a device with its tokenizer and engine.

Both families are read by transformers from the published files unchanged; remote code is never run, and pickled shards
are unpickled with `weights_only`.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bianque.engine.engine import Engine
from bianque.errors import SettingsError, SnapshotError
from bianque.manager.engines import make_engine
from bianque.manager.registry import Family, ModelSpec
from bianque.manager.snapshot import check_snapshot, read_json
from bianque.settings import DtypeName, Settings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to generate.

    Attributes:
        spec: what it is.
        encode: prompt text to the token ids the engine takes, special tokens included.
        decode: generated token ids to text, special tokens left out.
        engine: runs the model; shared by all jobs that use the same weights.
        device: where the weights are, for example `cuda:0`.
        dtype: of the weights, `fp32`, `bf16` or `fp16`.
        num_parameters: counted on the loaded model, tied weights once.
    """

    spec: ModelSpec
    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    engine: Engine
    device: str
    dtype: str
    num_parameters: int


def choose_device(requested: str, *, has_cuda: bool) -> str:
    """Return the device to use, `cpu` or `cuda[:N]`.

    Raises:
        SettingsError: if a CUDA device is asked for and there is none.
    """
    if requested == "auto":
        return "cuda" if has_cuda else "cpu"
    if requested.startswith("cuda") and not has_cuda:
        raise SettingsError("device_unavailable", got=requested, available="cpu")
    return requested


def choose_dtype(requested: DtypeName, device: str) -> DtypeName:
    """Return the dtype of the weights: what was asked for, else fp32 on a CPU and fp16 on a CUDA device."""
    if requested != "auto":
        return requested
    return "fp32" if device == "cpu" else "fp16"


def load_model(folder: Path, spec: ModelSpec, settings: Settings, *, has_cuda: bool) -> LoadedModel:
    """Load the snapshot in `folder` as `spec` says.

    Raises:
        SnapshotError: when a file is missing, damaged, of another architecture, or does not fit the configuration.
        SettingsError: when the device asked for does not exist.
    """
    import torch

    started = time.monotonic()
    device = choose_device(settings.device, has_cuda=has_cuda)
    dtype = choose_dtype(settings.dtype, device)
    check_snapshot(folder, spec.family)
    encode, decode = _load_tokenizer(folder, spec.family)
    model = _load_weights(
        folder, spec.family, {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    )
    model.to(torch.device(device))  # type: ignore[arg-type]
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    engine = make_engine(model, spec, settings)
    logger.info(
        "loaded %s: %.1f M parameters, %s on %s, %.1f s",
        spec.name,
        num_parameters / 1e6,
        dtype,
        device,
        time.monotonic() - started,
    )
    return LoadedModel(spec, encode, decode, engine, device, dtype, num_parameters)


def _load_tokenizer(folder: Path, family: Family) -> tuple[Callable[[str], list[int]], Callable[[Sequence[int]], str]]:
    if family == "t5":
        from bianque.tokenization.t5 import BianQueT5Tokenizer

        tokenizer = BianQueT5Tokenizer.from_pretrained(folder)
        return tokenizer.encode, tokenizer.decode

    from bianque.tokenization.chatglm import ChatGLMTokenizer

    chatglm_tokenizer = ChatGLMTokenizer.from_pretrained(folder)
    return (
        lambda prompt: chatglm_tokenizer(prompt)["input_ids"],
        lambda token_ids: chatglm_tokenizer.decode(list(token_ids)),
    )


def _load_weights(folder: Path, family: Family, dtype: torch.dtype) -> PreTrainedModel:
    """Read the weights and refuse any that are missing, left over or misshapen."""
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from bianque.models.auto import register

    register()
    auto_class = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if family == "t5":
            # transformers 5 ties T5's head whatever the file says, then warns about every untied checkpoint.
            config.tie_word_embeddings = bool(read_json(folder, "config.json").get("tie_word_embeddings", True))
        model, info = auto_class.from_pretrained(  # type: ignore[misc]
            folder,
            config=config,
            dtype=dtype,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError, OSError, ValueError, KeyError) as error:
        damaged = find_damaged_shard(folder)
        if damaged:
            raise SnapshotError("snapshot_shard_damaged", file=damaged) from error
        reason = str(error).strip().split("\n")[0][:200]
        raise SnapshotError("snapshot_config_invalid", folder=folder, file="config.json", reason=reason) from error
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    misshapen = sorted(name if isinstance(name, str) else name[0] for name in info["mismatched_keys"])
    if missing or unexpected or misshapen:
        raise SnapshotError(
            "snapshot_tensors_mismatch",
            folder=folder,
            missing=_name_some(missing),
            unexpected=_name_some(unexpected),
            misshapen=_name_some(misshapen),
        )
    return model.eval()


def find_damaged_shard(folder: Path) -> Path | None:
    """Return the first weight file of `folder` that cannot be opened, or None when all can.

    A truncated shard fails deep inside the reader with a message that names no file; this finds the file.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    for shard in sorted((*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin"))):
        try:
            if shard.suffix == ".safetensors":
                with safe_open(shard, framework="pt"):
                    pass
            else:
                torch.load(shard, map_location="meta", weights_only=True)
        except (SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError, OSError, ValueError, KeyError):
            return shard
    return None


def _name_some(names: list[str]) -> str:
    """Name the first three of `names` and count the rest; a wholly different checkpoint would fill the page."""
    if not names:
        return "–"
    rest = f" (+{len(names) - 3})" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest
