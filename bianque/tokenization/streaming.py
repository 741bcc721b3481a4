"""From token ids that come one by one to pieces of text that never have to be taken back."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

# What decoding further tokens may still change at the end of a text: bytes of an unfinished character (U+FFFD), white
# space (a decoder may strip it, or drop it before punctuation), and a space with the beginning of an English
# contraction, which the T5 decoder joins to the word before it.
_UNSETTLED = re.compile(r"(?:\s*\ufffd+|\s+(?:n?'?[a-z]{0,2})?|\s+'\s*)$")


class TextStream:
    """Decodes a growing list of ids into increments; joined, they always equal the whole decoded text."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        """Start an empty stream.

        Args:
            decode: ids to text. It is called with all ids each time, since a decoder may join pieces across any
                border; sentencepiece decodes a thousand ids in a fraction of a decode step.
        """
        self._decode = decode
        self._token_ids: list[int] = []
        self._shown = ""

    def push(self, *token_ids: int) -> str:
        """Add one or more tokens and return the text that is now certain, possibly empty."""
        self._token_ids.extend(token_ids)
        text = self._decode(self._token_ids)
        return self._advance(text[: _settled_length(text)])

    def finish(self) -> str:
        """Return what was still held back."""
        return self._advance(self._decode(self._token_ids))

    def _advance(self, settled: str) -> str:
        # A decoder may shorten what was settled only by white space before punctuation, which is held back; should one
        # do more, nothing is shown until the text has grown past what stands.
        if not settled.startswith(self._shown):
            return ""
        increment = settled[len(self._shown) :]
        self._shown = settled
        return increment


def _settled_length(text: str) -> int:
    """Return how many characters at the start of `text` further tokens cannot change."""
    unsettled = _UNSETTLED.search(text)
    return unsettled.start() if unsettled else len(text)
