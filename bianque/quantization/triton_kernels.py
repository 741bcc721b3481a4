"""Products with int8 and int4 weights on a CUDA device, in Triton: the weight is read once, as it is stored.

    y = s · (x · Qᵀ) + bias      Q the stored integers, s the scale of their row

Integers are exact in fp16 and bf16, products are summed in fp32 and the scale is applied to the sum. The published
code rounds every weight to half(q · s) first. Before the rounding to the dtype of x, which both have, the two differ
by at most 2⁻¹¹ · s · Σ|x||q| + 2⁻²⁵ · Σ|x| and the rounding errors of the fp32 sums; the first term is the rounding
of normal fp16 weights, the second that of subnormal ones, and both are errors of the published value.

`_vector_kernel` multiplies one row of x on the ordinary cores while rows of the weight stream by, which is the best
for few rows of int8; `_matrix_kernel` takes what is more to the tensor cores, with the weight as the left operand, so
that few rows of x waste little.
Before compute capability 8.0 Triton has no tensor cores: there the vector kernel takes up to 8 rows, which find the
weight in the cache, and more are refused. Nothing is accumulated by atomics, so results do not change from run to run.

Only this module imports Triton, and it is imported when a product is first asked for.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import torch
import triton
import triton.language as tl

from bianque.quantization.dependent_launch import (
    is_supported,
    launch_options,
    let_next_start,
    prefetch,
    wait_for_previous,
)
from bianque.quantization.scheme import Bits

_FIRST_WITH_TENSOR_CORES = (8, 0)
_MOST_VECTORS = 8
# Bytes of each row that a program asks for before it may start, and those that the L2 cache takes at once.
_PREFETCHED, _LINE = tl.constexpr(512), tl.constexpr(128)


@triton.jit
def _number_of(stored: tl.tensor, shift: tl.constexpr, bits: tl.constexpr, dtype: tl.constexpr) -> tl.tensor:
    """Return the two's-complement number of `bits` bits in the byte `stored >> shift`, exactly, in `dtype`.

    Laid into the mantissa of a power of two it needs no conversion instruction, of which a multiprocessor has few;
    flipping its sign bit adds 2^(bits - 1), which is taken off again with the power of two.
    """
    sign: tl.constexpr = 1 << (bits - 1)
    byte = stored.to(tl.uint8, bitcast=True)
    if dtype == tl.float16:
        field = (byte.to(tl.int16) >> shift) & (2 * sign - 1)
        number = (field ^ (0x6400 + sign)).to(tl.float16, bitcast=True) - tl.full((), 2**10 + sign, tl.float16)
    else:  # The mantissa of bf16 is too short for this; fp32 is rounded to it two at a time.
        field = (byte.to(tl.int32) >> shift) & (2 * sign - 1)
        number = (field ^ (0x4B000000 + sign)).to(tl.float32, bitcast=True) - tl.full((), 2**23 + sign, tl.float32)
        number = number.to(dtype)
    return number


@triton.jit
def _halves_of(pair: tl.tensor, dtype: tl.constexpr) -> tl.tensor:
    """Split int32 into the two 16-bit floats that lie in it: the earlier one in memory, then the later."""
    first = pair.to(tl.int16).to(dtype, bitcast=True)
    second = (pair >> 16).to(tl.int16).to(dtype, bitcast=True)
    return first, second


# Four bytes beside each other become four fp16, two instructions for three of what the compiler makes of `_number_of`.
# A byte in the low half of 0x6400, which is 1024, adds itself; one whose sign bit is flipped adds itself + 128.
_BYTES_TO_FP16 = tl.constexpr("""{
    .reg .b32 flipped, offset;
    mov.b32 offset, 0x64806480;
    xor.b32 flipped, $2, 0x80808080;
    prmt.b32 $0, flipped, 0x64646464, 0x4140;
    prmt.b32 $1, flipped, 0x64646464, 0x4342;
    sub.f16x2 $0, $0, offset;
    sub.f16x2 $1, $1, offset;
}""")
# The same for both halves of a byte: the upper one, first in order, stands for 16 times itself and is divided.
_HALF_BYTES_TO_FP16 = tl.constexpr("""{
    .reg .b32 flipped, left, right, part, sixteenth, lifted, offset;
    mov.b32 sixteenth, 0x2C002C00;
    mov.b32 lifted, 0xD480D480;
    mov.b32 offset, 0x64086408;
    xor.b32 flipped, $4, 0x88888888;
    prmt.b32 left, flipped, 0x64646464, 0x4140;
    prmt.b32 right, flipped, 0x64646464, 0x4342;
    and.b32 part, left, 0xFFF0FFF0;
    fma.rn.f16x2 $0, part, sixteenth, lifted;
    and.b32 part, right, 0xFFF0FFF0;
    fma.rn.f16x2 $1, part, sixteenth, lifted;
    and.b32 part, left, 0xFF0FFF0F;
    sub.f16x2 $2, part, offset;
    and.b32 part, right, 0xFF0FFF0F;
    sub.f16x2 $3, part, offset;
}""")


@triton.jit
def _numbers8(stored: tl.tensor, dtype: tl.constexpr, HAS_ASSEMBLY: tl.constexpr) -> tl.tensor:
    """Return the numbers of bytes in `dtype`."""
    if HAS_ASSEMBLY:
        return tl.inline_asm_elementwise(_BYTES_TO_FP16, "=r,=r,r", [stored], tl.float16, is_pure=True, pack=4)
    else:
        return _number_of(stored, 0, 8, dtype)


@triton.jit
def _numbers4(stored: tl.tensor, dtype: tl.constexpr, HAS_ASSEMBLY: tl.constexpr) -> tl.tensor:
    """Return the numbers of the upper and the lower half of bytes in `dtype`."""
    if HAS_ASSEMBLY:
        return tl.inline_asm_elementwise(
            _HALF_BYTES_TO_FP16, "=r,=r,=r,=r,r", [stored], (tl.float16, tl.float16), is_pure=True, pack=4
        )
    else:
        return _number_of(stored, 4, 4, dtype), _number_of(stored, 0, 4, dtype)


@triton.jit
def _start_on(row_start: tl.tensor, num_bytes: tl.tensor, OVERLAPS: tl.constexpr) -> None:
    """Bring the beginning of a program's rows of the weight nearer, given their addresses; then wait for x."""
    if OVERLAPS:
        line = tl.arange(0, _PREFETCHED // _LINE) * _LINE
        prefetch(row_start[:, None] + tl.minimum(line, num_bytes - 1)[None, :])
    wait_for_previous(OVERLAPS)


@triton.jit
def _vector_kernel(
    x_ptr: tl.tensor,  # (batch, in); at 4 bits int32, (batch, in / 2), each the two values that meet one byte
    weight_ptr: tl.tensor,  # (num_rows, num_bytes) int8
    scale_ptr: tl.tensor,  # (num_rows,) fp16
    bias_ptr: tl.tensor,  # (num_rows,)
    out_ptr: tl.tensor,  # (batch, num_rows)
    batch: tl.tensor,
    num_rows: tl.tensor,
    num_bytes: tl.tensor,
    BITS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BATCH: tl.constexpr,
    ROWS: tl.constexpr,
    BYTES: tl.constexpr,
    HAS_ASSEMBLY: tl.constexpr,
    OVERLAPS: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    dtype: tl.constexpr = tl.float16 if HAS_ASSEMBLY else tl.float32
    item = tl.program_id(0)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    row_start = tl.minimum(row, num_rows - 1).to(tl.int64) * num_bytes
    item_start = item.to(tl.int64) * num_bytes
    column = tl.arange(0, BYTES)
    _start_on(weight_ptr + row_start, num_bytes, OVERLAPS)
    totals = tl.zeros((ROWS, BYTES), tl.float32)
    for start in tl.range(0, num_bytes, BYTES, num_stages=STAGES):
        inside = start + column < num_bytes
        stored = tl.load(weight_ptr + row_start[:, None] + start + column[None, :], mask=inside[None, :], other=0)
        x = tl.load(x_ptr + item_start + start + column, mask=inside, other=0)
        if BITS == 8:
            totals += _numbers8(stored, dtype, HAS_ASSEMBLY).to(tl.float32) * x.to(tl.float32)[None, :]
        else:
            even, odd = _halves_of(x, out_ptr.dtype.element_ty)
            first, second = _numbers4(stored, dtype, HAS_ASSEMBLY)
            totals += first.to(tl.float32) * even.to(tl.float32)[None, :]
            totals += second.to(tl.float32) * odd.to(tl.float32)[None, :]
    let_next_start(OVERLAPS)
    exists = row < num_rows
    total = tl.sum(totals, axis=1) * tl.load(scale_ptr + row, mask=exists, other=0).to(tl.float32)
    if HAS_BIAS:
        total += tl.load(bias_ptr + row, mask=exists, other=0).to(tl.float32)
    tl.store(out_ptr + item.to(tl.int64) * num_rows + row, total.to(out_ptr.dtype.element_ty), mask=exists)


@triton.jit
def _matrix_kernel(
    x_ptr: tl.tensor,  # arguments as above
    weight_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    out_ptr: tl.tensor,
    batch: tl.tensor,
    num_rows: tl.tensor,
    num_bytes: tl.tensor,
    BITS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BATCH: tl.constexpr,
    ROWS: tl.constexpr,
    BYTES: tl.constexpr,
    HAS_ASSEMBLY: tl.constexpr,
    OVERLAPS: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    dtype = out_ptr.dtype.element_ty
    # Programs that run side by side share rows of the weight, which then come from memory once.
    item = tl.program_id(0) * BATCH + tl.arange(0, BATCH)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    item_start = tl.minimum(item, batch - 1).to(tl.int64) * num_bytes
    row_start = tl.minimum(row, num_rows - 1).to(tl.int64) * num_bytes
    column = tl.arange(0, BYTES)
    _start_on(weight_ptr + row_start, num_bytes, OVERLAPS)
    total = tl.zeros((ROWS, BATCH), tl.float32)
    for start in tl.range(0, num_bytes, BYTES, num_stages=STAGES):
        inside = start + column < num_bytes
        stored = tl.load(weight_ptr + row_start[:, None] + start + column[None, :], mask=inside[None, :], other=0)
        x = tl.load(x_ptr + item_start[None, :] + start + column[:, None], mask=inside[:, None], other=0)
        if BITS == 8:
            total = tl.dot(_numbers8(stored, dtype, HAS_ASSEMBLY), x, total)
        else:
            even, odd = _halves_of(x, dtype)
            first, second = _numbers4(stored, dtype, HAS_ASSEMBLY)
            total = tl.dot(first, even, total)
            total = tl.dot(second, odd, total)
    let_next_start(OVERLAPS)
    row_exists = row < num_rows
    total *= tl.load(scale_ptr + row, mask=row_exists, other=0).to(tl.float32)[:, None]
    if HAS_BIAS:
        total += tl.load(bias_ptr + row, mask=row_exists, other=0).to(tl.float32)[:, None]
    exists = row_exists[:, None] & (item < batch)[None, :]
    tl.store(out_ptr + item.to(tl.int64)[None, :] * num_rows + row[:, None], total.to(dtype), mask=exists)


@dataclass(frozen=True)
class LaunchPlan:
    """How one product is cut into programs.

    Attributes:
        kernel: `vector` or `matrix`.
        batch: rows of x of one program.
        rows: rows of the weight of one program.
        num_bytes: bytes of each row that a program takes at a time.
        num_warps: of one program.
        num_stages: tiles that are on their way from memory at once.
    """

    kernel: Literal["vector", "matrix"]
    batch: int
    rows: int
    num_bytes: int
    num_warps: int
    num_stages: int = 1


def supports(batch: int, dtype: torch.dtype, capability: tuple[int, int]) -> bool:
    """Return whether `linear` takes `batch` rows of a dtype on a device of this compute capability."""
    if capability >= _FIRST_WITH_TENSOR_CORES:
        return dtype in (torch.float16, torch.bfloat16)
    return dtype == torch.float16 and batch <= _MOST_VECTORS


def plan_launch(
    batch: int, num_rows: int, num_bytes: int, bits: Bits, capability: tuple[int, int], num_processors: int
) -> LaunchPlan:
    """Choose tile sizes from the shapes alone, so that the same product is always summed in the same order.

    Args:
        batch: rows of x.
        num_rows: rows of the weight.
        num_bytes: bytes of a row of the weight.
        bits: 8 or 4.
        capability: compute capability of the device.
        num_processors: its multiprocessors.
    """
    if capability < _FIRST_WITH_TENSOR_CORES:
        # 16 bytes a thread and load; a warp reads 512 bytes of one row in one go.
        return LaunchPlan("vector", 1, 8, min(1024, triton.next_power_of_2(num_bytes)), 4)
    if batch > 64:
        return LaunchPlan("matrix", 64, 128, 64 if bits == 8 else 32, 4, 3)
    has_many_rows = num_rows >= 64 * num_processors
    if batch == 1 and not has_many_rows:
        if bits == 4:
            return LaunchPlan("vector", 1, 16, min(512, triton.next_power_of_2(num_bytes)), 8, 4)
        return LaunchPlan("vector", 1, 4, min(1024, triton.next_power_of_2(num_bytes)), 2)
    # A warp takes 16 rows. Large tiles share x better, small ones keep every multiprocessor busy.
    if batch > 16:
        # Shorter pieces, or the tiles of x would not fit the 99 KB of shared memory of an A10G.
        rows = next((rows for rows in (64, 32) if num_rows >= 2 * rows * num_processors), 16)
        return LaunchPlan("matrix", triton.next_power_of_2(batch), rows, 64, rows // 16, 3)
    rows = 64 if batch == 1 else 32 if num_rows >= 16 * num_processors else 16
    # The fastest of some fifteen on an H100 at the published sizes.
    if bits == 8:
        pieces, num_stages = (256, 4) if batch == 1 else (512, 3)
    elif batch == 1:
        pieces, num_stages = 128, 6
    else:  # with 16 rows of x, longer pieces would not fit the registers
        pieces, num_stages = (256, 3) if batch <= 8 else (128, 4)
    return LaunchPlan("matrix", max(8, triton.next_power_of_2(batch)), rows, pieces, rows // 16, num_stages)


def launch(
    plan: LaunchPlan,
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    bits: Bits,
) -> torch.Tensor:
    """Run one product as planned, on the current stream; see `linear` for the arguments."""
    batch, (num_rows, num_bytes) = x.shape[0], weight.shape
    out = torch.empty(batch, num_rows, dtype=x.dtype, device=x.device)
    x = x.contiguous()
    if bits == 4:
        # As int32 a load brings both values that meet one byte, and threads stay side by side.
        x = (x if x.data_ptr() % 4 == 0 else x.clone()).view(torch.int32)
    kernel = _vector_kernel if plan.kernel == "vector" else _matrix_kernel
    grid = (triton.cdiv(batch, plan.batch), triton.cdiv(num_rows, plan.rows))
    overlaps = is_supported(x.device)
    with torch.cuda.device_of(x):
        kernel[grid](
            x,
            weight,
            scale,
            out if bias is None else bias,
            out,
            batch,
            num_rows,
            num_bytes,
            BITS=bits,
            HAS_BIAS=bias is not None,
            BATCH=plan.batch,
            ROWS=plan.rows,
            BYTES=plan.num_bytes,
            HAS_ASSEMBLY=x.is_cuda and out.dtype == torch.float16,  # the interpreter, on a CPU, has none
            OVERLAPS=overlaps,
            STAGES=plan.num_stages,
            num_warps=plan.num_warps,
            **launch_options(overlaps),
        )
    return out


def linear(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, bits: Bits
) -> torch.Tensor:
    """Return `x · W'ᵀ + bias`, (batch, out) in the dtype of x.

    Args:
        x: (batch, in), batch at least 1, of a kind that `supports` names, on a CUDA device.
        weight: int8, contiguous, (out, in) at 8 bits and (out, in / 2) at 4, on the same device, as are the others.
        scale: (out,) fp16.
        bias: (out,) in any float dtype, or None.
        bits: 8 or 4.
    """
    capability, num_processors = _device_facts(x.device.index)
    plan = plan_launch(x.shape[0], weight.shape[0], weight.shape[1], bits, capability, num_processors)
    return launch(plan, x, weight, scale, bias, bits)


@functools.cache
def _device_facts(index: int) -> tuple[tuple[int, int], int]:
    properties = torch.cuda.get_device_properties(index)
    return (properties.major, properties.minor), properties.multi_processor_count
