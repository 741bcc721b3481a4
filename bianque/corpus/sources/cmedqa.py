"""cMedQA2: `question.csv` (question_id, content) and `answer.csv` (ans_id, question_id, content), plain or zipped.

Every answer makes a dialogue of one turn with its question. The questions are kept on disk while the answers are
read, so neither file has to fit in memory. The candidate files only list ids and are not needed.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from bianque.consultation.messages import Message, Role
from bianque.corpus.csv_stream import read_csv
from bianque.corpus.files import SourceFile
from bianque.corpus.records import Dialogue, Problem
from bianque.errors import DataError

SOURCE = "cmedqa2"
_QUESTION_COLUMNS = {"id": ("question_id", "que_id"), "text": ("content",)}
_ANSWER_COLUMNS = {"id": ("ans_id", "answer_id"), "question": ("question_id", "que_id"), "text": ("content",)}


def read_all(files: Sequence[SourceFile]) -> Iterator[Dialogue | Problem]:
    """Yield the dialogues of question and answer files, which are told apart by their names.

    Raises:
        DataError: `corpus_part_missing` if one of the two is not among `files`.
    """
    questions = [file for file in files if file.stem.lower().startswith("question")]
    answers = [file for file in files if file.stem.lower().startswith("answer")]
    for part, found in (("question.csv", questions), ("answer.csv", answers)):
        if not found:
            raise DataError("corpus_part_missing", source=SOURCE, part=part)
    with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(Path(folder) / "questions")) as database:
        database.execute("CREATE TABLE question (id TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID")
        for file in questions:
            for item in read_csv(file, _QUESTION_COLUMNS):
                if isinstance(item, Problem):
                    yield item
                else:
                    text = item[1]["text"].encode("utf-8", "surrogateescape")  # what sqlite's text cannot hold
                    database.execute("INSERT OR REPLACE INTO question VALUES (?, ?)", (item[1]["id"], text))
        for file in answers:
            yield from _answers(file, database)


def _answers(file: SourceFile, database: sqlite3.Connection) -> Iterator[Dialogue | Problem]:
    for item in read_csv(file, _ANSWER_COLUMNS):
        if isinstance(item, Problem):
            yield item
            continue
        line, row = item
        found = database.execute("SELECT text FROM question WHERE id = ?", (row["question"],)).fetchone()
        if found is None:
            yield Problem(file.name, line, "its question is not there")
            continue
        question = found[0].decode("utf-8", "surrogateescape").strip()
        messages = (Message(Role.USER, question), Message(Role.ASSISTANT, row["text"].strip()))
        yield Dialogue(SOURCE, row["id"] or str(line), messages, file.name, line)
