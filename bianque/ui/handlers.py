"""What the page's events and the API do: history in, history out.

Nothing of a visitor is kept here: the conversation travels with each event. Errors become notices, never messages, and
the visitor's text goes back into the box. All generators are synchronous, because ZeroGPU runs no others.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import gradio as gr

from bianque.consultation.messages import Author, Message, ReplyOptions, ReplyUpdate, Role
from bianque.errors import BianQueError, GenerationError, InputError
from bianque.texts import Language, text
from bianque.ui import fragments
from bianque.ui.history import Entry, Limits, clean_message, read_history, strip_controls, write_history
from bianque.ui.language import language_of
from bianque.ui.options import read_mode, read_options
from bianque.ui.running import RunningReplies
from bianque.ui.throttle import throttle

if TYPE_CHECKING:
    from bianque.consultation.service import ConsultationService

logger = logging.getLogger(__name__)

LOAD_POLL_SECONDS = 1.0


class PageUpdate(NamedTuple):
    """Values for the outputs of every conversation event; the default leaves a component as it is."""

    chatbot: Any = gr.skip()
    message: Any = gr.skip()
    emergency: Any = gr.skip()
    returned: Any = None


class Handlers:
    """Event handlers of one page, for any number of visitors; keeps no conversation."""

    def __init__(self, service: ConsultationService, limits: Limits) -> None:
        self._service = service
        self._limits = limits
        self._replies = RunningReplies()

    # ------------------------------------------------------------------ conversation

    def send(
        self,
        message: object,
        history: object,
        mode: object,
        top_p: object,
        temperature: object,
        max_new_tokens: object,
        seed: object,
        request: gr.Request,
    ) -> Iterator[PageUpdate]:
        """Add the visitor's message and stream the reply."""
        try:
            entries = read_history(history, self._limits)
            options = read_options(mode, top_p, temperature, max_new_tokens, seed)
            entry = _say(message, self._limits)
        except InputError as error:
            yield _refuse(error, language_of(request))
            return
        yield from self._answer([*entries, entry], options, request, before=entries, typed=entry.message.text)

    def retry(
        self,
        history: object,
        mode: object,
        top_p: object,
        temperature: object,
        max_new_tokens: object,
        seed: object,
        request: gr.Request,
    ) -> Iterator[PageUpdate]:
        """Replace the last reply."""
        try:
            before = read_history(history, self._limits)
            options = read_options(mode, top_p, temperature, max_new_tokens, seed)
            entries = before[: _last_user_index(before) + 1]
        except InputError as error:
            yield _refuse(error, language_of(request))
            return
        yield from self._answer(entries, options, request, before=before)

    def edit(
        self,
        history: object,
        mode: object,
        top_p: object,
        temperature: object,
        max_new_tokens: object,
        seed: object,
        request: gr.Request,
        change: gr.EditData,
    ) -> Iterator[PageUpdate]:
        """Replace an earlier message of the visitor, drop what followed, and answer anew."""
        before: list[Entry] = []
        try:
            before = read_history(history, self._limits)
            index = _user_index(before, change.index)
            # The browser has already put the new text into its own copy.
            before[index] = Entry(Message(Role.USER, strip_controls(str(change.previous_value))))
            options = read_options(mode, top_p, temperature, max_new_tokens, seed)
            entry = _say(change.value, self._limits)
        except InputError as error:
            yield _refuse(error, language_of(request), before or None)
            return
        yield from self._answer([*before[:index], entry], options, request, before=before)

    def undo(self, history: object, typed: object, request: gr.Request) -> PageUpdate:
        """Remove the last turn and put its text back into the box, before anything typed since."""
        language = language_of(request)
        try:
            entries = read_history(history, self._limits)
            index = _last_user_index(entries)
        except InputError as error:
            return _refuse(error, language)
        message = merge_texts(entries[index].message.text, typed)
        return PageUpdate(write_history(entries[:index]), _idle_box(language, value=message), _no_emergency())

    def clear(self, mode: object, request: gr.Request) -> PageUpdate:
        """End a running reply and begin again with the greeting."""
        self._replies.mark_cleared(request.session_hash or "")
        self.stop(request)
        return self._cleared_page(mode, request)

    def stop(self, request: gr.Request) -> None:
        """End the visitor's replies before the next token; the running event then shows what was written."""
        if request.session_hash:
            self._service.cancel(request.session_hash)

    def _answer(
        self,
        entries: list[Entry],
        options: ReplyOptions,
        request: gr.Request,
        *,
        before: list[Entry],
        typed: str | None = None,
    ) -> Iterator[PageUpdate]:
        """Stream the reply to the last entry; when nothing comes of it, go back to `before`."""
        language, visitor = language_of(request), request.session_hash or ""
        if not self._replies.begin(visitor):
            yield _refuse(InputError("reply_running"), language)
            return
        last: ReplyUpdate | None = None
        alarm = gr.skip()
        try:
            thinking = Entry(Message(Role.ASSISTANT, ""), text("reply_thinking", language), is_pending=True)
            yield PageUpdate(write_history([*entries, thinking]), _running_box(language, clear=typed is not None))
            with closing(self._updates(entries, options, request)) as updates:
                for update in updates:
                    if self._replies.is_cleared(visitor):
                        break
                    alarm = _show_emergency(update, last, language)
                    last = update
                    if not update.is_final:
                        yield PageUpdate(write_history([*entries, _reply_entry(update, language)]), emergency=alarm)
        except BianQueError as error:
            _warn(error, language)
            last = None
        finally:
            is_cleared = self._replies.end(visitor)
        if is_cleared:
            # The page has shown the greeting already, but an update on its way may have replaced it.
            yield self._cleared_page(options.mode, request)
        elif last is None or not last.text:
            yield PageUpdate(write_history(before), _idle_box(language), returned=typed)
        else:
            yield PageUpdate(write_history([*entries, _reply_entry(last, language)]), _idle_box(language), alarm)

    def _updates(self, entries: Sequence[Entry], options: ReplyOptions, request: gr.Request) -> Generator[ReplyUpdate]:
        """Yield the service's updates at the page's pace; whatever goes wrong is an error with a sentence."""
        messages = [entry.message for entry in entries]
        replying = self._service.reply(messages, options, visitor=request.session_hash or "")
        with closing(cast(Generator[ReplyUpdate], replying)) as updates:
            try:
                yield from throttle(updates)
            except BianQueError:
                raise
            except Exception as error:
                # The message of an unknown error may quote the patient, so only its kind and place are logged.
                frames = "".join(traceback.format_tb(error.__traceback__))
                logger.error("reply failed with %s\n%s", type(error).__name__, frames)
                raise GenerationError("unexpected_error") from None

    # ------------------------------------------------------------------ page

    def load(self, mode: object, request: gr.Request) -> tuple[Any, ...]:
        """Fill in what depends on the visitor's language and on the models."""
        watermark = text("ai_watermark", language_of(request))
        return (gr.update(value=self._opening(mode, request), watermark=watermark), *self.poll(mode, request))

    def poll(self, mode: object, request: gr.Request) -> tuple[Any, ...]:
        """Return the banner, whether to ask again, and the defaults once the models are known."""
        status = self._service.status()
        banner = fragments.status_banner(status, language_of(request))
        # Until the models are known the sliders stay as they are: a visitor may be moving one.
        defaults = self._defaults(mode) if status.is_settled else (gr.skip(),) * 3
        return (banner, gr.Timer(active=not status.is_settled), *defaults)

    def choose_mode(self, mode: object, history: object, request: gr.Request) -> tuple[Any, ...]:
        """Return the mode's defaults, and its greeting while nothing has been said."""
        try:
            has_begun = any(entry.message.role is Role.USER for entry in read_history(history, self._limits))
            return (gr.skip() if has_begun else self._opening(mode, request), *self._defaults(mode))
        except InputError as error:
            _warn(error, language_of(request))
            return (gr.skip(),) * 4

    def give_back(self, returned: str | None, typed: str) -> tuple[Any, None]:
        """Put the text of a failed message back into the box, before anything typed since."""
        return (merge_texts(returned, typed) if returned else gr.skip()), None

    def _cleared_page(self, mode: object, request: gr.Request) -> PageUpdate:
        return PageUpdate(self._opening(mode, request), _idle_box(language_of(request)), _no_emergency())

    def _opening(self, mode: object, request: gr.Request) -> list[dict]:
        language = language_of(request)
        words, title = fragments.greeting(read_mode(mode), language)
        return write_history([Entry(Message(Role.ASSISTANT, words, Author.GREETING), title)])

    def _defaults(self, mode: object) -> tuple[float, float, int]:
        options = self._service.default_options(read_mode(mode))
        return options.top_p, options.temperature, options.max_new_tokens

    # ------------------------------------------------------------------ API

    def chat(
        self,
        message: str,
        history: list[dict] | None = None,
        mode: str = "joint",
        top_p: float | None = None,
        temperature: float | None = None,
        max_new_tokens: int | None = None,
        seed: int | None = None,
        request: gr.Request = None,  # type: ignore[assignment]  # gradio always fills it in
    ) -> Iterator[tuple[str, dict]]:
        """Answer one message.

        Args:
            message: what the visitor says.
            history: earlier messages, oldest first, each with `role` (user or assistant) and `content` (text).
            mode: joint, bianque-1.0, bianque-2.0 or soulchat.
            top_p: from 0.05 to 1; null, as for the next two, takes the mode's default.
            temperature: from 0 to 2; 0 is greedy.
            max_new_tokens: from 16 to 1024.
            seed: fixes sampling; null draws a fresh one.
            request: filled in by gradio.

        Yields:
            The reply so far, and who writes it with what must be shown beside it; both are empty at first.
        """
        language = language_of(request)
        try:
            entries = [*read_history(history, self._limits), _say(message, self._limits)]
            defaults = self._defaults(mode)
            options = read_options(
                mode,
                defaults[0] if top_p is None else top_p,
                defaults[1] if temperature is None else temperature,
                defaults[2] if max_new_tokens is None else max_new_tokens,
                seed,
            )
            # Until a first value has come, gradio knows of no generator to close when the caller cancels.
            yield "", {}
            with closing(self._updates(entries, options, request)) as updates:
                for update in updates:
                    yield update.text, _details(update, language)
        except BianQueError as error:
            raise gr.Error(escape(error.text(language)), print_exception=False) from None


def merge_texts(returned: str, typed: object) -> str:
    """Put `returned` before what was typed since, on a line of its own."""
    return f"{returned}\n{typed}" if isinstance(typed, str) and typed.strip() else returned


def _say(message: object, limits: Limits) -> Entry:
    return Entry(Message(Role.USER, clean_message(message, limits.max_message_chars)))


def _last_user_index(entries: Sequence[Entry]) -> int:
    for index in range(len(entries) - 1, -1, -1):
        if entries[index].message.role is Role.USER:
            return index
    raise InputError("nothing_to_retry")


def _user_index(entries: Sequence[Entry], index: object) -> int:
    if isinstance(index, int) and 0 <= index < len(entries) and entries[index].message.role is Role.USER:
        return index
    raise InputError("history_invalid", reason_zh="找不到要修改的消息", reason_en="there is no such message to edit")


def _reply_entry(update: ReplyUpdate, language: Language) -> Entry:
    message = Message(Role.ASSISTANT, update.text, update.author)
    title = fragments.author_title(update.author, update.model, language)
    return Entry(message, title, _note(update, language), is_pending=not update.is_final)


def _note(update: ReplyUpdate, language: Language) -> str:
    notes = []
    if update.queue_position is not None:
        notes.append(text("reply_queued", language, position=update.queue_position))
    if update.finish_reason == "cancelled":
        notes.append(text("reply_stopped", language))
    if update.finish_reason == "length":
        notes.append(text("reply_cut", language))
    if update.num_trimmed_turns:
        notes.append(text("reply_trimmed", language, count=update.num_trimmed_turns))
    return " · ".join(notes)


def _details(update: ReplyUpdate, language: Language) -> dict:
    notice = text(f"emergency_{update.emergency.lower()}", language) if update.emergency else None
    return {
        "author": update.author.value,
        "model": update.model,
        "label": text("ai_label", language),
        "queue_position": update.queue_position,
        "emergency": notice,
        "finish_reason": update.finish_reason,
        "num_trimmed_turns": update.num_trimmed_turns,
    }


def _show_emergency(update: ReplyUpdate, last: ReplyUpdate | None, language: Language) -> Any:
    if last is not None and last.emergency == update.emergency:
        return gr.skip()
    if update.emergency is None:
        return _no_emergency()
    return gr.HTML(fragments.emergency_notice(update.emergency, language), visible=True)


def _no_emergency() -> Any:
    return gr.HTML("", visible=False)


def _idle_box(language: Language, value: str | None = None) -> Any:
    change: dict[str, Any] = {"submit_btn": text("send_button", language), "stop_btn": False}
    return gr.update(**change if value is None else {**change, "value": value})


def _running_box(language: Language, *, clear: bool) -> Any:
    change: dict[str, Any] = {"submit_btn": False, "stop_btn": text("stop_button", language)}
    return gr.update(**{**change, "value": ""} if clear else change)


def _refuse(error: BianQueError, language: Language, history: Sequence[Entry] | None = None) -> PageUpdate:
    _warn(error, language)
    return PageUpdate() if history is None else PageUpdate(write_history(history))


def _warn(error: BianQueError, language: Language) -> None:
    # Notices are HTML, and an error may quote what was sent.
    gr.Warning(escape(error.text(language)))
