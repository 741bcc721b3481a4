"""Which sequences run: first come, first served, a fixed number of slots, a bounded queue. Pure bookkeeping.

Not thread-safe: the engine calls it under its lock.
"""

from __future__ import annotations

from collections import deque

from bianque.engine.sequence import Sequence
from bianque.errors import QueueFullError


class Scheduler:
    """Waiting and running sequences of one engine."""

    def __init__(self, num_slots: int, max_waiting: int) -> None:
        """Set the bounds.

        Args:
            num_slots: sequences that run at once, at least 1.
            max_waiting: sequences that may wait beyond those, at least 0.

        Raises:
            ValueError: if a bound is too small.
        """
        if num_slots < 1 or max_waiting < 0:
            raise ValueError(
                f"num_slots must be at least 1 and max_waiting at least 0; got {num_slots}, {max_waiting}"
            )
        self.num_slots = num_slots
        self.max_waiting = max_waiting
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        """Let a sequence wait for a slot.

        Raises:
            QueueFullError: if no slot is free and `max_waiting` others wait.
        """
        num_free = self.num_slots - len(self.running)
        if len(self.waiting) >= self.max_waiting + num_free:
            raise QueueFullError("queue_full", waiting=len(self.waiting))
        self.waiting.append(sequence)

    def admit(self) -> Sequence | None:
        """Give a free slot to whoever has waited longest; None when there is no slot or nobody waits."""
        if not self.waiting or len(self.running) >= self.num_slots:
            return None
        sequence = self.waiting.popleft()
        self.running.append(sequence)
        return sequence

    def remove(self, sequence: Sequence) -> None:
        """Free the slot, or the place in the queue, of a sequence; nothing happens if it has neither."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def position(self, sequence: Sequence) -> int | None:
        """Return the 1-based place among those waiting, or None when it does not wait."""
        return self.waiting.index(sequence) + 1 if sequence in self.waiting else None
