"""Shared by all tests: a page served in this process, and headless Chromium."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Read by gradio and the Hub client when they are imported, so set before any test module is.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"

CHROMIUM = Path(os.environ.get("BIANQUE_TEST_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium")


def free_port() -> int:
    """Return a port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def serve(tmp_path_factory) -> Iterator[Callable[..., str]]:
    """Launch the page over a service and return its address; closed after the module."""
    from bianque.ui.blocks import build_demo
    from bianque.ui.launch import launch_options, make_public_link, queue_options

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))
    demos = {}

    def launch(service, *, port: int | None = None, is_shared: bool = False, **options) -> str:
        demo = build_demo(service, **options).queue(**queue_options())
        _, url, _ = demo.launch(
            server_name="127.0.0.1",
            server_port=port or free_port(),
            prevent_thread_lock=True,
            **launch_options(),
        )
        if is_shared:
            make_public_link(demo)
        demos[url] = demo
        return url

    launch.stop = lambda url: demos.pop(url).close()
    yield launch
    for demo in demos.values():
        demo.close()
    monkeypatch.undo()


@pytest.fixture(scope="session")
def chromium():
    """Headless Chromium from the system; nothing is downloaded."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is absent; install Chromium or set BIANQUE_TEST_CHROMIUM")
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()
