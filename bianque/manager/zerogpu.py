"""Hugging Face ZeroGPU: models fixed at the start in fp16, each reply computed inside a call that borrows a GPU.

NOT RUN ON REAL HARDWARE: written from the documentation and source of the `spaces` package and tested with a stand-in;
loading was also tried under the CUDA emulation of spaces 0.51.3, on a CPU. What they say, and what follows:

- `spaces` is imported before CUDA is touched, and only here; on other hardware it is not needed.
- Outside a call its stand-in for CUDA exists only in the thread that imported it, so that thread loads the models.
- Weights put on "cuda" at the start are kept by the platform and are on the GPU inside a call.
- A call runs in a fork of this process, in which no threads of the engine exist: each call makes an engine of its own,
  for one sequence, and only ids and sampling params pass between the processes.
- Only synchronous generators can be decorated. A closed one ends with its next token.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Ids
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from bianque.engine.engine import Engine, EngineStatus
from bianque.engine.sampling import SamplingParams
from bianque.errors import BianQueError, GenerationError, SettingsError
from bianque.manager.engines import make_engine
from bianque.manager.loader import LoadedModel, load_model
from bianque.manager.manager import ModelManager
from bianque.manager.memory import Machine, host_bytes
from bianque.manager.registry import ModelSpec
from bianque.settings import Settings

DEVICE_BYTES = 48_000_000_000
"""Half of the card ZeroGPU lends, its default size."""
SECONDS_PER_TOKEN = 0.06
"""Upper estimate for a model of 6 B parameters in fp16; time not used is not charged."""
START_SECONDS = 15


def duration_seconds(max_new_tokens: int) -> int:
    """Return for how long a GPU is asked for a reply of at most so many tokens; shorter calls wait less."""
    return START_SECONDS + round(max_new_tokens * SECONDS_PER_TOKEN)


def make_manager(settings: Settings) -> ModelManager:
    """Return a manager whose models are placed once, in fp16; call before anything touches CUDA.

    The same thread has to call its `start`.

    Raises:
        SettingsError: if the settings ask for another precision.
    """
    import spaces

    if settings.precision not in ("auto", "fp16"):
        raise SettingsError("precision_impossible", precision=settings.precision, device="ZeroGPU", possible="fp16")

    def load(folder: Path, spec: ModelSpec, settings: Settings, **options: Any) -> LoadedModel:
        return load_model(folder, spec, settings, **options, engine_of=partial(ZeroGpuEngine, spaces))

    machine = Machine("cuda", "ZeroGPU", DEVICE_BYTES, host_bytes())
    return ModelManager(replace(settings, precision="fp16", num_slots=1), probe=lambda device: machine, load=load)


@dataclass
class BorrowedSequence:
    """One reply: what was asked for and how it ended."""

    prompt_ids: Ids[int]
    params: SamplingParams
    finish_reason: str | None = None
    is_cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class Ending:
    """How a reply ended, in values that can pass between processes, which an error with its sentence cannot."""

    finish_reason: str | None = None
    error_key: str = ""
    error_params: dict[str, object] = field(default_factory=dict)


class ZeroGpuEngine:
    """The face of `Engine` for a model that is only reachable inside calls on a borrowed GPU.

    The platform queues the calls, so nothing waits here.
    """

    def __init__(self, spaces: Any, model: Any, spec: ModelSpec, settings: Settings) -> None:
        """Decorate the function that borrows the GPU, which the platform looks for when the page is launched.

        Args:
            spaces: the package.
            model: with its weights on "cuda".
            spec: what it is.
            settings: of the application.
        """

        def generate(prompt_ids: list[int], params: SamplingParams) -> Iterator[int | Ending]:
            with make_engine(model, spec, replace(settings, num_slots=1, max_waiting=0)) as engine:
                yield from _run(engine, prompt_ids, params)

        self._generate: Callable[..., Iterator[int | Ending]] = spaces.GPU(
            duration=lambda prompt_ids, params: duration_seconds(params.max_new_tokens)
        )(generate)
        self._lock = threading.Lock()
        self._num_running = 0

    def submit(self, prompt_ids: Ids[int], params: SamplingParams, *, visitor: str | None = None) -> BorrowedSequence:
        """Take a request; a GPU is borrowed once it is streamed. Visitors are limited by the platform's quota."""
        return BorrowedSequence(list(prompt_ids), params)

    def positions(self, sequence: BorrowedSequence) -> Iterator[int]:
        """Yield nothing: places in the platform's queue are shown by the platform."""
        return iter(())

    def expected_wait_seconds(self, sequence: BorrowedSequence) -> float | None:
        """Return None: only the platform knows."""
        return None

    def stream(self, sequence: BorrowedSequence) -> Iterator[int]:
        """Borrow a GPU and yield the reply's tokens.

        Raises:
            BianQueError: if the request or the computation fails, or the platform refuses a GPU.
        """
        with self._lock:
            self._num_running += 1
        tokens = self._generate(sequence.prompt_ids, sequence.params)
        try:
            for token in tokens:
                if sequence.is_cancelled.is_set():
                    sequence.finish_reason = "cancelled"
                    return
                if isinstance(token, int):
                    yield token
                elif token.error_key:
                    raise BianQueError(token.error_key, **token.error_params)
                else:
                    sequence.finish_reason = token.finish_reason
        except BianQueError:
            raise
        except Exception as error:
            # The platform raises gradio's error for pages: a used-up quota, no free GPU, a worker that was aborted.
            if not isinstance(message := getattr(error, "message", None), str):
                raise
            raise GenerationError("gpu_refused", reason=re.sub(r"<[^>]*>", "", message).strip()[:300]) from error
        finally:
            close = getattr(tokens, "close", None)
            if close is not None:
                close()
            with self._lock:
                self._num_running -= 1

    def cancel(self, sequence: BorrowedSequence) -> None:
        """End a reply with its next token."""
        sequence.is_cancelled.set()

    def status(self) -> EngineStatus:
        """Return how many calls run; how many the platform lets run at once is its own affair."""
        with self._lock:
            return EngineStatus(self._num_running, 0, max(1, self._num_running))

    def wait_idle(self, timeout_seconds: float | None = None) -> bool:
        """Return whether no call runs."""
        return self.status().num_running == 0

    def shutdown(self) -> None:
        """Nothing runs between calls."""


def _run(engine: Engine, prompt_ids: Ids[int], params: SamplingParams) -> Iterator[int | Ending]:
    """Yield a reply's tokens and at last how it ended: all that comes back from the other process."""
    try:
        sequence = engine.submit(prompt_ids, params)
        yield from engine.stream(sequence)
        yield Ending(sequence.finish_reason)
    except BianQueError as error:
        yield Ending(error_key=error.key, error_params=error.params)
