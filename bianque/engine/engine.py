"""The engine: requests in, token ids out. One worker thread runs the model; readers wait without polling.

Running sequences take turns, one decode step each, so that a long reply does not hold up a short one. A slow reader
slows nobody: the worker never waits for readers. The engine knows nothing about text; its log lines carry numbers
only.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bianque.engine.runner import ModelRunner
from bianque.engine.sampling import Sampler, SamplingParams
from bianque.engine.scheduler import Scheduler
from bianque.engine.sequence import FinishReason, Sequence, SequenceStatus
from bianque.errors import BianQueError, GenerationError, InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineStatus:
    """How busy an engine is."""

    num_running: int
    num_waiting: int
    num_slots: int


@dataclass
class _Slot:
    """What a running sequence owns: model state (KV cache) and sampler. Dropped as a whole when it ends."""

    state: Any
    sampler: Sampler
    last_token_id: int


class Engine:
    """Runs one model for many requests. All public methods may be called from any thread."""

    def __init__(self, runner: ModelRunner, *, num_slots: int, max_waiting: int, max_model_len: int) -> None:
        """Start the worker.

        Args:
            runner: of the model; used by the worker thread alone.
            num_slots: sequences that run at once, at least 1; bounds the memory of the KV caches.
            max_waiting: requests that may wait beyond those.
            max_model_len: longest prompt and reply together, in tokens; of the prompt alone for an encoder-decoder.
        """
        self.max_model_len = max_model_len
        self._runner = runner
        self._scheduler = Scheduler(num_slots, max_waiting)
        self._slots: dict[Sequence, _Slot] = {}
        self._condition = threading.Condition()
        self._is_stopping = False
        self._worker = threading.Thread(target=self._work, name="engine", daemon=True)
        self._worker.start()

    def submit(self, prompt_ids: list[int], params: SamplingParams) -> Sequence:
        """Queue a request.

        Raises:
            InputError: if the prompt is empty or leaves no room for a token.
            QueueFullError: if the queue is full.
            GenerationError: if the engine has been shut down.
        """
        limit = self.max_model_len if self._runner.is_encoder_decoder else self.max_model_len - 1
        if not 1 <= len(prompt_ids) <= limit:
            raise InputError("prompt_too_long", limit=limit, got=len(prompt_ids))
        sequence = Sequence(list(prompt_ids), params)
        with self._condition:
            if self._is_stopping:
                raise GenerationError("engine_stopped")
            self._scheduler.add(sequence)
            self._condition.notify_all()
        return sequence

    def stream(self, sequence: Sequence) -> Iterator[int]:
        """Yield the sequence's tokens as they come; closing the iterator cancels the sequence.

        Raises:
            GenerationError: if the sequence fails, after the tokens it had.
        """
        try:
            while (token_ids := sequence.read()) is not None:
                yield from token_ids
        finally:
            self.cancel(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """End a sequence before its next decode step; a finished one is left as it is."""
        with self._condition:
            if sequence.status is SequenceStatus.FINISHED:
                return
            sequence.is_cancelled = True
            if sequence in self._scheduler.waiting:
                self._end(sequence, "cancelled")
            self._condition.notify_all()

    def position(self, sequence: Sequence) -> int | None:
        """Return the 1-based place among those waiting, or None once it runs."""
        with self._condition:
            return self._scheduler.position(sequence)

    def status(self) -> EngineStatus:
        """Return how busy the engine is."""
        with self._condition:
            scheduler = self._scheduler
            return EngineStatus(len(scheduler.running), len(scheduler.waiting), scheduler.num_slots)

    def shutdown(self) -> None:
        """End every sequence with an error and stop the worker; returns when it has stopped."""
        with self._condition:
            self._is_stopping = True
            self._condition.notify_all()
        if threading.current_thread() is not self._worker:
            self._worker.join()

    def _work(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._is_stopping or self._scheduler.waiting or self._slots)
                if self._is_stopping:
                    for sequence in [*self._scheduler.waiting, *self._scheduler.running]:
                        self._end(sequence, None, GenerationError("engine_stopped"))
                    return
            self._step()

    def _step(self) -> None:
        """Prefill at most one newcomer, then give every running sequence one decode step."""
        with self._condition:
            newcomer = self._scheduler.admit()
            running = list(self._slots)
        if newcomer is not None:
            newcomer.start()
            self._advance(newcomer)
        for sequence in running:
            self._advance(sequence)

    def _advance(self, sequence: Sequence) -> None:
        """Produce one token; whatever goes wrong ends this sequence alone."""
        if sequence.is_cancelled:
            self._finish(sequence, "cancelled")
            return
        try:
            token_id = self._next_token(sequence)
        except BianQueError as error:
            self._finish(sequence, None, error)
            return
        except Exception as error:  # out of memory, a kernel's failure: the others go on
            logger.exception("sequence %d failed after %d tokens", sequence.number, len(sequence.token_ids))
            self._finish(sequence, None, GenerationError("computation_failed", reason=type(error).__name__))
            return
        if token_id in self._runner.eos_token_ids:
            self._finish(sequence, "stop")
            return
        if not sequence.is_cancelled:
            sequence.append(token_id)
        if len(sequence.token_ids) >= self._limit(sequence):
            self._finish(sequence, "length")

    def _next_token(self, sequence: Sequence) -> int:
        slot = self._slots.get(sequence)
        if slot is None:
            state, logits = self._runner.prefill(sequence.prompt_ids)
            sampler = Sampler(sequence.params, self._runner.context_ids(sequence.prompt_ids), logits.device)
            token_id = sampler.sample(logits)
            with self._condition:
                self._slots[sequence] = _Slot(state, sampler, token_id)
            return token_id
        slot.last_token_id = slot.sampler.sample(self._runner.decode(slot.state, slot.last_token_id))
        return slot.last_token_id

    def _limit(self, sequence: Sequence) -> int:
        if self._runner.is_encoder_decoder:
            return sequence.params.max_new_tokens
        return min(sequence.params.max_new_tokens, self.max_model_len - len(sequence.prompt_ids))

    def _finish(self, sequence: Sequence, reason: FinishReason | None, error: BianQueError | None = None) -> None:
        with self._condition:
            self._end(sequence, reason, error)

    def _end(self, sequence: Sequence, reason: FinishReason | None, error: BianQueError | None = None) -> None:
        """Free what a sequence holds, then wake its reader, so that a reader who saw the end finds the slot free."""
        self._slots.pop(sequence, None)
        self._scheduler.remove(sequence)
        sequence.finish(reason, error)
        logger.debug(
            "sequence %d: %d prompt tokens, %d new, %s, first token %.3f s, %.1f tokens/s",
            sequence.number,
            len(sequence.prompt_ids),
            len(sequence.token_ids),
            reason or (error.key if error else "failed"),
            sequence.time_to_first_token_seconds or 0.0,
            sequence.tokens_per_second or 0.0,
        )
