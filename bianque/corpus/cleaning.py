"""Cleaning of dialogues: separate, named steps, each of which can be left out and counts what it did.

A step takes a dialogue's messages and returns what is left of them; no messages mean that the dialogue is dropped.
`STEPS` lists them in the order in which they run, because later ones rely on earlier ones.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from bianque.consultation.cleanup import skeleton
from bianque.consultation.messages import Message, Role
from bianque.corpus.cut_words import join_cut_words
from bianque.corpus.personal import NAME, mask_personal
from bianque.corpus.records import Dialogue

Messages = Sequence[Message]
Step = Callable[[Messages], Messages]

_TAG = re.compile(
    r"</?(?:p|br|div|span|font|b|i|strong|em|a|img|li|ul|ol|h\d|table|tr|td)\b[^<>]{0,200}/?>", re.IGNORECASE
)
_INVISIBLE = re.compile(r"[\u200b-\u200f\u202a-\u202e\u2060\ufeff\ufffd\x00-\x08\x0b-\x1f\x7f]")
_BLANKS = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r" ?\n[ \n]*")

_PLACEHOLDER = re.compile(
    r"[\[【(（<]?(?:图片|语音|视频|链接)(?:因隐私问题|由于隐私问题|涉及隐私|暂时)?(?:无法|不能|不予|不可)(?:显示|查看|展示|播放)[\]】)）>]?"
    r"|[\[【](?:图片|语音|视频|表情|链接|附件)[^\]】]{0,12}[\]】]|[(（](?:空|图片|语音)[)）]"
    r"|本消息不支持查看|该消息类型暂不支持"
)
# A line that holds nothing but the doctor's signature.
_SIGNATURE = re.compile(rf"^(?!谢谢){NAME}(?:主任)?医[生师]$", re.MULTILINE)

_NOTHING = {"无", "暂无", "没有填写", "未填写", "无描述", "null", "none", "nan", "rt", "如题"}
_REPEAT_LENGTH = 6
"""Letters a self-report must have before its repetition is told from chance (是的, 谢谢医生)."""


def clean_characters(messages: Messages) -> Messages:
    """Resolve HTML entities, take out tags and invisible characters, and fold blanks and blank lines."""
    return [Message(message.role, _plain(message.text)) for message in messages]


def _plain(text: str) -> str:
    text = _TAG.sub(lambda tag: "\n" if tag[0].lower().startswith(("<br", "</p", "</div")) else "", text)
    text = _INVISIBLE.sub("", html.unescape(text).replace("\r", "\n"))
    return _BLANK_LINES.sub("\n", _BLANKS.sub(" ", text)).strip()


def drop_placeholders(messages: Messages) -> Messages:
    """Take out what a platform wrote in place of pictures and recordings, and lines with only a signature."""
    cleaned = ((message.role, _SIGNATURE.sub("", _PLACEHOLDER.sub("", message.text))) for message in messages)
    return [Message(role, _BLANK_LINES.sub("\n", text).strip()) for role, text in cleaned]


def drop_empty(messages: Messages) -> Messages:
    """Drop messages without a word, and those that say 无 or the like."""
    return [message for message in messages if _says_something(message.text)]


def _says_something(text: str) -> bool:
    letters = skeleton(text)
    return bool(letters) and letters not in _NOTHING


def drop_repeated_reports(messages: Messages) -> Messages:
    """Drop later messages of the patient that only repeat the first one, or most of it."""
    first = next((index for index, message in enumerate(messages) if message.role is Role.USER), None)
    if first is None:
        return messages
    report = skeleton(messages[first].text)
    return [
        message
        for index, message in enumerate(messages)
        if index <= first or message.role is not Role.USER or not _repeats(skeleton(message.text), report)
    ]


def _repeats(said: str, report: str) -> bool:
    """Return whether `said` is the report or at least half of it; a short part of it may be an answer."""
    return len(said) >= max(_REPEAT_LENGTH, len(report) // 2) and said in report


def merge_speakers(messages: Messages) -> Messages:
    """Make one message of several in a row by the same speaker, joined by newlines."""
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1].role is message.role:
            merged[-1] = Message(message.role, f"{merged[-1].text}\n{message.text}")
        else:
            merged.append(message)
    return merged


def put_in_order(messages: Messages) -> Messages:
    """Let the patient begin and the doctor end; a dialogue in which only one of them speaks is dropped."""
    roles = [message.role for message in messages]
    if Role.USER not in roles or Role.ASSISTANT not in roles:
        return []
    return messages[roles.index(Role.USER) : len(roles) - roles[::-1].index(Role.ASSISTANT)]


def mask_names_and_numbers(messages: Messages) -> Messages:
    """Mask what identifies a person; see `personal`."""
    return [Message(message.role, mask_personal(message.text)) for message in messages]


STEPS: dict[str, Step] = {
    "characters": clean_characters,
    "placeholders": drop_placeholders,
    "empty": drop_empty,
    "repeated_reports": drop_repeated_reports,
    "cut_words": join_cut_words,
    "merge": merge_speakers,
    "order": put_in_order,
    "personal": mask_names_and_numbers,
}
"""Every step by its name, in the order in which they run."""


@dataclass
class StepCount:
    """What one step did.

    Attributes:
        seen: dialogues it was given.
        changed: dialogues it changed and kept.
        dropped: dialogues of which it left nothing.
        messages: messages it took out or joined to others, in the dialogues it kept.
    """

    seen: int = 0
    changed: int = 0
    dropped: int = 0
    messages: int = 0

    def add(self, other: StepCount) -> None:
        """Add another count to this one."""
        self.seen += other.seen
        self.changed += other.changed
        self.dropped += other.dropped
        self.messages += other.messages


class Cleaner:
    """Runs the chosen steps and counts; one for each source."""

    def __init__(self, skip: Collection[str] = ()) -> None:
        """Take every step but those named in `skip`."""
        self._steps = {name: step for name, step in STEPS.items() if name not in skip}
        self.counts = {name: StepCount() for name in self._steps}

    def clean(self, dialogue: Dialogue) -> Dialogue | None:
        """Return the cleaned dialogue, or None if a step left nothing of it."""
        messages: Messages = dialogue.messages
        for name, step in self._steps.items():
            count = self.counts[name]
            count.seen += 1
            left = list(step(messages))
            if not left:
                count.dropped += 1
                return None
            if left != list(messages):
                count.changed += 1
                count.messages += len(messages) - len(left)
            messages = left
        return dialogue.with_messages(messages)
