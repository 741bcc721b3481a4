"""The published quantization of ChatGLM-6B: symmetric, one fp16 scale for each output row, weights only.

    scale = half(max|w| / qmax)              over a row; qmax is 127 at 8 bits and 7 at 4
    q     = round_half_to_even(w / scale)    in the weight's own dtype, as int8
    w'    = half(half(q) * scale)

At 4 bits two columns share a byte: the even column in its high nibble, the odd one in its low nibble.

Source: `quantization.py` of THUDM/chatglm-6b at 8b7d335, whose stored integers and scales are reproduced bit for bit.
Where a scale is a subnormal fp16 number (rows below 0.008 at 8 bits, 0.0005 at 4) its rounding may carry an integer
past 127, and it wraps around, here as there. Deviations:

- A row of zeros, or one so small that its scale rounds to zero, becomes zeros by rule; published, it divides by zero
  and what the cast makes of NaN is left to the machine.
- bf16 weights are divided in fp32; the published code knows none.
- NaN and infinite weights are refused, and so are rows beyond what an fp16 scale can hold.
"""

from __future__ import annotations

from typing import Literal

import torch

Bits = Literal[4, 8]

# Rows quantized at a time: intermediate copies stay below a few dozen MB at the published shapes.
_CHUNK_VALUES = 4 * 1024 * 1024


def largest_integer(bits: int) -> int:
    """Return the largest stored magnitude: 127 for 8 bits, 7 for 4.

    Raises:
        ValueError: for any other number of bits.
    """
    if bits not in (4, 8):
        raise ValueError(f"bits must be 4 or 8, but it is {bits}")
    return 2 ** (bits - 1) - 1


def quantize(weight: torch.Tensor, bits: Bits) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize a weight by the published scheme.

    Args:
        weight: (out, in), fp16, bf16, fp32 or fp64, on any device; `in` must be even at 4 bits.
        bits: 4 or 8.

    Returns:
        The integers, int8, (out, in) at 8 bits and (out, in / 2) packed at 4; and the scales, fp16, (out,). Both are
        new and on the weight's device.

    Raises:
        ValueError: if the weight has another form, or holds values that no fp16 scale can represent.
    """
    limit = largest_integer(bits)
    if weight.dim() != 2 or not weight.is_floating_point():
        raise ValueError(f"weight must be a floating (out, in), but it is {weight.dtype} {tuple(weight.shape)}")
    out_features, in_features = weight.shape
    if bits == 4 and in_features % 2:
        raise ValueError(f"4-bit weights need an even number of input features, but there are {in_features}")
    stored_columns = in_features if bits == 8 else in_features // 2
    integers = torch.empty(out_features, stored_columns, dtype=torch.int8, device=weight.device)
    scale = torch.empty(out_features, dtype=torch.float16, device=weight.device)
    chunk_rows = max(1, _CHUNK_VALUES // max(1, in_features))
    for start in range(0, out_features, chunk_rows):
        rows = slice(start, start + chunk_rows)
        chunk, scale[rows] = _quantize_rows(weight[rows].detach(), limit)
        integers[rows] = chunk if bits == 8 else pack_int4(chunk)
    return integers, scale


def _quantize_rows(weight: torch.Tensor, limit: int) -> tuple[torch.Tensor, torch.Tensor]:
    if weight.dtype == torch.bfloat16:
        weight = weight.float()
    largest = weight.abs().amax(dim=1) if weight.shape[1] else weight.new_zeros(weight.shape[0])
    scale = (largest / limit).half()
    if not bool(scale.isfinite().all()):
        raise ValueError("weights are NaN, infinite or too large for an fp16 scale")
    # Divided by infinity, rows without a scale become zeros.
    divisor = torch.where(scale == 0, torch.full_like(scale, torch.inf), scale)[:, None]
    # By way of int16: what a cast from floats does beyond int8 depends on the machine.
    return (weight / divisor).round_().to(torch.int16).to(torch.int8), scale


def dequantize(integers: torch.Tensor, scale: torch.Tensor, bits: Bits, dtype: torch.dtype) -> torch.Tensor:
    """Return the weight that the integers stand for, (out, in) in `dtype`, rounded to fp16 first as published.

    Args:
        integers: as `quantize` returns them.
        scale: (out,) fp16.
        bits: 4 or 8.
        dtype: a floating dtype.
    """
    largest_integer(bits)
    if bits == 4:
        integers = unpack_int4(integers)
    return (integers.half() * scale.half()[:, None]).to(dtype)


def pack_int4(integers: torch.Tensor) -> torch.Tensor:
    """Pack integers from -8 to 7, int8 (out, in) with even `in`, into bytes, int8 (out, in / 2)."""
    return (integers[:, 0::2] << 4) | (integers[:, 1::2] & 15)


def unpack_int4(packed: torch.Tensor) -> torch.Tensor:
    """Undo `pack_int4`: int8 (out, in / 2) to int8 (out, in)."""
    # Right shifts of int8 keep the sign, so moving a nibble up and down again extends it.
    return torch.stack((packed >> 4, (packed << 4) >> 4), dim=2).flatten(1)
