"""Which sets can be read, and reading them: every dialogue, every problem, and an error when nothing was readable."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bianque.corpus.files import UNDECODED, SourceFile, expand
from bianque.corpus.records import Dialogue, Problem
from bianque.corpus.sources import chip, cmedqa, cmtmedqa, imcs, meddg, meddialog, toyhom, user_csv
from bianque.errors import DataError

Reader = Callable[[Sequence[SourceFile]], Iterator[Dialogue | Problem]]


@dataclass(frozen=True)
class Source:
    """One set: how it is read, and which files it is made of, for people."""

    read: Reader
    files: str


def _one_by_one(read: Callable[[SourceFile], Iterator[Dialogue | Problem]]) -> Reader:
    """Read files one after another, so that one that breaks off does not take the next along."""

    def read_files(files: Sequence[SourceFile]) -> Iterator[Dialogue | Problem]:
        for file in files:
            try:
                yield from read(file)
            except _BROKEN as error:
                yield Problem(file.name, 0, f"the file breaks off or is damaged ({type(error).__name__})")

    return read_files


# Raised while a file is read: a bad check sum, a cut or encrypted archive member, a disk that fails.
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)

SOURCES: dict[str, Source] = {
    meddialog.SOURCE: Source(_one_by_one(meddialog.read), "raw 2010.txt …, Hub records, train_data.json …"),
    imcs.SOURCE: Source(_one_by_one(imcs.read), "IMCS-V2_train.json …, DX text, PromptCBLUE"),
    chip.SOURCE: Source(_one_by_one(chip.read), "JSON lines of dialog_info, PromptCBLUE"),
    meddg.SOURCE: Source(_one_by_one(meddg.read), "MedDG_train.json …, original pickles, PromptCBLUE"),
    cmedqa.SOURCE: Source(cmedqa.read_all, "question.csv and answer.csv, or their zips, in one folder"),
    toyhom.SOURCE: Source(_one_by_one(toyhom.read), "CSV of department,title,ask,answer, or text blocks"),
    user_csv.SOURCE: Source(_one_by_one(user_csv.read), "your CSV of input,target[,answer_choice,type]"),
    cmtmedqa.SOURCE: Source(_one_by_one(cmtmedqa.read), "JSON of history, instruction, output"),
}


def read_source(name: str, path: Path) -> Iterator[Dialogue | Problem]:
    """Yield every dialogue and every problem of a set, in the order of its files.

    Args:
        name: key of `SOURCES`.
        path: a file, a zip archive, or a folder of both.

    Raises:
        DataError: if the set is unknown, its files are missing or not text, or not one record could be read.
    """
    if name not in SOURCES:
        raise DataError("corpus_source_unknown", got=name, expected=", ".join(SOURCES))
    num_read, first_problem = 0, None
    for item in SOURCES[name].read(expand(path)):
        checked = _checked(item)
        if isinstance(checked, Problem):
            first_problem = first_problem or checked
        else:
            num_read += 1
        yield checked
    if not num_read:
        reason = f"{first_problem.reason}, line {first_problem.line}" if first_problem else "no record"
        raise DataError("corpus_nothing_readable", file=path, source=name, reason=reason)


def _checked(item: Dialogue | Problem) -> Dialogue | Problem:
    """Turn a dialogue that cannot be used into a problem."""
    if isinstance(item, Dialogue):
        if not item.messages:
            return Problem(item.file, item.line, "no utterance")
        if any(UNDECODED.search(message.text) for message in item.messages):
            return Problem(item.file, item.line, "bytes that its encoding does not know")
    return item
