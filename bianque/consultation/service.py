"""From a conversation to a streamed reply: red flags, policy, prompt, engine, clean-up.

Nothing a patient wrote is logged or kept: a reply's text lives in the generator that the caller holds.
"""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from bianque.consultation import cleanup, templates
from bianque.consultation.messages import Author, Message, Mode, ReplyOptions, ReplyUpdate, Role
from bianque.consultation.policy import accept_question, next_author
from bianque.consultation.red_flags import find_emergency
from bianque.consultation.trimming import trim_turns
from bianque.engine.engine import Engine
from bianque.engine.sampling import SamplingParams
from bianque.engine.sequence import Sequence as EngineSequence
from bianque.errors import BianQueError, GenerationError, InputError
from bianque.manager.loader import LoadedModel
from bianque.manager.manager import ModelManager
from bianque.manager.registry import REAL_MODELS, Job, ModelSpec
from bianque.manager.status import ModelStatus
from bianque.tokenization.streaming import TextStream

AUTHOR_JOBS = {Author.ASKER: Job.ASKER, Author.ADVISER: Job.ADVISER, Author.LISTENER: Job.LISTENER}
MODE_JOBS = {Mode.ASKER: Job.ASKER, Mode.ADVISER: Job.ADVISER, Mode.SOULCHAT: Job.LISTENER, Mode.JOINT: Job.ADVISER}
JOB_AUTHORS = {job: author for author, job in AUTHOR_JOBS.items()}


@dataclass(frozen=True)
class ServiceStatus:
    """What answers at the moment.

    Attributes:
        models: state of each planned model; empty until the machine has been looked at.
        is_demonstration: whether demonstration models answer.
        is_settled: whether nothing is loading any more.
        reason: entry of the translation table that says why these models (`plan_…`).
        fallback_error: why demonstration models stand in for the real ones, if they do.
    """

    models: tuple[ModelStatus, ...]
    is_demonstration: bool
    is_settled: bool
    reason: str
    fallback_error: BianQueError | None = None


class ConsultationService:
    """Answers conversations with the manager's models. All methods may be called from any thread."""

    def __init__(self, manager: ModelManager) -> None:
        self._manager = manager
        self._lock = threading.Lock()
        self._running: dict[str, list[_Run]] = defaultdict(list)

    def status(self) -> ServiceStatus:
        """Return what answers at the moment and why."""
        plan = self._manager.plan
        fallback_error = self._manager.fallback_error
        reason = "plan_unknown" if plan is None else "plan_fallback" if fallback_error else plan.reason
        is_demonstration = plan is not None and plan.is_demonstration
        return ServiceStatus(
            self._manager.statuses(), is_demonstration, self._manager.is_settled, reason, fallback_error
        )

    def default_options(self, mode: Mode) -> ReplyOptions:
        """Return the decoding defaults of the model that `mode` mostly shows."""
        job = MODE_JOBS[mode]
        sampling = (self._manager.spec(job) or REAL_MODELS[job]).sampling
        return ReplyOptions(
            mode, top_p=sampling.top_p, temperature=sampling.temperature, max_new_tokens=sampling.max_new_tokens
        )

    def cancel(self, visitor: str) -> None:
        """End the visitor's replies before the next token; what was written so far stays with the reader."""
        with self._lock:
            runs = list(self._running.get(visitor, ()))
        for run in runs:
            run.cancel()

    def reply(self, messages: Sequence[Message], options: ReplyOptions, *, visitor: str) -> Iterator[ReplyUpdate]:
        """Answer the newest message of a conversation; closing the iterator frees the model at once.

        Args:
            messages: the conversation, the visitor's newest message last; a greeting may stand first.
            options: mode and decoding; in joint mode they apply to the adviser, the asker keeps its own sampling
                unless the visitor asked for greedy decoding.
            visitor: an opaque name by which `cancel` finds the reply; never logged.

        Raises:
            InputError: if the newest message is not the visitor's, or is too long for the model.
            ModelUnavailableError: if the model is loading or failed.
            QueueFullError: if too many visitors wait.
            GenerationError: if the computation fails or the model writes nothing.
        """
        if not messages or messages[-1].role is not Role.USER:
            raise InputError(
                "history_invalid", reason_zh="最后一条不是用户消息", reason_en="it does not end with a user message"
            )
        run = _Run(visitor)
        with self._lock:
            self._running[visitor].append(run)
        try:
            yield from self._reply(messages, options, run)
        finally:
            run.cancel()
            with self._lock:
                self._running[visitor].remove(run)
                if not self._running[visitor]:
                    del self._running[visitor]

    def _reply(self, messages: Sequence[Message], options: ReplyOptions, run: _Run) -> Iterator[ReplyUpdate]:
        emergency = find_emergency(messages)
        alarm = emergency.name if emergency else None
        replies = [message.text for message in messages if message.role is Role.ASSISTANT]
        if messages[0].role is Role.USER:
            replies.insert(0, templates.GREETING_BIANQUE)  # an API caller may leave it out; the policy counts it
        author = self._choose_author(replies, options, is_emergency=emergency is not None)
        if emergency:
            # The notice must not wait for a model, nor depend on there being one.
            yield ReplyUpdate("", author, self._model_name(author), emergency=alarm)
        if options.mode is Mode.JOINT and author is Author.ASKER:
            candidate = yield from self._ask(messages, options, run)
            if candidate.finish_reason == "cancelled":
                yield replace(candidate, text="", is_final=True)  # nobody has judged what was written so far
                return
            if accept_question(candidate.text, replies):
                yield candidate
                return
            author = Author.ADVISER
        loaded = yield from self._obtain(author, run, alarm)
        if loaded is None:
            name = self._model_name(author)
            yield ReplyUpdate("", author, name, is_final=True, finish_reason="cancelled", emergency=alarm)
            return
        for update in self._generate(loaded, author, messages, self._sampling(loaded.spec, options), run):
            yield replace(update, emergency=alarm)
            if update.is_final and not update.text and update.finish_reason != "cancelled":
                raise GenerationError("reply_empty")

    def _choose_author(self, replies: Sequence[str], options: ReplyOptions, *, is_emergency: bool) -> Author:
        """Return who writes next; in an emergency nobody asks."""
        if options.mode is Mode.JOINT:
            return next_author(replies, asking_limit=options.asking_limit, emergency=is_emergency)
        if options.mode is Mode.ASKER and is_emergency:
            return Author.ADVISER
        return JOB_AUTHORS[MODE_JOBS[options.mode]]

    def _ask(
        self, messages: Sequence[Message], options: ReplyOptions, run: _Run
    ) -> Generator[ReplyUpdate, None, ReplyUpdate]:
        """Let the asker write a whole candidate; only its place in the queue is shown, the text is returned."""
        loaded = yield from self._obtain(Author.ASKER, run)
        if loaded is None:
            return ReplyUpdate("", Author.ASKER, self._model_name(Author.ASKER), finish_reason="cancelled")
        candidate = ReplyUpdate("", Author.ASKER, loaded.spec.name)
        for candidate in self._generate(loaded, Author.ASKER, messages, self._sampling(loaded.spec, options), run):
            if candidate.queue_position is not None:
                yield candidate
        return candidate

    def _obtain(
        self, author: Author, run: _Run, alarm: str | None = None
    ) -> Generator[ReplyUpdate, None, LoadedModel | None]:
        """Wait for the author's model and show how far it is; return it, or None if the reply is cancelled first."""
        with closing(self._manager.wait_for(AUTHOR_JOBS[author])) as waiting:
            while not run.is_cancelled:
                try:
                    status = next(waiting)
                except StopIteration as ready:
                    return ready.value
                yield ReplyUpdate("", author, status.name, loading=status, emergency=alarm)
        return None

    def _model_name(self, author: Author) -> str:
        spec = self._manager.spec(AUTHOR_JOBS[author])
        return spec.name if spec else ""

    def _sampling(self, spec: ModelSpec, options: ReplyOptions) -> SamplingParams:
        """Combine the model's own defaults with what the visitor chose."""
        if options.mode is Mode.JOINT and spec.job is Job.ASKER:
            temperature = 0.0 if options.temperature == 0 else spec.sampling.temperature
            return replace(spec.sampling, temperature=temperature, seed=_seed(options))
        return replace(
            spec.sampling,
            temperature=options.temperature,
            top_p=options.top_p,
            max_new_tokens=options.max_new_tokens,
            seed=_seed(options),
        )

    def _generate(
        self,
        loaded: LoadedModel,
        author: Author,
        messages: Sequence[Message],
        sampling: SamplingParams,
        run: _Run,
    ) -> Iterator[ReplyUpdate]:
        """Run one model over the conversation and yield its cleaned text as it grows."""
        spec = loaded.spec
        template = templates.SOULCHAT if spec.template == "soulchat" else templates.PATIENT_DOCTOR
        is_t5 = spec.family == "t5"

        def encode(prompt: str) -> list[int]:
            return loaded.encode(templates.escape_for_t5(prompt) if is_t5 else prompt)

        def clean(raw: str, *, finished: bool) -> str:
            raw = templates.unescape_from_t5(raw) if is_t5 else raw
            return cleaner.visible(raw, finished=finished)

        room = 0 if is_t5 else min(sampling.max_new_tokens, spec.max_prompt_tokens // 2)
        trimmed = trim_turns(
            messages,
            lambda kept: templates.render(kept, template),
            lambda prompt: len(encode(prompt)),
            spec.max_prompt_tokens - room,
        )
        cleaner = cleanup.ReplyCleaner(trimmed.prompt, template)
        update = ReplyUpdate("", author, spec.name, num_trimmed_turns=trimmed.num_trimmed_turns)
        sequence = loaded.engine.submit(encode(trimmed.prompt), sampling, visitor=run.visitor or None)
        run.attach(loaded.engine, sequence)
        stream = TextStream(loaded.decode)
        raw = ""
        is_turn_over = False
        try:
            for position in loaded.engine.positions(sequence):
                wait_seconds = loaded.engine.expected_wait_seconds(sequence)
                yield replace(update, queue_position=position, expected_wait_seconds=wait_seconds)
            for token_id in loaded.engine.stream(sequence):
                raw += stream.push(token_id)
                is_turn_over = cleaner.is_turn_over(raw)
                if is_turn_over:  # the slot is free from here on, whenever the page comes for the rest
                    loaded.engine.cancel(sequence)
                text = clean(raw, finished=False)
                if text != update.text:
                    update = replace(update, text=text)
                    yield update
                if is_turn_over:
                    break
            reason = "stop" if is_turn_over else sequence.finish_reason
            yield replace(
                update, text=clean(raw + stream.finish(), finished=True), is_final=True, finish_reason=reason
            )
        finally:
            loaded.engine.cancel(sequence)


class _Run:
    """One reply in progress, so that it can be cancelled from another thread."""

    def __init__(self, visitor: str) -> None:
        self.visitor = visitor
        self._lock = threading.Lock()
        self._current: tuple[Engine, EngineSequence] | None = None
        self.is_cancelled = False

    def attach(self, engine: Engine, sequence: EngineSequence) -> None:
        """Note which sequence works on the reply now; ends it at once if the reply was cancelled before."""
        with self._lock:
            self._current = (engine, sequence)
            is_cancelled = self.is_cancelled
        if is_cancelled:
            engine.cancel(sequence)

    def cancel(self) -> None:
        """End the reply before its next token."""
        with self._lock:
            self.is_cancelled = True
            current = self._current
        if current is not None:
            current[0].cancel(current[1])


def _seed(options: ReplyOptions) -> int:
    return random.getrandbits(31) if options.seed is None else options.seed
