"""Whether a file is what the Hub says it is: by size and checksum, computed once and remembered.

The Hub names each file's content: the sha256 of a file in LFS, git's sha1 of a small one. The same name is the file's
name in the cache. Reading 14 GB at each start would take a minute, so a file that was found whole is remembered with
its size and modification time beside the cache; a file changed since then is read again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hashlib import _Hash

logger = logging.getLogger(__name__)

READ_BYTES = 1 << 20
SHA256_CHARS = 64
DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class RemoteFile:
    """One file of a revision.

    Attributes:
        path: inside the repo, with `/`.
        size: in bytes.
        digest: sha256 (64 characters) of a file in LFS, or git's sha1 (40 characters) of a small one; empty when it
            is not known, as for files that were cached without symbolic links by another program.
    """

    path: str
    size: int
    digest: str

    @property
    def is_large(self) -> bool:
        """Whether the file is in LFS."""
        return len(self.digest) == SHA256_CHARS


def new_hasher(file: RemoteFile) -> _Hash:
    """Return the hash object whose result over the content is `file.digest`."""
    if file.is_large:
        return hashlib.sha256()
    # git hashes a header before the content.
    return hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)


def is_whole(path: Path, file: RemoteFile, on_bytes: Callable[[int], None] | None = None) -> bool:
    """Return whether `path` has the size and content of `file`; without a digest, the size alone decides.

    Args:
        path: a local file; a missing one is not whole.
        file: what it should be.
        on_bytes: called with the number of bytes read so far; may raise to end the reading.
    """
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    if not file.digest:
        return True
    hasher = new_hasher(file)
    num_read = 0
    with path.open("rb", buffering=0) as stream:
        while chunk := stream.read(READ_BYTES):
            hasher.update(chunk)
            num_read += len(chunk)
            if on_bytes is not None:
                on_bytes(num_read)
    return hasher.hexdigest() == file.digest


class Record:
    """What is known about one repo's cache folder: the files of each commit, and which were found whole.

    It is a JSON file beside the blobs. It only saves work: without it, or when it cannot be read or written, files are
    listed and read again. Two processes that write at once may lose an entry of the other, which costs a second
    reading. All methods may be called from any thread.
    """

    FILE_NAME = "bianque.json"

    def __init__(self, folder: Path) -> None:
        """Name the repo's folder in the cache, which need not exist."""
        self._path = folder / self.FILE_NAME
        self._lock = threading.Lock()

    def files(self, commit: str) -> list[RemoteFile] | None:
        """Return the files that a snapshot of `commit` consists of, or None if that is not known."""
        listed = self._read()["files"].get(commit)
        if not isinstance(listed, Mapping):
            return None
        try:
            return [RemoteFile(path, int(size), str(digest)) for path, (size, digest) in listed.items()]
        except (TypeError, ValueError):
            return None

    def remember_files(self, commit: str, files: Sequence[RemoteFile]) -> None:
        """Store the files of `commit`."""
        self._change("files", commit, {file.path: [file.size, file.digest] for file in files})

    def is_verified(self, path: Path, file: RemoteFile) -> bool:
        """Whether `path` was found whole and has the same size and modification time since."""
        try:
            state = path.stat()
        except OSError:
            return False
        return self._read()["verified"].get(file.digest) == [state.st_size, state.st_mtime_ns]

    def remember_verified(self, path: Path, file: RemoteFile) -> None:
        """Store that `path` was found whole; without a digest there is nothing to remember."""
        if not file.digest:
            return
        state = path.stat()
        self._change("verified", file.digest, [state.st_size, state.st_mtime_ns])

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            content = {}
        if not isinstance(content, dict):
            content = {}
        return {part: content[part] if isinstance(content.get(part), dict) else {} for part in ("files", "verified")}

    def _change(self, part: str, key: str, value: object) -> None:
        with self._lock:
            content = self._read()
            if content[part].get(key) == value:
                return
            content[part][key] = value
            draft = self._path.with_name(f"{self._path.name}.{uuid.uuid4().hex[:8]}")
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                draft.write_text(json.dumps(content, indent=1), encoding="utf-8")
                os.replace(draft, self._path)
            except OSError as error:
                # A cache that is read-only, or a full disk: the files are read again next time.
                logger.debug("%s could not be written: %s", self._path, error)
                draft.unlink(missing_ok=True)
