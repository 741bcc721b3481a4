r"""A sample's messages to the ids a model is trained on: the very ones that inference makes of the same conversation.

T5        prompt …`</s>` → encoder;  target …`</s>` → labels; newlines as the two characters `\n` in both
ChatGLM   prompt … `[gMASK] <sop>` target … `<eop>`; newlines are pieces of their own

Prompts come from the consultation's own templates and trimming, ids from the tokenizer in the model's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from bianque.consultation.messages import Message
from bianque.consultation.templates import PATIENT_DOCTOR, SOULCHAT, Template, escape_for_t5, render
from bianque.consultation.trimming import trim_turns
from bianque.errors import InputError
from bianque.manager.registry import Family
from bianque.manager.registry import Template as TemplateName

Refusal = Literal["target_too_long", "prompt_too_long", "control_tokens"]

TEMPLATES: dict[TemplateName, Template] = {"bianque": PATIENT_DOCTOR, "soulchat": SOULCHAT}


@dataclass(frozen=True)
class Encoded:
    """One sample as ids.

    Attributes:
        prompt: with the special tokens that end it.
        target: with the end token.
        num_trimmed_turns: oldest turns that were left out because they did not fit.
    """

    prompt: list[int]
    target: list[int]
    num_trimmed_turns: int


class Tokens(Protocol):
    """What a family's tokenizer does here."""

    def prompt(self, text: str) -> list[int]:
        """Return the ids that the engine is given for a prompt."""

    def target(self, text: str) -> list[int]:
        """Return the ids that the model shall write, end token included."""

    def is_clean(self, prompt: Sequence[int], target: Sequence[int]) -> bool:
        """Return whether control tokens stand only where they belong."""


class T5Tokens:
    """Ids of a T5 folder."""

    def __init__(self, folder: Path) -> None:
        """Read the tokenizer."""
        from bianque.tokenization.t5 import BianQueT5Tokenizer

        self._tokenizer = BianQueT5Tokenizer.from_pretrained(folder)

    def prompt(self, text: str) -> list[int]:
        """See `Tokens`."""
        return self._tokenizer.encode(escape_for_t5(text))

    def target(self, text: str) -> list[int]:
        """See `Tokens`."""
        return self._tokenizer.encode(escape_for_t5(text))

    def is_clean(self, prompt: Sequence[int], target: Sequence[int]) -> bool:
        """See `Tokens`."""
        control = {self._tokenizer.eos_token_id, self._tokenizer.pad_token_id}
        return not control & {*prompt[:-1], *target[:-1]}


class ChatGLMTokens:
    """Ids of a ChatGLM folder."""

    def __init__(self, folder: Path) -> None:
        """Read the tokenizer."""
        from bianque.tokenization.chatglm import ChatGLMTokenizer

        self._tokenizer = tokenizer = ChatGLMTokenizer.from_pretrained(folder)
        names = ("bos_token_id", "eos_token_id", "pad_token_id", "mask_token_id", "gmask_token_id")
        self._control = {getattr(tokenizer, name) for name in names}

    def prompt(self, text: str) -> list[int]:
        """See `Tokens`."""
        return list(self._tokenizer(text)["input_ids"])

    def target(self, text: str) -> list[int]:
        """See `Tokens`."""
        pieces = self._tokenizer.tokenize(text)
        return [*self._tokenizer.convert_tokens_to_ids(pieces), self._tokenizer.eos_token_id]

    def is_clean(self, prompt: Sequence[int], target: Sequence[int]) -> bool:
        """See `Tokens`; a prompt ends in `[gMASK] <sop>`."""
        return not self._control & {*prompt[:-2], *target[:-1]}


def load_tokens(folder: Path, family: Family) -> Tokens:
    """Return the ids' maker for a model's folder.

    Raises:
        SnapshotError: if its tokenizer cannot be read.
    """
    return T5Tokens(folder) if family == "t5" else ChatGLMTokens(folder)


class SampleEncoder:
    """Encodes samples for one model."""

    def __init__(self, tokens: Tokens, template: TemplateName, max_prompt: int, max_target: int) -> None:
        """Store what is needed.

        Args:
            tokens: of the model's folder.
            template: the prompts the model was trained on.
            max_prompt: most tokens of a prompt.
            max_target: most tokens of a target.
        """
        self._tokens = tokens
        self._template = TEMPLATES[template]
        self._max_prompt = max_prompt
        self._max_target = max_target

    def encode(self, messages: Sequence[Message], target: str) -> Encoded | Refusal:
        """Return a sample's ids, or why it cannot be learnt.

        Args:
            messages: the conversation before the reply, ending with the patient.
            target: the reply.
        """
        target_ids = self._tokens.target(target)
        if len(target_ids) > self._max_target:
            return "target_too_long"
        try:
            trimmed = trim_turns(
                messages,
                lambda kept: render(kept, self._template),
                lambda prompt: len(self._tokens.prompt(prompt)),
                self._max_prompt,
            )
        except InputError:
            return "prompt_too_long"
        prompt_ids = self._tokens.prompt(trimmed.prompt)
        # Written out in a reply, `<eop>` would end the target and `<sop>` the model's bidirectional context.
        if not self._tokens.is_clean(prompt_ids, target_ids):
            return "control_tokens"
        return Encoded(prompt_ids, target_ids, trimmed.num_trimmed_turns)
