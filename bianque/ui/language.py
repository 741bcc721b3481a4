"""The visitor's language, from the browser's request."""

from __future__ import annotations

import gradio as gr

from bianque.texts import Language

DEFAULT_LANGUAGE: Language = "zh"


def language_of(request: gr.Request | None) -> Language:
    """Return Chinese for a browser whose first language is Chinese, English for another; Chinese when it says none.

    The first entry is what the browser's own scripts see as its language, so that labels translated in the browser and
    sentences written here agree.
    """
    header = request.headers.get("accept-language", "") if request and request.headers else ""
    first = header.split(",")[0].split(";")[0].strip().lower()
    if not first or first == "*":
        return DEFAULT_LANGUAGE
    return "zh" if first.split("-")[0] == "zh" else "en"
