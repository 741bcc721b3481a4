"""What the Hub is asked: the commit and files of a revision; which answers are worth another try, and what went wrong.

huggingface_hub does the requests, so its token, `HF_ENDPOINT` and offline switch apply. It repeats some requests by
itself but not the first one, which is why the repetition is here.
"""

from __future__ import annotations

import errno
import logging
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from bianque.errors import SnapshotError
from bianque.manager.download.hub_cache import COMMIT, DEFAULT_REVISION
from bianque.manager.download.integrity import DIGEST, RemoteFile
from bianque.settings import ModelSource

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
SMALL_FILES = frozenset(
    {
        "adapter_config.json",
        "bianque_adapter.json",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "spiece.model",
        "ice_text.model",
    }
)
# In the order of preference; one name marks the layout, the pattern finds its shards.
WEIGHT_LAYOUTS = (
    ("model.safetensors", None),
    ("model.safetensors.index.json", re.compile(r"model-\d+-of-\d+\.safetensors")),
    ("pytorch_model.bin", None),
    ("pytorch_model.bin.index.json", re.compile(r"pytorch_model-\d+-of-\d+\.bin")),
    ("adapter_model.safetensors", None),
)


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how fast to ask again.

    Attributes:
        tries: requests in a row without a new byte before giving up, at least 1.
        connect_tries: the same for the first question to a Hub to which no connection comes up: without a network
            nobody should wait long for the demonstration models.
        first_wait_seconds: after the first failure; doubles each time.
        longest_wait_seconds: limit of the doubling.
        longest_asked_seconds: limit of what a server may ask for with `Retry-After`; the Hub's window is 300 s.
    """

    tries: int = 6
    connect_tries: int = 3
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 30.0
    longest_asked_seconds: float = 300.0

    def wait_seconds(self, num_failures: int, error: Exception) -> float:
        """Return the seconds to wait after `num_failures` failures in a row, the last of which was `error`."""
        asked = _asked_seconds(error)
        if asked is not None:
            return min(asked, self.longest_asked_seconds)
        if num_failures == 1 and is_client_closed(error):
            return 0.0  # there is nobody to spare
        return min(self.first_wait_seconds * 2 ** (num_failures - 1), self.longest_wait_seconds)


def retrying(call: Callable[[], _T], what: str, policy: RetryPolicy, stop: threading.Event) -> _T:
    """Return what `call` returns, repeating it while its error is transient and `stop` is not set.

    Raises:
        Exception: the last error of `call`.
    """
    import httpx2

    num_failures = 0
    while True:
        try:
            return call()
        except Exception as error:
            num_failures += 1
            tries = min(policy.tries, policy.connect_tries if isinstance(error, httpx2.ConnectError) else policy.tries)
            if is_client_closed(error):
                tries = max(tries, 2)  # it says nothing of the Hub, and the next request gets a new client
            if num_failures >= tries or not is_transient(error):
                raise
            if not pause(what, num_failures, error, policy, stop):
                raise


def pause(what: str, num_failures: int, error: Exception, policy: RetryPolicy, stop: threading.Event) -> bool:
    """Wait before the next try and say so in the log; return False if `stop` was set meanwhile."""
    seconds = policy.wait_seconds(num_failures, error)
    logger.warning("%s: %s; trying again in %.1f s (%d)", what, reason_of(error), seconds, num_failures)
    return not stop.wait(seconds)


def is_transient(error: Exception) -> bool:
    """Whether asking again may help: a busy or failing server, or a connection that broke or did not come up."""
    import httpx2

    status = status_of(error)
    if status is not None:
        return status in TRANSIENT_STATUS
    if is_client_closed(error):
        return True
    return isinstance(error, httpx2.TransportError) and not isinstance(
        error, (httpx2.ProxyError, httpx2.UnsupportedProtocol)
    )


def is_client_closed(error: BaseException) -> bool:
    """Whether a request met a closed client; the next `get_session` makes a new one.

    huggingface_hub closes the client that all threads share when one of them cannot connect, after a fork, when
    another part of the program sets its own client, and at the end of the process. httpx2 has no class of its own for
    the error, and other errors of the class are faults of a program.
    """
    return isinstance(error, RuntimeError) and "client has been closed" in str(error)


def is_expected(error: Exception) -> bool:
    """Whether Hub, network, cache or a closed client raise `error`, without a fault of the program."""
    import httpx2

    return isinstance(error, (httpx2.HTTPError, OSError, ValueError, KeyError)) or is_client_closed(error)


def is_read_only(error: BaseException) -> bool:
    """Whether a place on this disk may not be written."""
    return isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)


def status_of(error: Exception) -> int | None:
    """Return the HTTP status that an error of huggingface_hub carries."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _asked_seconds(error: Exception) -> float | None:
    """Return the seconds a server asks to wait: `Retry-After`, or the Hub's `RateLimit` when its quota is used up."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    headers = getattr(getattr(error, "response", None), "headers", None)
    if headers is None:
        return None
    after = str(headers.get("Retry-After", "")).strip()
    if after.isdecimal():
        return float(after)
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else None


def reason_of(error: BaseException) -> str:
    """Return one short line for the log or a message, without the address's query, which may hold a signature."""
    status = status_of(error) if isinstance(error, Exception) else None
    if status is not None:
        return f"HTTP {status}"
    lines = str(error).strip().splitlines()
    line = re.sub(r"\?\S+", "", lines[0])[:200] if lines else ""
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def list_files(source: ModelSource) -> tuple[str, list[RemoteFile]]:
    """Ask the Hub for the commit that a revision points to and its files; not repeated.

    Raises:
        HfHubHTTPError, httpx2.TransportError, OfflineModeIsEnabled: as huggingface_hub raises them.
        RuntimeError: if another thread closed the client meanwhile.
        ValueError: if the answer is not one of a Hub.
    """
    from huggingface_hub import HfApi, RepoFile, constants

    api = HfApi(endpoint=constants.ENDPOINT)
    info = api.model_info(
        source.location,
        revision=source.revision or DEFAULT_REVISION,
        timeout=constants.HF_HUB_ETAG_TIMEOUT,
        files_metadata=True,
    )
    commit = info.sha or ""
    # Commits and digests become names of files here, so only what has their form is taken.
    if not COMMIT.fullmatch(commit):
        raise ValueError(f"the answer of {constants.ENDPOINT} names no commit")
    entries: list[tuple[str, Any]] = [(sibling.rfilename, sibling) for sibling in info.siblings or []]
    if any(entry.size is None for _, entry in entries):
        # A mirror that lists names alone; the tree has sizes and digests.
        tree = api.list_repo_tree(source.location, revision=commit, recursive=True)
        entries = [(entry.path, entry) for entry in tree if isinstance(entry, RepoFile)]
    files = []
    for path, entry in entries:
        size, digest = (entry.lfs.size, entry.lfs.sha256) if entry.lfs else (entry.size, entry.blob_id)
        if size is not None and DIGEST.fullmatch(digest or ""):
            files.append(RemoteFile(path, size, digest))
    return commit, files


def select_files(files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """Return the files a model needs: configuration, tokenizer and one format of the weights; never code.

    Files in folders of the repo are training checkpoints and the like. Without weights the list is empty.
    """
    by_path = {file.path: file for file in files}
    for marker, shards in WEIGHT_LAYOUTS:
        if marker in by_path:
            paths = {path for path in by_path if path in SMALL_FILES or (shards and shards.fullmatch(path))}
            return [by_path[path] for path in sorted({marker} | paths)]
    return []


def explain(error: Exception, source: ModelSource) -> SnapshotError:
    """Return the sentence for what the Hub, the network or the disk raised."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, SnapshotError):
        return error
    repo_id = source.location
    if isinstance(error, RevisionNotFoundError):
        return SnapshotError("snapshot_no_revision", repo_id=repo_id, revision=source.revision or DEFAULT_REVISION)
    if isinstance(error, RepositoryNotFoundError) and not isinstance(error, GatedRepoError):
        return SnapshotError("snapshot_no_repo", repo_id=repo_id, endpoint=constants.ENDPOINT)
    if status_of(error) in (401, 403):
        return SnapshotError("snapshot_no_access", repo_id=repo_id, endpoint=constants.ENDPOINT)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return SnapshotError("snapshot_disk_filled", repo_id=repo_id, reason=reason_of(error))
    if is_client_closed(error):
        return SnapshotError("snapshot_client_closed", repo_id=repo_id)
    if is_read_only(error):
        folder = getattr(error, "filename", None) or constants.HF_HUB_CACHE
        return SnapshotError("snapshot_cache_read_only", repo_id=repo_id, folder=folder)
    return SnapshotError("snapshot_not_cached", repo_id=repo_id, reason=reason_of(error))
