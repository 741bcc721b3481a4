"""A visitor in headless Chromium: what the browser tests do and see."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

from playwright.sync_api import Browser, BrowserContext, Page, expect

from bianque.consultation.messages import ReplyOptions
from bianque.ui.export import Record, to_json

# For what a busy machine does late; nothing waits so long where all goes well.
PATIENCE_MS = 60_000
# What the page asks the server for one of its events, at once or through the queue.
EVENT = re.compile(r"/gradio_api/(run/predict|queue/join)")
expect.set_options(timeout=PATIENCE_MS)


class Visitor:
    """One open page; everything it asks of other hosts and every page error is noted."""

    def __init__(
        self,
        browser: Browser | None,
        url: str,
        *,
        query: str = "",
        context: BrowserContext | None = None,
        page: Page | None = None,
        **context_options,
    ):
        options = {"locale": "zh-CN", "viewport": {"width": 1280, "height": 860}, **context_options}
        self.context = context or browser.new_context(**options)
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.url = url
        self.page: Page = page or self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.foreign_requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self._note(request.url, url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        if page is None:
            self.page.goto(url + query)
        self.box = self.page.locator("#message textarea")
        self.replies = self.page.locator("#chat [data-testid=bot]")
        self.messages = self.page.locator("#chat [data-testid=user]")
        if page is None:
            expect(self.replies).to_have_count(1)

    def beside(self) -> Visitor:
        """Open another tab of the same browser."""
        return Visitor(None, self.url, context=self.context)

    def duplicate(self, how: str) -> Visitor:
        """Open another tab that begins with what this one's storage for the tab holds, as browsers do.

        Args:
            how: `window.open`, or `copied` for what a browser's own menu does.
        """
        if how == "window.open":
            with self.context.expect_page() as opened:
                self.page.evaluate("void window.open(location.href)")
            return Visitor(None, self.url, context=self.context, page=opened.value)
        held = self.page.evaluate("JSON.stringify({...sessionStorage})")
        page = self.context.new_page()
        page.add_init_script(
            f"if (!sessionStorage.length) for (const [key, value] of Object.entries({held}))"
            " sessionStorage.setItem(key, value);"
        )
        page.goto(self.url)
        return Visitor(None, self.url, context=self.context, page=page)

    def _note(self, requested: str, url: str) -> None:
        if not requested.startswith((url, "data:", "blob:")):
            self.foreign_requests.append(requested)

    def send(self, text: str) -> None:
        """Write and press Enter."""
        self.box.fill(text)
        self.box.press("Enter")

    def reply_text(self, index: int = -1) -> str:
        """Return the words of a reply without the line that says who wrote it."""
        return self.replies.nth(index).locator(".message-content").inner_text().strip()

    def expect_reply(self, text: str, count: int) -> None:
        """Wait until there are `count` replies, the last of which is finished and reads `text`."""
        expect(self.replies).to_have_count(count)
        expect(self.replies.last.locator(".message-content")).to_have_text(text)
        self.expect_idle()

    def expect_idle(self) -> None:
        """Wait until nothing is being written."""
        expect(self.page.locator("#message .submit-button")).to_be_visible(timeout=PATIENCE_MS)

    def notice(self) -> str:
        """Return the text of the newest notice."""
        toast = self.page.locator(".toast-body").last
        expect(toast).to_be_visible(timeout=PATIENCE_MS)
        return toast.inner_text()

    def button(self, label: str):
        """Return a button of the last message that has it."""
        return self.page.locator(f"#chat .message-buttons button[aria-label='{label}']").last

    def open_panel(self, name: str) -> None:
        """Open a panel of the side: settings, kept or share."""
        self.page.locator(f"#{name} button.label-wrap").click()
        expect(self.page.locator(f"#{name} :is(input, textarea)").first).to_be_visible(timeout=PATIENCE_MS)
        self.see()

    def print_conversation(self) -> None:
        """Press the button that prints, and wait until the browser is asked to, which shows no dialogue here."""
        self.page.evaluate("window.print = () => { window.isPrinted = true; }")
        self.open_panel("share")
        self.page.get_by_role("button", name="打印 / PDF").click()
        self.page.wait_for_function("window.isPrinted")

    def see(self) -> None:
        """Wait until what is there has been painted, as nobody acts on a thing before.

        gradio makes the parts of a panel when it is first opened and gives them their values again in the next frame.
        """
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def reload(self) -> None:
        """Load the page anew in the same tab."""
        self.page.reload()
        expect(self.replies.first).to_be_visible(timeout=PATIENCE_MS)

    @staticmethod
    def export_file(messages: list[dict]) -> dict:
        """Return an exported conversation as a file to choose."""
        options = ReplyOptions()
        content = to_json(Record([], options, [], "", datetime.now(UTC), "zh"))
        content = json.dumps({**json.loads(content), "messages": messages}, ensure_ascii=False)
        return {"name": "kept.json", "mimeType": "application/json", "buffer": content.encode()}

    def scroll_width(self) -> int:
        """Return the width of the document, to be compared with the viewport's."""
        return self.page.evaluate("document.documentElement.scrollWidth")

    def close(self) -> None:
        """Close the tab as a person would."""
        self.context.close()
