"""One repo's folder in the cache of huggingface_hub, in that library's layout, so that both can use it.

models--owner--name/
  blobs/<digest>                 content; <digest>.incomplete while it arrives
  snapshots/<commit>/<file>      symbolic links to the blobs (the files themselves where links are not possible)
  refs/<branch>                  the commit a branch pointed to
  bianque.json                   what was listed and verified (`integrity.Record`)
.locks/models--owner--name/<digest>.lock
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import uuid
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path

from bianque.manager.download.integrity import DIGEST, Record, RemoteFile

logger = logging.getLogger(__name__)

COMMIT = re.compile(r"[0-9a-f]{40}")
DEFAULT_REVISION = "main"
PARTIAL_SUFFIX = ".incomplete"


class RepoCache:
    """Paths, links and locks of one repo in the cache. Reads the cache's place from huggingface_hub."""

    def __init__(self, repo_id: str) -> None:
        """Name the repo; nothing is created.

        Raises:
            HFValidationError: if `repo_id` is not the name of a repo.
        """
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        root = Path(constants.HF_HUB_CACHE).expanduser().resolve()
        name = repo_folder_name(repo_id=repo_id, repo_type="model")
        self.folder = root / name
        self.blobs = self.folder / "blobs"
        self._locks = root / ".locks" / name
        self.record = Record(self.folder)

    def blob(self, file: RemoteFile) -> Path:
        """Return where the content of `file` belongs."""
        return self.blobs / file.digest

    def partial(self, file: RemoteFile) -> Path:
        """Return where the content of `file` is collected; the name is stable, so that a restart finds it."""
        return self.blobs / (file.digest + PARTIAL_SUFFIX)

    def snapshot(self, commit: str) -> Path:
        """Return the folder of one commit."""
        return self.folder / "snapshots" / commit

    def commit_of(self, revision: str | None) -> str | None:
        """Return the commit that `revision` is or last pointed to, or None if it was never complete here."""
        revision = revision or DEFAULT_REVISION
        if COMMIT.fullmatch(revision):
            return revision
        try:
            commit = (self.folder / "refs" / revision).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
        return commit if COMMIT.fullmatch(commit) else None

    def point(self, revision: str | None, commit: str) -> None:
        """Store that `revision` points to `commit`; a full commit hash needs no entry.

        In a cache that cannot be written it is left out: the files are there, and only a start without network would
        have looked for the entry.
        """
        if self.commit_of(revision) == commit:
            return
        path = self.folder / "refs" / (revision or DEFAULT_REVISION)
        draft = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(commit, encoding="utf-8")
            os.replace(draft, path)
        except OSError as error:
            logger.warning("%s could not be written: %s", path, error)

    def link(self, commit: str, file: RemoteFile) -> None:
        """Make a finished blob appear in the snapshot. The caller holds the lock of `file`."""
        from huggingface_hub.file_download import are_symlinks_supported

        pointer = self.snapshot(commit) / file.path
        if pointer.exists():
            return
        pointer.parent.mkdir(parents=True, exist_ok=True)
        if are_symlinks_supported(self.folder):
            pointer.unlink(missing_ok=True)
            pointer.symlink_to(os.path.relpath(self.blob(file), pointer.parent))
        else:
            os.replace(self.blob(file), pointer)

    def lock(self, digest: str, timeout_seconds: float) -> AbstractContextManager[object]:
        """Return the lock that huggingface_hub also takes for this content.

        Entering it raises `filelock.Timeout` when another holds it for longer than `timeout_seconds`.
        """
        from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

        self._locks.mkdir(parents=True, exist_ok=True)
        return WeakFileLock(self._locks / f"{digest}.lock", timeout=timeout_seconds)

    def drop_orphans(self, wanted: Collection[str]) -> None:
        """Delete partial files that nobody will continue.

        These are the ones that huggingface_hub leaves behind when it is killed, whose names are never used again, and
        those of content that is no longer wanted. A partial file whose lock is held belongs to a running download.
        """
        from filelock import Timeout

        for partial in self.blobs.glob(f"*{PARTIAL_SUFFIX}"):
            digest = partial.name.split(".")[0]
            if digest in wanted and partial.name == digest + PARTIAL_SUFFIX:
                continue
            with contextlib.suppress(Timeout, OSError), self.lock(digest, 0.01):
                partial.unlink(missing_ok=True)

    def listed(self, commit: str) -> list[RemoteFile] | None:
        """Return all files of a commit that are known without network, or None.

        They come from this project's record, else from the tree that huggingface_hub stores, else from the snapshot's
        folder. In the last two cases the digests are those that the symbolic links name.
        """
        recorded = self.record.files(commit)
        if recorded is not None:
            return recorded
        folder = self.snapshot(commit)
        sizes = self._tree(commit)
        if sizes is None and folder.is_dir():
            sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
        if sizes is None:
            return None
        return [RemoteFile(path, size, _digest_of(folder / path)) for path, size in sizes.items()]

    def _tree(self, commit: str) -> dict[str, int] | None:
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        try:
            tree = get_cached_repo_tree(
                self.folder.name.split("--", 1)[1].replace("--", "/"),
                revision=commit,
                cache_dir=self.folder.parent,
            )
        except CachedRepoTreeNotFoundError:
            return None
        return {file.path: file.size for file in tree}

    def num_bytes(self) -> int:
        """Return the bytes of all blobs, finished or not, and of files that stand in snapshots themselves."""
        unlinked = (path for path in self.folder.glob("snapshots/*/*") if not path.is_symlink())
        return sum(path.stat().st_size for path in (*self.blobs.glob("*"), *unlinked) if path.is_file())

    def free_bytes(self) -> int:
        """Return the free bytes of the disk that holds the cache."""
        folder = self.folder
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free


def _digest_of(path: Path) -> str:
    """Return the digest that a snapshot's symbolic link names, or an empty string."""
    name = os.readlink(path).replace("\\", "/").rsplit("/", 1)[-1] if path.is_symlink() else ""
    return name if DIGEST.fullmatch(name) else ""
