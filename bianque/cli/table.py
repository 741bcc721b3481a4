"""Tables of plain text whose columns stand in line, also where a Chinese character takes two places."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def width_of(words: str) -> int:
    """Return the places that text takes in a terminal."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in words
    )


def pad(words: str, width: int) -> str:
    """Return text filled up with spaces to `width` places."""
    return words + " " * (width - width_of(words))


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines with aligned columns, the first row underlined."""
    widths = _widths(rows)
    lines = ["  ".join(pad(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])


def format_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a Markdown table whose columns are aligned in plain text as well."""
    widths = _widths(rows)
    lines = [
        "| " + " | ".join(pad(cell, width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(width_of(cell) for cell in column) for column in zip(*rows, strict=True)]
