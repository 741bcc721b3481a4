"""Which turns of a conversation fit a model's context.

The original cuts a T5 prompt on the right, which loses the newest message and the final `医生：`, and never shortens a
ChatGLM prompt. Departure: whole oldest turns are left out until the prompt fits; the newest always stays whole.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bianque.consultation.messages import Message, Role
from bianque.errors import InputError


class TrimmedConversation(NamedTuple):
    """Result of `trim_turns`: what is kept, how many oldest turns are not, and the prompt of what is kept."""

    messages: list[Message]
    num_trimmed_turns: int
    prompt: str


def trim_turns(
    messages: Sequence[Message],
    render: Callable[[Sequence[Message]], str],
    num_tokens: Callable[[str], int],
    max_tokens: int,
) -> TrimmedConversation:
    """Leave out the fewest whole oldest turns so that the prompt has at most `max_tokens` tokens.

    The number of left-out turns is found by bisection, so a chat of n turns costs about log2(n) renderings and token
    counts. Bisection needs only that a prompt does not grow when a turn is left out.

    Args:
        messages: the conversation, ending with the visitor's newest message; a leading greeting is dropped.
        render: messages to prompt, for example `templates.render`.
        num_tokens: length of a prompt in the model's tokens.
        max_tokens: the most tokens a prompt may have; keep room for the reply out of it.

    Raises:
        InputError: `prompt_too_long` if the newest turn alone does not fit.
    """
    starts = _cut_points(messages)
    if not starts:
        raise ValueError("there is no user message to answer")

    @functools.cache
    def attempt(num_trimmed: int) -> tuple[str, int]:
        prompt = render(messages[starts[num_trimmed] :])
        return prompt, num_tokens(prompt)

    num_trimmed = 0
    if attempt(0)[1] > max_tokens and len(starts) > 1:
        # Lengths fall as more turns are left out, so "fits" goes from False to True at most once.
        choices = range(1, len(starts) - 1)
        num_trimmed = 1 + bisect.bisect_left(choices, True, key=lambda trimmed: attempt(trimmed)[1] <= max_tokens)
    prompt, length = attempt(num_trimmed)
    if length > max_tokens:
        raise InputError("prompt_too_long", limit=max_tokens, got=length)
    return TrimmedConversation(list(messages[starts[num_trimmed] :]), num_trimmed, prompt)


def _cut_points(messages: Sequence[Message]) -> list[int]:
    """Return where a conversation may begin: at each turn, and at each message of the newest turn.

    The second kind matters after replies that failed: their messages gather in the newest turn, and the oldest of
    them must not block the newest.
    """
    last_assistant = max((i for i, message in enumerate(messages) if message.role is Role.ASSISTANT), default=-1)
    return [
        index
        for index, message in enumerate(messages)
        if message.role is Role.USER
        and (index == 0 or index > last_assistant or messages[index - 1].role is Role.ASSISTANT)
    ]
