"""From a repo id or a folder to local files that are complete and undamaged.

Files land in the cache of huggingface_hub, in its layout, with its token, endpoint and offline switch. Only weights,
configuration and tokenizer files are fetched, never code. An interrupted download goes on where it ended, also in
another process; each file is checked once by size and checksum.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from bianque.errors import SnapshotError
from bianque.manager.download.commit import fetch_commit, has_size
from bianque.manager.download.hub import (
    RetryPolicy,
    explain,
    is_expected,
    is_read_only,
    list_files,
    reason_of,
    retrying,
    select_files,
)
from bianque.manager.download.hub_cache import COMMIT, RepoCache
from bianque.manager.download.integrity import RemoteFile
from bianque.manager.download.progress import Progress
from bianque.manager.download.transfer import Stopped
from bianque.manager.registry import Family
from bianque.settings import ModelSource

logger = logging.getLogger(__name__)

TOKENIZER_FILES: dict[Family, str] = {"t5": "spiece.model", "chatglm": "ice_text.model"}
WEIGHT_LAYOUTS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""One file, or the index of several; in the order in which transformers looks for them."""
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
RETRY = RetryPolicy()

OnDisk = Literal["absent", "partial", "complete"]


def resolve_snapshot(
    source: ModelSource,
    *,
    report: Callable[[Progress], None] | None = None,
    cancelled: threading.Event | None = None,
    family: Family | None = None,
    policy: RetryPolicy = RETRY,
) -> Path:
    """Return the local folder of a model, downloading what is missing when `source` names a Hub repo.

    A folder is returned as it is. Of a repo, the newest commit of the revision is taken; when the Hub does not answer,
    or the cache is full or cannot be written, a complete snapshot of an earlier time serves, and the log says so. A
    full commit hash that is complete needs no network at all.

    Args:
        source: a folder, or a repo id with a branch, tag or commit.
        report: receives the progress, from other threads, one call at a time; it must return quickly.
        cancelled: ends the download soon after it is set; what has arrived is kept for the next time.
        family: the architecture that the repo's config.json must name, else one of the two; it is looked at before
            the weights are fetched.
        policy: how often and how fast to repeat failed requests.

    Raises:
        SnapshotError: when a path does not exist, the repo or revision is not there or not readable, the disk is too
            small, a file is damaged at its source, the architecture is another one, the Hub cannot be reached and
            nothing is cached, or `cancelled` was set.
    """
    folder = local_folder(source)
    if folder is not None:
        return folder
    if not _is_repo_id(source.location):
        raise SnapshotError("snapshot_folder_missing", folder=source.location)

    cancelled = cancelled or threading.Event()
    try:
        return _from_hub(source, report, cancelled, family, policy)
    except Stopped as error:
        raise SnapshotError("snapshot_cancelled", repo_id=source.location) from error
    except Exception as error:
        if not is_expected(error):
            raise
        if cancelled.is_set():
            raise SnapshotError("snapshot_cancelled", repo_id=source.location) from error
        raise explain(error, source) from error


def _from_hub(
    source: ModelSource,
    report: Callable[[Progress], None] | None,
    cancelled: threading.Event,
    family: Family | None,
    policy: RetryPolicy,
) -> Path:
    cache = RepoCache(source.location)
    cached = _cached(cache, source.revision)
    is_online = True
    is_pinned = COMMIT.fullmatch(source.revision or "") is not None
    if cached is not None and is_pinned and all(file.digest for file in cached[1]):
        commit, files = cached
    else:
        # With a cached snapshot at hand nobody should wait for a Hub that does not answer.
        patience = policy if cached is None else RetryPolicy(tries=1)
        try:
            commit, listed = retrying(lambda: list_files(source), source.location, patience, cancelled)
            files = select_files(listed)
        except Exception as error:
            if cached is None or not is_expected(error):
                raise
            reason = reason_of(error)
            logger.warning("%s: no answer from the Hub (%s); the cached snapshot is used", source.location, reason)
            commit, files = cached
            is_online = False
    if not files:
        raise SnapshotError("snapshot_no_weights", repo_id=source.location)

    def bring(commit: str, files: Sequence[RemoteFile], *, is_online: bool) -> None:
        def inspect(folder: Path) -> None:
            names = {file.path for file in files}
            if ADAPTER_FILES[0] not in names or "config.json" in names:  # an adapter's base tells the architecture
                _check_architecture(folder, tuple(TOKENIZER_FILES) if family is None else (family,))

        fetch_commit(
            cache,
            source.location,
            commit,
            files,
            report=report,
            cancelled=cancelled,
            policy=policy,
            is_online=is_online,
            inspect=inspect,
        )

    try:
        bring(commit, files, is_online=is_online)
    except (OSError, SnapshotError) as error:
        # A volume that is mounted read-only, which may say that nothing of it is free, or a full disk: an earlier
        # commit serves. A damaged file of this one does not.
        obstacle = _obstacle_to_storing(error, cache)
        if cached is None or cached[0] == commit or not obstacle:
            raise
        logger.warning(
            "%s: commit %.7s cannot be stored (%s); the cached snapshot %.7s is used",
            source.location,
            commit,
            obstacle,
            cached[0],
        )
        commit, files = cached
        bring(commit, files, is_online=False)
    else:
        if is_online:
            cache.point(source.revision, commit)
    return cache.snapshot(commit)


def _obstacle_to_storing(error: OSError | SnapshotError, cache: RepoCache) -> str:
    """Return why a commit could not be brought into the cache, if it was for want of rights or room; else nothing."""
    if isinstance(error, SnapshotError):
        is_full = error.key == "snapshot_disk_full"
        return f"there is room for {error.params['free']} of {error.params['needed']}" if is_full else ""
    return f"{error.filename or cache.folder} cannot be written" if is_read_only(error) else ""


def _cached(cache: RepoCache, revision: str | None) -> tuple[str, list[RemoteFile]] | None:
    """Return the commit and files of a snapshot whose files are all there, damaged or not."""
    commit = cache.commit_of(revision)
    listed = cache.listed(commit) if commit is not None else None
    if commit is None or listed is None:
        return None
    folder = cache.snapshot(commit)
    files = select_files(listed)
    try:
        names = [file.path for file in files] + weight_names(folder)
    except SnapshotError:
        return None
    return (commit, files) if files and all((folder / name).is_file() for name in names) else None


def local_folder(source: ModelSource) -> Path | None:
    """Return the folder that a source names, or None if there is none; `~` is the home folder."""
    # Of pathlib's own, `expanduser` raises for an unknown user and `is_dir` for a name that is too long.
    folder = os.path.expanduser(source.location)
    return Path(folder) if os.path.isdir(folder) else None


def local_snapshot(source: ModelSource) -> Path | None:
    """Return the folder of a model whose files are all on this disk, or None; asks no network."""
    folder = local_folder(source)
    if folder is not None:
        return folder
    if not _is_repo_id(source.location):
        return None
    try:
        cache = RepoCache(source.location)
    except ValueError:
        return None
    cached = _cached(cache, source.revision)
    return cache.snapshot(cached[0]) if cached is not None else None


def snapshot_on_disk(source: ModelSource) -> tuple[OnDisk, int]:
    """Return how much of a model is on this disk, and its bytes; asks no network and reads no weights."""
    folder = local_folder(source)
    if folder is not None:
        try:
            names = weight_names(folder)
        except SnapshotError:
            names = []
        needed = ("config.json", *names) if names else ADAPTER_FILES
        is_complete = all((folder / name).is_file() for name in needed)
        num_bytes = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        return "complete" if is_complete else "partial" if num_bytes else "absent", num_bytes
    if not _is_repo_id(source.location):
        return "absent", 0
    try:
        cache = RepoCache(source.location)
    except ValueError:
        return "absent", 0
    cached = _cached(cache, source.revision)
    if cached is not None:
        commit, files = cached
        if all(has_size(cache.snapshot(commit) / file.path, file) for file in files):
            return "complete", sum(file.size for file in files)
    num_bytes = cache.num_bytes()
    return "partial" if num_bytes else "absent", num_bytes


def check_snapshot(folder: Path, family: Family) -> None:
    """Check that `folder` describes `family` and that every file it needs is there.

    Raises:
        SnapshotError: naming the file that is missing or unreadable, or the architecture found instead.
    """
    _check_architecture(folder, (family,))
    _require(folder, TOKENIZER_FILES[family])
    names = weight_names(folder)
    if not names:
        expected = " / ".join(name for layout in WEIGHT_LAYOUTS for name in layout)
        raise SnapshotError("snapshot_file_missing", folder=folder, file=expected)
    for name in names:
        _require(folder, name)


def _check_architecture(folder: Path, families: tuple[Family, ...]) -> None:
    model_type = read_json(folder, "config.json").get("model_type")
    if model_type not in families:
        expected = " / ".join(families)
        raise SnapshotError("snapshot_wrong_architecture", folder=folder, expected=expected, got=model_type)


def weight_names(folder: Path) -> list[str]:
    """Return a model's weight files in order, there or not: one, or those that the index names; empty without either.

    Raises:
        SnapshotError: if an index of shards cannot be read.
    """
    for single, index in WEIGHT_LAYOUTS:
        if (folder / single).is_file():
            return [single]
        if (folder / index).is_file():
            weight_map = read_json(folder, index).get("weight_map")
            if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
                raise SnapshotError("snapshot_config_invalid", folder=folder, file=index, reason="no weight_map")
            return sorted(set(weight_map.values()))
    return []


def read_json(folder: Path, name: str) -> dict:
    """Return the JSON object in `folder / name`.

    Raises:
        SnapshotError: if the file is missing or is not a JSON object.
    """
    _require(folder, name)
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise SnapshotError("snapshot_config_invalid", folder=folder, file=name, reason=str(error)[:120]) from error
    if not isinstance(content, dict):
        raise SnapshotError("snapshot_config_invalid", folder=folder, file=name, reason="not a JSON object")
    return content


def _require(folder: Path, name: str) -> None:
    if not os.path.isfile(folder / name):  # where the folder may not be looked into, pathlib raises
        raise SnapshotError("snapshot_file_missing", folder=folder, file=name)


def _is_repo_id(location: str) -> bool:
    """Whether `location` has the form owner/name; a path with a dot, a tilde or more parts is a folder."""
    parts = location.split("/")
    return len(parts) == 2 and all(parts) and not location.startswith((".", "~")) and "\\" not in location
