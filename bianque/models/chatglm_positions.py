"""Positions and visibility of ChatGLM-6B's two-dimensional, prefix-LM scheme, as pure functions of the ids.

A prompt is `tokens [gMASK] <sop>`, what follows `<sop>` is generated. Everything before the first `<sop>` is the
context: its tokens see each other in both directions. Each token has two positions:

    row 0   0, 1, 2, … in the context; from `<sop>` on, the position of the mask token, however many tokens follow
    row 1   0 in the context; 1 at `<sop>`, then 2, 3, …

Padding stands on the left, is not counted and is never seen. A `<sop>` that a user wrote counts as well: the context
ends at the first one, as in the published code.

Dimension letters: B batch, T tokens.
"""

from __future__ import annotations

from typing import Protocol

import torch


class SpecialIds(Protocol):
    """What these functions read of a configuration."""

    bos_token_id: int
    gmask_token_id: int
    mask_token_id: int


def first_index(input_ids: torch.Tensor, token_id: int) -> torch.Tensor:
    """Return the index of the first `token_id` in every row, or T where there is none; (B, T) -> (B,)."""
    length = input_ids.shape[-1]
    indices = torch.arange(length, device=input_ids.device)
    return torch.where(input_ids == token_id, indices, length).amin(dim=-1)


def context_length(input_ids: torch.Tensor, ids: SpecialIds) -> torch.Tensor:
    """Return how many tokens, padding included, stand before the first `<sop>` of every row; (B, T) -> (B,).

    Raises:
        ValueError: if a row has no `<sop>`.
    """
    found = first_index(input_ids, ids.bos_token_id)
    if bool((found == input_ids.shape[-1]).any()):
        raise ValueError(f"every prompt must hold <sop> (id {ids.bos_token_id}); build prompts with the tokenizer")
    return found


def mask_position(input_ids: torch.Tensor, ids: SpecialIds) -> torch.Tensor:
    """Return the index, padding included, of the first `[gMASK]` of every row, else its first `[MASK]`; (B,).

    Raises:
        ValueError: if a row has neither.
    """
    length = input_ids.shape[-1]
    gmask = first_index(input_ids, ids.gmask_token_id)
    found = torch.where(gmask < length, gmask, first_index(input_ids, ids.mask_token_id))
    if bool((found == length).any()):
        raise ValueError(
            f"every prompt must hold [gMASK] (id {ids.gmask_token_id}) or [MASK] (id {ids.mask_token_id}); "
            "build prompts with the tokenizer"
        )
    return found


def build_position_ids(
    input_ids: torch.Tensor, ids: SpecialIds, padding_mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Return both rows of positions.

    Args:
        input_ids: (B, T), each row with a mask token and `<sop>`.
        ids: a configuration.
        padding_mask: (B, T), 1 for tokens and 0 for padding on the left; None means that there is none.

    Returns:
        (B, 2, T) int64; zeros for padding.

    Raises:
        ValueError: if a row lacks `<sop>` or a mask token.
    """
    start = context_length(input_ids, ids)[:, None]
    masked = mask_position(input_ids, ids)[:, None]
    indices = torch.arange(input_ids.shape[-1], device=input_ids.device)[None]
    row0 = torch.where(indices < start, indices, masked)
    row1 = (indices - start + 1).clamp(min=0)
    if padding_mask is not None:
        row0 = (row0 - _num_padding(padding_mask)).clamp(min=0)
    return torch.stack((row0, row1), dim=1)


def extend_position_ids(position_ids: torch.Tensor, length: int) -> torch.Tensor:
    """Return a prompt's positions continued by those of generated tokens, up to `length`; (B, 2, T) -> (B, 2, length).

    Raises:
        ValueError: if `length` is less than T.
    """
    num_new = length - position_ids.shape[-1]
    if num_new < 0:
        raise ValueError(f"length {length} is shorter than the prompt of {position_ids.shape[-1]} tokens")
    steps = torch.arange(1, num_new + 1, device=position_ids.device)
    generated = torch.stack((torch.zeros_like(steps), steps)) + position_ids[..., -1:]  # (B, 2, num_new)
    return torch.cat((position_ids, generated), dim=-1)


def build_prefix_mask(
    input_ids: torch.Tensor, ids: SpecialIds, padding_mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Return what is hidden from what, in the published tokenizer's form.

    Args:
        input_ids: (B, T), each row with `<sop>`.
        ids: a configuration.
        padding_mask: (B, T), 1 for tokens and 0 for padding; None means that there is none.

    Returns:
        (B, 1, T, T) bool, True where the column is hidden from the row: later columns, unless they are of the
        context; padding from everything, and everything from padding.

    Raises:
        ValueError: if a row has no `<sop>`.
    """
    indices = torch.arange(input_ids.shape[-1], device=input_ids.device)
    later = indices[None, :] > indices[:, None]  # (T, T)
    outside = indices[None, :] >= context_length(input_ids, ids)[:, None]  # (B, T)
    hidden = later & outside[:, None, :]  # (B, T, T)
    if padding_mask is not None:
        padding = padding_mask == 0
        hidden = hidden | padding[:, None, :] | padding[:, :, None]
    return hidden[:, None]


def left_padding_mask(input_ids: torch.Tensor, pad_token_id: int) -> torch.Tensor:
    """Return (B, T) int64 with 0 for the run of pad ids that begins a row; a literal `<pad>` later on is a token."""
    return (input_ids != pad_token_id).long().cumsum(dim=-1).clamp(max=1)


def _num_padding(padding_mask: torch.Tensor) -> torch.Tensor:
    """Count the padding of every row; (B, T) -> (B, 1)."""
    return (padding_mask == 0).sum(dim=-1, keepdim=True)
