"""Brings single files into the cache: only the bytes that are missing, checked, and once for all processes.

huggingface_hub starts a file anew in each call, so a killed download of 14 GB would lose its shards under way. Here a
file is collected under a stable name and continued with a Range request, or from Xet at an offset, by whoever comes
next. The checksum runs along; what does not match is fetched once more from the start and then reported.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from bianque.errors import SnapshotError
from bianque.manager.download.hub import RetryPolicy, is_client_closed, is_transient, pause, reason_of
from bianque.manager.download.hub_cache import RepoCache
from bianque.manager.download.integrity import READ_BYTES, RemoteFile, is_whole, new_hasher
from bianque.manager.download.progress import ProgressTracker

logger = logging.getLogger(__name__)

LOCK_POLL_SECONDS = 0.2
HUB = "https://huggingface.co"
"""Only there Xet is used: it talks to hosts of its own, which a mirror (`HF_ENDPOINT`) is meant to avoid."""


def write_all(stream: BinaryIO, chunk: bytes) -> None:
    """Write all of `chunk`; an unbuffered file may take only a part, for example when the disk is nearly full."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[stream.write(rest) :]


class Stopped(Exception):
    """The download was cancelled, or another file failed."""


class _ShortBody(Exception):
    """The server ended a body early without an error."""


class Transfer:
    """Files of one commit on their way into the cache. `ensure` may be called from several threads."""

    def __init__(
        self,
        repo_id: str,
        commit: str,
        cache: RepoCache,
        tracker: ProgressTracker,
        *,
        policy: RetryPolicy,
        stop: threading.Event,
        is_online: bool = True,
    ) -> None:
        """Store what the files share.

        Args:
            repo_id: of the Hub.
            commit: full hash.
            cache: of the repo.
            tracker: told about every byte.
            policy: of repetition.
            stop: ends everything soon after it is set.
            is_online: whether missing and damaged files may be fetched.
        """
        self._repo_id = repo_id
        self._commit = commit
        self._cache = cache
        self._tracker = tracker
        self._policy = policy
        self._stop = stop
        self._is_online = is_online
        self._xet_failed = threading.Event()

    def ensure(self, file: RemoteFile) -> None:
        """Return when `file` is in the snapshot and whole.

        Raises:
            SnapshotError: when it arrives damaged twice, or is damaged here and cannot be fetched.
            Stopped: when `stop` was set.
            HfHubHTTPError, httpx2.TransportError, OSError: when it cannot be fetched or written.
            RuntimeError: when other threads closed the client again and again.
        """
        pointer = self._cache.snapshot(self._commit) / file.path
        if not self._is_verified(pointer, file):
            if not self._is_online:
                raise SnapshotError("snapshot_shard_damaged", file=file.path)
            with self._locked(file):
                self._bring(file, pointer)
        self._tracker.finish(file)

    def _bring(self, file: RemoteFile, pointer: Path) -> None:
        blob = self._cache.blob(file)
        # Another process may have brought it while this one waited for the lock.
        if not self._is_verified(blob, file) and not self._is_verified(pointer, file):
            for path in (blob, pointer):
                if path.exists():
                    logger.warning("%s in the cache is damaged and will be fetched again", file.path)
                path.unlink(missing_ok=True)
            self._fetch(file)
        self._cache.link(self._commit, file)

    def _is_verified(self, path: Path, file: RemoteFile) -> bool:
        if self._cache.record.is_verified(path, file):
            return True
        if not is_whole(path, file, lambda done_bytes: self._read(file, done_bytes)):
            return False
        self._cache.record.remember_verified(path, file)
        return True

    def _read(self, file: RemoteFile, done_bytes: int) -> None:
        self._raise_if_stopped()
        self._tracker.place(file, done_bytes)

    def _fetch(self, file: RemoteFile) -> None:
        blob, partial = self._cache.blob(file), self._cache.partial(file)
        blob.parent.mkdir(parents=True, exist_ok=True)
        for is_again in (False, True):
            if self._receive(file, partial):
                partial.replace(blob)
                self._cache.record.remember_verified(blob, file)
                return
            partial.unlink(missing_ok=True)
            logger.warning("%s arrived damaged%s", file.path, " again" if is_again else "; fetching it once more")
        raise SnapshotError("snapshot_file_corrupt", file=file.path, repo_id=self._repo_id)

    def _receive(self, file: RemoteFile, partial: Path) -> bool:
        """Complete `partial`; return whether its content is that of `file`."""
        num_failures = 0
        partial.touch()
        # Unbuffered, so that a killed process loses nothing that it counted.
        with partial.open("r+b", buffering=0) as stream:
            furthest = stream.seek(0, os.SEEK_END)
            while True:
                try:
                    return self._append(file, stream)
                except _ShortBody:
                    # After new bytes it is a dropped connection. A server without any more has a damaged file.
                    if stream.tell() <= furthest:
                        return False
                except Exception as error:
                    if stream.tell() > furthest:
                        num_failures = 0
                    num_failures += 1
                    tries = max(self._policy.tries, 2) if is_client_closed(error) else self._policy.tries
                    if num_failures >= tries or not is_transient(error):
                        raise
                    pause(f"{self._repo_id} {file.path}", num_failures, error, self._policy, self._stop)
                furthest = max(furthest, stream.tell())
                self._raise_if_stopped()

    def _append(self, file: RemoteFile, stream: BinaryIO) -> bool:
        """Fetch what is missing in `stream`; its position is where it ends, also after an error."""
        hasher = new_hasher(file)
        stream.seek(0)
        while chunk := stream.read(READ_BYTES):
            hasher.update(chunk)
        with contextlib.closing(self._chunks(file, stream.tell())) as chunks:
            for offset, chunk in chunks:
                if offset != stream.tell():
                    # The server does not know ranges and begins at the start.
                    stream.seek(offset)
                    stream.truncate()
                    hasher = new_hasher(file)
                self._raise_if_stopped()
                write_all(stream, chunk)
                hasher.update(chunk)
                self._tracker.place(file, stream.tell(), received=len(chunk))
                if stream.tell() > file.size:
                    return False
        if stream.tell() < file.size:
            raise _ShortBody
        return hasher.hexdigest() == file.digest

    def _chunks(self, file: RemoteFile, offset: int) -> Generator[tuple[int, bytes]]:
        """Yield the content from `offset` on, each piece with its place: from Xet if that works, else over HTTP."""
        if offset == file.size:
            return
        if self._wants_xet(file):
            try:
                for chunk in self._xet_chunks(file, offset):
                    yield offset, chunk
                    offset += len(chunk)
            except Exception as error:
                logger.warning("Xet failed for %s (%s); going on over HTTP", file.path, reason_of(error))
                self._xet_failed.set()
            if offset == file.size:
                return
        yield from self._http_chunks(file, offset)

    def _url(self, file: RemoteFile) -> str:
        from huggingface_hub import constants, hf_hub_url

        return hf_hub_url(self._repo_id, file.path, revision=self._commit, endpoint=constants.ENDPOINT)

    def _http_chunks(self, file: RemoteFile, offset: int) -> Iterator[tuple[int, bytes]]:
        from huggingface_hub import constants, get_session
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

        # Without `identity` a server may compress, and a range would be one of the compressed bytes.
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with get_session().stream(
            "GET", self._url(file), headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        ) as response:
            if response.status_code == 416:
                raise _ShortBody
            hf_raise_for_status(response)
            if response.status_code != 206:
                offset = 0
            for chunk in response.iter_bytes():
                yield offset, chunk
                offset += len(chunk)

    def _wants_xet(self, file: RemoteFile) -> bool:
        from huggingface_hub import constants
        from huggingface_hub.utils._runtime import is_xet_available

        return file.is_large and constants.ENDPOINT == HUB and not self._xet_failed.is_set() and is_xet_available()

    def _xet_chunks(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        from hf_xet import XetFileInfo
        from huggingface_hub import constants, get_hf_file_metadata
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]
        from huggingface_hub.utils._xet import (
            get_xet_session,
            refresh_xet_connection_info,
            xet_headers_without_auth,
        )

        metadata = get_hf_file_metadata(
            self._url(file), timeout=constants.HF_HUB_ETAG_TIMEOUT, endpoint=constants.ENDPOINT
        )
        if metadata.xet_file_data is None:
            return
        headers = build_hf_headers()
        connection = refresh_xet_connection_info(file_data=metadata.xet_file_data, headers=headers)
        with get_xet_session().new_download_stream_group(
            endpoint=connection.endpoint,
            token=connection.access_token,
            token_expiry_unix_secs=connection.expiration_unix_epoch,
            token_refresh_url=metadata.xet_file_data.refresh_route,
            token_refresh_headers=headers,
            custom_headers=xet_headers_without_auth(headers),
        ) as group:
            for chunk in group.download_stream(XetFileInfo(metadata.xet_file_data.file_hash, file.size), start=offset):
                yield bytes(chunk)

    @contextmanager
    def _locked(self, file: RemoteFile) -> Iterator[None]:
        """Hold the lock of `file`; while another process has it, show how far that one is."""
        from filelock import Timeout

        with ExitStack() as stack:
            while True:
                self._raise_if_stopped()
                try:
                    stack.enter_context(self._cache.lock(file.digest, LOCK_POLL_SECONDS))
                    break
                except Timeout:
                    with contextlib.suppress(OSError):
                        self._tracker.place(file, self._cache.partial(file).stat().st_size)
            yield

    def _raise_if_stopped(self) -> None:
        if self._stop.is_set():
            raise Stopped
