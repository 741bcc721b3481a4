"""Labels, buttons, hints and states of the page."""

from __future__ import annotations

from bianque.texts import Text

PAGE: dict[str, Text] = {}
