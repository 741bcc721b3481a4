"""A link that carries settings and a first question in its query string, and never a conversation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bianque.consultation.messages import Mode, ReplyOptions
from bianque.errors import InputError
from bianque.ui.history import Limits, clean_message
from bianque.ui.options import read_options

_NUMBERS = ("top_p", "temperature", "max_new_tokens", "asking_limit")


@dataclass(frozen=True)
class Link:
    """What an address asks for.

    Attributes:
        options: the settings, checked; what the address does not name has the mode's default.
        question: a first question for the box; it is not sent by itself.
        is_greedy: whether the box for greedy decoding is ticked.
        is_empty: whether the address names nothing of this.
    """

    options: ReplyOptions
    question: str
    is_greedy: bool
    is_empty: bool


def read_link(query: Mapping[str, str], defaults: ReplyOptions, limits: Limits) -> Link:
    """Return what the query string of the page asks for.

    Args:
        query: names and values of the query string.
        defaults: of the mode that `link_mode` found.
        limits: of the question.

    Raises:
        InputError: naming the value that is out of its range.
    """
    values = {**vars(defaults), "mode": link_mode(query) or defaults.mode}
    named = [name for name in (*_NUMBERS, "seed", "mode") if query.get(name)]
    for name in _NUMBERS:
        if name in named:
            values[name] = _number(query[name])
    is_greedy = query.get("greedy") == "true"
    options = read_options(
        values["mode"],
        values["top_p"],
        values["temperature"],
        values["max_new_tokens"],
        query.get("seed"),
        asking_limit=values["asking_limit"],
    )
    question = query.get("q", "")
    question = clean_message(question, limits.max_message_chars) if question.strip() else ""
    return Link(options, question, is_greedy, is_empty=not (named or question or is_greedy))


def link_mode(query: Mapping[str, str]) -> Mode | None:
    """Return the mode that the address names, or None.

    Raises:
        InputError: if there is no such mode.
    """
    return ReplyOptions(query["mode"]).mode if query.get("mode") else None  # type: ignore[arg-type]


def first_options(
    mode: Mode, query: Mapping[str, str], defaults_of: Callable[[Mode], ReplyOptions], limits: Limits
) -> ReplyOptions:
    """Return the options a mode begins with: its defaults, or what the link that led here says in their place."""
    options = defaults_of(mode)
    try:
        return read_link(query, options, limits).options if link_mode(query) in (None, mode) else options
    except InputError:
        return options  # told once, when the page is opened


def _number(words: str) -> float | str:
    """Return the number that was written, or the words for the error that names them."""
    try:
        return float(words)
    except ValueError:
        return words
