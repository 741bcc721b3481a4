"""What the page's events do: history in, history out.

Nothing of a visitor is kept here: the conversation travels with each event, its oldest messages beside those shown.
Errors become notices, never messages, and the visitor's text goes back into the box. All generators are synchronous,
because ZeroGPU runs no others. `choices` are the page's inputs in the order of `options.read_options`.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import gradio as gr

from bianque.consultation.messages import Author, Message, Mode, ReplyOptions, ReplyUpdate, Role
from bianque.consultation.summary import ADVISE_NOW
from bianque.errors import BianQueError, GenerationError, InputError
from bianque.texts import text
from bianque.ui import fragments
from bianque.ui.asking import number_of_questions, reply_note
from bianque.ui.history import (
    Entry,
    Limits,
    check_room,
    join_histories,
    read_history,
    say,
    strip_controls,
    write_history,
)
from bianque.ui.language import language_of
from bianque.ui.links import first_options
from bianque.ui.options import read_mode, read_options
from bianque.ui.rate import RateLimiter, address_of
from bianque.ui.running import RunningReplies
from bianque.ui.throttle import throttle
from bianque.ui.updates import (
    PageUpdate,
    emergency_box,
    forbid,
    growing,
    idle_box,
    opening,
    raise_alarm,
    refuse,
    running_box,
    show,
    show_emergency,
    warn,
)

if TYPE_CHECKING:
    from bianque.consultation.service import ConsultationService

logger = logging.getLogger(__name__)

LOAD_POLL_SECONDS = 1.0


class Handlers:
    """Event handlers of one page, for any number of visitors; keeps no conversation."""

    def __init__(self, service: ConsultationService, limits: Limits) -> None:
        self._service = service
        self._limits = limits
        self._replies = RunningReplies()
        self._rate = RateLimiter(limits.replies_per_minute)

    # ------------------------------------------------------------------ conversation

    def send(
        self, request: gr.Request, message: object, older: object, history: object, *choices: object
    ) -> Iterator[PageUpdate]:
        """Add the visitor's message and stream the reply."""
        try:
            entries = self._read(older, history)
            options = read_options(*choices)
            entry = say(message, self._limits)
        except InputError as error:
            yield refuse(error, language_of(request), said=message)
            return
        yield from self._answer([*entries, entry], options, request, before=entries, typed=entry.message.text)

    def advise_now(
        self, request: gr.Request, typed: object, older: object, history: object, *choices: object
    ) -> Iterator[PageUpdate]:
        """End the asking: send what is typed, with the request for advice after it."""
        words = f"{typed.strip()}\n{ADVISE_NOW}" if isinstance(typed, str) and typed.strip() else ADVISE_NOW
        yield from self.send(request, words, older, history, *choices)

    def retry(self, request: gr.Request, older: object, history: object, *choices: object) -> Iterator[PageUpdate]:
        """Replace the last reply."""
        try:
            before = self._read(older, history)
            options = read_options(*choices)
            entries = before[: _last_user_index(before) + 1]
        except InputError as error:
            yield refuse(error, language_of(request))
            return
        yield from self._answer(entries, options, request, before=before)

    def edit(
        self, request: gr.Request, change: gr.EditData, older: object, history: object, *choices: object
    ) -> Iterator[PageUpdate]:
        """Replace an earlier message of the visitor, drop what followed, and answer anew."""
        before: list[Entry] = []
        try:
            before = self._read(older, history)
            index = _user_index(before, change.index, offset=len(older) if isinstance(older, list) else 0)
            # The browser has already put the new text into its own copy.
            before[index] = Entry(Message(Role.USER, strip_controls(str(change.previous_value))))
            options = read_options(*choices)
            entry = say(change.value, self._limits)
        except InputError as error:
            yield refuse(error, language_of(request), before or None, said=change.value)
            return
        yield from self._answer([*before[:index], entry], options, request, before=before)

    def undo(self, request: gr.Request, older: object, history: object, typed: object) -> PageUpdate:
        """Remove the last turn and put its text back into the box, before anything typed since."""
        language = language_of(request)
        try:
            entries = self._read(older, history)
            index = _last_user_index(entries)
        except InputError as error:
            return refuse(error, language)
        page = show(entries[:index], message=idle_box(language), emergency=emergency_box(None, language))
        # A running reply is of the turn that goes. What it shows at its end leaves the box alone: the visitor may be
        # writing there by then.
        self.replace(request, page)
        message = merge_texts(entries[index].message.text, typed)
        return page._replace(message=idle_box(language, value=message))

    def show_older(self, request: gr.Request, older: object, history: object) -> PageUpdate:
        """Show the messages that were put aside; the next reply puts them aside again.

        Not while one is being written, which shows the newest messages only: those put aside would be nowhere.
        """
        try:
            if self._replies.is_running(request.session_hash or ""):
                raise InputError("reply_running")
            return PageUpdate(chatbot=write_history(self._read(older, history)), older=[])
        except InputError as error:
            return refuse(error, language_of(request))

    def clear(self, request: gr.Request, mode: object) -> PageUpdate:
        """End a running reply and begin again with the greeting.

        Raises:
            gr.Error: if there is no such mode, as for `load` and `poll`.
        """
        language = language_of(request)
        greeting = opening(_mode(mode, request), language)
        page = PageUpdate(greeting, idle_box(language), emergency_box(None, language), older=[])
        self.replace(request, page)
        return page

    def replace(self, request: gr.Request, page: PageUpdate) -> None:
        """End a running reply because the page shows another conversation; whatever was on its way, that stays."""
        self._replies.replace(request.session_hash or "", page)
        self.stop(request)

    def stop(self, request: gr.Request) -> None:
        """End the visitor's replies before the next token; the running event then shows what was written."""
        if request.session_hash:
            self._service.cancel(request.session_hash)

    def take_answer(self, typed: object, chosen: gr.SelectData) -> str:
        """Put a quick answer into the box, after what is typed there, to be edited and sent."""
        answer = strip_controls(str(chosen.value))
        return f"{typed.rstrip()}，{answer}" if isinstance(typed, str) and typed.strip() else answer

    def feedback(self, vote: gr.LikeData) -> None:
        """Count a thumb up or down; of the reply nothing is kept."""
        logger.info("feedback: %s", "up" if vote.liked is True else "down" if vote.liked is False else "withdrawn")

    def _read(self, older: object, history: object) -> list[Entry]:
        return read_history(join_histories(older, history), self._limits)

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
            yield refuse(InputError("reply_running"), language, said=entries[-1].message.text)
            return
        last: ReplyUpdate | None = None
        alarm = gr.skip()
        try:
            thinking = Entry(Message(Role.ASSISTANT, ""), text("reply_thinking", language), is_pending=True)
            yield show([*entries, thinking], message=running_box(language, clear=typed is not None))
            grow = growing(entries)
            with closing(self.updates(entries, options, request)) as updates:
                for update in updates:
                    if self._replies.is_replaced(visitor):
                        break
                    alarm = show_emergency(update, last, language)
                    last = update
                    if not update.is_final:
                        yield grow(_reply_entry(update, entries, request), emergency=alarm)
        except BianQueError as error:
            warn(error, language)
            # Until the service has said something, nobody has looked for red flags.
            alarm = gr.skip() if last else raise_alarm(entries[-1].message.text, language)
            last = None
        finally:
            replacement = self._replies.end(visitor)
        if replacement is not None:
            # The page has shown it already, but an update on its way may have come after it.
            yield replacement
        elif last is None or not last.text:
            yield show(before, message=idle_box(language), emergency=alarm, returned=typed)
        else:
            entry = _reply_entry(last, entries, request)
            yield show([*entries, entry], message=idle_box(language), emergency=alarm)

    def updates(self, entries: Sequence[Entry], options: ReplyOptions, request: gr.Request) -> Generator[ReplyUpdate]:
        """Yield the service's updates at the page's pace; whatever goes wrong is an error with a sentence.

        Once the visitor has asked for advice, nobody asks any more.

        Raises:
            BianQueError: for every fault, known or not; a conversation that has reached a limit is one.
        """
        check_room(entries, self._limits)
        limits = self._limits
        self._rate.admit(address_of(request, is_on_space=limits.is_on_space, num_proxies=limits.num_proxies))
        messages = [entry.message for entry in entries]
        if any(message.role is Role.USER and message.text.endswith(ADVISE_NOW) for message in messages):
            options = replace(options, asking_limit=0)
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

    def load(self, request: gr.Request, mode: object) -> tuple[Any, ...]:
        """Fill in what depends on the visitor's language and on the models."""
        watermark = text("ai_watermark", language_of(request))
        chat = gr.update(value=opening(_mode(mode, request), language_of(request)), watermark=watermark)
        banner, timer, offered = self.poll(request, mode)
        return (chat, banner, timer, *(offered["values"] if offered else (gr.skip(),) * 3))

    def poll(self, request: gr.Request, mode: object) -> tuple[Any, ...]:
        """Return the banner, whether to ask again, and the mode's defaults once the models are known, else None.

        The page's script puts the defaults into those sliders that the visitor has not moved.
        """
        status = self._service.status()
        banner = fragments.status_banner(status, language_of(request))
        known = _mode(mode, request)
        offered = {"mode": known.value, "values": self._defaults(known, request)} if status.is_settled else None
        return (banner, gr.Timer(active=not status.is_settled), offered)

    def choose_mode(self, request: gr.Request, mode: object, history: object) -> tuple[Any, ...]:
        """Return the mode's defaults, and its greeting while nothing has been said."""
        try:
            known = read_mode(mode)
            has_begun = any(entry.message.role is Role.USER for entry in read_history(history, self._limits))
        except InputError as error:
            warn(error, language_of(request))
            return (gr.skip(),) * 4
        chat = gr.skip() if has_begun else opening(known, language_of(request))
        return (chat, *self._defaults(known, request))

    def reset(self, request: gr.Request, mode: object) -> tuple[Any, ...]:
        """Return the mode's defaults of every setting: sliders, no seed, no greedy decoding, asking limit."""
        try:
            options = self._service.default_options(read_mode(mode))
            return (options.top_p, options.temperature, options.max_new_tokens, "", False, options.asking_limit)
        except InputError as error:
            warn(error, language_of(request))
            return (gr.skip(),) * 6

    def give_back(self, returned: str | None, typed: str) -> tuple[Any, None]:
        """Put the text of a failed message back into the box, before anything typed since."""
        return (merge_texts(returned, typed) if returned else gr.skip()), None

    def _defaults(self, mode: Mode, request: gr.Request) -> tuple[float, float, int]:
        """Return the mode's defaults, or what the link that led here says in their place."""
        options = first_options(mode, request.query_params, self._service.default_options, self._limits)
        return options.top_p, options.temperature, options.max_new_tokens


def _mode(mode: object, request: gr.Request) -> Mode:
    """Return the mode a page sent with an event that does not go through the queue."""
    try:
        return read_mode(mode)
    except InputError as error:
        raise forbid(error, language_of(request)) from None


def merge_texts(returned: str, typed: object) -> str:
    """Put `returned` before what was typed since, on a line of its own."""
    return f"{returned}\n{typed}" if isinstance(typed, str) and typed.strip() else returned


def _last_user_index(entries: Sequence[Entry]) -> int:
    for index in range(len(entries) - 1, -1, -1):
        if entries[index].message.role is Role.USER:
            return index
    raise InputError("nothing_to_retry")


def _user_index(entries: Sequence[Entry], index: object, *, offset: int) -> int:
    """Return the place of a message of the visitor, given its place among those shown."""
    if isinstance(index, int) and 0 <= index < len(entries) - offset:
        index += offset
        if entries[index].message.role is Role.USER:
            return index
    raise InputError("history_invalid", reason_zh="找不到要修改的消息", reason_en="there is no such message to edit")


def _reply_entry(update: ReplyUpdate, entries: Sequence[Entry], request: gr.Request) -> Entry:
    language = language_of(request)
    number = number_of_questions(entries) + 1 if update.author is Author.ASKER else None
    return Entry(
        Message(Role.ASSISTANT, update.text, update.author),
        fragments.author_title(update.author, update.model, language),
        reply_note(update, language, question=number),
        is_pending=not update.is_final,
    )
