"""What is taken away from the page: the picture for a doctor, the printed pages, the public address."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from gradio import networking

from bianque.texts import text
from tests.ui.fake_service import ADVICE, QUESTION, FakeService

pytestmark = pytest.mark.browser
playwright_api = pytest.importorskip("playwright.sync_api")
from tests.ui.visitor import Visitor  # noqa: E402

expect = playwright_api.expect
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
A4 = (1240, 1754)
# Share of the pixels that are dark, and whether none is transparent.
LOOK = """
async image => {
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const pen = canvas.getContext('2d');
  pen.drawImage(image, 0, 0);
  const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
  let dark = 0;
  let opaque = 0;
  for (let at = 0; at < data.length; at += 4) {
    dark += data[at] + data[at + 1] + data[at + 2] < 384;
    opaque += data[at + 3] === 255;
  }
  return { dark: dark / (data.length / 4), isOpaque: opaque === data.length / 4 };
}
"""


def consult(visitor) -> None:
    """Have a short consultation."""
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    visitor.send("一个月了")
    visitor.expect_reply(ADVICE, 3)


def draw(visitor):
    """Have the picture drawn; return the window that shows it."""
    visitor.open_panel("share")
    visitor.page.locator("#make-picture").click()
    window = visitor.page.locator("dialog#bq-picture")
    expect(window).to_be_visible()
    return window


def size(content: bytes) -> tuple[int, int]:
    """Return width and height of a PNG file."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", content[16:24])


@pytest.mark.parametrize("options", [{}, {**PHONE, "color_scheme": "dark", "locale": "en"}], ids=["desktop", "phone"])
def test_a_picture_for_a_doctor_is_drawn_and_saved(visit, options):
    visitor = visit(**options)
    consult(visitor)
    window = draw(visitor)
    with visitor.page.expect_download() as saved:
        window.locator("a").first.click()
    content = Path(saved.value.path()).read_bytes()
    assert re.fullmatch(r"bianque-\d{8}-\d{6}-1\.png", saved.value.suggested_filename)
    assert size(content) == A4 and 20_000 < len(content) < 1_000_000
    look = window.locator("img").first.evaluate(LOOK)
    assert look["isOpaque"] and 0.01 < look["dark"] < 0.2
    if options:
        assert visitor.scroll_width() == 390
    window.locator("button").last.click()
    expect(window).to_have_count(0)


def test_a_long_conversation_fills_several_pictures(visit):
    visitor = visit()
    words = "夜里咳嗽得厉害，白天好一些，喉咙发痒，没有发烧，也没有胸闷气短。" * 12
    history = [
        {"role": role, "content": f"第 {number} 条：{words}"} for number in range(12) for role in ("user", "assistant")
    ]
    visitor.open_panel("share")
    with visitor.page.expect_file_chooser() as chooser:
        visitor.page.get_by_role("button", name="打开导出的 JSON").click()
    chooser.value.set_files(visitor.export_file(history))
    expect(visitor.messages.first).to_contain_text("第 0 条")
    visitor.page.locator("#make-picture").click()
    pages = visitor.page.locator("dialog#bq-picture img")
    expect(pages.nth(3)).to_be_visible()
    number = pages.count()
    assert number < 20
    expect(pages.last).to_have_attribute("alt", re.compile(text("picture_page", "zh", page=number, pages=number)))
    assert all(0.005 < page.evaluate(LOOK)["dark"] < 0.2 for page in (pages.first, pages.last))
    assert pages.first.evaluate("image => [image.naturalWidth, image.naturalHeight]") == list(A4)


def test_printing_takes_as_many_sheets_as_the_conversation_needs(visit):
    visitor = visit()
    consult(visitor)
    visitor.print_conversation()
    one = visitor.page.pdf(format="A4")
    visitor.page.evaluate("""() => {
        const sheet = document.getElementById('bq-paper');
        const section = sheet.querySelector('section');
        for (let copy = 0; copy < 60; copy += 1) sheet.append(section.cloneNode(true));
    }""")
    many = visitor.page.pdf(format="A4")
    sheets = [len(re.findall(rb"/Type\s*/Page\b(?!s)", printed)) for printed in (one, many)]
    assert sheets[0] <= 2 < sheets[1]


def test_what_draws_is_loaded_when_it_is_wanted(visit):
    visitor = visit()
    asked: list[str] = []
    visitor.page.on("request", lambda request: asked.append(request.url))
    assert visitor.page.evaluate("typeof window.bianquePicture") == "undefined"
    consult(visitor)
    draw(visitor)
    assert [address for address in asked if address.endswith("/bianque/picture.js")] != []


def test_without_a_public_address_none_is_shown(visit):
    visitor = visit()
    visitor.open_panel("share")
    expect(visitor.page.locator("#address")).to_have_count(0)


def test_the_public_link_is_shown_and_can_be_copied(chromium, serve, monkeypatch):
    monkeypatch.setattr(networking, "setup_tunnel", lambda *_: "http://abc123.gradio.live")
    visitor = Visitor(chromium, serve(FakeService(seconds_per_token=0), is_shared=True))
    try:
        visitor.open_panel("share")
        expect(visitor.page.locator("#address textarea")).to_have_value("https://abc123.gradio.live")
        visitor.page.locator("#address button").click()
        visitor.page.wait_for_function("navigator.clipboard.readText().then(words => words.includes('abc123'))")
        visitor.page.locator("#make-link").click()
        expect(visitor.page.locator("#link textarea")).to_have_value(re.compile("^https://abc123.gradio.live\\?mode="))
    finally:
        visitor.close()
    assert visitor.foreign_requests == [] and visitor.errors == []


def test_a_space_shows_its_own_address(chromium, serve):
    address = "https://huggingface.co/spaces/someone/bianque"
    visitor = Visitor(chromium, serve(FakeService(), page_address=address))
    visitor.open_panel("share")
    expect(visitor.page.locator("#address textarea")).to_have_value(address)
    visitor.close()
