from __future__ import annotations

import json

import pytest

from bianque.errors import SnapshotError
from bianque.manager.download.snapshot import check_snapshot, resolve_snapshot, snapshot_on_disk
from bianque.manager.weights.shards import find_shards
from bianque.settings import ModelSource


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "chatglm"}), encoding="utf-8")
    (tmp_path / "ice_text.model").write_bytes(b"tokenizer")
    shards = {"lm_head.weight": "pytorch_model-00001-of-00002.bin", "x": "pytorch_model-00002-of-00002.bin"}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": shards}), encoding="utf-8")
    for shard in shards.values():
        (tmp_path / shard).write_bytes(b"weights")
    return tmp_path


def refused(folder, family="chatglm") -> SnapshotError:
    with pytest.raises(SnapshotError) as caught:
        check_snapshot(folder, family)
    return caught.value


def test_a_complete_folder_passes(folder):
    check_snapshot(folder, "chatglm")


@pytest.mark.parametrize("name", ["config.json", "ice_text.model", "pytorch_model-00002-of-00002.bin"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    error = refused(folder)
    assert error.key == "snapshot_file_missing"
    assert name in str(error) and name in error.text("zh")


def test_no_weights_at_all(folder):
    for path in folder.glob("pytorch_model*"):
        path.unlink()
    assert "model.safetensors" in str(refused(folder))


def test_another_architecture_is_named(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    error = refused(folder)
    assert error.key == "snapshot_wrong_architecture"
    assert "llama" in str(error) and "chatglm" in str(error)


@pytest.mark.parametrize("content", ["{", "[1]", '{"model_type": "chatglm"'])
def test_an_unreadable_config_is_named(folder, content):
    (folder / "config.json").write_text(content, encoding="utf-8")
    error = refused(folder)
    assert error.key == "snapshot_config_invalid" and "config.json" in str(error)


def test_an_index_without_a_map_is_named(folder):
    (folder / "pytorch_model.bin.index.json").write_text("{}", encoding="utf-8")
    assert "pytorch_model.bin.index.json" in str(refused(folder))


def test_the_weights_that_are_loaded_are_those_that_are_checked(folder):
    (folder / "pytorch_model.bin").write_bytes(b"weights")
    shards = {"x": "model-00001-of-00001.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}), encoding="utf-8")
    assert "model-00001-of-00001.safetensors" in str(refused(folder))
    (folder / shards["x"]).write_bytes(b"weights")
    check_snapshot(folder, "chatglm")
    assert [path.name for path in find_shards(folder)] == [shards["x"]]


@pytest.mark.parametrize(
    "location", ["/no/such/folder", "./models/x", "folder", "a/b/c", "~/models", "~nobody_at_all/x"]
)
def test_a_missing_folder_is_named(location):
    with pytest.raises(SnapshotError) as caught:
        resolve_snapshot(ModelSource(location))
    assert caught.value.key == "snapshot_folder_missing"
    assert location.split("/")[-1] in str(caught.value)


def test_a_local_folder_is_taken_as_it_is(folder):
    assert resolve_snapshot(ModelSource(str(folder))) == folder


def test_a_local_folder_is_judged_by_its_weights(folder):
    source = ModelSource(str(folder))
    num_bytes = sum(path.stat().st_size for path in folder.iterdir())
    assert snapshot_on_disk(source) == ("complete", num_bytes)
    (folder / "pytorch_model-00001-of-00002.bin").unlink()
    assert snapshot_on_disk(source)[0] == "partial"
    (folder / "pytorch_model.bin.index.json").write_text("{", encoding="utf-8")
    assert snapshot_on_disk(source)[0] == "partial"


def test_an_empty_folder_holds_no_model(tmp_path):
    assert snapshot_on_disk(ModelSource(str(tmp_path))) == ("absent", 0)
