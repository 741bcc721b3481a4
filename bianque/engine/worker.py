"""The engine's loop: at most one prompt between two decode steps, and one decode step for all that run.

                    ┌────────────────────────────────────────────────────────┐
    waiting ──► slot, prompt: layer after layer, up to `max_stall_seconds` ──┤
                    │                                                        ▼
                    └──────────── one decode step for all that run ◄─────────┘

The prompts of both architectures are read in both directions, so that a prompt cannot be cut into pieces of tokens.
What follows: chats that run would stand still for a whole prefill, were it not cut between layers. It is: after the
layers that fit into `max_stall_seconds` (at least one) the running chats get their step. So the gap between two of
their tokens is at most that time, or one layer where a layer takes longer, and a decode step. A GPU only queues the
layers: there the clock sees little of their time, and the gap may be as long as the GPU takes for a whole prompt.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence as Many
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bianque.engine.core import EngineCore
from bianque.engine.sequence import Sequence
from bianque.engine.threads import ThreadChooser
from bianque.engine.turns import Turns
from bianque.errors import GenerationError

if TYPE_CHECKING:
    import torch

    from bianque.engine.runner import ModelRunner, Prefill

logger = logging.getLogger(__name__)

Result = int | GenerationError | None


@dataclass
class _Prompt:
    """A prompt that is being run: its steps, when it began, and what it has taken of the device so far."""

    sequence: Sequence
    steps: Prefill
    started: float
    seconds: float = 0.0


# A worker that fails this often without one token in between is given up.
_MAX_FAILURES = 3
# torch has no one exception for it: CUDA's is a RuntimeError of its own class, the CPU allocator's a plain one.
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")
# After one of these, unless it is about memory, a CUDA context computes nothing more.
_BROKEN_DEVICE_WORDS = ("CUDA error", "device-side assert")


class Worker:
    """Computes what the core's scheduler has running, in one thread."""

    def __init__(
        self,
        core: EngineCore,
        runner: ModelRunner,
        turns: Turns,
        max_stall_seconds: float,
        threads: ThreadChooser | None = None,
    ) -> None:
        """Store what is needed; `run` is the thread's body.

        Args:
            core: the engine's state.
            runner: used by this worker alone.
            turns: each prefill slice and each decode step takes one.
            max_stall_seconds: how long running sequences may wait for a prompt between two of their steps.
            threads: chooses how many threads decode steps use; None leaves that alone.
        """
        self._core = core
        self._runner = runner
        self._turns = turns
        self._max_stall_seconds = max_stall_seconds
        self._threads = threads
        self._prefill: _Prompt | None = None
        self._num_failures = 0

    def run(self) -> None:
        """Serve until the engine stops; after a failure of the worker itself, end all sequences and begin anew."""
        is_alive = True
        while is_alive:
            try:
                self._serve()
                is_alive = False
            except BaseException:  # whatever ended the loop, no reader may wait for it
                logger.critical("the engine's worker failed", exc_info=True)
                is_alive = self._begin_anew()
        self._core.stop()

    def _begin_anew(self) -> bool:
        """End every sequence and reset the runner; return whether to go on."""
        self._num_failures += 1
        self._prefill = None
        can_go_on = self._num_failures < _MAX_FAILURES
        try:
            self._runner.reset()
        except Exception:
            logger.critical("the device cannot be used any more; start the application again", exc_info=True)
            can_go_on = False
        with self._core.lock:
            for sequence in list(self._core.busy):
                self._core.settle(sequence, None)
            self._core.is_stopping |= not can_go_on
            self._core.fail_all(GenerationError("worker_failed") if can_go_on else GenerationError("engine_stopped"))
        return can_go_on

    def _serve(self) -> None:
        while True:
            with self._core.lock:
                if not self._core.scheduler.running:
                    self._prefill = None  # given up; an idle engine holds none of its memory
                self._core.work.wait_for(lambda: self._core.is_stopping or self._core.scheduler.running)
                if self._core.is_stopping:
                    return
                self._core.sweep()
                running = list(self._core.scheduler.running)
                # Under the lock: a sequence that ends loses its sampler, and would look like one that joins.
                joining = next((sequence for sequence in running if sequence.sampler is None), None)
            if self._prefill is not None and self._prefill.sequence is not joining:
                self._prefill = None  # given up: its reader has gone
            if joining is not None:
                self._compute([joining], is_prefill=True)
            decoding = [sequence for sequence in running if sequence.sampler is not None]
            if decoding:
                self._compute(decoding)

    def _compute(self, sequences: Many[Sequence], *, is_prefill: bool = False) -> None:
        """Take a turn on the device and deliver what comes of it."""
        started = time.monotonic()
        with self._turns:
            with self._core.lock:
                sequences = [sequence for sequence in sequences if not sequence.is_finished]
                self._core.busy.update(sequences)
            if not sequences:
                return
            results = self._run_prompt(sequences[0]) if is_prefill else self._decode(sequences)
        num_tokens = sum(isinstance(result, int) for result in results.values())
        self._num_failures = 0 if num_tokens else self._num_failures
        with self._core.lock:
            self._core.count_tokens(num_tokens)
            for sequence, result in results.items():
                self._core.settle(sequence, result)
            if not is_prefill:
                self._core.scheduler.pace.note_step(len(sequences), time.monotonic() - started)

    def _run_prompt(self, sequence: Sequence) -> dict[Sequence, Result]:
        """Run some layers of a prompt; return the first token when it is through them all, and nothing before."""
        from bianque.engine.sampler import Sampler

        started = time.monotonic()
        try:
            if self._prefill is None:
                assert sequence.slot is not None
                steps = self._runner.prefill(sequence.slot, sequence.prompt_ids)
                self._prefill = _Prompt(sequence, steps, started)
            while not sequence.is_finished:
                next(self._prefill.steps)
                if time.monotonic() >= started + self._max_stall_seconds:
                    break
            self._prefill.seconds += time.monotonic() - started
            return {sequence: None}
        except StopIteration as end:
            assert self._prefill is not None
            self._note_prompt(self._prefill, started)
            self._prefill = None
            logits = end.value
            failure = None
        except Exception as raised:
            self._prefill = None
            failure = _failure(raised, [sequence])
        if failure is not None:
            self._trim_after(failure)
            return {sequence: failure}
        sequence.sampler = Sampler(sequence.params, self._runner.context_ids(sequence.prompt_ids))
        return self._sample([sequence], logits[None])

    def _note_prompt(self, prompt: _Prompt, started: float) -> None:
        """Count a prompt whose last part began at `started`."""
        now = time.monotonic()
        with self._core.lock:
            self._core.scheduler.pace.note_prompt(
                len(prompt.sequence.prompt_ids), prompt.seconds + now - started, now - prompt.started
            )

    def _decode(self, sequences: Many[Sequence]) -> dict[Sequence, Result]:
        """Run one decode step and return each sequence's token or error."""
        from bianque.engine.batch_sampler import num_exact

        slots = [sequence.slot for sequence in sequences if sequence.slot is not None]
        last_ids = [sequence.output_ids[-1] for sequence in sequences]
        counts = [num_exact(sequence.sampler) for sequence in sequences if sequence.sampler is not None]
        try:
            with self._threads.step(len(slots)) if self._threads else nullcontext():
                logits = self._runner.decode(slots, last_ids, counts)
        except Exception as raised:
            failure = _failure(raised, sequences)
        else:
            return self._sample(sequences, logits)
        # Only now, when the exception and with it the failed step's memory are gone.
        self._trim_after(failure)
        if len(sequences) == 1:
            return {sequences[0]: failure}
        if failure.key == "out_of_memory":
            youngest = max(sequences, key=lambda sequence: sequence.number)
            rest = [sequence for sequence in sequences if sequence is not youngest]
            return {youngest: failure, **self._decode(rest)}
        # Whose fault it is shows when each runs alone; the others go on.
        return {sequence: self._decode([sequence])[sequence] for sequence in sequences}

    def _sample(self, sequences: Many[Sequence], logits: torch.Tensor) -> dict[Sequence, Result]:
        from bianque.engine.batch_sampler import sample_rows

        samplers = [sequence.sampler for sequence in sequences if sequence.sampler is not None]
        try:
            return dict(zip(sequences, sample_rows(samplers, logits), strict=True))
        except Exception as raised:
            failure = _failure(raised, sequences)
        self._trim_after(failure)
        return dict.fromkeys(sequences, failure)

    def _trim_after(self, failure: GenerationError) -> None:
        if failure.key == "out_of_memory":
            self._runner.trim()


def _failure(raised: Exception, sequences: Many[Sequence]) -> GenerationError:
    """Return what readers are told about an exception of the computation, and log the rest.

    The result holds no reference to the traceback, whose frames would keep the step's memory alive.

    Raises:
        Exception: what was raised, if the device is beyond use: that is the worker's failure, not one sequence's.
    """
    is_memory = isinstance(raised, MemoryError) or (
        isinstance(raised, RuntimeError) and any(words in str(raised) for words in _MEMORY_WORDS)
    )
    if not is_memory and any(words in str(raised) for words in _BROKEN_DEVICE_WORDS):
        raise raised
    logger.error("sequences %s failed", [sequence.number for sequence in sequences], exc_info=raised)
    if isinstance(raised, GenerationError):
        return GenerationError(raised.key, **raised.params)
    if is_memory:
        return GenerationError("out_of_memory")
    return GenerationError("computation_failed", reason=type(raised).__name__)
