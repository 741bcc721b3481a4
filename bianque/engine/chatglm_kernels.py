"""What ChatGLM's decode step does between its linear layers, in Triton: two kernels in place of some fifteen.

On a fast card a decode step of one row spends as long on launching small kernels as on reading the weights. Here
`add_norm` is a residual and the LayerNorm after it, and `attend` rotates query and key, stores key and value and
attends, each row over exactly the places its slot has filled. Both compute in fp32 and round once, where the plain
path (`bianque.models.chatglm`, `bianque.engine.attention`) rounds after every operation.

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

logger = logging.getLogger(__name__)

# Places that one program looks at in one go.
_PLACES = 64
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
) -> None:
    column = tl.arange(0, COLUMNS)
    inside = column < num_columns
    place = tl.program_id(0).to(tl.int64) * num_columns + column
    values = tl.load(hidden_ptr + place, mask=inside, other=0).to(tl.float32)
    if HAS_RESIDUAL:
        values += residual_scale * tl.load(residual_ptr + place, mask=inside, other=0).to(tl.float32)
    mean = tl.sum(values, axis=0) / num_columns
    centred = tl.where(inside, values - mean, 0.0)
    deviation = tl.sqrt(tl.sum(centred * centred, axis=0) / num_columns + epsilon)
    weight = tl.load(weight_ptr + column, mask=inside, other=0).to(tl.float32)
    bias = tl.load(bias_ptr + column, mask=inside, other=0).to(tl.float32)
    tl.store(out_ptr + place, (centred / deviation * weight + bias).to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _rotated(
    mixed_ptr: tl.tensor, table_ptr: tl.tensor, place: tl.tensor, other: tl.tensor, cosine: tl.tensor, sine: tl.tensor
) -> tl.tensor:
    """Return one head's query or key, rotated, in fp32; `other` is the partner of each place in its pair."""
    own = tl.load(mixed_ptr + place).to(tl.float32) * tl.load(table_ptr + cosine).to(tl.float32)
    return own + tl.load(mixed_ptr + other).to(tl.float32) * tl.load(table_ptr + sine).to(tl.float32)


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
) -> None:
    dtype = out_ptr.dtype.element_ty
    quarter: tl.constexpr = HEAD // 4
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    column = tl.arange(0, HEAD)
    # The first half of a head turns by row 0 of the position, the second by row 1; its pairs are a quarter apart.
    position = tl.load(position_ptr + row * position_stride + column // (2 * quarter))
    cosine = position * 3 * quarter + column % quarter
    sine = cosine + (1 + column // quarter % 2) * quarter
    own, other = column, column ^ quarter
    start = (row * num_heads + head) * 3 * HEAD
    query = _rotated(mixed_ptr + start, table_ptr, own, other, cosine, sine).to(dtype).to(tl.float32)
    key = _rotated(mixed_ptr + start + HEAD, table_ptr, own, other, cosine, sine).to(dtype)
    value = tl.load(mixed_ptr + start + 2 * HEAD + column)
    length = tl.load(length_ptr + row * length_stride)
    slot = (row * num_heads + head) * num_places * HEAD
    tl.store(key_ptr + slot + length * HEAD + column, key)
    tl.store(value_ptr + slot + length * HEAD + column, value)
    # The new token is the first that is seen, so that there is always one.
    largest = tl.sum(query * key.to(tl.float32), axis=0) * score_scale
    total = largest * 0.0 + 1.0
    attended = value.to(tl.float32)
    for first in range(0, length, PLACES):
        place = first + tl.arange(0, PLACES)
        filled = place < length
        stored = slot + place[:, None] * HEAD + column[None, :]
        keys = tl.load(key_ptr + stored, mask=filled[:, None], other=0).to(tl.float32)
        scores = tl.where(filled, tl.sum(keys * query[None, :], axis=1) * score_scale, -float("inf"))
        new_largest = tl.maximum(largest, tl.max(scores, axis=0))
        weights = tl.exp(scores - new_largest)
        shrink = tl.exp(largest - new_largest)
        values = tl.load(value_ptr + stored, mask=filled[:, None], other=0).to(tl.float32)
        attended = attended * shrink + tl.sum(weights[:, None] * values, axis=0)
        total = total * shrink + tl.sum(weights, axis=0)
        largest = new_largest
    tl.store(out_ptr + (row * num_heads + head) * HEAD + column, (attended / total).to(dtype))


def add_norm(hidden_states: torch.Tensor, residual: torch.Tensor | None, norm: nn.LayerNorm) -> torch.Tensor:
    """Return `norm(hidden_states + RESIDUAL_SCALE · residual)`, (n, C).

    Args:
        hidden_states: (n, C), contiguous, on a CUDA device.
        residual: likewise, or None for nothing to add.
        norm: with weight and bias.
    """
    num_rows, num_columns = hidden_states.shape
    out = torch.empty_like(hidden_states)
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
            num_warps=8,
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
            num_warps=4,
        )
    return out


@functools.cache
def works_on(device: torch.device, dtype: torch.dtype, head_size: int) -> bool:
    """Return whether both kernels compute on a CUDA device what the plain path does; tried once, a line if not."""
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
    """Return the largest relative error of a row of the two kernels against the plain path, on made-up numbers."""
    generator = torch.Generator(device).manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    num_rows, num_heads, num_places = 3, 2, 2 * _PLACES + 6
    norm = nn.LayerNorm(num_heads * head_size, device=device, dtype=dtype)
    norm.weight.data, norm.bias.data = drawn(num_heads * head_size), drawn(num_heads * head_size)
    hidden_states, residual = drawn(num_rows, num_heads * head_size), drawn(num_rows, num_heads * head_size)
    normed = norm(hidden_states.add(residual, alpha=RESIDUAL_SCALE))
    errors = [_relative_error(add_norm(hidden_states, residual, norm), normed)]

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
