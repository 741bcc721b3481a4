"""Source files as streams of text: plain files, folders and zip archives, in UTF-8, UTF-16 or GB18030.

Nothing is read whole. Bytes that the encoding does not know become lone surrogates, which `sources.read_source` finds
and reports for the one record that holds them.
"""

from __future__ import annotations

import codecs
import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TextIO, cast

from bianque.errors import DataError

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".txt", ".pk", ".pkl", ".pickle")
SNIFFED_BYTES = 1 << 20
UNDECODED = re.compile("[\ud800-\udfff]")
"""Lone surrogates: undecodable bytes, or broken escapes of a JSON file."""


@dataclass(frozen=True)
class SourceFile:
    """One file to read, on disk or inside a zip archive."""

    path: Path
    member: str | None = None

    @property
    def name(self) -> str:
        """How problems name the file."""
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    @property
    def suffix(self) -> str:
        """Lower-case ending of the name, with the dot."""
        return PurePosixPath(self.member or self.path.name).suffix.lower()

    @property
    def stem(self) -> str:
        """Last part of the name without its ending."""
        return PurePosixPath(self.member or self.path.name).stem

    @contextmanager
    def open_bytes(self) -> Iterator[BinaryIO]:
        """Open the file's bytes."""
        if self.member is None:
            with self.path.open("rb") as stream:
                yield stream
        else:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as member:
                yield cast(BinaryIO, member)

    @contextmanager
    def open_text(self) -> Iterator[TextIO]:
        """Open the file's text, every kind of line end as a newline.

        Raises:
            DataError: if the file is not text.
        """
        with self.open_bytes() as stream:
            encoding = self._encoding(stream.read(SNIFFED_BYTES))
        errors = "replace" if encoding == "utf-16" else "surrogateescape"
        with self.open_bytes() as stream, io.TextIOWrapper(stream, encoding=encoding, errors=errors) as text:
            yield text

    def _encoding(self, head: bytes) -> str:
        """Choose the encoding that explains the file's beginning best."""
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        if b"\0" in head:
            raise DataError("corpus_file_not_text", file=self.name)
        if _num_undecoded(head, "utf-8-sig") <= _num_undecoded(head, "gb18030"):
            return "utf-8-sig"
        return "gb18030"


def _num_undecoded(head: bytes, encoding: str) -> int:
    """Return how many bytes of `head` the encoding does not know; a character cut off at the end is not counted."""
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
    return len(UNDECODED.findall(decoder.decode(head, final=False)))


def expand(path: Path) -> list[SourceFile]:
    """Return the files that `path` stands for: itself, the members of a zip archive, or a folder's files.

    Raises:
        DataError: if there is no such path, the archive cannot be opened, or nothing in it has a known ending.
    """
    if not path.exists():
        raise DataError("corpus_file_missing", file=path)
    if path.is_dir():
        inside = [child for child in sorted(path.rglob("*")) if child.suffix.lower() in (*SUFFIXES, ".zip")]
        files = [file for child in inside if child.is_file() for file in expand(child)]
    elif path.suffix.lower() == ".zip":
        files = _members(path)
    else:
        return [SourceFile(path)]
    if not files:
        raise DataError("corpus_nothing_to_read", file=path, expected=" ".join(SUFFIXES))
    return files


def _members(path: Path) -> list[SourceFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(archive.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError("corpus_archive_damaged", file=path, reason=str(error)[:100]) from error
    return [
        SourceFile(path, name)
        for name in names
        if PurePosixPath(name).suffix.lower() in SUFFIXES and not name.startswith("__MACOSX/")
    ]
