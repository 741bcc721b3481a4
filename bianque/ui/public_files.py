"""Files of our own that a browser or a crawler asks for by address, beside what gradio serves."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route

from bianque.ui.theme import CARD_FILE, PICTURE_SCRIPT_FILE

FOLDER = "bianque"
CARD_PATH = f"{FOLDER}/{CARD_FILE.name}"
# How long a browser may keep each. The script must fit what the server sends, so it is asked for anew.
_FILES = (
    (PICTURE_SCRIPT_FILE, "no-cache"),
    (CARD_FILE, "max-age=86400"),
)


def public_routes() -> list[Route]:
    """Return the routes for the `app_kwargs` of `Blocks.launch`; they come before gradio's own."""
    return [_route(path, cache) for path, cache in _FILES]


def _route(path: Path, cache: str) -> Route:
    def answer(request: Request) -> FileResponse:
        return FileResponse(path, headers={"Cache-Control": cache})

    return Route(f"/{FOLDER}/{path.name}", answer, methods=["GET"])
