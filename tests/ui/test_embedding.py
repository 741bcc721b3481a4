"""Headers that say who may embed the page."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from bianque.errors import SettingsError
from bianque.settings import Settings
from bianque.ui.embedding import page_middleware


def answer(*ancestors: str) -> httpx.Headers:
    page = Route("/", lambda _: PlainTextResponse("x", headers={"x-own": "kept"}))
    return TestClient(Starlette(routes=[page], middleware=page_middleware(ancestors))).get("/").headers


@pytest.mark.parametrize(
    ("ancestors", "policy"),
    [
        (("*",), "frame-ancestors *"),
        (("self",), "frame-ancestors 'self'"),
        (("none",), "frame-ancestors 'none'"),
        (
            ("https://a.example", "https://*.b.example:8443"),
            "frame-ancestors https://a.example https://*.b.example:8443",
        ),
    ],
)
def test_the_header_names_who_may_embed(ancestors, policy):
    headers = answer(*ancestors)
    assert headers["content-security-policy"] == policy
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert headers["x-own"] == "kept"


def test_the_script_runs_first_in_the_page_and_nowhere_else():
    html = "<!doctype html><html><head><title>扁鹊</title></head><body></body></html>"
    routes = [Route(path, lambda _: HTMLResponse(html)) for path in ("/", "/other")]
    client = TestClient(Starlette(routes=routes, middleware=page_middleware(("*",))))
    page = client.get("/").text
    assert page.index("window.bianque") < page.index("<title>扁鹊") and page.endswith("</html>")
    assert client.get("/other").text == html


def test_the_setting_is_read_and_checked():
    assert Settings.from_environment({}).frame_ancestors == ("*",)
    read = Settings.from_environment({"BIANQUE_FRAME_ANCESTORS": "https://a.example  https://b.example:8443"})
    assert read.frame_ancestors == ("https://a.example", "https://b.example:8443")
    for bad in ("https://a.example; script-src *", "* self", "javascript:x", "https://a.example/path"):
        with pytest.raises(SettingsError):
            Settings.from_environment({"BIANQUE_FRAME_ANCESTORS": bad})
