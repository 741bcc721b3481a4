"""Utterances that a platform cut in the middle of a word (外阴有没有痛、痒之类的感 | 觉呢？).

Two messages in a row by one speaker are joined without a newline when the first ends without a mark, one word of
jieba's dictionary spans the cut, and the joined text has fewer words than its two parts, so that 热 | 水银的 stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from bianque.consultation.messages import Message
from bianque.corpus.packages import load_jieba

CONTEXT_CHARS = 8
MIN_LENGTH = 8
"""Shorter messages are whole answers (有, 感觉); a platform cuts long ones."""


def join_cut_words(messages: Sequence[Message]) -> Sequence[Message]:
    """Join messages between which a word was cut."""
    if not any(_could_be_cut(one, other) for one, other in pairwise(messages)):
        return messages
    joined: list[Message] = []
    for message in messages:
        if joined and _could_be_cut(joined[-1], message) and _spans_a_word(joined[-1].text, message.text):
            joined[-1] = Message(message.role, joined[-1].text + message.text)
        else:
            joined.append(message)
    return joined


def _could_be_cut(one: Message, other: Message) -> bool:
    return (
        one.role is other.role
        and len(one.text) >= MIN_LENGTH
        and _is_chinese(one.text[-1:])
        and _is_chinese(other.text[:1])
    )


def _is_chinese(character: str) -> bool:
    return "\u4e00" <= character <= "\u9fff"


def _spans_a_word(left: str, right: str) -> bool:
    left, right = left[-CONTEXT_CHARS:], right[:CONTEXT_CHARS]
    words = _segment(left + right)
    place = 0
    for word in words:
        if place < len(left) < place + len(word):
            return len(words) < len(_segment(left)) + len(_segment(right))
        place += len(word)
    return False


def _segment(text: str) -> list[str]:
    """Return the words of a text by the dictionary alone, so that no word is made up."""
    return list(_jieba().cut(text, HMM=False))


@cache
def _jieba() -> Any:
    return load_jieba("corpus")
