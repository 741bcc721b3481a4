"""Products with stored weights on the CPU.

With the compiled kernel (`cpu_kernels/linear.c`), activations are rounded to 16 bits in blocks of 1024, each with a
scale of its own, and everything after that is exact up to fp32 sums in a fixed order. The error is 3e-5 of a block's
largest activation, and a row of the result is bit for bit the same alone, in any batch, in any chunk of a prompt and
on any number of threads. A row with NaN or infinity becomes NaN and touches no other.

Without it, PyTorch's operations give the same numbers up to rounding, slower.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from bianque.cpu_kernels.build import Kernels, load_kernels
from bianque.cpu_kernels.operations import Multiply, Pack, Refine
from bianque.quantization.digits import Digits
from bianque.quantization.scheme import Bits, unpack_int4

# The kernel's words for weights that are not quantized.
HALF_BITS = 16
FLOAT_BITS = 32

# Above so many rows, PyTorch's fp32 product of unpacked weights beats its int8 one.
_FEW_ROWS = 16
# Weights unpacked at a time without the kernel: 64 MB in fp32.
_CHUNK_VALUES = 16 * 1024 * 1024


def linear(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    bits: Bits,
) -> torch.Tensor:
    """Multiply by a quantized weight, on `torch.get_num_threads()` threads.

    Args:
        hidden_states: (..., in) in any float dtype; computed in fp32.
        weight: int8 (out, in), or packed (out, in / 2) at 4 bits; contiguous.
        scale: (out,) fp16, contiguous.
        bias: (out,) or None.
        bits: 8 or 4.

    Returns:
        (..., out) in the dtype of `hidden_states`.

    Raises:
        MemoryError: if there is no room for the activations once more.
        ValueError: if the weight is for rows of another length, or was never loaded.
    """
    rows = _as_rows(hidden_states)
    bias = None if bias is None else bias.float()
    kernels = load_kernels()
    product = _without_kernel(rows, weight, scale, bias, bits) if kernels is None else _with_kernel(
        kernels, rows, weight, scale, bias, bits
    )  # fmt: skip
    return product.view(*hidden_states.shape[:-1], weight.shape[0]).to(hidden_states.dtype)


def half_linear(hidden_states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Multiply (..., in) by an fp16 weight, (out, in) and contiguous; see `linear`. Nothing is rounded on the way."""
    rows = _as_rows(hidden_states)
    kernels = load_kernels()
    if kernels is not None:
        product = _with_kernel(kernels, rows, weight, None, None, HALF_BITS)
    else:
        chunks = weight.split(max(1, _CHUNK_VALUES // weight.shape[1]))
        product = torch.cat([functional.linear(rows, chunk.float()) for chunk in chunks], dim=1)
    return product.view(*hidden_states.shape[:-1], weight.shape[0]).to(hidden_states.dtype)


def digit_linear(hidden_states: torch.Tensor, digits: Digits) -> torch.Tensor:
    """Multiply (..., in) by a weight of two digits, all of it; see `linear`."""
    rows = _as_rows(hidden_states)
    kernels = load_kernels()
    if kernels is not None:
        product = _with_kernel(kernels, rows, digits.high, digits.scale, None, 8)
        _add_low_digits(kernels, rows, digits, product)
    else:
        product = torch.cat([functional.linear(rows, chunk) for chunk in digits.floats()], dim=1)
    return product.view(*hidden_states.shape[:-1], len(digits.high)).to(hidden_states.dtype)


def _as_rows(hidden_states: torch.Tensor) -> torch.Tensor:
    return hidden_states.reshape(-1, hidden_states.shape[-1]).float().contiguous()


def _with_kernel(
    kernels: Kernels,
    rows: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor | None,
    bias: torch.Tensor | None,
    bits: int,
) -> torch.Tensor:
    # The kernel gets addresses and cannot look.
    if weight.device != rows.device or 8 * weight.shape[1] * weight.element_size() != bits * rows.shape[1]:
        raise ValueError(
            f"rows of {rows.shape[1]} values on {rows.device} do not fit a {bits}-bit weight of "
            f"{tuple(weight.shape)} on {weight.device}"
        )
    result = rows.new_empty(rows.shape[0], weight.shape[0])
    num_rows, num_inputs = rows.shape
    multiply = Multiply(
        weight=weight.data_ptr(),
        scale=None if scale is None else scale.data_ptr(),
        bias=None if bias is None else bias.data_ptr(),
        y=result.data_ptr(),
        in_=num_inputs,
        out=weight.shape[0],
        bits=bits,
    )
    pack = Pack(x=rows.data_ptr(), in_=num_inputs, bits=bits)
    if kernels.linear(pack, multiply, num_rows, torch.get_num_threads()):
        raise MemoryError("no memory for the activations of a linear layer")
    return result


def _add_low_digits(kernels: Kernels, rows: torch.Tensor, digits: Digits, product: torch.Tensor) -> None:
    all_values = torch.zeros(len(rows), dtype=torch.int64)
    refine = Refine(
        x=rows.data_ptr(),
        low=digits.low.data_ptr(),
        scale=digits.scale.data_ptr(),
        bound=digits.bound.data_ptr(),
        counts=all_values.data_ptr(),
        y=product.data_ptr(),
        in_=rows.shape[1],
        out=product.shape[1],
    )
    if kernels.refine(refine, len(rows), torch.get_num_threads()):
        raise MemoryError("no memory for the limits of a linear layer")


def _without_kernel(
    rows: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, bits: Bits
) -> torch.Tensor:
    results = []
    for chunk in weight.split(max(1, _CHUNK_VALUES // rows.shape[1])):
        integers = unpack_int4(chunk) if bits == 4 else chunk
        ones = rows.new_ones(len(integers))
        if len(rows) <= _FEW_ROWS:
            results.append(torch._weight_int8pack_mm(rows, integers, ones))
        else:
            results.append(functional.linear(rows, integers.float()))
    product = torch.cat(results, dim=1).mul_(scale.float())
    return product if bias is None else product.add_(bias)
