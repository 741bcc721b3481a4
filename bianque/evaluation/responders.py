"""Who answers: the consultation service with models of this machine, or an OpenAI-compatible endpoint.

The service is the one that the page uses, so that what is measured is what a visitor gets: policy, red flags,
trimming, clean-up and all.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

from bianque.consultation.messages import Message, Mode, ReplyOptions
from bianque.consultation.service import MODE_JOBS, ConsultationService
from bianque.engine.engine import Engine
from bianque.manager.loader import LoadedModel, load_model
from bianque.manager.manager import ModelManager
from bianque.settings import Settings


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        text: as a visitor sees it.
        raw: as the model wrote it.
        author: which part of the system wrote it, or the endpoint's model.
        finish_reason: why it ended.
    """

    text: str
    raw: str
    author: str
    finish_reason: str


class Responder(Protocol):
    """Answers conversations; `reply` may be called from several threads."""

    def describe(self) -> dict[str, Any]:
        """Return what answers, as plain values for the results."""
        ...

    def reply(self, messages: Sequence[Message]) -> Reply:
        """Answer the newest message.

        Raises:
            InputError, GenerationError, QueueFullError: if this conversation cannot be answered.
            ModelUnavailableError: if none can.
        """
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class _RecordingEngine:
    """An engine that remembers, for each thread, the last sequence submitted and how to decode it."""

    def __init__(self, loaded: LoadedModel, last: threading.local) -> None:
        self._engine = loaded.engine
        self._decode = loaded.decode
        self._last = last

    def submit(self, *arguments: Any, **options: Any) -> Any:
        sequence = self._engine.submit(*arguments, **options)
        self._last.raw = lambda: self._decode(sequence.output_ids)
        return sequence

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class ServiceResponder:
    """Answers with the models that `settings` plan, in the mode that `options` name."""

    def __init__(
        self, settings: Settings, options: ReplyOptions, *, load: Callable[..., LoadedModel] = load_model
    ) -> None:
        """Load the models and wait until they are there.

        Args:
            settings: which models, device and precision.
            options: mode and decoding.
            load: `manager.loader.load_model` or a stand-in.

        Raises:
            ModelUnavailableError: if the mode's model cannot be loaded.
        """
        self._options = options
        self._last = threading.local()

        def recording(*arguments: Any, **named: Any) -> LoadedModel:
            loaded = load(*arguments, **named)
            return replace(loaded, engine=cast(Engine, _RecordingEngine(loaded, self._last)))

        self._manager = ModelManager(settings, load=recording)
        self._service = ConsultationService(self._manager)
        self._manager.start()
        self._manager.wait()
        try:
            self.in_mode(options.mode)
        except BaseException:
            self.close()
            raise

    def in_mode(self, mode: Mode) -> ServiceResponder:
        """Return a responder over the same models that answers in another mode; it ends with this one.

        Raises:
            ModelUnavailableError: if the mode's model cannot be loaded.
        """
        self._manager.get(MODE_JOBS[mode])
        other = copy.copy(self)
        other._options = replace(self._options, mode=mode)
        return other

    def describe(self) -> dict[str, Any]:
        """Return mode, models with revision, device and precision, and decoding."""
        models = {
            status.job.value: {
                name: str(value)
                for name in ("name", "revision", "device", "precision")
                if (value := getattr(status, name, None))
            }
            for status in self._service.status().models
        }
        decoding = {name: getattr(self._options, name) for name in ("temperature", "top_p", "max_new_tokens", "seed")}
        return {"mode": self._options.mode.value, "models": models, "decoding": decoding}

    def reply(self, messages: Sequence[Message]) -> Reply:
        """Answer the newest message as the page does."""
        updates = self._service.reply(messages, self._options, visitor=f"evaluation-{threading.get_ident()}")
        update = deque(updates, maxlen=1).pop()  # the last one is the whole reply
        return Reply(update.text, self._last.raw(), update.author.value, str(update.finish_reason))

    def close(self) -> None:
        """Stop the engines."""
        self._manager.shutdown()
