"""A whole model in the Hub's layout, from trained weights or from a base and an adapter merged into it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bianque.errors import DataError
from bianque.finetune.base import Base
from bianque.manager.adapters import LowRank, check_base, other_base, read_adapter, read_matrices
from bianque.manager.download.hub import SMALL_FILES
from bianque.manager.weights.matching import is_quantized
from bianque.manager.weights.shards import describe_shards, find_shards, open_shard

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

SHARD_SIZE = "5GB"
INDEX_FILE = "model.safetensors.index.json"


def save_whole(model: PreTrainedModel, state: Mapping[str, torch.Tensor], folder: Path, base: Base) -> None:
    """Write a model whose weights were trained, in the precision of its base's files.

    Args:
        model: for the way its class saves.
        state: its weights, complete and on any device.
        folder: to write into.
        base: what it was before; its configuration and tokenizer files are copied.
    """
    dtype = _stored_dtype(base.folder)
    # Cloned, because tensors that share memory would be left out, and the published files hold every name.
    kept = {name: value.detach().to("cpu", dtype).clone() for name, value in state.items()}
    model.save_pretrained(folder, state_dict=kept, max_shard_size=SHARD_SIZE)
    _copy_small_files(base.folder, folder)


def merge_adapter(adapter_folder: Path, base: Base, output: Path) -> int:
    """Write the base with an adapter added to its weights, one file at a time; return how many linears changed.

    The sums are computed in fp32 and rounded to the precision of the base's files.

    Raises:
        SnapshotError: if the adapter belongs to another base, or a file cannot be read.
        DataError: if the base's files hold quantized weights.
    """
    from safetensors.torch import save_file

    adapter = read_adapter(adapter_folder)
    check_base(adapter, base.folder, base.spec.family)
    matrices = read_matrices(adapter)
    shards = find_shards(base.folder)
    stored = describe_shards(shards)
    if any(is_quantized(tensor) for tensor in stored.values()):
        raise DataError("adapter_merge_quantized", folder=base.folder)
    for name, low_rank in matrices.items():
        tensor = stored.get(f"{name}.weight")
        if tensor is None or tensor.shape != low_rank.shape:
            raise other_base(adapter, base.folder, name)
    output.mkdir(parents=True, exist_ok=True)
    names = _shard_names(len(shards))
    weight_map: dict[str, str] = {}
    total = 0
    for path, shard_name in zip(shards, names, strict=True):
        with open_shard(path) as shard:
            tensors = {
                name: _merged(shard.read(name), matrices.get(name.removesuffix(".weight")))
                for name in shard.names
                if stored[name].shard == path
            }
            save_file(tensors, output / shard_name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, shard_name)
        total += sum(tensor.nbytes for tensor in tensors.values())
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (output / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    _copy_small_files(base.folder, output)
    return len(matrices)


def _merged(weight: torch.Tensor, low_rank: LowRank | None) -> torch.Tensor:
    if low_rank is None:
        return weight.clone()
    return (weight.float() + low_rank.delta()).to(weight.dtype)


def _shard_names(number: int) -> list[str]:
    if number == 1:
        return ["model.safetensors"]
    return [f"model-{index:05}-of-{number:05}.safetensors" for index in range(1, number + 1)]


def _stored_dtype(folder: Path) -> torch.dtype:
    """Return the precision in which most of a snapshot's float weights are stored."""
    sizes: Counter[torch.dtype] = Counter()
    for tensor in describe_shards(find_shards(folder)).values():
        if tensor.dtype.is_floating_point:
            sizes[tensor.dtype] += tensor.num_bytes
    return sizes.most_common(1)[0][0]


def _copy_small_files(source: Path, target: Path) -> None:
    """Copy configuration and tokenizer; what transformers wrote of its own gives way to the published files."""
    for name in sorted(SMALL_FILES):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    config = json.loads((target / "config.json").read_text("utf-8"))
    if config.get("quantization_bit"):
        config["quantization_bit"] = 0  # what was written are floats
        (target / "config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", "utf-8")
