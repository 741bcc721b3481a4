"""How the tokens of one request are chosen.

Free of torch, so that settings and model lists can hold sampling params before torch is imported; what applies them
is `bianque.engine.sampler`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# Below this temperature the best token is certain to within rounding, and dividing by it could overflow.
MIN_TEMPERATURE = 1e-4


@dataclass(frozen=True)
class SamplingParams:
    """Choice of tokens of one request.

    Applied in this order: repetition_penalty, no_repeat_ngram_size, temperature, top_k, top_p.

    Attributes:
        temperature: at least 0; 0 (or less than `MIN_TEMPERATURE`) takes the most probable token.
        top_k: keep the k most probable tokens and all that tie with the last of them; 0 keeps every token.
        top_p: in (0, 1]; keep the most probable tokens until their mass reaches top_p; 1 keeps every token.
        repetition_penalty: above 0; logits of tokens already seen are divided by it if positive, else multiplied.
            1 does nothing.
        no_repeat_ngram_size: no n-gram of this many tokens may come twice; 0 allows it.
        max_new_tokens: at least 1; the end token counts.
        seed: 0 … 2**63 - 1; the same seed gives the same reply, whatever runs beside it. None draws a fresh one.

    Raises:
        ValueError: if a value is out of range or not a number of its kind.
    """

    temperature: float = 0.95
    top_k: int = 50
    top_p: float = 0.7
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    max_new_tokens: int = 512
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check every value."""
        _check_number("temperature", self.temperature, low=0.0, high=math.inf)
        _check_integer("top_k", self.top_k, low=0)
        _check_number("top_p", self.top_p, low=math.ulp(0.0), high=1.0)
        _check_number("repetition_penalty", self.repetition_penalty, low=math.ulp(0.0), high=math.inf)
        _check_integer("no_repeat_ngram_size", self.no_repeat_ngram_size, low=0)
        _check_integer("max_new_tokens", self.max_new_tokens, low=1)
        if self.seed is not None:
            _check_integer("seed", self.seed, low=0)

    @property
    def is_greedy(self) -> bool:
        """Whether the most probable token is taken."""
        return self.temperature < MIN_TEMPERATURE


def _check_number(name: str, value: object, *, low: float, high: float) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not low <= value <= high:  # type: ignore[operator]
        raise ValueError(f"{name} must be a finite number from {low} to {high}, but it is {value!r}")


def _check_integer(name: str, value: object, *, low: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value < 2**63:
        raise ValueError(f"{name} must be an integer of at least {low}, below 2**63, but it is {value!r}")
