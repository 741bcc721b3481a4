"""How the new tokens of a decode step see what their slots hold.

Two ways with the same results. `RowAttention` takes one row after another, each over exactly its own length: on a CPU
that is faster than one masked call over the longest row, and a row's result cannot depend on its neighbours.
`BatchAttention` is one call over fixed shapes with everything beyond a row's length masked: what a GPU wants, and what
a CUDA graph can record.

Dimension letters: n rows, N slots, H heads, S places, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention

from bianque.engine.kv_cache import SlotCache


class Attention(Protocol):
    """Attention of one new token for each row to its slot.

    T5's decoder has its own protocols for the same and for attention to the prompt: `bianque.models.t5_decoder`.
    """

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Store key and value and attend to all tokens of the row, the new one included.

        Args:
            layer: index of the layer.
            query: (n, H, 1, D), as the next two.
            key: of the new token.
            value: of the new token.

        Returns:
            (n, 1, H · D).
        """
        ...


class RowAttention:
    """One row after another."""

    def __init__(
        self,
        cache: SlotCache,
        slots: Sequence[int],
        *,
        scale: float | None = None,
        biases: Sequence[torch.Tensor] | None = None,
    ) -> None:
        """Attend to `slots`, which are distinct.

        Args:
            cache: keys and values.
            slots: the slot of each row.
            scale: factor of the scores; None is 1 / √D.
            biases: for each row (H, 1, length + 1), added to its scores.
        """
        self._cache = cache
        self._scale = scale
        self._rows = [
            (row, slot, cache.lengths[slot], biases[row][None] if biases else None) for row, slot in enumerate(slots)
        ]

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """See `Attention.attend`."""
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        for row, slot, length, _ in self._rows:
            keys[slot, :, length] = key[row, :, 0]
            values[slot, :, length] = value[row, :, 0]
        return self._attend(keys, values, query, num_new=1)

    def attend_stored(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """Attend to what the slots hold without adding to it: (n, H, 1, D) -> (n, 1, H · D)."""
        return self._attend(self._cache.keys[layer], self._cache.values[layer], query, num_new=0)

    def _attend(self, keys: torch.Tensor, values: torch.Tensor, query: torch.Tensor, num_new: int) -> torch.Tensor:
        attended = [
            scaled_dot_product_attention(
                query[row : row + 1],
                keys[slot : slot + 1, :, : length + num_new],
                values[slot : slot + 1, :, : length + num_new],
                attn_mask=bias,
                scale=self._scale,
            )
            for row, slot, length, bias in self._rows
        ]
        return torch.cat(attended).view(len(attended), 1, -1)


class BatchAttention:
    """All rows at once over fixed shapes; row i is slot i."""

    def __init__(
        self,
        cache: SlotCache,
        lengths: torch.Tensor,
        max_len: int,
        *,
        scale: float | None = None,
        bias: torch.Tensor | None = None,
    ) -> None:
        """Attend to the first n slots.

        Args:
            cache: keys and values.
            lengths: (n,) int64, tokens in each slot before this step.
            max_len: places to look at; all `lengths` are below it, or at it where nothing is added.
            scale: factor of the scores; None is 1 / √D.
            bias: (n, H, 1, max_len), added to the scores.
        """
        self._cache = cache
        self._lengths = lengths
        self._max_len = max_len
        self._scale = scale
        self._bias = bias
        self._rows = torch.arange(len(lengths), device=lengths.device)
        self._places = torch.arange(max_len, device=lengths.device)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """See `Attention.attend`."""
        self._cache.keys[layer][self._rows, :, self._lengths] = key[:, :, 0]
        self._cache.values[layer][self._rows, :, self._lengths] = value[:, :, 0]
        return self._attend(layer, query, self._with_new)

    def attend_stored(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """Attend to what the slots hold without adding to it: (n, H, 1, D) -> (n, 1, H · D)."""
        return self._attend(layer, query, self._stored)

    # Every layer takes the same mask, and an attention is used in one of the two ways only.
    @cached_property
    def _with_new(self) -> torch.Tensor:
        return _mask(self._places <= self._lengths[:, None], self._bias)

    @cached_property
    def _stored(self) -> torch.Tensor:
        # A free slot sees its first place, zeros.
        return _mask(self._places < self._lengths[:, None].clamp(min=1), self._bias)

    def _attend(self, layer: int, query: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        num_rows = len(self._rows)
        attended = scaled_dot_product_attention(
            query,
            self._cache.keys[layer][:num_rows, :, : self._max_len],
            self._cache.values[layer][:num_rows, :, : self._max_len],
            attn_mask=mask,
            scale=self._scale,
        )
        return attended.reshape(num_rows, 1, -1)


def _mask(visible: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Return the (n, 1, 1, S) or (n, H, 1, S) mask that attention takes."""
    visible = visible[:, None, None]
    return visible if bias is None else bias.masked_fill(~visible, -torch.inf)
