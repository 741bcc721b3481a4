"""Products with int8 weights by the compiled kernels of cpm_kernels: tensor cores from compute capability 7.5 on.

They need neither a compiler nor Triton, which has no tensor cores on a T4. What they multiply is int8 on both sides,
so x is written with two int8 digits for each value, and both digits of all rows go through one product:

    x = s₁·a + r,   256·r ≈ s₂·b        a, b int8, s a row's largest magnitude / 127
    y = s₁·(a · Qᵀ)·s + s₂·(b · Qᵀ)·s / 256 + bias

The digits leave an error of at most 1/64,000 of a row's largest value in every value of that row: outliers of one row
do not touch another, and an outlier 60 times the rest costs the rest about 0.1 %, where one digit would cost 10 %.

Importing cpm_kernels opens libcuda, libcudart, libcublasLt and libnvrtc where a system installation has them. Here it
is made to look into pip's nvidia packages first, and to do without pkg_resources, which setuptools no longer has.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from bianque.quantization.scheme import Bits

# What the package has machine code for; 8.9 runs that of 8.6, and there is nothing for later cards.
_FIRST_CAPABILITY, _END_OF_CAPABILITIES = (7, 5), (9, 0)
_MOST_OUT_FEATURES = 65_535  # of a grid's second dimension
_LOW_DIGIT = 256.0
_SMALLEST_FP16 = 2.0**-24


def supports(
    batch: int, in_features: int, out_features: int, bits: Bits, dtype: torch.dtype, capability: tuple[int, int]
) -> bool:
    """Return whether `linear` takes such a product on a device of this compute capability."""
    return (
        bits == 8
        and dtype == torch.float16
        and _FIRST_CAPABILITY <= capability < _END_OF_CAPABILITIES
        and in_features % 4 == 0
        and (batch == 1 or out_features % 4 == 0)
        and out_features <= _MOST_OUT_FEATURES
    )


def find_library(name: str, cuda_version: str, package_folders: list[Path]) -> str | None:
    """Return what to open for a CUDA library, or None if pip has not brought it.

    Args:
        name: `cuda`, `cudart`, `cublasLt` or `nvrtc`.
        cuda_version: that of torch, for example `13.0`: two copies of different versions do not share their state.
        package_folders: of the namespace package `nvidia`. Its libraries lie in `cu13/lib`, before CUDA 13 in one
            folder for each package, such as `cuda_runtime/lib`.
    """
    if name == "cuda":
        return "libcuda.so.1"  # the driver's, known to the loader; the name without a number is for compilers
    major = cuda_version.partition(".")[0]
    for folder in package_folders:
        for found in sorted(folder.glob(f"*/lib/lib{name}.so.{major}*")):
            return str(found)
    return None


@functools.cache
def load_kernels() -> Any:
    """Import `cpm_kernels.kernels`, once.

    Raises:
        ImportError: if it is not installed, or a library or the driver is missing.
    """
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    return import_kernels(lambda name: find_library(name, torch.version.cuda or "", folders))


def import_kernels(find: Callable[[str], str | None]) -> Any:
    """Import `cpm_kernels.kernels`, opening the libraries that `find` names and searching for others as it does.

    Raises:
        ImportError: whatever goes wrong; nothing half imported is left behind.
    """
    spec = importlib.util.find_spec("cpm_kernels")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("cpm_kernels is not installed")
    folder = Path(spec.submodule_search_locations[0])
    stand_ins = {"pkg_resources": _resources()}
    try:
        base = _module_at(folder / "library" / "base.py", "cpm_kernels.library.base")
        search = base.unix_find_lib
        base.unix_find_lib = lambda name: find(name) or search(name)
        sys.modules[base.__name__] = base
        with _replaced_modules(stand_ins):
            return importlib.import_module("cpm_kernels.kernels")
    except Exception as error:  # It raises RuntimeError, OSError, AttributeError, depending on what is missing.
        for name in [name for name in sys.modules if name.partition(".")[0] == "cpm_kernels"]:
            del sys.modules[name]
        raise ImportError(f"cpm_kernels does not come up: {error}") from error


def _module_at(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no module")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _resources() -> ModuleType:
    """Return the two functions of pkg_resources that cpm_kernels reads its machine code with."""

    def path_of(module_name: str, resource: str) -> Path:
        return Path(str(sys.modules[module_name].__file__)).parent / resource

    module = ModuleType("pkg_resources")
    module.resource_exists = lambda name, resource: path_of(name, resource).exists()  # type: ignore[attr-defined]
    module.resource_string = lambda name, resource: path_of(name, resource).read_bytes()  # type: ignore[attr-defined]
    return module


@contextmanager
def _replaced_modules(modules: dict[str, ModuleType]) -> Iterator[None]:
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module


def linear(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, kernels: Any = None
) -> torch.Tensor:
    """Return `x · W'ᵀ + bias`, (batch, out) fp16, on the current stream.

    Args:
        x: (batch, in) fp16 on a CUDA device, of a shape that `supports` names; batch at least 1.
        weight: int8, contiguous, (out, in), on the same device, as are the others.
        scale: (out,) fp16.
        bias: (out,) or None.
        kernels: `cpm_kernels.kernels`; None loads it.

    Raises:
        ImportError: see `load_kernels`.
    """
    kernels = kernels or load_kernels()
    batch, in_features = x.shape
    with torch.cuda.device_of(x):
        stream = _stream_of(x)
        # A matrix product wants a multiple of four rows; what is in the last two of an odd batch, nobody reads.
        num_rows = 2 * batch if batch == 1 else 2 * (batch + batch % 2)
        digits = torch.empty(num_rows, in_features, dtype=torch.int8, device=x.device)
        scales = torch.empty(num_rows, dtype=torch.float16, device=x.device)
        high, low = slice(0, batch), slice(batch, 2 * batch)
        x = x.contiguous()
        _round(kernels, x, digits[high], scales[high], stream)
        rest = torch.addcmul(x, digits[high], scales[high, None], value=-1).mul_(_LOW_DIGIT)
        _round(kernels, rest, digits[low], scales[low], stream)
        products = _multiply(kernels, digits, scales, weight, scale, stream)
        out = torch.add(products[high], products[low], alpha=1 / _LOW_DIGIT)
        return out if bias is None else out.add_(bias)


def _stream_of(x: torch.Tensor) -> int:
    return torch.cuda.current_stream(x.device).cuda_stream


def _round(kernels: Any, x: torch.Tensor, digits: torch.Tensor, scale: torch.Tensor, stream: int) -> None:
    batch, in_features = x.shape
    kernels.gemv_calc_scale(batch, in_features, x.data_ptr(), scale.data_ptr(), stream)
    # Never zero, and never so much too small that 127 wraps around: where fp16 is coarse, this is its next number.
    scale.add_(_SMALLEST_FP16)
    kernels.gemv_round(batch, in_features, x.data_ptr(), scale.data_ptr(), digits.data_ptr(), stream)


def _multiply(
    kernels: Any,
    digits: torch.Tensor,
    scales: torch.Tensor,
    weight: torch.Tensor,
    weight_scale: torch.Tensor,
    stream: int,
) -> torch.Tensor:
    num_rows, in_features = digits.shape
    out_features = weight.shape[0]
    out = torch.empty(num_rows, out_features, dtype=torch.float16, device=digits.device)
    left, right = (weight.data_ptr(), weight_scale.data_ptr()), (digits.data_ptr(), scales.data_ptr())
    if num_rows == 2:
        kernels.gemv_broadcast_mat_int8(
            num_rows, out_features, in_features, left[1], left[0], right[1], right[0], out.data_ptr(), stream
        )
        return out
    sums = torch.empty(num_rows, out_features, dtype=torch.int32, device=digits.device)
    kernels.gemm_int8(
        out_features, in_features, num_rows, 1, 1, True, False, left[0], right[0], sums.data_ptr(), stream
    )
    kernels.gemm_scale(
        1, num_rows, out_features, sums.data_ptr(), right[1], left[1], out.data_ptr(), False, False, stream
    )
    return out
