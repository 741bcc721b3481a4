"""A scripted consultation: the service's interface without models, with faults on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

from bianque.consultation.messages import Author, Message, Mode, ReplyOptions, ReplyUpdate, Role
from bianque.errors import BianQueError
from bianque.manager.registry import Job
from bianque.manager.status import ModelStatus

QUESTION = "您这种情况持续多长时间了？晚上大概能睡几个小时？"
ADVICE = (
    "根据您的描述，可能与作息和压力有关。建议您：\n"
    "1. 固定起床时间，白天适当运动；\n"
    "2. 睡前一小时不看手机，少喝咖啡和浓茶；\n"
    "3. 如果超过一个月没有好转，请到神经内科或睡眠门诊就诊。"
)
CONSOLATION = "听起来您最近真的很辛苦，谢谢您愿意说出来。您愿意多讲讲是什么让您最难受吗？"
DEFAULTS = {
    Mode.JOINT: ReplyOptions(Mode.JOINT, 0.7, 0.3, 256),
    Mode.ASKER: ReplyOptions(Mode.ASKER, 1.0, 0.7, 128),
    Mode.ADVISER: ReplyOptions(Mode.ADVISER, 0.7, 0.95, 512),
    Mode.SOULCHAT: ReplyOptions(Mode.SOULCHAT, 0.75, 0.95, 512),
}
MODELS = {Author.ASKER: "mini-asker", Author.ADVISER: "mini-adviser", Author.LISTENER: "mini-adviser"}


@dataclass(frozen=True)
class Call:
    """What one reply was asked for."""

    messages: tuple[Message, ...]
    options: ReplyOptions
    visitor: str


@dataclass
class FakeService:
    """Answers character by character, as `ConsultationService` would.

    Attributes:
        seconds_per_token: pause before each character.
        reply_text: fixed words of every reply, or None for question first, then advice.
        error: raised instead of a reply.
        error_after: number of characters before `error` comes.
        queue_positions: places reported before the reply starts.
        is_settled: whether the models are loaded.
        fraction: how far loading is.
        incoming: the state of a model that is to take another's place.
        calls: what was asked.
        num_running: replies whose iterators are open.
    """

    seconds_per_token: float = 0.01
    reply_text: str | None = None
    error: Exception | None = None
    error_after: int = 0
    queue_positions: tuple[int, ...] = ()
    num_trimmed_turns: int = 0
    is_settled: bool = True
    is_demonstration: bool = True
    fraction: float | None = None
    failure: BianQueError | None = None
    num_failed: int = 2
    incoming: ModelStatus | None = None
    calls: list[Call] = field(default_factory=list)
    num_running: int = 0
    num_cancelled: int = 0
    _cancelled: dict[str, threading.Event] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self, **changes: object) -> None:
        """Return to the beginning with other settings; for a server shared by several tests."""
        self.__init__(**changes)

    def status(self) -> SimpleNamespace:
        models = tuple(
            ModelStatus(job, name, state, error=error, device="cpu", precision="fp32", fraction=self.fraction)
            for job, (name, state, error) in zip((Job.ASKER, Job.ADVISER), self._states(), strict=True)
        )
        reason = "plan_no_gpu" if self.is_demonstration else "plan_gpu"
        if self.incoming:
            models = (*(replace(model, state="ready") for model in models), self.incoming)
        return SimpleNamespace(
            models=models,
            is_demonstration=self.is_demonstration,
            is_settled=self.is_settled,
            reason=reason,
            fallback_error=None,
        )

    def _states(self) -> Iterator[tuple[str, str, BianQueError | None]]:
        for index, name in enumerate(("mini-asker", "mini-adviser")):
            if self.failure and index < self.num_failed:
                yield name, "failed", self.failure
            else:
                yield name, "ready" if self.is_settled else "loading", None

    def default_options(self, mode: Mode) -> ReplyOptions:
        return DEFAULTS[mode]

    def cancel(self, visitor: str) -> None:
        with self._lock:
            if visitor in self._cancelled:
                self._cancelled[visitor].set()

    def reply(self, messages: Sequence[Message], options: ReplyOptions, *, visitor: str) -> Iterator[ReplyUpdate]:
        with self._lock:
            self.calls.append(Call(tuple(messages), options, visitor))
            self.num_running += 1
            cancelled = self._cancelled[visitor] = threading.Event()
        try:
            yield from self._stream(messages, options, cancelled)
        except GeneratorExit:
            self.num_cancelled += 1
            raise
        finally:
            with self._lock:
                self.num_running -= 1

    def _stream(
        self, messages: Sequence[Message], options: ReplyOptions, cancelled: threading.Event
    ) -> Iterator[ReplyUpdate]:
        newest = messages[-1].text
        emergency = "MEDICAL" if "胸痛" in newest else "CRISIS" if "不想活" in newest else None
        author, words = self._script(messages, options, emergency)
        update = ReplyUpdate("", author, MODELS[author], emergency=emergency, num_trimmed_turns=self.num_trimmed_turns)
        for position in self.queue_positions:
            yield replace(update, queue_position=position)
            time.sleep(0.2)
        text = ""
        for index, character in enumerate(words):
            if self.error and index >= self.error_after:
                raise self.error
            if cancelled.wait(self.seconds_per_token):
                yield replace(update, text=text, is_final=True, finish_reason="cancelled")
                return
            text += character
            yield replace(update, text=text)
        yield replace(update, text=text, is_final=True, finish_reason="stop")

    def _script(self, messages: Sequence[Message], options: ReplyOptions, emergency: str | None) -> tuple[Author, str]:
        num_said = sum(message.role is Role.USER for message in messages)
        if options.mode is Mode.SOULCHAT:
            author, words = Author.LISTENER, CONSOLATION
        elif options.mode is Mode.ASKER or (options.mode is Mode.JOINT and num_said < 2 and not emergency):
            author, words = Author.ASKER, QUESTION
        else:
            author, words = Author.ADVISER, ADVICE
        return author, self.reply_text or words
