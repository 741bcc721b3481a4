"""The conversation as the page holds it: checked when it arrives, made inert when it leaves.

The page keeps the conversation in the browser, so whatever comes back may have been forged. `read_history` accepts
only text by the visitor and the assistant, within limits. `write_history` makes markup inert: gradio hands even plain
text to the browser's HTML parser, so an image tag in a message would be fetched.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from bianque.consultation.messages import Author, Message, Role
from bianque.consultation.quick_answers import quick_answers
from bianque.errors import InputError

# Invisible, and stops the HTML parser from reading what precedes it as the start of a tag or an entity. Entities would
# do as well, but the copy and edit buttons would show them.
_GUARD = "\u2060"
_GUARDED = {ord("<"): "<" + _GUARD, ord("&"): "&" + _GUARD}
_JOINERS = "\u200c\u200d"  # hold composed emoji and some scripts together
_LONGEST_LABELS = {"title": 80, "log": 400}  # of gradio's metadata; the remarks beside a reply may be several
# gradio sends every message again with each update of a reply, so a long conversation is shown from here on.
MAX_SHOWN = 40


@dataclass(frozen=True)
class Limits:
    """What one visitor may send.

    Attributes:
        max_message_chars: longest message of a visitor.
        max_messages: longest conversation that is answered, in messages; the reply comes on top.
        max_reply_chars: longest assistant message accepted back from the page.
        max_conversation_chars: longest conversation that is answered, in characters; the reply comes on top.
        replies_per_minute: most replies of one address in a minute; 0 for no limit.
        is_on_space: whether a platform's proxies say in a header whose request they pass on.
        num_proxies: how many other proxies do.
    """

    max_message_chars: int = 2000
    max_messages: int = 200
    max_reply_chars: int = 8000
    max_conversation_chars: int = 200_000
    replies_per_minute: int = 0
    is_on_space: bool = False
    num_proxies: int = 0


@dataclass(frozen=True)
class Entry:
    """One message with what is shown around it.

    Attributes:
        message: what is said.
        title: line above an assistant message that says who wrote it.
        note: remark beside the title.
        is_pending: whether it is still being written.
    """

    message: Message
    title: str = ""
    note: str = ""
    is_pending: bool = False


def clean_message(text: object, max_chars: int) -> str:
    """Return a visitor's message without control characters and outer blanks.

    Raises:
        InputError: if it is not text, blank, too long, or holds no word.
    """
    if not isinstance(text, str) or not text.strip():
        raise InputError("message_empty")
    num_chars = len(text.strip())
    if num_chars > max_chars:
        raise InputError("message_too_long", limit=max_chars, got=num_chars)
    cleaned = strip_controls(text).strip()
    if not cleaned:
        raise InputError("message_empty")
    if not any(character.isalnum() for character in cleaned):
        raise InputError("message_without_words")
    return cleaned


def say(message: object, limits: Limits) -> Entry:
    """Return a visitor's message as an entry; raises as `clean_message` does."""
    return Entry(Message(Role.USER, clean_message(message, limits.max_message_chars)))


def join_histories(older: object, shown: object) -> object:
    """Return the whole conversation that a page sent in two parts, unchecked."""
    return [*older, *shown] if isinstance(older, list) and isinstance(shown, list) else shown


def split_history(entries: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Return the oldest messages, put aside, and those that are shown: the last `MAX_SHOWN`."""
    cut = max(0, len(entries) - MAX_SHOWN)
    return list(entries[:cut]), list(entries[cut:])


def read_history(payload: object, limits: Limits) -> list[Entry]:
    """Return the conversation that a page or an API caller sent.

    Raises:
        InputError: if it is not a list of text messages by `user` and `assistant`, or passes a limit.
    """
    if payload is None:
        return []
    if not isinstance(payload, Sequence) or isinstance(payload, str | bytes):
        raise _invalid("不是消息列表", "it is not a list of messages")
    # With its last reply a conversation may pass the limits of what is answered, and must still be kept and exported.
    _check_length(payload, limits.max_messages + 1)
    entries = [_read_entry(item, limits) for item in payload]
    _check_chars(entries, limits.max_conversation_chars + limits.max_reply_chars)
    return entries


def check_room(entries: Sequence[Entry], limits: Limits) -> None:
    """Refuse to answer a conversation that has reached a limit.

    Raises:
        InputError: naming the limit.
    """
    _check_length(entries, limits.max_messages)
    _check_chars(entries, limits.max_conversation_chars)


def write_history(entries: Sequence[Entry]) -> list[dict]:
    """Return `entries` as gradio's chatbot takes them; every character is shown as itself.

    Under a question that ends the conversation stand its quick answers.
    """
    written = [_write_entry(entry) for entry in entries]
    if entries and entries[-1].message.author is Author.ASKER and not entries[-1].is_pending:
        answers = quick_answers(entries[-1].message.text)
        if answers:
            written[-1]["options"] = [{"value": answer} for answer in answers]
    return written


def _check_length(messages: Sequence[object], limit: int) -> None:
    if len(messages) > limit:
        raise InputError("conversation_too_long", limit=limit)


def _check_chars(entries: Sequence[Entry], limit: int) -> None:
    if sum(len(entry.message.text) for entry in entries) > limit:
        raise InputError("conversation_too_long", limit=limit)


def _read_entry(item: object, limits: Limits) -> Entry:
    if not isinstance(item, dict):
        raise _invalid("消息不是对象", "a message is not an object")
    if item.get("role") not in (Role.USER.value, Role.ASSISTANT.value):
        raise _invalid("只接受 user 与 assistant", "only user and assistant may speak")
    role = Role(item["role"])
    text = strip_controls(_read_text(item.get("content")))
    longest = limits.max_message_chars if role is Role.USER else limits.max_reply_chars
    if len(text) > longest:
        raise _invalid(f"有消息超过 {longest} 字", f"a message is longer than {longest} characters")
    if role is Role.USER:
        return Entry(Message(role, text))
    metadata = item.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    author = metadata.get("id")
    known_author = Author(author) if isinstance(author, str) and author in set(Author) else None
    return Entry(Message(role, text, known_author), _read_label(metadata, "title"), _read_label(metadata, "log"))


def _read_text(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [None]
    texts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise _invalid("消息里有文字以外的内容", "a message holds something other than text")
    return "\n".join(str(text) for text in texts)


def _read_label(metadata: dict, name: str) -> str:
    value = metadata.get(name)
    return strip_controls(value)[: _LONGEST_LABELS[name]] if isinstance(value, str) else ""


def _write_entry(entry: Entry) -> dict:
    # A plain string would lose its indentation in gradio; a text block is kept as it is.
    written: dict = {
        "role": entry.message.role.value,
        "content": [{"type": "text", "text": entry.message.text.translate(_GUARDED)}],
    }
    if entry.title:
        metadata = {"title": entry.title.translate(_GUARDED)}
        if entry.message.author:
            metadata["id"] = entry.message.author.value
        if entry.note:
            metadata["log"] = entry.note
        if entry.is_pending:
            metadata["status"] = "pending"
        written["metadata"] = metadata
    return written


def strip_controls(text: str) -> str:
    """Remove what no one types: controls, lone surrogates, direction overrides and invisible marks."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(
        character
        for character in text
        if character in "\n\t" or character in _JOINERS or unicodedata.category(character) not in ("Cc", "Cf", "Cs")
    )


def _invalid(reason_zh: str, reason_en: str) -> InputError:
    return InputError("history_invalid", reason_zh=reason_zh, reason_en=reason_en)
