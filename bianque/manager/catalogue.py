"""Every model that can be named: the published ones, the small ones that travel with the project, the owner's own.

The owner's own is any folder or Hub repo of the two architectures, or an adapter for such a model. What is not known
of it before its files are here is taken from the published model for the same job.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bianque.errors import SettingsError, SnapshotError
from bianque.manager.adapters import base_source, find_base, is_adapter, read_adapter
from bianque.manager.download.snapshot import local_folder, read_json
from bianque.manager.memory import Machine
from bianque.manager.precision import POSSIBLE, budget_bytes, needed_bytes
from bianque.manager.registry import (
    BIANQUE_1,
    BIANQUE_2,
    DEMONSTRATION_MODELS,
    MINI_ADVISER,
    MINI_ASKER,
    PRECISIONS,
    REAL_MODELS,
    SOULCHAT,
    Family,
    Job,
    ModelSpec,
    Precision,
)
from bianque.manager.sizes import measure_config
from bianque.settings import ModelSource

KNOWN_MODELS = (BIANQUE_1, BIANQUE_2, SOULCHAT, MINI_ASKER, MINI_ADVISER)
FAMILIES: dict[str, Family] = {"t5": "t5", "chatglm": "chatglm"}


@dataclass(frozen=True)
class Fit:
    """Whether one model alone fits a machine at one precision.

    Attributes:
        precision: of the weights.
        weight_bytes: of the weights alone.
        needed_bytes: weights and the KV cache of one visitor.
        is_possible: whether the device can compute at this precision at all.
        room_for: visitors that fit; 0 if it does not fit.
        budget_bytes: what models may take of the device.
    """

    precision: Precision
    weight_bytes: int
    needed_bytes: int
    is_possible: bool
    room_for: int
    budget_bytes: int


def describe_source(source: ModelSource, job: Job) -> tuple[ModelSpec, ModelSource]:
    """Return what is known of a model that was named for `job`, and the source with a known name made an address.

    Args:
        source: a name of the catalogue, a Hub repo id or a folder.
        job: what it shall do.
    """
    known = _find_known(source.location, job)
    if known is not None:
        return known, replace(source, location=known.location)
    name = source.location.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]
    spec = replace(REAL_MODELS[job], name=name, location=source.location, licence="", size=None)
    folder = local_folder(source)
    if folder is not None:
        try:
            spec = describe_folder(folder, spec)
        except SnapshotError:
            pass  # what is wrong with it is said when it is loaded
    return spec, source


def describe_folder(folder: Path, spec: ModelSpec) -> ModelSpec:
    """Return `spec` with what the files say: family, size and longest sequence; a published model stays as it is.

    An adapter is described by its base, which must be on this disk unless it is a published model.

    Raises:
        SnapshotError: if config.json cannot be read, lacks a size or is of another architecture.
    """
    if spec.size is not None:
        return spec
    if is_adapter(folder):
        return _describe_adapter(folder, spec)
    config = read_json(folder, "config.json")
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        expected, got = " / ".join(FAMILIES), config.get("model_type")
        raise SnapshotError("snapshot_wrong_architecture", folder=folder, expected=expected, got=got)
    try:
        size = measure_config(config, family)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise SnapshotError("snapshot_config_invalid", folder=folder, file="config.json", reason=reason) from error
    if family != spec.family:
        model = next(model for model in (BIANQUE_1, BIANQUE_2) if model.family == family)
        spec = replace(spec, family=family, max_prompt_tokens=model.max_prompt_tokens, sampling=model.sampling)
    longest = min(size.max_length or spec.max_prompt_tokens, spec.max_prompt_tokens)
    return replace(spec, size=size, max_prompt_tokens=longest)


def _describe_adapter(folder: Path, spec: ModelSpec) -> ModelSpec:
    adapter = read_adapter(folder)
    base = _find_known(base_source(adapter).location, spec.job)
    if base is None:
        base = describe_folder(find_base(adapter), spec)
    name, template = adapter.name or spec.name, adapter.template or base.template
    return replace(base, name=name, location=spec.location, template=template)


def check_source(source: ModelSource) -> None:
    """Refuse what can be neither a folder, a repo id nor a name of the catalogue.

    Raises:
        SettingsError: `model_unknown`, with the names that are near.
    """
    location = source.location
    looks_like_address = "/" in location or "\\" in location or location.startswith((".", "~"))
    if looks_like_address or local_folder(source) or any(_is_called(spec, location) for spec in KNOWN_MODELS):
        return
    names = {name.lower(): name for spec in KNOWN_MODELS for name in (spec.name, _repo_id(spec)) if name}
    near = [names[name] for name in difflib.get_close_matches(location.lower(), names, n=3, cutoff=0.4)]
    raise SettingsError("model_unknown", name=location, near=", ".join(near or names.values()))


def fits(spec: ModelSpec, machine: Machine, limit_bytes: int = 0) -> Iterator[Fit]:
    """Yield for each precision, highest first, whether the model alone fits `machine`."""
    kind = machine.kind
    budget = budget_bytes([spec], machine, limit_bytes)
    for precision in PRECISIONS:
        weights = needed_bytes(spec, precision, kind, 0)
        per_visitor = needed_bytes(spec, precision, kind, 1) - weights
        is_possible = precision in POSSIBLE[kind]
        room = max(0, (budget - weights) // per_visitor) if is_possible else 0
        yield Fit(precision, weights, weights + per_visitor, is_possible, room, budget)


def _find_known(location: str, job: Job) -> ModelSpec | None:
    """Return the known model with this name or address, made ready for `job`."""
    specs = [spec for spec in (*REAL_MODELS.values(), *DEMONSTRATION_MODELS.values()) if _is_called(spec, location)]
    for spec in specs:
        if spec.job is job:
            return spec
    return replace(specs[0], job=job) if specs else None


def _is_called(spec: ModelSpec, location: str) -> bool:
    return location == spec.location or location.lower() == spec.name.lower()


def _repo_id(spec: ModelSpec) -> str:
    return "" if spec.is_demonstration else spec.location
