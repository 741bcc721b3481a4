"""JSON records one at a time, from files of any size: one object a line, one big array, or one object of records.

A record that is not JSON is reported with its line; reading goes on at the next place where a record can begin, so
that nothing else is lost. No more is held in memory than the record at hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TextIO

from bianque.corpus.files import SourceFile
from bianque.corpus.records import Problem

CHUNK_CHARS = 1 << 18
MAX_RECORD_CHARS = 1 << 24
"""A record longer than this is taken for one whose end is missing."""
MAX_KEY_CHARS = 1000

_DECODER = json.JSONDecoder(strict=False)  # a raw newline inside a string harms nobody
_KEYED_START = re.compile(r'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\{')
_BETWEEN = re.compile(r"[\s,]*")
_KEY = re.compile(r'"((?:[^"\\]|\\.)*)"\s*:\s*')
_MAY_BEGIN = re.compile(r'[,\[\n]\s*(?=[\[{])|[,{\n]\s*(?="(?:[^"\\\n]|\\.)*"\s*:\s*[\[{])')


@dataclass(frozen=True)
class Located:
    """One record with its place.

    Attributes:
        line: 1-based line where it begins.
        key: its key when the file is one object of records, else None.
        value: what JSON says.
    """

    line: int
    key: str | None
    value: Any


def read_json(file: SourceFile, is_record: Callable[[Any], bool]) -> Iterator[Located | Problem]:
    """Yield every record of a file.

    Args:
        file: JSON lines, an array of records, or an object whose values are records.
        is_record: tells a record from its parts, used only to go on after a damaged one.
    """
    with file.open_text() as stream:
        head = stream.read(CHUNK_CHARS)
        if head.lstrip().startswith("[") or _KEYED_START.match(head):
            yield from _Container(file.name, stream, head, is_record).records()
        else:
            yield from _json_lines(file.name, stream, head)


def _json_lines(name: str, stream: TextIO, head: str) -> Iterator[Located | Problem]:
    for number, line in enumerate(_lines(stream, head), start=1):
        if not line.strip():
            continue
        try:
            yield Located(number, None, json.loads(line, strict=False))
        except (json.JSONDecodeError, RecursionError):
            yield Problem(name, number, "not JSON")


def _lines(stream: TextIO, head: str) -> Iterator[str]:
    """Yield the lines of `head` followed by the rest of `stream`."""
    *complete, last = head.split("\n")
    yield from complete
    yield last + stream.readline()
    yield from stream


class _Container:
    """The records of one array or object, cut out of a window of text that slides over the file."""

    def __init__(self, name: str, stream: TextIO, head: str, is_record: Callable[[Any], bool]) -> None:
        self._name = name
        self._stream = stream
        self._is_record = is_record
        self._text = head  # the window
        self._at = 0  # how far it is read
        self._line = 1  # line of that place
        self._is_ended = False
        self._move_to(len(head) - len(head.lstrip()))
        self._is_keyed = head.startswith("{", self._at)
        self._close = "}" if self._is_keyed else "]"

    def records(self) -> Iterator[Located | Problem]:
        """Yield every record and a problem for each that could not be read."""
        self._move_to(self._at + 1)
        while True:
            self._skip_between()
            if self._at == len(self._text):
                yield Problem(self._name, self._line, "the file ends before its records do")
                return
            if self._text.startswith(self._close, self._at):
                return
            found = self._decode()
            if found is None:
                yield Problem(self._name, self._line, "not JSON")
                self._resume()
            else:
                key, value, end = found
                yield Located(self._line, key, value)
                self._move_to(end)

    def _decode(self) -> tuple[str | None, Any, int] | None:
        """Return key, value and end of the record at the present place; None if it is not JSON."""
        while True:
            try:
                key, value, end = self._decode_at(self._at)
                if end < len(self._text) or self._is_ended:  # a number could go on in what is not read yet
                    return key, value, end
            except RecursionError:
                return None
            except json.JSONDecodeError as error:
                if not self._may_be_cut(error) or len(self._text) - self._at > MAX_RECORD_CHARS:
                    return None
            if not self._read_more():
                return None

    def _decode_at(self, start: int) -> tuple[str | None, Any, int]:
        key = None
        if self._is_keyed:
            match = _KEY.match(self._text, start)
            if match is None:
                is_open = len(self._text) - start < MAX_KEY_CHARS
                raise json.JSONDecodeError("key expected", self._text, len(self._text) if is_open else start)
            key, start = json.loads(f'"{match[1]}"', strict=False), match.end()
        value, end = _DECODER.raw_decode(self._text, start)
        return key, value, end

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Return whether the text may only seem wrong because the window ends there."""
        return error.pos >= len(self._text) - 16 or error.msg.startswith("Unterminated string")

    def _resume(self) -> None:
        """Move to the next place after the damaged record where a whole record begins."""
        position = self._at + 1
        while True:
            match = _MAY_BEGIN.search(self._text, position)
            if match is None:
                self._move_to(max(position, len(self._text) - MAX_KEY_CHARS))
                if not self._read_more():
                    self._move_to(len(self._text))
                    return
                position = self._at
                continue
            self._move_to(match.start())
            verdict = self._begins_record(match.end())
            if verdict:
                self._move_to(match.end())
                return
            can_grow = verdict is None and len(self._text) - self._at <= MAX_RECORD_CHARS
            position = self._at if can_grow and self._read_more() else self._at + 1

    def _begins_record(self, start: int) -> bool | None:
        """Return whether a record begins at `start`; None if the window ends before that is known."""
        try:
            return self._is_record(self._decode_at(start)[1])
        except RecursionError:
            return False
        except json.JSONDecodeError as error:
            return None if self._may_be_cut(error) else False

    def _skip_between(self) -> None:
        while True:
            match = _BETWEEN.match(self._text, self._at)
            assert match is not None  # the pattern matches everywhere
            self._move_to(match.end())
            if self._at < len(self._text) or not self._read_more():
                return

    def _read_more(self) -> bool:
        """Let go of what is read and append at least as much as is left, so that long records are tried few times."""
        left = self._text[self._at :]
        more = self._stream.read(max(CHUNK_CHARS, len(left)))
        self._text, self._at = left + more, 0
        self._is_ended = not more
        return bool(more)

    def _move_to(self, place: int) -> None:
        self._line += self._text.count("\n", self._at, place)
        self._at = place
