"""Take the README's two pictures of the page: `python scripts/make_screenshots.py [ADDRESS]` with the app running.

The conversation is a real one with whatever models answer there; it ends with the first advice.
"""

from __future__ import annotations

import sys
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images"
TURNS = ("偏头痛老是犯，一累就疼", "半年了", "一跳一跳地疼", "没有吃药", "没有别的病", "没有了", "不清楚", "没有")
SIZES: dict[str, dict] = {
    "desktop": {"viewport": {"width": 1280, "height": 860}},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}


def take_picture(browser: Browser, address: str, name: str) -> None:
    """Hold the conversation at one size and save what it looks like."""
    page = browser.new_context(locale="zh-CN", color_scheme="light", **SIZES[name]).new_page()
    page.goto(address)
    page.wait_for_selector(".bq-status:not(.bq-loading)", timeout=60_000)
    for number, turn in enumerate(TURNS, start=2):
        page.locator("#message textarea").fill(turn)
        page.locator("#message .submit-button").click()
        expect(page.locator("#chat .thought-group")).to_have_count(number, timeout=60_000)
        expect(page.locator("#chat .loading-spinner")).to_have_count(0, timeout=60_000)
        if page.locator("#chat .thought-group > .title .md").last.inner_text().startswith("答"):
            break
    page.mouse.move(1, 1)
    page.wait_for_timeout(600)
    page.screenshot(path=FOLDER / f"{name}.png")


def main() -> None:
    """Take both pictures."""
    address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:7860"
    FOLDER.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        for name in SIZES:
            take_picture(browser, address, name)
        browser.close()


if __name__ == "__main__":
    main()
