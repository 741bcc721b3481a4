"""Headers that say who may embed the page."""

from __future__ import annotations

import re
import struct
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from bianque.errors import SettingsError
from bianque.settings import Settings
from bianque.texts import text
from bianque.ui.embedding import page_middleware
from bianque.ui.public_files import public_routes


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


def test_a_link_to_the_page_shows_our_own_picture_and_nothing_of_gradios():
    foreign = (
        '<meta\n\tproperty="og:image"\n\tcontent="https://example.org/x.jpg"\n/>'
        '<meta name="twitter:title" content="G">'
    )
    html = f"<!doctype html><html><head>{foreign}<title>扁鹊</title></head></html>"
    page = Route("/", lambda _: HTMLResponse(html))
    client = TestClient(Starlette(routes=[page, *public_routes()], middleware=page_middleware(("*",))))
    forwarded = {"host": "me-bianque.hf.space", "x-forwarded-proto": "https"}
    shown = client.get("/", headers=forwarded).text
    assert "example.org" not in shown and 'content="G"' not in shown
    assert f'<meta property="og:title" content="{text("page_title", "zh")}">' in shown
    assert shown.count("og:description") == 1 and shown.count('name="theme-color"') == 2
    address = re.search(r'"og:image" content="(https://me-bianque\.hf\.space/[^"]+)"', shown)[1]
    picture = client.get(urlsplit(address).path)
    assert picture.headers["content-type"] == "image/png" and len(picture.content) < 300_000
    assert struct.unpack(">II", picture.content[16:24]) == (1200, 630)


@pytest.mark.parametrize("forged", [{"host": 'x"><script>'}, {"x-forwarded-proto": "javascript"}])
def test_a_forged_address_is_left_out(forged):
    page = Route("/", lambda _: HTMLResponse("<html><head></head></html>"))
    client = TestClient(Starlette(routes=[page], middleware=page_middleware(("*",))))
    shown = client.get("/", headers=forged).text
    assert "og:url" not in shown and 'content="bianque/card.png"' in shown


def test_the_setting_is_read_and_checked():
    assert Settings.from_environment({}).frame_ancestors == ("*",)
    read = Settings.from_environment({"BIANQUE_FRAME_ANCESTORS": "https://a.example  https://b.example:8443"})
    assert read.frame_ancestors == ("https://a.example", "https://b.example:8443")
    for bad in ("https://a.example; script-src *", "* self", "javascript:x", "https://a.example/path"):
        with pytest.raises(SettingsError):
            Settings.from_environment({"BIANQUE_FRAME_ANCESTORS": bad})
