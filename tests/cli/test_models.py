"""`python -m bianque models`: the table, its JSON, the hardware table, wrong names."""

from __future__ import annotations

import json

import pytest

from bianque.cli import models
from bianque.cli.main import main
from bianque.cli.table import width_of
from bianque.manager.memory import Machine

GB = 10**9


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A T4, nothing named and nothing downloaded."""
    for name in ("BIANQUE_ASKER", "BIANQUE_ADVISER", "BIANQUE_LISTENER", "BIANQUE_MEMORY_GB", "BIANQUE_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(models, "probe_machine", lambda device: Machine("cuda", "Tesla T4", 16 * GB, 15 * GB))


@pytest.fixture
def printed(capsys):
    """Return a function that runs the command and returns what it prints."""

    def run(*arguments: str) -> str:
        assert main(["models", *arguments]) == 0
        return capsys.readouterr().out

    return run


def test_the_table_tells_sizes_disk_and_what_fits(printed):
    lines = printed().splitlines()
    assert "Tesla T4" in lines[0] and "16.0 GB" in lines[0]
    row = next(line for line in lines if line.startswith("BianQue-2.0 "))
    assert row.split()[3:5] == ["scutcyr/BianQue-2", "6.17"] and "24.7" in row and "6.7" in row and row.endswith("no")
    assert next(line for line in lines if line.startswith("mini-asker")).split()[-3:-1] == ["yes", "0.019"]
    fits = next(line for line in lines if line.startswith("BianQue-2.0 ["))
    assert "fp32 does not fit (needs 25.6 GB of the 14.5 GB" in fits and "int8 serves 8 at once" in fits


def test_chinese_columns_stand_in_line(printed):
    lines = printed("--language", "zh").splitlines()
    head, rule, *rows = lines[2:]
    starts = {width_of(row[: row.index("scutcyr")]) for row in rows if "scutcyr" in row and "[" not in row}
    assert starts == {width_of(head[: head.index("来源")])}
    assert set(rule) == {"─", " "}


def test_json_has_everything(printed):
    document = json.loads(printed("--json", "soulchat"))
    (model,) = document["models"]
    assert (model["name"], model["template"], model["family"]) == ("SoulChat", "soulchat", "chatglm")
    assert model["decoding"]["top_p"] == 0.75 and model["licence"] and model["on_disk"] == "absent"
    assert model["num_parameters"] == 6_173_286_400
    assert model["bytes"]["int4"] < model["bytes"]["int8"] < model["bytes"]["fp16"] < model["bytes"]["fp32"]
    assert document["machine"]["device_bytes"] == 16 * GB


def test_a_folder_can_be_looked_at(printed, tmp_path):
    folder = tmp_path / "tuned"
    folder.mkdir()
    config = {"model_type": "t5", "d_model": 8, "d_ff": 16, "d_kv": 4, "num_heads": 2, "num_layers": 1}
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 32}))
    (model,) = json.loads(printed("--json", str(folder)))["models"]
    assert (model["name"], model["family"], model["on_disk"]) == ("tuned", "t5", "partial")


def test_a_model_named_by_the_owner_is_listed(printed, monkeypatch):
    monkeypatch.setenv("BIANQUE_ADVISER", "me/tuned")
    assert "tuned: its size is known once it is here" in printed()


def test_an_unknown_name_is_one_sentence_and_exit_code_1(capsys):
    assert main(["models", "bianque-9"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1
    assert "BianQue-2.0" in captured.err


def test_the_hardware_table_is_markdown(printed):
    lines = printed("--hardware").splitlines()
    assert lines[1].startswith("|--")
    for name, words in {
        "t4-small": ("BianQue-1.0 + BianQue-2.0", "fp16 + int8"),
        "l4x1": ("SoulChat", "fp16"),
        "cpu-basic": ("mini-asker + mini-adviser", "fp32"),
        "ZeroGPU": ("BianQue-1.0 + BianQue-2.0", "fp16"),
    }.items():
        assert any(line.startswith(f"| {name} ") and all(word in line for word in words) for line in lines), name
