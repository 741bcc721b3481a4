"""Loading real files: the tiny T5 of the fixtures, whole and damaged in every way a download can be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bianque.engine.sampling import SamplingParams
from bianque.errors import SettingsError, SnapshotError
from bianque.manager.loader import choose_device, choose_precision, load_model
from bianque.manager.registry import MINI_ASKER
from bianque.quantization import cuda
from bianque.settings import Settings

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "t5"


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(FIXTURE, tmp_path / "model"))


@pytest.fixture
def load():
    loaded = []

    def load_folder(folder, **settings):
        loaded.append(load_model(folder, MINI_ASKER, Settings(**settings), has_cuda=False))
        return loaded[-1]

    yield load_folder
    for model in loaded:
        model.engine.shutdown()


def rewrite(folder: Path, change) -> None:
    """Apply `change` to the tensors of a snapshot."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def refused(load, folder) -> SnapshotError:
    with pytest.raises(SnapshotError) as caught:
        load(folder)
    return caught.value


def test_a_snapshot_generates(load, folder):
    loaded = load(folder)
    sequence = loaded.engine.submit(
        loaded.encode("病人：咳嗽\\n医生："), SamplingParams(temperature=0, max_new_tokens=5)
    )
    assert isinstance(loaded.decode(list(loaded.engine.stream(sequence))), str)
    assert sequence.finish_reason in ("stop", "length")
    assert (loaded.device, loaded.dtype) == ("cpu", "fp32")
    assert loaded.num_parameters > 0


def test_pickled_shards_give_the_same_model(load, folder):
    expected = load(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({name: tensors[name] for name in part}, folder / shard)
        weight_map |= dict.fromkeys(part, shard)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    loaded = load(folder)
    params = SamplingParams(temperature=0, max_new_tokens=20)
    prompt_ids = loaded.encode("病人：头痛\\n医生：")
    replies = [list(each.engine.stream(each.engine.submit(prompt_ids, params))) for each in (expected, loaded)]
    assert replies[0] == replies[1]


@pytest.mark.parametrize("precision", ["bf16", "fp16", "int8", "int4"])
def test_other_precisions_generate(load, folder, precision):
    loaded = load(folder, precision=precision)
    assert loaded.dtype == precision
    params = SamplingParams(temperature=0, max_new_tokens=5)
    sequence = loaded.engine.submit(loaded.encode("病人：咳嗽\\n医生："), params)
    assert list(loaded.engine.stream(sequence))


def test_a_truncated_safetensors_file_is_named(load, folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    error = refused(load, folder)
    assert error.key == "snapshot_shard_damaged" and "model.safetensors" in str(error)


def test_a_truncated_pickled_shard_is_named(load, folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weights = folder / "pytorch_model.bin"
    torch.save(tensors, weights)
    weights.write_bytes(weights.read_bytes()[:-1000])
    error = refused(load, folder)
    assert error.key == "snapshot_shard_damaged" and "pytorch_model.bin" in str(error)


def test_a_pickle_that_would_run_code_is_refused(load, folder, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (folder / "model.safetensors").unlink()
    torch.save({"shared.weight": Trap()}, folder / "pytorch_model.bin")
    refused(load, folder)
    assert not (tmp_path / "ran").exists()


def test_missing_tensors_are_named(load, folder):
    rewrite(folder, lambda tensors: tensors.pop("decoder.block.0.layer.0.SelfAttention.q.weight"))
    error = refused(load, folder)
    assert error.key == "snapshot_tensors_mismatch"
    assert "decoder.block.0.layer.0.SelfAttention.q.weight" in str(error)


def test_extra_tensors_are_named(load, folder):
    rewrite(folder, lambda tensors: tensors.update({"adapter.weight": torch.zeros(2)}))
    assert "adapter.weight" in str(refused(load, folder))


def test_misshapen_tensors_are_named(load, folder):
    name = "encoder.final_layer_norm.weight"
    rewrite(folder, lambda tensors: tensors.update({name: torch.zeros(3)}))
    assert name in str(refused(load, folder))


@pytest.mark.parametrize("name", ["config.json", "spiece.model", "tokenizer_config.json", "model.safetensors"])
def test_a_missing_file_is_named(load, folder, name):
    (folder / name).unlink()
    error = refused(load, folder)
    assert error.key == "snapshot_file_missing" and name in str(error)


def test_a_damaged_tokenizer_is_named(load, folder):
    (folder / "spiece.model").write_bytes(b"not a model")
    assert "spiece.model" in str(refused(load, folder))


def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(SettingsError) as caught:
        choose_device("cuda:1", has_cuda=False)
    assert "cuda:1" in str(caught.value)


def test_the_backend_asked_for_is_set_before_anything_is_multiplied_on_a_gpu(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(cuda, "prefer", asked.append)
    for device, has_cuda in (("cuda:0", True), ("cpu", True)):
        with pytest.raises(SnapshotError):  # nothing is there to load
            load_model(tmp_path, MINI_ASKER, Settings(device=device, cuda_backend="triton"), has_cuda=has_cuda)
    assert asked == ["triton"]


def test_device_and_precision_choices():
    assert choose_device("auto", has_cuda=False) == "cpu"
    assert choose_device("auto", has_cuda=True) == "cuda"
    assert choose_precision("auto", "cpu") == "fp32"
    assert choose_precision("auto", "cuda:0") == "fp16"
    assert choose_precision("bf16", "cpu") == "bf16"
