"""What runners of all architectures share: slots of KV caches, and one decode step over many of them.

What a step computes is the architecture's own, twice: over the rows that are asked for, or, in one call of fixed
shape, over all slots from the first to the last one asked for.

Dimension letters: n rows, k integers a row, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence as Ids
from typing import TYPE_CHECKING

import torch

from bianque.cpu_kernels.build import load_kernels
from bianque.engine.cuda_graph import StepGraphs, bucket
from bianque.engine.kv_cache import CacheShape, SlotCache
from bianque.engine.runner import eos_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SlotRunner(ABC):
    """The part of `bianque.engine.runner.ModelRunner` that does not depend on the architecture.

    The first cache is the one that grows with the reply.
    """

    def __init__(
        self, model: PreTrainedModel, norm: torch.Tensor, shapes: Ids[CacheShape], *, is_batched: bool | None
    ) -> None:
        """Allocate the KV caches.

        Args:
            model: loaded, in evaluation mode.
            norm: a weight of one of its norms, which has the dtype and device of activations whatever the precision of
                linear layers and embedding is.
            shapes: of the caches; all have as many slots.
            is_batched: attend to all rows in one call of fixed shape; None does so everywhere but on a CPU.
        """
        self.device = norm.device
        self._dtype = norm.dtype
        self._is_batched = self.device.type != "cpu" if is_batched is None else is_batched
        if self.device.type == "cpu":
            load_kernels()  # compiled now, and not while the first visitor waits
        self.vocab_size: int = model.config.vocab_size
        self.eos_token_ids = eos_token_ids(model)
        self.num_slots = shapes[0].num_slots
        self._caches = [
            SlotCache(shape, dtype=norm.dtype, device=self.device, is_zeroed=self._is_batched) for shape in shapes
        ]
        self.kv_cache_bytes = sum(cache.num_bytes for cache in self._caches)
        # Whether a batched step computes over places up to the longest row, and not each row over its own.
        self._has_common_length = True
        self._graphs: StepGraphs | None = None
        if self.device.type == "cuda":
            self._graphs = StepGraphs(self._batched_step, shapes[0].max_len, self.device)

    @torch.inference_mode()
    def decode(self, slots: Ids[int], token_ids: Ids[int], num_exact: Ids[int] | None = None) -> torch.Tensor:
        """See `ModelRunner.decode`."""
        if self._is_batched:
            logits = self._decode_batched(slots, token_ids)
        else:
            logits = self._step_of_rows(slots, token_ids, num_exact or [0] * len(slots))
        for slot in slots:
            self._advance(slot)
        return logits

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Run a decode step of every number of rows, so that no visitor waits for compiling and recording.

        To be called before the first prompt; does nothing where steps are not recorded.
        """
        if self._graphs is None:
            return
        num_rows = 1
        while True:
            inputs = torch.tensor([[0, 0, *self._further_inputs(slot)] for slot in range(num_rows)])
            self._graphs.run(inputs, 1)
            if num_rows == self.num_slots:
                return
            num_rows = min(2 * num_rows, self.num_slots)

    def free(self, slot: int) -> None:
        """See `ModelRunner.free`."""
        for cache in self._caches:
            cache.free(slot)

    def trim(self) -> None:
        """See `ModelRunner.trim`."""
        if self._graphs is not None:
            self._graphs.clear()

    def reset(self) -> None:
        """See `ModelRunner.reset`."""
        for slot in range(self.num_slots):
            self.free(slot)
        self.trim()
        torch.zeros(1, device=self.device).item()  # raises if the device is beyond use

    @abstractmethod
    def _step_of_rows(self, slots: Ids[int], token_ids: Ids[int], num_exact: Ids[int]) -> torch.Tensor:
        """Run one step of the slots that are asked for; return logits (n, V), see `ModelRunner.decode`."""

    @abstractmethod
    def _batched_step(self, inputs: torch.Tensor, max_len: int) -> torch.Tensor:
        """Run one step of the first n slots over the first `max_len` places of the first cache.

        Works on the device alone, without a look at what it computes.

        Args:
            inputs: (n, k) int64 on the device: token, tokens in the first cache, `_further_inputs`.
            max_len: places to look at; 1 where each row knows its own.

        Returns:
            Logits (n, V).
        """

    @abstractmethod
    def _further_inputs(self, slot: int) -> tuple[int, ...]:
        """Return what a batched step needs of a slot beside its token and length."""

    def _begin(self, slot: int) -> None:
        """Make a slot ready for a prompt."""
        if self._is_batched:
            for cache in self._caches:
                cache.clear(slot)

    def _advance(self, slot: int) -> None:
        """Count the token that a step has added to a slot."""
        self._caches[0].lengths[slot] += 1

    def _decode_batched(self, slots: Ids[int], token_ids: Ids[int]) -> torch.Tensor:
        """Run the first slots, at least up to the last one asked for; what the others compute is not looked at.

        A slot that is not asked for writes behind its last token, where its own next token will overwrite it.
        """
        tokens = dict(zip(slots, token_ids, strict=True))
        num_rows = max(slots) + 1
        if self._graphs is not None:  # few shapes; the rows more are slots as well, and may belong to sequences
            num_rows = min(bucket(num_rows, 1), self.num_slots)
        last_place = self._caches[0].shape.max_len - 1
        lengths = [min(length, last_place) for length in self._caches[0].lengths[:num_rows]]
        inputs = torch.tensor(
            [[tokens.get(slot, 0), length, *self._further_inputs(slot)] for slot, length in enumerate(lengths)]
        )
        longest = max(lengths) + 1 if self._has_common_length else 1
        if self._graphs is not None:
            return self._graphs.run(inputs, longest)[list(slots)]
        return self._batched_step(inputs.to(self.device), longest)[list(slots)]
