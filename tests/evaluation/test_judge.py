"""A judging model is asked in both orders, read strictly, and interrupted without loss."""

from __future__ import annotations

import json

import pytest

from bianque.cli.main import main
from bianque.errors import ModelUnavailableError
from bianque.evaluation.battles import Battle, BattleSet
from bianque.evaluation.endpoint import ChatEndpoint
from bianque.evaluation.judge import judge_battles, messages_for, read_choice
from bianque.evaluation.outcomes import read_outcomes
from bianque.evaluation.verdicts import VerdictBook
from tests.conftest import free_port
from tests.evaluation.fakes import answer

BATTLES = tuple(Battle(str(n), "reply", f"病人：问{n}\n医生：", f"好{n}", f"坏{n}") for n in range(3))


@pytest.fixture
def folder(tmp_path):
    models = {battle.id: ("x", "y") for battle in BATTLES}
    BattleSet(BATTLES, models).write(tmp_path / "battles", "command")
    return tmp_path / "battles"


def ask(url: str, folder, battles=BATTLES, **options) -> VerdictBook:
    book = VerdictBook(folder / "verdicts.jsonl")
    judge_battles(ChatEndpoint(url, "judge", wait_seconds=0), battles, book, **options)
    return book


def test_both_answers_are_shown_in_both_orders_and_no_model_is_named():
    for order, first in (("ab", "好1"), ("ba", "坏1")):
        system, user = messages_for(BATTLES[1], order)
        assert (system["role"], user["role"]) == ("system", "user")
        assert "病人：问1" in user["content"]
        shown = sorted(("好1", "坏1"), key=user["content"].index)
        assert shown[0] == first
    whole = Battle("1", "dialogue", "病人：咳嗽", "医生：{甲}\n病人：三天", "医生：%s")
    assert "医生：{甲}\n病人：三天" in messages_for(whole, "ab")[1]["content"]


@pytest.mark.parametrize(
    ("said", "choice"),
    [
        ("甲问得更准。\n判定：甲", "a"),
        ("**判定：乙**", "b"),
        ("判定: 平。", "tie"),
        ("判定：都不好\n", "both_bad"),
        ("判定：甲\n再想想\n判定：甲", "a"),
        ("判定：甲\n判定：乙", "unreadable"),
        ("判定：甲更好", "unreadable"),
        ("判定：甲和乙差不多", "unreadable"),
        ("我认为甲更好", "unreadable"),
        ("判定：", "unreadable"),
        ("9 1", "unreadable"),
    ],
)
def test_only_one_clear_verdict_is_read(said, choice):
    assert read_choice(said, "ab") == choice
    assert read_choice(said, "ba") == {"a": "b", "b": "a"}.get(choice, choice)


def test_a_judge_that_always_prefers_the_first_gives_nobody_an_advantage(endpoint, folder):
    url, requests, answers = endpoint
    answers.append(answer("判定：甲"))
    ask(url, folder)
    assert len(requests) == 6
    found = read_outcomes([folder])
    assert [one.score for one in found.outcomes] == [0.5] * 3
    (count,) = found.judges.values()
    assert (count.first, count.decided, count.agreeing, count.twice) == (6, 6, 0, 3)


def test_a_judge_with_an_opinion_is_heard_in_both_orders(endpoint, folder):
    url, _, answers = endpoint
    answers += [answer("判定：甲"), answer("判定：乙")] * 3
    ask(url, folder)
    found = read_outcomes([folder])
    assert [(one.model_a, one.model_b, one.score) for one in found.outcomes] == [("x", "y", 1.0)] * 3
    assert next(iter(found.judges.values())).agreeing == 3


def test_a_preference_in_one_order_and_a_tie_in_the_other_is_half_a_win(endpoint, folder):
    url, _, answers = endpoint
    answers += [answer("判定：甲"), answer("判定：平")] * 3
    ask(url, folder)
    assert [one.score for one in read_outcomes([folder]).outcomes] == [0.75] * 3


def test_equal_answers_are_ties_that_nobody_is_asked_about(endpoint, tmp_path):
    url, requests, answers = endpoint
    answers.append(answer("判定：甲"))
    equal = Battle("9", "reply", "病人：问\n医生：", "一样", "一样 ")
    BattleSet((equal,), {"9": ("x", "y")}).write(tmp_path / "battles", "command")
    ask(url, tmp_path / "battles", [equal])
    assert requests == []
    assert [(one.score, one.judge) for one in read_outcomes([tmp_path / "battles"]).outcomes] == [
        (0.5, "equal answers")
    ]


def test_answers_that_cannot_be_read_are_counted_and_their_pairs_left_out(endpoint, folder):
    url, _, answers = endpoint
    answers += [
        answer("两份都有道理"),
        (400, {}),
        answer(""),
        answer("判定：乙"),
        answer("判定：甲"),
        answer("判定：乙"),
    ]
    book = ask(url, folder)
    assert sum(one.choice == "unreadable" for one in book.all()) == 3
    found = read_outcomes([folder])
    assert [one.score for one in found.outcomes] == [1.0]
    assert next(iter(found.judges.values())).unreadable == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_goes_on_where_it_stopped(endpoint, folder, workers):
    url, requests, answers = endpoint
    answers += [*[answer("判定：甲")] * 3, (401, {})]
    with pytest.raises(ModelUnavailableError, match="401"):
        ask(url, folder, workers=workers)
    done = len(VerdictBook(folder / "verdicts.jsonl").all())
    assert done >= 1
    (count,) = read_outcomes([folder]).judges.values()
    assert count.pairs == done // 2 and count.incomplete == done % 2  # one order alone is no outcome
    requests.clear()
    answers[:] = [answer("判定：甲")]
    book = ask(url, folder, workers=workers)
    assert len(requests) == 6 - done and len(book.all()) == 6


def test_another_judge_starts_anew(endpoint, folder):
    url, requests, answers = endpoint
    answers.append(answer("判定：平"))
    ask(url, folder, name="one")
    ask(url, folder, name="two")
    assert len(requests) == 12
    assert [one.judge for one in read_outcomes([folder], ["two"]).outcomes] == ["two"] * 3


def test_an_endpoint_that_is_down_is_one_sentence(folder, capsys):
    url = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(ModelUnavailableError, match="not available"):
        ask(url, folder)
    assert VerdictBook(folder / "verdicts.jsonl").all() == []


def test_the_commands_judge_and_rate(endpoint, folder, tmp_path, capsys):
    url, requests, answers = endpoint
    answers += [answer("判定：甲"), answer("判定：乙")] * 2 + [answer("哪个都行")]
    (tmp_path / "key").write_text("secret\n")
    judge = ["--endpoint", url, "--endpoint-model", "big", "--api-key-file", str(tmp_path / "key")]
    assert main(["evaluate", "judge", str(folder), *judge]) == 0
    assert requests[0][1]["Authorization"] == "Bearer secret" and requests[0][2]["temperature"] == 0
    assert "2 answers could not be read" in capsys.readouterr().out
    assert main(["evaluate", "elo", str(folder), "--bootstraps", "50", "--output", str(tmp_path / "elo")]) == 0
    assert {path.name for path in (tmp_path / "elo").iterdir()} == {"elo.json", "elo.md", "elo.png", "outcomes.jsonl"}
    stored = json.loads((tmp_path / "elo" / "elo.json").read_text("utf-8"))
    assert list(stored["ratings"]) == ["x", "y"] and stored["pairs"][0]["pairs"] == 2
    (name,) = stored["judges"]
    assert name.startswith("big (") and stored["judges"][name]["unreadable"] == 2
    # What was written is itself a file of stored battles, and gives the same ratings.
    outcomes = str(tmp_path / "elo" / "outcomes.jsonl")
    assert main(["evaluate", "elo", outcomes, "--bootstraps", "50", "--output", str(tmp_path / "again")]) == 0
    assert json.loads((tmp_path / "again" / "elo.json").read_text("utf-8"))["ratings"] == stored["ratings"]
