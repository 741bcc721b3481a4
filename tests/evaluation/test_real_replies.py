"""The figures on real replies of BianQue-2.0, where these lie beside the project."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bianque.consultation.cleanup import ReplyCleaner
from bianque.evaluation.metrics import measure, score
from bianque.evaluation.predictions import Prediction

REPLIES = Path(__file__).resolve().parents[3] / "shared" / "samples" / "bianque2_real_replies.jsonl"
pytestmark = pytest.mark.skipif(not REPLIES.is_file(), reason="the real replies are not here")


def test_real_replies_often_echo_and_hardly_ever_ask():
    predictions = []
    for number, line in enumerate(REPLIES.read_text("utf-8").splitlines()):
        record = json.loads(line)
        prompt, raw = f"病人：{record['question']}\n医生：", record["predict_answer"]
        reply = ReplyCleaner(prompt).clean(raw)
        predictions.append(Prediction("real", str(number), 1, prompt, "", reply, raw))
    figures = measure([score(one) for one in predictions], num_bootstraps=0)
    with_marker = sum("医生：" in one.raw for one in predictions) / len(predictions)
    assert figures["echo"].value == pytest.approx(100 * with_marker, abs=5)  # nearly all echoes end with the marker
    assert 35 < figures["echo"].value < 60
    assert figures["questions"].value < 10
