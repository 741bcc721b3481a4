"""Whole runs: learning by heart, going on after an interruption, and everything that ends a run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from bianque.consultation.messages import Message, Mode, ReplyOptions, Role
from bianque.consultation.service import ConsultationService
from bianque.errors import DataError, SettingsError, SnapshotError, TrainingError
from bianque.manager.manager import ModelManager
from bianque.settings import ModelSource, Settings
from tests.finetune.conftest import CHATGLM, QUICK, T5
from tests.finetune.dialogues import COMPLAINTS, answer_for, write_samples

FULL = replace(QUICK, method="full", lora_dropout=0.0)


class Interrupted(Exception):
    """Stands for whatever ends a process."""


class Stop(TrainerCallback):
    """Ends a run in the middle of a step."""

    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == self.step:
            raise Interrupted


class Poison(TrainerCallback):
    """Makes one trained weight or its gradient NaN before a step."""

    def __init__(self, step, *, gradient=False):
        self.step, self.gradient = step, gradient

    def on_step_begin(self, args, state, control, model=None, **_):
        if state.global_step != self.step - 1:
            return
        weight = next(value for value in model.parameters() if value.requires_grad)
        if self.gradient:
            weight.register_hook(lambda gradient: gradient * float("nan"))
        else:
            weight.data.fill_(float("nan"))


def weights_of(folder):
    return load_file(next(folder.glob("*.safetensors")))


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def losses(report):
    return [entry["loss"] for entry in report.history if "loss" in entry]


@pytest.mark.parametrize("job", ["adviser", "listener"])
def test_a_tuned_model_answers_through_the_service(tuned, job):
    """Each reply is 20 characters of its own; nothing but the training could have made it."""
    manager = ModelManager(Settings(models="demo", **{job: ModelSource(tuned.result)}, num_slots=1))
    manager.start()
    mode = Mode.ADVISER if job == "adviser" else Mode.SOULCHAT
    service = ConsultationService(manager)
    try:
        complaints = COMPLAINTS if job == "adviser" else COMPLAINTS[:2]
        for complaint in complaints:
            messages = [Message(Role.USER, f"我{complaint}")]
            *_, final = service.reply(messages, ReplyOptions(mode, temperature=0, max_new_tokens=64), visitor="v")
            assert (final.text, final.model) == (answer_for(complaint), "clinic")
    finally:
        manager.shutdown()


def test_a_tuned_model_answers_through_the_page(tuned, serve):
    from gradio_client import Client

    manager = ModelManager(Settings(models="demo", adviser=ModelSource(tuned.result), num_slots=1))
    manager.start()
    url = serve(ConsultationService(manager))
    client = Client(url, verbose=False, analytics_enabled=False)
    try:
        reply, details = client.predict(
            api_name="/chat",
            message=f"我{COMPLAINTS[3]}",
            history=[],
            mode="bianque-2.0",
            top_p=1.0,
            temperature=0,
            max_new_tokens=64,
            seed=1,
        )
        assert reply == answer_for(COMPLAINTS[3]) and details["model"] == "clinic"
    finally:
        client.close()
        serve.stop(url)
        manager.shutdown()


def test_the_report_tells_what_was_done(tuned):
    from pathlib import Path

    folder = Path(tuned.result).parent
    assert tuned.train_losses[-1][1] < 0.05 < 1 < tuned.train_losses[0][1]
    assert 0 < tuned.num_trained < 0.2 * tuned.num_parameters
    assert tuned.tokens_per_second > 0 and 0 <= tuned.padding_share < 0.3 and tuned.peak_memory_bytes > 50e6
    report = json.loads((folder / "report.json").read_text("utf-8"))
    assert report["steps"] == 60 and report["base"] == "mini-adviser"
    assert "training loss" in (folder / "report.md").read_text("utf-8")
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((folder / "tensorboard").glob("events.out.tfevents.*"))


def test_t5_is_tuned_whole_and_opens_as_a_model(run, tmp_path, samples):
    options = replace(FULL, max_steps=30, learning_rate=0.01, save_every=15, batch_size=10)
    report = run(options, model=ModelSource(str(T5)), validation=samples)
    assert losses(report)[-1] < losses(report)[0] - 0.5
    assert report.num_trained == report.num_parameters
    assert report.best_step in (15, 30)
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert config == json.loads((T5 / "config.json").read_text())
    manager = ModelManager(Settings(models="demo", asker=ModelSource(report.result), num_slots=1))
    manager.start()
    try:
        options = ReplyOptions(Mode.ASKER, temperature=0, max_new_tokens=16)
        *_, final = ConsultationService(manager).reply([Message(Role.USER, "我咳嗽")], options, visitor="v")
        assert final.model == "model" and final.text
    finally:
        manager.shutdown()


@pytest.mark.parametrize("options", [QUICK, replace(FULL, accumulation=2), replace(QUICK, is_checkpointing=True)])
def test_a_resumed_run_equals_an_uninterrupted_one(run, tmp_path, samples, options):
    """Dropout, order, optimizer, schedule and early stopping all have to go on where they were.

    An epoch has five batches, so that the run goes on in the middle of the second one.
    """
    job = {"validation": samples}
    options = replace(options, max_steps=10, patience=5, save_every=2 if options.accumulation > 1 else 4)
    whole = run(options, output=tmp_path / "whole", **job)
    with pytest.raises(Interrupted):
        run(options, output=tmp_path / "parts", callbacks=[Stop(9 if options.accumulation == 1 else 5)], **job)
    lines = []
    parts = run(options, output=tmp_path / "parts", resume=True, lines=lines, **job)
    assert f"going on from checkpoint-{8 if options.accumulation == 1 else 4}" in lines
    name = "adapter" if options.method == "lora" else "model"
    assert_equal(weights_of(tmp_path / "whole" / name), weights_of(tmp_path / "parts" / name))
    assert losses(whole) == losses(parts)
    assert whole.validation_losses == parts.validation_losses


def test_a_checkpoint_that_was_being_written_is_not_used(run, tmp_path):
    with pytest.raises(Interrupted):
        run(replace(QUICK, save_every=1, keep=3), callbacks=[Stop(3)])
    checkpoints = tmp_path / "run" / "checkpoints"
    (checkpoints / "checkpoint-3" / "trainer_state.json").unlink()
    state = checkpoints / "checkpoint-2" / "trainer_state.json"
    state.write_text(state.read_text()[:40])
    lines = []
    report = run(replace(QUICK, save_every=1, keep=3), resume=True, lines=lines)
    assert "going on from checkpoint-1" in lines and report.steps == 4


def test_a_run_that_ended_before_its_first_checkpoint_begins_again(run):
    with pytest.raises(Interrupted):
        run(callbacks=[Stop(1)])
    assert run(resume=True).steps == 4


def test_a_folder_that_is_taken_is_not_touched(run, tmp_path):
    def key(options=QUICK, **job):
        with pytest.raises(DataError) as caught:
            run(options, **job)
        return caught.value.key

    assert key(resume=True) == "finetune_nothing_to_resume"
    run()
    assert key() == "finetune_folder_taken"
    assert key(replace(QUICK, seed=1), resume=True) == "finetune_other_run"
    assert key(data=write_samples(tmp_path / "other.jsonl", 3), resume=True) == "finetune_other_run"
    run(replace(QUICK, log_every=2), resume=True)
    assert run(replace(QUICK, seed=1), overwrite=True).steps == 4
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    assert key(output=tmp_path / "mine") == "output_exists"
    assert key(output=tmp_path / "mine", overwrite=True) == "finetune_not_a_run"
    assert (tmp_path / "mine" / "letter.txt").exists()


def test_a_loss_that_is_not_finite_ends_the_run_with_step_and_rows(run):
    with pytest.raises(TrainingError) as caught:
        run(callbacks=[Poison(3)])
    error = caught.value
    assert (error.key, error.params["step"]) == ("finetune_loss_not_finite", 3)
    assert len(error.params["rows"].split(", ")) == 4
    assert "第 3 步" in error.text("zh")


def test_gradients_that_are_not_finite_never_reach_the_weights(run, tmp_path):
    with pytest.raises(TrainingError) as caught:
        run(replace(QUICK, save_every=1), callbacks=[Poison(2, gradient=True)])
    assert (caught.value.key, caught.value.params["step"]) == ("finetune_gradient_not_finite", 2)
    last = weights_of(tmp_path / "run" / "checkpoints" / "checkpoint-1")
    assert all(bool(value.isfinite().all()) for value in last.values())


def test_training_stops_when_validation_gets_no_better(run, samples):
    options = replace(QUICK, learning_rate=1e-30, max_steps=40, save_every=1, patience=2)
    report = run(options, validation=samples)
    assert report.steps < 10 and report.best_step is not None


@pytest.mark.parametrize("fixture", [CHATGLM, T5], ids=["chatglm", "t5"])
def test_accumulated_batches_weigh_tokens_not_batches(run, tmp_path, fixture):
    """One batch of four and four of one are the same step, whatever the lengths of the targets."""
    data = write_samples(tmp_path / "samples.jsonl", 4)
    first, *others = data.read_text("utf-8").splitlines()
    short = json.dumps(json.loads(first) | {"target": "好。"}, ensure_ascii=False)
    data.write_text("\n".join([short, *others]) + "\n", "utf-8")
    base = shutil.copytree(fixture, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    if "dropout_rate" in config:
        config["dropout_rate"] = 0.0
        (base / "config.json").write_text(json.dumps(config))
    logs = []
    for name, batch, accumulation in (("one", 4, 1), ("four", 1, 4)):
        options = replace(FULL, max_steps=1, save_every=0, batch_size=batch, accumulation=accumulation)
        report = run(options, data=data, output=tmp_path / name, model=ModelSource(str(base)))
        logs.append(report.history[0])
    assert logs[0]["loss"] == pytest.approx(logs[1]["loss"], rel=1e-4)
    assert logs[0]["grad_norm"] == pytest.approx(logs[1]["grad_norm"], rel=1e-3)


def test_what_cannot_be_is_refused_before_anything_is_loaded(run, tmp_path, samples):
    def key(options=QUICK, error=SettingsError, **job):
        with pytest.raises(error) as caught:
            run(options, **job)
        assert not (tmp_path / "run").exists() or error is not SettingsError
        return caught.value.key

    assert key(replace(QUICK, precision="fp16")) == "finetune_precision_impossible"
    assert key(replace(QUICK, base_precision="fp16")) == "finetune_precision_impossible"
    assert key(replace(FULL, base_precision="int8")) == "finetune_full_needs_floats"
    assert key(replace(QUICK, patience=1)) == "finetune_no_validation"
    assert key(replace(QUICK, max_prompt_tokens=2000)) == "finetune_lengths_too_long"
    assert key(model=ModelSource("bianqu")) == "model_unknown"
    assert key(model=ModelSource("./none"), error=SnapshotError) == "snapshot_folder_missing"
    assert key(replace(QUICK, lora_targets=("q_proj",)), error=DataError) == "finetune_target_unknown"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(run):
    with pytest.raises(SettingsError) as caught:
        run(device="cuda")
    assert caught.value.key == "device_unavailable"


@pytest.mark.parametrize("base_precision", ["int8", "int4", "bf16"])
def test_adapters_are_trained_beside_other_precisions(run, base_precision):
    options = replace(QUICK, base_precision=base_precision, max_steps=20, save_every=0, learning_rate=0.02)
    report = run(replace(options, is_checkpointing=base_precision == "int8"))
    assert losses(report)[-1] < losses(report)[0]


def test_bf16_computes_on_the_cpu(run):
    report = run(replace(QUICK, precision="bf16"))
    assert all(0 < loss < 20 for loss in losses(report))


def test_adafactor_and_chosen_linears(run, tmp_path):
    run(replace(QUICK, optimizer="adafactor", lora_targets=("query_key_value",), max_steps=1, save_every=0))
    names = weights_of(tmp_path / "run" / "adapter")
    assert {name.split(".")[-3] for name in names} == {"query_key_value"}
