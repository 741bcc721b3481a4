r"""From token ids that come one by one to pieces of text that never have to be taken back.

Decoders look at more than one id. Bytes join to characters, words to contractions, a space goes when punctuation
follows, and the end of a text is stripped. So the end of what is decoded so far may still change, and `TextStream`
shows a text only as far as no further id can change it:

    decoded so far   shown      because
    头晕\ufffd       头晕       bytes of a character are missing
    头晕␣           头晕       the end is stripped, and punctuation takes a space away
    it is n          it is      n't would follow without the space
    胃疼<            胃疼       `<n>` is a newline to the ChatGLM tokenizer
    cafe             caf        an accent may follow and join

Which ends are unsettled is a pattern; the one here covers the project's two tokenizers, decoders that normalise to
composed characters, and `\n` written as two characters.

Decoding every id again for every new one costs time with the square of a reply's length. Once a stretch of text is
settled, decoding goes on from an id behind which everything decodes to the same text without the ids before it; this
is checked on the text at hand, and where no such id is found, the window just stays long.
"""

from __future__ import annotations

import re
from collections.abc import Callable

# A space and what may still become punctuation without it ( '), or a contraction ( n't, 's, 've …).
_SPACE = r"\s+(?:'|n'?|'[vr])?"
# The beginning of <n>, <|tab|> or <|blank_80|>, which are white space to the ChatGLM tokenizer; of \n or \t.
_ESCAPE = r"<[|\w]{0,11}|\\"
# Up to three bytes of a character, or a letter that takes combining marks; Chinese characters and digits take none.
_CHARACTER = r"\ufffd{1,3}|[^\W\d_\u3400-\u9fff][\u0300-\u036f\u3099\u309a]*"
UNSETTLED_END = re.compile(rf"(?:{_SPACE}|{_ESCAPE})?(?:{_CHARACTER})?\Z")
# No unsettled end is longer, but for a run of white space, of which the last stretch is held back.
_LONGEST_UNSETTLED = 64

# The window is moved when it holds this many ids, and leaves at least _KEPT_IDS of them.
_WINDOW_IDS = 64
_KEPT_IDS = 8
# How many ids are tried as the new beginning of the window.
_MOVE_ATTEMPTS = 8


class TextStream:
    """Decodes a growing list of ids into increments.

    The increments, with that of `finish`, join to `decode(all ids)`, provided that `decode` changes earlier text only
    within an unsettled end. Not thread-safe.
    """

    def __init__(self, decode: Callable[[list[int]], str], *, unsettled_end: re.Pattern[str] = UNSETTLED_END) -> None:
        """Start an empty stream.

        Args:
            decode: ids to text.
            unsettled_end: matches, up to the end of a text, what further ids may change.
        """
        self._decode = decode
        self._unsettled_end = unsettled_end
        self._token_ids: list[int] = []
        self._window_start = 0
        self._next_move = _WINDOW_IDS
        self._num_shown = 0  # characters of the window's text
        self._num_shown_before = 0  # characters before the window

    def push(self, *token_ids: int) -> str:
        """Add tokens and return the text that has become certain, often empty or longer than one token's."""
        self._token_ids.extend(token_ids)
        text = self._decode(self._token_ids[self._window_start :])
        increment = text[self._num_shown : self._settled_length(text)]
        self._num_shown += len(increment)
        if len(self._token_ids) - self._window_start >= self._next_move:
            self._move_window(text)
        return increment

    def finish(self) -> str:
        """Return what was held back; the stream takes no more tokens."""
        return self._decode(self._token_ids)[self._num_shown_before + self._num_shown :]

    def _settled_length(self, text: str) -> int:
        """Return how many characters at the start of `text` no further id changes."""
        match = self._unsettled_end.search(text, max(0, len(text) - _LONGEST_UNSETTLED))
        return match.start() if match else len(text)

    def _move_window(self, text: str) -> None:
        """Begin the window at a later id if its text then stays the same from there on; `text` is the window's.

        The new window must begin with shown text. That text is settled: what stands before it cannot reach past it to
        what is still to come.
        """
        end = len(self._token_ids)
        for start in range(end - _KEPT_IDS, end - _KEPT_IDS - _MOVE_ATTEMPTS, -1):
            tail = self._decode(self._token_ids[start:])
            border = len(text) - len(tail)
            if border < self._num_shown and text.endswith(tail):
                self._window_start = start
                self._num_shown -= border
                self._num_shown_before += border
                self._next_move = _WINDOW_IDS
                return
        # Nothing found: try again when the window has doubled, so that the attempts stay cheap.
        self._next_move = 2 * (end - self._window_start)
