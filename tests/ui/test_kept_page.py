"""Kept conversations are never lost to another tab or to a running reply."""

from __future__ import annotations

import pytest

from tests.ui.fake_service import ADVICE, QUESTION

pytestmark = pytest.mark.browser
playwright_api = pytest.importorskip("playwright.sync_api")

expect = playwright_api.expect


def keep(visitor) -> None:
    """Agree to keeping conversations in this browser."""
    visitor.open_panel("kept")
    visitor.page.locator("#keep input").check()


def expect_kept(visitor, *titles: str) -> None:
    """Load the page anew, and see that just these conversations are in the browser's storage."""
    visitor.reload()
    visitor.open_panel("kept")
    listed = visitor.page.locator("#kept-list label")
    expect(listed).to_have_count(len(titles))
    for title in titles:
        expect(listed.filter(has_text=title)).to_have_count(1)


def test_what_one_tab_deletes_no_other_tab_writes_back(visit):
    first = visit()
    keep(first)
    second = first.beside()
    first.send("我失眠")
    first.expect_reply(QUESTION, 2)
    second.send("我头疼")
    second.expect_reply(QUESTION, 2)
    first.page.locator("#forget").click()
    expect(first.page.locator("#keep input")).not_to_be_checked()
    second.send("三天了")
    second.expect_reply(ADVICE, 3)
    second.send("谢谢")
    second.expect_reply(ADVICE, 4)
    expect_kept(first)
    expect(first.page.locator("#keep input")).not_to_be_checked()


def test_agreeing_in_a_second_tab_keeps_what_the_first_has(visit):
    first = visit()
    second = first.beside()
    keep(first)
    first.send("我失眠")
    first.expect_reply(QUESTION, 2)
    second.send("我头疼")
    second.expect_reply(QUESTION, 2)
    keep(second)
    expect_kept(second, "我失眠", "我头疼")


def test_opening_a_kept_conversation_ends_the_running_reply(visit, service):
    visitor = visit()
    keep(visitor)
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    visitor.page.locator("#kept-new").click()
    expect(visitor.replies).to_have_count(1)
    service.seconds_per_token = 0.1
    visitor.send("我头疼")
    expect(visitor.replies.last).to_contain_text(QUESTION[:3])
    visitor.page.locator("#kept-list label").filter(has_text="我失眠").click()
    visitor.expect_reply(QUESTION, 2)
    expect(visitor.messages).to_have_text(["我失眠"])
    visitor.page.wait_for_timeout(1000)
    expect(visitor.messages).to_have_text(["我失眠"])
    service.seconds_per_token = 0.01
    expect_kept(visitor, "我失眠", "我头疼")


def open_file(visitor, file: dict) -> None:
    visitor.open_panel("share")
    with visitor.page.expect_file_chooser() as chooser:
        visitor.page.get_by_role("button", name="打开导出的 JSON").click()
    chooser.value.set_files(file)


def test_an_opened_file_is_a_conversation_of_its_own(visit):
    visitor = visit()
    keep(visitor)
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    said = [{"role": "user", "content": "我头疼"}, {"role": "assistant", "content": ADVICE}]
    open_file(visitor, visitor.export_file(said))
    visitor.expect_reply(ADVICE, 1)
    expect_kept(visitor, "我失眠", "我头疼")


def test_a_refused_file_changes_nothing_of_what_is_kept(visit):
    visitor = visit()
    keep(visitor)
    visitor.send("我失眠")
    visitor.expect_reply(QUESTION, 2)
    open_file(visitor, {"name": "other.json", "mimeType": "application/json", "buffer": b"{}"})
    assert visitor.notice()
    visitor.send("一个月了")
    visitor.expect_reply(ADVICE, 3)
    expect_kept(visitor, "我失眠")
