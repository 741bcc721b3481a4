"""From a model's raw text to the reply a visitor reads, whole or while it is still being written.

Three things are removed or changed, in this order:
1. the prompt's repetition at the reply's start (about half of the stored BianQue-2.0 replies have one);
2. everything from the place where the model starts to write the visitor's next turn (`病人：`), and its own marker
   where that begins a line;
3. marks and surrounding blanks, as ChatGLM's own `process_response` does it.

While a reply grows, `ReplyCleaner.visible` returns only what no later token can change: each of its results is a
prefix of the next, and the last one (with `finished=True`) is the clean reply.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

from bianque.consultation.templates import PATIENT_DOCTOR, SOULCHAT, Template, fold_newlines

TRAINING_TIME = "[[训练时间]]"

_FULL_WIDTH = {",": "，", "!": "！", ":": "：", ";": "；", "?": "？"}
_CHINESE = r"[\u4e00-\u9fff]"
_MARK_BESIDE_CHINESE = re.compile(rf"(?<={_CHINESE})[,!:;?]|[,!:;?](?={_CHINESE})")


def process_response(text: str) -> str:
    """Clean a whole reply exactly as ChatGLM-6B's function of this name does.

    Strip; `[[训练时间]]` becomes `2023年`; a half-width `, ! : ; ?` right after or right before a character in
    U+4E00..U+9FFF becomes full-width.
    """
    text = text.strip().replace(TRAINING_TIME, "2023年")
    return _MARK_BESIDE_CHINESE.sub(lambda match: _FULL_WIDTH[match[0]], text)


def _names(markers: tuple[str, ...]) -> str:
    return "|".join(marker.rstrip("：") for marker in markers)


def _beginnings(markers: tuple[str, ...]) -> str:
    """Return a pattern of every beginning of the markers' names: `病|病人|用|用户`."""
    return "|".join(name[:end] for name in _names(markers).split("|") for end in range(1, len(name) + 1))


# Both families' markers, since either kind of model may slip into the other's layout.
_USER_MARKERS = (PATIENT_DOCTOR.user_marker, SOULCHAT.user_marker)
_ASSISTANT_MARKERS = (PATIENT_DOCTOR.assistant_marker, SOULCHAT.assistant_marker)
_BLANKS = r"[^\S\n]*"
# The visitor's next turn begins a line or follows a mark or blank; in 对于病人：… the sentence simply goes on.
_AFTER_NO_WORD = r"(?<!\w)"
_NEXT_TURN = re.compile(rf"{_AFTER_NO_WORD}(?:{_names(_USER_MARKERS)}){_BLANKS}[：:]")
_OWN_MARKERS = re.compile(rf"^(?:{_BLANKS}(?:{_names(_ASSISTANT_MARKERS)}){_BLANKS}[：:]{_BLANKS})+", re.MULTILINE)

# What may still become a marker, an escaped newline of T5, the training time, or a full-width mark.
_UNDECIDED_ENDS = (
    re.compile(rf"{_AFTER_NO_WORD}(?:{_beginnings(_USER_MARKERS)}){_BLANKS}\Z"),
    re.compile(rf"^{_BLANKS}(?:{_beginnings(_ASSISTANT_MARKERS)}){_BLANKS}\Z", re.MULTILINE),
    re.compile(r"\\\Z"),
    re.compile("(?:" + "|".join(re.escape(TRAINING_TIME[:end]) for end in range(len(TRAINING_TIME), 0, -1)) + r")\Z"),
    re.compile(rf"(?<!{_CHINESE})[,!:;?]\Z"),
    re.compile(r"\s+\Z"),
)


@dataclass(frozen=True)
class ReplyCleaner:
    """Cleans the replies to one prompt; stateless, so every call is given the whole raw text so far.

    Attributes:
        prompt: the prompt as the template rendered it, before any escaping for T5.
        template: the template that rendered it.
    """

    prompt: str
    template: Template = PATIENT_DOCTOR
    _skeleton: str = field(init=False, repr=False)
    _turn_starts: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Prepare what the search for an echo compares with."""
        object.__setattr__(self, "_skeleton", skeleton(self.prompt))
        marker = re.compile(rf"^{self.template.user_marker}", re.MULTILINE)
        starts = tuple(len(skeleton(self.prompt[: match.start()])) for match in marker.finditer(self.prompt))
        object.__setattr__(self, "_turn_starts", starts or (0,))

    def clean(self, raw: str) -> str:
        """Return the clean text of a finished reply; empty if the model wrote nothing but an echo or another turn."""
        return self.visible(raw, finished=True)

    def visible(self, raw: str, *, finished: bool = False) -> str:
        """Return the clean text that may be shown when the model has written `raw` so far.

        Args:
            raw: everything the model wrote; each call of one reply must begin with the text of the call before.
            finished: whether nothing will follow; releases what was held back.
        """
        start = self._echo_end(raw, finished)
        if start is None:
            return ""
        body = raw[start:]
        next_turn = _NEXT_TURN.search(body)
        if next_turn:
            body = body[: next_turn.start()]
        body = _OWN_MARKERS.sub("", body)
        if not finished and not next_turn:
            body = _hold_back(body)
        if self.template.folds_newlines:
            body = fold_newlines(body)
        return process_response(body)

    def is_turn_over(self, raw: str) -> bool:
        """Return whether the model has begun the visitor's next turn, so that generating more is of no use."""
        start = self._echo_end(raw, finished=False)
        return start is not None and _NEXT_TURN.search(raw, start) is not None

    def _echo_end(self, raw: str, finished: bool) -> int | None:
        """Return where the reply begins in `raw`, or None while `raw` may still be part of an echo.

        An echo is the end of the prompt, from anywhere in its last turn or from the start of an earlier one, to the
        final marker. It is compared without marks, blanks, case and width, because the tokenizer and
        `process_response` change those.
        """
        end = 0
        for colon in re.finditer(rf"(?:^\W*|{self.template.assistant_marker[-2]}{_BLANKS})[：:]", raw):
            beginning = skeleton(raw[: colon.end()])
            if len(beginning) > len(self._skeleton):
                break
            echo_start = len(self._skeleton) - len(beginning)
            if self._skeleton.endswith(beginning) and self._may_start(echo_start):
                end = colon.end()
        if not finished and self._may_grow(raw, end):
            return None
        return end

    def _may_start(self, position: int) -> bool:
        return position in self._turn_starts or position >= self._turn_starts[-1]

    def _may_grow(self, raw: str, end: int) -> bool:
        """Return whether `raw` is, so far, a part of the prompt that a longer echo would begin with."""
        written = skeleton(raw)
        is_complete = end > 0 and not skeleton(raw[end:])
        for start in self._turn_starts[:-1]:
            if self._skeleton.startswith(written, start):
                return True
        start = self._skeleton.find(written, self._turn_starts[-1])
        return start >= 0 and not (is_complete and start + len(written) == len(self._skeleton))


def skeleton(text: str) -> str:
    """Return only the letters, digits and characters of `text`, without case and width."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text)).casefold()


def _hold_back(text: str) -> str:
    """Cut off the end of `text` whose final form depends on what comes next."""
    while True:
        shorter = text
        for undecided in _UNDECIDED_ENDS:
            shorter = undecided.sub("", shorter)
        if shorter == text:
            return text
        text = shorter
