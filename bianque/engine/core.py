"""What the engine's face and its worker share: the sequences, guarded by one lock."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from bianque.engine.scheduler import Scheduler
from bianque.engine.sequence import FinishReason, Sequence, SequenceStatus
from bianque.errors import GenerationError

logger = logging.getLogger(__name__)

# Tokens a second are counted over this time.
_WINDOW_SECONDS = 10.0


class EngineCore:
    """State of an engine. Methods need the lock unless they say otherwise.

    Attributes:
        lock: guards everything here; a finaliser may come in while a thread holds it, so it is reentrant.
        work: notified when there is something to do.
        idle: notified when nothing runs.
        scheduler: who runs and who waits.
        busy: sequences that the worker is computing for; their slots must not be given on before it is done.
        is_stopping: whether the engine takes nothing more.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        eos_token_ids: frozenset[int],
        max_seconds: float | None,
        free: Callable[[int], None],
    ) -> None:
        """Start empty; `free` tells the runner that a slot is done with. For the rest see `Engine`."""
        self.lock = threading.RLock()
        self.work = threading.Condition(self.lock)
        self.idle = threading.Condition(self.lock)
        self.scheduler = scheduler
        self.busy: set[Sequence] = set()
        self.is_stopping = False
        self._eos_token_ids = eos_token_ids
        self._max_seconds = max_seconds
        self._free = free
        self._steps: deque[tuple[float, int]] = deque()
        self._num_recent = 0

    def finish(
        self, sequence: Sequence, *, reason: FinishReason | None = None, error: GenerationError | None = None
    ) -> None:
        """End a sequence for its reader, and free its slot unless the worker is computing for it."""
        sequence.finish_reason = reason
        sequence.error = error
        sequence.status = SequenceStatus.FINISHED  # last: readers, who take no lock, then see why
        sequence.wake_readers()
        sequence.changed.notify_all()
        if sequence not in self.busy:
            self._release(sequence)
        logger.info(
            "sequence %d: %d prompt tokens, %d new tokens, %s, first token after %s s, %s tokens/s",
            sequence.number,
            len(sequence.prompt_ids),
            len(sequence.output_ids),
            reason or (error.key if error else None),
            _rounded(sequence.time_to_first_token_seconds),
            _rounded(sequence.tokens_per_second),
        )

    def settle(self, sequence: Sequence, result: int | GenerationError | None) -> None:
        """Take what the worker computed for a sequence: a token, an error, or nothing yet."""
        self.busy.discard(sequence)
        if sequence.is_finished:  # cancelled or shut down meanwhile: the result comes too late
            self._release(sequence)
        elif isinstance(result, GenerationError):
            self.finish(sequence, error=result)
        elif result in self._eos_token_ids:
            self.finish(sequence, reason="stop")
        elif result is not None:
            sequence.append(result)
            if len(sequence.output_ids) >= sequence.max_new_tokens:
                self.finish(sequence, reason="length")

    def sweep(self) -> None:
        """End sequences whose readers have gone without a word, and those whose time is up."""
        for sequence in (*self.scheduler.waiting, *self.scheduler.running):
            if sequence.is_abandoned:
                self.finish(sequence, reason="cancelled")
        if self._max_seconds is not None:
            latest_start = time.monotonic() - self._max_seconds
            for sequence in list(self.scheduler.running):
                if sequence.started_seconds is not None and sequence.started_seconds < latest_start:
                    self.finish(sequence, reason="deadline")

    def fail_all(self, error: GenerationError) -> None:
        """End every sequence with an error."""
        for sequence in (*self.scheduler.waiting, *self.scheduler.running):
            if not sequence.is_finished:
                self.finish(sequence, error=error)

    def stop(self) -> None:
        """Take nothing more, end every sequence and let the worker leave. Takes the lock itself."""
        with self.lock:
            self.is_stopping = True
            self.fail_all(GenerationError("engine_stopped"))
            self.work.notify_all()

    def count_tokens(self, num_tokens: int) -> None:
        """Note the tokens of a step, for `tokens_per_second`."""
        self._steps.append((time.monotonic(), num_tokens))
        self._num_recent += num_tokens
        self._forget_old_steps()

    def tokens_per_second(self) -> float:
        """Return the tokens of all sequences a second, over the last ten seconds."""
        self._forget_old_steps()
        return self._num_recent / _WINDOW_SECONDS

    def _forget_old_steps(self) -> None:
        oldest = time.monotonic() - _WINDOW_SECONDS
        while self._steps and self._steps[0][0] < oldest:
            self._num_recent -= self._steps.popleft()[1]

    def _release(self, sequence: Sequence) -> None:
        """Give the slot on, and let the others move up."""
        if sequence.slot is not None:
            self._free(sequence.slot)
        self.scheduler.remove(sequence)
        sequence.sampler = None
        for other in (*self.scheduler.running, *self.scheduler.waiting):
            other.changed.notify_all()
        if not self.scheduler.running:
            self.idle.notify_all()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
