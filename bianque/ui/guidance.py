"""What stands around the conversation once a reply is complete: progress of the asking, and the summary card."""

from __future__ import annotations

from typing import Any

import gradio as gr

from bianque.consultation.messages import Author, Mode
from bianque.consultation.summary import summarise
from bianque.errors import InputError
from bianque.texts import LANGUAGES
from bianque.ui.asking import is_being_asked, progress, summary_text
from bianque.ui.history import Entry, Limits, join_histories, read_history
from bianque.ui.language import language_of
from bianque.ui.options import read_options


class Guidance:
    """Event handlers of these parts, for any number of visitors."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def settle(
        self, request: gr.Request, made: object, card: object, older: object, history: object, *choices: object
    ) -> tuple[Any, ...]:
        """Return what stands around the conversation after it has gone on.

        Args:
            request: of the page.
            made: the summary as it was last made here.
            card: the summary as it stands; once the visitor has corrected it, it stays.
            older: the messages put aside.
            history: the messages shown.
            choices: in the order of `options.read_options`.

        Returns:
            The row of the asking, its progress and button, the summary's panel and text, the button of older messages,
            and the summary as made here, to be given back.
        """
        language = language_of(request)
        try:
            entries = read_history(join_histories(older, history), self._limits)
            options = read_options(*choices)
        except InputError:
            # The event before has told of it already.
            return (gr.skip(),) * 7
        is_asked = is_being_asked(entries, options.mode)
        is_joint = options.mode is Mode.JOINT
        line = progress(entries, options.asking_limit if is_joint else None, language) if is_asked else ""
        summary = summary_text(summarise([entry.message for entry in entries]), language) if _is_over(entries) else ""
        is_corrected = bool(summary) and bool(made) and card != made
        return (
            gr.update(visible=is_asked),
            line,
            gr.update(visible=is_asked and is_joint),
            gr.update(visible=bool(summary)),
            gr.skip() if is_corrected else gr.update(value=summary),
            gr.update(visible=isinstance(older, list) and bool(older)),
            gr.skip() if is_corrected else summary,
        )

    def settle_anew(self, request: gr.Request, older: object, history: object, *choices: object) -> tuple[Any, ...]:
        """Return the same for another conversation, of which no summary has been corrected yet."""
        return self.settle(request, "", "", older, history, *choices)

    def settle_opened(
        self, request: gr.Request, card: object, older: object, history: object, *choices: object
    ) -> tuple[Any, ...]:
        """Return the same for a conversation from a file, whose card stays if the visitor had corrected it."""
        try:
            entries = read_history(join_histories(older, history), self._limits)
        except InputError:
            return (gr.skip(),) * 7
        said = summarise([entry.message for entry in entries])
        # The file may be of a page in the other language.
        is_corrected = bool(card) and card not in [summary_text(said, language) for language in LANGUAGES]
        if not is_corrected:
            return self.settle_anew(request, older, history, *choices)
        made = summary_text(said, language_of(request))
        *around, others = self.settle(request, made, card, older, history, *choices)
        return (*around, others if isinstance(others, str) else made)


def _is_over(entries: list[Entry]) -> bool:
    """Return whether the doctor has stopped asking: the last reply is advice."""
    return bool(entries) and entries[-1].message.author is Author.ADVISER
