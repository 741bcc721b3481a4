"""Runs one model for many readers.

    submit ──► waiting queue ──► slot: prompt, then a token with every decode step ──► stream
    (any thread)                 (one worker thread, all slots in one step)            (any thread)

The engine knows token ids only; text, prompts and tokenizers are others' business. Promises:

- First come, first served; a bounded queue; who finds it full is told at once. A request joins the running batch at
  the next step and leaves it with its last token; `bianque.engine.worker` says what a newcomer costs the others.
- Results do not depend on who else runs: greedy replies are those of a sequence alone, and so are seeded ones, but for
  rounding where a library's matrix product rounds differently for different numbers of rows.
- Memory is bounded: the KV cache has its full size from the start. A slow reader slows nobody: tokens wait in the
  sequence, which holds at most `max_new_tokens` of them.
- A cancelled sequence gets no further decode step, and its slot is free at once, or, if the worker is just computing
  for it, as soon as that step (in a prompt, that layer) ends.
- An error while computing one sequence ends that one alone. When a decode step runs out of memory, the youngest
  sequence ends and the others go on. When the worker itself fails, every sequence ends with an error and the worker
  begins anew; after three failures in a row, or on a device that is beyond use, the engine refuses everything.
- Nothing polls: worker and readers sleep until something changes.

Logs carry sequence numbers, counts and timings, never ids or text.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from collections.abc import Sequence as Ids
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bianque.engine.core import EngineCore
from bianque.engine.sampling import SamplingParams
from bianque.engine.scheduler import Scheduler
from bianque.engine.sequence import Sequence
from bianque.engine.stream import TokenStream
from bianque.engine.threads import ThreadChooser
from bianque.engine.turns import Turns
from bianque.engine.worker import Worker
from bianque.errors import GenerationError, InputError

if TYPE_CHECKING:
    from bianque.engine.runner import ModelRunner

__all__ = ["Engine", "EngineStatus", "TokenStream"]

# A process that ends does not wait longer than this for a step; the thread dies with it.
_SHUTDOWN_SECONDS = 4.0


@dataclass(frozen=True)
class EngineStatus:
    """How busy an engine is.

    Attributes:
        num_running: slots taken.
        num_waiting: sequences waiting for a slot.
        num_slots: all slots.
        tokens_per_second: of all sequences together, over the last ten seconds.
        kv_cache_bytes: memory of all slots, used or not.
    """

    num_running: int
    num_waiting: int
    num_slots: int
    tokens_per_second: float = 0.0
    kv_cache_bytes: int = 0


class Engine:
    """One model and the worker thread that runs it. All methods may be called from any thread.

    A context manager: leaving it shuts the engine down. An engine that is dropped without `shutdown` keeps its thread,
    which is a daemon, until the process ends.
    """

    def __init__(
        self,
        runner: ModelRunner,
        *,
        num_slots: int | None = None,
        max_waiting: int = 16,
        max_per_visitor: int | None = None,
        max_seconds: float | None = None,
        max_stall_seconds: float = 1.0,
        eos_token_ids: Collection[int] | None = None,
        max_model_len: int | None = None,
        turns: Turns | None = None,
        threads: ThreadChooser | None = None,
    ) -> None:
        """Start the worker thread.

        Args:
            runner: computes logits; used by the worker thread only.
            num_slots: sequences that run at once, at most as many as the runner has slots; None takes those.
            max_waiting: sequences that may wait beyond those; at least 0.
            max_per_visitor: sequences of one visitor that may run or wait at once; None sets no limit.
            max_seconds: how long a sequence may run, its prompt included; then it ends with `deadline`. None sets no
                limit.
            max_stall_seconds: how long running sequences may wait for a newcomer's prompt between two of their steps.
            eos_token_ids: ids that end a sequence; None takes the runner's.
            max_model_len: longest prompt in tokens of an encoder-decoder, prompt and reply together of a decoder-only
                model; the runner's limit holds as well.
            turns: shared by engines that compute on the same device; None computes whenever there is work.
            threads: chooses how many threads decode steps use; None leaves that alone.

        Raises:
            ValueError: if a number is out of range.
        """
        num_slots = runner.num_slots if num_slots is None else num_slots
        if num_slots > runner.num_slots:
            raise ValueError(f"num_slots must be at most the runner's {runner.num_slots}, but it is {num_slots}")
        limits = [limit for limit in (max_model_len, runner.max_prompt_len) if limit is not None]
        self._runner = runner
        self._max_model_len = min(limits) if limits else None
        eos = frozenset(runner.eos_token_ids if eos_token_ids is None else eos_token_ids)
        scheduler = Scheduler(num_slots, max_waiting, max_per_visitor)
        self._core = EngineCore(scheduler, eos, max_seconds, runner.free)
        worker = Worker(self._core, runner, turns or Turns(), max_stall_seconds, threads)
        self._thread = threading.Thread(target=worker.run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, prompt_ids: Ids[int], params: SamplingParams, *, visitor: str | None = None) -> Sequence:
        """Take a request; it is computed whether or not `stream` is called, until it ends or is cancelled.

        Args:
            prompt_ids: ids as the model's tokenizer makes them, special tokens included.
            params: how to choose tokens. When prompt and reply would pass the model's length, `max_new_tokens` gives
                way, and the sequence ends with `length`.
            visitor: an opaque name of whose request it is, for the limit per visitor; None is not limited.

        Raises:
            InputError: `prompt_too_long`.
            QueueFullError: `queue_full`, if all slots are taken and the queue is full; `visitor_busy`.
            GenerationError: `engine_stopped`, after `shutdown`.
            ValueError: if the prompt is empty or holds ids that the model does not have.
        """
        if not prompt_ids:
            raise ValueError("prompt_ids must not be empty")
        # Checked here because on a GPU an id out of range would break the device for every sequence.
        if not 0 <= min(prompt_ids) <= max(prompt_ids) < self._runner.vocab_size:
            raise ValueError(f"prompt_ids must be from 0 to {self._runner.vocab_size - 1}")
        sequence = Sequence(prompt_ids, params, self._room(prompt_ids, params), self._core.lock, visitor)
        with self._core.lock:
            if self._core.is_stopping:
                raise GenerationError("engine_stopped")
            self._core.scheduler.add(sequence)
            self._core.work.notify()
        return sequence

    def stream(self, sequence: Sequence) -> TokenStream:
        """Return an iterator over a sequence's tokens, from the first one on; closing it cancels the sequence."""
        return TokenStream(sequence, self.cancel)

    def cancel(self, sequence: Sequence) -> None:
        """End a sequence before its next decode step, and its stream at once, also if it has tokens not yet read.

        Does nothing to a sequence that is finished.
        """
        with self._core.lock:
            if not sequence.is_finished:
                self._core.finish(sequence, reason="cancelled")

    def position(self, sequence: Sequence) -> int | None:
        """Return the 1-based place of a sequence among those waiting; None once it runs or is finished."""
        with self._core.lock:
            return self._core.scheduler.position(sequence)

    def positions(self, sequence: Sequence) -> Iterator[int]:
        """Yield a sequence's place in the queue, now and whenever it changes, until it waits no more.

        Blocks between places; `cancel` ends it.
        """
        position = self.position(sequence)
        while position is not None:
            yield position
            with self._core.lock:
                while self._core.scheduler.position(sequence) == position:
                    sequence.changed.wait()
                position = self._core.scheduler.position(sequence)

    def expected_wait_seconds(self, sequence: Sequence) -> float | None:
        """Return how long a waiting sequence will probably wait for its first token; see `bianque.engine.wait`.

        None once it runs or is finished, and before any reply has ended.
        """
        with self._core.lock:
            return self._core.scheduler.expected_wait_seconds(sequence)

    def status(self) -> EngineStatus:
        """Return how busy the engine is."""
        with self._core.lock:
            scheduler = self._core.scheduler
            return EngineStatus(
                len(scheduler.running),
                len(scheduler.waiting),
                scheduler.num_slots,
                self._core.tokens_per_second(),
                self._runner.kv_cache_bytes,
            )

    def wait_idle(self, timeout_seconds: float | None = None) -> bool:
        """Wait until no sequence runs or waits; return whether that is so."""
        with self._core.lock:
            return self._core.idle.wait_for(lambda: not self._core.scheduler.running, timeout_seconds)

    def shutdown(self) -> None:
        """End every stream with `engine_stopped`, and the worker thread after its present step; may be called twice.

        Returns after four seconds even if that step takes longer.
        """
        self._core.stop()
        if threading.current_thread() is not self._thread:
            self._thread.join(_SHUTDOWN_SECONDS)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def _room(self, prompt_ids: Ids[int], params: SamplingParams) -> int:
        """Return how many new tokens a sequence may have.

        Raises:
            InputError: `prompt_too_long`.
        """
        max_new_tokens = params.max_new_tokens
        if self._runner.max_new_tokens is not None:
            max_new_tokens = min(max_new_tokens, self._runner.max_new_tokens)
        if self._max_model_len is None:
            return max_new_tokens
        limit = self._max_model_len if self._runner.is_encoder_decoder else self._max_model_len - 1
        if len(prompt_ids) > limit:
            raise InputError("prompt_too_long", limit=limit, got=len(prompt_ids))
        if not self._runner.is_encoder_decoder:
            max_new_tokens = min(max_new_tokens, self._max_model_len - len(prompt_ids))
        return max_new_tokens
