"""Links, files, kept conversations and the compact view inside another page, in headless Chromium."""

from __future__ import annotations

import json
import re
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import quote, urlsplit

import pytest

from bianque.texts import text
from tests.ui.fake_service import ADVICE, CONSOLATION, QUESTION, FakeService
from tests.ui.tcp_proxy import TcpProxy

pytestmark = pytest.mark.browser
playwright_api = pytest.importorskip("playwright.sync_api")
from tests.ui.visitor import EVENT, PATIENCE_MS, Visitor  # noqa: E402

expect = playwright_api.expect
DOCS = Path(__file__).resolve().parents[2] / "docs"


def consult(visitor) -> None:
    """Have a short consultation."""
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    visitor.send("一个月了")
    visitor.expect_reply(ADVICE, 3)


def test_a_link_sets_the_page_and_sends_nothing(visit, service):
    visitor = visit(f"?mode=soulchat&top_p=0.5&seed=7&lang=en&theme=dark&q={quote('我很难过')}")
    expect(visitor.box).to_have_value("我很难过")
    expect(visitor.page.locator("#mode input:checked")).to_have_value("soulchat")
    expect(visitor.page.locator("body")).to_contain_text(text("mode_label", "en"))
    expect(visitor.page.locator("body")).to_have_class("dark")
    visitor.open_panel("settings")
    expect(visitor.page.locator("#settings input[type=number]").first).to_have_value("0.5")
    assert service.calls == []
    visitor.box.press("Enter")
    visitor.expect_reply(CONSOLATION, 2)
    assert service.calls[-1].options.seed == 7 and service.calls[-1].options.top_p == 0.5


def test_the_link_made_here_has_settings_and_question_but_no_conversation(visit):
    visitor = visit()
    consult(visitor)
    visitor.open_panel("share")
    visitor.page.get_by_label("链接里的第一个问题").fill("总是失眠怎么办")
    visitor.page.locator("#make-link").click()
    expect(visitor.page.locator("#link textarea")).not_to_have_value("")
    link = visitor.page.locator("#link textarea").input_value()
    assert quote("总是失眠怎么办") in link and "mode=joint" in link and "top_p=0.7" in link
    assert quote("一个月了") not in link and quote("我失眠") not in link
    visitor.page.goto(link)
    expect(visitor.box).to_have_value("总是失眠怎么办")


def test_an_exported_conversation_can_be_opened_again(visit):
    visitor = visit()
    consult(visitor)
    visitor.open_panel("share")
    with visitor.page.expect_download() as markdown:
        visitor.page.get_by_role("button", name="Markdown").click()
    content = Path(markdown.value.path()).read_text(encoding="utf-8")
    assert ADVICE.splitlines()[0] in content and text("medical_notice", "zh") in content
    with visitor.page.expect_download() as exported:
        visitor.page.locator("#share").get_by_role("button", name="JSON", exact=True).click()
    path = exported.value.path()
    assert json.loads(Path(path).read_text(encoding="utf-8"))["label"] == text("ai_label", "zh")
    visitor.page.locator("#chat button[aria-label='清空对话']").click()
    expect(visitor.replies).to_have_count(1)
    with visitor.page.expect_file_chooser() as chooser:
        visitor.page.get_by_role("button", name="打开导出的 JSON").click()
    chooser.value.set_files(path)
    visitor.expect_reply(ADVICE, 3)
    assert visitor.messages.all_inner_texts() == ["我失眠", "一个月了"]


def open_file(visitor, file) -> None:
    """Choose a file in the panel, which is open."""
    with visitor.page.expect_file_chooser() as chooser:
        visitor.page.get_by_role("button", name=text("share_open", "zh")).click()
    chooser.value.set_files(file)


def test_an_opened_file_brings_its_settings_and_its_card(visit, service):
    visitor = visit("?mode=bianque-2.0&top_p=0.4&temperature=1.2&seed=7&asking_limit=3")
    visitor.send("我失眠一个月了")
    visitor.expect_reply(ADVICE, 2)
    visitor.page.locator("#summary button.label-wrap").click()
    card = visitor.page.locator("#summary-text textarea")
    expect(card).to_have_value(re.compile("【主诉】"))
    card.fill("【主诉】失眠四周")
    visitor.open_panel("share")
    with visitor.page.expect_download() as exported:
        visitor.page.locator("#share").get_by_role("button", name="JSON", exact=True).click()
    other = visit()
    other.open_panel("share")
    other.open_panel("settings")
    open_file(other, exported.value.path())
    other.expect_reply(ADVICE, 2)
    expect(other.page.locator("#mode input:checked")).to_have_value("bianque-2.0")
    numbers = other.page.locator("#settings input[type=number]")
    values = ("0.4", "1.2", "512", "3")
    for index, value in enumerate(values):
        expect(numbers.nth(index)).to_have_value(value)
    expect(other.page.locator("#settings input[type=text]")).to_have_value("7")
    other.page.locator("#summary button.label-wrap").click()
    expect(other.page.locator("#summary-text textarea")).to_have_value("【主诉】失眠四周")
    # Nothing comes afterwards and puts defaults in their place.
    other.page.wait_for_timeout(1000)
    assert [numbers.nth(index).input_value() for index in range(4)] == list(values)
    other.send("还要注意什么")
    other.expect_reply(ADVICE, 3)
    options = service.calls[-1].options
    assert (options.mode, options.top_p, options.temperature, options.seed) == ("bianque-2.0", 0.4, 1.2, 7)
    expect(other.page.locator("#summary-text textarea")).to_have_value("【主诉】失眠四周")


@pytest.mark.parametrize(("locale", "language"), [("zh-CN", "zh"), ("en", "en")])
def test_a_file_that_is_too_large_is_told_with_its_size(visit, locale, language):
    visitor = visit(locale=locale)
    visitor.open_panel("share")
    with visitor.page.expect_file_chooser() as chooser:
        visitor.page.get_by_role("button", name=text("share_open", language)).click()
    chooser.value.set_files({"name": "x.json", "mimeType": "application/json", "buffer": b" " * 3_400_000})
    assert text("export_too_large", language, limit="2", got="3.4") in visitor.notice()
    expect(visitor.replies).to_have_count(1)


def test_the_paper_for_a_doctor_holds_the_conversation_alone(visit):
    visitor = visit()
    consult(visitor)
    visitor.print_conversation()
    visitor.page.emulate_media(media="print")
    paper = visitor.page.locator("#bq-paper")
    expect(paper).to_be_visible()
    for words in ("我失眠", "一个月了", "【多久】", "top_p=0.7", text("ai_label", "zh"), text("medical_notice", "zh")):
        expect(paper).to_contain_text(words)
    expect(visitor.page.locator("#message")).to_be_hidden()


def keep(visitor) -> None:
    """Agree to keeping conversations in this browser."""
    visitor.open_panel("kept")
    visitor.page.locator("#keep input").check()


def stored(visitor) -> int:
    """Return how much is in the browser's storage for conversations."""
    return visitor.page.evaluate("(localStorage.getItem('bianque.conversations') || '').length")


def test_nothing_is_kept_without_agreement(visit):
    visitor = visit()
    consult(visitor)
    before = stored(visitor)
    assert before < 200
    visitor.reload()
    expect(visitor.replies).to_have_count(1)
    expect(visitor.messages).to_have_count(0)


def test_kept_conversations_survive_a_reload_until_all_is_deleted(visit):
    visitor = visit()
    keep(visitor)
    consult(visitor)
    visitor.page.locator("#kept-new").click()
    expect(visitor.replies).to_have_count(1)
    visitor.send("我头疼")
    visitor.expect_reply(QUESTION, 2)
    visitor.reload()
    visitor.expect_reply(QUESTION, 2)
    visitor.open_panel("kept")
    expect(visitor.page.locator("#keep input")).to_be_checked()
    listed = visitor.page.locator("#kept-list label")
    expect(listed).to_have_count(2)
    listed.filter(has_text="我失眠").click()
    visitor.expect_reply(ADVICE, 3)
    visitor.page.locator("#forget").click()
    expect(listed).to_have_count(0)
    expect(visitor.replies).to_have_count(1)
    expect(visitor.page.locator("#keep input")).not_to_be_checked()
    assert stored(visitor) < 200
    visitor.reload()
    expect(visitor.replies).to_have_count(1)


def test_two_tabs_do_not_overwrite_each_other(visit):
    first = visit()
    keep(first)
    second = first.beside()
    first.send("我失眠")
    first.expect_reply(QUESTION, 2)
    second.send("我头疼")
    second.expect_reply(QUESTION, 2)
    first.send("一个月了")
    first.expect_reply(ADVICE, 3)
    second.reload()
    second.open_panel("kept")
    expect(second.page.locator("#kept-list label")).to_have_count(2)


def conversations(visitor) -> list[list[str]]:
    """Return what the visitor said in each conversation that the browser keeps, found by opening them in turn."""
    visitor.open_panel("kept")
    listed = visitor.page.locator("#kept-list label")
    found = []
    for index in range(listed.count()):
        listed.nth(index).click()
        expect(listed.nth(index).locator("input")).to_be_checked()
        visitor.page.wait_for_timeout(500)
        found.append(visitor.messages.all_inner_texts())
    return sorted(found)


@pytest.mark.parametrize("how", ["copied", "window.open"])
def test_a_duplicated_tab_goes_on_by_itself(visit, how):
    first = visit()
    keep(first)
    first.send("我失眠")
    first.expect_reply(QUESTION, 2)
    second = first.duplicate(how)
    second.expect_reply(QUESTION, 2)
    assert second.messages.all_inner_texts() == ["我失眠"]
    second.send("三天了")
    second.expect_reply(ADVICE, 3)
    first.send("一个月了")
    first.expect_reply(ADVICE, 3)
    second.send("还要注意什么")
    second.expect_reply(ADVICE, 4)
    # Each finds its own again, and the browser keeps both.
    first.reload()
    first.expect_reply(ADVICE, 3)
    assert first.messages.all_inner_texts() == ["我失眠", "一个月了"]
    second.reload()
    second.expect_reply(ADVICE, 4)
    assert second.messages.all_inner_texts() == ["我失眠", "三天了", "还要注意什么"]
    third = first.beside()
    assert conversations(third) == [["我失眠", "一个月了"], ["我失眠", "三天了", "还要注意什么"]]


def test_a_kept_conversation_opened_in_two_tabs_becomes_two(visit):
    first = visit()
    keep(first)
    first.send("我失眠")
    first.expect_reply(QUESTION, 2)
    second = first.beside()
    second.open_panel("kept")
    second.page.locator("#kept-list label").click()
    second.expect_reply(QUESTION, 2)
    second.send("三天了")
    second.expect_reply(ADVICE, 3)
    # What one of them clears stays in the other.
    first.page.locator("#chat button[aria-label='清空对话']").click()
    expect(first.replies).to_have_count(1)
    second.reload()
    second.expect_reply(ADVICE, 3)
    assert second.messages.all_inner_texts() == ["我失眠", "三天了"]


class SlowArrival:
    """Holds back what the next page asks for after its first event, as a slow network does, until `let_through`."""

    def __init__(self, page) -> None:
        self._num_passing: int | None = None
        self._held: list = []
        page.once("framenavigated", lambda _: self._begin())
        page.route(EVENT, self._take)

    def _begin(self) -> None:
        self._num_passing = 1

    def _take(self, route) -> None:
        if self._num_passing == 0:
            self._held.append(route)
            return
        if self._num_passing is not None:
            self._num_passing -= 1
        route.continue_()

    def let_through(self) -> None:
        """Send what was held back, and hold nothing any more."""
        self._num_passing = None
        for route in self._held:
            route.continue_()


@pytest.mark.parametrize("act", ["enter", "button"])
def test_a_message_sent_before_the_conversation_is_back_follows_it(visit, service, act):
    visitor = visit()
    keep(visitor)
    consult(visitor)
    slow = SlowArrival(visitor.page)
    visitor.reload()
    # What everybody sees first is there, the conversation is not.
    expect(visitor.replies).to_have_count(1)
    visitor.box.fill("还要注意什么")
    if act == "enter":
        visitor.box.press("Enter")
    else:
        visitor.page.locator("#message .submit-button").click()
    visitor.see()
    expect(visitor.messages).to_have_count(0)
    assert len(service.calls) == 2
    slow.let_through()
    expect(visitor.messages).to_have_text(["我失眠", "一个月了", "还要注意什么"])
    visitor.expect_reply(ADVICE, 4)
    assert len(service.calls[-1].messages) == 6


def test_what_is_typed_before_the_page_has_come_stays(visit):
    visitor = visit()
    slow = SlowArrival(visitor.page)
    visitor.page.goto(f"{visitor.url}?q={quote('我失眠')}&seed=7")
    expect(visitor.replies).to_have_count(1)
    visitor.box.fill("三天了")
    slow.let_through()
    expect(visitor.box).to_have_value("我失眠\n三天了")


def test_blanks_typed_before_the_page_has_come_stay(visit):
    visitor = visit()
    slow = SlowArrival(visitor.page)
    visitor.reload()
    expect(visitor.replies).to_have_count(1)
    visitor.box.fill("   ")
    slow.let_through()
    expect(visitor.page.locator("html.bq-held")).to_have_count(0)
    visitor.see()
    expect(visitor.box).to_have_value("   ")


# gradio tells of the lost connection on the console and in a notice.
def test_a_lost_network_keeps_the_conversation(chromium, url, service):
    proxy = TcpProxy(urlsplit(url).port)
    visitor = Visitor(chromium, f"http://127.0.0.1:{proxy.port}/")
    try:
        consult(visitor)
        service.seconds_per_token = 0.05
        visitor.send("还要注意什么")
        expect(visitor.replies).to_have_count(4)
        expect(visitor.replies.last).to_contain_text(ADVICE[:4])
        proxy.cut()
        visitor.page.wait_for_timeout(3000)
        visitor.box.fill("顺便问一下")
        proxy.mend()
        # Only the page that is loaded anew says that the reply was stopped.
        expect(visitor.replies).to_have_count(4)
        expect(visitor.replies.last).to_contain_text("已停止")
        expect(visitor.messages).to_have_text(["我失眠", "一个月了", "还要注意什么"])
        expect(visitor.box).to_have_value("顺便问一下")
        service.seconds_per_token = 0.01
        visitor.send("谢谢")
        visitor.expect_reply(ADVICE, 5)
        assert [message.text for message in service.calls[-1].messages if message.role == "user"] == [
            "我失眠",
            "一个月了",
            "还要注意什么",
            "谢谢",
        ]
    finally:
        visitor.close()
        proxy.close()


def test_a_lost_network_keeps_the_settings(chromium, url, service):
    proxy = TcpProxy(urlsplit(url).port)
    visitor = Visitor(chromium, f"http://127.0.0.1:{proxy.port}/")
    try:
        visitor.page.locator("#mode label").last.click()
        expect(visitor.replies.last).to_contain_text(text("greeting_soulchat", "zh"))
        visitor.open_panel("settings")
        numbers = visitor.page.locator("#settings input[type=number]")
        expect(numbers.nth(1)).to_have_value("0.95")
        for index, value in ((1, "1.2"), (3, "3")):
            numbers.nth(index).fill(value)
            numbers.nth(index).press("Tab")
        visitor.page.locator("#settings input[type=text]").fill("42")
        service.seconds_per_token = 0.05
        visitor.send("我难过")
        expect(visitor.replies.last).to_contain_text(CONSOLATION[:4])
        proxy.cut()
        visitor.page.wait_for_timeout(3000)
        proxy.mend()
        expect(visitor.replies.last).to_contain_text("已停止")
        service.seconds_per_token = 0.01
        expect(visitor.page.locator("#mode input:checked")).to_have_value("soulchat")
        visitor.send("谢谢")
        visitor.expect_reply(CONSOLATION, 3)
        options = service.calls[-1].options
        assert (options.mode, options.top_p, options.temperature) == ("soulchat", 0.75, 1.2)
        assert (options.seed, options.asking_limit) == (42, 3)
    finally:
        visitor.close()
        proxy.close()


def test_a_restarted_server_finds_the_conversation(chromium, serve):
    from tests.conftest import free_port

    port = free_port()
    address = serve(FakeService(seconds_per_token=0), port=port)
    visitor = Visitor(chromium, address)
    keep(visitor)
    consult(visitor)
    serve.stop(address)
    serve(FakeService(seconds_per_token=0), port=port)
    visitor.reload()
    visitor.expect_reply(ADVICE, 3)
    visitor.close()


@pytest.fixture
def outer_page():
    """The documentation served on another port, under a name that makes it another site."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(DOCS))
    handler.func.log_message = lambda *_: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://localhost:{server.server_port}/embed.html"
    server.shutdown()
    server.server_close()


def test_the_compact_view_works_inside_a_page_of_another_site(chromium, url, service, outer_page):
    context = chromium.new_context(locale="en-US", viewport={"width": 900, "height": 1100})
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{outer_page}?app={url}")
    frame = page.frame_locator("iframe")
    replies = frame.locator("#chat [data-testid=bot]")
    expect(replies).to_have_count(1)
    assert [name for name in ("#side", ".bq-head", "#examples") if frame.locator(name).is_visible()] == []
    expect(frame.locator(".bq-notice.bq-short")).to_be_in_viewport()
    frame.locator("#message textarea").fill("我失眠")
    frame.locator("#message textarea").press("Enter")
    expect(replies.last).to_contain_text(QUESTION)
    expect(frame.locator("#message .submit-button")).to_be_visible()
    inner = page.frames[1]
    # The address asks for Chinese and light, whatever the browser says; the storage may be denied here.
    expect(frame.locator("#message .submit-button")).to_have_text("发送")
    assert inner.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [360, 360]
    page.wait_for_function("document.querySelector('iframe').style.height !== ''")
    context.close()
    assert errors == []


def test_the_compact_view_fits_its_frame(visit):
    visitor = visit("?embed=1", viewport={"width": 360, "height": 480})
    for element in (
        visitor.box,
        visitor.page.locator("#message .submit-button"),
        visitor.page.locator(".bq-notice.bq-short"),
    ):
        expect(element).to_be_in_viewport(ratio=1)
    visitor.send("我胸痛")
    visitor.expect_reply(ADVICE, 2)
    expect(visitor.page.locator("[role=alert].bq-emergency a[href='tel:120']")).to_be_in_viewport(ratio=1)
    assert visitor.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == [
        360,
        480,
    ]


def test_storage_that_is_denied_is_done_without(chromium, url, service):
    context = chromium.new_context(locale="zh-CN")
    context.add_init_script(
        "for (const name of ['localStorage', 'sessionStorage']) Object.defineProperty(window, name, "
        "{configurable: true, get() { throw new DOMException('denied', 'SecurityError'); }});"
    )
    visitor = Visitor(chromium, url, context=context)
    consult(visitor)
    visitor.close()
    assert visitor.errors == []
