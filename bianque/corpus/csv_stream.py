"""CSV rows one at a time, with the line each begins on; one broken quote costs one row, not the rest of the file."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

from bianque.corpus.files import SourceFile
from bianque.corpus.records import Problem
from bianque.errors import DataError

MAX_ROW_LINES = 2000
"""A quoted field that spans more lines than this is taken for one whose closing quote is missing."""

Row = dict[str, str]


def read_csv(
    file: SourceFile, columns: Mapping[str, Sequence[str]], optional: Sequence[str] = ()
) -> Iterator[tuple[int, Row] | Problem]:
    """Yield (line, row) for every row after the header.

    Args:
        file: a CSV file whose first row names the columns.
        columns: what the caller calls each column, and the names it may have in the file, compared without case.
        optional: columns of the same name in the file that may be absent; their cells are then empty.

    Raises:
        DataError: `corpus_columns_missing` if the header lacks a column.
    """
    with file.open_text() as stream:
        delimiter = "\t" if file.suffix == ".tsv" else ","
        rows = _Rows(stream, delimiter)
        header = rows.header()
        places = {name: _find(header, names) for name, names in columns.items()}
        missing = [name for name, place in places.items() if place is None]
        if missing:
            expected = ", ".join(" / ".join(names) for names in columns.values())
            got = ", ".join(header)[:100] or "–"
            raise DataError("corpus_columns_missing", file=file.name, expected=expected, got=got)
        places |= {name: _find(header, (name,)) for name in optional}
        for line, cells in rows.body(len(header)):
            if cells is None:
                yield Problem(file.name, line, "not a row of the header's columns")
            else:
                yield line, {name: "" if place is None else cells[place] for name, place in places.items()}


def _find(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


class _Rows:
    """Cuts physical lines into rows; lines taken in vain are given back."""

    def __init__(self, stream: TextIO, delimiter: str) -> None:
        self._stream = stream
        self._delimiter = delimiter
        self._waiting: deque[str] = deque()
        self._line = 0

    def header(self) -> list[str]:
        """Return the lower-case names of the first row that is not blank."""
        while line := self._next_line():
            if line.strip():
                return [name.strip().lower() for name in next(csv.reader([line], delimiter=self._delimiter))]
        return []

    def body(self, num_columns: int) -> Iterator[tuple[int, list[str] | None]]:
        """Yield (line, cells) of every row; cells are None for a line that begins no proper row."""
        while line := self._next_line():
            if not line.strip():
                continue
            start = self._line
            taken = [line]
            cells = self._parse(taken)
            while cells is None and len(taken) < MAX_ROW_LINES and (line := self._next_line()):
                taken.append(line)
                if '"' in line:  # only a quote can end the field
                    cells = self._parse(taken)
            if cells is not None and len(cells) == num_columns:
                yield start, cells
                continue
            yield start, None
            self._waiting.extendleft(reversed(taken[1:]))
            self._line = start

    def _parse(self, lines: list[str]) -> list[str] | None:
        """Return the cells of a whole row; None while a quoted field is open."""
        try:
            return next(csv.reader(lines, delimiter=self._delimiter, strict=True))
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                return None
        try:
            return next(csv.reader(lines, delimiter=self._delimiter))  # a stray quote inside a quoted field
        except csv.Error:
            return []  # a field beyond the reader's limit

    def _next_line(self) -> str:
        line = self._waiting.popleft() if self._waiting else self._stream.readline()
        self._line += bool(line)
        return line
