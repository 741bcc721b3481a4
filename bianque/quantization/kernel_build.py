"""Compile the CPU kernel with the system's compiler, once for a machine, and load it.

Nothing happens at import. The first caller of `load_kernel` compiles `cpu_kernel.c` (about a second) into the user's
cache folder, under a name made of the source, the flags and the kind of processor, and later processes load that file.
A file that cannot be loaded or computes wrongly is compiled anew. Where there is no compiler, no AVX2 or no POSIX
threads, the answer is None, and the log says so once.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

Kernel = Callable[..., int]

SOURCE = Path(__file__).with_name("cpu_kernel.c")
# No contraction: the same sum must be rounded in the same way wherever the compiler meets it.
FLAGS = ("-O3", "-mavx2", "-mfma", "-mf16c", "-ffp-contract=off", "-std=gnu11", "-shared", "-fPIC", "-pthread")
COMPILERS = ("cc", "gcc", "clang")
COMPILE_SECONDS = 120

_lock = threading.Lock()


def load_kernel() -> Kernel | None:
    """Return `bianque_linear` of `cpu_kernel.c`, compiled if need be, or None where it cannot run.

    Safe from any thread; only the first call does anything.
    """
    with _lock:
        return _load_once()


@functools.cache
def _load_once() -> Kernel | None:
    reason = _why_not()
    if reason is None:
        try:
            return build_kernel(_cache_folder())
        except (OSError, subprocess.SubprocessError) as error:
            reason = f"the kernel could not be built ({_first_line(error)})"
    logger.warning("quantized models run on PyTorch's own operations, several times slower: %s", reason)
    return None


def _why_not() -> str | None:
    if sys.platform not in ("linux", "darwin"):
        return f"the kernel is not made for {sys.platform}"
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return "the processor has no AVX2"
    return None


def find_compiler() -> str | None:
    """Return the path of a C compiler, or None."""
    return next((path for path in map(shutil.which, COMPILERS) if path), None)


def _cache_folder() -> Path:
    """Return the user's cache folder, or a new private one where there is no writable home."""
    try:
        folder = Path.home() / ".cache" / "bianque" / "kernels"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):
        pass
    return Path(tempfile.mkdtemp(prefix="bianque-kernel-"))


def build_kernel(folder: Path) -> Kernel:
    """Load the kernel from `folder`, after compiling it there unless a working one is present.

    Raises:
        OSError: if there is no compiler, or the result cannot be written, loaded or trusted.
        subprocess.SubprocessError: if the compiler fails or takes longer than two minutes.
    """
    source = SOURCE.read_bytes()
    kind = " ".join((*FLAGS, sys.platform, platform.machine(), torch.backends.cpu.get_cpu_capability()))
    path = folder / f"{hashlib.sha256(source + kind.encode()).hexdigest()[:24]}.so"
    if path.exists():
        try:
            return _load(path)
        except OSError as error:
            logger.warning("compiling the kernel again: %s", _first_line(error))
    compiler = find_compiler()
    if compiler is None:
        raise FileNotFoundError("there is no C compiler: " + ", ".join(COMPILERS))
    # Renamed into place when complete, under a new inode: a process that has the old file mapped keeps it.
    handle, temporary = tempfile.mkstemp(suffix=".so", dir=folder)
    os.close(handle)
    try:
        command = [compiler, *FLAGS, "-o", temporary, str(SOURCE)]
        subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_SECONDS)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return _load(path)


def _load(path: Path) -> Kernel:
    """Load a compiled kernel and try it.

    Raises:
        OSError: if it cannot be loaded or computes wrongly.
    """
    try:
        kernel = ctypes.CDLL(str(path)).bianque_linear
    except AttributeError as error:
        raise OSError(f"{path} has no bianque_linear") from error
    kernel.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_int64] * 3 + [ctypes.c_int] * 2
    kernel.restype = ctypes.c_int
    # Powers of two are exact in all its formats, so the sums must be too.
    hidden_states, result = torch.full((3, 70), 0.5), torch.empty(3, 2)
    weight, scale = torch.tensor([[2], [-1]], dtype=torch.int8).repeat(1, 70), torch.full((2,), 0.25).half()
    arrays = (hidden_states, weight, scale)
    failed = kernel(*(array.data_ptr() for array in arrays), None, result.data_ptr(), 3, 70, 2, 8, 1)
    if failed or not torch.allclose(result, torch.tensor([17.5, -8.75]).expand(3, 2), rtol=1e-3):
        raise OSError(f"{path} computes wrongly")
    return kernel


def _first_line(error: Exception) -> str:
    """Return what a person needs of a failure: the compiler's own first words if it spoke."""
    spoken = getattr(error, "stderr", None)
    words = spoken.decode(errors="replace") if isinstance(spoken, bytes) else str(error)
    return (words.strip() or type(error).__name__).splitlines()[0][:200]
