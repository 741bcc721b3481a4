"""The visitor's language: from the address (`?lang=en`), else from the browser's request."""

from __future__ import annotations

from typing import cast

import gradio as gr

from bianque.texts import Language

DEFAULT_LANGUAGE: Language = "zh"


def language_of(request: gr.Request | None) -> Language:
    """Return Chinese for a browser whose first language is Chinese, English for another; Chinese when it says none.

    `lang=zh` or `lang=en` in the address goes before. The first entry of the header is what the browser's own
    scripts see as its language, so that labels translated in the browser and sentences written here agree.
    """
    wanted = request.query_params.get("lang") if request and request.query_params else None
    if wanted in ("zh", "en"):
        return cast(Language, wanted)
    header = request.headers.get("accept-language", "") if request and request.headers else ""
    first = header.split(",")[0].split(";")[0].strip().lower()
    if not first or first == "*":
        return DEFAULT_LANGUAGE
    return "zh" if first.split("-")[0] == "zh" else "en"
