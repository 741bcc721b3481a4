"""The command line of fine-tuning."""

from __future__ import annotations

import pytest

from bianque.cli.main import main
from bianque.finetune.options import PRESETS, FinetuneOptions
from tests.finetune.conftest import CHATGLM


def test_a_run_from_the_command_line(tmp_path, samples, capsys):
    arguments = ["finetune", "train", str(samples), str(tmp_path / "run"), "--model", str(CHATGLM), "--device", "cpu"]
    options = ["--max-steps", "2", "--patience", "0", "--lora-targets", "dense", "--checkpointing", "--log-every", "1"]
    assert main([*arguments, *options]) == 0
    printed = capsys.readouterr().out
    assert "step 2/2 · loss" in printed and "| peak memory |" in printed
    assert f"BIANQUE_LISTENER={tmp_path / 'run' / 'adapter'}" in printed
    assert main([*arguments, *options]) == 1
    assert "--resume" in capsys.readouterr().err


def test_presets_are_printed_with_what_they_correct(capsys):
    assert main(["finetune", "presets"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{name}: " in printed for name in PRESETS)
    assert "labels were shifted by hand" in printed


@pytest.mark.parametrize("arguments", [["--warmup", "1"], ["--lora-dropout", "-1"], ["--max-steps", "-1"]])
def test_wrong_numbers_are_wrong_arguments(tmp_path, samples, arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["finetune", "train", str(samples), str(tmp_path / "run"), *arguments])
    assert caught.value.code == 2
    assert "must be" in capsys.readouterr().err


def test_the_published_recipe_keeps_its_numbers():
    recipe = PRESETS["bianque-1"].options
    assert (recipe.method, recipe.learning_rate, recipe.schedule, recipe.epochs) == ("full", 5e-5, "constant", 1.0)
    assert recipe.batch_size * recipe.accumulation == 32
    assert (recipe.max_prompt_tokens, recipe.max_target_tokens) == (512, 512)


def test_options_are_checked():
    for values in ({"learning_rate": 0.0}, {"batch_size": 0}, {"warmup": 1.0}, {"patience": -1}):
        with pytest.raises(ValueError, match=next(iter(values))):
            FinetuneOptions(**values)
