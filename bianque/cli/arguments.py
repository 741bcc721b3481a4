"""What several commands share: types of arguments (argparse prints what they raise), a key's file, progress."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from bianque.errors import DataError


def positive(text: str) -> int:
    """Return a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, but it is {value}")
    return value


def not_negative(text: str) -> int:
    """Return a whole number of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, but it is {value}")
    return value


def port(text: str) -> int:
    """Return a number that a port may have."""
    value = int(text)
    if not 1 <= value <= 65_535:
        raise argparse.ArgumentTypeError(f"must be from 1 to 65535, but it is {value}")
    return value


def positive_float(text: str) -> float:
    """Return a finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, but it is {value}")
    return value


def read_api_key(file: Path | None) -> str:
    """Return the key in a file, an empty one without a file.

    Raises:
        DataError: if the file is missing.
    """
    if file is None:
        return ""
    if not file.is_file():
        raise DataError("corpus_file_missing", file=file)
    return file.read_text("utf-8").strip()


def tell_progress(what: str) -> Callable[[int, int], None]:
    """Return a function that says on standard error, about twenty times, how many of how many are done."""

    def tell(done: int, total: int) -> None:
        if done % max(1, total // 20) == 0 or done == total:
            print(f"{done} of {total} {what}", file=sys.stderr, flush=True)

    return tell
