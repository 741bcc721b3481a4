from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from bianque.consultation.questions import QuestionKind, classify, is_clinical_question, original_is_question

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "questions.tsv"
SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples" / "question_labels.tsv"


def read_rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [{**row, "label": row["label"].replace("question", "clinical")} for row in rows]


def f1_score(rows, detector):
    outcomes = Counter((row["label"] == "clinical", detector(row["utterance"])) for row in rows)
    hits = outcomes[True, True]
    return 2 * hits / (2 * hits + outcomes[True, False] + outcomes[False, True])


def print_report(rows, title):
    print(f"\n{title}: {len(rows)} utterances")
    for stratum in sorted({row.get("stratum", "all") for row in rows}):
        part = [row for row in rows if row.get("stratum", "all") == stratum]
        wrong = sum((row["label"] == "clinical") != is_clinical_question(row["utterance"]) for row in part)
        print(f"  stratum {stratum}: {len(part)} utterances, {wrong} wrong")
    confusions = Counter((row["label"], classify(row["utterance"]).value) for row in rows)
    print("  (label, answer):", dict(sorted(confusions.items())))
    print(f"  F1 {f1_score(rows, is_clinical_question):.3f}, original {f1_score(rows, original_is_question):.3f}")


def test_own_sentences():
    rows = read_rows(FIXTURE)
    assert len(rows) >= 150
    print_report(rows, "own sentences")
    assert f1_score(rows, is_clinical_question) >= 0.95


def test_kinds_of_own_sentences():
    rows = read_rows(FIXTURE)
    # Kinds matter less than question or not, but a closing taken for a statement would hide a dead rule.
    assert sum(row["label"] == classify(row["utterance"]) for row in rows) >= 0.95 * len(rows)


def test_labelled_real_utterances():
    if not SAMPLES.exists():
        pytest.skip("sample data is not beside this checkout")
    rows = read_rows(SAMPLES)
    assert len(rows) == 158
    print_report(rows, "labelled real utterances")
    assert f1_score(rows, is_clinical_question) >= 0.92
    assert f1_score(rows, original_is_question) < 0.8


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", QuestionKind.NONE),
        ("？", QuestionKind.NONE),
        ("还有其他问题吗？", QuestionKind.CLOSING),
        ("多喝水。还有别的问题吗？", QuestionKind.CLOSING),
        ("多喝水。还有别的问题吗？大便正常吗？", QuestionKind.CLINICAL),
        ("还有没有别的症状", QuestionKind.CLINICAL),
        ("脸上有吗", QuestionKind.CLINICAL),
        ("看看有没有红肿", QuestionKind.NONE),
        ("有没有红肿", QuestionKind.CLINICAL),
        ("消炎药还是要吃的", QuestionKind.NONE),
        ("是怕冷还是怕热", QuestionKind.CLINICAL),
        ("过几天再看", QuestionKind.NONE),
        ("几天了", QuestionKind.CLINICAL),
        ("可以提高受孕几率", QuestionKind.NONE),
        ("吗丁啉饭前吃", QuestionKind.NONE),
    ],
)
def test_kind_of_utterance(text, kind):
    assert classify(text) is kind


def test_long_text_is_judged_quickly():
    # Nested repetition in a rule would make this take minutes instead of milliseconds.
    assert classify("头痛而且恶心" * 3000) is QuestionKind.NONE
    assert classify("是" * 5000) is QuestionKind.NONE
