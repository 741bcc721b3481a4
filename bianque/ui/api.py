"""The documented endpoint: one message in, the reply as a stream out, with the page's checks and limits."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from html import escape
from typing import Any

import gradio as gr

from bianque.consultation.messages import ReplyOptions, ReplyUpdate
from bianque.errors import BianQueError
from bianque.texts import Language, text
from bianque.ui.history import Entry, Limits, read_history, say
from bianque.ui.language import language_of
from bianque.ui.options import read_mode, read_options

Updates = Callable[[Sequence[Entry], ReplyOptions, gr.Request], Generator[ReplyUpdate]]


def make_chat(
    updates_of: Updates, defaults_of: Callable[[Any], ReplyOptions], limits: Limits
) -> Callable[..., Iterator[tuple[str, dict]]]:
    """Return the function behind `/chat`.

    Args:
        updates_of: streams the reply to a checked conversation.
        defaults_of: gives the options of a mode.
        limits: what one caller may send.
    """

    def chat(
        message: str,
        history: list[dict] | None = None,
        mode: str = "joint",
        top_p: float | None = None,
        temperature: float | None = None,
        max_new_tokens: int | None = None,
        seed: int | None = None,
        asking_limit: int | None = None,
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
            asking_limit: most questions in joint mode, from 0 to 8; null is 8.
            request: filled in by gradio.

        Yields:
            The reply so far, and who writes it with what must be shown beside it; both are empty at first.
        """
        language = language_of(request)
        try:
            entries = [*read_history(history, limits), say(message, limits)]
            defaults = defaults_of(read_mode(mode))
            options = read_options(
                mode,
                defaults.top_p if top_p is None else top_p,
                defaults.temperature if temperature is None else temperature,
                defaults.max_new_tokens if max_new_tokens is None else max_new_tokens,
                seed,
                asking_limit=defaults.asking_limit if asking_limit is None else asking_limit,
            )
            # Until a first value has come, gradio knows of no generator to close when the caller cancels.
            yield "", {}
            with closing(updates_of(entries, options, request)) as updates:
                for update in updates:
                    yield update.text, _details(update, language)
        except BianQueError as error:
            raise gr.Error(escape(error.text(language)), print_exception=False) from None

    return chat


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
