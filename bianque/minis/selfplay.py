"""Let the demonstration models talk to a scripted patient, many dialogues at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from bianque.minis.cases import Case
from bianque.minis.dialogues import Sample, Step
from bianque.minis.respond import Responder
from bianque.minis.scoring import Judge

MAX_QUESTIONS = 7


@dataclass
class Play:
    """One dialogue of the asker with a scripted patient, and what was noticed in it."""

    case: Case
    steps: list[Step] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    handover: str | None = None


class ScriptedPatient:
    """Answers a question with what the case's knowledge has for its item, else evasively."""

    def __init__(self, general: dict[str, Any], judge: Judge) -> None:
        self._evasions = general["evasions"]
        self._judge = judge

    def answer(self, case: Case, question: str, rng: Random) -> tuple[str, str]:
        """Return the answer and the item the question was about (empty if unknown)."""
        owners = self._judge.nearest_question(question)
        item = next((item for owner, item in owners if owner == case.id), owners[0][1] if owners else "")
        answers = next((ask.answers for ask in case.plan if ask.item == item), self._evasions)
        return rng.choice(answers), item


def play(asker: Responder, cases: Sequence[Case], patient: ScriptedPatient, is_question: Any, seed: int) -> list[Play]:
    """Return one dialogue for each case, up to the handover or `MAX_QUESTIONS` questions."""
    plays = [Play(case, [Step("patient", case.opening, "opening")]) for case in cases]
    rng = Random(seed)
    waiting = list(plays)
    for _ in range(MAX_QUESTIONS):
        target = Step("asker", "", "ask")
        replies = asker.answer([Sample("joint", tuple(one.steps), target, one.case) for one in waiting], 48)
        for one, reply in zip(waiting, replies, strict=True):
            if not is_question(reply):
                one.handover = reply
                continue
            answer, item = patient.answer(one.case, reply, rng)
            one.questions.append(reply)
            one.items.append(item)
            one.steps += [Step("asker", reply, "ask", item), Step("patient", answer, "answer", item)]
        waiting = [one for one in waiting if one.handover is None]
        if not waiting:
            break
    return plays
