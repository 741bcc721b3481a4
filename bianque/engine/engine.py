"""Runs one model for many readers.

    submit ──► waiting queue ──► slot: prefill, then one decode step a round ──► stream
    (any thread)                 (one worker thread)                              (any thread)

The engine knows token ids only; text, prompts and tokenizers are others' business. Promises:

- First come, first served; a bounded queue; `num_slots` sequences take turns, one decode step each.
- A slow reader slows nobody: tokens wait in the sequence, which holds at most `max_new_tokens` of them.
- A cancelled sequence gets no further decode step; its slot and KV cache are free at once, or, if the worker is just
  computing for it, as soon as that step ends.
- An error while computing one sequence ends that one alone.
- Nothing polls: worker and readers sleep until something changes.

Logs carry sequence numbers, counts and timings, never ids or text.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator
from collections.abc import Sequence as Ids
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bianque.engine.sampling import SamplingParams
from bianque.engine.scheduler import Scheduler
from bianque.engine.sequence import FinishReason, Sequence, SequenceStatus
from bianque.errors import GenerationError, InputError

if TYPE_CHECKING:
    from bianque.engine.runner import ModelRunner

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineStatus:
    """How busy an engine is.

    Attributes:
        num_running: slots taken.
        num_waiting: sequences waiting for a slot.
        num_slots: all slots.
    """

    num_running: int
    num_waiting: int
    num_slots: int


class Engine:
    """One model and the worker thread that runs it. All methods may be called from any thread.

    A context manager: leaving it shuts the engine down. An engine that is dropped without `shutdown` keeps its thread,
    which is a daemon, until the process ends.
    """

    def __init__(
        self,
        runner: ModelRunner,
        *,
        num_slots: int = 1,
        max_waiting: int = 16,
        eos_token_ids: Collection[int] | None = None,
        max_model_len: int | None = None,
    ) -> None:
        """Start the worker thread.

        Args:
            runner: computes logits; used by the worker thread only.
            num_slots: sequences that run at once, each with a KV cache of its own; at least 1.
            max_waiting: sequences that may wait beyond those; at least 0.
            eos_token_ids: ids that end a sequence; None takes the runner's.
            max_model_len: longest prompt in tokens of an encoder-decoder, prompt and reply together of a decoder-only
                model; None takes the runner's.

        Raises:
            ValueError: if a number is out of range.
        """
        self._runner = runner
        self._eos_token_ids = frozenset(runner.eos_token_ids if eos_token_ids is None else eos_token_ids)
        self._max_model_len = runner.max_model_len if max_model_len is None else max_model_len
        self._lock = threading.RLock()  # a finaliser may come in while this thread holds it
        self._work = threading.Condition(self._lock)
        self._idle = threading.Condition(self._lock)
        self._scheduler = Scheduler(num_slots, max_waiting)
        self._computing: Sequence | None = None
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, prompt_ids: Ids[int], params: SamplingParams) -> Sequence:
        """Take a request; it is computed whether or not `stream` is called, until it ends or is cancelled.

        Args:
            prompt_ids: ids as the model's tokenizer makes them, special tokens included.
            params: how to choose tokens. When prompt and reply would pass the model's length, `max_new_tokens` gives
                way, and the sequence ends with `length`.

        Raises:
            InputError: `prompt_too_long`.
            QueueFullError: if all slots are taken and the queue is full.
            GenerationError: `engine_stopped`, after `shutdown`.
            ValueError: if the prompt is empty or holds ids that the model does not have.
        """
        if not prompt_ids:
            raise ValueError("prompt_ids must not be empty")
        # Checked here because on a GPU an id out of range would break the device for every sequence.
        if not 0 <= min(prompt_ids) <= max(prompt_ids) < self._runner.vocab_size:
            raise ValueError(f"prompt_ids must be from 0 to {self._runner.vocab_size - 1}")
        max_new_tokens = params.max_new_tokens
        if self._max_model_len is not None:
            limit = self._max_model_len if self._runner.is_encoder_decoder else self._max_model_len - 1
            if len(prompt_ids) > limit:
                raise InputError("prompt_too_long", limit=limit, got=len(prompt_ids))
            if not self._runner.is_encoder_decoder:
                max_new_tokens = min(max_new_tokens, self._max_model_len - len(prompt_ids))
        sequence = Sequence(prompt_ids, params, max_new_tokens, self._lock)
        with self._lock:
            if self._is_stopping:
                raise GenerationError("engine_stopped")
            self._scheduler.add(sequence)
            self._work.notify()
        return sequence

    def stream(self, sequence: Sequence) -> TokenStream:
        """Return an iterator over a sequence's tokens, from the first one on; closing it cancels the sequence."""
        return TokenStream(self, sequence)

    def cancel(self, sequence: Sequence) -> None:
        """End a sequence before its next decode step, and its stream at once, also if it has tokens not yet read.

        Does nothing to a sequence that is finished.
        """
        with self._lock:
            if not sequence.is_finished:
                self._finish(sequence, reason="cancelled")

    def position(self, sequence: Sequence) -> int | None:
        """Return the 1-based place of a sequence among those waiting; None once it runs or is finished."""
        with self._lock:
            return self._scheduler.position(sequence)

    def positions(self, sequence: Sequence) -> Iterator[int]:
        """Yield a sequence's place in the queue, now and whenever it changes, until it waits no more.

        Blocks between places; `cancel` ends it.
        """
        position = self.position(sequence)
        while position is not None:
            yield position
            with self._lock:
                while self._scheduler.position(sequence) == position:
                    sequence.changed.wait()
                position = self._scheduler.position(sequence)

    def status(self) -> EngineStatus:
        """Return how busy the engine is."""
        with self._lock:
            scheduler = self._scheduler
            return EngineStatus(len(scheduler.running), len(scheduler.waiting), scheduler.num_slots)

    def wait_idle(self, timeout_seconds: float | None = None) -> bool:
        """Wait until no sequence runs or waits; return whether that is so."""
        with self._lock:
            return self._idle.wait_for(lambda: not self._scheduler.running, timeout_seconds)

    def shutdown(self) -> None:
        """End every stream with `engine_stopped` and the worker thread after its present step; may be called twice."""
        self._end_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def _run(self) -> None:
        """Serve rounds until shutdown; the worker thread's body."""
        try:
            while sequences := self._next_round():
                for sequence in sequences:
                    self._advance(sequence)
        finally:  # whatever ended the worker, no reader may wait for it
            self._computing = None
            self._end_all()

    def _next_round(self) -> list[Sequence]:
        """Wait for work; return the running sequences, or none to stop."""
        with self._lock:
            self._work.wait_for(lambda: self._is_stopping or self._scheduler.running)
            for sequence in [sequence for sequence in self._scheduler.waiting if sequence.is_abandoned]:
                self._finish(sequence, reason="cancelled")
            return [] if self._is_stopping else self._scheduler.round()

    def _advance(self, sequence: Sequence) -> None:
        """Compute and deliver one token of a sequence."""
        with self._lock:
            if sequence.is_abandoned and not sequence.is_finished:
                self._finish(sequence, reason="cancelled")
            if sequence.is_finished:
                return
            self._computing = sequence
        token_id, error = None, None
        try:
            token_id = self._compute(sequence)
        except Exception as raised:
            error = _failure(raised, sequence)
        with self._lock:
            self._computing = None
            if sequence.is_finished:  # cancelled or shut down meanwhile: the token comes too late
                self._release(sequence)
            elif error is not None or token_id is None:
                self._finish(sequence, error=error)
            elif token_id in self._eos_token_ids:
                self._finish(sequence, reason="stop")
            else:
                sequence.append(token_id)
                sequence.changed.notify_all()
                if len(sequence.output_ids) >= sequence.max_new_tokens:
                    self._finish(sequence, reason="length")

    def _compute(self, sequence: Sequence) -> int:
        """Return the next token of a sequence: prefill the first time, a decode step after that."""
        from bianque.engine.sampler import Sampler

        if sequence.sampler is None:
            sequence.state, logits = self._runner.prefill(sequence.prompt_ids)
            sequence.sampler = Sampler(sequence.params, self._runner.context_ids(sequence.prompt_ids))
        else:
            logits = self._runner.decode(sequence.state, sequence.output_ids[-1])
        return sequence.sampler.sample(logits)

    def _finish(
        self, sequence: Sequence, *, reason: FinishReason | None = None, error: GenerationError | None = None
    ) -> None:
        """End a sequence for its reader, and free its slot unless the worker is computing for it. Needs the lock."""
        sequence.status = SequenceStatus.FINISHED
        sequence.finish_reason = reason
        sequence.error = error
        sequence.changed.notify_all()
        if sequence is not self._computing:
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

    def _release(self, sequence: Sequence) -> None:
        """Free slot and KV cache, and let the others move up. Needs the lock."""
        self._scheduler.remove(sequence)
        sequence.state = sequence.sampler = None
        for other in (*self._scheduler.running, *self._scheduler.waiting):
            other.changed.notify_all()
        if not self._scheduler.running:
            self._idle.notify_all()

    def _end_all(self) -> None:
        with self._lock:
            self._is_stopping = True
            for sequence in (*self._scheduler.waiting, *self._scheduler.running):
                if not sequence.is_finished:
                    self._finish(sequence, error=GenerationError("engine_stopped"))
            self._work.notify_all()


class TokenStream(Iterator[int]):
    """Tokens of one sequence as they come, for one reader.

    Ends when the sequence does, `Sequence.finish_reason` then says why. Closing it, or dropping it before its end,
    cancels the sequence.
    """

    def __init__(self, engine: Engine, sequence: Sequence) -> None:
        """Read `sequence` from its first token on."""
        self._engine = engine
        self._sequence = sequence
        self._num_read = 0

    def __next__(self) -> int:
        """Wait for the next token and return it.

        Raises:
            StopIteration: at the end.
            GenerationError: if the sequence failed, after the tokens it has.
        """
        sequence = self._sequence
        with sequence.changed:
            sequence.changed.wait_for(lambda: sequence.is_finished or len(sequence.output_ids) > self._num_read)
            # After a cancel nothing more is wanted: a reader that lags must not go on for what had piled up.
            if self._num_read < len(sequence.output_ids) and sequence.finish_reason != "cancelled":
                self._num_read += 1
                return sequence.output_ids[self._num_read - 1]
        if sequence.error is not None:
            raise GenerationError(sequence.error.key, **sequence.error.params)
        raise StopIteration

    def close(self) -> None:
        """Cancel the sequence unless it is finished."""
        self._engine.cancel(self._sequence)

    def __enter__(self) -> TokenStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # No lock may be taken here: the interpreter may finalise in the middle of anything.
        self._sequence.is_abandoned = True


def _failure(raised: Exception, sequence: Sequence) -> GenerationError:
    """Return what a reader is told about an exception of the computation, and log the rest.

    The result holds no reference to the traceback, whose frames would keep the KV cache alive.
    """
    if isinstance(raised, GenerationError):
        return GenerationError(raised.key, **raised.params)
    logger.error("sequence %d failed", sequence.number, exc_info=raised)
    is_memory = isinstance(raised, MemoryError) or (
        isinstance(raised, RuntimeError) and any(words in str(raised) for words in _MEMORY_WORDS)
    )
    if is_memory:
        return GenerationError("out_of_memory")
    return GenerationError("computation_failed", reason=type(raised).__name__)


# torch has no one exception for it: CUDA's is a RuntimeError of its own class, the CPU allocator's a plain one.
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
