"""Ratings against a plain calculation, and battles that others stored."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from bianque.cli.main import main
from bianque.errors import DataError
from bianque.evaluation.elo import EloOptions, Outcome, ratings
from bianque.evaluation.elo_report import EloReport
from bianque.evaluation.outcomes import JudgeCount, Outcomes, read_outcomes

ONCE = EloOptions(num_bootstraps=0)


def made(number: int = 300, seed: int = 0, chances=(("x", "y", 0.8), ("y", "z", 0.7), ("z", "x", 0.2))):
    rng = random.Random(seed)
    outcomes = []
    for _ in range(number):
        a, b, chance = rng.choice(chances)
        outcomes.append(Outcome(a, b, rng.choice((0.5, float(rng.random() < chance)))))
    return outcomes


def plain(outcomes, k=4.0, base=10.0, scale=400.0, initial=1000.0) -> dict[str, float]:
    """The rule as its definition has it, one outcome after another."""
    rated: dict[str, float] = {}
    for one in outcomes:
        a, b = rated.setdefault(one.model_a, initial), rated.setdefault(one.model_b, initial)
        expected = 1.0 / (1.0 + base ** ((b - a) / scale))
        rated[one.model_a] = a + k * (one.score - expected)
        rated[one.model_b] = b + k * ((1.0 - one.score) - (1.0 - expected))
    return rated


def test_one_win_between_equals_moves_both_by_half_of_k():
    found = ratings([Outcome("x", "y", 1.0)], ONCE)
    assert (found["x"].value, found["y"].value) == (1002.0, 998.0)
    assert found["x"].low is None


@pytest.mark.parametrize("constants", [{}, {"k": 32.0, "base": 2.0, "scale": 100.0, "initial": 0.0}])
def test_outcomes_taken_once_give_the_plain_calculation(constants):
    outcomes = made()
    found = ratings(outcomes, EloOptions(num_bootstraps=0, **constants))
    assert {name: figure.value for name, figure in found.items()} == pytest.approx(plain(outcomes, **constants))


def test_the_median_and_interval_are_those_of_plain_bootstraps():
    """300 outcomes, drawn 400 times both ways with different generators.

    The standard error of a median of 400 is about 1.25 / 20 of the spread (here 16 points, so 1 point), and about
    twice that for the 2.5 percentile; 5 points are beyond chance, and a wrong rule differs by tens.
    """
    outcomes = made()
    found = ratings(outcomes, EloOptions(num_bootstraps=400))
    rng = random.Random(1)
    drawn = [plain(rng.choices(outcomes, k=len(outcomes))) for _ in range(400)]
    for name, figure in found.items():
        low, median, high = np.percentile([one[name] for one in drawn], (2.5, 50, 97.5))
        assert figure.value == pytest.approx(median, abs=5)
        assert figure.low == pytest.approx(low, abs=8) and figure.high == pytest.approx(high, abs=8)
    assert list(found) == ["x", "y", "z"]  # best first


def test_the_seed_decides_and_points_are_conserved():
    outcomes = made(60)
    first, again, other = (ratings(outcomes, EloOptions(num_bootstraps=50, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert sum(one.value for one in ratings(outcomes, ONCE).values()) == pytest.approx(3000)


def test_ties_alone_leave_everybody_equal():
    found = ratings([Outcome("x", "y", 0.5)] * 20, EloOptions(num_bootstraps=20))
    assert {(one.value, one.low, one.high) for one in found.values()} == {(1000.0, 1000.0, 1000.0)}


@pytest.mark.parametrize("wrong", [{"k": 0}, {"base": 1}, {"scale": -1}, {"num_bootstraps": -1}])
def test_constants_that_give_no_ratings_are_refused(wrong):
    with pytest.raises(ValueError):
        EloOptions(**wrong)


def test_the_report_says_who_met_whom():
    outcomes = [Outcome("x", "y", 1.0), Outcome("y", "x", 0.5), Outcome("x", "z", 0.0)]
    report = EloReport.of(Outcomes(outcomes, {"me": JudgeCount(pairs=3)}), ONCE, "the command")
    shares, number = report.shares()
    names = list(report.figures)
    x, y, z = map(names.index, "xyz")
    assert (shares[x, y], shares[y, x], number[x, y]) == (0.75, 0.25, 2)
    assert (shares[z, x], number[z, x]) == (1.0, 1) and np.isnan(shares[y, z])
    text = report.markdown()
    assert "`the command`" in text and "| 75 % (2) |" in text.replace("| x", "|") and "K 4, base 10, scale 400" in text


# ---- stored battles -------------------------------------------------------------------------------------------------


def store(path, values, *, as_array=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(value, ensure_ascii=False) for value in values]
    path.write_text("[" + ",\n".join(lines) + "]" if as_array else "\n".join(lines) + "\n", "utf-8")
    return path


@pytest.mark.parametrize("as_array", [False, True])
def test_battles_of_the_arena_are_read(tmp_path, as_array):
    common = {"model_a": "x", "model_b": "y", "judge": "someone", "turn": 1, "language": "Chinese", "tstamp": 1.0}
    winners = ["model_a", "model_b", "tie", "tie (bothbad)"]
    values = [{**common, "winner": winner, "anony": True} for winner in winners]
    values.append({**common, "winner": "model_a", "anony": False})  # the names were seen
    found = read_outcomes([store(tmp_path / "arena.json", values, as_array=as_array)])
    assert [one.score for one in found.outcomes] == [1.0, 0.0, 0.5, 0.5]
    count = found.judges["arena.json"]
    assert (count.pairs, count.both_bad, count.left_out) == (4, 1, 1)


def test_marks_of_pulse_eval_are_read_from_its_two_folders(tmp_path):
    data = [{"model_a": "x", "model_b": "y", "question": "?", "score": None}] * 5
    marks = ["9 1\n\nAssistant 1 …", "3, 7\n", "5 5", "7.5 8", "Both are good."]
    outputs = [{"input": "", "output": json.dumps({"role": "assistant", "content": mark})} for mark in marks]
    outputs[2]["output"] = {"role": "assistant", "content": "5 5"}
    file = store(tmp_path / "elo_data" / "Web.jsonl", data)
    store(tmp_path / "elo_outputs" / "Web.jsonl", outputs)
    found = read_outcomes([file])
    assert [one.score for one in found.outcomes] == [1.0, 0.0, 0.5, 0.0]
    assert found.judges["Web.jsonl"].unreadable == 1


@pytest.mark.parametrize(
    "value",
    [
        {"model_a": "x", "winner": "model_a"},
        {"model_a": "x", "model_b": "y"},
        {"model_a": "x", "model_b": "y", "winner": "model_c"},
        {"model_a": "x", "model_b": "y", "score": 2},
        {"model_a": "x", "model_b": "y", "score": True},
        {"model_a": "x", "model_b": "y", "winner": ["model_a"]},
        ["x", "y"],
    ],
)
def test_a_record_that_is_no_battle_is_named_and_not_guessed(tmp_path, value):
    good = {"model_a": "x", "model_b": "y", "winner": "tie"}
    with pytest.raises(DataError, match="Line 2 of"):
        read_outcomes([store(tmp_path / "battles.jsonl", [good, value])])


def test_a_missing_file_and_a_folder_that_nobody_judged_are_named(tmp_path, capsys):
    with pytest.raises(DataError, match="There is no"):
        read_outcomes([tmp_path / "absent.jsonl"])
    battle = {"id": "1", "kind": "reply", "prompt": "p", "a": "x", "b": "y"}
    store(tmp_path / "battles" / "battles.jsonl", [battle])
    (tmp_path / "battles" / "key.json").write_text('{"models": {}}')
    with pytest.raises(DataError, match="a battle is missing"):
        read_outcomes([tmp_path / "battles"])
    (tmp_path / "battles" / "key.json").write_text('{"models": {"1": ["m", "n"]}}')
    assert main(["evaluate", "elo", str(tmp_path / "battles"), "--output", str(tmp_path / "elo")]) == 1
    assert "no verdicts" in capsys.readouterr().err
