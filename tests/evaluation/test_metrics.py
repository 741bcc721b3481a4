"""Every figure by hand on a few predictions, and what its interval means."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from bianque.evaluation.metrics import NAMES, groups, measure, score
from bianque.evaluation.predictions import Prediction

ASK, ADVISE = "有没有发烧？", "多喝水，注意休息。"
EMPTY = Prediction("a", "1", 1, "病人：孩子咳嗽三天了怎么办\n医生：", ADVISE, "")


def made(*predictions: Prediction):
    return [score(prediction) for prediction in predictions]


def values(*predictions: Prediction) -> dict[str, float]:
    return {name: figure.value for name, figure in measure(made(*predictions), num_bootstraps=0).items()}


def test_pqa_is_about_which_replies_are_questions():
    pairs = [(ASK, ASK), (ASK, ASK), (ASK, ADVISE), (ADVISE, ASK), (ADVISE, ADVISE)]
    figures = values(*(replace(EMPTY, turn=n, reply=reply, target=target) for n, (reply, target) in enumerate(pairs)))
    assert figures["PQA precision"] == pytest.approx(100 * 2 / 3)
    assert figures["PQA recall"] == pytest.approx(100 * 2 / 3)
    assert figures["PQA F1"] == pytest.approx(100 * 2 / 3)
    assert figures["questions"] == figures["reference questions"] == pytest.approx(60)


def test_pqa_is_about_clinical_questions_with_or_without_a_mark():
    figures = values(
        replace(EMPTY, reply="有没有发烧", target="有多久了"),
        replace(EMPTY, turn=2, reply="还有其他问题吗？", target=ASK),
    )
    assert (figures["questions"], figures["reference questions"]) == (50, 100)
    assert (figures["PQA precision"], figures["PQA recall"]) == (100, 50)


def test_pqa_is_unknown_where_nobody_asks():
    figures = values(replace(EMPTY, reply=ADVISE))
    assert math.isnan(figures["PQA precision"]) and math.isnan(figures["PQA recall"]) and math.isnan(figures["PQA F1"])


def test_a_reply_that_was_given_before_is_a_repetition():
    dialogue = f"病人：咳嗽\n医生：{ASK}\n病人：没有\n医生："
    again, fresh = replace(EMPTY, input=dialogue, reply="有没有发烧"), replace(EMPTY, input=dialogue, reply="多久了？")
    assert values(again)["repetition"] == 100
    assert values(fresh)["repetition"] == 0
    assert values(again, fresh)["repetition"] == 50
    assert values(replace(again, reply="没有"))["repetition"] == 0  # the patient's words, not the doctor's


def test_repeated_4grams_are_a_share_of_a_reply():
    assert values(replace(EMPTY, reply="多喝水多喝水多喝水多"))["repeated 4-grams"] == pytest.approx(100 * 4 / 7)
    assert values(replace(EMPTY, reply="多喝水"))["repeated 4-grams"] == 0


@pytest.mark.parametrize(
    ("raw", "is_echo"),
    [
        ("病人：孩子咳嗽三天了怎么办\n医生：多喝水。", True),
        ("医生：多喝水。", True),
        ("三天了怎么办\n医生： 多喝水。", True),
        ("孩子咳嗽三天了，怎么办？多喝水。", True),
        ("多喝水，病人：这样写的人少。", False),
        ("孩子咳嗽三天，要多喝水。", False),
    ],
)
def test_an_echo_is_seen_in_what_the_model_wrote(raw, is_echo):
    assert values(replace(EMPTY, reply="多喝水。", raw=raw))["echo"] == 100 * is_echo


def test_the_words_of_a_short_answer_may_come_again():
    short = replace(EMPTY, input=f"病人：咳嗽\n医生：{ASK}\n病人：没有发烧\n医生：", reply="没有发烧就不急着吃药。")
    assert values(short)["echo"] == 0


def test_lengths_failures_and_distinct_words():
    figures = values(
        replace(EMPTY, reply="多喝水多喝水"), replace(EMPTY, turn=2, error="reply_empty", target="好的呀")
    )
    assert (figures["characters"], figures["reference characters"]) == (3, 6)
    assert figures["failed"] == 50
    assert 0 < figures["distinct-1"] < 100


def test_a_perfect_reply_scores_100():
    figures = values(replace(EMPTY, reply=ADVISE))
    for name in ("BLEU-1", "BLEU-4", "ROUGE-1", "ROUGE-2", "ROUGE-L"):
        assert figures[name] == pytest.approx(100, abs=1e-4)
    assert tuple(figures) == NAMES


def test_intervals_draw_whole_dialogues():
    """Ten replies of one dialogue ask and ten of another advise: drawn one by one, the share would never be 0 or 100.

    Drawn as dialogues, each of these has probability 1/4, so both ends of the interval are certain to reach them.
    """
    asking = [replace(EMPTY, dialogue_id="1", turn=turn, reply=ASK) for turn in range(1, 11)]
    advising = [replace(EMPTY, dialogue_id="2", turn=turn, reply=ADVISE) for turn in range(1, 11)]
    figure = measure(made(*asking, *advising), num_bootstraps=200)["questions"]
    assert (figure.low, figure.value, figure.high) == (0, 50, 100)


def test_intervals_are_the_same_with_the_same_seed_and_shrink_with_more_dialogues():
    predictions = [replace(EMPTY, dialogue_id=str(n), reply=(ASK, ADVISE)[n % 2]) for n in range(64)]
    few, many, again = (
        measure(made(*chosen), num_bootstraps=200)["questions"]
        for chosen in (predictions[:8], predictions, predictions)
    )
    assert many == again
    assert many.low < 50 < many.high
    # The spread falls with the root of the number, here to about a third.
    assert many.high - many.low < (few.high - few.low) / 2
    # 64 fair coins: 95 % lie within 1.96 standard deviations of 6.25 points, so 24.5 apart; quartiles would be 8.4.
    assert 18 < many.high - many.low < 32


def test_one_dialogue_has_no_interval():
    figure = measure(made(replace(EMPTY, reply=ASK)))["questions"]
    assert (figure.value, figure.low, figure.high) == (100, None, None)


def test_groups_are_sources_and_turns():
    predictions = [replace(EMPTY, source=source, turn=turn) for source, turn in (("b", 9), ("a", 8), ("b", 1))]
    assert {name: len(members) for name, members in groups(made(*predictions)).items()} == {
        "all": 3,
        "source b": 2,
        "source a": 1,
        "turn 1": 1,
        "turn 8+": 2,
    }
