"""Reading samples: everything that can be wrong with a file ends in a sentence or a count."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from bianque.cli.main import main
from bianque.errors import DataError
from bianque.finetune.data import encode_file, find_splits, open_encoded, read_rows
from bianque.finetune.encoding import SampleEncoder, load_tokens
from tests.finetune.conftest import CHATGLM, FIXTURES
from tests.finetune.dialogues import COMPLAINTS, write_samples


@pytest.fixture(scope="module")
def encoder():
    return SampleEncoder(load_tokens(CHATGLM, "chatglm"), "bianque", 200, 60)


def write(path, rows, encoding="utf-8"):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding=encoding)
    return path


def refused(call) -> DataError:
    with pytest.raises(DataError) as caught:
        call()
    return caught.value


def test_samples_become_mapped_rows(tmp_path, encoder):
    file = write_samples(tmp_path / "samples.jsonl", 3)
    report = encode_file(file, encoder, tmp_path / "train.arrow")
    rows = open_encoded(tmp_path / "train.arrow")
    assert (report.num_read, report.num_kept, report.dropped) == (3, 3, {})
    assert [row["row"] for row in rows] == [1, 2, 3]
    assert all(row["length"] == len(row["prompt"]) + len(row["target"]) for row in rows)
    assert report.num_target_tokens == sum(len(row["target"]) for row in rows)


def test_a_built_corpus_is_read_with_its_validation_split(tmp_path, encoder):
    corpus = tmp_path / "corpus"
    rows = [f"病人：{complaint}怎么办\\n医生：,先休息，再看{complaint}" for complaint in COMPLAINTS]
    (tmp_path / "user.csv").write_text("\n".join(["input,target", *rows]), encoding="utf-8")
    arguments = ["corpus", "build", str(corpus), f"user={tmp_path / 'user.csv'}", "--validation", "0.3"]
    assert main([*arguments, "--skip", "near_duplicates"]) == 0
    train, validation = find_splits(corpus, None)
    assert (train.name, validation.name) == ("train.parquet", "validation.parquet")
    lines = [row[1:] for row in read_rows(train.with_suffix(".jsonl"))]
    assert [row[1:] for row in read_rows(train)] == lines
    assert encode_file(train, encoder, tmp_path / "train.arrow").num_read == len(lines) > 0
    assert find_splits(corpus, train)[1] == train


def test_what_cannot_be_learnt_is_counted(tmp_path, encoder):
    good = {"input": "病人：咳嗽\n医生：", "target": "多喝水"}
    rows = [
        good,
        {"input": "", "target": "多喝水"},
        {"input": "病人：咳嗽\n医生：", "target": None},
        {"input": "病人：咳嗽\n医生：", "target": "好" * 200},
        {"input": "病人：" + "咳" * 400 + "\n医生：", "target": "多喝水"},
        {"input": "医生：您好", "target": "多喝水"},
        {"input": "病人：咳嗽\n医生：几天了？\n医生：有痰吗？", "target": "多喝水"},
        {"input": "病人：咳嗽\n医生：", "target": "多喝水<sop>"},
        {"target": "多喝水"},
    ]
    report = encode_file(write(tmp_path / "rows.jsonl", rows), encoder, tmp_path / "train.arrow")
    assert (report.num_read, report.num_kept) == (9, 1)
    assert report.dropped == {
        "empty": 3,
        "no_patient": 2,
        "target_too_long": 1,
        "prompt_too_long": 1,
        "control_tokens": 1,
    }


def test_a_dialogue_that_the_doctor_opens_begins_with_the_patient(tmp_path, encoder):
    rows = [{"input": start + "病人：咳嗽\n医生：", "target": "多喝水"} for start in ("", "医生：您好\n")]
    encode_file(write(tmp_path / "rows.jsonl", rows), encoder, tmp_path / "train.arrow")
    first, second = open_encoded(tmp_path / "train.arrow")
    assert first["prompt"] == second["prompt"]


def test_a_file_without_a_sample_is_refused_with_the_reasons(tmp_path, encoder):
    rows = [{"input": "病人：咳嗽\n医生：", "target": "好" * 200}] * 2
    file = write(tmp_path / "rows.jsonl", rows)
    error = refused(lambda: encode_file(file, encoder, tmp_path / "train.arrow"))
    assert (error.key, error.params["read"], error.params["reasons"]) == (
        "finetune_no_samples",
        2,
        "target_too_long: 2",
    )
    assert not list(tmp_path.glob("train*"))
    (tmp_path / "empty.jsonl").touch()
    assert (
        refused(lambda: encode_file(tmp_path / "empty.jsonl", encoder, tmp_path / "train.arrow")).params["read"] == 0
    )


def test_files_of_another_kind_are_refused(tmp_path, encoder):
    def key(name):
        return refused(lambda: list(read_rows(tmp_path / name))).key

    shutil.copy(FIXTURES / "corpus" / "user.csv", tmp_path / "user.csv")
    assert refused(lambda: find_splits(tmp_path / "user.csv", None)).key == "finetune_not_samples"
    assert refused(lambda: find_splits(tmp_path, None)).key == "finetune_not_samples"
    assert refused(lambda: find_splits(tmp_path / "none.jsonl", None)).key == "corpus_file_missing"
    write(tmp_path / "dialogues.jsonl", [{"source": "x", "id": "1", "messages": []}])
    assert key("dialogues.jsonl") == "corpus_columns_missing"
    (tmp_path / "array.jsonl").write_text("[1, 2]\n")
    assert key("array.jsonl") == "corpus_columns_missing"
    write(tmp_path / "gb.jsonl", [{"input": "病人：咳嗽\n医生：", "target": "多喝水"}], encoding="gb18030")
    error = refused(lambda: list(read_rows(tmp_path / "gb.jsonl")))
    assert (error.key, error.params["line"], error.params["reason"]) == ("data_line_invalid", 1, "not UTF-8")
    (tmp_path / "cut.jsonl").write_text('{"input": "a", "target": "b"}\n{"input": "a", "tar')
    error = refused(lambda: list(read_rows(tmp_path / "cut.jsonl")))
    assert (error.params["line"], error.params["reason"]) == (2, "not JSON")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    assert key("broken.parquet") == "data_line_invalid"


def test_a_parquet_file_of_something_else_is_refused(tmp_path):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"question": ["a"], "answer": ["b"]}), tmp_path / "other.parquet")
    error = refused(lambda: list(read_rows(tmp_path / "other.parquet")))
    assert error.key == "corpus_columns_missing" and error.params["got"] == "question, answer"


def test_the_command_line_stays_light_without_training():
    script = "import sys, bianque.cli.main as m; m.build_parser(); print(sorted({'torch', 'peft'} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
