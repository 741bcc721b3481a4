"""What our own server adds to gradio's answers: security headers, and the script that must run before gradio's.

The headers say which pages may show this one inside them (`frame-ancestors`). On a Hugging Face Space the platform's
own proxy stands before them; there `disable_embedding: true` in the README's front matter forbids embedding.

The script and the style for the compact view (`?embed=1`) and for paper go into the page's head here: gradio's own
`head` is inserted by its modules, after they have read the language, the theme and the storage. What other sites show
of a link to the page stands there too, in the place of gradio's: they read the head and run no script.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from html import escape
from typing import Any

from starlette.middleware import Middleware

from bianque.texts import LANGUAGES, text
from bianque.ui.public_files import CARD_PATH
from bianque.ui.theme import CARD_SIZE, INK, OUTSIDE_STYLE_FILE, SCRIPT_FILE

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
# Labels for screen readers and the tips under the mouse that gradio has in English only, by their names in the script.
LABELS = {
    "chat": "chat_label",
    "copy": "label_copy",
    "copyConversation": "label_copy_conversation",
    "reply": "label_reply",
    "said": "label_said",
    "footer": "label_footer",
}
_HEAD = b"<head>"
_FOREIGN_CARD = re.compile(rb'<meta\s+(?:property="og:|name="twitter:)[^>]*>')
_HOST = re.compile(rb"[A-Za-z0-9.-]+(?::\d{1,5})?|\[[0-9A-Fa-f:]+\](?::\d{1,5})?")


class SecurityHeaders:
    """Adds headers to every answer. Works on the messages of ASGI, so that streams stay streams."""

    def __init__(self, app: Callable[..., Awaitable[None]], frame_ancestors: tuple[str, ...]) -> None:
        """Wrap an application.

        Args:
            app: the application.
            frame_ancestors: origins that may embed the page, as `Settings.frame_ancestors` has them.
        """
        self._app = app
        sources = {"self": "'self'", "none": "'none'"}
        allowed = " ".join(sources.get(one, one) for one in frame_ancestors)
        self._headers = [
            (b"content-security-policy", f"frame-ancestors {allowed}".encode("ascii")),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), payment=()"),
        ]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back with the headers."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *self._headers]}
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class PageHead:
    """Puts markup at the beginning of the head of the page itself; other answers pass as they are."""

    def __init__(self, app: Callable[..., Awaitable[None]], markup: str) -> None:
        """Wrap an application.

        Args:
            app: the application.
            markup: for the head of the HTML answer of `/`.
        """
        self._app = app
        self._markup = markup

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, and the page back with the markup."""
        is_page = scope["type"] == "http" and scope["method"] == "GET" and scope["path"] == "/"
        await self._app(scope, receive, self._insert(send, _address(scope)) if is_page else send)

    def _insert(self, send: Send, address: str) -> Send:
        """Return a sender that holds the page back until it is whole."""
        head = _HEAD + (self._markup + _card(address)).encode("utf-8")
        start: Message = {}
        body = bytearray()

        async def send_page(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            page = _FOREIGN_CARD.sub(b"", bytes(body)).replace(_HEAD, head, 1)
            headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
            await send({**start, "headers": [*headers, (b"content-length", str(len(page)).encode("ascii"))]})
            await send({**message, "body": page})

        return send_page


def _address(scope: Message) -> str:
    """Return where the visitor finds the page, with a slash at its end; empty if the request does not say."""
    headers = {name.lower(): value.split(b",")[0].strip() for name, value in scope["headers"]}
    scheme = headers.get(b"x-forwarded-proto", scope["scheme"].encode("ascii"))
    host = headers.get(b"x-forwarded-host", headers.get(b"host", b""))
    if scheme not in (b"http", b"https") or not _HOST.fullmatch(host):
        return ""
    return f"{scheme.decode('ascii')}://{host.decode('ascii')}/"


def _card(address: str) -> str:
    """Return what other sites show of a link: title, description and picture, whose address has to be whole."""
    width, height = CARD_SIZE
    properties = {
        "og:type": "website",
        "og:site_name": text("page_name", "zh"),
        "og:title": text("page_title", "zh"),
        "og:description": text("page_description", "zh"),
        "og:locale": "zh_CN",
        "og:url": address,
        "og:image": f"{address}{CARD_PATH}",
        "og:image:width": str(width),
        "og:image:height": str(height),
        "og:image:alt": text("page_title", "zh"),
    }
    tags = [f'<meta property="{name}" content="{escape(value)}">' for name, value in properties.items() if value]
    tags += [
        f'<meta name="description" content="{escape(text("page_description", "zh"))}">',
        '<meta name="twitter:card" content="summary_large_image">',
        f'<meta name="theme-color" content="{INK.c50}" media="(prefers-color-scheme: light)">',
        f'<meta name="theme-color" content="{INK.c950}" media="(prefers-color-scheme: dark)">',
    ]
    return "".join(tags)


def page_middleware(frame_ancestors: tuple[str, ...]) -> list[Middleware]:
    """Return the middleware for gradio's application, the outermost first."""
    style = OUTSIDE_STYLE_FILE.read_text(encoding="utf-8")
    script = SCRIPT_FILE.read_text(encoding="utf-8")
    words = {language: {name: text(key, language) for name, key in LABELS.items()} for language in LANGUAGES}
    markup = f"<style>{style}</style><script>const bianqueWords = {json.dumps(words)};\n{script}</script>"
    return [Middleware(SecurityHeaders, frame_ancestors=frame_ancestors), Middleware(PageHead, markup=markup)]
