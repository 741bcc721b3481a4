"""No serious finding of axe-core: both themes and languages, a phone, the compact view, with all panels open."""

from __future__ import annotations

import json

import pytest

from bianque.texts import text
from tests.ui.fake_service import ADVICE, QUESTION

pytestmark = pytest.mark.browser
expect = pytest.importorskip("playwright.sync_api").expect
axe = pytest.importorskip("axe_playwright_python.sync_playwright")
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
SERIOUS = ("serious", "critical")
# The page's policy forbids scripts of other origins, not one that is put into it, so axe can run.
RUN = {"resultTypes": ["violations"]}


def findings(page) -> list[str]:
    """Return rule and place of each serious finding."""
    results = axe.Axe().run(page, options=RUN).response
    return [
        f"{one['id']}: {json.dumps(node['target'])}"
        for one in results["violations"]
        if one["impact"] in SERIOUS
        for node in one["nodes"]
    ]


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("", {"color_scheme": "light"}),
        ("", {"color_scheme": "dark", "locale": "en"}),
        ("", PHONE),
        ("?embed=1", {"viewport": {"width": 360, "height": 480}}),
    ],
    ids=["light", "dark-en", "phone", "compact"],
)
def test_there_is_no_serious_finding(visit, query, options):
    visitor = visit(query, **options)
    if not query:
        for panel in ("settings", "kept", "share"):
            visitor.open_panel(panel)
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    visitor.page.wait_for_timeout(500)
    assert findings(visitor.page) == []
    visitor.send("我胸痛")
    visitor.expect_reply(ADVICE, 3)
    visitor.page.wait_for_timeout(500)
    assert findings(visitor.page) == []


LABELS = """
() => [...document.querySelectorAll('button, input, textarea, div, footer')].flatMap(part =>
  ['aria-label', 'title'].map(name => part.getAttribute(name)).filter(Boolean))
"""


def test_labels_are_in_the_pages_language(visit):
    visitor = visit()
    for panel in ("settings", "kept", "share"):
        visitor.open_panel(panel)
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    visitor.send("一个月了")
    visitor.expect_reply(ADVICE, 3)
    visitor.page.locator("#summary button.label-wrap").click()
    expect(visitor.page.locator("#summary-text button")).to_have_attribute("title", text("label_copy", "zh"))
    visitor.see()
    labels = visitor.page.evaluate(LABELS)
    assert [label for label in labels if not any("\u4e00" <= character <= "\u9fff" for character in label)] == []
    for key in ("label_copy_conversation", "label_footer", "chat_label", "temperature_label"):
        assert text(key, "zh") in labels
    assert f"{text('label_reply', 'zh')}{QUESTION}" in labels


def test_targets_of_the_panels_are_large_enough_on_a_phone(visit):
    visitor = visit(**PHONE)
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    visitor.send("一个月了")
    visitor.expect_reply(ADVICE, 3)
    visitor.page.locator("#summary button.label-wrap").click()
    for panel in ("settings", "kept", "share"):
        visitor.open_panel(panel)
    # A tick or a dot is hit through its label. The number boxes have a frame of one pixel around them.
    targets = visitor.page.locator(
        "#side :is(button, label:has(> input), textarea, input[type=text], input[type=range])"
    )
    sizes = [
        target.bounding_box()
        for target in (*targets.all(), *visitor.page.locator("#summary button, footer > button").all())
        if target.is_visible()
    ]
    assert len(sizes) > 20
    assert [size for size in sizes if min(size["width"], size["height"]) < 44] == []
    numbers = [box.bounding_box() for box in visitor.page.locator("#settings .tab-like-container").all()]
    assert len(numbers) == 4 and all(min(size["width"], size["height"]) >= 44 for size in numbers)
    assert visitor.scroll_width() == 390


BORDERS = """
() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const linear = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = parse(getComputedStyle(element).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("#side input:is([type=radio], [type=checkbox]):not(:checked)")]
    .filter(input => input.checkVisibility())
    .map(input => {
      const [a, b] = [parse(getComputedStyle(input).borderTopColor), behind(input.parentElement)].map(luminance);
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    });
}
"""


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_what_can_be_ticked_is_seen(visit, color_scheme):
    visitor = visit(color_scheme=color_scheme)
    for panel in ("settings", "kept"):
        visitor.open_panel(panel)
    ratios = visitor.page.evaluate(BORDERS)
    assert len(ratios) == 5 and min(ratios) >= 3


def test_a_slider_shows_where_the_keyboard_is(visit):
    visitor = visit()
    visitor.open_panel("settings")
    slider = visitor.page.locator("#settings input[type=range]").first
    slider.focus()
    slider.press("ArrowRight")
    expect(slider).to_have_css("outline-style", "solid")
    expect(slider).to_have_css("outline-width", "2px")


@pytest.mark.parametrize("locale", ["zh-CN", "en"])
def test_the_box_to_write_in_is_in_view_on_a_low_screen(visit, locale):
    visitor = visit(locale=locale, viewport={"width": 1024, "height": 768})
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    visitor.send("我胸痛")
    visitor.expect_reply(ADVICE, 3)
    expect(visitor.page.locator("#summary")).to_be_visible()
    expect(visitor.page.locator(".bq-emergency a")).to_be_in_viewport(ratio=1)
    expect(visitor.page.locator("#message .submit-button")).to_be_in_viewport(ratio=1)
    expect(visitor.page.locator("#chat")).to_be_in_viewport(ratio=1)
