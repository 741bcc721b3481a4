"""Reading while a reply is written: a very long one, the end in view, nothing moving for who asked for that."""

from __future__ import annotations

import pytest

from tests.ui.fake_service import ADVICE, QUESTION

pytestmark = pytest.mark.browser
playwright_api = pytest.importorskip("playwright.sync_api")
expect = playwright_api.expect

UPDATES_PER_SECOND = 12
AT_END = "wrap => wrap.scrollHeight - wrap.scrollTop - wrap.clientHeight < 60"
# Notes when the text of the last reply changed, as far as the page has been painted in between.
WATCH = """
() => {
  window.changes = [];
  let last = null;
  const look = () => {
    const words = [...document.querySelectorAll('#chat [data-testid=bot] .message-content')].at(-1)?.textContent || '';
    if (last !== null && words !== last) window.changes.push([performance.now(), words.length]);
    last = words;
    requestAnimationFrame(look);
  };
  look();
}
"""


def test_a_reply_of_two_thousand_tokens_leaves_the_page_usable(visit, service):
    words = "".join(f"第{number:04}句。" for number in range(334))[:2000]
    service.reply_text = words
    service.seconds_per_token = 0.1
    visitor = visit()
    visitor.page.evaluate(WATCH)
    visitor.send("我失眠")
    expect(visitor.replies.last).to_contain_text("第0002句")
    # The box, a setting and a panel answer while it is written.
    visitor.box.fill("顺便问一下")
    visitor.page.locator("#mode label").nth(2).click()
    expect(visitor.page.locator("#mode input:checked")).to_have_value("bianque-2.0")
    visitor.open_panel("settings")
    assert visitor.page.locator("#message .stop-button").is_visible()
    service.seconds_per_token = 0.002
    visitor.expect_reply(words, 2)
    expect(visitor.box).to_have_value("顺便问一下")
    assert visitor.page.locator("#chat .bubble-wrap").evaluate(AT_END)
    changes = visitor.page.evaluate("window.changes")
    grown = [length for _, length in changes if 0 < length <= len(words)]
    seconds = (changes[-1][0] - changes[0][0]) / 1000
    # The first and the last update come at once, whatever the pace.
    assert 5 < len(grown) <= UPDATES_PER_SECOND * seconds + 3
    assert grown == sorted(grown) and grown[-1] == len(words)


@pytest.mark.parametrize("query", ["", "?embed=1"])
def test_the_end_stays_in_view_after_the_page_was_cleared(visit, query):
    visitor = visit(query, viewport={"width": 360, "height": 480})
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    visitor.page.locator("#chat button[aria-label='清空对话']").click()
    expect(visitor.messages).to_have_count(0)
    visitor.expect_idle()
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    visitor.send("一个月了")
    visitor.expect_reply(ADVICE, 3)
    wrap = visitor.page.locator("#chat .bubble-wrap")
    visitor.see()
    assert wrap.evaluate(AT_END)
    # Messages grow without any change to them, as while they slide open.
    visitor.page.add_style_tag(content="#chat .message-row { padding-bottom: 90px; }")
    visitor.see()
    assert wrap.evaluate(AT_END)


MOVING = """
() => document.getAnimations().filter(one => {
  const { duration, iterations } = one.effect.getComputedTiming();
  return one.playState === 'running' && (duration > 1 || iterations === Infinity);
}).map(one => `${one.animationName || one.constructor.name} ${one.effect.target?.className}`)
"""


def test_nothing_moves_for_who_asked_for_that(visit, service):
    service.seconds_per_token = 0.1
    service.is_settled = False
    visitor = visit(reduced_motion="reduce")
    expect(visitor.page.locator("#status .bq-loading")).to_be_visible()
    visitor.send("我失眠")
    expect(visitor.replies.last).to_contain_text(QUESTION[:4])
    assert visitor.page.evaluate(MOVING) == []
    smooth = (
        "() => [...document.querySelectorAll('*')].filter(one => getComputedStyle(one).scrollBehavior === 'smooth')"
    )
    assert visitor.page.evaluate(f"({smooth})().length") == 0
    visitor.page.emulate_media(reduced_motion="no-preference")
    assert visitor.page.evaluate(MOVING) != []
