"""A small Hub on 127.0.0.1: the requests of huggingface_hub 2.4 and of the downloader, with a knob for each fault.

Files in LFS are redirected to `/cdn/…` as on the real Hub. `Fault`s match a part of a request's path and are used up
one by one; `requests` tells afterwards what was asked for and how much was sent.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LFS_SUFFIXES = (".bin", ".safetensors", ".model")
CHUNK = 16_384


def digest_of(path: str, content: bytes) -> str:
    """Return what the Hub calls a file's content: sha256 in LFS, git's sha1 otherwise."""
    if path.endswith(LFS_SUFFIXES):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def commit_of(files: dict[str, bytes]) -> str:
    """Return a commit hash that follows from the files."""
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


@dataclass
class Fault:
    """What goes wrong for requests whose path contains `path`.

    Attributes:
        path: part of the path; `/resolve/` and `/cdn/` tell files from the API.
        times: requests it applies to.
        status: answer with this status, `headers` and `body` and nothing else.
        headers: added to that answer.
        body: of that answer.
        drop_after: close the connection after so many bytes of the body.
        send_only: say and send only so many bytes, as a mirror with a cut file does.
        send_more: append so many bytes.
        is_corrupt: change the body's first byte.
        no_range: answer a Range request with everything.
        hold_after: after so many bytes set `held` and wait for `release`.
        hang_up: close the connection instead of an answer.
        is_slow: pause after each piece of the body, until `release` is set.
    """

    path: str
    times: int = 1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    drop_after: int | None = None
    send_only: int | None = None
    send_more: int = 0
    is_corrupt: bool = False
    no_range: bool = False
    hold_after: int | None = None
    hang_up: bool = False
    is_slow: bool = False
    held: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)


@dataclass
class Request:
    """One request that came in."""

    method: str
    path: str
    range: str
    authorization: str
    num_sent: int = 0


class HubServer(ThreadingHTTPServer):
    """The server; `start` runs it in a thread."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.branches: dict[tuple[str, str], str] = {}
        self.commits: dict[tuple[str, str], dict[str, bytes]] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.came = threading.Condition()
        self.tokens: dict[str, str] = {}
        self.lists_names_only = False
        self.xet: tuple[str, dict[str, str]] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def push(self, repo_id: str, files: dict[str, bytes], branch: str = "main") -> str:
        """Let `branch` point to a commit with `files`; return its hash."""
        commit = commit_of(files)
        self.branches[repo_id, branch] = commit
        self.commits[repo_id, commit] = dict(files)
        return commit

    def fail(self, path: str, **options) -> Fault:
        fault = Fault(path, **options)
        self.faults.append(fault)
        return fault

    def take_fault(self, path: str) -> Fault | None:
        with self.came:
            for fault in self.faults:
                if fault.times and fault.path in path:
                    fault.times -= 1
                    return fault
        return None

    def log(self, request: Request) -> None:
        with self.came:
            self.requests.append(request)
            self.came.notify_all()

    def wait_for(self, predicate, timeout_seconds: float = 60) -> None:
        """Wait until `predicate(requests)` holds."""
        with self.came:
            assert self.came.wait_for(lambda: predicate(self.requests), timeout_seconds), self.requests

    def sent(self, name: str) -> int:
        """Return the bytes of the bodies sent for a file, from `/resolve/` or `/cdn/`."""
        return sum(request.num_sent for request in self.requests if request.path.endswith(f"/{name}"))

    def bodies(self) -> list[Request]:
        return [request for request in self.requests if request.num_sent]

    def handle_error(self, request, client_address) -> None:
        """Say nothing about connections that a test broke."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = urllib.parse.unquote(self.path.split("?")[0])
        self._request = Request(
            self.command, path, self.headers.get("Range", ""), self.headers.get("Authorization", "")
        )
        self.server.log(self._request)
        self._fault = self.server.take_fault(path) or Fault("")
        if self._fault.hang_up:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif self._fault.status:
            self._end(self._fault.status, self._fault.headers, self._fault.body, with_body)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree|xet-read-token)/(.+))?", path):
            self._api(match[1], match[2] or "revision", match[3] or "main", with_body)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(match[1], match[2], match[3], with_body)
        elif match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/([^/]+)/(.+)", path):
            self._send_file(self.server.commits[match[1], match[2]][match[3]], {}, with_body)
        else:
            self._end(404, {}, b"", with_body)

    def _find(self, repo_id: str, revision: str, with_body: bool) -> str | None:
        """Return the commit, or answer with the Hub's error."""
        token = self.server.tokens.get(repo_id)
        if token is not None and self.headers.get("Authorization") != f"Bearer {token}":
            self._end(403, {"X-Error-Code": "GatedRepo"}, b"", with_body)
        elif not any(known == repo_id for known, _ in self.server.commits):
            self._end(404, {"X-Error-Code": "RepoNotFound"}, b"", with_body)
        elif (repo_id, revision) in self.server.commits:
            return revision
        elif (repo_id, revision) in self.server.branches:
            return self.server.branches[repo_id, revision]
        else:
            self._end(404, {"X-Error-Code": "RevisionNotFound"}, b"", with_body)
        return None

    def _api(self, repo_id: str, kind: str, revision: str, with_body: bool) -> None:
        commit = self._find(repo_id, revision, with_body)
        if commit is None:
            return
        if kind == "xet-read-token":
            headers = {"X-Xet-Cas-Url": self.server.xet[0], "X-Xet-Access-Token": "token"}
            self._end(200, {**headers, "X-Xet-Token-Expiration": "9999999999"}, b"{}", with_body)
            return
        files = self.server.commits[repo_id, commit]
        entries = []
        for path, content in files.items():
            large = path.endswith(LFS_SUFFIXES)
            digest = digest_of(path, content)
            git = hashlib.sha1(digest.encode()).hexdigest() if large else digest
            if kind == "tree":
                entry = {"type": "file", "path": path, "size": len(content), "oid": git}
                lfs = {"oid": digest, "size": len(content), "pointerSize": 134}
            else:
                entry = {"rfilename": path, "size": len(content), "blobId": git}
                lfs = {"sha256": digest, "size": len(content), "pointerSize": 134}
            if self.server.lists_names_only and kind != "tree":
                entries.append({"rfilename": path})
                continue
            entries.append({**entry, "lfs": lfs} if large else entry)
        answer = entries if kind == "tree" else {"id": repo_id, "sha": commit, "siblings": entries}
        self._end(200, {"Content-Type": "application/json"}, json.dumps(answer).encode(), with_body)

    def _resolve(self, repo_id: str, revision: str, path: str, with_body: bool) -> None:
        commit = self._find(repo_id, revision, with_body)
        if commit is None:
            return
        content = self.server.commits[repo_id, commit].get(path)
        if content is None:
            self._end(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b"", with_body)
            return
        headers = {"X-Repo-Commit": commit, "ETag": f'"{digest_of(path, content)}"'}
        if not path.endswith(LFS_SUFFIXES):
            self._send_file(content, headers, with_body)
            return
        headers["X-Linked-ETag"] = headers["ETag"]
        headers["X-Linked-Size"] = str(len(content))
        # Another host, as on the real Hub: the client must not send its token there.
        headers["Location"] = f"http://localhost:{self.server.server_port}/cdn/{repo_id}/{commit}/{path}"
        if self.server.xet is not None and path in self.server.xet[1]:
            headers["X-Xet-Hash"] = self.server.xet[1][path]
            auth = f"{self.server.endpoint}/api/models/{repo_id}/xet-read-token/{commit}"
            headers["Link"] = f'<{auth}>; rel="xet-auth"'
        self._end(302, headers, b"", with_body)

    def _send_file(self, content: bytes, headers: dict[str, str], with_body: bool) -> None:
        fault = self._fault
        if fault.send_only is not None:
            content = content[: fault.send_only]
        content += bytes(fault.send_more)
        if fault.is_corrupt:
            content = bytes([content[0] ^ 1]) + content[1:]
        status, start = 200, 0
        match = re.fullmatch(r"bytes=(\d+)-", self._request.range)
        if match and not fault.no_range:
            start = int(match[1])
            if start >= len(content):
                self._end(416, {"Content-Range": f"bytes */{len(content)}"}, b"", with_body)
                return
            status = 206
            headers = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content) - start)}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self._send_body(memoryview(content)[start:])

    def _send_body(self, body: memoryview) -> None:
        fault = self._fault
        stops = [stop for stop in (fault.drop_after, fault.hold_after) if stop is not None]
        while self._request.num_sent < len(body):
            limit = min([stop for stop in stops if stop > self._request.num_sent], default=len(body))
            piece = body[self._request.num_sent : min(self._request.num_sent + CHUNK, limit)]
            self.wfile.write(piece)
            self._request.num_sent += len(piece)
            if self._request.num_sent == fault.drop_after:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if fault.is_slow:
                self.wfile.flush()
                fault.release.wait(0.02)
            if self._request.num_sent == fault.hold_after:
                self.wfile.flush()
                fault.held.set()
                fault.release.wait(60)

    def _end(self, status: int, headers: dict[str, str], body: bytes, with_body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def use_hub(server: HubServer, cache: Path, monkeypatch) -> None:
    """Let huggingface_hub in this process ask `server` and store in `cache`."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
    template = server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)


def environment(server: HubServer, cache: Path) -> dict[str, str]:
    """Return the environment of another process that asks `server`."""
    ours = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    return {**ours, "HF_ENDPOINT": server.endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1"}


@contextmanager
def running_hub() -> Iterator[HubServer]:
    """Run a server in a thread for the time of a `with` block."""
    server = HubServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        for fault in server.faults:
            fault.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
