"""Downloads against a Hub on loopback, with every fault that a network, a server or a disk can have."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bianque.errors import SnapshotError
from bianque.manager.download.hub import RetryPolicy, retrying
from bianque.manager.download.hub_cache import RepoCache
from bianque.manager.download.snapshot import resolve_snapshot, snapshot_on_disk
from bianque.manager.download.transfer import write_all
from bianque.settings import ModelSource
from tests.manager.hub_server import digest_of, environment, running_hub, use_hub

ROOT = Path(__file__).resolve().parents[2]
REPO = "owner/model"
WEIGHTS = "model.safetensors"  # in LFS, so each attempt is two requests: a redirect and the body
SIZE = 600_000
CONFIG = b'{"model_type": "t5"}'
SCRIPT = "from bianque.manager.download.snapshot import *; print(resolve_snapshot(ModelSource('owner/model')))"
FAST = RetryPolicy(tries=4, first_wait_seconds=0.001)


def content(seed: int, size: int = SIZE) -> bytes:
    return random.Random(seed).randbytes(size)


def model_files(**changes: bytes) -> dict[str, bytes]:
    return {
        "config.json": CONFIG,
        "tokenizer_config.json": b"{}",
        "spiece.model": b"tokenizer",
        WEIGHTS: content(1),
        **{name.replace("__", "."): value for name, value in changes.items()},
    }


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def hub(cache, monkeypatch):
    with running_hub() as server:
        use_hub(server, cache, monkeypatch)
        server.push(REPO, model_files())
        yield server


def fetch(revision: str | None = None, **options) -> Path:
    return resolve_snapshot(ModelSource(REPO, revision), **{"policy": FAST, **options})


def refused(**options) -> SnapshotError:
    with pytest.raises(SnapshotError) as caught:
        fetch(**options)
    return caught.value


def stored(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def partials(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob("*.incomplete")]


def num_asked(hub, part: str) -> int:
    return sum(part in request.path for request in hub.requests)


def wait_for_partial(cache: Path, num_bytes: int) -> None:
    """Wait until what the server sent is in the partial file: some of it may be on its way still."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):  # a small file that just became complete
            if any(path.stat().st_size >= num_bytes for path in cache.rglob("*.incomplete")):
                return
        time.sleep(0.01)
    raise AssertionError(f"fewer than {num_bytes} bytes arrived")


@contextlib.contextmanager
def other_process(hub, cache, script=SCRIPT):
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment(hub, cache),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


# what is fetched, and where it lands


def test_huggingface_hub_finds_what_was_fetched(hub):
    from huggingface_hub import scan_cache_dir, snapshot_download

    folder = fetch()
    assert stored(folder) == model_files()
    assert snapshot_download(REPO, local_files_only=True) == str(folder)
    assert not scan_cache_dir().warnings


def test_only_configuration_tokenizer_and_one_format_of_weights_are_fetched(hub):
    extra = {
        "modeling_chatglm.py": b"code",
        "pytorch_model.bin": content(2, 1000),
        "flax_model.msgpack": b"x",
        "README.md": b"x",
        "optimizer.bin": b"x",
        "checkpoint-1/config.json": b"{}",
        "checkpoint-1/model.safetensors": b"x",
        "train_data.json": b"[]",
    }
    hub.push(REPO, {**model_files(), **extra})
    assert stored(fetch()) == model_files()
    assert {Path(request.path).name for request in hub.bodies()} == set(model_files())


def test_the_shards_of_an_index_are_fetched(hub):
    shards = {f"pytorch_model-0000{number}-of-00002.bin": content(number, 5000) for number in (1, 2)}
    index = {"weight_map": dict(zip("ab", shards, strict=True))}
    files = {"config.json": CONFIG, "pytorch_model.bin.index.json": json.dumps(index).encode(), **shards}
    hub.push(REPO, {**files, "pytorch_model.fp16.bin": b"x"})
    assert stored(fetch()) == files


def test_a_mirror_that_lists_names_alone_is_asked_for_the_tree(hub):
    hub.lists_names_only = True
    assert stored(fetch()) == model_files()


def test_a_repo_without_weights_is_refused_before_anything_is_fetched(hub):
    hub.push(REPO, {"config.json": b"{}", "README.md": b"x"})
    error = refused()
    assert error.key == "snapshot_no_weights" and REPO in str(error)
    assert not hub.bodies()


@pytest.mark.parametrize(("model_type", "family"), [("t5", "chatglm"), ("llama", None)])
def test_another_architecture_is_noticed_before_the_weights_are_fetched(hub, model_type, family):
    hub.push(REPO, model_files(config__json=json.dumps({"model_type": model_type}).encode()))
    error = refused(family=family)
    assert error.key == "snapshot_wrong_architecture"
    assert model_type in str(error) and "chatglm" in str(error)
    assert hub.sent(WEIGHTS) == 0


def test_files_that_are_there_are_not_fetched_again(hub):
    folder = fetch()
    sent = len(hub.bodies())
    assert fetch() == folder
    assert len(hub.bodies()) == sent


def test_without_symbolic_links_nothing_is_stored_twice(hub, cache, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    folder = fetch()
    assert stored(folder) == model_files() and not any(path.is_symlink() for path in folder.iterdir())
    sizes = [path.stat().st_size for path in cache.rglob("*") if path.is_file()]
    assert sum(size == SIZE for size in sizes) == 1
    sent = len(hub.bodies())
    assert fetch() == folder
    assert len(hub.bodies()) == sent


# interruptions


def test_a_killed_download_goes_on_where_it_ended(hub, cache):
    fault = hub.fail(WEIGHTS, hold_after=400_000, times=2)
    with other_process(hub, cache) as process:
        assert fault.held.wait(60)
        wait_for_partial(cache, 400_000)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    fault.release.set()
    assert snapshot_on_disk(ModelSource(REPO))[0] == "partial"
    num_before = len(hub.requests)
    assert stored(fetch()) == model_files()
    bodies = {Path(request.path).name: request for request in hub.requests[num_before:] if request.num_sent}
    assert bodies[WEIGHTS].range == "bytes=400000-"
    assert bodies[WEIGHTS].num_sent == SIZE - 400_000
    assert partials(cache) == []


def test_a_process_ends_without_waiting_for_its_download(hub, cache):
    fault = hub.fail(WEIGHTS, hold_after=300_000, times=2)
    script = (
        "import sys, threading\n"
        "from bianque.manager.download.snapshot import *\n"
        "threading.Thread(target=resolve_snapshot, args=[ModelSource('owner/model')], daemon=True).start()\n"
        "sys.stdin.read()"
    )
    with other_process(hub, cache, script) as process:
        assert fault.held.wait(60)
        process.stdin.close()
        assert process.wait(60) == 0
    assert hub.sent(WEIGHTS) == 300_000


def test_dropped_connections_go_on_where_they_ended(hub):
    """More of them than tries: as long as something arrives, the server is not given up."""
    num_drops = FAST.tries + 2
    hub.fail(WEIGHTS, drop_after=50_000, times=2 * num_drops)
    assert stored(fetch()) == model_files()
    ranges = [request.range for request in hub.bodies() if request.path.endswith(WEIGHTS)]
    assert ranges == ["", *(f"bytes={50_000 * number}-" for number in range(1, num_drops + 1))]
    assert hub.sent(WEIGHTS) == SIZE


def test_a_server_that_stalls_is_asked_again(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.fail(WEIGHTS, hold_after=300_000, times=2)
    assert stored(fetch()) == model_files()
    assert [request.range for request in hub.bodies()][-1] == "bytes=300000-"


def test_a_server_without_ranges_gives_the_whole_file_again(hub):
    hub.fail(WEIGHTS, drop_after=100_000, times=2)
    hub.fail(WEIGHTS, no_range=True, times=2)
    assert stored(fetch()) == model_files()
    assert hub.sent(WEIGHTS) == SIZE + 100_000


def test_partial_files_that_nobody_continues_are_deleted(hub, cache):
    repo = RepoCache(REPO)
    repo.blobs.mkdir(parents=True)
    wanted = digest_of(WEIGHTS, content(1))
    for name in (f"{wanted}.0a1b2c3d", "b" * 64, "c" * 40 + ".0a1b2c3d", "d" * 64):
        (repo.blobs / f"{name}.incomplete").write_bytes(b"x")
    with repo.lock("d" * 64, 1):
        fetch()
    assert partials(cache) == ["d" * 64 + ".incomplete"]


# wrong content


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
@pytest.mark.parametrize("fault", [{"is_corrupt": True}, {"send_only": 10}, {"send_more": 10}])
def test_a_file_that_arrives_damaged_is_fetched_once_more(hub, cache, name, fault):
    # A cut file is noticed when the server has no more to give: one request more.
    hub.fail(f"/{name}", times=(2 if name == WEIGHTS else 1) * (2 if "send_only" in fault else 1), **fault)
    assert stored(fetch()) == model_files()
    assert partials(cache) == []


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
@pytest.mark.parametrize("fault", [{"is_corrupt": True}, {"send_only": 10}, {"send_more": 10}])
def test_a_file_that_always_arrives_damaged_is_named(hub, cache, name, fault):
    hub.fail(f"/{name}", times=99, **fault)
    error = refused()
    assert error.key == "snapshot_file_corrupt"
    assert name in str(error) and REPO in error.text("zh")
    # Another file may have been on its way; it is continued the next time.
    assert f"{digest_of(name, model_files()[name])}.incomplete" not in partials(cache)
    assert num_asked(hub, f"/resolve/{hub.branches[REPO, 'main']}/{name}") == (4 if "send_only" in fault else 2)


def test_damage_in_the_cache_is_found_and_mended(hub):
    weights = fetch() / WEIGHTS
    weights.write_bytes(b"damage" + content(1)[6:])
    assert stored(fetch()) == model_files()
    assert hub.sent(WEIGHTS) == 2 * SIZE
    weights.write_bytes(content(1)[:-1])
    assert stored(fetch()) == model_files()


def test_a_file_that_was_found_whole_is_not_read_again(hub):
    weights = fetch() / WEIGHTS
    before = weights.stat()
    weights.write_bytes(b"damage" + content(1)[6:])
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    # With the old size and time there is no sign of the damage, so only a second reading could find it.
    assert (fetch() / WEIGHTS).read_bytes().startswith(b"damage")


def test_damage_in_the_cache_without_network_is_named(hub):
    weights = fetch() / WEIGHTS
    weights.write_bytes(content(1)[:-1])
    hub.fail("/api/models", times=99, status=503)
    error = refused()
    assert error.key == "snapshot_shard_damaged" and WEIGHTS in str(error)
    assert snapshot_on_disk(ModelSource(REPO)) == ("partial", sum(map(len, model_files().values())) - 1)


def test_an_unreadable_record_is_made_anew(hub, cache):
    folder = fetch()
    record = cache / "models--owner--model" / "bianque.json"
    for text in ("{", "[1]", '{"files": 1, "verified": {}}'):
        record.write_text(text)
        assert fetch() == folder
    assert set(json.loads(record.read_text())["verified"]) == {
        digest_of(name, body) for name, body in model_files().items()
    }


# answers that end the matter at once


def test_a_repo_that_is_not_there(hub):
    with pytest.raises(SnapshotError) as caught:
        resolve_snapshot(ModelSource("owner/nothing"), policy=FAST)
    assert caught.value.key == "snapshot_no_repo"
    assert "owner/nothing" in str(caught.value) and hub.endpoint in str(caught.value)
    assert num_asked(hub, "/api/models") == 1


def test_a_revision_that_is_not_there(hub):
    error = refused(revision="v9")
    assert error.key == "snapshot_no_revision" and "v9" in str(error)
    assert num_asked(hub, "/api/models") == 1


def test_a_gated_repo_needs_a_token(hub, monkeypatch):
    hub.tokens[REPO] = "hf_secret"
    error = refused()
    assert error.key == "snapshot_no_access" and "HF_TOKEN" in str(error)
    assert num_asked(hub, "/api/models") == 1
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert stored(fetch()) == model_files()
    assert {request.authorization for request in hub.requests if "/cdn/" in request.path} == {""}


@pytest.mark.parametrize(
    ("status", "headers", "key"),
    [
        (401, {"X-Error-Code": "RepoNotFound"}, "snapshot_no_repo"),
        (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, "snapshot_no_access"),
        (403, {}, "snapshot_no_access"),
    ],
)
@pytest.mark.parametrize("path", ["/api/models", "/resolve/"])
def test_refusals_are_not_repeated(hub, status, headers, key, path):
    hub.fail(path, status=status, headers=headers, times=99)
    error = refused()
    assert error.key == key
    assert num_asked(hub, path) == 1


def test_a_name_that_no_repo_can_have(hub):
    with pytest.raises(SnapshotError) as caught:
        resolve_snapshot(ModelSource("owner/mo del"), policy=FAST)
    assert caught.value.key == "snapshot_not_cached"


# answers that are worth another try


@pytest.mark.parametrize("path", ["/api/models", "/config.json", "/cdn/"])
@pytest.mark.parametrize(
    "fault", [{"status": 429, "headers": {"Retry-After": "0"}}, {"status": 503}, {"hang_up": True}]
)
def test_a_busy_server_is_asked_again(hub, path, fault):
    hub.fail(path, times=2, **fault)
    assert stored(fetch()) == model_files()


@pytest.mark.parametrize("path", ["/api/models", "/config.json"])
def test_a_server_that_stays_busy_is_given_up(hub, path):
    hub.fail(path, times=99, status=503)
    error = refused()
    assert error.key == "snapshot_not_cached" and "503" in str(error)
    assert num_asked(hub, path) == FAST.tries


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 4.0),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "9999"}, 300.0),
        ({"ratelimit": '"api";r=0;t=55'}, 55.0),
        ({"ratelimit": '"api";r=3;t=55'}, 4.0),
    ],
)
def test_the_wait_is_what_the_server_asks_for_or_doubles(headers, seconds):
    error = OSError()
    error.response = SimpleNamespace(status_code=429, headers=headers)
    assert RetryPolicy(first_wait_seconds=1).wait_seconds(3, error) == seconds
    assert RetryPolicy(first_wait_seconds=1, longest_wait_seconds=5).wait_seconds(9, OSError()) == 5


def test_without_a_connection_nobody_waits_long():
    import httpx2

    calls = []

    def call():
        calls.append(None)
        raise httpx2.ConnectError("no route")

    with pytest.raises(httpx2.ConnectError):
        retrying(call, "owner/model", RetryPolicy(first_wait_seconds=0.001), threading.Event())
    assert len(calls) == 3


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b'{"id": "x", "sha": "../../etc", "siblings": []}'])
def test_an_answer_that_is_not_from_a_hub(hub, body):
    hub.fail("/api/models", status=200, body=body)
    error = refused()
    assert error.key == "snapshot_not_cached"
    assert not hub.bodies()


# progress and cancelling


def test_progress_only_grows_and_ends_with_everything(hub):
    hub.fail(WEIGHTS, is_corrupt=True, is_slow=True, times=2)
    hub.fail(WEIGHTS, is_slow=True, times=2)
    seen = []
    fetch(report=seen.append)
    total = sum(map(len, model_files().values()))
    assert [each.done_bytes for each in seen] == sorted(each.done_bytes for each in seen)
    assert {each.total_bytes for each in seen} == {total} and {each.files_total for each in seen} == {4}
    last = seen[-1]
    assert (last.done_bytes, last.files_done, last.seconds_left, last.share) == (total, 4, 0.0, 1.0)
    assert any(each.file == WEIGHTS and 0 < each.file_done_bytes < SIZE for each in seen)


def test_a_slow_server_shows_progress_and_can_be_cancelled(hub, cache):
    hub.fail(WEIGHTS, is_slow=True, times=2)
    cancelled = threading.Event()
    seen = []

    def report(progress):
        if progress.file == WEIGHTS and progress.file_done_bytes and progress.done_bytes not in seen:
            seen.append(progress.done_bytes)
            if len(seen) == 3:
                cancelled.set()

    error = refused(report=report, cancelled=cancelled)
    assert error.key == "snapshot_cancelled" and REPO in str(error)
    assert 0 < hub.sent(WEIGHTS) < SIZE
    assert len(partials(cache)) == 1
    assert stored(fetch()) == model_files()
    assert partials(cache) == []


def test_a_wait_for_a_busy_server_can_be_cancelled(hub):
    hub.fail("/api/models", times=99, status=503)
    cancelled = threading.Event()
    cancelled.set()
    error = refused(cancelled=cancelled, policy=RetryPolicy(first_wait_seconds=3600, longest_wait_seconds=3600))
    assert error.key == "snapshot_cancelled"


def test_the_log_tells_the_progress_now_and_then(hub, caplog, monkeypatch):
    monkeypatch.setattr("bianque.manager.download.commit.LOG_SECONDS", 0.0)
    with caplog.at_level("INFO", "bianque"):
        fetch()
    lines = [record.getMessage() for record in caplog.records]
    assert any("missing" in line for line in lines)
    assert any("100 %" in line and "4/4 files" in line for line in lines)


# the disk


def test_too_little_disk_is_said_before_anything_is_fetched(hub, monkeypatch):
    monkeypatch.setattr(RepoCache, "free_bytes", lambda cache: 500_000)
    error = refused()
    assert error.key == "snapshot_disk_full"
    assert "600.0 kB" in str(error) and "500.0 kB" in str(error)
    assert not hub.bodies()


def test_the_disk_is_only_asked_for_what_is_missing(hub, monkeypatch):
    hub.fail(WEIGHTS, drop_after=400_000, times=2)
    refused_once = hub.fail(f"/{WEIGHTS}", status=403)
    refused()
    assert refused_once.times == 0
    monkeypatch.setattr(RepoCache, "free_bytes", lambda cache: 250_000)
    assert stored(fetch()) == model_files()


def test_a_disk_that_takes_a_part_of_a_piece_gets_the_rest(tmp_path):
    class Reluctant(io.BytesIO):
        def write(self, piece):
            return super().write(piece[:7])

    stream = Reluctant()
    write_all(stream, content(1, 100))
    assert stream.getvalue() == content(1, 100)


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small tmpfs cannot be mounted here: {error}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up_is_named_and_the_download_goes_on_later(hub, small_disk, monkeypatch):
    use_hub(hub, small_disk, monkeypatch)
    files = model_files(model__safetensors=content(1, 1_500_000))
    hub.push(REPO, files)
    fault = hub.fail(WEIGHTS, hold_after=1_000_000, times=2)
    filler = small_disk / "filler"
    errors = []
    thread = threading.Thread(target=lambda: errors.append(refused()))
    thread.start()
    assert fault.held.wait(60)
    wait_for_partial(small_disk, 1_000_000)
    with pytest.raises(OSError), filler.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    fault.release.set()
    thread.join(60)
    assert errors[0].key == "snapshot_disk_filled"
    filler.unlink()
    num_before = len(hub.requests)
    assert stored(fetch()) == files
    bodies = [request for request in hub.requests[num_before:] if request.num_sent and WEIGHTS in request.path]
    assert len(bodies) == 1 and bodies[0].num_sent <= 500_000


# a cache that cannot be written


def test_a_cache_that_cannot_be_written_is_named(hub, monkeypatch):
    def mkdir(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "/data/.locks")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    error = refused()
    assert error.key == "snapshot_cache_read_only"
    assert "/data/.locks" in str(error) and "HF_HOME" in error.text("zh")


@pytest.fixture
def read_only(monkeypatch):
    """Make a cache one that this process cannot write, as a volume mounted read-only is: `read_only(hub)`.

    root may write everywhere, so for the time of the test it is nobody.
    """
    if not hasattr(os, "geteuid"):
        pytest.skip("the rights of files are others here")
    folder = Path(tempfile.mkdtemp(prefix="bianque-hub-"))  # pytest's own folders are closed to nobody
    folder.chmod(0o755)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(folder / "token"))

    def close() -> None:
        for path in (folder, *folder.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o555 if path.is_dir() else 0o444)
        if os.geteuid() == 0:
            os.seteuid(65534)

    yield SimpleNamespace(folder=folder, close=close)
    if os.getuid() == 0:
        os.seteuid(0)
    for path in (folder, *folder.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(folder)


def test_a_cache_that_cannot_be_written_serves_its_snapshot_when_the_branch_has_moved(
    hub, read_only, monkeypatch, caplog
):
    use_hub(hub, read_only.folder, monkeypatch)
    old = fetch()
    hub.push(REPO, model_files(model__safetensors=content(2)))
    read_only.close()
    with pytest.raises(PermissionError):
        (read_only.folder / "file").touch()
    with caplog.at_level("WARNING", "bianque"):
        assert fetch() == old
    assert stored(old) == model_files()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1 and "cannot be written" in lines[0]
    assert f"the cached snapshot {old.name[:7]} is used" in lines[0]


def test_a_cache_without_room_serves_its_snapshot_when_the_branch_has_moved(hub, monkeypatch, caplog):
    """As a volume that is mounted read-only may say of itself."""
    old = fetch()
    hub.push(REPO, model_files(model__safetensors=content(2)))
    monkeypatch.setattr(RepoCache, "free_bytes", lambda cache: 0)
    with caplog.at_level("WARNING", "bianque"):
        assert fetch() == old
    assert caplog.messages == [
        f"{REPO}: commit {hub.branches[REPO, 'main'][:7]} cannot be stored (there is room for 0 B of 600.0 kB); "
        f"the cached snapshot {old.name[:7]} is used"
    ]


def test_a_cache_that_cannot_be_written_serves_a_new_commit_that_is_there(hub, read_only, monkeypatch):
    use_hub(hub, read_only.folder, monkeypatch)
    old = fetch()
    new = fetch(hub.push(REPO, model_files(model__safetensors=content(2))))
    read_only.close()
    assert old != new and fetch() == new


def test_a_damaged_file_in_a_cache_that_cannot_be_written_is_not_used(hub, read_only, monkeypatch):
    use_hub(hub, read_only.folder, monkeypatch)
    (fetch() / WEIGHTS).write_bytes(content(3))
    read_only.close()
    assert refused().key == "snapshot_cache_read_only"


# the client that all threads share


def close_client_when_asked(monkeypatch, *, num_times: int) -> None:
    """Let another thread close the client between the moment a request gets it and the request itself."""
    from huggingface_hub.utils import _http

    original, left = _http.get_session, [num_times]

    def get_session():
        client = original()
        if left[0]:
            left[0] -= 1
            _http.close_session()
        return client

    # As every module that imported it knows it.
    for name, module in list(sys.modules.items()):
        if name.startswith("huggingface_hub") and vars(module).get("get_session") is original:
            monkeypatch.setattr(module, "get_session", get_session)


def test_a_request_that_met_a_closed_client_is_repeated_with_a_new_one(hub, monkeypatch):
    close_client_when_asked(monkeypatch, num_times=1)
    assert stored(fetch(policy=RetryPolicy(tries=1))) == model_files()


def test_a_closed_client_does_not_hide_that_the_branch_has_moved(hub, monkeypatch):
    old = fetch()
    hub.push(REPO, model_files(model__safetensors=content(2)))
    close_client_when_asked(monkeypatch, num_times=1)
    assert fetch() != old


def test_a_client_that_stays_closed_is_one_sentence(hub, monkeypatch):
    close_client_when_asked(monkeypatch, num_times=99)
    error = refused()
    assert error.key == "snapshot_client_closed" and REPO in str(error) and REPO in error.text("zh")


def test_a_client_that_stays_closed_leaves_the_cached_snapshot(hub, monkeypatch, caplog):
    old = fetch()
    close_client_when_asked(monkeypatch, num_times=99)
    with caplog.at_level("WARNING", "bianque"):
        assert fetch() == old
    assert "the cached snapshot is used" in caplog.messages[-1]


def test_files_are_fetched_again_with_a_new_client(hub, monkeypatch):
    """A thread that cannot connect closes the client while another one fetches."""
    from bianque.manager.download import transfer

    asked = transfer.Transfer._http_chunks
    left = [1]

    def closed_once(self, file, offset):
        if left[0] and file.path == WEIGHTS:
            left[0] -= 1
            raise RuntimeError("Cannot send a request, as the client has been closed.")
        return asked(self, file, offset)

    monkeypatch.setattr(transfer.Transfer, "_http_chunks", closed_once)
    assert stored(fetch(policy=RetryPolicy(tries=1))) == model_files()


def test_another_runtime_error_is_not_taken_for_a_closed_client(hub, monkeypatch):
    monkeypatch.setattr(
        "bianque.manager.download.snapshot.select_files", lambda _: (_ for _ in ()).throw(RuntimeError("bug"))
    )
    with pytest.raises(RuntimeError, match="bug"):
        fetch()


# several processes, moving branches, no network


def test_two_processes_fetch_once(hub, cache):
    fault = hub.fail(WEIGHTS, hold_after=100_000, times=2)
    with other_process(hub, cache) as one, other_process(hub, cache) as other:
        assert fault.held.wait(60)
        hub.wait_for(lambda requests: sum("/api/models" in request.path for request in requests) >= 2)
        fault.release.set()
        folders = {process.communicate(timeout=60)[0].strip() for process in (one, other)}
        assert one.returncode == other.returncode == 0
    assert len(folders) == 1 and stored(Path(folders.pop())) == model_files()
    for name, body in model_files().items():
        assert hub.sent(name) == len(body)
    assert partials(cache) == []


def test_a_branch_that_moved_gives_a_new_snapshot_and_reuses_old_content(hub):
    old = fetch()
    hub.push(REPO, model_files(config__json=b'{"model_type": "t5", "new": 1}'))
    num_before = len(hub.requests)
    new = fetch()
    assert new != old and stored(old) == model_files()
    assert b"new" in (new / "config.json").read_bytes()
    names = {Path(request.path).name for request in hub.requests[num_before:] if request.num_sent}
    assert names == {"config.json"}


def test_a_move_that_did_not_finish_leaves_the_old_snapshot_usable(hub):
    old = fetch()
    hub.push(REPO, model_files(model__safetensors=content(2)))
    hub.fail(f"/{WEIGHTS}", times=99, status=503)
    assert refused().key == "snapshot_not_cached"
    hub.fail("/api/models", times=99, status=503)
    assert fetch() == old


@pytest.mark.parametrize("fault", [{"status": 500}, {"hang_up": True}, {"status": 404}])
def test_a_cached_snapshot_serves_while_the_hub_does_not(hub, fault):
    folder = fetch()
    hub.fail("/api/models", times=99, **fault)
    num_before = num_asked(hub, "/api/models")
    assert fetch() == folder
    assert num_asked(hub, "/api/models") == num_before + 1


def test_a_full_commit_hash_needs_no_network_once_it_is_complete(hub):
    commit = hub.branches[REPO, "main"]
    folder = fetch(commit)
    num_before = len(hub.requests)
    assert fetch(commit) == folder and folder.name == commit
    assert len(hub.requests) == num_before


def test_offline_and_nothing_cached(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    error = refused()
    assert error.key == "snapshot_not_cached" and REPO in str(error) and "offline" in str(error)
    assert not hub.requests


def test_offline_with_a_cached_snapshot(hub, monkeypatch):
    from huggingface_hub import constants

    folder = fetch()
    num_before = len(hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch() == folder
    assert len(hub.requests) == num_before


def test_no_server_at_all(cache, monkeypatch):
    with running_hub() as server:
        use_hub(server, cache, monkeypatch)
    error = refused()
    assert error.key == "snapshot_not_cached" and "ConnectError" in str(error)


def test_a_snapshot_of_huggingface_hub_is_checked_and_used(hub, monkeypatch):
    """A Space's build fetches with `preload_from_hub`, which knows nothing of this project's record."""
    from huggingface_hub import constants, snapshot_download

    folder = Path(snapshot_download(REPO))
    sent = len(hub.bodies())
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch() == folder
    (folder / WEIGHTS).write_bytes(content(3))
    error = refused()
    assert error.key == "snapshot_shard_damaged" and WEIGHTS in str(error)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert stored(fetch()) == model_files()
    assert len(hub.bodies()) == sent + 1


def test_a_snapshot_of_huggingface_hub_without_links_is_mended(hub, monkeypatch):
    """Where links are not possible its files do not tell their digests, so the Hub has to."""
    from huggingface_hub import constants, snapshot_download

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    commit = hub.branches[REPO, "main"]
    weights = Path(snapshot_download(REPO, revision=commit)) / WEIGHTS
    weights.write_bytes(content(3))
    assert stored(fetch(commit)) == model_files()
    num_before = len(hub.requests)
    fetch(commit)
    assert len(hub.requests) == num_before


def test_what_is_on_disk_is_known_without_network(hub, tmp_path):
    source = ModelSource(REPO)
    assert snapshot_on_disk(source) == ("absent", 0)
    fetch()
    num_before = len(hub.requests)
    total = sum(map(len, model_files().values()))
    assert snapshot_on_disk(source) == ("complete", total)
    assert snapshot_on_disk(ModelSource(REPO, "v9")) == ("partial", total)
    assert snapshot_on_disk(ModelSource("owner/other")) == ("absent", 0)
    assert snapshot_on_disk(ModelSource(str(tmp_path / "nothing"))) == ("absent", 0)
    assert len(hub.requests) == num_before


# Xet


@pytest.fixture
def xet(hub, tmp_path, monkeypatch):
    """Let the weights be in a Xet store, a folder on this disk, which hf_xet itself reads."""
    hf_xet = pytest.importorskip("hf_xet")
    store = f"local://{tmp_path}/xet"
    weights = tmp_path / "weights"
    weights.write_bytes(content(1))
    with hf_xet.XetSession().new_upload_commit(endpoint=store) as commit:
        upload = commit.start_upload_file(str(weights))
    hub.xet = (store, {WEIGHTS: upload.result().xet_info.hash})
    monkeypatch.setattr("bianque.manager.download.transfer.HUB", hub.endpoint)
    return hub


def test_xet_is_used_and_goes_on_where_a_download_ended(xet, cache):
    repo = RepoCache(REPO)
    repo.blobs.mkdir(parents=True)
    (repo.blobs / f"{digest_of(WEIGHTS, content(1))}.incomplete").write_bytes(content(1)[:400_000])
    assert stored(fetch()) == model_files()
    assert xet.sent(WEIGHTS) == 0
    assert partials(cache) == []


def test_http_is_used_where_xet_fails(xet):
    xet.fail("xet-read-token", times=99, status=403)
    assert stored(fetch()) == model_files()
    assert xet.sent(WEIGHTS) == SIZE


def test_xet_can_be_switched_off(xet, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    assert stored(fetch()) == model_files()
    assert xet.sent(WEIGHTS) == SIZE and num_asked(xet, "xet-read-token") == 0


def test_a_mirror_is_not_bypassed_by_xet(xet, monkeypatch):
    monkeypatch.setattr("bianque.manager.download.transfer.HUB", "https://huggingface.co")
    assert stored(fetch()) == model_files()
    assert num_asked(xet, "xet-read-token") == 0
