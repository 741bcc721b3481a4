"""Free evaluation: a scripted patient answers from a case record, and the chain of questioning is measured.

The cases are those of the demonstration models' knowledge with openings that their training never saw. The patient
finds the known question nearest to the reply, answers with what the case has for it, and evasively otherwise; the
dialogue ends with the first reply that asks nothing, or after `MAX_QUESTIONS` questions. Models trained on other
wordings are understood less well: their figures of items are lower bounds.

| figure | what |
|---|---|
| questions before advice | mean number |
| dialogues with a question | percent |
| items covered | items of the case's plan that were asked about, of those that the opening leaves open; percent |
| repeated questions | questions that were asked before in the dialogue, by letters or by item; percent of questions |
| understood questions | questions for which the case has an answer; percent of questions |
| advice reached | dialogues that end with a reply that asks nothing; percent |
| right department | advice that names the case's department; percent of dialogues |
| broken off | dialogues that ended because a reply failed; percent |
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random
from typing import Any

import numpy as np

from bianque.consultation.cleanup import skeleton
from bianque.consultation.messages import Message, Role
from bianque.consultation.questions import is_clinical_question
from bianque.corpus.records import Dialogue
from bianque.errors import GenerationError, InputError, QueueFullError
from bianque.evaluation.bootstrap import Figure, figures_of, ratio
from bianque.evaluation.responders import Responder
from bianque.minis.cases import GENERAL, Case, CaseBook
from bianque.minis.knowledge import Knowledge
from bianque.minis.scoring import Judge
from bianque.minis.selfplay import ScriptedPatient

logger = logging.getLogger(__name__)

MAX_QUESTIONS = 9
DEFINITIONS = (
    "Dialogues with a scripted patient, up to the first reply that asks nothing. Items: what the case's plan asks, of "
    "what the opening leaves open. Repeated: by letters or by item. Understood: the case has an answer. Percent, but "
    "for the number of questions; in brackets 95 % intervals of 1,000 bootstraps over dialogues."
)

_COLUMNS = (
    *("questions", "has_question", "covered", "open_items", "repeats", "understood", "reached", "right_department"),
    *("broken_off", "dialogues"),
)
_AT = {name: index for index, name in enumerate(_COLUMNS)}
FIGURES = {
    "questions before advice": ratio(_AT, "questions", "dialogues", 1.0),
    "dialogues with a question": ratio(_AT, "has_question", "dialogues"),
    "items covered": ratio(_AT, "covered", "open_items"),
    "repeated questions": ratio(_AT, "repeats", "questions"),
    "understood questions": ratio(_AT, "understood", "questions"),
    "advice reached": ratio(_AT, "reached", "dialogues"),
    "right department": ratio(_AT, "right_department", "dialogues"),
    "broken off": ratio(_AT, "broken_off", "dialogues"),
}


@dataclass
class FreeDialogue:
    """One dialogue with the scripted patient.

    Attributes:
        case: what the patient has.
        messages: what was said.
        questions: the model's questions.
        items: what each was about, empty if the case has no answer to it.
        advice: the reply that ended it, None if the questions did not end.
        error: name of the error that ended it, empty if none did.
    """

    case: Case
    messages: list[Message]
    questions: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    advice: str | None = None
    error: str = ""

    def to_dialogue(self, number: int) -> Dialogue:
        """Return the dialogue as the corpus has them."""
        return Dialogue(f"free-{self.case.id}", str(number), tuple(self.messages))


def draw_cases(knowledge: Knowledge, num_cases: int, seed: int = 0) -> list[Case]:
    """Return cases with held-out openings: nine of ten listed complaints in turn, the others outside the list."""
    rng = Random(f"free-{seed}")
    book = CaseBook(knowledge, heldout=True)
    listed = [(complaint, opening) for complaint in knowledge.complaints for opening in complaint.heldout_openings]
    rng.shuffle(listed)
    cases = []
    for number in range(num_cases):
        if number % 10 == 9:
            cases.append(book.outside(rng))
        else:
            cases.append(book.listed(rng, *listed[number % len(listed)]))
    return cases


def converse(
    responder: Responder,
    knowledge: Knowledge,
    cases: Sequence[Case],
    *,
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[FreeDialogue]:
    """Let the responder talk with the patient of each case; the same seed gives the patient the same words.

    A dialogue in which a reply fails ends there.

    Raises:
        ModelUnavailableError: if the responder cannot answer at all.
    """
    patient = ScriptedPatient(knowledge.general, Judge(knowledge))

    def talk(numbered: tuple[int, Case]) -> FreeDialogue:
        number, case = numbered
        return _talk(responder, patient, case, Random(f"{seed}-{number}"))

    dialogues = []
    with ThreadPoolExecutor(workers) as pool:
        for dialogue in pool.map(talk, enumerate(cases)):
            dialogues.append(dialogue)
            progress(len(dialogues), len(cases))
    return dialogues


def _talk(responder: Responder, patient: ScriptedPatient, case: Case, rng: Random) -> FreeDialogue:
    dialogue = FreeDialogue(case, [Message(Role.USER, case.opening)])
    while True:
        try:
            reply = responder.reply(dialogue.messages).text
        except (InputError, GenerationError, QueueFullError) as error:
            logger.warning("the dialogue about %s ends with question %d: %s", case.id, len(dialogue.questions), error)
            dialogue.error = error.key
            return dialogue
        dialogue.messages.append(Message(Role.ASSISTANT, reply))
        if not is_clinical_question(reply):
            dialogue.advice = reply
            return dialogue
        answer, item = patient.answer(case, reply, rng)
        dialogue.questions.append(reply)
        dialogue.items.append(item)
        if len(dialogue.questions) == MAX_QUESTIONS:
            return dialogue
        dialogue.messages.append(Message(Role.USER, answer))


def measure_free(
    dialogues: Sequence[FreeDialogue], knowledge: Knowledge, **options: Any
) -> dict[str, dict[str, Figure]]:
    """Return every figure of all dialogues (`all`), of listed complaints, and of those outside the list."""
    judge = Judge(knowledge)
    parts = {
        "all": list(dialogues),
        "listed complaints": [one for one in dialogues if one.case.id != GENERAL],
        "outside the list": [one for one in dialogues if one.case.id == GENERAL],
    }
    return {
        name: figures_of(np.array([_columns(one, judge) for one in part]), FIGURES, **options)
        for name, part in parts.items()
        if part
    }


def _columns(dialogue: FreeDialogue, judge: Judge) -> list[float]:
    case = dialogue.case
    open_items = {ask.item for ask in case.plan} - case.answered
    seen: set[str] = set()
    repeats = 0
    for question, item in zip(dialogue.questions, dialogue.items, strict=True):
        marks = {mark for mark in (f"letters {skeleton(question)}", item and f"item {item}") if mark}
        repeats += bool(marks & seen)
        seen |= marks
    department = judge.department_of(dialogue.advice) if dialogue.advice else None
    return [
        len(dialogue.questions),
        bool(dialogue.questions),
        len(open_items & set(dialogue.items)),
        len(open_items),
        repeats,
        sum(any(ask.item == item for ask in case.plan) for item in dialogue.items),
        dialogue.advice is not None,
        department == case.department,
        bool(dialogue.error),
        1,
    ]
