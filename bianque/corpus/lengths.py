"""Limits of length in a model's tokens.

The prompt is shortened as inference shortens it, by leaving out whole oldest turns. A sample whose newest turn alone
is too long is dropped, and so is one whose target is: a target cut off would teach the model to stop in mid-sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from bianque.consultation.templates import escape_for_t5, render
from bianque.consultation.trimming import trim_turns
from bianque.corpus.records import Sample
from bianque.errors import DataError, InputError

CountTokens = Callable[[str], int]


def load_counter(folder: Path) -> CountTokens:
    """Return a function that counts a text's tokens, special tokens included, with the tokenizer in `folder`.

    Raises:
        DataError: if the folder has neither a T5 nor a ChatGLM vocabulary.
    """
    if (folder / "spiece.model").is_file():
        from bianque.tokenization.t5 import BianQueT5Tokenizer

        t5_tokenizer = BianQueT5Tokenizer.from_pretrained(folder)
        return lambda text: len(t5_tokenizer.encode(escape_for_t5(text)))
    if (folder / "ice_text.model").is_file():
        from bianque.tokenization.chatglm import ChatGLMTokenizer

        chatglm_tokenizer = ChatGLMTokenizer.from_pretrained(folder)
        return lambda text: len(chatglm_tokenizer(text)["input_ids"])
    raise DataError("tokenizer_missing", folder=folder)


@dataclass
class LengthLimits:
    """Applies the limits and counts.

    Attributes:
        count_tokens: length of a text.
        max_input: most tokens of the prompt.
        max_target: most tokens of the target.
        shortened: samples whose oldest turns were left out.
        input_too_long: samples dropped because their newest turn alone is too long.
        target_too_long: samples dropped because of their target.
    """

    count_tokens: CountTokens
    max_input: int = 512
    max_target: int = 512
    shortened: int = field(default=0, init=False)
    input_too_long: int = field(default=0, init=False)
    target_too_long: int = field(default=0, init=False)

    def apply(self, sample: Sample) -> Sample | None:
        """Return the sample within the limits, or None if it cannot be."""
        if self.count_tokens(sample.target) > self.max_target:
            self.target_too_long += 1
            return None
        try:
            trimmed = trim_turns(sample.messages, render, self.count_tokens, self.max_input)
        except InputError:
            self.input_too_long += 1
            return None
        if trimmed.num_trimmed_turns:
            self.shortened += 1
            return replace(sample, messages=tuple(trimmed.messages))
        return sample
