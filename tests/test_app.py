"""app.py as people start it: a process of its own, the embedded models, a real browser."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bianque.texts import text
from tests.conftest import free_port

ROOT = Path(__file__).resolve().parent.parent
COMPLAINT = "我最近总是失眠，白天没精神，怎么办？"
ANSWERS = (
    "大概一个多月了",
    "晚上要两个小时才睡着，半夜容易醒",
    "最近工作压力比较大",
    "没有吃药，也没有别的病",
    "没有了",
    # The asker draws its questions; after its limit of eight replies the adviser answers whatever it would ask.
    *["没有别的了"] * 4,
)


def start(folder: Path, port: int, *arguments: str, **variables: str) -> subprocess.Popen:
    """Start app.py with a dead proxy, so that any request to another host fails, and its output in a file."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BIANQUE_", "GRADIO_"))}
    environment |= {
        "GRADIO_SERVER_PORT": str(port),
        "BIANQUE_MODELS": "demo",
        "BIANQUE_LOG_LEVEL": "DEBUG",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1,localhost",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        **variables,
    }
    with (folder / "log").open("wb") as log:
        command = [sys.executable, ROOT / "app.py", *arguments]
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """A running app: its address and its log."""
    folder, port = tmp_path_factory.mktemp("app"), free_port()
    url = f"http://127.0.0.1:{port}/"
    process = start(folder, port)
    try:
        deadline = time.monotonic() + 120
        while not answers(url):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)
        yield url, folder / "log"
        process.terminate()
        assert process.wait(30) == 0
        assert not list(folder.glob("bianque-*")), "temporary files were left"
    finally:
        process.kill()
        process.wait(30)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.browser
def test_a_complaint_is_asked_back_and_then_advised(app, chromium):
    from playwright.sync_api import expect

    from tests.ui.visitor import Visitor

    url, log = app
    visitor = Visitor(chromium, url)
    expect(visitor.page.locator("#status")).to_contain_text(text("status_demonstration", "zh"), timeout=120_000)
    visitor.send(COMPLAINT)
    titles = visitor.page.locator("#chat .thought-group > .title .md")
    expect(visitor.replies).to_have_count(2, timeout=60_000)
    visitor.expect_idle()
    assert titles.last.inner_text() == text("author_asker", "zh", model="mini-asker")
    for number, answer in enumerate(ANSWERS, start=3):
        if titles.last.inner_text() == text("author_adviser", "zh", model="mini-adviser"):
            break
        visitor.send(answer)
        expect(visitor.replies).to_have_count(number, timeout=60_000)
        visitor.expect_idle()
    assert titles.last.inner_text() == text("author_adviser", "zh", model="mini-adviser")
    assert len(visitor.reply_text()) > 20
    visitor.close()
    assert visitor.foreign_requests == [] and visitor.errors == []
    written = log.read_text(encoding="utf-8")
    assert not [words for words in (COMPLAINT, *ANSWERS[:4]) if words in written]
    assert "Traceback" not in written


def test_a_public_link_that_cannot_be_made_is_one_sentence_and_the_page_goes_on(tmp_path):
    port = free_port()
    process = start(tmp_path, port, "--share")
    address = f"http://127.0.0.1:{port}/"
    beginning = text("share_failed", "en", reason="|", address=address).split("|")[0]
    try:
        deadline = time.monotonic() + 180
        while beginning not in (tmp_path / "log").read_text():
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.2)
        assert address in (tmp_path / "log").read_text() and answers(address)
    finally:
        process.terminate()
        assert process.wait(60) == 0


def test_a_port_in_use_is_one_sentence_and_exit_code_1(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start(tmp_path, port)
        assert process.wait(60) == 1
    assert (tmp_path / "log").read_text().splitlines() == [text("port_in_use", "en", port=port)]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("no.such.host.invalid", "server_name_unknown"),
        ("a..b", "server_name_unknown"),
        ("x" * 70 + ".invalid", "server_name_unknown"),
        ("192.0.2.1", "server_refused"),  # an address for documentation, so no machine's
    ],
)
def test_an_address_that_cannot_be_listened_on_is_one_sentence_and_exit_code_1(name, key, tmp_path):
    port = free_port()
    process = start(tmp_path, port, GRADIO_SERVER_NAME=name)
    assert process.wait(60) == 1
    beginning = text(key, "en", name=name, port=port, reason="|").split("|")[0]
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 1 and lines[0].startswith(beginning)


@pytest.mark.parametrize("value", ["x", "0", "65536", "-1", "78.6"])
def test_what_is_no_port_is_one_sentence_and_exit_code_1(value, tmp_path):
    process = start(tmp_path, free_port(), GRADIO_SERVER_PORT=value)
    assert process.wait(60) == 1
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 1 and "GRADIO_SERVER_PORT" in lines[0] and repr(value) in lines[0]


def test_a_port_that_is_taken_after_the_check_is_one_sentence_and_exit_code_1(tmp_path):
    """Another program may be quicker while the page is built."""
    script = "import sys, app\napp.check_address = lambda *_: None\nsys.exit(app.main([]))"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "GRADIO_SERVER_PORT": str(port), "BIANQUE_MODELS": "demo", "PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1] == text("port_in_use", "en", port=port)


@pytest.mark.parametrize("name", ["::1", "[::1]", "::"])
def test_an_ipv6_address_serves(name, tmp_path):
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
            port = probe.getsockname()[1]
    except OSError:
        pytest.skip("there is no IPv6 here")
    # Without an exception from the dead proxy gradio would look for its own server there.
    process = start(tmp_path, port, GRADIO_SERVER_NAME=name, NO_PROXY="")
    try:
        deadline = time.monotonic() + 120
        while f"open http://[::1]:{port}" not in (tmp_path / "log").read_text():
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.2)
        assert answers(f"http://[::1]:{port}/")
    finally:
        process.terminate()
        assert process.wait(60) == 0


def test_a_wrong_setting_is_one_sentence_and_exit_code_1(tmp_path):
    ended = subprocess.run(
        [sys.executable, ROOT / "app.py"],
        env={**os.environ, "BIANQUE_DEVICE": "abacus"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1 and len(ended.stderr.splitlines()) == 1
    assert "BIANQUE_DEVICE" in ended.stderr and ended.stdout == ""
