"""What is behind one consultation: a listed complaint, or a made-up one outside the list, with its opening message."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from random import Random

from bianque.minis.knowledge import NUM_HELDOUT, Ask, Complaint, Knowledge

GENERAL = "general"
# Whoever writes for a relative already is not made to write for another one.
_FOR_ANOTHER = re.compile("[妈爸爷奶姥婆姐妹哥弟娃]|老公|老婆|媳妇|对象|老人|老伴|孩子|宝宝|儿子|女儿|闺女|朋友|同事")
_FEMALE = re.compile("[妈奶婆姐妹姑母女]")
WHOLE_BODY = "身体"


@dataclass(frozen=True)
class Case:
    """A complaint as the dialogue needs it.

    Attributes:
        id: the complaint's id, or `general`.
        name: name of the complaint; empty outside the list.
        department: whom the adviser names.
        plan: what the asker goes through, in order.
        opening: the patient's first words about it.
        answered: items that the opening already answers.
        causes: clause about possible causes; likewise the next four.
    """

    id: str
    name: str
    department: str
    plan: tuple[Ask, ...]
    opening: str
    answered: frozenset[str]
    causes: str
    self_care: tuple[str, ...]
    checks: str
    warning_signs: tuple[str, ...]
    diet: str


def pick(rng: Random, wordings: Sequence[str]) -> str:
    """Return one of several wordings, the first in most cases, so that greedy decoding has a clear favourite."""
    if len(wordings) == 1 or rng.random() < 0.8:
        return wordings[0]
    return rng.choice(wordings[1:])


class CaseBook:
    """Draws cases; with `heldout` only from the openings and pairs that training never sees."""

    def __init__(self, knowledge: Knowledge, *, heldout: bool) -> None:
        self._knowledge = knowledge
        self._general = knowledge.general
        self._heldout = heldout
        pairs = [
            (department, part, kind, feeling)
            for department, parts in self._general["parts"].items()
            for part, (kind, feelings) in product(parts, self._general["feelings"].items())
            for feeling in feelings
        ]
        every = self._general["heldout_every"]
        self._pairs = [pair for index, pair in enumerate(pairs) if (index % every == 0) == heldout]
        free = self._general["free_openings"]
        self._free = free[-4:] if heldout else free[:-4]

    def split(self, wordings: Sequence[str]) -> Sequence[str]:
        """Return the part of a list of wordings that this book may use."""
        return wordings[-NUM_HELDOUT:] if self._heldout else wordings[:-NUM_HELDOUT]

    def listed(self, rng: Random, complaint: Complaint | None = None, opening: str | None = None) -> Case:
        """Return a case of a listed complaint, drawn unless it is given, with a dressed-up opening."""
        complaint = complaint or rng.choice(self._knowledge.complaints)
        if opening is None:
            opening = self._words_of(rng, complaint)
        case = Case(
            id=complaint.id,
            name=complaint.name,
            department=complaint.department,
            plan=complaint.plan,
            opening=opening,
            answered=frozenset(),
            causes=complaint.causes,
            self_care=complaint.self_care,
            checks=complaint.checks,
            warning_signs=complaint.warning_signs,
            diet=complaint.diet,
        )
        return self._dress(rng, case, complaint.population)

    def outside(self, rng: Random) -> Case:
        """Return a case outside the list: a body part with a feeling, or free wording."""
        if rng.random() < 0.25:
            return self._dress(rng, self._general_case(rng.choice(self._free), WHOLE_BODY, "whole", ""))
        department, part, kind, feeling = rng.choice(self._pairs)
        exact = rng.random() < 0.3
        pattern = rng.choice(self._general["patterns"])
        opening = pattern.format(
            part=part,
            feeling=feeling,
            time=rng.choice(self._general["exact_times" if exact else "times"]),
            tail=rng.choice(self._general["tails"]),
        )
        case = self._general_case(opening, part, kind, department)
        if exact and "{time}" in pattern:
            return replace(case, answered=frozenset({"duration"}))
        return self._dress(rng, case)

    def _words_of(self, rng: Random, complaint: Complaint) -> str:
        if self._heldout:
            return rng.choice(complaint.heldout_openings)
        chance = rng.random()
        openings = complaint.training_openings
        if chance < 0.08:
            return rng.choice(("{}", "我{}", "{}了", "有点{}", "最近{}", "老是{}", "我这两天{}")).format(
                complaint.name
            )
        if chance < 0.6:
            return self._compose(rng, complaint)
        if chance < 0.66:
            return rng.choice("，\n。").join(rng.sample(openings, 2))
        if chance < 0.76:
            # What a patient would answer later, told at once, without the item counting as answered.
            telling = [text for ask in complaint.asks[1:] for text in ask.answers if len(text) > 5]
            return f"{rng.choice(openings)}，{rng.choice(telling)}"
        return rng.choice(openings)

    def _compose(self, rng: Random, complaint: Complaint) -> str:
        """Put an opening together from phrases, which gives thousands of openings a complaint."""
        phrases = complaint.phrases
        opening = rng.choice(phrases.signs)
        if rng.random() < 0.2:
            opening = rng.choice(("{}，{}", "{}，还{}", "{} {}")).format(opening, rng.choice(phrases.signs))
        if rng.random() < 0.35:
            opening = rng.choice(phrases.scenes) + rng.choice(("", "，", "就")) + opening
        if rng.random() < 0.35:
            opening += "，" + rng.choice(phrases.also)
        return opening

    def _general_case(self, opening: str, place: str, kind: str, department: str) -> Case:
        advice = self._general["advice"][kind]
        if kind == "skin":
            department = self._general["skin_department"]
        plan = tuple(
            replace(ask, questions=tuple(question.format(place=place) for question in ask.questions))
            for ask in self._knowledge.general_asks
        )
        return Case(
            id=GENERAL,
            name="",
            department=department or self._general["general_department"],
            plan=plan,
            opening=opening,
            answered=frozenset(),
            causes=advice["causes"],
            self_care=tuple(advice["self_care"]),
            checks=advice["checks"],
            warning_signs=tuple(advice["warning_signs"]),
            diet=self._general["general_diet"],
        )

    def _dress(self, rng: Random, case: Case, population: str = "any") -> Case:
        """Add what people put around their complaint: greeting, age, for whom, how long, what to do."""
        opening, answered = case.opening, set(case.answered)
        if rng.random() < 0.28:
            duration = rng.choice(self._general["durations"])
            opening = f"{opening}，{duration}" if rng.random() < 0.7 else f"{duration}，{opening}"
            answered.add("duration")
        is_about_oneself = population != "child" and not _FOR_ANOTHER.search(opening)
        if is_about_oneself and rng.random() < 0.1:
            relatives = self._general["relatives"]
            if population == "female":
                relatives = [name for name in relatives if _FEMALE.search(name)]
            relative = rng.choice(relatives)
            is_own = opening.startswith("我") and opening.count("我") == 1
            opening = relative + opening[1:] if is_own else f"替{relative}问一下，{opening}"
        elif is_about_oneself and rng.random() < 0.07:
            opening = rng.choice(self._general["ages"]) + opening
            answered.add("age")
        if rng.random() < 0.25 and not re.match("医生|大夫|您好|你好|请问", opening):
            opening = rng.choice(self._general["prefixes"]) + opening
        if rng.random() < 0.3:
            opening += rng.choice(self._general["suffixes"])
        return replace(case, opening=opening, answered=frozenset(answered))
