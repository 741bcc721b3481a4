"""Prompt templates: messages to the exact string a checkpoint was trained on.

`PATIENT_DOCTOR` serves BianQue-1.0, BianQue-2.0 and the demonstration models, `SOULCHAT` serves SoulChat. ChatGLM
reads the rendered prompt as it is; T5 reads it through `escape_for_t5`, and what T5 writes goes through
`unescape_from_t5`.

Departures from the original programs:
- the greeting stands in the conversation from the start but is never part of a prompt;
- several messages of one speaker in a row share one turn, joined by newlines, where the original drops all but some;
- a visitor cannot forge a turn or a control token: see `disarm`. Ordinary text is unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bianque.consultation.messages import Author, Message, Mode, Role

GREETING_BIANQUE = "我是利用人工智能技术，结合大数据训练得到的智能医疗问答模型扁鹊，你可以向我提问。"
GREETING_SOULCHAT = "你好！我是你的个人专属数字辅导员甜心老师，欢迎找我倾诉、谈心，期待帮助到你！"

# Everything that one of the tokenizers reads as a line's end: real ones, ChatGLM's literal `<n>`, and the two
# characters `\n` that stand for a newline in a T5 prompt.
_LINE_START = r"(?:^|(?<=[\n\r\v\f\x1c-\x1e\x85\u2028\u2029])|(?<=<n>)|(?<=\\n))"
# Blanks and invisible characters that may stand before the marker without changing how it reads.
_BLANKS = r"[^\S\n\r]*[\u200b-\u200f\u2060\ufeff]*[^\S\n\r]*"
# A speaker's name with a colon; some of these colons become the usual one when the tokenizer normalises its input.
_ROLE_AT_LINE_START = re.compile(rf"{_LINE_START}({_BLANKS}(?:病人|医生|用户|心理咨询师){_BLANKS})[：:﹕∶︓ː]")

# Literals that a tokenizer turns into control tokens, for example ChatGLM's `<sop>` (ends the bidirectional context)
# or T5's `</s>` (ends the prompt).
_CONTROL_LITERAL = re.compile(
    r"<(/?s|n|unk|pad|sop|eop|ENC|dBLOCK|unused_\d+|extra_id_\d+|\|tab\||\|blank_\d+\|)>|\[([gs]?MASK)\]"
)


@dataclass(frozen=True)
class Template:
    """One family's turn layout.

    Attributes:
        user_marker: what stands before the visitor's words.
        assistant_marker: what stands before the model's words; every prompt ends with it.
        max_exchanges: how many of the newest finished exchanges are kept, or None for all.
        folds_newlines: whether runs of newlines in replies become one.
        greeting: the first assistant message of a conversation.
    """

    user_marker: str
    assistant_marker: str
    max_exchanges: int | None
    folds_newlines: bool
    greeting: str


PATIENT_DOCTOR = Template("病人：", "医生：", max_exchanges=None, folds_newlines=False, greeting=GREETING_BIANQUE)
SOULCHAT = Template("用户：", "心理咨询师：", max_exchanges=5, folds_newlines=True, greeting=GREETING_SOULCHAT)


def template_for(mode: Mode) -> Template:
    """Return the template of the models that answer in `mode`."""
    return SOULCHAT if mode is Mode.SOULCHAT else PATIENT_DOCTOR


def greeting_message(mode: Mode) -> Message:
    """Return the message that stands first in a new conversation of `mode`."""
    return Message(Role.ASSISTANT, template_for(mode).greeting, Author.GREETING)


def render(messages: Sequence[Message], template: Template = PATIENT_DOCTOR) -> str:
    """Return the prompt for a reply to the newest message.

    Args:
        messages: the conversation; assistant messages before the first user message (the greeting) are left out.
        template: the family's layout.

    Raises:
        ValueError: if the newest message is not the visitor's; callers check what came from outside before.
    """
    if not messages or messages[-1].role is not Role.USER:
        raise ValueError("a prompt answers a user message, so the conversation must end with one")
    turns = split_turns(messages)
    if template.max_exchanges is not None:
        turns = turns[-(template.max_exchanges + 1) :]
    lines = []
    for users, assistants in turns:
        lines.append(template.user_marker + disarm("\n".join(users)))
        reply = "\n".join(assistants)
        lines.append(template.assistant_marker + (fold_newlines(reply) if template.folds_newlines else reply))
    return "\n".join(lines)


def split_turns(messages: Sequence[Message]) -> list[tuple[list[str], list[str]]]:
    """Group a conversation into turns of (user texts, assistant texts); a leading greeting belongs to none."""
    turns: list[tuple[list[str], list[str]]] = []
    for message in messages:
        if message.role is Role.USER:
            if not turns or turns[-1][1]:
                turns.append(([], []))
            turns[-1][0].append(message.text)
        elif turns:
            turns[-1][1].append(message.text)
    return turns


def disarm(text: str) -> str:
    """Put role markers at a line's start and control-token literals of a visitor's text out of action.

    The marker's colon becomes a comma, which reads the same to a person (`医生：我头痛` → `医生，我头痛`), and the
    literals get full-width brackets. All other text is returned unchanged.
    """
    text = _ROLE_AT_LINE_START.sub(r"\1，", text)
    return _CONTROL_LITERAL.sub(lambda match: f"＜{match[1]}＞" if match[1] else f"［{match[2]}］", text)


def fold_newlines(text: str) -> str:
    """Return `text` with every run of newlines folded to one, as SoulChat's program shows its replies."""
    return re.sub(r"\n+", "\n", text)


def escape_for_t5(prompt: str) -> str:
    r"""Return the prompt as T5 was trained on it: newline and tab as the two characters `\n` and `\t`."""
    return prompt.replace("\n", "\\n").replace("\t", "\\t")


def unescape_from_t5(reply: str) -> str:
    r"""Return what T5 wrote with the two characters `\n` and `\t` turned back into newline and tab."""
    return reply.replace("\\n", "\n").replace("\\t", "\t")
