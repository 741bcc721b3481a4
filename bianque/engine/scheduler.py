"""Which sequences run and which wait: first come, first served.

Invariant: as long as any sequence waits, every slot is taken. A sequence gets its slot the moment one is free, so what
the scheduler says never depends on how far the worker is.
"""

from __future__ import annotations

from collections import deque

from bianque.engine.sequence import Sequence, SequenceStatus
from bianque.errors import QueueFullError


class Scheduler:
    """Slots and a bounded queue. Not thread-safe: the engine's lock guards it."""

    def __init__(self, num_slots: int, max_waiting: int) -> None:
        """Start empty.

        Args:
            num_slots: sequences that run at once, at least 1.
            max_waiting: sequences that may wait beyond those, at least 0.

        Raises:
            ValueError: if a number is out of range.
        """
        if num_slots < 1 or max_waiting < 0:
            raise ValueError(f"need num_slots >= 1 and max_waiting >= 0, but got {num_slots} and {max_waiting}")
        self.num_slots = num_slots
        self.max_waiting = max_waiting
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()

    def add(self, sequence: Sequence) -> None:
        """Give a slot to a sequence or put it at the end of the queue.

        Raises:
            QueueFullError: if there is room for neither.
        """
        if len(self.running) < self.num_slots:
            self._run(sequence)
        elif len(self.waiting) < self.max_waiting:
            self.waiting.append(sequence)
        else:
            raise QueueFullError("queue_full", waiting=len(self.waiting))

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out; its slot, if it had one, goes to whoever waits longest.

        Raises:
            ValueError: if the sequence is neither running nor waiting.
        """
        if sequence not in self.running:
            self.waiting.remove(sequence)
            return
        self.running.remove(sequence)
        if self.waiting:
            self._run(self.waiting.popleft())

    def position(self, sequence: Sequence) -> int | None:
        """Return the 1-based place of a sequence among those waiting, or None if it does not wait."""
        try:
            return self.waiting.index(sequence) + 1
        except ValueError:
            return None

    def round(self) -> list[Sequence]:
        """Return the running sequences in the order to serve them: those without a prefill first."""
        return sorted(self.running, key=lambda sequence: sequence.sampler is not None)

    def _run(self, sequence: Sequence) -> None:
        sequence.status = SequenceStatus.RUNNING
        self.running.append(sequence)
