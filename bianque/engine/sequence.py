"""One request on its way through the engine: token ids, counters, status, and the hand-over to its reader."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from enum import Enum
from typing import Literal

from bianque.engine.sampling import SamplingParams
from bianque.errors import BianQueError

FinishReason = Literal["stop", "length", "cancelled"]

_numbers = itertools.count(1)


class SequenceStatus(Enum):
    """Where a sequence is."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class Sequence:
    """One request. Created by `Engine.submit`; the engine's worker writes, the reader reads, `condition` guards both.

    Attributes:
        number: unique in the process, for logs.
        prompt_ids: the prompt's token ids.
        params: how it is decoded.
        token_ids: generated so far, without the end token.
        status: where it is.
        finish_reason: `stop` (end token), `length` or `cancelled`; None until finished, or when it failed.
        error: why it failed, if it did.
    """

    def __init__(self, prompt_ids: list[int], params: SamplingParams) -> None:
        self.number = next(_numbers)
        self.prompt_ids = prompt_ids
        self.params = params
        self.token_ids: list[int] = []
        self.status = SequenceStatus.WAITING
        self.finish_reason: FinishReason | None = None
        self.error: BianQueError | None = None
        self.is_cancelled = False
        self.condition = threading.Condition()
        self._unread: deque[int] = deque()
        self._submitted = time.monotonic()
        self._first_token: float | None = None
        self._last_token: float | None = None

    @property
    def time_to_first_token_seconds(self) -> float | None:
        """Seconds from submission to the first token, or None before it."""
        return None if self._first_token is None else self._first_token - self._submitted

    @property
    def tokens_per_second(self) -> float | None:
        """Decode speed after the first token, or None before the second."""
        if self._first_token is None or self._last_token is None or self._last_token == self._first_token:
            return None
        return (len(self.token_ids) - 1) / (self._last_token - self._first_token)

    def append(self, token_id: int) -> None:
        """Add a generated token and wake the reader."""
        now = time.monotonic()
        with self.condition:
            self.token_ids.append(token_id)
            self._unread.append(token_id)
            self._first_token = self._first_token or now
            self._last_token = now
            self.condition.notify_all()

    def start(self) -> None:
        """Mark that the sequence has a slot."""
        with self.condition:
            self.status = SequenceStatus.RUNNING
            self.condition.notify_all()

    def finish(self, reason: FinishReason | None, error: BianQueError | None = None) -> None:
        """End the sequence, once; unread tokens stay readable."""
        with self.condition:
            if self.status is SequenceStatus.FINISHED:
                return
            self.status = SequenceStatus.FINISHED
            self.finish_reason = reason
            self.error = error
            self.condition.notify_all()

    def wait_started(self, timeout_seconds: float | None = None) -> bool:
        """Wait until the sequence no longer waits for a slot; return whether that is so."""
        with self.condition:
            return self.condition.wait_for(lambda: self.status is not SequenceStatus.WAITING, timeout_seconds)

    def read(self, timeout_seconds: float | None = None) -> list[int] | None:
        """Wait for tokens and return all unread ones.

        Returns:
            The unread tokens; an empty list when `timeout_seconds` passed without one; None at the end.

        Raises:
            BianQueError: the sequence's error, once its tokens are read.
        """
        with self.condition:
            self.condition.wait_for(lambda: self._unread or self.status is SequenceStatus.FINISHED, timeout_seconds)
            token_ids = list(self._unread)
            self._unread.clear()
            if token_ids or self.status is not SequenceStatus.FINISHED:
                return token_ids
            if self.error is not None:
                raise self.error
            return None
