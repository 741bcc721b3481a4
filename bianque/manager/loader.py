"""From a checked snapshot folder to a model on a device with its tokenizer and engine.

The files are the published ones, unchanged; see `bianque.manager.weights` for how they are read.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bianque.engine.engine import Engine
from bianque.errors import SettingsError
from bianque.manager.adapters import attach_adapter, find_base, is_adapter, read_adapter
from bianque.manager.download.snapshot import check_snapshot, read_json
from bianque.manager.engines import make_engine
from bianque.manager.registry import Family, ModelSpec, Precision
from bianque.manager.sizes import measure_config
from bianque.manager.weights.quantized_cache import is_hub_snapshot
from bianque.settings import PrecisionChoice, Settings

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
        dtype: precision of the weights: `fp32`, `bf16`, `fp16`, `int8` or `int4`.
        num_parameters: counted from the configuration, tied weights once.
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


def choose_precision(requested: PrecisionChoice, device: str) -> Precision:
    """Return the precision of the weights: what was asked for, else fp32 on a CPU and fp16 on another device."""
    if requested != "auto":
        return requested
    return "fp32" if device == "cpu" else "fp16"


def choose_cache_folder(folder: Path, settings: Settings) -> Path | None:
    """Return where quantized weights of a snapshot are kept for the next start, or None for nowhere.

    By itself only for snapshots in the Hub's cache, beside that cache; a Space without a persistent disk keeps none,
    since nothing would be left of it.
    """
    from huggingface_hub import constants

    cache_folder = Path(constants.HF_HOME) / "bianque" / "quantized"
    if settings.quantized_cache == "auto":
        is_lost = settings.is_space and not cache_folder.is_relative_to("/data")
        return cache_folder if is_hub_snapshot(folder) and not is_lost else None
    return cache_folder if settings.quantized_cache == "on" else None


def load_model(
    folder: Path,
    spec: ModelSpec,
    settings: Settings,
    *,
    has_cuda: bool,
    report: Callable[[int, int], None] | None = None,
    engine_of: Callable[..., Any] = make_engine,
) -> LoadedModel:
    """Load the snapshot in `folder` as `spec` says.

    Args:
        folder: the snapshot, or an adapter whose base is on this disk.
        spec: what it is.
        settings: the device, the precision (`auto` is fp32 on a CPU and fp16 elsewhere), slots, the cache and, on a
            CUDA device, what multiplies by quantized weights.
        has_cuda: whether there is a CUDA device.
        report: called with bytes of weights read and bytes in all.
        engine_of: `engines.make_engine` or a stand-in with its signature.

    Raises:
        SnapshotError: when a file is missing, damaged, of another architecture, or does not fit the configuration or
            the adapter.
        SettingsError: when the device asked for does not exist.
    """
    from bianque.manager.weights.load import load_weights

    started = time.monotonic()
    device = choose_device(settings.device, has_cuda=has_cuda)
    precision = choose_precision(settings.precision, device)
    if device.startswith("cuda"):
        from bianque.quantization import cuda

        cuda.prefer(settings.cuda_backend)
    adapter = read_adapter(folder) if is_adapter(folder) else None
    folder = find_base(adapter) if adapter else folder
    check_snapshot(folder, spec.family)
    encode, decode = _load_tokenizer(folder, spec.family)
    model = load_weights(
        folder,
        spec.family,
        device=device,
        precision=precision,
        report=report,
        cache_folder=choose_cache_folder(folder, settings),
    )
    if adapter is not None:
        attach_adapter(model, adapter, folder, spec.family)
    num_parameters = measure_config(read_json(folder, "config.json"), spec.family).num_parameters
    engine = engine_of(model, spec, settings)
    logger.info(
        "loaded %s: %.1f M parameters, %s on %s, %.1f s",
        spec.name,
        num_parameters / 1e6,
        precision,
        device,
        time.monotonic() - started,
    )
    return LoadedModel(spec, encode, decode, engine, device, precision, num_parameters)


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
