"""Naming models: known names, repos, folders, and what is neither."""

from __future__ import annotations

import json

import pytest

from bianque.errors import SettingsError, SnapshotError
from bianque.manager.catalogue import KNOWN_MODELS, check_source, describe_folder, describe_source, fits
from bianque.manager.memory import Machine
from bianque.manager.registry import BIANQUE_2, MINI_ADVISER, MINI_LISTENER, SOULCHAT, Job
from bianque.settings import ModelSource

GB = 10**9
T5 = {"model_type": "t5", "d_model": 8, "d_ff": 16, "d_kv": 4, "num_heads": 2, "num_layers": 1, "vocab_size": 32}
CHATGLM = {
    "model_type": "chatglm",
    "hidden_size": 8,
    "inner_hidden_size": 16,
    "num_layers": 2,
    "vocab_size": 64,
    "max_sequence_length": 512,
}


def make(folder, config) -> ModelSource:
    (folder / "config.json").write_text(json.dumps(config))
    return ModelSource(str(folder))


@pytest.mark.parametrize("location", ["scutcyr/BianQue-2", "BianQue-2.0", "bianque-2.0"])
def test_a_known_model_by_name_or_repo(location):
    spec, source = describe_source(ModelSource(location, "abc"), Job.ADVISER)
    assert spec == BIANQUE_2
    assert source == ModelSource("scutcyr/BianQue-2", "abc")


def test_a_known_model_in_another_job_keeps_its_prompts():
    assert describe_source(ModelSource("mini-adviser"), Job.LISTENER)[0] == MINI_LISTENER
    spec, _ = describe_source(ModelSource("SoulChat"), Job.ADVISER)
    assert (spec.job, spec.template, spec.size) == (Job.ADVISER, "soulchat", SOULCHAT.size)


def test_a_folder_is_described_by_its_files(tmp_path):
    spec, source = describe_source(make(tmp_path, CHATGLM), Job.ADVISER)
    assert (spec.name, spec.family, spec.max_prompt_tokens, spec.licence) == (tmp_path.name, "chatglm", 512, "")
    assert spec.num_parameters == 2 * (4 * 64 + 2 * 128 + 24 + 8 + 16 + 8 + 32) + 16 + 512
    assert source.location == str(tmp_path)


def test_a_folder_of_the_other_architecture_is_decoded_as_that(tmp_path):
    spec, _ = describe_source(make(tmp_path, T5), Job.ADVISER)
    assert (spec.family, spec.max_prompt_tokens, spec.sampling.no_repeat_ngram_size) == ("t5", 768, 3)


@pytest.mark.parametrize("location", ["~nobody_at_all/model", "a" * 300])
def test_what_the_system_refuses_to_look_for_is_no_folder(location):
    assert describe_source(ModelSource(location), Job.ADVISER)[0].size is None


@pytest.mark.parametrize("wrong", [{"num_layers": 0}, {"max_sequence_length": -1}, {"vocab_size": float("inf")}])
def test_sizes_that_no_model_has_are_refused(tmp_path, wrong):
    spec, _ = describe_source(make(tmp_path, CHATGLM | wrong), Job.ADVISER)
    with pytest.raises(SnapshotError) as caught:
        describe_folder(tmp_path, spec)
    assert caught.value.key == "snapshot_config_invalid"


def test_an_adapter_whose_base_has_no_possible_name_is_described_later(tmp_path):
    config = {"peft_type": "LORA", "base_model_name_or_path": "owner/base..x"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert describe_source(ModelSource(str(tmp_path)), Job.ADVISER)[0].size is None


def test_a_repo_is_unknown_until_its_files_are_here():
    spec, _ = describe_source(ModelSource("me/tuned"), Job.ASKER)
    assert (spec.name, spec.family, spec.size, spec.num_parameters) == ("tuned", "t5", None, 0)


@pytest.mark.parametrize("config", [{"model_type": "llama"}, {}])
def test_another_architecture_is_refused(tmp_path, config):
    spec, _ = describe_source(make(tmp_path, config), Job.ADVISER)
    assert spec.size is None
    with pytest.raises(SnapshotError) as caught:
        describe_folder(tmp_path, spec)
    assert caught.value.key == "snapshot_wrong_architecture"
    assert "t5 / chatglm" in str(caught.value) and str(config.get("model_type")) in str(caught.value)


@pytest.mark.parametrize("change", [{"hidden_size": None}, {"num_layers": "many"}])
def test_a_configuration_without_sizes_is_refused(tmp_path, change):
    spec, _ = describe_source(make(tmp_path, CHATGLM | change), Job.ADVISER)
    with pytest.raises(SnapshotError) as caught:
        describe_folder(tmp_path, spec)
    assert caught.value.key == "snapshot_config_invalid"


def test_a_published_model_stays_as_it_is(tmp_path):
    make(tmp_path, T5)
    assert describe_folder(tmp_path, BIANQUE_2) is BIANQUE_2


@pytest.mark.parametrize(("name", "near"), [("bianque2", "BianQue-2.0"), ("soulchatt", "SoulChat"), ("zzz", "mini-")])
def test_an_unknown_name_gets_near_ones(name, near):
    with pytest.raises(SettingsError) as caught:
        check_source(ModelSource(name))
    assert caught.value.key == "model_unknown" and near in str(caught.value) and name in caught.value.text("zh")


@pytest.mark.parametrize(
    "location",
    ["SoulChat", "bianque-1.0", "me/tuned", "./tuned", "~/tuned", "C:\\models\\tuned", MINI_ADVISER.location],
)
def test_known_names_and_addresses_pass(location):
    check_source(ModelSource(location))


def test_what_fits_alone():
    by_precision = {fit.precision: fit for fit in fits(BIANQUE_2, Machine("cuda", "T4", 16 * GB, 15 * GB))}
    assert by_precision["fp32"].room_for == 0 and by_precision["fp16"].room_for == 2
    assert by_precision["int8"].room_for == 8
    assert by_precision["fp16"].needed_bytes > by_precision["fp16"].weight_bytes
    assert not any(
        fit.is_possible for fit in fits(BIANQUE_2, Machine("mps", "", 64 * GB, 64 * GB)) if fit.precision == "int8"
    )


def test_every_known_model_has_a_size():
    assert all(spec.num_parameters > 0 for spec in KNOWN_MODELS)
