"""Whole runs: kept when they break off, taken over when finished, compared by mode."""

from __future__ import annotations

import json

import pytest

from bianque.consultation.messages import Mode, Role
from bianque.errors import DataError, ModelUnavailableError
from bianque.evaluation.results import Results
from bianque.evaluation.runs import RunOptions, heldout_samples, run_free, run_modes
from bianque.minis.knowledge import load_knowledge
from tests.evaluation.fakes import FakeResponder

OPTIONS = RunOptions("the command")
MODES = (Mode.ASKER, Mode.ADVISER, Mode.JOINT)


@pytest.fixture(scope="module")
def knowledge():
    return load_knowledge()


def ask_once(messages):
    return "这样有多久了？" if len(messages) == 1 else "多喝水。"


def test_every_mode_is_run_both_ways_and_compared(tmp_path, knowledge):
    samples = heldout_samples(knowledge, 6)
    responder = FakeResponder(ask_once)
    text = run_modes(responder, MODES, samples, "held-out", knowledge, 3, tmp_path, OPTIONS)
    for kind, number in (("teacher-forced", 6), ("free", 3)):
        runs = [Results.read(tmp_path / kind / name) for name in ("asker", "adviser", "joint")]
        assert [run.counts["all"] for run in runs] == [number] * 3
        assert [run.run["models"]["fake"]["name"] for run in runs] == [mode.value for mode in MODES]
        stored = json.loads((tmp_path / kind / "comparison.json").read_text("utf-8"))
        assert [run["name"] for run in stored] == ["asker", "adviser", "joint"]
        assert (tmp_path / kind / "comparison.png").exists()
    assert "| all | asker (6) | adviser (6) | joint (6) |" in text and "| PQA F1 |" in text
    assert "| all | asker (3) | adviser (3) | joint (3) |" in text and "| items covered |" in text
    asked = len(responder.asked)
    assert run_modes(responder, MODES, samples, "held-out", knowledge, 3, tmp_path, OPTIONS) == text
    assert len(responder.asked) == asked  # everything was there


def test_modes_that_broke_off_go_on_where_they_stopped(tmp_path, knowledge):
    samples = heldout_samples(knowledge, 4)
    left = [5]

    def breaking(messages):
        left[0] -= 1
        if not left[0]:
            raise ModelUnavailableError("model_loading", name="x")
        return "多喝水。"

    with pytest.raises(ModelUnavailableError):
        run_modes(FakeResponder(breaking), MODES, samples, "held-out", knowledge, 2, tmp_path, OPTIONS)
    responder = FakeResponder(lambda messages: "多喝水。")
    run_modes(responder, MODES, samples, "held-out", knowledge, 2, tmp_path, OPTIONS)
    # All 18 replies but the 4 of the first mode that were kept.
    assert len(responder.asked) == 3 * (4 + 2) - 4


def test_another_free_run_is_not_taken_over(tmp_path, knowledge):
    responder = FakeResponder(ask_once)
    run_free(responder, knowledge, 2, "name", tmp_path, OPTIONS)
    with pytest.raises(DataError, match="another run"):
        run_free(responder, knowledge, 3, "name", tmp_path, OPTIONS)
    assert run_free(responder, knowledge, 3, "name", tmp_path, RunOptions("c", overwrite=True)).counts["all"] == 3


def test_held_out_samples_are_dialogues_the_small_models_never_saw(knowledge):
    samples = heldout_samples(knowledge, 60)
    assert samples == heldout_samples(knowledge, 60) and samples[:20] == heldout_samples(knowledge, 20)
    assert samples != heldout_samples(knowledge, 60, seed=1)
    openings = {opening for complaint in knowledge.complaints for opening in complaint.training_openings}
    assert {sample.dialogue_id for sample in samples} > {"1"}
    for sample in samples:
        assert sample.messages[0].text not in openings and sample.messages[-1].role is Role.USER and sample.target
