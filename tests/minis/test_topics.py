"""The second task of the demonstration models' training."""

from __future__ import annotations

from random import Random

import pytest
import torch

from bianque.minis.dialogues import DialogueWriter, Step, samples
from bianque.minis.knowledge import load_knowledge
from bianque.minis.topics import TopicHeads


@pytest.fixture(scope="module")
def knowledge():
    return load_knowledge()


@pytest.fixture
def heads(knowledge):
    return TopicHeads(knowledge, 8)


def test_question_and_handover_are_told_apart_and_so_are_complaints(heads):
    steps = [
        Step("asker", "多久了？", "ask", "duration", subject="cough"),
        Step("asker", "有没有发烧？", "ask", "fever", subject="cough"),
        Step("asker", "睡不着多久了？", "ask", "duration", subject="insomnia"),
        Step("asker", "好的", "handover", subject="cough"),
        Step("asker", "您好", "greetings"),
    ]
    assert len({heads.classes_of(step) for step in steps}) == len(steps)
    assert heads.classes_of(steps[0])[0] == heads.classes_of(steps[3])[0]


@pytest.mark.parametrize("speaker", ["asker", "adviser"])
def test_hardly_any_sample_is_without_a_class(heads, knowledge, speaker):
    writer = DialogueWriter(knowledge)
    classes = [
        heads.classes_of(sample.target) for sample, _ in zip(samples(writer, speaker, 3), range(300), strict=False)
    ]
    assert sum(kind == 0 for _, kind in classes) < 15


def test_step_is_about_the_complaint_the_dialogue_has_come_to(knowledge):
    writer = DialogueWriter(knowledge)
    for number in range(40):
        dialogue = writer.dialogue(Random(number), "joint")
        subjects = [step.subject for step in dialogue.steps]
        opening = next((index for index, step in enumerate(dialogue.steps) if step.act == "opening"), len(subjects))
        assert not any(subjects[:opening])
        if dialogue.case:
            assert subjects[-1] == dialogue.case.id


def test_padding_does_not_count(heads):
    with torch.no_grad():
        for value in heads.parameters():
            value.uniform_(-1, 1)
    states, topics = torch.randn(2, 5, 8), torch.tensor([[1, 2], [3, 4]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    changed = states.clone()
    changed[0, 3:] = 100.0
    assert heads.loss(states, mask, topics) == heads.loss(changed, mask, topics)
    assert heads.loss(states, torch.ones_like(mask), topics) != heads.loss(changed, torch.ones_like(mask), topics)
