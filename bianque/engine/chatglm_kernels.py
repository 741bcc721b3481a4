"""What ChatGLM's decode step does between its linear layers, in Triton: three kernels in place of some fifteen.

On a fast card a decode step of one row spends as long on launching small kernels as on reading the weights. Here
`add_norm` is a residual and the LayerNorm after it, `gelu` what its name says, and `attend` rotates query and key,
stores key and value and attends, each row over exactly the places its slot has filled. All compute in fp32 and round
once, where the plain path (`bianque.models.chatglm`, `bianque.engine.attention`) rounds after every operation.

Only this module of the engine imports Triton, and it is imported where a CUDA device is; `works_on` says whether the
kernels come up there and agree with the plain path.

Dimension letters: n rows, N slots, H heads, S places, D head size, C hidden, P positions.
"""

from __future__ import annotations

import functools
import logging

import torch
import triton
import triton.language as tl
from torch import nn
from torch.nn import functional

from bianque.models.chatglm import RESIDUAL_SCALE, apply_rotary, build_rotary_table
from bianque.quantization.dependent_launch import (
    is_supported,
    launch_options,
    let_next_start,
    prefetch,
    wait_for_previous,
)

logger = logging.getLogger(__name__)

# Places that one program looks at in one go, blocks of them on their way from memory at once, and its warps.
_PLACES, _STAGES, _WARPS = 64, 3, 4
# Values to which one program applies GELU.
_VALUES = 1024
# Of a result against that of the plain path: rounding after every operation leaves 0.002 in fp16 and 0.01 in bf16.
_LARGEST_ERROR = 0.03


@triton.jit
def _add_norm_kernel(
    hidden_ptr: tl.tensor,  # (n, C)
    residual_ptr: tl.tensor,  # (n, C)
    weight_ptr: tl.tensor,  # (C,)
    bias_ptr: tl.tensor,  # (C,)
    out_ptr: tl.tensor,  # (n, C)
    num_columns: tl.tensor,
    residual_scale: tl.tensor,
    epsilon: tl.tensor,
    HAS_RESIDUAL: tl.constexpr,
    COLUMNS: tl.constexpr,
    OVERLAPS: tl.constexpr,
) -> None:
    column = tl.arange(0, COLUMNS)
    inside = column < num_columns
    weight = tl.load(weight_ptr + column, mask=inside, other=0).to(tl.float32)
    bias = tl.load(bias_ptr + column, mask=inside, other=0).to(tl.float32)
    let_next_start(OVERLAPS)
    wait_for_previous(OVERLAPS)
    place = tl.program_id(0).to(tl.int64) * num_columns + column
    values = tl.load(hidden_ptr + place, mask=inside, other=0).to(tl.float32)
    if HAS_RESIDUAL:
        values += residual_scale * tl.load(residual_ptr + place, mask=inside, other=0).to(tl.float32)
    mean = tl.sum(values, axis=0) / num_columns
    centred = tl.where(inside, values - mean, 0.0)
    deviation = tl.sqrt(tl.sum(centred * centred, axis=0) / num_columns + epsilon)
    tl.store(out_ptr + place, (centred / deviation * weight + bias).to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _attend_kernel(
    mixed_ptr: tl.tensor,  # (n, H, 3, D): query, key, value of each head
    position_ptr: tl.tensor,  # (n, 2) int64
    table_ptr: tl.tensor,  # (P, 3, D / 4): cos, -sin, sin
    key_ptr: tl.tensor,  # (N, H, S, D)
    value_ptr: tl.tensor,  # (N, H, S, D)
    length_ptr: tl.tensor,  # (n,) int64
    out_ptr: tl.tensor,  # (n, H, D)
    position_stride: tl.tensor,
    length_stride: tl.tensor,
    num_heads: tl.tensor,
    num_places: tl.tensor,
    score_scale: tl.tensor,
    HEAD: tl.constexpr,
    PLACES: tl.constexpr,
    STAGES: tl.constexpr,
    OVERLAPS: tl.constexpr,
) -> None:
    dtype = out_ptr.dtype.element_ty
    quarter: tl.constexpr = HEAD // 4
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    column = tl.arange(0, HEAD)
    # Positions, lengths and the table are there before a step's first kernel begins: nothing has to be waited for.
    # The first half of a head turns by row 0 of the position, the second by row 1; its pairs are a quarter apart.
    position = tl.load(position_ptr + row * position_stride + column // (2 * quarter))
    angle = position * 3 * quarter + column % quarter
    cosine = tl.load(table_ptr + angle).to(tl.float32)
    sine = tl.load(table_ptr + angle + (1 + column // quarter % 2) * quarter).to(tl.float32)
    length = tl.load(length_ptr + row * length_stride)
    slot = (row * num_heads + head) * num_places * HEAD
    block = tl.arange(0, PLACES)
    if OVERLAPS:
        line = (block % num_places) * HEAD
        prefetch(key_ptr + slot + line)
        prefetch(value_ptr + slot + line)
    let_next_start(OVERLAPS)
    wait_for_previous(OVERLAPS)
    own = mixed_ptr + (row * num_heads + head) * 3 * HEAD + column
    other = mixed_ptr + (row * num_heads + head) * 3 * HEAD + (column ^ quarter)
    query = tl.load(own).to(tl.float32) * cosine + tl.load(other).to(tl.float32) * sine
    key = tl.load(own + HEAD).to(tl.float32) * cosine + tl.load(other + HEAD).to(tl.float32) * sine
    value = tl.load(own + 2 * HEAD)
    query, key = query.to(dtype).to(tl.float32), key.to(dtype)
    tl.store(key_ptr + slot + length * HEAD + column, key)
    tl.store(value_ptr + slot + length * HEAD + column, value)
    # Every place of a block has sums of its own, which meet only after the last block: on the way nothing is reduced
    # over places. All begin with the score of the new token, which is seen in any case.
    score = tl.sum(query * key.to(tl.float32), axis=0) * score_scale
    largest = tl.zeros((PLACES,), tl.float32) + score
    totals = tl.zeros((PLACES,), tl.float32)
    sums = tl.zeros((PLACES, HEAD), tl.float32)
    for first in tl.range(0, length, PLACES, num_stages=STAGES):
        filled = first + block < length
        stored = slot + (first + block)[:, None] * HEAD + column[None, :]
        keys = tl.load(key_ptr + stored, mask=filled[:, None], other=0).to(tl.float32)
        values = tl.load(value_ptr + stored, mask=filled[:, None], other=0).to(tl.float32)
        scores = tl.where(filled, tl.sum(keys * query[None, :], axis=1) * score_scale, -float("inf"))
        new_largest = tl.maximum(largest, scores)
        weights = tl.exp(scores - new_largest)
        shrink = tl.exp(largest - new_largest)
        sums = sums * shrink[:, None] + weights[:, None] * values
        totals = totals * shrink + weights
        largest = new_largest
    top = tl.max(largest, axis=0)
    shrink = tl.exp(largest - top)
    weight = tl.exp(score - top)
    total = tl.sum(totals * shrink, axis=0) + weight
    attended = tl.sum(sums * shrink[:, None], axis=0) + value.to(tl.float32) * weight
    tl.store(out_ptr + (row * num_heads + head) * HEAD + column, (attended / total).to(dtype))


@triton.jit
def _gelu_kernel(values_ptr: tl.tensor, num_values: tl.tensor, BLOCK: tl.constexpr, OVERLAPS: tl.constexpr) -> None:
    let_next_start(OVERLAPS)
    wait_for_previous(OVERLAPS)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < num_values
    x = tl.load(values_ptr + place, mask=inside, other=0).to(tl.float32)
    inner = 0.7978845608028654 * x * (1 + 0.044715 * x * x)
    # tanh(u) = 1 - 2 / (e^2u + 1), also where e^2u overflows.
    activated = x * (1 - 1 / (tl.exp(2 * inner) + 1))
    tl.store(values_ptr + place, activated.to(values_ptr.dtype.element_ty), mask=inside)


def add_norm(hidden_states: torch.Tensor, residual: torch.Tensor | None, norm: nn.LayerNorm) -> torch.Tensor:
    """Return `norm(hidden_states + RESIDUAL_SCALE · residual)`, (n, C).

    Args:
        hidden_states: (n, C), contiguous, on a CUDA device.
        residual: likewise, or None for nothing to add.
        norm: with weight and bias.
    """
    num_rows, num_columns = hidden_states.shape
    out = torch.empty_like(hidden_states)
    overlaps = is_supported(hidden_states.device)
    with torch.cuda.device_of(hidden_states):
        _add_norm_kernel[(num_rows,)](
            hidden_states,
            hidden_states if residual is None else residual,
            norm.weight,
            norm.bias,
            out,
            num_columns,
            RESIDUAL_SCALE,
            norm.eps,
            HAS_RESIDUAL=residual is not None,
            COLUMNS=triton.next_power_of_2(num_columns),
            OVERLAPS=overlaps,
            num_warps=8,
            **launch_options(overlaps),
        )
    return out


def attend(
    mixed: torch.Tensor,
    positions: torch.Tensor,
    table: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    lengths: torch.Tensor,
) -> torch.Tensor:
    """Store the new token's key and value of row i in slot i and attend to all of that slot, (n, H · D).

    Args:
        mixed: (n, H · 3 · D), what `query_key_value` returns, contiguous.
        positions: (n, 2) int64, its last dimension contiguous.
        table: (P, 3, D / 4) from `build_rotary_table`, in the dtype of `mixed`.
        keys: (N, H, S, D), contiguous, of one layer, changed in place.
        values: likewise.
        lengths: (n,) int64, tokens in each slot before this one; below S.
    """
    _, num_heads, num_places, head_size = keys.shape
    num_rows = mixed.shape[0]
    out = torch.empty(num_rows, num_heads * head_size, dtype=mixed.dtype, device=mixed.device)
    overlaps = is_supported(mixed.device)
    with torch.cuda.device_of(mixed):
        _attend_kernel[(num_rows, num_heads)](
            mixed,
            positions,
            table,
            keys,
            values,
            lengths,
            out,
            positions.stride(0),
            lengths.stride(0),
            num_heads,
            num_places,
            head_size**-0.5,
            HEAD=head_size,
            PLACES=_PLACES,
            STAGES=_STAGES,
            OVERLAPS=overlaps,
            num_warps=_WARPS,
            **launch_options(overlaps),
        )
    return out


def gelu(values: torch.Tensor) -> torch.Tensor:
    """Apply GELU by its tanh formula in place and return `values`: contiguous, of any shape."""
    overlaps = is_supported(values.device)
    num_values = values.numel()
    with torch.cuda.device_of(values):
        _gelu_kernel[(triton.cdiv(num_values, _VALUES),)](
            values, num_values, BLOCK=_VALUES, OVERLAPS=overlaps, num_warps=4, **launch_options(overlaps)
        )
    return values


@functools.cache
def works_on(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Return whether the kernels compute on a CUDA device what the plain path does; tried once, a line if not."""
    if head_size < 4 or head_size & (head_size - 1):
        return False
    try:
        with torch.cuda.device(device), torch.inference_mode():
            error = largest_error(device, dtype, head_size)
            if not error <= _LARGEST_ERROR:
                raise ArithmeticError(f"results are off by {error:.1%}")
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # Compilers, loaders and drivers fail in many ways; none may stop the model.
        logger.warning("decode steps are not fused: %s", str(error).strip().split("\n")[0][:200])
        return False
    return True


def largest_error(device: torch.device, dtype: torch.dtype, head_size: int) -> float:
    """Return the largest relative error of a row of the kernels against the plain path, on made-up numbers."""
    generator = torch.Generator(device).manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    num_rows, num_heads, num_places = 3, 2, 2 * _PLACES + 6
    norm = nn.LayerNorm(num_heads * head_size, device=device, dtype=dtype)
    norm.weight.data, norm.bias.data = drawn(num_heads * head_size), drawn(num_heads * head_size)
    hidden_states, residual = drawn(num_rows, num_heads * head_size), drawn(num_rows, num_heads * head_size)
    normed = norm(hidden_states.add(residual, alpha=RESIDUAL_SCALE))
    errors = [_relative_error(add_norm(hidden_states, residual, norm), normed)]
    activated = functional.gelu(hidden_states, approximate="tanh")
    errors.append(_relative_error(gelu(hidden_states.clone()), activated))

    mixed = drawn(num_rows, num_heads * 3 * head_size)
    keys, values = (drawn(num_rows, num_heads, num_places, head_size) for _ in range(2))
    table = build_rotary_table(num_places, head_size).to(device=device, dtype=dtype)
    lengths = torch.tensor([0, _PLACES, num_places - 1], device=device)
    positions = torch.stack((lengths // 2, lengths), dim=1)
    heads = mixed.view(num_rows, 1, num_heads, 3, head_size)
    rotary = table[positions[..., None]].transpose(1, 2)[:, :, None, None]
    query, key = apply_rotary(heads[..., :2, :], rotary)[:, 0].unbind(dim=2)  # (n, H, D)
    expected_keys, expected_values = keys.clone(), values.clone()
    rows = torch.arange(num_rows, device=device)
    expected_keys[rows, :, lengths], expected_values[rows, :, lengths] = key, heads[:, 0, :, 2]
    visible = torch.arange(num_places, device=device) <= lengths[:, None]
    expected = functional.scaled_dot_product_attention(
        query[:, :, None], expected_keys, expected_values, attn_mask=visible[:, None, None]
    )
    attended = attend(mixed, positions, table, keys, values, lengths)
    errors.append(_relative_error(attended, expected.reshape(num_rows, -1)))
    errors += [_relative_error(keys, expected_keys), _relative_error(values, expected_values)]
    return float(torch.stack(errors).max())


def _relative_error(result: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    result, expected = result.float().flatten(1), expected.float().flatten(1)
    return ((result - expected).norm(dim=1) / expected.norm(dim=1)).max()
