"""What passes between the page and the consultation: messages, options, updates of a reply."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from bianque.errors import InputError

if TYPE_CHECKING:
    from bianque.manager.status import ModelStatus

MAX_NEW_TOKENS_RANGE = (16, 1024)
TEMPERATURE_RANGE = (0.0, 2.0)
TOP_P_RANGE = (0.05, 1.0)
ASKING_LIMIT_RANGE = (0, 8)


class Role(StrEnum):
    """Who speaks."""

    USER = "user"
    ASSISTANT = "assistant"


class Mode(StrEnum):
    """How a reply is made; the values are the names used by the API."""

    JOINT = "joint"  # the policy over asker and adviser
    ASKER = "bianque-1.0"
    ADVISER = "bianque-2.0"
    SOULCHAT = "soulchat"


class Author(StrEnum):
    """Which part of the system wrote an assistant message."""

    GREETING = "greeting"
    ASKER = "asker"
    ADVISER = "adviser"
    LISTENER = "listener"  # SoulChat


@dataclass(frozen=True)
class Message:
    """One utterance. `author` is set on assistant messages only."""

    role: Role
    text: str
    author: Author | None = None


@dataclass(frozen=True)
class ReplyOptions:
    """What a visitor may choose for one reply.

    Attributes:
        mode: how the reply is made.
        top_p: nucleus mass in `TOP_P_RANGE`.
        temperature: in `TEMPERATURE_RANGE`; 0 means greedy.
        max_new_tokens: upper bound of the reply's length, in `MAX_NEW_TOKENS_RANGE`.
        seed: fixes sampling; None draws a fresh seed.
        asking_limit: joint mode advises once this many assistant replies, the greeting excluded, were given; the
            original's rule "more than 8 replies, greeting included" is 8. In `ASKING_LIMIT_RANGE`.

    Raises:
        InputError: if a value is not a finite number in its range or the mode is unknown.
    """

    mode: Mode = Mode.JOINT
    top_p: float = 0.7
    temperature: float = 0.95
    max_new_tokens: int = 512
    seed: int | None = None
    asking_limit: int = 8

    def __post_init__(self) -> None:
        """Check every value, so that whatever came through the API is in range from here on."""
        try:
            object.__setattr__(self, "mode", Mode(self.mode))
        except ValueError:
            raise InputError("mode_unknown", got=str(self.mode)[:40], expected=", ".join(Mode)) from None
        _check_range("top_p", self.top_p, TOP_P_RANGE)
        _check_range("temperature", self.temperature, TEMPERATURE_RANGE)
        _check_range("max_new_tokens", self.max_new_tokens, MAX_NEW_TOKENS_RANGE)
        _check_range("asking_limit", self.asking_limit, ASKING_LIMIT_RANGE)


def _check_range(name: str, value: Any, bounds: tuple[float, float]) -> None:
    low, high = bounds
    if value is None or (isinstance(value, str) and not value.strip()):
        raise InputError("option_missing", name=name, low=low, high=high)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # NaN is in no range.
    if not (is_number and low <= value <= high):
        raise InputError("option_out_of_range", name=name, low=low, high=high, got=str(value)[:40])


@dataclass(frozen=True)
class ReplyUpdate:
    """The state of a reply at one moment; each update carries the whole reply so far.

    Attributes:
        text: plain text of the reply so far, cleaned as it will stay; never markup.
        author: who writes it.
        model: display name of the model, for example `BianQue-2.0` or `mini-adviser`.
        is_final: whether this is the last update.
        finish_reason: set on the last update.
        queue_position: 1-based place among those waiting, or None once the model works on it.
        expected_wait_seconds: how long it will probably wait there, where that can be told.
        emergency: `consultation.red_flags.Emergency` name when a red flag was found; the notice is shown beside.
        num_trimmed_turns: how many oldest turns were left out of the prompt because they did not fit.
        loading: how far the model is while the reply waits for it; None once it is ready.
    """

    text: str
    author: Author
    model: str
    is_final: bool = False
    finish_reason: Literal["stop", "length", "deadline", "cancelled"] | None = None
    queue_position: int | None = None
    expected_wait_seconds: float | None = None
    emergency: str | None = None
    num_trimmed_turns: int = 0
    loading: ModelStatus | None = None
