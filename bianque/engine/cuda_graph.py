"""Decode steps recorded as CUDA graphs: one launch in place of some hundred.

A graph has fixed shapes and addresses. Shapes are those of buckets: a power of two of rows, and of places at which
attention looks; a graph is recorded when its bucket is first met. Addresses are fixed because the KV cache is
allocated once. The only copy a step makes is that of its inputs, a few integers a row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch

logger = logging.getLogger(__name__)

# Shorter than this, attention is no cost worth another graph.
_MIN_LENGTH = 256


@dataclass
class _Recorded:
    graph: torch.cuda.CUDAGraph
    inputs: torch.Tensor
    logits: torch.Tensor


class StepGraphs:
    """The recorded steps of one runner."""

    def __init__(self, step: Callable[[torch.Tensor, int], torch.Tensor], max_len: int, device: torch.device) -> None:
        """Record nothing yet.

        Args:
            step: takes inputs (n, k) int64 on the device and the number of places to look at, returns logits (n, V);
                works on the device alone, without a look at what it computes.
            max_len: most places.
            device: of the step.
        """
        self._step = step
        self._max_len = max_len
        self._device = device
        self._recorded: dict[tuple[int, int], _Recorded] = {}
        self._can_record = True
        # One for all recordings: libraries keep a workspace of some MB for every stream they have seen.
        self._stream: torch.cuda.Stream | None = None

    def run(self, inputs: torch.Tensor, length: int) -> torch.Tensor:
        """Run one step.

        Args:
            inputs: (n, k) int64 on the CPU; every n has graphs of its own, so that it should be that of a bucket.
            length: places to look at, at least.

        Returns:
            Logits (n, V), the caller's.
        """
        num_places = min(bucket(length, _MIN_LENGTH), self._max_len)
        key = (len(inputs), num_places)
        if self._can_record and key not in self._recorded:
            self._record(inputs, num_places)
        if not self._can_record:
            return self._step(inputs.to(self._device), num_places)
        recorded = self._recorded[key]
        with torch.cuda.device(self._device):
            recorded.inputs.copy_(inputs.pin_memory(), non_blocking=True)
            recorded.graph.replay()
            return recorded.logits.clone()  # the next replay writes to the same place

    def clear(self) -> None:
        """Forget every graph and give its memory back."""
        self._recorded.clear()
        torch.cuda.empty_cache()

    def _record(self, inputs: torch.Tensor, num_places: int) -> None:
        with torch.cuda.device(self._device):
            inputs = inputs.to(self._device)
            stream = self._stream = self._stream or torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            try:
                # Libraries set up their workspaces at the first call, which a recording must not contain.
                with torch.cuda.stream(stream):
                    self._step(inputs, num_places)
                torch.cuda.current_stream().wait_stream(stream)
                graph = torch.cuda.CUDAGraph()
                # Of this thread alone: while it records, another one may be loading a model onto the device.
                with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                    logits = self._step(inputs, num_places)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                logger.warning("decode steps are not recorded as CUDA graphs: %s", str(error).split("\n")[0])
                self._can_record = False
                return
            self._recorded[len(inputs), num_places] = _Recorded(graph, inputs, logits)


def bucket(number: int, smallest: int) -> int:
    """Return the least power of two that is at least `number` and `smallest`."""
    return max(smallest, 1 << (number - 1).bit_length())
