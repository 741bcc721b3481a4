"""LoRA adapters: a folder in peft's layout that changes a base model, and how it is put beside the base's weights.

    adapter_config.json         peft's own: rank, scale, linears, and the base's repo and revision
    adapter_model.safetensors   base_model.model.NAME.lora_A.weight (r, in) and lora_B.weight (out, r)
    bianque_adapter.json        what peft has no field for: architecture, the base's fingerprint, a name, the prompts

The last file is ours and may be absent: adapters that were made elsewhere open as well, as far as they are plain LoRA.
peft itself is not needed to run an adapter.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bianque.errors import SnapshotError
from bianque.manager.download.snapshot import local_snapshot, read_json
from bianque.manager.registry import DEMONSTRATION_MODELS, REAL_MODELS, Family, Template
from bianque.settings import ModelSource

if TYPE_CHECKING:
    import torch
    from torch import nn

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
ORIGIN_FILE = "bianque_adapter.json"

_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
# What peft can do beyond plain LoRA, and the value of each at which it does not.
_PLAIN: dict[str, tuple[object, ...]] = {
    "use_dora": (None, False),
    "modules_to_save": (None, []),
    "bias": (None, "none"),
    "lora_bias": (None, False),
    "fan_in_fan_out": (None, False),
    "trainable_token_indices": (None, [], {}),
    "alora_invocation_tokens": (None, []),
}


@dataclass(frozen=True)
class Adapter:
    """What an adapter's files say of it, weights aside.

    Attributes:
        folder: of its files.
        base: the model it changes: a name of the catalogue, a Hub repo or a folder, and the revision.
        name: as shown to people; empty if nobody gave one.
        family: the base's architecture; None if it is not recorded.
        template: the prompts it was trained on; None if they are the base's.
        fingerprint: of the base's weights, see `fingerprint`; empty if it is not recorded.
        config: adapter_config.json.
    """

    folder: Path
    base: ModelSource
    name: str
    family: Family | None
    template: Template | None
    fingerprint: str
    config: Mapping[str, Any]

    def scale_of(self, module: str, rank: int) -> float:
        """Return by what the product of the two matrices of a linear is multiplied."""
        alpha = _pattern_value(self.config.get("alpha_pattern"), module, self.config.get("lora_alpha", rank))
        return float(alpha) / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


def is_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter rather than a whole model."""
    return os.path.isfile(folder / CONFIG_FILE) and not os.path.isfile(folder / "config.json")


def read_adapter(folder: Path) -> Adapter:
    """Read what an adapter says of itself.

    Raises:
        SnapshotError: if a file is missing or unreadable, or the adapter is more than plain LoRA.
    """
    config = read_json(folder, CONFIG_FILE)
    origin = read_json(folder, ORIGIN_FILE) if (folder / ORIGIN_FILE).is_file() else {}
    if config.get("peft_type") != "LORA":
        raise SnapshotError("adapter_unsupported", folder=folder, name="peft_type", value=config.get("peft_type"))
    for name, plain in _PLAIN.items():
        if config.get(name) not in plain:
            raise SnapshotError("adapter_unsupported", folder=folder, name=name, value=config[name])
    location = config.get("base_model_name_or_path")
    if not isinstance(location, str) or not location:
        reason = "no base_model_name_or_path"
        raise SnapshotError("snapshot_config_invalid", folder=folder, file=CONFIG_FILE, reason=reason)
    family, template = origin.get("architecture"), origin.get("template")
    return Adapter(
        folder,
        ModelSource(location, config.get("revision") or None),
        str(origin.get("name") or ""),
        cast(Family, family) if family in ("t5", "chatglm") else None,
        cast(Template, template) if template in ("bianque", "soulchat") else None,
        str(origin.get("base_fingerprint") or ""),
        config,
    )


def base_source(adapter: Adapter) -> ModelSource:
    """Return where the base is to be had; a name of the catalogue becomes its address."""
    for spec in (*REAL_MODELS.values(), *DEMONSTRATION_MODELS.values()):
        if adapter.base.location.lower() == spec.name.lower():
            return ModelSource(spec.location, adapter.base.revision)
    return adapter.base


def find_base(adapter: Adapter) -> Path:
    """Return the folder of the base's files, which must be on this disk.

    Raises:
        SnapshotError: if it is not, or is an adapter itself.
    """
    folder = local_snapshot(base_source(adapter))
    if folder is None:
        raise SnapshotError("adapter_base_missing", folder=adapter.folder, base=adapter.base.location)
    if is_adapter(folder):
        value = f"{adapter.base.location} (LoRA)"
        raise SnapshotError("adapter_unsupported", folder=adapter.folder, name="base_model_name_or_path", value=value)
    return folder


def fingerprint(folder: Path) -> str:
    """Return a short digest of a model's weights that tells it from other models of the same shapes.

    Of every float tensor its shape and first row go in, rounded to fp16, so that the same weights in another file
    format or precision give the same digest.

    Raises:
        SnapshotError: if a weight file is missing or damaged.
    """
    from bianque.manager.weights.shards import find_shards, open_shard

    digests = {}
    for path in find_shards(folder):
        with open_shard(path) as shard:
            for name in shard.names:
                tensor = shard.read(name)
                # Stored with every layer of some checkpoints and left out of others.
                if tensor.is_floating_point() and not name.endswith("inv_freq"):
                    row = (tensor[0] if tensor.dim() > 1 else tensor).half().contiguous().numpy().tobytes()
                    digests[name] = hashlib.sha256(f"{tuple(tensor.shape)}".encode() + row).digest()
    whole = hashlib.sha256()
    for name in sorted(digests):
        whole.update(name.encode() + digests[name])
    return whole.hexdigest()[:32]


def check_base(adapter: Adapter, folder: Path, family: Family) -> None:
    """Refuse another base than the one the adapter was trained beside, as far as that is recorded.

    Raises:
        SnapshotError: `adapter_other_base`.
    """
    if adapter.family is not None and adapter.family != family:
        raise other_base(adapter, folder, f"{adapter.family} / {family}")
    if adapter.fingerprint and adapter.fingerprint != (found := fingerprint(folder)):
        raise other_base(adapter, folder, f"{adapter.fingerprint} / {found}")


@dataclass(frozen=True)
class LowRank:
    """The two matrices of one linear, as stored: `down` (r, in), `up` (out, r), and the scale of their product."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the linear's weight, (out, in)."""
        return self.up.shape[0], self.down.shape[1]

    def delta(self) -> torch.Tensor:
        """Return what is added to the weight, (out, in) in fp32."""
        return (self.up.float() @ self.down.float()) * self.scale


def read_matrices(adapter: Adapter) -> dict[str, LowRank]:
    """Return the matrices by the full name of their linear in the base.

    Raises:
        SnapshotError: if the file is missing or damaged, or holds something else.
    """
    from bianque.manager.weights.shards import open_shard

    path = adapter.folder / WEIGHTS_FILE
    if not path.is_file():
        raise SnapshotError("snapshot_file_missing", folder=adapter.folder, file=WEIGHTS_FILE)
    with open_shard(path) as shard:
        tensors = {name: shard.read(name).clone() for name in shard.names}
    names = {name[len(_PREFIX) : -len(_DOWN)] for name in tensors if name.endswith(_DOWN)}
    wanted = {f"{_PREFIX}{name}{part}" for name in names for part in (_DOWN, _UP)}
    if not names or wanted != set(tensors):
        unexpected = ", ".join(sorted(wanted ^ set(tensors))[:3]) or "–"
        raise SnapshotError("adapter_unsupported", folder=adapter.folder, name=WEIGHTS_FILE, value=unexpected)
    matrices = {}
    for name in sorted(names):
        down, up = tensors[f"{_PREFIX}{name}{_DOWN}"], tensors[f"{_PREFIX}{name}{_UP}"]
        if down.dim() != 2 or up.dim() != 2 or up.shape[1] != down.shape[0]:
            raise SnapshotError("adapter_unsupported", folder=adapter.folder, name=name, value=tuple(down.shape))
        matrices[name] = LowRank(down, up, adapter.scale_of(name, down.shape[0]))
    return matrices


def attach_adapter(model: nn.Module, adapter: Adapter, base_folder: Path, family: Family) -> None:
    """Put an adapter beside the loaded weights of its base, in place.

    Args:
        model: the loaded base, in any precision.
        adapter: what to put beside it.
        base_folder: where the base was loaded from.
        family: its architecture.

    Raises:
        SnapshotError: if the adapter belongs to another base, or cannot be read.
    """
    from bianque.models.low_rank import LowRankLinear

    check_base(adapter, base_folder, family)
    dtype = next(model.parameters()).dtype
    for name, matrices in read_matrices(adapter).items():
        parent_name, _, child_name = name.rpartition(".")
        try:
            parent = model.get_submodule(parent_name)
            linear: Any = getattr(parent, child_name)
            shape = (linear.out_features, linear.in_features)
        except AttributeError as error:
            raise other_base(adapter, base_folder, name) from error
        if shape != matrices.shape:
            raise other_base(adapter, base_folder, f"{name}: {matrices.shape} / {shape}")
        device = linear.weight.device
        down = matrices.down.to(device, dtype)
        up = (matrices.up.float() * matrices.scale).to(device, dtype)
        setattr(parent, child_name, LowRankLinear(linear, down, up))


def other_base(adapter: Adapter, folder: Path, reason: str) -> SnapshotError:
    """Return the error that says that the model in `folder` is not the adapter's base, and what differs."""
    return SnapshotError(
        "adapter_other_base", folder=adapter.folder, expected=adapter.base.location, got=folder, reason=reason
    )


def _pattern_value(pattern: Any, module: str, default: Any) -> Any:
    """Return what a pattern of peft says for a linear: its keys are ends of names."""
    for key, value in (pattern or {}).items():
        if module == key or module.endswith(f".{key}"):
            return value
    return default
