"""Texts in which each utterance begins with its speaker (`病人：…`, `患者:…`, `医生：…`), prompts among them.

SoulChat's prompts (`用户：…`, `心理咨询师：…`) are read as well; samples are written with 病人 and 医生 all the same,
and fine-tuning renders them in the layout of its base.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from bianque.consultation.messages import Message, Role
from bianque.consultation.templates import unescape_from_t5

ROLES = {
    "病人": Role.USER,
    "患者": Role.USER,
    "用户": Role.USER,
    "Patient": Role.USER,
    "Patients": Role.USER,
    "医生": Role.ASSISTANT,
    "大夫": Role.ASSISTANT,
    "心理咨询师": Role.ASSISTANT,
    "Doctor": Role.ASSISTANT,
}
"""What the sets call the two speakers."""

_MARKER = re.compile(r"[^\S\n]*(病人|患者|用户|医生|大夫|心理咨询师)[^\S\n]*[：:]")


def role_of(speaker: object) -> Role | None:
    """Return the role of a speaker's name; None if it is no known name."""
    return ROLES.get(str(speaker).strip())


def utterance_of(text: str) -> Message | None:
    """Return the message of a text that begins with its speaker; None if it does not."""
    match = _MARKER.match(text)
    return Message(ROLES[match[1]], text[match.end() :].strip()) if match else None


def dialogue_of(lines: Iterable[str]) -> list[Message]:
    """Return the messages of lines; a line without a speaker goes on with the message before it.

    Lines before the first speaker belong to nobody and are left out; blank lines are left out.
    """
    messages: list[Message] = []
    for line in lines:
        begun = utterance_of(line)
        if begun is not None:
            messages.append(begun)
        elif messages and line.strip():
            last = messages[-1]
            messages[-1] = Message(last.role, f"{last.text}\n{line.strip()}".lstrip("\n"))
    return messages


def messages_of_prompt(prompt: str) -> tuple[Message, ...]:
    """Return the conversation a prompt stands for: the inverse of `consultation.templates.render`."""
    prompt = unescape_from_t5(prompt)
    messages = dialogue_of(prompt.split("\n"))
    if messages and messages[-1].role is Role.ASSISTANT and not messages[-1].text:
        messages.pop()  # the final marker, after which the model writes
    return tuple(messages) or (Message(Role.USER, prompt.strip()),)
