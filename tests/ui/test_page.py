"""The page in headless Chromium over the scripted service: what a visitor does, and what must never happen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bianque.errors import QueueFullError
from bianque.texts import text
from bianque.ui.blocks import EXAMPLES
from tests.ui.fake_service import ADVICE, CONSOLATION, DEFAULTS, QUESTION, FakeService

pytestmark = pytest.mark.browser
playwright_api = pytest.importorskip("playwright.sync_api")
from tests.ui.visitor import EVENT, Visitor  # noqa: E402
from tests.ui.waiting import wait_until  # noqa: E402

expect = playwright_api.expect
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
GUARD = "\u2060"


def test_a_conversation_asks_and_then_advises(visit):
    visitor = visit()
    assert visitor.reply_text(0) == text("greeting_bianque", "zh")
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    visitor.send("一个月了")
    visitor.expect_reply(ADVICE, 3)
    titles = visitor.page.locator("#chat .thought-group > .title .md").all_inner_texts()
    assert titles == ["扁鹊", "问 · mini-asker", "答 · mini-adviser"]
    expect(visitor.box).to_have_value("")


def test_the_reply_grows_and_lines_are_kept(visit, service):
    service.seconds_per_token = 0.05
    visitor = visit()
    visitor.page.locator("#mode label").nth(2).click()
    visitor.send("我失眠")
    lengths = set()
    while visitor.page.locator("#message .submit-button").count() == 0 or len(lengths) < 3:
        if visitor.replies.count() == 2:
            lengths.add(len(visitor.replies.last.inner_text()))
        visitor.page.wait_for_timeout(40)
    visitor.expect_reply(ADVICE, 2)
    assert len(lengths) > 3
    assert visitor.reply_text() == ADVICE


def test_the_stop_button_keeps_what_was_said(visit, service):
    service.seconds_per_token = 0.1
    service.reply_text = QUESTION * 40  # takes minutes, unless it is stopped
    visitor = visit()
    visitor.send("我失眠")
    expect(visitor.replies.last).to_contain_text(QUESTION[:3])
    visitor.page.locator("#message .stop-button").click()
    visitor.expect_idle()
    assert service.num_running == 0
    kept = visitor.reply_text()
    assert kept and service.reply_text.startswith(kept) and kept != service.reply_text
    expect(visitor.replies.last).to_contain_text("已停止")
    service.seconds_per_token, service.reply_text = 0, None
    visitor.send("继续")
    visitor.expect_reply(ADVICE, 3)


def test_retry_replaces_the_reply(visit, service):
    visitor = visit()
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    service.reply_text = "换一种问法：多久了？"
    visitor.button("重试").click()
    visitor.expect_reply("换一种问法：多久了？", 2)
    expect(visitor.messages).to_have_count(1)


def test_undo_gives_the_text_back(visit):
    visitor = visit()
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    visitor.button("撤销").click()
    expect(visitor.box).to_have_value("我失眠")
    expect(visitor.replies).to_have_count(1)
    expect(visitor.messages).to_have_count(0)


def test_what_is_there_cannot_be_taken_back_while_a_reply_is_written(visit, service):
    visitor = visit()
    history = [{"role": role, "content": f"{role} {number}"} for number in range(30) for role in ("user", "assistant")]
    visitor.open_panel("share")
    with visitor.page.expect_file_chooser() as chooser:
        visitor.page.get_by_role("button", name=text("share_open", "zh")).click()
    chooser.value.set_files(visitor.export_file(history))
    older = visitor.page.locator("#older")
    expect(older).to_be_visible()
    service.seconds_per_token = 0.05
    visitor.send("我失眠")
    expect(visitor.replies.last).to_contain_text(ADVICE[:2])
    for label in ("重试", "撤销", "编辑"):
        expect(visitor.page.locator(f"#chat button[aria-label='{label}']").last).to_be_disabled()
    expect(older).to_have_css("pointer-events", "none")
    older.focus()
    older.press("Enter")
    assert text("reply_running", "zh") in visitor.notice()
    visitor.expect_idle()
    expect(older).to_have_css("pointer-events", "auto")
    older.click()
    expect(visitor.messages).to_have_count(31)
    assert visitor.messages.first.inner_text() == "user 0"


def test_edit_drops_later_turns(visit, service):
    visitor = visit()
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    visitor.send("一个月了")
    visitor.expect_reply(ADVICE, 3)
    visitor.page.locator("#chat .message-buttons-right button[aria-label='编辑']").first.click()
    visitor.page.locator("#chat .message textarea").fill("我头疼")
    visitor.page.locator("#chat .message-buttons-right button[aria-label='发送']").click()
    visitor.expect_reply(QUESTION, 2)
    assert visitor.messages.all_inner_texts() == ["我头疼"]
    assert [message.text for message in service.calls[-1].messages][1:] == ["我头疼"]


def test_clear_returns_to_the_greeting_even_while_writing(visit, service):
    service.seconds_per_token = 0.1
    visitor = visit()
    visitor.send("我失眠")
    expect(visitor.replies.last).to_contain_text(QUESTION[:2])
    visitor.page.locator("#chat button[aria-label='清空对话']").click()
    expect(visitor.messages).to_have_count(0)
    expect(visitor.replies).to_have_count(1)
    visitor.expect_idle()
    wait_until(lambda: service.num_running == 0)
    visitor.page.wait_for_timeout(500)
    assert visitor.reply_text() == text("greeting_bianque", "zh")


def test_an_example_is_sent(visit):
    visitor = visit()
    visitor.page.get_by_role("button", name=EXAMPLES[0]).click()
    visitor.expect_reply(QUESTION, 2)
    assert visitor.messages.all_inner_texts() == [EXAMPLES[0]]
    expect(visitor.page.locator("#examples")).to_be_hidden()


def test_the_mode_changes_defaults_and_greeting(visit, service):
    visitor = visit()
    visitor.open_panel("settings")
    temperature = visitor.page.locator("#settings input[type=number]").nth(1)
    expect(temperature).to_have_value("0.3")
    visitor.page.locator("#mode label").last.click()
    expect(temperature).to_have_value("0.95")
    expect(visitor.replies.last).to_contain_text(text("greeting_soulchat", "zh"))
    visitor.send("我很难过")
    visitor.expect_reply(CONSOLATION, 2)
    options = service.calls[-1].options
    assert (options.mode, options.top_p, options.temperature, options.seed) == ("soulchat", 0.75, 0.95, None)


def test_the_seed_reaches_the_service(visit, service):
    visitor = visit()
    visitor.open_panel("settings")
    visitor.page.locator("#settings input[type=text]").fill("42")
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    assert service.calls[-1].options.seed == 42


@pytest.mark.parametrize(
    ("locale", "language", "send"),
    [("zh-CN", "zh", "发送"), ("zh-TW", "zh", "发送"), ("en-GB", "en", "Send"), ("fr-FR", "en", "Send")],
)
def test_the_page_speaks_the_browsers_language(visit, locale, language, send):
    visitor = visit(locale=locale)
    expect(visitor.page.locator("#message .submit-button")).to_have_text(send)
    for key in ("medical_notice", "mode_label", "ai_label", "licence_notice", "status_demonstration"):
        expect(visitor.page.locator("body")).to_contain_text(text(key, language))
    assert visitor.reply_text(0) == text("greeting_bianque", language)
    visitor.send("😀")
    assert text("message_without_words", language) in visitor.notice()


@pytest.mark.parametrize(
    ("words", "key"),
    [("   ", "message_empty"), ("头" * 20_000, "message_too_long"), ("😀😭", "message_without_words")],
)
def test_bad_input_is_a_notice_and_stays_in_the_box(visit, service, words, key):
    visitor = visit()
    visitor.send(words)
    assert text(key, "zh", limit=2000, got=20_000) in visitor.notice()
    # The notice comes before the reply's last update, which gives the words back.
    expect(visitor.box).to_have_value(words)
    expect(visitor.messages).to_have_count(0)
    assert service.calls == []


def test_an_error_gives_the_text_back(visit, service):
    service.error = QueueFullError("queue_full", waiting=32)
    visitor = visit()
    visitor.send("我失眠")
    assert service.error.text("zh") in visitor.notice()
    expect(visitor.box).to_have_value("我失眠")
    expect(visitor.messages).to_have_count(0)
    expect(visitor.replies).to_have_count(1)


def test_the_place_in_the_queue_is_shown(visit, service):
    service.queue_positions = (3, 2, 1, 1, 1)
    visitor = visit()
    visitor.send("我失眠")
    expect(visitor.replies.last).to_contain_text("排队第 1 位")
    visitor.expect_reply(QUESTION, 2)
    expect(visitor.replies.last).not_to_contain_text("排队")


HOSTILE = (
    "头疼 **粗** <img src='http://127.0.0.1:9/a.png' onerror='window.hurt=1'>"
    "![x](http://127.0.0.1:9/b.png) <script>window.hurt=1</script> &lt;b&gt; [链接](javascript:hurt) $$x$$"
)


def test_markup_is_shown_as_text_and_nothing_is_fetched(visit, service):
    service.reply_text = HOSTILE
    visitor = visit()
    visitor.send(HOSTILE)
    expect(visitor.replies).to_have_count(2)
    visitor.expect_idle()
    assert visitor.messages.first.inner_text().replace(GUARD, "") == HOSTILE
    assert visitor.reply_text().replace(GUARD, "") == HOSTILE
    assert visitor.page.evaluate("window.hurt") is None
    assert visitor.page.locator("#chat img, #chat a, #chat strong, #chat .katex").count() == 0
    # A second turn sends the conversation back: the service sees what was written, without the marks.
    visitor.send("再说一遍")
    expect(visitor.replies).to_have_count(3)
    visitor.expect_idle()
    assert [message.text for message in service.calls[-1].messages][1:3] == [HOSTILE, HOSTILE]


@pytest.mark.parametrize(("locale", "language", "label"), [("zh-CN", "zh", "复制消息"), ("en", "en", "Copy message")])
def test_a_copied_reply_carries_the_ai_notice(visit, locale, language, label):
    visitor = visit(locale=locale)
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    visitor.button(label).click()
    visitor.page.wait_for_timeout(200)
    copied = visitor.page.evaluate("navigator.clipboard.readText()")
    assert QUESTION in copied and copied.strip().endswith(text("ai_watermark", language).strip())


@pytest.mark.parametrize(("words", "number"), [("我胸痛，出冷汗", "120"), ("我不想活了", "12356")])
@pytest.mark.parametrize("options", [{}, PHONE, {**PHONE, "locale": "en"}], ids=["desktop", "phone", "phone-en"])
def test_an_emergency_is_unmissable(visit, words, number, options):
    visitor = visit(**options)
    visitor.send(words)
    alert = visitor.page.locator("[role=alert].bq-emergency")
    expect(alert).to_contain_text(number)
    expect(alert.locator(f"a[href='tel:{number}']")).to_be_in_viewport(ratio=1)
    visitor.expect_reply(ADVICE, 2)
    expect(alert).to_be_in_viewport(ratio=1)
    expect(visitor.page.locator("#message .submit-button")).to_be_in_viewport(ratio=1)
    visitor.page.locator("#chat .top-panel button").first.click()
    expect(alert).to_have_count(0)


@pytest.mark.parametrize("locale", ["zh-CN", "en-US"])
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(visit, locale, color_scheme):
    visitor = visit(locale=locale, color_scheme=color_scheme, **PHONE)
    assert visitor.scroll_width() == 390
    expect(visitor.box).to_be_in_viewport(ratio=1)
    expect(visitor.page.locator(".bq-notice.bq-long")).to_be_in_viewport(ratio=1)
    visitor.page.locator("#mode label").nth(2).click()
    visitor.send("我失眠" + "a" * 300)
    visitor.expect_reply(ADVICE, 2)
    assert visitor.scroll_width() == 390
    expect(visitor.box).to_be_in_viewport(ratio=1)
    visitor.open_panel("settings")
    assert visitor.scroll_width() == 390


def test_targets_on_a_phone_are_large_enough(visit):
    visitor = visit(**PHONE)
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    targets = "#chat .icon-button-wrapper button, #message .submit-button, #mode label, #settings .label-wrap"
    sizes = [target.bounding_box() for target in visitor.page.locator(targets).all() if target.is_visible()]
    assert len(sizes) > 8
    assert min(min(size["width"], size["height"]) for size in sizes) >= 44


CONTRAST = """
() => {
  const parse = text => {
    const values = text.match(/[\\d.]+/g).map(Number);
    return values.length < 4 ? [...values, 1] : values;
  };
  const linear = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = parse(getComputedStyle(element).backgroundColor);
      if (colour[3] > 0.99) return colour;
    }
    return [255, 255, 255, 1];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const words = walker.currentNode.nodeValue.trim();
    const isShown = element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
    if (!words || !isShown || element.closest('script, style, textarea, .sr-only, .toast-wrap')) continue;
    const [a, b] = [luminance(parse(getComputedStyle(element).color)), luminance(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${ratio.toFixed(2)} ${words.slice(0, 20)}`);
  }
  return found;
}
"""


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_text_has_enough_contrast(visit, color_scheme):
    visitor = visit(color_scheme=color_scheme)
    visitor.open_panel("settings")
    visitor.send("我胸痛")
    visitor.expect_reply(ADVICE, 2)
    visitor.page.wait_for_timeout(500)
    background = visitor.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background.removeprefix("rgb(").rstrip(")").split(",")[:3])) < 200) == (
        color_scheme == "dark"
    )
    assert visitor.page.evaluate(CONTRAST) == []


def test_closing_the_tab_frees_the_model(visit, service):
    service.seconds_per_token = 0.2
    service.reply_text = QUESTION * 40  # takes minutes, unless it is ended
    visitor = visit()
    visitor.send("我失眠")
    wait_until(lambda: service.num_running == 1)
    visitor.page.close()
    wait_until(lambda: service.num_running == 0)
    assert len(service.calls) == 1


def test_two_visitors_do_not_see_each_other(visit, service):
    service.seconds_per_token = 0.03
    first, second = visit(), visit()
    first.send("甲的秘密")
    second.send("乙的秘密")
    for visitor, own, other in ((first, "甲的秘密", "乙的秘密"), (second, "乙的秘密", "甲的秘密")):
        visitor.expect_reply(QUESTION, 2)
        assert own in visitor.page.content() and other not in visitor.page.content()
    assert len({call.visitor for call in service.calls}) == 2


def test_stopping_one_visitor_leaves_the_other(visit, service):
    service.seconds_per_token = 0.08
    first, second = visit(), visit()
    first.send("我失眠")
    second.send("我失眠")
    expect(first.replies.last).to_contain_text(QUESTION[:2])
    expect(second.replies.last).to_contain_text(QUESTION[:2])
    first.page.locator("#message .stop-button").click()
    first.expect_idle()
    second.expect_reply(QUESTION, 2)


def test_what_is_typed_during_a_reply_stays(visit, service):
    service.seconds_per_token = 0.03
    visitor = visit()
    visitor.send("我失眠")
    expect(visitor.page.locator("#message .stop-button")).to_be_visible()
    visitor.box.fill("还有点头晕")
    visitor.expect_reply(QUESTION, 2)
    expect(visitor.box).to_have_value("还有点头晕")


def test_a_second_message_waits_for_the_first_reply(visit, service):
    service.seconds_per_token = 0.08
    visitor = visit()
    visitor.page.get_by_role("button", name=EXAMPLES[0]).click()
    expect(visitor.page.locator("#message .stop-button")).to_be_visible()
    visitor.send("还有点头晕")
    assert text("reply_running", "zh") in visitor.notice()
    expect(visitor.box).to_have_value("还有点头晕")
    visitor.expect_reply(QUESTION, 2)
    assert len(service.calls) == 1


def test_loading_is_shown_until_it_ends(visit, service):
    service.is_settled = False
    visitor = visit()
    banner = visitor.page.locator("#status")
    expect(banner).to_contain_text(text("status_loading", "zh"))
    service.is_settled = True
    expect(banner).to_contain_text(text("status_demonstration", "zh"))


def test_a_setting_stays_when_the_models_arrive(visit, service, monkeypatch):
    service.is_settled = False
    visitor = visit()
    visitor.open_panel("settings")
    numbers = visitor.page.locator("#settings input[type=number]")
    numbers.nth(1).fill("1.2")
    numbers.nth(1).press("Tab")
    found = {mode: replace(options, top_p=0.55, temperature=0.45) for mode, options in DEFAULTS.items()}
    monkeypatch.setattr(service, "default_options", found.__getitem__)
    service.is_settled = True
    expect(numbers.nth(0)).to_have_value("0.55")
    expect(numbers.nth(1)).to_have_value("1.2")
    visitor.page.locator("#reset").click()
    expect(numbers.nth(1)).to_have_value("0.45")


def test_a_message_sent_right_after_a_change_of_mode_has_its_settings(visit, service):
    visitor = visit()
    waiting = []
    is_slow = True

    def pass_on(route):
        if is_slow:
            waiting.append(route)
        else:
            route.continue_()

    visitor.page.route(EVENT, pass_on)
    visitor.page.locator("#mode label").last.click()
    visitor.send("我很难过")
    visitor.see()
    assert len(waiting) == 1  # the mode's, and not the message
    is_slow = False
    for route in waiting:
        route.continue_()
    visitor.expect_reply(CONSOLATION, 2)
    options = service.calls[-1].options
    assert (options.mode, options.top_p, options.temperature) == ("soulchat", 0.75, 0.95)


# gradio watches for the platform's live editing in a thread, which ends where the platform's package is absent.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_space_asks_no_other_host_either(chromium, serve, monkeypatch):
    monkeypatch.setenv("SYSTEM", "spaces")
    monkeypatch.setenv("SPACE_ID", "someone/bianque")
    visitor = Visitor(chromium, serve(FakeService(seconds_per_token=0)))
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    visitor.page.wait_for_timeout(1000)
    visitor.close()
    assert visitor.foreign_requests == [] and visitor.errors == []


def test_the_policy_blocks_other_hosts(visit):
    visitor = visit()
    blocked = visitor.page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', error => String(error))")
    assert "Failed to fetch" in blocked
    refused = visitor.page.evaluate(
        "new Promise(done => { document.addEventListener('securitypolicyviolation', e => done(e.violatedDirective));"
        " new Image().src = 'http://127.0.0.1:9/x.png'; })"
    )
    assert refused == "img-src"
    visitor.foreign_requests.clear()
