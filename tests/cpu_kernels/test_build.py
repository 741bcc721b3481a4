"""Building the kernels: compiled once, kept, made again when damaged, done without where they cannot be."""

from __future__ import annotations

import logging
import os
import shutil

import pytest
import torch

from bianque.cpu_kernels import build
from bianque.quantization import cpu
from tests.quantization.test_cpu import exact, make_case, requires_kernel


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Forget the loaded kernel, before and after, and give the test a home of its own."""
    build._load_once.cache_clear()
    monkeypatch.setenv("HOME", str(tmp_path))
    yield tmp_path
    build._load_once.cache_clear()


@requires_kernel
def test_is_compiled_once_for_all_processes(fresh, monkeypatch):
    assert build.load_kernels() is not None
    folder = fresh / ".cache" / "bianque" / "kernels"
    assert [path.suffix for path in folder.iterdir()] == [".so"]
    assert folder.stat().st_mode & 0o077 == 0
    build._load_once.cache_clear()
    monkeypatch.setattr(build, "find_compiler", lambda: None)  # the cached file must do
    assert build.load_kernels() is not None


@requires_kernel
def test_another_source_is_another_file(fresh, monkeypatch, tmp_path):
    build.build_kernels(tmp_path)
    changed = tmp_path / "changed"
    shutil.copytree(build.FOLDER, changed)
    (changed / "pool.h").write_bytes((build.FOLDER / "pool.h").read_bytes() + b"\n")
    monkeypatch.setattr(build, "FOLDER", changed)
    build.build_kernels(tmp_path)
    assert len(list(tmp_path.glob("*.so"))) == 2


@requires_kernel
def test_a_damaged_file_is_compiled_again(tmp_path, caplog):
    good, damaged = tmp_path / "good", tmp_path / "damaged"
    good.mkdir()
    damaged.mkdir()
    build.build_kernels(good)
    (path,) = good.iterdir()
    (damaged / path.name).write_bytes(b"not a library")
    with caplog.at_level(logging.WARNING):
        build.build_kernels(damaged)
    assert "compiling the kernels again" in caplog.text
    assert (damaged / path.name).stat().st_size == path.stat().st_size


@requires_kernel
def test_a_home_that_cannot_be_written(fresh, monkeypatch):
    monkeypatch.setattr(build.Path, "home", lambda: build.Path(os.devnull))
    assert build.load_kernels() is not None


@pytest.mark.parametrize("fault", ["no compiler", "broken compiler", "no AVX2", "other system"])
def test_without_a_kernel_the_log_says_so_once(fresh, monkeypatch, caplog, fault):
    if fault == "no compiler":
        monkeypatch.setattr(build, "find_compiler", lambda: None)
    elif fault == "broken compiler":
        monkeypatch.setattr(build, "find_compiler", lambda: "/bin/false")
    elif fault == "no AVX2":
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    else:
        monkeypatch.setattr(build.sys, "platform", "win32")
    rows, weight, scale, bias = make_case(24, 64, 8)
    with caplog.at_level(logging.WARNING):
        product = cpu.linear(rows, weight, scale, bias, 8)
        cpu.linear(rows, weight, scale, bias, 8)
    assert caplog.text.count("several times slower") == 1
    assert torch.allclose(product, exact(rows, weight, scale, 8) + bias, atol=1e-3)
