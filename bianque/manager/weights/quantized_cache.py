"""Quantized weights kept on disk, so that the next start reads half or a quarter of the bytes and quantizes nothing.

One safetensors file for each snapshot, precision and kind of device, in the layout of a published quantized checkpoint
(`weight` int8 and `weight_scale` fp16), with `weight_low` (int8) for a weight in two digits. Its name holds a key of
everything its content follows from: the snapshot's revision or fingerprint, the precision, and the version of the
scheme. It is written beside its place and then renamed, by one process at a time, tensor by tensor. Every tensor
carries a checksum: a file that is damaged is found when it is read, deleted and made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bianque.errors import SnapshotError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

SCHEME_VERSION = 2
"""To be raised when the stored integers, or the choice of what is quantized, change."""
MARGIN_BYTES = 2_000_000_000
"""Left free on the disk."""
_SAMPLE_BYTES, _NUM_SAMPLES = 4096, 64
_CHECKSUMS = "checksums"
_DTYPE_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int8": "I8"}


def is_hub_snapshot(folder: Path) -> bool:
    """Whether a folder is a revision in the Hub's cache, whose files do not change."""
    return folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")


def fingerprint(folder: Path) -> str:
    """Return what tells one state of a snapshot from another.

    For a revision in the Hub's cache, its files' names, sizes and blobs, which are named by their checksums. For
    another folder, names, sizes, times of change, and samples of the content.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.suffix not in (".json", ".bin", ".safetensors") or not path.is_file():
            continue
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} ".encode())
        if is_hub_snapshot(folder) and path.is_symlink():
            digest.update(path.resolve().name.encode())
        else:
            digest.update(f"{status.st_mtime_ns} ".encode())
            _update_with_samples(digest, path, status.st_size)
    return digest.hexdigest()


def _update_with_samples(digest: Any, path: Path, size: int) -> None:
    with path.open("rb") as file:
        for index in range(_NUM_SAMPLES):
            file.seek(max(0, size - _SAMPLE_BYTES) * index // (_NUM_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))


@dataclass(frozen=True)
class KeptTensor:
    """One tensor to be written.

    Attributes:
        name: as a checkpoint has it.
        dtype: of its elements.
        shape: of the tensor.
        get: returns it, on any device; called once.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    get: Callable[[], torch.Tensor]

    @property
    def num_bytes(self) -> int:
        """Size on disk."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class QuantizedCache:
    """One file of the cache, there or not.

    Attributes:
        path: of the file.
        siblings: pattern of names of files for the same snapshot and use in other states.
    """

    path: Path
    siblings: re.Pattern[str]

    @classmethod
    def locate(cls, cache_folder: Path, folder: Path, use: str) -> QuantizedCache:
        """Return the file for a snapshot.

        Args:
            cache_folder: of all such files.
            folder: the snapshot.
            use: what the weights are for: family, precision and kind of device.
        """
        if is_hub_snapshot(folder):
            name = folder.parent.parent.name.removeprefix("models--")
        else:
            place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
            name = f"{re.sub(r'[^A-Za-z0-9._-]', '_', folder.resolve().name)}-{place}"
        state = f"{SCHEME_VERSION} {use} {fingerprint(folder)}"
        key = hashlib.sha256(state.encode()).hexdigest()[:16]
        siblings = re.compile(re.escape(f"{name}-{use}-") + r"[0-9a-f]{16}\.(safetensors|partial)")
        return cls(cache_folder / f"{name}-{use}-{key}.safetensors", siblings)

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Try to be the one process that writes the file; yield whether that is so. Never waits."""
        from filelock import FileLock, Timeout

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            held = FileLock(self.path.with_suffix(".lock"), timeout=0)
            held.acquire()
        except (OSError, NotImplementedError, Timeout) as error:
            logger.info("no quantized weights are kept in %s: %s", self.path.parent, error)
            yield False
            return
        try:
            yield True
        finally:
            held.release()

    def checker(self) -> Callable[[str, torch.Tensor], None]:
        """Return a function that raises `SnapshotError` for a tensor that is not as it was written.

        Raises:
            SnapshotError: if the file cannot be read.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                checksums = json.loads((file.metadata() or {})[_CHECKSUMS])
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            raise SnapshotError("snapshot_shard_damaged", file=self.path) from error

        def check(name: str, tensor: torch.Tensor) -> None:
            if checksums.get(name) != checksum(tensor):
                raise SnapshotError("snapshot_shard_damaged", file=self.path)

        return check

    def discard(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)

    def write(self, tensors: Iterable[KeptTensor]) -> bool:
        """Write the file if there is room, and delete those of the same snapshot's earlier states.

        Whatever goes wrong is logged and leaves no file: the model is loaded already.

        Args:
            tensors: of the loaded model.

        Returns:
            Whether the file is there.
        """
        # Larger elements first, so that every tensor is aligned.
        ordered = sorted(tensors, key=lambda tensor: -tensor.dtype.itemsize)
        size = sum(tensor.num_bytes for tensor in ordered)
        partial = self.path.with_suffix(".partial")
        try:
            partial.unlink(missing_ok=True)
            if shutil.disk_usage(self.path.parent).free < size + MARGIN_BYTES:
                logger.info("no room for %.1f GB of quantized weights in %s", size / 1e9, self.path.parent)
                return False
            _write_safetensors(partial, ordered)
            os.replace(partial, self.path)
            for sibling in self.path.parent.iterdir():
                if self.siblings.fullmatch(sibling.name) and sibling != self.path:
                    sibling.unlink()
        except (OSError, RuntimeError) as error:  # RuntimeError: no memory to unpack a tensor on its device
            logger.warning("quantized weights could not be kept in %s: %s", self.path, error)
            return False
        finally:
            partial.unlink(missing_ok=True)
        logger.info("kept %.1f GB of quantized weights in %s for the next start", size / 1e9, self.path)
        return True


def checksum(tensor: torch.Tensor) -> str:
    """Return a sum over the bytes of a CPU tensor, as fast as memory can be read.

    It finds what disks and interrupted writes do: changed, missing and zeroed bytes. It is no protection against
    somebody who changes weights on purpose; nor are the weights themselves.
    """
    import torch

    flat = tensor.contiguous().flatten().view(torch.uint8)
    whole = len(flat) // 8 * 8
    words = int(flat[:whole].view(torch.int64).sum()) if whole else 0
    rest = int.from_bytes(bytes(flat[whole:].tolist()), "little")
    return f"{(words + rest) % (1 << 64):016x}"


def _write_safetensors(path: Path, tensors: list[KeptTensor]) -> None:
    """Write a safetensors file one tensor at a time: the library's own writer wants all of them at once."""
    import torch

    checksums = dict.fromkeys((tensor.name for tensor in tensors), "0" * 16)
    with path.open("wb") as file:
        file.write(_header(tensors, checksums))
        for kept in tensors:
            tensor = kept.get().cpu().contiguous()
            assert (tensor.dtype, tuple(tensor.shape)) == (kept.dtype, kept.shape), kept.name
            checksums[kept.name] = checksum(tensor)
            file.write(tensor.flatten().view(torch.uint8).numpy().data)
        file.seek(0)
        file.write(_header(tensors, checksums))


def _header(tensors: list[KeptTensor], checksums: dict[str, str]) -> bytes:
    """Return the file's beginning; of the same length whatever the checksums are."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt", _CHECKSUMS: json.dumps(checksums)}}
    start = 0
    for tensor in tensors:
        end = start + tensor.num_bytes
        dtype = _DTYPE_NAMES[str(tensor.dtype).removeprefix("torch.")]
        entries[tensor.name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": (start, end)}
        start = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
