"""What stands around the conversation once a reply is complete: progress of the asking, and the summary card."""

from __future__ import annotations

from typing import Any

import gradio as gr

from bianque.consultation.messages import Author, Mode
from bianque.consultation.summary import summarise
from bianque.errors import InputError
from bianque.ui.asking import is_being_asked, progress, summary_text
from bianque.ui.history import Entry, Limits, join_histories, read_history
from bianque.ui.language import language_of
from bianque.ui.options import read_options


class Guidance:
    """Event handlers of these parts, for any number of visitors."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def settle(
        self, request: gr.Request, corrected: object, older: object, history: object, *choices: object
    ) -> tuple[Any, ...]:
        """Return the row of the asking, its progress and button, the summary's panel and text, the older button."""
        language = language_of(request)
        try:
            entries = read_history(join_histories(older, history), self._limits)
            options = read_options(*choices)
        except InputError:
            # The event before has told of it already.
            return (gr.skip(),) * 6
        is_asked = is_being_asked(entries, options.mode)
        is_joint = options.mode is Mode.JOINT
        line = progress(entries, options.asking_limit if is_joint else None, language) if is_asked else ""
        summary = summary_text(summarise([entry.message for entry in entries]), language) if _is_over(entries) else ""
        return (
            gr.update(visible=is_asked),
            line,
            gr.update(visible=is_asked and is_joint),
            gr.update(visible=bool(summary)),
            gr.skip() if corrected is True and summary else gr.update(value=summary),
            gr.update(visible=isinstance(older, list) and bool(older)),
        )


def _is_over(entries: list[Entry]) -> bool:
    """Return whether the doctor has stopped asking: the last reply is advice."""
    return bool(entries) and entries[-1].message.author is Author.ADVISER
