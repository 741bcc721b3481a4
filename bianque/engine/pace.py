"""What an engine learns from its own work: how long replies are and how long steps and prompts take."""

from __future__ import annotations

import math

from bianque.engine.wait import Speeds

# The newest value counts at least this much in a mean.
_NEWEST_SHARE = 0.1
# A reply that is longer than the mean already is taken to go on for this share of it.
_REMAINDER = 0.1


class _Mean:
    """Mean of everything at first, later of about the last ten values."""

    def __init__(self) -> None:
        self.value = 0.0
        self.num_values = 0

    def add(self, value: float) -> None:
        self.num_values += 1
        self.value += max(_NEWEST_SHARE, 1 / self.num_values) * (value - self.value)


class Pace:
    """Moving means of an engine's work. Not thread-safe: the engine's lock guards it."""

    def __init__(self) -> None:
        """Begin without any measurement."""
        self._reply_tokens = _Mean()
        self._step_seconds: dict[int, _Mean] = {}
        self._prompt_token_seconds = _Mean()
        self._own_token_seconds = _Mean()

    def note_reply(self, num_tokens: int) -> None:
        """Count a reply that has ended, however it did: a slot is free after so many tokens."""
        self._reply_tokens.add(num_tokens)

    def note_step(self, num_rows: int, seconds: float) -> None:
        """Count a decode step of so many rows, waiting for the device and delivering tokens included."""
        self._step_seconds.setdefault(num_rows, _Mean()).add(seconds)

    def note_prompt(self, num_tokens: int, seconds: float, elapsed_seconds: float) -> None:
        """Count a prompt: what it took of the device, and how long until its first token, others' steps included."""
        self._prompt_token_seconds.add(seconds / num_tokens)
        self._own_token_seconds.add(elapsed_seconds / num_tokens)

    def remaining_tokens(self, num_written: int, max_new_tokens: int) -> float:
        """Return how many tokens a reply will probably still have, once any reply has ended.

        Args:
            num_written: tokens that it has.
            max_new_tokens: the most it may have.
        """
        mean = self._reply_tokens.value
        return min(max(mean - num_written, _REMAINDER * mean), max_new_tokens - num_written)

    def speeds(self, num_rows: int) -> Speeds | None:
        """Return the speeds while so many sequences run; None before a decode step and the end of a reply."""
        if not self._step_seconds or not self._reply_tokens.num_values:
            return None
        step_seconds = self._seconds_of_step(num_rows)
        return Speeds(step_seconds, self._prompt_token_seconds.value, self._own_token_seconds.value)

    def _seconds_of_step(self, num_rows: int) -> float:
        """Return what was measured for so many rows, or what the nearest numbers of rows that were measured say."""
        below = max((number for number in self._step_seconds if number <= num_rows), default=None)
        above = min((number for number in self._step_seconds if number >= num_rows), default=None)
        if below is None or above is None:
            # Somewhere between no difference and one that grows with the rows; the middle is wrong by least.
            nearest = below or above or num_rows
            return self._step_seconds[nearest].value * math.sqrt(num_rows / nearest)
        if below == above:
            return self._step_seconds[below].value
        share = (num_rows - below) / (above - below)
        return (1 - share) * self._step_seconds[below].value + share * self._step_seconds[above].value
