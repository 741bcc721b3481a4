"""Which sequences run and which wait: first come, first served.

Invariant: as long as any sequence waits, every slot is taken. A sequence gets its slot the moment one is free, so what
the scheduler says never depends on how far the worker is.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque

from bianque.engine.pace import Pace
from bianque.engine.sequence import Sequence, SequenceStatus
from bianque.engine.wait import Work, expected_wait_seconds
from bianque.errors import QueueFullError


class Scheduler:
    """Slots and a bounded queue. Not thread-safe: the engine's lock guards it."""

    def __init__(self, num_slots: int, max_waiting: int, max_per_visitor: int | None = None) -> None:
        """Start empty.

        Args:
            num_slots: sequences that run at once, at least 1.
            max_waiting: sequences that may wait beyond those, at least 0.
            max_per_visitor: sequences of one visitor that may run or wait at once, at least 1; None sets no limit.

        Raises:
            ValueError: if a number is out of range.
        """
        if num_slots < 1 or max_waiting < 0 or (max_per_visitor is not None and max_per_visitor < 1):
            raise ValueError(
                "need num_slots >= 1, max_waiting >= 0 and max_per_visitor >= 1, "
                f"but got {num_slots}, {max_waiting} and {max_per_visitor}"
            )
        self.num_slots = num_slots
        self.max_waiting = max_waiting
        self.max_per_visitor = max_per_visitor
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()
        self._free_slots = list(range(num_slots))  # a heap: runners that compute up to the last slot want low ones
        self.pace = Pace()

    def add(self, sequence: Sequence) -> None:
        """Give a slot to a sequence or put it at the end of the queue.

        Raises:
            QueueFullError: `queue_full`, if there is room for neither; `visitor_busy`, if its visitor has as many
                unfinished sequences as one may have.
        """
        limit = self.max_per_visitor
        if sequence.visitor is not None and limit is not None and self._num_unfinished(sequence.visitor) >= limit:
            raise QueueFullError("visitor_busy", limit=limit)
        if self._free_slots:
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
        if sequence.slot is None:
            self.waiting.remove(sequence)
            return
        self.running.remove(sequence)
        heapq.heappush(self._free_slots, sequence.slot)
        sequence.slot = None
        if sequence.output_ids:
            self.pace.note_reply(len(sequence.output_ids))
        if self.waiting:
            self._run(self.waiting.popleft())

    def position(self, sequence: Sequence) -> int | None:
        """Return the 1-based place of a sequence among those waiting, or None if it does not wait."""
        try:
            return self.waiting.index(sequence) + 1
        except ValueError:
            return None

    def expected_wait_seconds(self, sequence: Sequence) -> float | None:
        """Return how long a sequence will probably wait for its first token.

        None if it does not wait, and before a decode step and the end of a reply were measured.
        """
        position = self.position(sequence)
        speeds = self.pace.speeds(self.num_slots)
        if position is None or speeds is None:
            return None
        running, ahead = map(self._work, self.running), map(self._work, itertools.islice(self.waiting, position - 1))
        return expected_wait_seconds(running, ahead, len(sequence.prompt_ids), speeds)

    def _work(self, sequence: Sequence) -> Work:
        """Return what is left to do for a sequence; a prompt that is being run counts whole."""
        new_tokens = self.pace.remaining_tokens(len(sequence.output_ids), sequence.max_new_tokens)
        return Work(0 if sequence.output_ids else len(sequence.prompt_ids), new_tokens)

    def _num_unfinished(self, visitor: str) -> int:
        return sum(
            sequence.visitor == visitor and not sequence.is_finished for sequence in (*self.running, *self.waiting)
        )

    def _run(self, sequence: Sequence) -> None:
        sequence.status = SequenceStatus.RUNNING
        sequence.slot = heapq.heappop(self._free_slots)
        sequence.started_seconds = time.monotonic()
        self.running.append(sequence)
