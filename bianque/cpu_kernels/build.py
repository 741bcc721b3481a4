"""Compile the CPU kernels with the system's compiler, once for a machine, and load them.

Nothing happens at import. The first caller of `load_kernels` compiles the C files of this folder (about a second) into
the user's cache folder, under a name made of the sources, the flags and the kind of processor, and later processes
load that file. A file that cannot be loaded or computes wrongly is compiled anew. Where there is no compiler, no AVX2
or no POSIX threads, the answer is None, and the log says so once.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bianque.cpu_kernels.operations import OPERATIONS, Attend, Multiply, Operation, Pack

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent
# No contraction: the same sum must be rounded in the same way wherever the compiler meets it.
FLAGS = ("-O3", "-mavx2", "-mfma", "-mf16c", "-ffp-contract=off", "-std=gnu11", "-shared", "-fPIC", "-pthread")
COMPILERS = ("cc", "gcc", "clang")
COMPILE_SECONDS = 120

_lock = threading.Lock()


@dataclass(frozen=True)
class Kernels:
    """The functions of the compiled file; each returns 0, or 1 if memory ran out.

    Attributes:
        pack: takes its arguments (see `bianque.cpu_kernels.operations`), rows and threads, as the next seven.
        multiply: see there.
        norm: see there.
        gelu: see there.
        rotate: see there.
        attend: see there.
        largest: see there.
        refine: see there.
        linear: `pack` and `multiply` in memory of its own: takes the arguments of both, rows and threads.
        run: takes an array of `Operation`, their number, rows and threads.
        packed_bytes: returns what `pack` writes, for rows, values of a row and bits.
    """

    pack: Callable[..., int]
    multiply: Callable[..., int]
    norm: Callable[..., int]
    gelu: Callable[..., int]
    rotate: Callable[..., int]
    attend: Callable[..., int]
    largest: Callable[..., int]
    refine: Callable[..., int]
    linear: Callable[..., int]
    run: Callable[..., int]
    packed_bytes: Callable[..., int]


def load_kernels() -> Kernels | None:
    """Return the kernels, compiled if need be, or None where they cannot run.

    Safe from any thread; only the first call does anything.
    """
    with _lock:
        return _load_once()


@functools.cache
def _load_once() -> Kernels | None:
    reason = _why_not()
    if reason is None:
        try:
            return build_kernels(_cache_folder())
        except (OSError, subprocess.SubprocessError) as error:
            reason = f"the kernels could not be built ({_first_line(error)})"
    logger.warning("models run on PyTorch's own operations, quantized ones several times slower: %s", reason)
    return None


def _why_not() -> str | None:
    if sys.platform not in ("linux", "darwin"):
        return f"the kernels are not made for {sys.platform}"
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


def build_kernels(folder: Path) -> Kernels:
    """Load the kernels from `folder`, after compiling it there unless a working one is present.

    Raises:
        OSError: if there is no compiler, or the result cannot be written, loaded or trusted.
        subprocess.SubprocessError: if the compiler fails or takes longer than two minutes.
    """
    sources = sorted(FOLDER.glob("*.c"))
    content = b"\0".join(path.read_bytes() for path in sorted(FOLDER.glob("*.[ch]")))
    kind = " ".join((*FLAGS, sys.platform, platform.machine(), torch.backends.cpu.get_cpu_capability()))
    path = folder / f"{hashlib.sha256(content + kind.encode()).hexdigest()[:24]}.so"
    if path.exists():
        try:
            return _load(path)
        except OSError as error:
            logger.warning("compiling the kernels again: %s", _first_line(error))
    compiler = find_compiler()
    if compiler is None:
        raise FileNotFoundError("there is no C compiler: " + ", ".join(COMPILERS))
    # Renamed into place when complete, under a new inode: a process that has the old file mapped keeps it.
    handle, temporary = tempfile.mkstemp(suffix=".so", dir=folder)
    os.close(handle)
    try:
        command = [compiler, *FLAGS, "-o", temporary, *map(str, sources)]
        subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_SECONDS)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return _load(path)


def _load(path: Path) -> Kernels:
    """Load a compiled file and try it.

    Raises:
        OSError: if it cannot be loaded or computes wrongly.
    """
    library = ctypes.CDLL(str(path))
    integer, threads, pointer = ctypes.c_int64, ctypes.c_int, ctypes.POINTER
    arguments: dict[str, list[Any]] = {
        name: [pointer(structure), integer, threads] for name, structure in OPERATIONS.items()
    } | {
        "linear": [pointer(Pack), pointer(Multiply), integer, threads],
        "run": [pointer(Operation), integer, integer, threads],
        "packed_bytes": [integer] * 3,
    }
    functions = {}
    try:
        for name, types in arguments.items():
            functions[name] = getattr(library, f"bianque_{name}")
            functions[name].argtypes = types
    except AttributeError as error:
        raise OSError(f"{path} lacks a kernel") from error
    functions["packed_bytes"].restype = integer
    kernels = Kernels(**functions)
    if not (_multiplies(kernels) and _attends(kernels)):
        raise OSError(f"{path} computes wrongly")
    return kernels


def _multiplies(kernels: Kernels) -> bool:
    # Powers of two are exact in all its formats, so the sums must be too.
    hidden_states, result = torch.full((3, 70), 0.5), torch.empty(3, 2)
    weight, scale = torch.tensor([[2], [-1]], dtype=torch.int8).repeat(1, 70), torch.full((2,), 0.25).half()
    pack = Pack(x=hidden_states.data_ptr(), in_=70, bits=8)
    multiply = Multiply(
        weight=weight.data_ptr(), scale=scale.data_ptr(), y=result.data_ptr(), in_=70, out=2, bits=8
    )  # fmt: skip
    failed = kernels.linear(pack, multiply, 3, 1)
    return not failed and torch.allclose(result, torch.tensor([17.5, -8.75]).expand(3, 2), rtol=1e-3)


def _attends(kernels: Kernels) -> bool:
    # All places count the same for a query of zeros.
    query, keys, result = torch.zeros(8), torch.ones(3, 8), torch.empty(8)
    values = torch.tensor([3.0, 5.0, 100.0])[:, None].repeat(1, 8)
    slots, lengths = torch.tensor([0]), torch.tensor([2])
    attend = Attend(
        query=query.data_ptr(),
        keys=keys.data_ptr(),
        values=values.data_ptr(),
        slots=slots.data_ptr(),
        lengths=lengths.data_ptr(),
        y=result.data_ptr(),
        heads=1,
        places=3,
        size=8,
        scale=1.0,
    )
    failed = kernels.attend(attend, 1, 1)
    return not failed and torch.allclose(result, torch.full((8,), 4.0))


def _first_line(error: Exception) -> str:
    """Return what a person needs of a failure: the compiler's own first words if it spoke."""
    spoken = getattr(error, "stderr", None)
    words = spoken.decode(errors="replace") if isinstance(spoken, bytes) else str(error)
    return (words.strip() or type(error).__name__).splitlines()[0][:200]
