"""Make a sentence look as people type it: synonyms, wrong characters, half-width or no marks, several messages."""

from __future__ import annotations

import re
from functools import cache
from random import Random
from typing import Any

HALF_WIDTH = str.maketrans("，。？！：；", ",.?!:;")
_MARKS = str.maketrans("", "", "，。？！；：,.?!;:")
_BREAKS = "，。！"
_SWAPPED_SHARE = 0.3


class Typist:
    """Rewrites sentences with one person's habits, drawn once: someone who drops marks drops them all the time."""

    def __init__(self, general: dict[str, Any], rng: Random) -> None:
        """Draw the habits.

        Args:
            general: content of `_general.yaml`; its lists of synonyms, homophones, particles and fillers are used.
            rng: the only source of chance.
        """
        self._general = general
        self._rng = rng
        self._is_careful = rng.random() < 0.45
        self._marks = rng.choices(("full", "half", "space", "none"), (64, 14, 8, 14))[0]
        self._typo_rate = 0.0 if self._is_careful else 0.02
        self._splits = rng.random() < 0.12
        self._synonyms, self._groups = _find_synonyms(general["synonyms"])

    def write(self, sentence: str) -> str:
        """Return `sentence` as this person types it."""
        rng = self._rng
        if not self._is_careful:
            sentence = self._swap_synonyms(sentence)
            sentence = self._mistype(sentence)
            if rng.random() < 0.08:
                sentence = rng.choice(self._general["fillers"]) + sentence
            if rng.random() < 0.12 and sentence[-1] not in "？?。！了吗呢啊吧":
                sentence += rng.choice(self._general["particles"])
            if rng.random() < 0.04 and len(sentence) > 5:
                position = rng.randrange(len(sentence))
                sentence = sentence[:position] + sentence[position + 1 :]
        if self._splits and rng.random() < 0.6:
            sentence = self._split(sentence)
        elif rng.random() < 0.15 and sentence[-1] not in "？?。！!.":
            sentence += "。"
        return self._set_marks(sentence)

    def _swap_synonyms(self, sentence: str) -> str:
        def swap(match: re.Match[str]) -> str:
            return self._rng.choice(self._groups[match[0]]) if self._rng.random() < _SWAPPED_SHARE else match[0]

        return self._synonyms.sub(swap, sentence)

    def _mistype(self, sentence: str) -> str:
        homophones: dict[str, str] = self._general["homophones"]
        return "".join(
            homophones[character] if character in homophones and self._rng.random() < self._typo_rate else character
            for character in sentence
        )

    def _split(self, sentence: str) -> str:
        """Send the parts of a sentence as messages of their own: the page joins them by newlines."""
        for mark in _BREAKS:
            sentence = sentence.replace(mark, "\n")
        return sentence.strip("\n")

    def _set_marks(self, sentence: str) -> str:
        if self._marks == "half":
            return sentence.translate(HALF_WIDTH)
        if self._marks == "space":
            return sentence.rstrip("。").replace("，", " ").replace("。", " ")
        if self._marks == "none":
            stripped = sentence.translate(_MARKS)
            return stripped or sentence
        return sentence


@cache
def _find_synonyms(synonyms: tuple[tuple[str, ...], ...]) -> tuple[re.Pattern[str], dict[str, tuple[str, ...]]]:
    """Return what finds a word of any group, the longest where one holds another, and each word's group."""
    groups = {word: group for group in synonyms for word in group}
    return re.compile("|".join(map(re.escape, sorted(groups, key=len, reverse=True)))), groups
