"""One request: its token ids, its status and its timings."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence as Ids
from enum import StrEnum
from queue import SimpleQueue
from typing import TYPE_CHECKING, Literal

from bianque.engine.sampling import SamplingParams

if TYPE_CHECKING:
    from bianque.engine.sampler import Sampler
    from bianque.errors import GenerationError

FinishReason = Literal["stop", "length", "deadline", "cancelled"]

_numbers = itertools.count(1)


class SequenceStatus(StrEnum):
    """Where a sequence is."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class Sequence:
    """One request. Made by `Engine.submit`; everything is read-only for others than the engine.

    Attributes:
        number: counts the sequences of the process; the only name logs give it.
        prompt_ids: ids of the prompt.
        params: sampling params.
        max_new_tokens: what `params` ask for, less what the model's length leaves no room for.
        visitor: whose request it is, an opaque name; None for nobody's.
        output_ids: ids generated so far, the end token left out. Only ever grows.
        status: waiting, running or finished.
        finish_reason: why it ended: `stop` (end token), `length`, `deadline` (its time was up) or `cancelled`; None
            before, and after an error.
        error: why it failed.
        is_abandoned: set when its reader was dropped without a word; the engine then ends it at its next turn.
        changed: notified whenever the status or the place in the queue changes.
        slot: its place in the runner, while it runs.
        sampler: chooses its tokens, from its prefill to its end.
        started_seconds: when it got its slot, on the monotonic clock.
    """

    def __init__(
        self,
        prompt_ids: Ids[int],
        params: SamplingParams,
        max_new_tokens: int,
        lock: threading.RLock,
        visitor: str | None = None,
    ) -> None:
        """Make a waiting sequence; `lock` is the engine's and guards every change."""
        self.number = next(_numbers)
        self.prompt_ids = tuple(prompt_ids)
        self.params = params
        self.max_new_tokens = max_new_tokens
        self.visitor = visitor
        self.output_ids: list[int] = []
        self.status = SequenceStatus.WAITING
        self.finish_reason: FinishReason | None = None
        self.error: GenerationError | None = None
        self.is_abandoned = False
        self.changed = threading.Condition(lock)
        self.slot: int | None = None
        self.sampler: Sampler | None = None
        self.started_seconds: float | None = None
        self._readers: list[SimpleQueue[None]] = []
        self._submitted = time.monotonic()
        self._first_token: float | None = None
        self._last_token: float | None = None

    def append(self, token_id: int) -> None:
        """Add a generated token."""
        self._last_token = time.monotonic()
        if self._first_token is None:
            self._first_token = self._last_token
        self.output_ids.append(token_id)  # after the times: readers, who take no lock, then see both
        self.wake_readers()

    def add_reader(self) -> SimpleQueue[None]:
        """Return a queue that gets an entry whenever there are more tokens, and at the end.

        Readers look at `output_ids` and `status` without the engine's lock: were each of them to take it for every
        token, all would wait for the worker and the worker for them.
        """
        reader: SimpleQueue[None] = SimpleQueue()
        self._readers.append(reader)
        return reader

    def wake_readers(self) -> None:
        """Let every reader look again."""
        for reader in self._readers:
            reader.put(None)

    @property
    def is_finished(self) -> bool:
        """Whether no more tokens come."""
        return self.status is SequenceStatus.FINISHED

    @property
    def time_to_first_token_seconds(self) -> float | None:
        """From submission to the first token, waiting included; None before it."""
        return None if self._first_token is None else self._first_token - self._submitted

    @property
    def tokens_per_second(self) -> float | None:
        """Decode steps a second after the first token; None before the second token."""
        if self._first_token is None or self._last_token is None or self._last_token <= self._first_token:
            return None
        return (len(self.output_ids) - 1) / (self._last_token - self._first_token)
