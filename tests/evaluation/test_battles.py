"""Pairs are blind, of the same input, the same for the same seed; verdicts survive a broken run."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from bianque.cli.main import main
from bianque.errors import DataError
from bianque.evaluation.battles import Answers, make_battles, read_answers, read_battles, read_key
from bianque.evaluation.verdicts import Verdict, VerdictBook


def answers(name: str, said: str = "{}", *, count: int = 40, kind: str = "reply") -> Answers:
    return Answers(name, kind, {str(n): (f"病人：问{n}\n医生：", said.format(n)) for n in range(count)})


def write_run(folder, name: str, replies: dict[str, str]) -> None:
    folder.mkdir()
    lines = [
        {"source": "s", "dialogue_id": key, "turn": 1, "input": f"病人：{key}\n医生：", "target": "好", "reply": reply}
        for key, reply in replies.items()
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "results.json").write_text(json.dumps({"name": name}))


def test_each_model_stands_first_about_as_often_and_the_key_knows():
    made = make_battles([answers("x", "甲{}"), answers("y", "乙{}")])
    assert len(made.battles) == 40
    for battle in made.battles:
        said = dict(zip(made.models[battle.id], (battle.a, battle.b), strict=True))
        number = battle.prompt.removeprefix("病人：问").removesuffix("\n医生：")
        assert said == {"x": f"甲{number}", "y": f"乙{number}"}
    # 40 fair draws lie outside 8 to 32 with a probability of 1e-4; the seed is fixed.
    assert 8 <= sum(pair == ("x", "y") for pair in made.models.values()) <= 32


def test_sides_are_drawn_among_the_few_pairs_of_a_limit_too():
    made = make_battles([answers("x", "甲{}", count=5000), answers("y", "乙{}", count=5000)], limit=40)
    assert 8 <= sum(pair == ("x", "y") for pair in made.models.values()) <= 32


def test_the_same_seed_makes_the_same_pairs_whatever_order_the_runs_are_named_in():
    x, y = answers("x", "甲{}"), answers("y", "乙{}")
    assert make_battles([x, y], limit=5) == make_battles([y, x], limit=5)
    assert make_battles([x, y]).battles != make_battles([x, y], seed=1).battles


def test_every_two_runs_get_as_many_pairs_as_the_limit():
    made = make_battles([answers("x", "甲{}"), answers("y", "乙{}"), answers("z", "丙{}")], limit=7)
    assert Counter(map(frozenset, made.models.values())) == {
        frozenset(pair): 7 for pair in (("x", "y"), ("x", "z"), ("y", "z"))
    }


def test_only_answers_to_the_same_input_meet():
    x = Answers("x", "reply", {"1": ("咳嗽", "甲"), "2": ("头痛", "甲"), "3": ("牙痛", "")})
    y = Answers("y", "reply", {"1": ("咳嗽", "乙"), "2": ("别的", "乙"), "3": ("牙痛", "乙"), "4": ("腰痛", "乙")})
    made = make_battles([x, y])
    assert [battle.prompt for battle in made.battles] == ["咳嗽"]
    assert made.failed == 1
    with pytest.raises(DataError, match="same input"):
        make_battles([x, Answers("z", "reply", {"9": ("咳嗽", "丙")})])
    with pytest.raises(DataError, match="same input"):
        make_battles([x, answers("z", kind="dialogue")])


def test_two_runs_of_one_name_are_refused():
    with pytest.raises(DataError, match="NAME=PATH"):
        make_battles([answers("x"), answers("x")])


def test_the_pairs_file_does_not_name_the_models(tmp_path):
    make_battles([answers("mini-asker"), answers("mini-adviser")]).write(tmp_path, "command")
    assert "mini" not in (tmp_path / "battles.jsonl").read_text("utf-8")
    assert len(read_key(tmp_path)) == len(read_battles(tmp_path)) == 40
    with pytest.raises(DataError, match="--overwrite"):
        make_battles([answers("x"), answers("y")]).write(tmp_path, "command")


def test_a_free_dialogue_is_compared_from_the_patients_first_words_on(tmp_path):
    said = [("user", "咳嗽"), ("assistant", "多久了？"), ("user", "三天"), ("assistant", "多喝水。")]
    messages = [{"role": role, "content": text} for role, text in said]
    (tmp_path / "dialogues.jsonl").write_text(json.dumps({"source": "free-a", "id": "1", "messages": messages}))
    made = read_answers("x", tmp_path)
    assert made.kind == "dialogue"
    assert list(made.said.values()) == [("病人：咳嗽", "医生：多久了？\n病人：三天\n医生：多喝水。")]


def test_the_command_pairs_runs_by_their_names(tmp_path, capsys):
    write_run(tmp_path / "one", "asker", {"1": "多久了？", "2": "疼吗？", "3": "好", "4": ""})
    write_run(tmp_path / "two", "asker", {"1": "多喝水", "2": "休息", "3": "好", "4": "好"})
    runs = [str(tmp_path / "one"), f"adviser={tmp_path / 'two'}"]
    assert main(["evaluate", "battles", *runs, "--output", str(tmp_path / "battles")]) == 0
    printed = capsys.readouterr().out
    assert "3 pairs of 2 models, 1 of them with equal answers" in printed and "1 places left out" in printed
    assert set(read_key(tmp_path / "battles").values()) <= {("asker", "adviser"), ("adviser", "asker")}
    assert main(["evaluate", "battles", *runs, "--output", str(tmp_path / "battles")]) == 1
    with pytest.raises(SystemExit):
        main(["evaluate", "battles", runs[0], "--output", str(tmp_path / "other")])


@pytest.mark.parametrize("line", ["[]", '{"id": "1"}', '{"id": 1, "kind": "reply", "prompt": "", "a": "", "b": ""}'])
def test_a_line_that_is_no_pair_is_named(tmp_path, line):
    (tmp_path / "battles.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=r"Line 1 of .*not a battle"):
        read_battles(tmp_path)


@pytest.mark.parametrize("key", [None, "{", "[]", '{"models": {"1": 2}}'])
def test_a_missing_or_foreign_key_is_named(tmp_path, key):
    if key is not None:
        (tmp_path / "key.json").write_text(key)
    with pytest.raises(DataError, match=r"key\.json"):
        read_key(tmp_path)


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(DataError, match="There is no"):
        read_answers("", tmp_path)


def test_verdicts_come_back_the_last_one_of_a_place_counts_and_a_cut_line_is_given_up(tmp_path):
    file = tmp_path / "verdicts.jsonl"
    book = VerdictBook(file)
    book.add(Verdict("1", "me", "ab", 1, "a"))
    book.add(Verdict("2", "me", "ab", 1, "tie"))
    book.add(Verdict("1", "me", "ab", 1, "both_bad"))
    with file.open("a") as lines:
        lines.write('{"battle": "3", "jud')
    again = VerdictBook(file)
    assert [(one.battle, one.choice) for one in again.all()] == [("2", "tie"), ("1", "both_bad")]
    again.add(Verdict("3", "me", "ba", 1, "b"))
    assert VerdictBook(file).get("3", "me", "ba").choice == "b"


@pytest.mark.parametrize(
    "line", ["{}", '{"battle": "1", "judge": "x", "order": "ab", "num_orders": 2, "choice": "c"}']
)
def test_a_line_that_is_no_verdict_is_named(tmp_path, line):
    (tmp_path / "verdicts.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=r"Line 1 of .*not a verdict"):
        VerdictBook(tmp_path / "verdicts.jsonl")
