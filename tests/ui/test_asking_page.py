"""The doctor's way of asking, the settings and the keyboard, in headless Chromium."""

from __future__ import annotations

import pytest

from bianque.texts import text
from tests.ui.fake_service import ADVICE, QUESTION

pytestmark = pytest.mark.browser
playwright_api = pytest.importorskip("playwright.sync_api")
expect = playwright_api.expect


def test_a_quick_answer_fills_the_box_and_can_be_edited(visit):
    visitor = visit()
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    answers = visitor.page.locator("#chat .options button")
    expect(answers).to_have_text(["今天", "几天", "几周", "更久"])
    expect(visitor.replies.last).to_contain_text("第 1 问")
    expect(visitor.page.locator("#asking")).to_contain_text("最多 8 问")
    answers.nth(1).click()
    expect(visitor.box).to_have_value("几天")
    expect(visitor.messages).to_have_count(1)
    visitor.send("几天，晚上重")
    visitor.expect_reply(ADVICE, 3)
    expect(answers).to_have_count(0)
    expect(visitor.page.locator("#asking")).to_be_hidden()


def test_advice_can_be_had_at_once_and_leaves_a_summary(visit, service):
    visitor = visit()
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    visitor.box.fill("三天了")
    visitor.page.get_by_role("button", name="请直接给建议").click()
    visitor.expect_reply(ADVICE, 3)
    assert service.calls[-1].options.asking_limit == 0
    visitor.page.locator("#summary button").first.click()
    card = visitor.page.locator("#summary-text textarea")
    expect(card).to_have_value(f"【主诉】我失眠\n【多久】三天了\n{text('summary_origin', 'zh')}")
    card.fill("【主诉】失眠三天")
    visitor.send("还有别的吗")
    visitor.expect_reply(ADVICE, 4)
    expect(card).to_have_value("【主诉】失眠三天")
    visitor.page.locator("#summary-text button").click()
    visitor.page.wait_for_timeout(200)
    assert visitor.page.evaluate("navigator.clipboard.readText()") == "【主诉】失眠三天"


def test_the_settings_go_with_the_message_and_can_be_reset(visit, service):
    visitor = visit()
    visitor.open_panel("settings")
    numbers = visitor.page.locator("#settings input[type=number]")
    numbers.nth(3).fill("2")
    numbers.nth(3).press("Tab")
    visitor.page.get_by_label("贪心解码").check()
    visitor.page.get_by_label("随机种子").fill("7")
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    options = service.calls[-1].options
    assert (options.asking_limit, options.temperature, options.seed) == (2, 0, 7)
    visitor.page.locator("#reset").click()
    expect(visitor.page.get_by_label("随机种子")).to_have_value("")
    expect(visitor.page.get_by_label("贪心解码")).not_to_be_checked()
    expect(numbers.nth(3)).to_have_value("8")


def test_a_word_being_composed_is_not_sent(visit, service):
    visitor = visit()
    visitor.box.focus()
    keyboard = visitor.context.new_cdp_session(visitor.page)
    keyboard.send("Input.imeSetComposition", {"text": "shi mian", "selectionStart": 8, "selectionEnd": 8})
    keyboard.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", "key": "Enter", "windowsVirtualKeyCode": 229})
    # What some systems send besides: an Enter that says it belongs to the composition.
    visitor.box.evaluate(
        "box => ['keydown', 'keypress'].forEach(kind => box.dispatchEvent("
        "new KeyboardEvent(kind, {key: 'Enter', code: 'Enter', isComposing: true, bubbles: true, cancelable: true})))"
    )
    keyboard.send("Input.insertText", {"text": "失眠"})
    expect(visitor.box).to_have_value("失眠")
    expect(visitor.messages).to_have_count(0)
    visitor.box.press("Shift+Enter")
    visitor.page.keyboard.type("两天")
    expect(visitor.box).to_have_value("失眠\n两天")
    visitor.box.press("Enter")
    visitor.expect_reply(QUESTION, 2)
    assert service.calls[-1].messages[-1].text == "失眠\n两天"


def test_a_reader_who_scrolls_up_is_left_there(visit, service):
    service.reply_text = "\n".join(f"第 {index} 行" for index in range(80))
    service.seconds_per_token = 0
    visitor = visit()
    visitor.send("我失眠")
    visitor.expect_reply(service.reply_text, 2)
    wrap = visitor.page.locator("#chat .bubble-wrap")
    at_end = "wrap => wrap.scrollHeight - wrap.scrollTop - wrap.clientHeight < 60"
    assert wrap.evaluate(at_end)
    service.seconds_per_token = 0.02
    visitor.send("再说一遍")
    expect(visitor.replies.last).to_contain_text("第 12 行")
    assert wrap.evaluate(at_end)
    wrap.hover()
    visitor.page.mouse.wheel(0, -900)
    visitor.page.wait_for_timeout(300)
    top = wrap.evaluate("wrap => wrap.scrollTop")
    expect(visitor.replies.last).to_contain_text("第 40 行")
    assert wrap.evaluate("wrap => wrap.scrollTop") == top


def test_a_long_conversation_shows_its_end_and_the_rest_on_request(visit, service):
    service.seconds_per_token = 0
    service.reply_text = "好的"
    visitor = visit()
    history = [{"role": role, "content": f"{role}{index}"} for index in range(30) for role in ("user", "assistant")]
    visitor.open_panel("share")
    with visitor.page.expect_file_chooser() as chooser:
        visitor.page.get_by_role("button", name="打开导出的 JSON").click()
    chooser.value.set_files(visitor.export_file(history))
    expect(visitor.replies.or_(visitor.messages)).to_have_count(40)
    visitor.page.locator("#older").click()
    expect(visitor.replies.or_(visitor.messages)).to_have_count(60)
    visitor.send("我失眠")
    expect(visitor.replies.or_(visitor.messages)).to_have_count(40)
    visitor.expect_idle()
    assert len(service.calls[-1].messages) == 61


def test_pasted_text_of_any_kind_is_text(visit, service):
    words = "头疼😵‍💫 <b>粗</b> שלום مرحبا e\u0301 &amp; 𠮷"
    visitor = visit()
    visitor.box.focus()
    visitor.page.evaluate(
        "words => { const data = new DataTransfer(); data.setData('text/plain', words);"
        " data.setData('text/html', `<h1>${words}</h1>`);"
        " document.activeElement.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true})); }",
        words,
    )
    visitor.send(words)
    visitor.expect_reply(QUESTION, 2)
    assert service.calls[-1].messages[-1].text == words
    assert visitor.page.locator("#chat b, #chat h1").count() == 0


def test_a_copied_reply_has_no_authors_line(visit):
    visitor = visit()
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    visitor.button("复制消息").click()
    visitor.page.wait_for_timeout(200)
    assert visitor.page.evaluate("navigator.clipboard.readText()").startswith(QUESTION)
