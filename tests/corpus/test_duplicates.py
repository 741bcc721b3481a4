"""Exact and near duplicates are found, whatever their marks; different dialogues stay."""

from __future__ import annotations

import random

import pytest

from bianque.consultation.messages import Message, Role
from bianque.corpus.duplicates import DuplicateFinder
from bianque.corpus.records import Dialogue, samples_of


@pytest.fixture
def finder(tmp_path):
    with DuplicateFinder(tmp_path / "seen") as finder:
        yield finder


def dialogue(text: str) -> Dialogue:
    return Dialogue("user", "1", (Message(Role.USER, text), Message(Role.ASSISTANT, "好的")))


def letters(seed: int, length: int = 300) -> str:
    rng = random.Random(seed)
    return "".join(chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(length))


def test_the_same_letters_are_an_exact_duplicate(finder):
    assert finder.check(dialogue("咳嗽3天，有痰。")) is None
    assert finder.check(dialogue("咳嗽 ３ 天有痰！")) == "exact_duplicates"
    assert finder.check(dialogue("咳嗽4天，有痰。")) is None


def test_a_few_changed_letters_are_a_near_duplicate(finder):
    text = letters(1)
    assert finder.check(dialogue(text)) is None
    assert finder.check(dialogue(text[:150] + "改" + text[151:])) == "near_duplicates"
    assert finder.check(dialogue(text[:150] + letters(2, 150))) is None  # half is another text


def test_many_different_dialogues_all_stay_and_their_copies_all_go(finder):
    # 300 letters drawn from 20,000: two texts share no shingle; a copy with one letter changed shares 97 % of them.
    texts = [letters(seed) for seed in range(200)]
    assert [finder.check(dialogue(text)) for text in texts] == [None] * 200
    changed = [text[:100] + "改" + text[101:] for text in texts]
    assert [finder.check(dialogue(text)) for text in changed] == ["near_duplicates"] * 200


def test_a_dialogue_that_goes_on_with_an_earlier_one_stays(finder):
    beginning = dialogue(letters(1))
    further = beginning.with_messages(
        [*beginning.messages, Message(Role.USER, "没有"), Message(Role.ASSISTANT, "多喝水")]
    )
    near = further.with_messages([Message(Role.USER, "改" + letters(1)), *further.messages[1:]])
    assert [finder.check(one) for one in (beginning, further)] == [None, None]
    assert finder.check(near) == "near_duplicates"
    assert [finder.is_new_sample(sample) for sample in samples_of(beginning)] == [True]
    assert [finder.is_new_sample(sample) for sample in samples_of(further)] == [False, True]


def test_short_dialogues_are_only_compared_exactly(finder):
    # 20 letters and the reply's two: with one changed the shingles are 0.89 alike.
    for seed in range(20):
        text = letters(seed, 20)
        assert [finder.check(dialogue(one)) for one in (text, "改" + text[1:])] == [None, None]


def test_what_is_only_alike_stays(finder):
    """Similarity 0.62 is five standard errors below 0.85; of 20 such pairs some share a band, and none is dropped."""
    for seed in range(20):
        text = letters(seed)
        assert finder.check(dialogue(text)) is None
        assert finder.check(dialogue(text[:230] + letters(seed + 1000, 70))) is None


def test_each_kind_can_be_left_out(tmp_path):
    text = letters(3)
    with DuplicateFinder(tmp_path / "near", ("near_duplicates",)) as finder:
        assert [finder.check(dialogue(text)) for _ in range(2)] == [None, "near_duplicates"]
    with DuplicateFinder(tmp_path / "exact", ("exact_duplicates",)) as finder:
        assert finder.check(dialogue(text)) is None
        assert finder.check(dialogue(text[:-1])) is None
    with DuplicateFinder(tmp_path / "none", ()) as finder:
        assert [finder.check(dialogue(text)) for _ in range(2)] == [None, None]
