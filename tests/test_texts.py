"""The translation table is complete and every error can be written in both languages."""

from __future__ import annotations

import ast
import string
from pathlib import Path

import pytest

from bianque.errors import BianQueError
from bianque.texts import text
from bianque.texts.arena import ARENA
from bianque.texts.errors import ERRORS
from bianque.texts.models import MODELS
from bianque.texts.notices import NOTICES
from bianque.texts.page import PAGE

PACKAGE = Path(__file__).resolve().parent.parent / "bianque"
TABLES = {"errors": ERRORS, "models": MODELS, "notices": NOTICES, "page": PAGE, "arena": ARENA}


def fields(sentence: str) -> set[str]:
    """Return the names of the fields in a sentence, without the endings of its language."""
    return {
        name.removesuffix("_zh").removesuffix("_en") for _, name, _, _ in string.Formatter().parse(sentence) if name
    }


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_both_languages_say_the_same(table):
    for key, entry in table.items():
        assert entry.zh.strip() and entry.en.strip(), key
        assert fields(entry.zh) == fields(entry.en), key


def test_keys_are_unique_across_the_tables():
    keys = [key for table in TABLES.values() for key in table]
    assert len(keys) == len(set(keys))


def test_every_error_raised_has_its_entry_and_fields():
    raised = set()
    for path in (*PACKAGE.rglob("*.py"), PACKAGE.parent / "app.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_error = isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Error") and node.args
            if is_error and isinstance(node.args[0], ast.Constant) and node.args[0].value in ERRORS:
                given = {keyword.arg for keyword in node.keywords}
                entry = ERRORS[node.args[0].value]
                needed = {name for language in entry for _, name, _, _ in string.Formatter().parse(language) if name}
                assert given == needed, f"{path}: {node.args[0].value}"
                raised.add(node.args[0].value)
    assert raised == set(ERRORS), f"never raised: {set(ERRORS) - raised}"


def test_an_error_speaks_both_languages():
    error = BianQueError("queue_full", waiting=3)
    assert "3" in str(error) and str(error) == error.text("en")
    assert "排队已满" in error.text("zh")


def test_an_unknown_key_is_refused():
    with pytest.raises(KeyError):
        text("no_such_text", "zh")
