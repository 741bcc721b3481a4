"""Choosing a backend for a CUDA device, and bringing up cpm_kernels, with stand-ins; `test_gpu.py` has the device."""

from __future__ import annotations

import ctypes
import logging
import sys
from typing import get_args

import numpy as np
import pytest
import torch

from bianque.quantization import cpm_backend, cuda
from bianque.quantization.scheme import dequantize, quantize
from bianque.settings import CudaBackendChoice


@pytest.fixture
def layer():
    torch.manual_seed(0)
    weight, scale = quantize(torch.randn(24, 64) * 0.05, 8)
    return weight, scale, torch.randn(24)


def unpacked(x, weight, scale, bias, bits):
    return torch.nn.functional.linear(x, dequantize(weight, scale, bits, x.dtype), bias)


@pytest.fixture
def backends(monkeypatch):
    """Backends that can be replaced, each with a time of its own; `calls` says which computed what."""
    calls = []

    class Backends:
        def __init__(self):
            self.calls = calls
            self.seconds = {"triton": 1.0, "cpm": 2.0, "torch": 3.0}
            self.able = {"triton", "cpm", "torch"}

        def replace(self, name, product):
            def recorded(*args):
                calls.append(name)
                return product(*args)

            monkeypatch.setitem(cuda._PRODUCTS, name, recorded)

    backends = Backends()
    for name in cuda.BACKENDS:
        backends.replace(name, unpacked)
    monkeypatch.setattr(cuda, "_chooser", cuda._Chooser())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(cuda, "can_compute", lambda name, kind: name in backends.able)

    def seconds_of(run):
        run()
        return backends.seconds[calls[-1]]

    monkeypatch.setattr(cuda, "_seconds_of", seconds_of)
    return backends


def run(layer, backends, *shape):
    x = torch.randn(*shape, 64)
    result = cuda.linear(x, *layer, 8)
    torch.testing.assert_close(result, unpacked(x, *layer, 8))
    return backends.calls[-1]


@pytest.mark.parametrize("fastest", cuda.BACKENDS)
def test_the_fastest_backend_is_kept(layer, backends, fastest):
    backends.seconds = {**backends.seconds, fastest: 0.5}
    assert run(layer, backends, 1) == fastest
    backends.calls.clear()
    assert run(layer, backends, 1) == fastest
    assert backends.calls == [fastest]  # without a second trial


def test_few_and_many_rows_are_tried_apart(layer, backends):
    assert run(layer, backends, 1) == "triton"
    backends.seconds = {"triton": 1.0, "cpm": 1.0, "torch": 0.5}
    assert run(layer, backends, 300) == "torch"
    assert run(layer, backends, 1) == "triton"


def test_a_backend_that_does_not_come_up_is_left_out_quietly(layer, backends, caplog):
    def fail(*args):
        raise ImportError("no driver\nand more")

    backends.replace("triton", fail)
    assert run(layer, backends, 2) == "cpm"
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.startswith("triton is not used for int8 products") and warning.endswith(": no driver")


@pytest.mark.parametrize("wrong", [lambda result: result * 1.02, lambda result: result * float("nan")])
def test_a_backend_with_wrong_results_is_left_out(layer, backends, wrong, caplog):
    backends.replace("triton", lambda *args: wrong(unpacked(*args)))
    assert run(layer, backends, 2) == "cpm"
    assert "off by" in caplog.text


def test_lack_of_memory_is_not_taken_for_a_missing_backend(layer, backends):
    def fail(*args):
        raise torch.OutOfMemoryError("full")

    backends.replace("triton", fail)
    with pytest.raises(torch.OutOfMemoryError):
        cuda.linear(torch.randn(1, 64), *layer, 8)


def test_a_preferred_backend_is_used_where_it_can_be(layer, backends, caplog):
    caplog.set_level(logging.INFO)
    cuda.prefer("cpm")
    assert run(layer, backends, 1) == "cpm"
    backends.able = {"triton", "torch"}
    assert run(layer, backends, 20) == "torch"
    cuda.prefer("auto")
    assert run(layer, backends, 1) == "triton"
    assert "int8 products of up to 1 float32 rows, 64 to 24, on cpu: computed by cpm" in caplog.text


def test_the_choice_in_force_leaves_what_has_been_found(layer, backends):
    assert run(layer, backends, 1) == "triton"
    backends.calls.clear()
    cuda.prefer("auto")
    assert run(layer, backends, 1) == "triton"
    assert backends.calls == ["triton"]  # without a second trial


def test_settings_offer_what_there_is():
    assert get_args(CudaBackendChoice) == get_args(cuda.BackendChoice)


def test_nothing_is_tried_while_a_graph_is_captured(layer, backends, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert run(layer, backends, 1) == "torch"
    assert backends.calls == ["torch"]
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert run(layer, backends, 1) == "triton"


def test_leading_dimensions_are_kept_and_may_be_empty(layer, backends):
    assert run(layer, backends, 2, 3) == "triton"
    assert cuda.linear(torch.randn(2, 0, 64), *layer, 8).shape == (2, 0, 24)


def test_pip_libraries_are_found_in_both_layouts(tmp_path):
    for path in (
        "cuda_runtime/lib/libcudart.so.12",
        "cublas/lib/libcublasLt.so.12",
        "cublas/lib/libcublas.so.12",
        "cu13/lib/libcudart.so.13",
        "cu13/lib/libcublasLt.so.13",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    folders = [tmp_path / "absent", tmp_path]
    assert cpm_backend.find_library("cudart", "12.8", folders) == str(tmp_path / "cuda_runtime/lib/libcudart.so.12")
    assert cpm_backend.find_library("cublasLt", "12.8", folders) == str(tmp_path / "cublas/lib/libcublasLt.so.12")
    assert cpm_backend.find_library("cudart", "13.0", folders) == str(tmp_path / "cu13/lib/libcudart.so.13")
    assert cpm_backend.find_library("nvrtc", "13.0", folders) is None
    assert cpm_backend.find_library("cudart", "11.8", folders) is None
    assert cpm_backend.find_library("cuda", "13.0", []) == "libcuda.so.1"


@pytest.fixture
def fake_package(tmp_path, monkeypatch):
    """A package that searches libraries and reads resources as cpm_kernels does."""
    files = {
        "__init__.py": "from . import library\nfrom .kernels import *\n",
        "library/__init__.py": "from .base import unix_find_lib\n"
        "OPENED = [unix_find_lib('cudart'), unix_find_lib('x')]\n",
        "library/base.py": "def unix_find_lib(name):\n    return f'system {name}'\n",
        "kernels/__init__.py": "from .base import *\n",
        "kernels/base.py": "import pkg_resources\nassert pkg_resources.resource_exists(__name__, 'cuda/a.fatbin')\n"
        "assert not pkg_resources.resource_exists(__name__, 'cuda/b.fatbin')\n"
        "CODE = pkg_resources.resource_string(__name__, 'cuda/a.fatbin')\n",
        "kernels/cuda/a.fatbin": "machine code",
    }
    for name, text in files.items():
        path = tmp_path / "cpm_kernels" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    forget_cpm_kernels()
    yield tmp_path / "cpm_kernels"
    forget_cpm_kernels()


def forget_cpm_kernels():
    for name in loaded_cpm_kernels():
        del sys.modules[name]


def loaded_cpm_kernels():
    return [name for name in sys.modules if name.split(".")[0] == "cpm_kernels"]


def test_the_package_opens_what_it_is_told_to_and_needs_no_pkg_resources(fake_package):
    before = sys.modules.get("pkg_resources")
    kernels = cpm_backend.import_kernels({"cudart": "/pip/libcudart.so.13"}.get)
    assert kernels.CODE == b"machine code"
    assert sys.modules["cpm_kernels.library"].OPENED == ["/pip/libcudart.so.13", "system x"]
    assert sys.modules.get("pkg_resources") is before


@pytest.mark.parametrize("error", ["RuntimeError('no driver')", "OSError('libcudart.so.13')", "AttributeError('x')"])
def test_a_failed_import_says_so_and_leaves_nothing_behind(fake_package, error):
    (fake_package / "kernels" / "base.py").write_text(f"raise {error}\n", encoding="utf-8")
    with pytest.raises(ImportError, match="does not come up"):
        cpm_backend.import_kernels(lambda name: None)
    assert loaded_cpm_kernels() == []


def test_a_missing_package_is_an_import_error(monkeypatch):
    monkeypatch.setattr(cpm_backend.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="not installed"):
        cpm_backend.import_kernels(lambda name: None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a driver here")
def test_the_real_package_fails_without_a_driver():
    with pytest.raises(ImportError):
        cpm_backend.load_kernels()
    assert loaded_cpm_kernels() == []


class HostKernels:
    """What the kernels of cpm_kernels compute, on the memory of the host, read from their machine code."""

    def gemv_calc_scale(self, batch, n, vec, out, stream):
        largest = np.abs(array(vec, np.float16, batch, n)).max(axis=1)
        array(out, np.float16, batch)[:] = (largest.astype(np.float32) / 127).astype(np.float16)

    def gemv_round(self, batch, n, vec, scale, out, stream):
        values = array(vec, np.float16, batch, n).astype(np.float32)
        quotients = np.rint(values / array(scale, np.float16, batch, 1))
        array(out, np.int8, batch, n)[:] = quotients.astype(np.int32).astype(np.int8)  # wraps around

    def gemv_broadcast_mat_int8(self, batch, dim_out, dim_in, scale_mat, mat, scale_vec, vec, out, stream):
        assert dim_in % 4 == 0
        sums = array(vec, np.int8, batch, dim_in).astype(int) @ array(mat, np.int8, dim_out, dim_in).astype(int).T
        scales = array(scale_vec, np.float16, batch, 1).astype(np.float32)
        scaled = sums.astype(np.float32) * scales * array(scale_mat, np.float16, dim_out)
        array(out, np.float16, batch, dim_out)[:] = scaled

    def gemm_int8(self, m, k, n, batch_a, batch_b, a_transposed, b_transposed, a, b, out, stream):
        assert m % 4 == n % 4 == k % 4 == 0 and (batch_a, batch_b) == (1, 1)
        assert a_transposed and not b_transposed
        left, right = array(a, np.int8, m, k).astype(int), array(b, np.int8, n, k).astype(int)
        array(out, np.int32, n, m)[:] = right @ left.T

    def gemm_scale(self, batch, n, m, mat, scale_x, scale_y, out, broadcast_x, broadcast_y, stream):
        sums = array(mat, np.int32, n, m).astype(np.float32)
        with np.errstate(all="ignore"):  # rows that only fill up hold anything
            scaled = sums * array(scale_x, np.float16, n, 1).astype(np.float32) * array(scale_y, np.float16, m)
            array(out, np.float16, n, m)[:] = scaled


def array(address, dtype, *shape):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)


@pytest.fixture
def cpm_linear(monkeypatch):
    monkeypatch.setattr(cpm_backend, "_stream_of", lambda x: 0)
    return lambda x, weight, scale, bias=None: cpm_backend.linear(x, weight, scale, bias, HostKernels())


@pytest.mark.parametrize("batch", [1, 2, 3, 8])
def test_two_digits_keep_small_values_beside_outliers(cpm_linear, batch):
    torch.manual_seed(batch)
    weight, scale = quantize(torch.randn(32, 512) * 0.05, 8)
    x = torch.randn(batch, 512)
    x[:, 7] *= 60
    x[-1] *= 100
    x, bias = x.half(), torch.randn(32).half()
    expected = unpacked(x.double(), weight, scale, bias.double(), 8)
    result = cpm_linear(x, weight, scale, bias).double()
    errors = (result - expected).norm(dim=1) / expected.norm(dim=1)
    assert errors.max() < 0.003
    # A single digit is an order of magnitude worse: the check would not pass by luck.
    digit = x.float().abs().amax(dim=1, keepdim=True) / 127
    single = unpacked((x / digit).round() * digit, weight, scale, bias.float(), 8)
    assert ((single - expected).norm(dim=1) / expected.norm(dim=1)).max() > 0.02


def test_rows_do_not_depend_on_their_neighbours(cpm_linear):
    weight, scale = quantize(torch.randn(32, 64) * 0.05, 8)
    x = torch.randn(4, 64).half()
    loud = x.clone()
    loud[1:] *= 500
    assert torch.equal(cpm_linear(x, weight, scale)[0], cpm_linear(loud, weight, scale)[0])


@pytest.mark.parametrize("size", [1.0, 1e-3, 2e-5, 1e-6, 0.0])
def test_tiny_values_do_not_wrap_around(cpm_linear, size):
    """fp16 scales are coarse there: without a guard 127 becomes −128."""
    weight, scale = quantize(torch.randn(8, 64) * 0.05, 8)
    x = (torch.randn(16, 64) * size).half()
    expected = unpacked(x.double(), weight, scale, None, 8)
    tolerance = 0.02 * expected.abs().max() + 2**-24
    assert (cpm_linear(x, weight, scale).double() - expected).abs().max() <= tolerance


def test_cpm_takes_what_it_has_machine_code_for():
    t4, l4, h100 = (7, 5), (8, 9), (9, 0)
    assert cpm_backend.supports(1, 4096, 12288, 8, torch.float16, t4)
    assert cpm_backend.supports(8, 4096, 12288, 8, torch.float16, l4)
    assert not cpm_backend.supports(1, 4096, 12288, 8, torch.float16, h100)
    assert not cpm_backend.supports(1, 4096, 12288, 4, torch.float16, l4)
    assert not cpm_backend.supports(1, 4096, 12288, 8, torch.bfloat16, l4)
    assert not cpm_backend.supports(1, 4098, 12288, 8, torch.float16, l4)
    assert not cpm_backend.supports(1, 4096, 130528, 8, torch.float16, l4)
