"""What conversation events send to the page: values for their outputs, notices, the box to write in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any, NamedTuple

import gradio as gr

from bianque.consultation.messages import Author, Message, Mode, ReplyUpdate, Role
from bianque.consultation.red_flags import find_in_text
from bianque.errors import BianQueError
from bianque.texts import Language, text
from bianque.ui import fragments
from bianque.ui.history import Entry, split_history, write_history

# Of a message that was refused for its length, so much is looked at for red flags.
_MOST_LOOKED_AT_CHARS = 20_000


class PageUpdate(NamedTuple):
    """Values for the outputs of every conversation event; the default leaves a component as it is."""

    chatbot: Any = gr.skip()
    message: Any = gr.skip()
    emergency: Any = gr.skip()
    returned: Any = None
    older: Any = gr.skip()


def opening(mode: Mode, language: Language) -> list[dict]:
    """Return the conversation before anything was said: the greeting of a mode."""
    words, title = fragments.greeting(mode, language)
    return write_history([Entry(Message(Role.ASSISTANT, words, Author.GREETING), title)])


def show(entries: Sequence[Entry], **others: Any) -> PageUpdate:
    """Return an update that shows a conversation, with its oldest messages put aside if it is long."""
    older, shown = split_history(entries)
    return PageUpdate(chatbot=write_history(shown), older=write_history(older), **others)


def growing(entries: Sequence[Entry]) -> Callable[..., PageUpdate]:
    """Return a function like `show` for a reply that is being written under `entries`, which stay as they are.

    They are written once, not with each of the many updates, so that an update costs the same in a long conversation.
    """
    written = write_history(split_history([*entries, entries[-1]])[1][:-1])

    def grow(reply: Entry, **others: Any) -> PageUpdate:
        # Copies, since gradio may put them into its own form in place.
        return PageUpdate(chatbot=[*(dict(message) for message in written), *write_history([reply])], **others)

    return grow


def refuse(
    error: BianQueError, language: Language, history: Sequence[Entry] | None = None, *, said: object = None
) -> PageUpdate:
    """Tell of an error; the conversation stays as it is, or becomes `history` again.

    Args:
        error: what was wrong.
        language: of the page.
        history: the conversation as it was.
        said: what the visitor wanted to say; a red flag in it has its notice all the same.
    """
    warn(error, language)
    alarm = raise_alarm(said, language)
    return PageUpdate(emergency=alarm) if history is None else show(history, emergency=alarm)


def warn(error: BianQueError, language: Language) -> None:
    """Show an error as a notice."""
    # Notices are HTML, and an error may quote what was sent.
    gr.Warning(escape(error.text(language)))


def forbid(error: BianQueError, language: Language) -> gr.Error:
    """Return an error to be raised where a notice would be dropped: of events that do not go through the queue."""
    return gr.Error(escape(error.text(language)), print_exception=False)


def show_emergency(update: ReplyUpdate, last: ReplyUpdate | None, language: Language) -> Any:
    """Return the notice beside the reply when it differs from that of the last update."""
    if last is not None and last.emergency == update.emergency:
        return gr.skip()
    return emergency_box(update.emergency, language)


def raise_alarm(said: object, language: Language) -> Any:
    """Return the notice of an emergency for a message that nobody answers; without a red flag nothing changes."""
    emergency = find_in_text(said[:_MOST_LOOKED_AT_CHARS]) if isinstance(said, str) else None
    return emergency_box(emergency.value, language) if emergency else gr.skip()


def emergency_box(emergency: str | None, language: Language) -> Any:
    """Return the notice of an emergency, or nothing in its place."""
    if emergency is None:
        return gr.HTML("", visible=False)
    return gr.HTML(fragments.emergency_notice(emergency, language), visible=True)


def idle_box(language: Language, value: str | None = None) -> Any:
    """Return the box to write in while no reply runs, with other words in it if `value` is given."""
    change: dict[str, Any] = {"submit_btn": text("send_button", language), "stop_btn": False}
    return gr.update(**change if value is None else {**change, "value": value})


def running_box(language: Language, *, clear: bool) -> Any:
    """Return the box to write in while a reply runs; what is typed meanwhile stays."""
    change: dict[str, Any] = {"submit_btn": False, "stop_btn": text("stop_button", language)}
    return gr.update(**{**change, "value": ""} if clear else change)
