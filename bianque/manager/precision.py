"""Which precision the weights get: a pure decision from the device, its memory, the models and the visitors.

    CUDA   fp16 > int8 > int4
    CPU    fp32 for small models; int8 > int4 for the published ones
    MPS    fp16 (not tested: none of the machines of this project has one)

Of all the models that are loaded at once the largest gives way first. When even the lowest precisions leave too little
room for the visitors asked for, fewer are served at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bianque.errors import SettingsError
from bianque.manager.memory import DeviceKind, Machine
from bianque.manager.registry import PRECISIONS, REAL_MODELS, ModelSpec, Precision
from bianque.manager.sizes import ModelSize
from bianque.settings import PrecisionChoice

POSSIBLE: dict[DeviceKind, tuple[Precision, ...]] = {
    "cuda": PRECISIONS,
    "cpu": PRECISIONS,
    "mps": ("fp32", "bf16", "fp16"),
}
"""What the code can do on each device, highest first."""
CACHE_BYTES: dict[DeviceKind, int] = {"cpu": 4, "cuda": 2, "mps": 2}
"""Bytes of an element of the KV cache: fp32 on the CPU, whose half-precision arithmetic is slow, else fp16."""
LONGEST_QUESTION_TOKENS = 512
"""Least room for a reply of an encoder-decoder; a question is far shorter."""
DEFAULT_VISITORS = 4
"""Served at once unless the owner says otherwise."""
DEFAULT_VISITORS_OF_MINIS = 24
"""The same for demonstration models, whose steps and caches cost little: of twenty who come at once nobody waits."""
SMALL_PARAMETERS = 100_000_000
"""Below this a model runs in full precision on any CPU."""

GB = 1_000_000_000
RESERVED_BYTES: dict[DeviceKind, int] = {
    "cuda": 3 * GB // 2,  # the CUDA context, and the activations of one long prompt
    "cpu": 2 * GB,  # the program, and the largest tensor while loading or the activations of a long prompt afterwards
    "mps": 2 * GB,
}
HOST_LOADING_BYTES = 3 * GB
"""What loading onto a GPU takes on the host: one shard of a published model, and a GB for the program."""

Reason = Literal["precision_best", "precision_reduced", "precision_asked", "precision_lowered"]


@dataclass(frozen=True)
class MemoryPlan:
    """What fits.

    Attributes:
        precisions: of each model, in the order asked for.
        visitors: how many are served at once: slots of the KV cache of each model.
        needed_bytes: weights and KV caches.
        budget_bytes: what the device has for them.
        room_for: visitors that the budget has room for, at least `visitors`.
        reason: entry of the translation table that says why.
        better_bytes: what the next better precisions would have taken for as many visitors; 0 if there are none.
    """

    precisions: tuple[Precision, ...]
    visitors: int
    needed_bytes: int
    budget_bytes: int
    room_for: int
    reason: Reason
    better_bytes: int = 0


def size_of(spec: ModelSpec) -> ModelSize:
    """Return the model's size; of one that is not known yet, that of the published model for the same job."""
    size = spec.size or REAL_MODELS[spec.job].size
    assert size is not None  # the published models have theirs
    return size


def cache_bytes(spec: ModelSpec, kind: DeviceKind) -> int:
    """Return the bytes of one visitor's KV cache, as `engines.make_engine` allocates it.

    ChatGLM's holds prompt and reply together, T5's the prompt and beside it the reply.
    """
    tokens = spec.max_prompt_tokens
    if spec.family == "t5":
        tokens += max(LONGEST_QUESTION_TOKENS, spec.sampling.max_new_tokens)
    return tokens * size_of(spec).cache_per_token * CACHE_BYTES[kind]


def default_visitors(specs: Sequence[ModelSpec]) -> int:
    """Return how many visitors models serve at once where the owner does not say."""
    return DEFAULT_VISITORS_OF_MINIS if all(spec.is_demonstration for spec in specs) else DEFAULT_VISITORS


def needed_bytes(spec: ModelSpec, precision: Precision, kind: DeviceKind, visitors: int) -> int:
    """Return what one model takes of the device: weights, and a KV cache for each visitor."""
    weights = size_of(spec).bytes_at(precision, on_cpu=kind == "cpu")
    return weights + visitors * cache_bytes(spec, kind)


def budget_bytes(specs: Sequence[ModelSpec], machine: Machine, limit_bytes: int = 0) -> int:
    """Return what weights and KV caches may take of the device.

    Args:
        specs: the models; a few small ones need nothing set aside for loading or for long prompts.
        machine: as it was before anything was loaded.
        limit_bytes: the owner's own limit; 0 for none.
    """
    reserved = 0 if all(_is_small(spec) for spec in specs) else RESERVED_BYTES[machine.kind]
    free = max(0, machine.device_bytes - reserved)
    return min(free, limit_bytes) if limit_bytes else free


def ladder(spec: ModelSpec, kind: DeviceKind, requested: PrecisionChoice = "auto") -> tuple[Precision, ...]:
    """Return the precisions to try, best first; after one that was asked for come the lower ones.

    Raises:
        SettingsError: if the precision asked for is not possible on the device.
    """
    first: Precision = "fp16" if kind != "cpu" else "fp32" if _is_small(spec) else "int8"
    if requested != "auto":
        first = requested
        if first not in POSSIBLE[kind]:
            possible = " / ".join(POSSIBLE[kind])
            raise SettingsError("precision_impossible", precision=first, device=kind, possible=possible)
    # Between formats of two bytes there is no way down, and on the CPU those are slower than int8.
    below = {"fp32": _BELOW_FP32[kind], "int8": ("int4",), "int4": ()}.get(first, ("int8", "int4"))
    return (first, *(precision for precision in below if precision in POSSIBLE[kind]))


def plan_memory(
    specs: Sequence[ModelSpec],
    machine: Machine,
    *,
    visitors: int,
    requested: PrecisionChoice = "auto",
    limit_bytes: int = 0,
) -> MemoryPlan:
    """Choose the precisions of models that are loaded at once.

    A precision that the owner asked for is given up only when it does not even fit for one visitor.

    Args:
        specs: the models, each once.
        machine: what they run on.
        visitors: to be served at once; 0 leaves it to `default_visitors`.
        requested: the owner's choice, or `auto`.
        limit_bytes: the owner's own limit of memory; 0 for none.

    Raises:
        SettingsError: if the precision asked for is not possible on the device, if not even the lowest fits on it, or
            if the host has too little memory to load it.
    """
    kind, budget = machine.kind, budget_bytes(specs, machine, limit_bytes)
    if machine.has_gpu and machine.host_bytes < HOST_LOADING_BYTES and not all(map(_is_small, specs)):
        raise SettingsError("host_memory_too_small", needed=in_gb(HOST_LOADING_BYTES), free=in_gb(machine.host_bytes))
    visitors = visitors or default_visitors(specs)
    per_visitor = sum(cache_bytes(spec, kind) for spec in specs)
    steps = _steps(specs, kind, requested)
    weights = [_weights(specs, precisions, kind) for precisions in steps]
    rooms = [(budget - step_weights) // per_visitor for step_weights in weights]
    if max(rooms) < 1:
        raise SettingsError("memory_too_small", needed=in_gb(weights[-1] + per_visitor), free=in_gb(budget))
    # Where the visitors do not fit at any precision, as many are served as at the lowest, at the best for so many.
    wanted = min(visitors, max(rooms)) if requested == "auto" else 1
    index = next(index for index, room in enumerate(rooms) if room >= wanted)
    served = min(visitors, rooms[index])
    return MemoryPlan(
        precisions=steps[index],
        visitors=served,
        needed_bytes=weights[index] + served * per_visitor,
        budget_bytes=budget,
        room_for=rooms[index],
        reason=_reason(requested, index),
        better_bytes=weights[index - 1] + served * per_visitor if index else 0,
    )


def in_gb(num_bytes: float) -> str:
    """Return a size in GB (10^9 bytes) with one decimal."""
    return f"{num_bytes / GB:.1f}"


_BELOW_FP32: dict[DeviceKind, tuple[Precision, ...]] = {
    "cuda": ("fp16", "int8", "int4"),
    "cpu": ("int8", "int4"),
    "mps": ("fp16",),
}


def _is_small(spec: ModelSpec) -> bool:
    return size_of(spec).num_parameters < SMALL_PARAMETERS


def _weights(specs: Sequence[ModelSpec], precisions: Sequence[Precision], kind: DeviceKind) -> int:
    return sum(needed_bytes(spec, precision, kind, 0) for spec, precision in zip(specs, precisions, strict=True))


def _steps(specs: Sequence[ModelSpec], kind: DeviceKind, requested: PrecisionChoice) -> list[tuple[Precision, ...]]:
    """Return the combinations to try: all at their best, then step by step the largest model lower."""
    ladders = [ladder(spec, kind, requested) for spec in specs]
    rungs = [0] * len(specs)
    steps = []
    while True:
        precisions = tuple(each[rung] for each, rung in zip(ladders, rungs, strict=True))
        steps.append(precisions)
        can_go_lower = [index for index, each in enumerate(ladders) if rungs[index] + 1 < len(each)]
        if not can_go_lower:
            return steps
        largest = max(can_go_lower, key=lambda index: needed_bytes(specs[index], precisions[index], kind, 0))
        rungs[largest] += 1


def _reason(requested: PrecisionChoice, index: int) -> Reason:
    if requested == "auto":
        return "precision_reduced" if index else "precision_best"
    return "precision_lowered" if index else "precision_asked"
