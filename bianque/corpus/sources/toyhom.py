"""Chinese-medical-dialogue-data (Toyhom): CSV of `department,title,ask,answer`, or text blocks; usually GB18030.

The readme calls the third column `question`, the files call it `ask`. Where it is empty or 无 the title is what the
patient says. A text file has blocks of a line `title,ask`, a line `answer` and blank lines.
"""

from __future__ import annotations

from collections.abc import Iterator

from bianque.consultation.messages import Message, Role
from bianque.corpus.csv_stream import read_csv
from bianque.corpus.files import SourceFile
from bianque.corpus.records import Dialogue, Problem

SOURCE = "toyhom"
_COLUMNS = {"title": ("title",), "ask": ("ask", "question"), "answer": ("answer",)}
_NOTHING = ("", "无")


def read(file: SourceFile) -> Iterator[Dialogue | Problem]:
    """Yield the dialogues of one file."""
    if file.suffix == ".txt":
        yield from _blocks(file)
        return
    for item in read_csv(file, _COLUMNS):
        if isinstance(item, Problem):
            yield item
        else:
            line, row = item
            yield _dialogue(file, line, row["title"], row["ask"], row["answer"])


def _blocks(file: SourceFile) -> Iterator[Dialogue | Problem]:
    with file.open_text() as stream:
        start, block = 0, list[str]()
        for number, line in enumerate(stream, start=1):
            if line.strip():
                start = start if block else number
                block.append(line.strip())
            elif block:
                yield _block(file, start, block)
                block = []
        if block:
            yield _block(file, start, block)


def _block(file: SourceFile, line: int, block: list[str]) -> Dialogue | Problem:
    if line == 1 and len(block) == 2 and block == ["title,ask", "answer"]:
        return Problem(file.name, line, "the header")
    title, comma, ask = block[0].partition(",")
    if len(block) < 2 or not comma:
        return Problem(file.name, line, "not a block of title,ask and answer")
    return _dialogue(file, line, title, ask, "\n".join(block[1:]))


def _dialogue(file: SourceFile, line: int, title: str, ask: str, answer: str) -> Dialogue:
    ask = ask.strip()
    says = title.strip() if ask in _NOTHING else ask
    messages = (Message(Role.USER, says), Message(Role.ASSISTANT, answer.strip()))
    return Dialogue(SOURCE, f"{file.stem}-{line}", messages, file.name, line)
