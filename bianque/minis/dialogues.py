"""Write the dialogues the demonstration models learn from; pure Python, the same seed gives the same dialogues.

A dialogue is a list of steps. What a model learns from one step is a `Sample`: the conversation before it as the
service would show it to that model, and the step's text. In joint mode the asker's handover is never shown, because
the adviser answers in its place; the asker alone does show it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from bianque.minis.cases import Case, CaseBook, pick
from bianque.minis.knowledge import Ask, Knowledge
from bianque.minis.wording import Typist

Speaker = Literal["patient", "asker", "adviser"]
SPECIALS = ("greetings", "identity", "offtopic", "foreign", "gibberish")


@dataclass(frozen=True)
class Step:
    """One utterance. `act` is what it does (`ask`, `handover`, `advice`, `followup` …), `item` what about."""

    speaker: Speaker
    text: str
    act: str
    item: str = ""
    is_hidden: bool = False


@dataclass
class Dialogue:
    """One conversation; `case` is the last complaint in it, None for small talk and the listening mode."""

    mode: Literal["joint", "asker", "adviser", "soulchat"]
    steps: list[Step] = field(default_factory=list)
    case: Case | None = None

    def add(self, speaker: Speaker, text: str, act: str, item: str = "", *, is_hidden: bool = False) -> None:
        """Append a step."""
        self.steps.append(Step(speaker, text, act, item, is_hidden))

    def before(self, index: int) -> tuple[Step, ...]:
        """Return the steps that are visible when step `index` is written."""
        return tuple(step for step in self.steps[:index] if not step.is_hidden)

    def said(self) -> set[str]:
        """Return what the models have said so far."""
        return {step.text for step in self.steps if step.speaker != "patient" and not step.is_hidden}


@dataclass(frozen=True)
class Sample:
    """What one model learns or is tested on at one point of a dialogue."""

    mode: str
    before: tuple[Step, ...]
    target: Step
    case: Case | None


class DialogueWriter:
    """Writes dialogues; with `heldout` only from wordings that training never sees."""

    def __init__(self, knowledge: Knowledge, *, heldout: bool = False, opening_weight: float = 2.0) -> None:
        """Prepare; a reply to an opening is drawn `opening_weight` times as often as one to an answer."""
        self.knowledge = knowledge
        self.general = knowledge.general
        self.book = CaseBook(knowledge, heldout=heldout)
        self._opening_weight = opening_weight

    # ---- samples -------------------------------------------------------------------------------------------------

    def asker_sample(self, rng: Random) -> Sample:
        """Return one sample for the asker."""
        dialogue = self.dialogue(rng, "asker" if rng.random() < 0.2 else "joint")
        return self._sample(rng, dialogue, "asker")

    def adviser_sample(self, rng: Random) -> Sample:
        """Return one sample for the adviser, the listening mode included."""
        chance = rng.random()
        mode: Literal["soulchat", "adviser", "joint"] = (
            "soulchat" if chance < 0.15 else "adviser" if chance < 0.8 else "joint"
        )
        return self._sample(rng, self.dialogue(rng, mode), "adviser")

    def _sample(self, rng: Random, dialogue: Dialogue, speaker: Speaker) -> Sample:
        places = [index for index, step in enumerate(dialogue.steps) if step.speaker == speaker]
        weights = [self._weight(dialogue, index) for index in places]
        index = rng.choices(places, weights)[0]
        return Sample(dialogue.mode, dialogue.before(index), dialogue.steps[index], dialogue.case)

    def _weight(self, dialogue: Dialogue, index: int) -> float:
        """Return how often a step is drawn: what depends on the opening alone is the hardest to learn, and short."""
        if dialogue.steps[index].act == "advice":
            return 2.5
        return self._opening_weight if dialogue.steps[index - 1].act == "opening" else 1.0

    # ---- dialogues -----------------------------------------------------------------------------------------------

    def dialogue(self, rng: Random, mode: Literal["joint", "asker", "adviser", "soulchat"]) -> Dialogue:
        """Return a whole dialogue; every model the mode names speaks at least once in it."""
        typist = Typist(self.general, rng)
        dialogue = Dialogue(mode)
        if mode == "soulchat":
            from bianque.minis.listening import write_listening

            write_listening(dialogue, self.knowledge, self.book, typist, rng)
            return dialogue
        if rng.random() < 0.12:
            self._small_talk(dialogue, typist, rng)
            if mode != "joint" and rng.random() < 0.5:
                return dialogue
        elif rng.random() < 0.035:
            self._emergency(dialogue, typist, rng)
            return dialogue
        case = self.draw_case(rng)
        self.consult(dialogue, case, typist, rng)
        if mode == "asker":
            self._after_handover(dialogue, case, typist, rng)
        else:
            self._follow_up(dialogue, case, typist, rng)
        return dialogue

    def draw_case(self, rng: Random) -> Case:
        """Return a case; three in ten are outside the list of complaints."""
        return self.book.outside(rng) if rng.random() < 0.3 else self.book.listed(rng)

    def consult(self, dialogue: Dialogue, case: Case, typist: Typist, rng: Random) -> None:
        """Write opening, questions and answers, then handover and advice as the mode has them."""
        dialogue.case = case
        dialogue.add("patient", typist.write(case.opening), "opening")
        answered = set(case.answered)
        limit = len(case.plan)
        if dialogue.mode == "adviser":
            limit = rng.choice((0, 0, 0, 0, 0, 0, 1, 2, 3, 5))
        num_asked = 0
        for position, ask in enumerate(case.plan):
            if ask.item in answered:
                continue
            if num_asked == limit:
                break
            dialogue.add("asker", pick(rng, ask.questions), "ask", ask.item)
            num_asked += 1
            following = case.plan[position + 1] if position + 1 < len(case.plan) else None
            reply, extra, is_urging = self._answer(rng, ask, following)
            dialogue.add("patient", typist.write(reply), "answer", ask.item)
            answered.update(extra)
            if is_urging:
                break
        if dialogue.mode != "adviser":
            handover = pick(rng, self.general["handovers"]).format(department=case.department)
            dialogue.add("asker", handover, "handover", is_hidden=dialogue.mode == "joint")
        if dialogue.mode != "asker":
            dialogue.add("adviser", self.advice(dialogue, case, rng), "advice")

    def _answer(self, rng: Random, ask: Ask, following: Ask | None) -> tuple[str, set[str], bool]:
        """Return a patient's answer, the further items it answers, and whether the patient wants no more questions."""
        chance = rng.random()
        if chance < 0.03:
            return rng.choice(self.general["urges"]), set(), True
        if chance < 0.1:
            return rng.choice(self.general["evasions"]), set(), False
        answer = rng.choice(ask.answers)
        if chance < 0.14:
            return f"{answer}，{rng.choice(self.general['interjections'])}", set(), False
        if chance < 0.24 and following is not None:
            telling = [
                text for text in following.answers if len(text) > 4 and not re.search("没注意|不清|说不|记不", text)
            ]
            if telling:
                return f"{answer}，{rng.choice(telling)}", {following.item}, False
        return answer, set(), False

    def advice(self, dialogue: Dialogue, case: Case, rng: Random) -> str:
        """Return the advice for what has been said so far."""
        general = self.general
        said = "\n".join(step.text for step in dialogue.steps if step.speaker == "patient")
        frames = general["advice_frames"]
        care = case.self_care
        first, second, third = sorted(rng.sample(range(len(care)), 3)) if rng.random() < 0.2 else (0, 1, 2)
        slots = {"department": case.department, "checks": case.checks}
        is_long = re.search(general["long_pattern"], said) is not None
        w1, w2, w3 = case.warning_signs
        return "".join(
            (
                pick(rng, general["advice_intros"]) + case.name + case.causes + "。",
                f"建议您{care[first]}；{care[second]}；{care[third]}。",
                frames["long"] if is_long else "",
                (pick(rng, frames["visit"]) + pick(rng, frames["tests"])).format(**slots) + "。",
                pick(rng, frames["warning"]).format(w1=w1, w2=w2, w3=w3),
            )
        )

    def _follow_up(self, dialogue: Dialogue, case: Case, typist: Typist, rng: Random) -> None:
        """Write up to three questions after the advice and the adviser's replies."""
        intents = rng.sample(list(self.general["followups"]), rng.choice((0, 1, 1, 2, 2, 3)))
        for intent in intents:
            chance = rng.random()
            if chance < 0.08:
                self._small_talk(dialogue, typist, rng, after_advice=True)
            elif chance < 0.16:
                case = self.draw_case(rng)
                opening = rng.choice(self.general["new_complaint"]).format(opening=case.opening)
                dialogue.case = case
                dialogue.add("patient", typist.write(opening), "opening")
                dialogue.add("adviser", self.advice(dialogue, case, rng), "advice")
            says = rng.choice(self.book.split(self.general["followups"][intent]["says"]))
            if rng.random() < 0.25:
                says = rng.choice(self.general["followup_prefixes"]) + says
            dialogue.add("patient", typist.write(says), "followup", intent)
            dialogue.add("adviser", self.follow_up_reply(case, intent, rng), "followup", intent)

    def follow_up_reply(self, case: Case, intent: str, rng: Random) -> str:
        """Return the adviser's reply to a question after the advice."""
        template = pick(rng, self.general["followups"][intent]["replies"])
        return template.format(
            name=case.name,
            department=case.department,
            checks=case.checks,
            diet=case.diet,
            cause=case.causes,
            warning=case.warning_signs[0],
            warning2=case.warning_signs[1],
            care=case.self_care[0],
            care2=case.self_care[1],
        )

    def _after_handover(self, dialogue: Dialogue, case: Case, typist: Typist, rng: Random) -> None:
        """Go on after the handover when only the asker speaks: thanks, a question it passes on, or a new complaint."""
        closings = self.general["asker_closings"]
        chance = rng.random()
        if chance < 0.3:
            thanks = self.book.split(self.general["followups"]["thanks"]["says"])
            dialogue.add("patient", typist.write(rng.choice(thanks)), "followup", "thanks")
            dialogue.add("asker", closings["thanks"], "closing", "thanks")
        elif chance < 0.65:
            intent = rng.choice([name for name in self.general["followups"] if name != "thanks"])
            says = self.book.split(self.general["followups"][intent]["says"])
            dialogue.add("patient", typist.write(rng.choice(says)), "followup", intent)
            dialogue.add("asker", closings["other"].format(department=case.department), "closing", intent)
        elif chance < 0.85:
            self.consult(dialogue, self.draw_case(rng), typist, rng)

    def _small_talk(self, dialogue: Dialogue, typist: Typist, rng: Random, *, after_advice: bool = False) -> None:
        """Write a greeting, an off-topic, foreign or senseless message, or thanks, and the reply to it."""
        topic = rng.choices((*SPECIALS, "thanks"), (40, 12, 18, 16, 10, 4))[0]
        if topic == "thanks":
            entry = self.general["followups"]["thanks"]
            by_asker, by_adviser = [self.general["asker_closings"]["thanks"]], entry["replies"][0]
        else:
            entry = self.general[topic]
            by_asker, by_adviser = entry["asker"], entry["adviser"]
        message = rng.choice(self.book.split(entry["says"]))
        dialogue.add("patient", message if topic in ("foreign", "gibberish") else typist.write(message), topic)
        if dialogue.mode == "adviser" or after_advice:
            dialogue.add("adviser", by_adviser, topic)
        else:
            fresh = [reply for reply in by_asker if reply not in dialogue.said()]
            dialogue.add("asker", (fresh or by_asker)[0], topic)

    def _emergency(self, dialogue: Dialogue, typist: Typist, rng: Random) -> None:
        """Write an emergency; both models send the patient to help at once."""
        entry = self.general["emergencies"][rng.choice(("medical", "medical", "crisis"))]
        if rng.random() < 0.25:
            dialogue.add("patient", typist.write(self.draw_case(rng).opening), "opening")
            dialogue.add("asker", self.general["greetings"]["asker"][1], "ask", "opening")
        dialogue.add("patient", typist.write(rng.choice(self.book.split(entry["says"]))), "emergency")
        if dialogue.mode != "adviser":
            dialogue.add("asker", entry["asker"], "emergency", is_hidden=dialogue.mode == "joint")
        if dialogue.mode != "asker":
            dialogue.add("adviser", entry["adviser"], "emergency")


def samples(writer: DialogueWriter, speaker: Literal["asker", "adviser"], seed: int | str) -> Iterator[Sample]:
    """Yield samples without end; the n-th depends on `seed` and n only, so any part can be made again."""
    number = 0
    while True:
        rng = Random(f"{speaker}-{seed}-{number}")
        yield writer.asker_sample(rng) if speaker == "asker" else writer.adviser_sample(rng)
        number += 1
