from __future__ import annotations

from itertools import islice, pairwise
from random import Random

import pytest

from bianque.consultation.messages import Message, Role
from bianque.consultation.templates import SOULCHAT, render
from bianque.minis.cases import GENERAL
from bianque.minis.dialogues import DialogueWriter, Sample, Step, samples
from bianque.minis.knowledge import load_knowledge
from bianque.minis.prompts import prompt_of

MODES = ("joint", "asker", "adviser", "soulchat")


@pytest.fixture(scope="module")
def writer():
    return DialogueWriter(load_knowledge())


@pytest.fixture(scope="module")
def dialogues(writer):
    return [writer.dialogue(Random(f"{mode}-{number}"), mode) for mode in MODES for number in range(500)]


def test_the_same_seed_gives_the_same_samples(writer):
    first, second = (list(islice(samples(writer, "asker", 3), 50)) for _ in range(2))
    assert first == second
    assert first != list(islice(samples(writer, "asker", 4), 50))


def test_a_quarter_of_the_dialogues_open_with_complaints_outside_the_list(dialogues):
    cases = [dialogue.case for dialogue in dialogues if dialogue.case is not None]
    assert sum(case.id == GENERAL for case in cases) / len(cases) >= 0.25


def test_no_item_is_asked_twice_or_after_the_opening_told_it(dialogues):
    for dialogue in dialogues:
        openings = [index for index, step in enumerate(dialogue.steps) if step.act == "opening"]
        for start, end in pairwise([*openings, None]):
            items = [step.item for step in dialogue.steps[start:end] if step.act == "ask" and step.item != "opening"]
            assert len(set(items)) == len(items) <= 6
    told = [dialogue for dialogue in dialogues if dialogue.case and "duration" in dialogue.case.answered]
    assert told
    for dialogue in told:
        last = max(index for index, step in enumerate(dialogue.steps) if step.act == "opening")
        assert all(step.item != "duration" for step in dialogue.steps[last:] if step.act == "ask")


def test_the_asker_hands_over_with_a_statement_that_joint_mode_hides(dialogues):
    handovers = [(d.mode, step) for d in dialogues for step in d.steps if step.act == "handover"]
    assert handovers
    for mode, step in handovers:
        assert not step.text.endswith("？")
        assert step.is_hidden == (mode == "joint")


def test_advice_names_the_department_and_is_never_a_question(dialogues):
    for dialogue in dialogues:
        if dialogue.mode == "soulchat":
            continue
        for step in dialogue.steps:
            if step.act == "advice":
                assert "？" not in step.text
        last = [step for step in dialogue.steps if step.act == "advice"]
        if last and dialogue.case:
            assert dialogue.case.department in last[-1].text


def test_no_slot_is_left_open(dialogues):
    for dialogue in dialogues:
        for step in dialogue.steps:
            assert "{" not in step.text, step
            assert step.text.strip(), dialogue.steps


def test_heldout_openings_never_reach_training(writer):
    heldout = {opening for complaint in writer.knowledge.complaints for opening in complaint.heldout_openings}
    for speaker in ("asker", "adviser"):
        for sample in islice(samples(writer, speaker, 1), 2000):
            opened = "".join(step.text for step in sample.before if step.speaker == "patient")
            assert not any(opening in opened for opening in heldout)


def test_heldout_pairs_and_free_wordings_are_disjoint_from_training(writer):
    other = DialogueWriter(writer.knowledge, heldout=True)
    assert not set(writer.book._pairs) & set(other.book._pairs)
    assert not set(writer.book._free) & set(other.book._free)
    assert len(other.book._pairs) > 100


def test_prompts_are_those_of_the_consultation():
    before = (
        Step("patient", "头痛\n三天了", "opening"),
        Step("asker", "疼得厉害吗？", "ask"),
        Step("patient", "还行", "answer"),
    )
    messages = [
        Message(Role.USER, "头痛\n三天了"),
        Message(Role.ASSISTANT, "疼得厉害吗？"),
        Message(Role.USER, "还行"),
    ]
    advice = Sample("joint", before, Step("adviser", "", "advice"), None)
    question = Sample("joint", before, Step("asker", "", "ask"), None)
    assert prompt_of(advice) == render(messages) == "病人：头痛\n三天了\n医生：疼得厉害吗？\n病人：还行\n医生："
    assert prompt_of(question) == r"病人：头痛\n三天了\n医生：疼得厉害吗？\n病人：还行\n医生："
    listening = Sample("soulchat", before, Step("adviser", "", "listen"), None)
    assert prompt_of(listening) == render(messages, SOULCHAT)


def test_people_write_in_many_ways(writer):
    texts = [sample.before[0].text for sample in islice(samples(writer, "asker", 2), 1000)]
    assert any("\n" in text for text in texts)
    assert any("," in text for text in texts)
    assert any("，" in text for text in texts)
    assert sum(not any(mark in text for mark in "，。？！,?!") for text in texts) > 100
