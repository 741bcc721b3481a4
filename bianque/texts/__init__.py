"""The one translation table: every sentence a person reads, in Chinese with English beside it.

A leaf of the import graph. The entries are grouped by who shows them (`arena`, `errors`, `models`, `notices`, `page`); `text`
reads them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

Language = Literal["zh", "en"]

LANGUAGES: tuple[Language, ...] = get_args(Language)

LOCALES: dict[str, Language] = {
    **dict.fromkeys(("zh", "zh-CN", "zh-TW", "zh-HK", "zh-SG", "zh-Hans", "zh-Hant"), "zh"),
    "en": "en",
}
"""The language of a page for each locale of a browser."""


class Text(NamedTuple):
    """One entry of the table; both fields may hold `str.format` fields of the same names."""

    zh: str
    en: str


def text(key: str, language: Language, **params: object) -> str:
    """Return the entry `key` in `language` with `params` filled in.

    Raises:
        KeyError: if the table has no such entry, or a field of it is not among `params`.
    """
    from bianque.texts.arena import ARENA
    from bianque.texts.errors import ERRORS
    from bianque.texts.models import MODELS
    from bianque.texts.notices import NOTICES
    from bianque.texts.page import PAGE

    for table in (ERRORS, MODELS, NOTICES, PAGE, ARENA):
        if key in table:
            return getattr(table[key], language).format(**params)
    raise KeyError(f"no text named {key!r}")
