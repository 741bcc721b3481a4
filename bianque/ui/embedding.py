"""Which pages may show this one inside them, and the other headers that a browser's guard goes by.

The compact view itself (`?embed=1`) is made by the page's script and style. On a Hugging Face Space the platform's own
proxy stands before these headers; there `disable_embedding: true` in the README's front matter forbids embedding.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.middleware import Middleware

Messages = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Messages]]
Send = Callable[[Messages], Awaitable[None]]


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

    async def __call__(self, scope: Messages, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back with the headers."""

        async def send_with_headers(message: Messages) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *self._headers]}
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def security_middleware(frame_ancestors: tuple[str, ...]) -> list[Middleware]:
    """Return the middleware for gradio's application: `launch(app_kwargs={"middleware": ...})`."""
    return [Middleware(SecurityHeaders, frame_ancestors=frame_ancestors)]
