"""A weight in two int8 digits, each array of which can be read without the other.

    w ≈ (high + low / 256) · scale        integers from -128 to 127, one fp16 scale for each row

It takes the bytes of fp16 and is as fine: scale is max|w| / 127, rounded up to fp16, and the error at most
scale / 512, 1.5e-5 of a row's largest weight. fp16 rounds weights of that one's size by up to 4.9e-4 of it, and only
those below 1/16 of it as finely. High digits alone are an int8 weight of the usual kind: enough to tell which products
of a row may be the few largest, whose low digits are then read (`cpu_kernels/refine.c`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

BASE = 256
"""Steps of the low digit in one of the high digit."""

_LARGEST = 127
# Weights encoded at a time: few enough for the processor's cache, where several passes over them cost little.
_CHUNK_VALUES = 1024 * 1024
# Weights decoded at a time: 64 MB in fp32.
_FLOAT_VALUES = 16 * 1024 * 1024
# Room for the rounding of sums of products, which is below this up to half a million inputs.
_SLACK = 1 + 2**-10


@dataclass(frozen=True)
class Digits:
    """A weight (out, in) in digits.

    Attributes:
        high: (out, in) int8.
        low: (out, in) int8.
        scale: (out,) fp16.
        bound: (out,) fp32, which follows from `low` and `scale`: times the norm of a row of inputs, at least as large
            as what the low digits add to its product.
    """

    high: torch.Tensor
    low: torch.Tensor
    scale: torch.Tensor
    bound: torch.Tensor

    @classmethod
    def of(cls, high: torch.Tensor, low: torch.Tensor, scale: torch.Tensor) -> Digits:
        """Return stored digits with their bound; the arrays are kept as they are."""
        bound = torch.empty(len(low), device=low.device)
        # One array for all chunks: new ones, with results kept between them, would leave the heap full of holes.
        floats = torch.empty(_rows_of(low, _CHUNK_VALUES), low.shape[1], device=low.device)
        for rows, norms in zip(low.split(len(floats)), bound.split(len(floats)), strict=True):
            torch.linalg.vector_norm(floats[: len(rows)].copy_(rows), dim=1, out=norms)
        return cls(high, low, scale, bound.mul_(scale.float()).mul_(_SLACK / BASE))

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        """Return rows of the weight for ids of any shape, (..., in) fp32."""
        return (self.high[ids] + self.low[ids].float() / BASE) * self.scale[ids].float()[..., None]

    def floats(self) -> Iterator[torch.Tensor]:
        """Yield the weight in fp32, some rows at a time."""
        ids = torch.arange(len(self.high), device=self.high.device)
        return map(self.rows, ids.split(_rows_of(self.high, _FLOAT_VALUES)))


def encode(weight: torch.Tensor) -> Digits:
    """Return a weight's digits.

    Args:
        weight: (out, in) in any float dtype, on any device; not kept.

    Returns:
        New arrays on the weight's device.

    Raises:
        ValueError: if it has another form, or values that no fp16 scale can represent.
    """
    if weight.dim() != 2 or not weight.is_floating_point():
        raise ValueError(f"weight must be a floating (out, in), but it is {weight.dtype} {tuple(weight.shape)}")
    high, low = (torch.empty_like(weight, dtype=torch.int8, memory_format=torch.contiguous_format) for _ in range(2))
    scale = torch.empty(len(weight), dtype=torch.float16, device=weight.device)
    num_rows = _rows_of(weight, _CHUNK_VALUES)
    for start in range(0, len(weight), num_rows):
        rows = slice(start, start + num_rows)
        values = weight[rows].detach().float()
        scale[rows] = _scale_of(values)
        # Divided by infinity, rows without a scale become zeros.
        step = scale[rows].float() / BASE
        step[step == 0] = torch.inf
        both = (values / step[:, None]).round_().to(torch.int16)  # at most 127 · 256, since the scale is rounded up
        low[rows] = both  # its last eight bits
        high[rows] = both.add_(BASE // 2) >> 8
    return Digits.of(high, low, scale)


def _scale_of(rows: torch.Tensor) -> torch.Tensor:
    """Return max|w| / 127 of each row, rounded up to fp16."""
    largest = rows.abs().amax(1)
    scale = (largest / _LARGEST).half()
    next_larger = (scale.view(torch.int16) + 1).view(torch.float16)
    scale = torch.where(scale.float() * _LARGEST < largest, next_larger, scale)
    if not bool(scale.isfinite().all()):
        raise ValueError("weights are NaN, infinite or too large for an fp16 scale")
    return scale


def _rows_of(weight: torch.Tensor, num_values: int) -> int:
    return max(1, num_values // max(1, weight.shape[1]))
