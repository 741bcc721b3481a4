"""Weight files, one tensor at a time: `.bin` by mmap with `weights_only`, and safetensors.

A tensor that is read is a view of the mapped file. Its pages count as the process's resident memory once they are
touched, although the system can take them back at any time; `Shard.release` gives them back at once, so that the
resident memory of a load stays near what the caller keeps. A pickled file of the format before torch 1.6 cannot be
mapped and is read whole.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bianque.errors import SnapshotError
from bianque.manager.download.snapshot import WEIGHT_LAYOUTS, weight_names

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class StoredTensor:
    """What a shard says about one tensor, before any of its data is read."""

    shard: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    num_bytes: int


class Shard:
    """An open weight file; see `open_shard`. Not for several threads at once."""

    def __init__(self, path: Path, names: list[str], read: Callable[[str], torch.Tensor], *, is_mapped: bool) -> None:
        """Wrap an open file."""
        self.path = path
        self.names = names
        self._read = read
        self._is_mapped = is_mapped

    def read(self, name: str) -> torch.Tensor:
        """Return a tensor on the CPU; it must neither be changed nor used after the shard is closed.

        Raises:
            SnapshotError: if the file cannot give it.
        """
        with _naming_the_damaged(self.path):
            return self._read(name)

    def release(self, tensor: torch.Tensor) -> None:
        """Give back the memory pages of a tensor that was read; reading it again brings them back."""
        if self._is_mapped:
            _drop_pages(tensor.data_ptr(), tensor.nbytes)


def find_shards(folder: Path) -> list[Path]:
    """Return the weight files of a snapshot in order: one file, or those that the index names.

    Raises:
        SnapshotError: if there are none, or the index cannot be read.
    """
    names = weight_names(folder)
    if not names:
        raise SnapshotError("snapshot_file_missing", folder=folder, file=WEIGHT_LAYOUTS[0][0])
    return [folder / name for name in names]


def describe_shards(shards: list[Path]) -> dict[str, StoredTensor]:
    """Return every tensor of the shards by name, in stored order, without reading their data.

    Raises:
        SnapshotError: naming the first shard that is damaged or incomplete.
    """
    stored: dict[str, StoredTensor] = {}
    for path in shards:
        with open_shard(path) as shard:
            for name in shard.names:
                tensor = shard.read(name)
                stored[name] = StoredTensor(path, tuple(tensor.shape), tensor.dtype, tensor.nbytes)
    return stored


@contextmanager
def open_shard(path: Path) -> Iterator[Shard]:
    """Open a weight file; its mapping ends with the block, once no tensor of it is left.

    Raises:
        SnapshotError: if it is damaged or incomplete, or a pickle that is more than tensors.
    """
    if path.suffix == ".safetensors":
        from safetensors import safe_open

        with _naming_the_damaged(path):
            opened = safe_open(path, framework="pt")
        with opened as file:
            yield Shard(path, list(file.keys()), file.get_tensor, is_mapped=True)
        return
    with _naming_the_damaged(path):
        tensors, is_mapped = _load_pickled(path)
    yield Shard(path, list(tensors), tensors.__getitem__, is_mapped=is_mapped)


def _load_pickled(path: Path) -> tuple[Mapping[str, torch.Tensor], bool]:
    """Return the tensors of a `.bin` file and whether they are mapped."""
    import torch

    # Such a file is a zip archive. What is not one may be of the older format, or damaged: torch tells.
    with path.open("rb") as file:
        is_mappable = file.read(2) == b"PK"
    loaded: Any = torch.load(path, map_location="cpu", mmap=is_mappable, weights_only=True)
    if not isinstance(loaded, Mapping) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise ValueError("not a table of tensors")
    return {name: value.detach() for name, value in loaded.items()}, is_mappable


@contextmanager
def _naming_the_damaged(path: Path) -> Iterator[None]:
    """Name the file in whatever its reader raises: a truncated one fails deep inside, without its name."""
    from safetensors import SafetensorError

    # A device that runs out of memory raises a RuntimeError too, but nothing here is put on a device.
    try:
        yield
    except (SafetensorError, pickle.UnpicklingError, EOFError, RuntimeError, OSError, ValueError, KeyError) as error:
        raise SnapshotError("snapshot_shard_damaged", file=path) from error


def _drop_pages(address: int, num_bytes: int) -> None:
    """Give back the pages of a read-only private mapping of a file; where the system cannot, do nothing.

    Pages shared with a neighbour go as well: they are read again from the file when they are needed.
    """
    madvise = _madvise()
    if madvise is None or not num_bytes:
        return
    start = address - address % mmap.PAGESIZE
    madvise(ctypes.c_void_p(start), ctypes.c_size_t(address + num_bytes - start), ctypes.c_int(mmap.MADV_DONTNEED))


@functools.cache
def _madvise() -> Callable[..., int] | None:
    if not sys.platform.startswith("linux"):
        return None
    return ctypes.CDLL(None, use_errno=True).madvise
