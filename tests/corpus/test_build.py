"""A build from fixtures to files that the datasets library reads, its split, its limits and its interruption."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from bianque.cli.main import main
from bianque.corpus import build
from bianque.corpus.build import BuildOptions, build_corpus
from bianque.corpus.lengths import LengthLimits, load_counter
from bianque.errors import DataError, SettingsError

FIXTURES = Path(__file__).parent.parent / "fixtures"
SETS = FIXTURES / "corpus"
SOURCES = [
    ("meddialog_cn", SETS / "meddialog_train_data.json"),
    ("chip_mdcfnpc", SETS / "chip.jsonl"),
    ("user", SETS / "user.csv"),
    ("user", SETS / "user.csv"),
]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def every(corpus: Path, kind: str) -> dict[str, list[dict]]:
    return {split: lines(corpus / kind / f"{split}.jsonl") for split in build.SPLITS}


def together(corpus: Path, kind: str) -> list[dict]:
    return [value for split in every(corpus, kind).values() for value in split]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    output = tmp_path_factory.mktemp("build") / "corpus"
    options = BuildOptions(validation=0.3, test=0.3, seed=3)
    return output, build_corpus(output, SOURCES, options, command="the command")


def test_the_corpus_holds_what_the_sources_say(corpus):
    output, report = corpus
    dialogues = together(output, "dialogues")
    assert (
        sorted(dialogue["source"] for dialogue in dialogues) == ["chip_mdcfnpc"] + ["meddialog_cn"] * 2 + ["user"] * 2
    )
    chip = next(dialogue for dialogue in dialogues if dialogue["source"] == "chip_mdcfnpc")
    assert [message["content"] for message in chip["messages"]] == [
        "嗓子痛三天了",
        "你好！吞咽口水的时候喉咙疼得厉害吗？",
        "厉害",
        "先查一个血常规",
    ]
    samples = together(output, "samples")
    assert all(sample["input"].startswith("病人：") and sample["input"].endswith("\n医生：") for sample in samples)
    assert len(samples) == sum(source.num_samples_kept for source in report.sources.values()) == 8


def test_every_step_is_counted(corpus):
    output, report = corpus
    chip, user = report.sources["chip_mdcfnpc"], report.sources["user"]
    assert chip.problems == {"not JSON": 1, "no dialog_info": 1}
    assert (chip.steps["placeholders"].changed, chip.steps["cut_words"].messages) == (1, 1)
    assert chip.steps["empty"].messages == 1
    assert user.num_read == 6 and user.num_kept == 2
    assert user.steps["order"].dropped == 2  # 病人：无, twice
    assert user.duplicates == {"exact_duplicates": 2}  # the file was given twice
    stored = json.loads((output / "report.json").read_text("utf-8"))
    assert stored["sources"]["chip_mdcfnpc"]["steps"]["cut_words"]["messages"] == 1
    assert stored["command"] == "the command"
    places = [(Path(problem["file"]).name, problem["line"]) for problem in lines(output / "problems.jsonl")]
    assert places == [("chip.jsonl", 2), ("chip.jsonl", 3), ("user.csv", 5), ("user.csv", 5)]


def test_parquet_and_json_lines_hold_the_same_and_the_card_names_the_splits(corpus, tmp_path):
    import datasets

    output, _ = corpus
    datasets.disable_progress_bars()
    for kind in ("samples", "dialogues"):
        loaded = datasets.load_dataset(str(output), kind, cache_dir=str(tmp_path))
        assert {split: rows.to_list() for split, rows in loaded.items()} == every(output, kind)


def test_a_dialogue_lies_whole_in_one_split_and_so_do_those_that_begin_alike(tmp_path):
    table = tmp_path / "user.csv"
    rows = [
        f"病人：第{number}个问题\\n医生：多久了？\\n病人：三天\\n医生：,答{copy}"
        for number in range(60)
        for copy in "甲乙"
    ]
    table.write_text("input,target\n" + "\n".join(rows), "utf-8")
    options = BuildOptions(validation=0.25, test=0.25, skip=frozenset({"near_duplicates"}))
    build_corpus(tmp_path / "one", [("user", table)], options)
    splits = every(tmp_path / "one", "samples")
    starts = {split: {sample["input"].split("\n")[0] for sample in samples} for split, samples in splits.items()}
    assert sum(map(len, starts.values())) == 60  # no opening in two splits
    # Both copies begin with the same reply, which is one sample.
    assert all(len(samples) == 3 * len(starts[split]) for split, samples in splits.items())
    # Of 60 openings 15 are expected in each of the smaller splits, with a standard deviation of 3.4.
    assert all(2 <= len(starts[split]) <= 28 for split in ("validation", "test"))
    build_corpus(tmp_path / "two", [("user", table)], options)
    assert every(tmp_path / "two", "samples") == splits
    build_corpus(tmp_path / "three", [("user", table)], replace(options, seed=1))
    assert every(tmp_path / "three", "samples") != splits


def test_lengths_are_limited_as_inference_limits_them(tmp_path):
    table = tmp_path / "user.csv"
    table.write_text(
        "input,target\n"
        f"病人：{'旧' * 30}\\n医生：好的\\n病人：新\\n医生：,短\n"
        f"病人：{'长' * 50}\\n医生：,短答\n"
        f"病人：别的\\n医生：,{'长' * 50}\n",
        "utf-8",
    )
    report = build_corpus(
        tmp_path / "corpus", [("user", table)], BuildOptions(validation=0, test=0), partial(LengthLimits, len, 40, 20)
    )
    samples = every(tmp_path / "corpus", "samples")["train"]
    assert [(sample["input"], sample["target"]) for sample in samples] == [
        (f"病人：{'旧' * 30}\n医生：", "好的"),
        ("病人：新\n医生：", "短"),
    ]
    assert report.sources["user"].lengths == {"shortened": 1, "input_too_long": 1, "target_too_long": 1}
    assert (report.sources["user"].num_samples, report.sources["user"].num_samples_kept) == (4, 2)


@pytest.mark.parametrize("name", ["t5", "chatglm"])
def test_tokens_are_counted_by_the_models_own_tokenizer(name):
    count = load_counter(FIXTURES / name)
    assert count("病人：头痛\n医生：") > count("头痛") > 0


def test_an_interrupted_build_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "write_parquet", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        build_corpus(tmp_path / "corpus", SOURCES[:1], BuildOptions())
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_kept_unless_it_is_to_be_replaced(tmp_path):
    build_corpus(tmp_path / "corpus", SOURCES[:1], BuildOptions())
    (tmp_path / "corpus" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="exists"):
        build_corpus(tmp_path / "corpus", SOURCES[:1], BuildOptions())
    assert (tmp_path / "corpus" / "mine.txt").exists()
    build_corpus(tmp_path / "corpus", SOURCES[:1], BuildOptions(overwrite=True))
    assert not (tmp_path / "corpus" / "mine.txt").exists()
    assert (tmp_path / "corpus" / "report.json").exists()


def test_what_is_no_corpus_is_never_deleted(tmp_path):
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    for path in (folder / "thesis.txt", file):
        path.write_text("years of work")
    for output in (folder, file):
        with pytest.raises(DataError, match="not deleted"):
            build_corpus(output, SOURCES[:1], BuildOptions(overwrite=True))
    assert (folder / "thesis.txt").read_text() == file.read_text() == "years of work"


def test_the_commands_build_and_measure(tmp_path, capsys):
    output = str(tmp_path / "corpus")
    assert main(["corpus", "build", output, f"user={SETS / 'user.csv'}", "--skip", "cut_words"]) == 0
    printed = capsys.readouterr().out
    assert "| dialogues kept | 2 |" in printed and "user: 1 not readable: an empty input or target" in printed
    assert main(["corpus", "stats", output]) == 0
    assert "| user | 2 | 3 |" in capsys.readouterr().out
    stored = json.loads((tmp_path / "corpus" / "statistics.json").read_text("utf-8"))["sources"]["user"]
    assert stored["targets"] == {"clinical": 1, "none": 2}
    assert (tmp_path / "corpus" / "statistics.png").read_bytes().startswith(b"\x89PNG")


def test_the_commands_refuse_what_is_wrong(tmp_path, capsys):
    assert main(["corpus", "build", str(tmp_path / "a"), "user=absent.csv"]) == 1
    assert capsys.readouterr().err == "error: There is no absent.csv; check the path.\n"
    assert main(["corpus", "stats", str(tmp_path)]) == 1
    capsys.readouterr()
    for wrong in (["user"], ["user=x", "--skip", "everything"], ["user=x", "--test", "2"]):
        with pytest.raises(SystemExit):
            main(["corpus", "build", str(tmp_path / "a"), *wrong])
    assert main(["corpus", "build", str(tmp_path / "a"), "user=x", "--tokenizer", str(tmp_path)]) == 1


def test_a_missing_package_is_named_with_its_command(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(SettingsError, match=r"rensa is not installed; run pip install '\.\[corpus\]'"):
        build_corpus(tmp_path / "corpus", SOURCES[:1], BuildOptions())
