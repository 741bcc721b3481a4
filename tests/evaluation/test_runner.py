"""Samples are read, answered in order, kept when a run breaks off, and scored into files."""

from __future__ import annotations

import json

import pytest

from bianque.cli.main import main
from bianque.errors import DataError, GenerationError, ModelUnavailableError
from bianque.evaluation.bootstrap import Figure
from bianque.evaluation.predictions import read_predictions, read_samples
from bianque.evaluation.results import Results, compare
from bianque.evaluation.runner import evaluate, predict
from tests.evaluation.fakes import FakeResponder

RUN = {"kind": "test"}


def write(path, values) -> None:
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), "utf-8")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "samples.jsonl"
    write(
        path,
        [
            {
                "source": "a",
                "dialogue_id": str(number),
                "turn": 1,
                "input": f"病人：问题{number}\n医生：",
                "target": "多久了？",
            }
            for number in range(6)
        ],
    )
    return path


def test_dialogues_and_samples_are_both_read(tmp_path, data):
    dialogues = tmp_path / "dialogues.jsonl"
    said = [("user", "咳嗽"), ("assistant", "多久了？"), ("user", "三天"), ("assistant", "多喝水。")]
    messages = [{"role": role, "content": text} for role, text in said]
    write(dialogues, [{"source": "a", "id": "7", "messages": messages}])
    first, second = read_samples(dialogues)
    assert (second.turn, second.target, second.prompt) == (
        2,
        "多喝水。",
        "病人：咳嗽\n医生：多久了？\n病人：三天\n医生：",
    )
    assert first.dialogue_id == "7"
    assert [sample.prompt for sample in read_samples(data)] == [f"病人：问题{n}\n医生：" for n in range(6)]


def test_of_a_built_corpus_the_test_split_is_read(tmp_path, data):
    folder = tmp_path / "corpus"
    with pytest.raises(DataError, match=r"test\.jsonl"):
        folder.mkdir()
        read_samples(folder)
    (folder / "samples").mkdir()
    write(folder / "samples" / "train.jsonl", [{"input": "病人：发烧\n医生：", "target": "多久了？"}])
    (folder / "samples" / "test.jsonl").write_bytes(data.read_bytes())
    assert read_samples(folder) == read_samples(data)


def test_a_limit_takes_the_same_random_part_each_time(data):
    chosen = [sample.dialogue_id for sample in read_samples(data, 3, seed=1)]
    assert len(chosen) == 3 and chosen == [sample.dialogue_id for sample in read_samples(data, 3, seed=1)]
    others = [[sample.dialogue_id for sample in read_samples(data, 3, seed=seed)] for seed in range(2, 12)]
    assert any(other != chosen for other in others)  # by chance all equal with probability 120 ** -10


@pytest.mark.parametrize(
    "line", ['{"input": "病人：咳嗽"}', '{"messages": [{"role": "nurse", "content": ""}]}', "[]", "{"]
)
def test_a_line_that_is_no_sample_is_named(tmp_path, line):
    path = tmp_path / "samples.jsonl"
    path.write_text('{"input": "病人：咳嗽\\n医生：", "target": "好"}\n' + line + "\n", "utf-8")
    with pytest.raises(DataError, match="Line 2 of"):
        read_samples(path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"input": "病人：咳嗽", "target": "好"}', "no reply"),
        ('{"input": "病人：咳嗽", "target": "好", "reply": 3}', "no reply"),
        ('{"input": "病人：咳嗽", "reply": "好"}', "no messages, and no input and target"),
        ('{"input": "病人：咳嗽", "target": "好", "reply": "好", "turn": "x"}', "turn is not a whole number"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_line_that_is_no_prediction_is_named(tmp_path, line, reason):
    path = tmp_path / "predictions.jsonl"
    good = '{"input": "病人：咳嗽\\n医生：", "target": "好", "reply": "好"}\n'
    path.write_text(good + line + "\n", "utf-8")
    with pytest.raises(DataError, match=f"Line 2 of .*{reason}"):
        read_predictions(path)


def test_a_file_in_another_encoding_is_named_and_a_byte_order_mark_is_no_harm(tmp_path, capsys):
    path = tmp_path / "samples.jsonl"
    text = '{"input": "病人：咳嗽\\n医生：", "target": "好"}\n'
    path.write_bytes(text.encode("utf-8-sig"))
    assert len(read_samples(path)) == 1
    path.write_bytes(text.encode("gb18030"))
    with pytest.raises(DataError, match=r"Line 1 of .*not UTF-8"):
        read_samples(path)
    assert main(["evaluate", "score", str(path), "--output", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err.startswith("error: Line 1 of")


def test_an_empty_or_missing_file_is_named(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match="no samples"):
        read_samples(tmp_path / "empty.jsonl")
    with pytest.raises(DataError, match="There is no"):
        read_samples(tmp_path / "absent.jsonl")


@pytest.mark.parametrize("workers", [1, 3])
def test_replies_keep_the_samples_order(tmp_path, data, workers):
    responder = FakeResponder(lambda messages: f"答{messages[-1].text}")
    predictions = predict(responder, read_samples(data), tmp_path / "run", RUN, workers=workers)
    assert [one.reply for one in predictions] == [f"答问题{number}" for number in range(6)]
    assert read_predictions(tmp_path / "run" / "predictions.jsonl") == predictions


def test_a_run_that_broke_off_goes_on_where_it_stopped(tmp_path, data):
    def breaking(messages):
        if messages[-1].text == "问题3":
            raise ModelUnavailableError("model_loading", name="x")
        return "好"

    with pytest.raises(ModelUnavailableError):
        predict(FakeResponder(breaking), read_samples(data), tmp_path / "run", RUN)
    with (tmp_path / "run" / "predictions.jsonl").open("a") as file:
        file.write('{"source": "a", "dialogue_id": "3", "tur')  # cut off in the middle of a line
    responder = FakeResponder(lambda messages: "好的")
    predictions = predict(responder, read_samples(data), tmp_path / "run", RUN)
    assert responder.asked == ["问题3", "问题4", "问题5"]
    assert [one.reply for one in predictions] == ["好"] * 3 + ["好的"] * 3


def test_another_runs_replies_are_not_taken_over(tmp_path, data):
    samples = read_samples(data)
    predict(FakeResponder(lambda messages: "旧"), samples, tmp_path / "run", RUN)
    with pytest.raises(DataError, match="another run"):
        predict(FakeResponder(lambda messages: "新"), samples, tmp_path / "run", {"kind": "other"})
    renewed = predict(FakeResponder(lambda m: "新"), samples, tmp_path / "run", {"kind": "other"}, overwrite=True)
    assert {one.reply for one in renewed} == {"新"}


def test_a_conversation_without_reply_is_counted_and_the_others_go_on(tmp_path, data):
    def failing(messages):
        if messages[-1].text == "问题3":
            raise GenerationError("reply_empty")
        return "多久了？"

    predictions = predict(FakeResponder(failing), read_samples(data), tmp_path / "run", RUN)
    assert [one.error for one in predictions] == ["", "", "", "reply_empty", "", ""]
    results = evaluate(predictions, "name", "command", RUN, num_bootstraps=10)
    assert results.figures["all"]["failed"].value == pytest.approx(100 / 6)
    assert results.figures["all"]["PQA recall"].value == pytest.approx(500 / 6)


def test_results_come_back_from_their_files(tmp_path):
    figures = {"all": {"BLEU-1": Figure(14.86, 14.0, 15.5), "PQA recall": Figure(float("nan"))}}
    results = Results("1.0", "the command", {"data": {"file": "x"}}, {"all": 3}, figures)
    results.write(tmp_path)
    read = Results.read(tmp_path)
    assert read.figures["all"]["BLEU-1"] == Figure(14.86, 14.0, 15.5)
    assert "NaN" not in (tmp_path / "results.json").read_text("utf-8")  # which JSON does not have
    text = (tmp_path / "results.md").read_text("utf-8")
    assert "| BLEU-1 | 14.9 [14.0, 15.5] |" in text and "| PQA recall | – |" in text and "`the command`" in text
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(DataError):
        Results.read(tmp_path / "absent")
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(DataError):
        Results.read(tmp_path)


def test_a_comparison_has_a_column_for_each_run_and_says_when_their_data_differ():
    one = Results("one", "command 1", {"data": {"file": "x"}}, {"all": 3}, {"all": {"BLEU-1": Figure(1.0)}})
    same = Results("two", "command 2", {"data": {"file": "x"}}, {"all": 3}, {"all": {"echo": Figure(2.0)}})
    other = Results("three", "command 3", {"data": {"file": "y"}}, {"all": 4}, {"all": {"BLEU-1": Figure(3.0)}})
    table = compare([one, same])
    assert "| all | one (3) | two (3) |" in table
    assert "| BLEU-1 | 1.0 | – |" in table and "| echo | – | 2.0 |" in table
    assert "- two: `command 2`" in table and "different data" not in table
    assert "different data" in compare([one, other])


def test_the_commands_score_and_compare(tmp_path, capsys):
    for name, reply in (("asks", "多久了？"), ("advises", "多喝水。")):
        write(tmp_path / f"{name}.jsonl", [{"input": "病人：咳嗽\n医生：", "target": "多久了？", "reply": reply}] * 2)
        assert main(["evaluate", "score", str(tmp_path / f"{name}.jsonl"), "--output", str(tmp_path / name)]) == 0
    capsys.readouterr()
    runs = [str(tmp_path / "asks"), str(tmp_path / "advises")]
    assert main(["evaluate", "compare", *runs, "--output", str(tmp_path / "both")]) == 0
    printed = capsys.readouterr().out
    assert "| PQA recall | 100.0 [100.0, 100.0] | 0.0 [0.0, 0.0] |" in printed
    assert {path.name for path in (tmp_path / "both").iterdir()} == {
        "comparison.json",
        "comparison.md",
        "comparison.png",
    }


def test_the_demonstration_models_are_evaluated_by_one_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["bianque", "evaluate", "teacher-forced"])
    data = tmp_path / "samples.jsonl"
    write(
        data, [{"source": "a", "dialogue_id": "1", "input": "病人：孩子咳嗽三天了\n医生：", "target": "有没有发烧？"}]
    )
    arguments = [str(data), "--output", str(tmp_path / "run"), "--max-new-tokens", "16", "--mode", "joint"]
    assert main(["evaluate", "teacher-forced", *arguments]) == 0
    stored = json.loads((tmp_path / "run" / "results.json").read_text("utf-8"))
    assert stored["command"] == "python -m bianque evaluate teacher-forced"
    assert stored["run"]["models"]["asker"]["name"] == "mini-asker"
    prediction = read_predictions(tmp_path / "run" / "predictions.jsonl")[0]
    assert prediction.reply and prediction.raw and prediction.author == "asker"
