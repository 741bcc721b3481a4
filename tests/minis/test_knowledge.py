from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import yaml

from bianque.errors import KnowledgeError
from bianque.minis.knowledge import DOSE, FOLDER, ITEMS, NUM_HELDOUT, load_knowledge


def test_there_are_enough_complaints_and_departments():
    complaints = load_knowledge().complaints
    assert len(complaints) >= 80
    assert len({complaint.department for complaint in complaints}) >= 12


def test_no_opening_belongs_to_two_complaints():
    openings = [opening for complaint in load_knowledge().complaints for opening in complaint.openings]
    assert len(set(openings)) == len(openings)


def test_no_file_holds_a_dose():
    for text in load_knowledge().texts():
        assert not DOSE.search(text), text


@pytest.mark.parametrize("sentence", ["每次吃2片", "布洛芬 200mg", "一天三次口服", "吃一片就行", "5毫升"])
def test_doses_are_recognised(sentence):
    assert DOSE.search(sentence)


@pytest.mark.parametrize("sentence", ["起了一片红疹", "一粒一粒的小疙瘩", "一天拉三次", "量体温38度"])
def test_other_numbers_are_not_doses(sentence):
    assert not DOSE.search(sentence)


def test_no_phrase_gives_a_heldout_wording_away():
    knowledge = load_knowledge()
    for complaint in knowledge.complaints:
        assert not set(complaint.heldout_openings) & set(complaint.phrases.signs)
    lists = [theme["openings"] for theme in knowledge.soulchat["themes"]]
    lists += [entry["says"] for entry in knowledge.general["followups"].values()]
    for wordings in lists:
        assert not set(wordings[-NUM_HELDOUT:]) & set(wordings[:-NUM_HELDOUT])


def test_no_sign_belongs_to_two_complaints():
    signs = [sign for complaint in load_knowledge().complaints for sign in complaint.phrases.signs]
    assert [sign for sign, number in Counter(signs).items() if number > 1] == []


def test_the_asker_asks_in_the_same_order_whatever_the_complaint():
    for complaint in load_knowledge().complaints:
        places = [ITEMS.index(ask.item) for ask in complaint.plan]
        assert places == sorted(places)


def _copy(folder: Path, change=lambda entry: None, change_phrases=lambda entry: None) -> Path:
    """Copy one complaint file and the special files, with the changes applied to the first complaint."""
    (folder / "phrases").mkdir()
    content = yaml.safe_load((FOLDER / "cardiology.yaml").read_text("utf-8"))
    change(content["complaints"][0])
    (folder / "cardiology.yaml").write_text(yaml.safe_dump(content, allow_unicode=True), "utf-8")
    phrases = yaml.safe_load((FOLDER / "phrases" / "cardiology.yaml").read_text("utf-8"))
    change_phrases(phrases[content["complaints"][0]["id"]])
    (folder / "phrases" / "cardiology.yaml").write_text(yaml.safe_dump(phrases, allow_unicode=True), "utf-8")
    further = ("_followups", "_free_openings", "_small_talk", "_soulchat")
    special = ("_general", "_soulchat", *(f"phrases/{name}" for name in further))
    for name in special:
        (folder / f"{name}.yaml").write_bytes((FOLDER / f"{name}.yaml").read_bytes())
    return folder


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda entry: entry.pop("diet"), "keys must be"),
        (lambda entry: entry.update(population="cat"), "population"),
        (lambda entry: entry.update(openings=entry["openings"][:9]), "10 different openings"),
        (lambda entry: entry["asks"].__delitem__(slice(5, None)), "6 to 8 asks"),
        (lambda entry: entry["self_care"].append("多休息"), "5 self_care"),
        (lambda entry: entry.update(causes="是感冒引起的"), "causes must start"),
        (lambda entry: entry["asks"][1].update(item="duration"), "items must be different"),
        (lambda entry: entry["self_care"].__setitem__(0, "每次吃2片药"), "a dose"),
    ],
)
def test_an_invalid_file_is_named_with_the_rule_it_breaks(tmp_path, change, reason):
    with pytest.raises(KnowledgeError, match=reason):
        load_knowledge(_copy(tmp_path, change))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda entry: entry.pop("also"), "signs, scenes, also"),
        (lambda entry: entry["signs"].append(38), "signs must be strings"),
        (lambda entry: entry["scenes"].append(entry["scenes"][0]), "scenes must be different"),
    ],
)
def test_invalid_phrases_are_named_with_the_rule_they_break(tmp_path, change, reason):
    with pytest.raises(KnowledgeError, match=reason):
        load_knowledge(_copy(tmp_path, change_phrases=change))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(KnowledgeError, match=r"_general\.yaml"):
        load_knowledge(tmp_path)
