"""The doctor's way of asking, made visible: which question this is, what was said so far, remarks beside a reply."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from bianque.consultation.doses import mentions_dose
from bianque.consultation.messages import Author, Mode, ReplyUpdate
from bianque.consultation.summary import Summary
from bianque.texts import Language, text
from bianque.ui.history import Entry


def number_of_questions(entries: Sequence[Entry]) -> int:
    """Return how many replies of a conversation the asker wrote."""
    return sum(entry.message.author is Author.ASKER for entry in entries)


def is_being_asked(entries: Sequence[Entry], mode: Mode) -> bool:
    """Return whether the conversation waits for the visitor's answer to a question."""
    return mode in (Mode.JOINT, Mode.ASKER) and bool(entries) and entries[-1].message.author is Author.ASKER


def progress(entries: Sequence[Entry], asking_limit: int | None, language: Language) -> str:
    """Return the line that says how far the asking is; without a limit it has no end."""
    number = number_of_questions(entries)
    words = escape(text("asking_number", language, number=number))
    if asking_limit is None:
        return f'<p class="bq-asking"><strong>{words}</strong></p>'
    most = max(asking_limit, number)
    dots = "".join(f'<i class="{"bq-done" if index < number else ""}"></i>' for index in range(most))
    limit = escape(text("asking_limit_line", language, limit=most))
    return (
        f'<p class="bq-asking"><strong>{words}</strong> <span class="bq-dots" aria-hidden="true">{dots}</span> '
        f"<span>{limit}</span></p>"
    )


def reply_note(update: ReplyUpdate, language: Language, *, question: int | None = None) -> str:
    """Return the remarks beside the line that says who wrote a reply.

    Args:
        update: the reply as it is.
        language: of the remarks.
        question: which question of the conversation this is, or None for a reply that asks none.
    """
    notes = []
    if question is not None:
        notes.append(text("asking_number", language, number=question))
    if update.loading is not None:
        notes.append(update.loading.describe(language))
    if update.queue_position is not None:
        notes.append(text("reply_queued", language, position=update.queue_position))
    if update.expected_wait_seconds is not None:
        notes.append(text("reply_wait", language, seconds=math.ceil(update.expected_wait_seconds)))
    if update.finish_reason == "cancelled":
        notes.append(text("reply_stopped", language))
    if update.finish_reason == "length":
        notes.append(text("reply_cut", language))
    if update.finish_reason == "deadline":
        notes.append(text("reply_late", language))
    if update.num_trimmed_turns:
        notes.append(text("reply_trimmed", language, count=update.num_trimmed_turns))
    if mentions_dose(update.text):
        notes.append(text("reply_dose", language))
    return " · ".join(notes)


def summary_text(summary: Summary, language: Language) -> str:
    """Return the card for a real doctor: one line for each kind, and where the words come from."""
    lines = [f"【{text(f'summary_{name}', language)}】{words}" for name, words in summary.lines()]
    return "\n".join([*lines, text("summary_origin", language)]) if lines else ""
