"""How the new tokens of a decode step see what their slots hold.

Two ways with the same results. `RowAttention` takes each row over exactly its own length: on a CPU that is faster than
one masked call over the longest row, and a row's result cannot depend on its neighbours. One call of the compiled
kernel does it for fp32; elsewhere PyTorch's attention is called for one row after another.
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

from bianque.cpu_kernels.build import Kernels, load_kernels
from bianque.cpu_kernels.operations import FLOATS, Attend
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
    """Each row over its own length."""

    def __init__(
        self,
        cache: SlotCache,
        slots: Sequence[int],
        *,
        scale: float | None = None,
        bias: torch.Tensor | None = None,
    ) -> None:
        """Attend to `slots`, which are distinct.

        Args:
            cache: keys and values.
            slots: the slot of each row.
            scale: factor of the scores; None is 1 / √D.
            bias: (H, S), added to the scores: a row takes as many of the last columns as it looks at places.
        """
        self._cache = cache
        self._slots = slots
        self._scale = cache.shape.head_size**-0.5 if scale is None else scale
        self._bias = bias
        stored = cache.keys[0]
        is_for_kernel = stored.device.type == "cpu" and stored.dtype == torch.float32
        self._kernels = load_kernels() if is_for_kernel and stored.shape[-1] % FLOATS == 0 else None

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """See `Attention.attend`."""
        return self._attend(layer, query, key, value)

    def attend_stored(self, layer: int, query: torch.Tensor) -> torch.Tensor:
        """Attend to what the slots hold without adding to it: (n, H, 1, D) -> (n, 1, H · D)."""
        return self._attend(layer, query, None, None)

    def _attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor | None, value: torch.Tensor | None
    ) -> torch.Tensor:
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        if self._kernels is not None:
            return self._with_kernel(self._kernels, keys, values, query, key, value)
        if key is not None and value is not None:
            for row, slot in enumerate(self._slots):
                keys[slot, :, self._cache.lengths[slot]] = key[row, :, 0]
                values[slot, :, self._cache.lengths[slot]] = value[row, :, 0]
        attended = []
        for row, slot in enumerate(self._slots):
            count = self._cache.lengths[slot] + (key is not None)
            attended.append(
                scaled_dot_product_attention(
                    query[row : row + 1],
                    keys[slot : slot + 1, :, :count],
                    values[slot : slot + 1, :, :count],
                    attn_mask=None if self._bias is None else self._bias[None, :, None, -count:],
                    scale=self._scale,
                )
            )
        return torch.cat(attended).view(len(attended), 1, -1)

    # Every layer takes the same.
    @cached_property
    def _slot_indices(self) -> torch.Tensor:
        return torch.tensor(self._slots)

    @cached_property
    def _stored_counts(self) -> torch.Tensor:
        return torch.tensor([self._cache.lengths[slot] for slot in self._slots])

    @cached_property
    def _counts_with_new(self) -> torch.Tensor:
        return self._stored_counts + 1

    def _with_kernel(
        self,
        kernels: Kernels,
        keys: torch.Tensor,
        values: torch.Tensor,
        query: torch.Tensor,
        key: torch.Tensor | None,
        value: torch.Tensor | None,
    ) -> torch.Tensor:
        num_rows, num_heads, _, size = query.shape
        result = query.new_empty(num_rows, 1, num_heads * size)
        counts = self._stored_counts if key is None else self._counts_with_new
        arguments = Attend.over(
            (query, key, value), keys, values, self._slot_indices, counts, result, scale=self._scale, bias=self._bias
        )
        if kernels.attend(arguments, num_rows, torch.get_num_threads()):
            raise MemoryError("no memory for the scores of attention")
        return result


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
