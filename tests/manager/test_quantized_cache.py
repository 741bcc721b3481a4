"""The cache of quantized weights: equal to what it stands for, found out when damaged, and never in the way."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from bianque.manager.loader import choose_cache_folder
from bianque.manager.weights import quantized_cache
from bianque.manager.weights.load import load_weights
from bianque.manager.weights.quantized_cache import QuantizedCache, checksum, is_hub_snapshot
from bianque.settings import Settings
from scripts.make_checkpoint import make_checkpoint
from tests.manager.test_weights import EMBEDDING, FAMILIES, logits, same_state

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folders = {model: tmp_path_factory.mktemp(model) for model in FAMILIES}
    for model, folder in folders.items():
        make_checkpoint(folder, model, "tiny")
    return folders


@pytest.fixture
def cache_folder(tmp_path):
    return tmp_path / "cache"


def load(folder, cache_folder, family="chatglm", precision="int8", report=None):
    return load_weights(folder, family, device="cpu", precision=precision, cache_folder=cache_folder, report=report)


def kept(cache_folder) -> list[Path]:
    return sorted(cache_folder.glob("*.safetensors"))


def bytes_read(folder, cache_folder) -> int:
    totals = set()
    load(folder, cache_folder, report=lambda done, total: totals.add(total))
    return totals.pop()


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("model", FAMILIES)
def test_the_next_start_gives_the_same_model_bit_for_bit(made, cache_folder, model, precision):
    family = FAMILIES[model]
    plain = load(made[model], None, family, precision)
    first = load(made[model], cache_folder, family, precision)
    assert len(kept(cache_folder)) == 1
    second = load(made[model], cache_folder, family, precision)
    assert same_state(first, plain) and same_state(second, plain)
    assert torch.equal(logits(second, family), logits(plain, family))
    assert not list(cache_folder.glob("*.partial"))


def test_the_next_start_reads_the_kept_file_only(made, cache_folder):
    uncached = bytes_read(made["bianque-2"], cache_folder)
    assert bytes_read(made["bianque-2"], cache_folder) < uncached


def test_other_tools_can_read_the_kept_file(made, cache_folder):
    load(made["bianque-2"], cache_folder)
    with safe_open(kept(cache_folder)[0], framework="pt") as file:
        name = "transformer.layers.0.mlp.dense_4h_to_h.weight"
        assert file.get_tensor(name).dtype == torch.int8
        assert file.get_tensor(f"{name}_scale").dtype == torch.float16
        # Each digit of embedding and head once.
        assert file.get_tensor(f"{EMBEDDING}_low").dtype == file.get_tensor(EMBEDDING).dtype == torch.int8
        assert not any(name.startswith("lm_head") for name in file.keys())


def test_float_precisions_keep_nothing(made, cache_folder):
    load(made["bianque-2"], cache_folder, precision="fp16")
    assert not cache_folder.exists()


def test_what_is_published_quantized_is_not_kept_again(tmp_path, cache_folder):
    make_checkpoint(tmp_path / "model", "bianque-2", "tiny", bits=8)
    load(tmp_path / "model", cache_folder)
    assert not cache_folder.exists()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-500])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3000] ^= 1
    path.write_bytes(content)


def zero_a_page(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-8192:-4096] = bytes(4096)
    path.write_bytes(content)


def break_header(path: Path) -> None:
    path.write_bytes(b"not a header" + path.read_bytes()[12:])


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, zero_a_page, break_header])
def test_a_damaged_file_is_made_again(made, cache_folder, damage, caplog):
    expected = load(made["bianque-2"], cache_folder)
    path = kept(cache_folder)[0]
    good = path.read_bytes()
    damage(path)
    assert same_state(load(made["bianque-2"], cache_folder), expected)
    assert path.read_bytes() == good
    assert "is damaged" in caplog.text


def test_a_changed_snapshot_is_not_served_from_the_old_file(made, cache_folder, tmp_path):
    folder = Path(shutil.copytree(made["bianque-2"], tmp_path / "model"))
    load(folder, cache_folder)
    old = kept(cache_folder)
    make_checkpoint(folder, "bianque-2", "tiny", seed=2)
    changed = load(folder, cache_folder)
    assert same_state(changed, load(folder, None))
    assert len(kept(cache_folder)) == 1 and kept(cache_folder) != old


def test_snapshots_and_precisions_have_their_own_files(made, cache_folder, tmp_path):
    for folder in (made["bianque-2"], Path(shutil.copytree(made["bianque-2"], tmp_path / "model"))):
        for precision in ("int8", "int4"):
            load(folder, cache_folder, precision=precision)
    assert len(kept(cache_folder)) == 4


def test_a_full_disk_leaves_the_model_and_no_file(made, cache_folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(quantized_cache.shutil, "disk_usage", lambda path: usage(10, 10, 1_000_000))
    load(made["bianque-2"], cache_folder)
    assert not kept(cache_folder)


def test_a_write_that_fails_leaves_the_model_and_no_file(made, cache_folder, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(quantized_cache.os, "replace", fail)
    load(made["bianque-2"], cache_folder)
    assert not kept(cache_folder) and not list(cache_folder.glob("*.partial"))


def test_memory_that_runs_out_while_writing_leaves_the_model_and_no_file(made, cache_folder, monkeypatch):
    """It would be taken for a model that does not fit, and a lower precision be loaded in its place."""

    def quantized(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr("bianque.manager.weights.filling._quantized", quantized)
    load(made["bianque-2"], cache_folder)
    assert not kept(cache_folder) and not list(cache_folder.glob("*.partial"))


def test_a_folder_that_cannot_be_made_is_no_obstacle(made, tmp_path):
    (tmp_path / "file").write_text("")
    assert same_state(load(made["bianque-2"], tmp_path / "file" / "cache"), load(made["bianque-2"], None))


def test_one_process_writes_and_the_other_only_loads(made, cache_folder):
    cache = QuantizedCache.locate(cache_folder, made["bianque-2"], "chatglm-int8-cpu")
    with cache.lock() as is_mine:
        assert is_mine
        load(made["bianque-2"], cache_folder)
        assert not kept(cache_folder)
    load(made["bianque-2"], cache_folder)
    assert kept(cache_folder) == [cache.path]


def test_a_partial_file_of_a_killed_process_does_not_stay(made, cache_folder):
    cache = QuantizedCache.locate(cache_folder, made["bianque-2"], "chatglm-int8-cpu")
    cache_folder.mkdir()
    cache.path.with_suffix(".partial").write_bytes(b"half")
    load(made["bianque-2"], cache_folder)
    assert kept(cache_folder) == [cache.path] and not list(cache_folder.glob("*.partial"))


def hub_snapshot(folder: Path, tmp_path: Path) -> Path:
    """Lay a checkpoint out as the Hub's cache has it: links to blobs named by their checksums."""
    repo = tmp_path / "models--scutcyr--BianQue-2"
    (repo / "blobs").mkdir(parents=True)
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        shutil.copyfile(path, repo / "blobs" / f"blob{number}")
        os.symlink(f"../../blobs/blob{number}", snapshot / path.name)
    return snapshot


def test_hub_snapshots_are_recognised_by_revision_and_blobs(made, cache_folder, tmp_path):
    snapshot = hub_snapshot(made["bianque-2"], tmp_path)
    assert is_hub_snapshot(snapshot) and not is_hub_snapshot(made["bianque-2"])
    load(snapshot, cache_folder)
    assert kept(cache_folder)[0].name.startswith("scutcyr--BianQue-2-chatglm-int8-cpu-")
    for path in snapshot.iterdir():  # a new download of the same blobs
        os.utime(path.resolve(), (1, 1))
    assert QuantizedCache.locate(cache_folder, snapshot, "chatglm-int8-cpu").path == kept(cache_folder)[0]


def test_who_gets_a_cache(made, tmp_path):
    snapshot, folder = hub_snapshot(made["bianque-2"], tmp_path), made["bianque-2"]
    assert choose_cache_folder(snapshot, Settings())
    assert choose_cache_folder(folder, Settings()) is None
    assert choose_cache_folder(folder, Settings(quantized_cache="on"))
    assert choose_cache_folder(snapshot, Settings(quantized_cache="off")) is None
    assert choose_cache_folder(snapshot, Settings(is_space=True)) is None


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 4097])
def test_checksums_see_every_byte(size):
    tensor = torch.arange(size).to(torch.int8)
    for index in range(0, size, max(1, size // 5)):
        other = tensor.clone()
        other[index] += 1
        assert checksum(other) != checksum(tensor)
    assert checksum(tensor.clone()) == checksum(tensor)
