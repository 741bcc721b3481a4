"""The figures of a corpus, by hand on three dialogues."""

from __future__ import annotations

import pytest

from bianque.consultation.messages import Message, Role
from bianque.corpus.records import Dialogue
from bianque.corpus.statistics import markdown, measure, read_dialogues
from bianque.errors import DataError


def dialogue(source: str, *replies: str) -> Dialogue:
    messages = [part for reply in replies for part in (Message(Role.USER, "痛"), Message(Role.ASSISTANT, reply))]
    return Dialogue(source, "1", tuple(messages))


ASK, ADVISE, CLOSE = "有没有发烧？", "多喝水。", "还有其他问题吗？"


def test_questions_chains_turns_and_lengths_are_counted():
    figures = measure(
        [
            dialogue("a", ASK, ASK, ADVISE, ASK, ASK, ASK, ADVISE),
            dialogue("a", ADVISE, ASK, CLOSE),
            dialogue("b", ASK),
        ]
    )
    stored = figures["a"].to_json()
    assert stored["targets"] == {"clinical": 6, "none": 3, "closing": 1}
    assert stored["question_share"] == 0.6
    assert stored["chain_of_questioning_counts"] == {"0": 1, "2": 1}
    assert stored["chain_of_questioning"]["mean"] == 1.0
    assert stored["longest_chain"]["max"] == 3
    assert stored["turns"] == {"mean": 5.0, "p50": 3, "p90": 7, "p99": 7, "max": 7}
    assert stored["patient_chars"]["max"] == 1
    assert stored["target_chars"]["p50"] == 6
    assert figures["b"].to_json()["question_share"] == 1.0
    assert markdown(figures).count("\n| ") == 3  # rule and two sources


def test_a_line_that_is_no_dialogue_is_named(tmp_path):
    path = tmp_path / "dialogues.jsonl"
    for wrong in (b'{"source": "a"}', b"{", b"[" * 100_000, '{"source": "\u75c5"}'.encode("gb18030")):
        path.write_bytes(b'{"source": "a", "id": "1", "messages": []}\n' + wrong + b"\n")
        with pytest.raises(DataError, match="Line 2 of"):
            list(read_dialogues(path))
