"""Brings all files of one commit into the cache, several at once, after a look at the free disk."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from pathlib import Path

from bianque.errors import SnapshotError
from bianque.manager.download.hub import RetryPolicy
from bianque.manager.download.hub_cache import RepoCache
from bianque.manager.download.integrity import RemoteFile
from bianque.manager.download.progress import Progress, ProgressTracker, describe, format_bytes
from bianque.manager.download.transfer import Stopped, Transfer

logger = logging.getLogger(__name__)

NUM_WORKERS = 4
TICK_SECONDS = 0.1
LOG_SECONDS = 15.0
GRACE_SECONDS = 2.0
"""For threads to end after an interruption, which a stalled connection may not let them."""
CONFIG = "config.json"


def fetch_commit(
    cache: RepoCache,
    repo_id: str,
    commit: str,
    files: Sequence[RemoteFile],
    *,
    report: Callable[[Progress], None] | None,
    cancelled: threading.Event,
    policy: RetryPolicy,
    is_online: bool,
    inspect: Callable[[Path], None],
) -> None:
    """Return when every file is in the snapshot and was found whole, now or before.

    Args:
        cache: of the repo.
        repo_id: of the Hub.
        commit: full hash.
        files: of the snapshot.
        report: receives the progress.
        cancelled: ends all soon after it is set.
        policy: of repetition.
        is_online: whether files may be fetched.
        inspect: called with the snapshot's folder as soon as config.json is there; what it raises ends all.

    Raises:
        SnapshotError: when the disk is too small or a file is damaged, or what `inspect` raises.
        Stopped: when `cancelled` was set.
        HfHubHTTPError, httpx2.TransportError, OSError: when a file cannot be fetched or written.
    """
    snapshot = cache.snapshot(commit)
    tracker = ProgressTracker(files, _Reporter(repo_id, report))
    unchecked = []
    for file in files:
        if cache.record.is_verified(snapshot / file.path, file):
            tracker.finish(file)
        else:
            unchecked.append(file)
    if is_online:
        _prepare(cache, repo_id, commit, files, is_checked=not unchecked)
    stop = threading.Event()
    transfer = Transfer(repo_id, commit, cache, tracker, policy=policy, stop=stop, is_online=is_online)
    config = [file for file in unchecked if file.path == CONFIG]
    # Small files first: a repo that is not as it should be is noticed early.
    rest = sorted((file for file in unchecked if file.path != CONFIG), key=lambda file: (file.size, file.path))
    futures: list[Future[None]] = []
    try:
        futures = _start(transfer.ensure, config)
        _follow(futures, tracker, stop, cancelled)
        inspect(snapshot)
        futures = _start(transfer.ensure, rest)
        _follow(futures, tracker, stop, cancelled)
    finally:
        # Also when this thread is interrupted: what is under way ends by itself and keeps what has arrived.
        stop.set()
        wait(futures, GRACE_SECONDS)


def _prepare(cache: RepoCache, repo_id: str, commit: str, files: Sequence[RemoteFile], *, is_checked: bool) -> None:
    """Remember what belongs to the commit, delete what nobody will continue, and check the room for the rest."""
    cache.record.remember_files(commit, files)
    missing = {
        file.digest: file
        for file in files
        if not any(has_size(path, file) for path in (cache.snapshot(commit) / file.path, cache.blob(file)))
    }
    cache.drop_orphans(missing)
    needed = 0
    for file in missing.values():
        partial = cache.partial(file)
        needed += max(0, file.size - (partial.stat().st_size if partial.is_file() else 0))
    free = cache.free_bytes()
    if needed > free:
        raise SnapshotError(
            "snapshot_disk_full",
            repo_id=repo_id,
            needed=format_bytes(needed),
            free=format_bytes(free),
            folder=cache.folder.parent,
        )
    total = format_bytes(sum(file.size for file in files))
    if missing:
        logger.info("fetching %s at %.7s: %s of %s missing", repo_id, commit, format_bytes(needed), total)
    elif not is_checked:
        logger.info("checking the %s of %s at %.7s", total, repo_id, commit)


def _start(job: Callable[[RemoteFile], None], files: Sequence[RemoteFile]) -> list[Future[None]]:
    """Begin `job` for all files, some at a time.

    The threads of an executor would hold up the end of the process until the last byte is there; these do not.
    """
    futures: list[Future[None]] = [Future() for _ in files]
    waiting = deque(zip(futures, files, strict=True))

    def work() -> None:
        while True:
            try:
                future, file = waiting.popleft()
            except IndexError:
                return
            try:
                job(file)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)

    for number in range(min(NUM_WORKERS, len(files))):
        threading.Thread(target=work, name=f"download-{number}", daemon=True).start()
    return futures


def _follow(
    futures: list[Future[None]], tracker: ProgressTracker, stop: threading.Event, cancelled: threading.Event
) -> None:
    """Wait for all; the first failure or `cancelled` ends all.

    Raises:
        Exception: the first failure, or `Stopped`.
    """
    pending = set(futures)
    while pending:
        done, pending = wait(pending, TICK_SECONDS, FIRST_EXCEPTION)
        if cancelled.is_set() or any(future.exception() for future in done):
            stop.set()
        tracker.tick()
    errors = [error for future in futures if (error := future.exception()) is not None]
    # What failed comes before what was stopped because of it.
    errors.sort(key=lambda error: isinstance(error, Stopped))
    if errors:
        raise errors[0]


def has_size(path: Path, file: RemoteFile) -> bool:
    """Whether `path` is there with the size of `file`."""
    return path.is_file() and path.stat().st_size == file.size


class _Reporter:
    """Passes the progress on, and writes it to the log now and then."""

    def __init__(self, repo_id: str, report: Callable[[Progress], None] | None) -> None:
        self._repo_id = repo_id
        self._report = report
        self._logged_at = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        if self._report is not None:
            self._report(progress)
        now = time.monotonic()
        if now - self._logged_at >= LOG_SECONDS:
            self._logged_at = now
            logger.info("%s: %s", self._repo_id, describe(progress))
