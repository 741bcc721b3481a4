"""Measure the demonstration models on wordings and dialogues that training never saw.

All dialogues open with held-out words: the last two openings of every complaint, held-out body part and feeling pairs,
held-out follow-ups; seeds differ from training. Decoding is greedy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bianque.consultation.questions import is_clinical_question
from bianque.minis.cases import GENERAL, WHOLE_BODY, Case
from bianque.minis.dialogues import SPECIALS, Dialogue, DialogueWriter, Sample
from bianque.minis.knowledge import Knowledge
from bianque.minis.respond import FOLDER, Responder
from bianque.minis.scoring import Judge, clauses_of
from bianque.minis.selfplay import Play, ScriptedPatient, play
from bianque.minis.wording import Typist

SURELY_ASKING = 3
"""Replies of the asker that must be questions: a plan has six items, and openings and answers may take some away."""


@dataclass(frozen=True)
class Figure:
    """One measured share: `num_right` of `num_all`, with the floor it must reach (0 for none)."""

    name: str
    num_right: int
    num_all: int
    floor: float = 0.0

    @property
    def share(self) -> float:
        """Share of right ones, 0 to 1; 1 if there was nothing to count."""
        return self.num_right / self.num_all if self.num_all else 1.0

    def line(self) -> str:
        """Return the figure as one line of the report."""
        floor = f"(floor {self.floor:.0%})" if self.floor else ""
        return f"{self.name:<58}{self.share:>7.1%}  {self.num_right:>5} / {self.num_all:<5} {floor}".rstrip()


def count(name: str, rights: Sequence[bool], floor: float = 0.0) -> Figure:
    """Return the figure of a list of right and wrong."""
    return Figure(name, sum(rights), len(rights), floor)


class Evaluation:
    """Holds both models and the held-out writer; every method measures one thing."""

    def __init__(self, knowledge: Knowledge, folder: Path = FOLDER, *, seed: int = 7, is_fast: bool = False) -> None:
        """Load the models of `folder`; `is_fast` takes a fifth of the dialogues."""
        self.knowledge = knowledge
        self.judge = Judge(knowledge)
        self.asker = Responder.asker(folder)
        self.adviser = Responder.adviser(folder)
        self._writer = DialogueWriter(knowledge, heldout=True)
        self._patient = ScriptedPatient(knowledge.general, self.judge)
        self._seed = seed
        self._every = 5 if is_fast else 1

    def run(self) -> list[Figure]:
        """Return all figures."""
        return [*self.asking(), *self.advice(), *self.follow_ups(), *self.small_talk(), *self.listening()]

    # ---- asker ---------------------------------------------------------------------------------------------------

    def plays(self, num_outside: int = 60) -> list[Play]:
        """Return self-play dialogues: each complaint with both held-out openings, and some outside the list."""
        rng = Random(f"plays-{self._seed}")
        return play(self.asker, self._cases(rng, num_outside), self._patient, is_clinical_question, self._seed)

    def asking(self) -> list[Figure]:
        """Measure the asker in self-play."""
        plays = self.plays()
        asking, fresh, fits, places, lengths = [], [], [], [], []
        for one in plays:
            asking += [number < len(one.questions) for number in range(SURELY_ASKING)]
            for number, question in enumerate(one.questions):
                owners = self.judge.nearest_question(question)
                item = one.items[number]
                fresh.append(question not in one.questions[:number] and (not item or item not in one.items[:number]))
                fits.append(any(owner in (one.case.id, GENERAL) for owner, _ in owners))
                if one.case.id == GENERAL:
                    places.append(self.judge.names_place(question, _place_of(one.case)))
            lengths.append(one.handover is not None and SURELY_ASKING <= len(one.questions) <= 6)
        return [
            count("asker: clinical question while asking", asking, 0.95),
            count("asker: not asked before in the dialogue (text and item)", fresh, 0.98),
            count("asker: question fits the complaint", fits, 0.90),
            count("asker: outside the list, names the right body part", places),
            count("asker: hands over after 3 to 6 questions", lengths),
        ]

    # ---- adviser -------------------------------------------------------------------------------------------------

    def advice(self) -> list[Figure]:
        """Measure the adviser's first advice, after any number of questions."""
        rng = Random(f"advice-{self._seed}")
        samples = [self._advice_sample(case, rng) for case in self._cases(rng, 80)]
        replies = self.adviser.answer(samples)
        listed, outside, clauses = [], [], []
        for sample, reply in zip(samples, replies, strict=True):
            assert sample.case is not None
            is_right = self.judge.department_of(reply) == sample.case.department
            if sample.case.id == GENERAL:
                outside.append(is_right)
                clauses += [self.judge.is_known_clause(clause) for clause in clauses_of(reply)]
            else:
                listed.append(is_right)
        return [
            count("adviser: names the right department", listed, 0.90),
            count("adviser: right department outside the list", outside),
            count("adviser: outside the list, clause well formed", clauses, 0.95),
        ]

    def follow_ups(self) -> list[Figure]:
        """Measure the replies to held-out questions after the advice."""
        rng = Random(f"followups-{self._seed}")
        samples = []
        for intent, entry in self.knowledge.general["followups"].items():
            for says in [*self._writer.book.split(entry["says"])] * 3:
                dialogue = self._advised(self._writer.draw_case(rng), rng)
                dialogue.add("patient", says, "followup", intent)
                dialogue.add("adviser", "", "followup", intent)
                samples.append(
                    Sample("joint", dialogue.before(len(dialogue.steps) - 1), dialogue.steps[-1], dialogue.case)
                )
        samples = samples[:: self._every]
        intents, departments = [], []
        for sample, reply in zip(samples, self.adviser.answer(samples), strict=True):
            assert sample.case is not None
            intents.append(self.judge.intent_of(reply) == sample.target.item)
            if self.judge.department_of(reply):
                departments.append(self.judge.department_of(reply) == sample.case.department)
        return [
            count("adviser: follow-up answered by its own kind of reply", intents),
            count("adviser: follow-up names the advice's department", departments),
        ]

    # ---- both ----------------------------------------------------------------------------------------------------

    def small_talk(self) -> list[Figure]:
        """Measure greetings, off-topic, foreign and senseless first messages, and emergencies."""
        general = self.knowledge.general
        entries = [(general[topic], topic) for topic in SPECIALS]
        entries += [(entry, topic) for topic, entry in general["emergencies"].items()]
        figures = []
        for name, responder in (("asker", self.asker), ("adviser", self.adviser)):
            samples, expected = [], []
            for entry, topic in entries:
                known = entry[name]
                for says in self._writer.book.split(entry["says"]):
                    dialogue = Dialogue("joint")
                    dialogue.add("patient", says, topic)
                    dialogue.add("asker" if name == "asker" else "adviser", "", topic)
                    samples.append(Sample("joint", dialogue.before(1), dialogue.steps[1], None))
                    expected.append([known] if isinstance(known, str) else known)
            replies = responder.answer(samples)
            rights = [_bare(reply) in map(_bare, known) for reply, known in zip(replies, expected, strict=True)]
            figures.append(count(f"{name}: greeting, off-topic, foreign, emergency", rights))
        return figures

    def listening(self) -> list[Figure]:
        """Measure the first reply of the listening mode to held-out worries."""
        samples, expected = [], []
        for theme in self.knowledge.soulchat["themes"]:
            for says in self._writer.book.split(theme["openings"]):
                dialogue = Dialogue("soulchat")
                dialogue.add("patient", says, "worry")
                dialogue.add("adviser", "", "listen", theme["id"])
                samples.append(Sample("soulchat", dialogue.before(1), dialogue.steps[1], None))
                expected.append(theme["first"])
        replies = self.adviser.answer(samples)
        rights = [_bare(reply) in map(_bare, known) for reply, known in zip(replies, expected, strict=True)]
        return [count("listener: reply belongs to the worry", rights)]

    # ---- dialogues to read ---------------------------------------------------------------------------------------

    def dialogues(self, number: int) -> list[str]:
        """Return self-play dialogues to read, with advice and one follow-up each."""
        rng = Random(f"read-{self._seed}")
        cases = [self._writer.draw_case(rng) for _ in range(number)]
        plays = play(self.asker, cases, self._patient, is_clinical_question, self._seed)
        texts = []
        for one in plays:
            dialogue = Dialogue("joint", list(one.steps), one.case)
            self._let_advise(dialogue)
            intent = rng.choice(list(self.knowledge.general["followups"]))
            says = rng.choice(self._writer.book.split(self.knowledge.general["followups"][intent]["says"]))
            dialogue.add("patient", says, "followup", intent)
            self._let_advise(dialogue)
            texts.append(_readable(dialogue, one))
        return texts

    def _let_advise(self, dialogue: Dialogue) -> None:
        dialogue.add("adviser", "", "advice")
        sample = Sample("joint", dialogue.before(len(dialogue.steps) - 1), dialogue.steps[-1], dialogue.case)
        dialogue.steps.pop()
        dialogue.add("adviser", self.adviser.answer([sample])[0], "advice")

    # ---- held-out material ---------------------------------------------------------------------------------------

    def _cases(self, rng: Random, num_outside: int) -> list[Case]:
        book = self._writer.book
        listed = [
            book.listed(rng, complaint, opening)
            for complaint in self.knowledge.complaints
            for opening in complaint.heldout_openings
        ]
        return [*listed, *(book.outside(rng) for _ in range(num_outside))][:: self._every]

    def _advised(self, case: Case, rng: Random) -> Dialogue:
        dialogue = Dialogue("adviser")
        self._writer.consult(dialogue, case, Typist(self.knowledge.general, rng), rng)
        return dialogue

    def _advice_sample(self, case: Case, rng: Random) -> Sample:
        dialogue = self._advised(case, rng)
        return Sample("adviser", dialogue.before(len(dialogue.steps) - 1), dialogue.steps[-1], case)


def _place_of(case: Case) -> str:
    """Return the body part a case outside the list is about, from its first question."""
    for marker in ("不舒服有多久", "不舒服"):
        if marker in case.plan[0].questions[0]:
            return case.plan[0].questions[0].split(marker)[0]
    return WHOLE_BODY


def _bare(text: str) -> str:
    """Return letters and digits only: the two tokenizers normalise marks in their own ways."""
    return "".join(character for character in text if character.isalnum())


def _readable(dialogue: Dialogue, one: Play) -> str:
    names = {"patient": "病人", "asker": "问", "adviser": "答"}
    lines = [f"--- {one.case.id} · {one.case.department} · handover: {one.handover}"]
    return "\n".join([*lines, *(f"{names[step.speaker]}：{step.text}" for step in dialogue.steps)])


def print_report(figures: Sequence[Figure], write: Callable[[str], None]) -> bool:
    """Write the figures, one a line; return whether all floors are reached."""
    for figure in figures:
        write(figure.line())
    missed = [figure.name for figure in figures if figure.share < figure.floor]
    write(f"below the floor: {', '.join(missed)}" if missed else "all floors reached")
    return not missed
