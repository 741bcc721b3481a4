"""Red flags on labelled sentences written for this project, and the guards one by one.

The columns of the set: `dev` was written before the rules; `heldout` after them, and the rules were then widened by
what it showed (before: 8 of 42 signs found, 3 false alarms in 34); `fresh` after that (before the last corrections: 21
of 22 signs found, 2 false alarms in 18).
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bianque.consultation.messages import Message, Role
from bianque.consultation.red_flags import Emergency, find_emergency, find_in_text

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "red_flags.tsv"
SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"


def read_rows():
    with FIXTURE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def kind_of(sentence: str) -> str:
    found = find_in_text(sentence)
    return "none" if found is None else "medical" if found is Emergency.MEDICAL else "crisis"


def test_labelled_sentences():
    rows = read_rows()
    assert len(rows) >= 180 and len({row["sentence"] for row in rows}) == len(rows)
    for name in ("dev", "heldout", "fresh"):
        part = [row for row in rows if row["set"] == name]
        misses = [row["sentence"] for row in part if row["label"] != "none" and kind_of(row["sentence"]) == "none"]
        alarms = [row["sentence"] for row in part if row["label"] == "none" and kind_of(row["sentence"]) != "none"]
        print(f"{name}: {len(part)} sentences, {len(misses)} misses {misses}, {len(alarms)} false alarms {alarms}")
    for label in ("crisis", "medical"):
        signs = [row for row in rows if row["label"] == label]
        found = sum(kind_of(row["sentence"]) == label for row in signs)
        assert found >= 0.97 * len(signs), label
    harmless = [row for row in rows if row["label"] == "none"]
    assert sum(kind_of(row["sentence"]) != "none" for row in harmless) <= 0.03 * len(harmless)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("没有抽搐", None),
        ("孩子抽搐了", Emergency.MEDICAL),
        ("以前昏迷过", None),
        ("昏迷了", Emergency.MEDICAL),
        ("怎么预防煤气中毒", None),
        ("煤气中毒了怎么办", Emergency.MEDICAL),
        ("癫痫发作的时候口吐白沫，吃什么药好", None),
        ("癫痫发作十分钟了，还在口吐白沫", Emergency.MEDICAL),
        ("我不想死", None),
        ("怎样才能结束这一切", Emergency.CRISIS),
        ("我朋友说他想自杀", Emergency.OTHER_PERSON),
        ("我老公不理我，我不想活了", Emergency.CRISIS),
        ("累死了", None),
        ("", None),
    ],
)
def test_negation_past_topic_and_person(text, expected):
    assert find_in_text(text) == expected


def test_every_patient_message_counts_and_the_newest_sign_decides():
    def conversation(*texts):
        roles = (Role.USER, Role.ASSISTANT)
        return [Message(roles[index % 2], text) for index, text in enumerate(texts)]

    assert find_emergency(conversation("咳嗽", "有没有胸痛，呼吸困难？", "没有")) is None
    assert find_emergency(conversation("我不想活了", "您多久了？", "三天")) is Emergency.CRISIS
    assert find_emergency(conversation("我不想活了", "您在哪里？", "我吐血了，大口吐血")) is Emergency.MEDICAL
    assert find_emergency([]) is None


def test_a_crisis_goes_before_a_medical_sign():
    assert find_in_text("我割腕了，血止不住") is Emergency.CRISIS


def test_long_input_is_quick():
    # A pattern that backtracks badly would not come back within the suite's time limit.
    assert find_in_text("胸口" * 5000 + "疼") in (None, Emergency.MEDICAL)


def test_real_first_messages_seldom_alarm():
    path = SAMPLES / "toyhom_internal_medicine.gb18030.csv"
    if not path.exists():
        pytest.skip("sample data is not beside this checkout")
    with path.open(encoding="gb18030", newline="") as file:
        texts = [row["title"] + "。" + row["ask"] for row in csv.DictReader(file)]
    alarms = sum(find_in_text(text) is not None for text in texts)
    print(f"{alarms} alarms in {len(texts)} first messages of an internal-medicine set")
    assert alarms <= 0.03 * len(texts)
