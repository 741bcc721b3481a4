r"""Users' own data: CSV of `input,target` and, if they are there, `answer_choice,type`.

`input` is the dialogue so far as `病人：…\n医生：…\n病人：…\n医生：`, with real newlines or with the two characters
`\n`; the final `医生：` may be missing, and an input without any speaker is one message of the patient.
"""

from __future__ import annotations

from collections.abc import Iterator

from bianque.consultation.messages import Message, Role
from bianque.consultation.templates import unescape_from_t5
from bianque.corpus.csv_stream import read_csv
from bianque.corpus.files import SourceFile
from bianque.corpus.records import Dialogue, Problem
from bianque.corpus.sources.speakers import messages_of_prompt

SOURCE = "user"
_COLUMNS = {"input": ("input",), "target": ("target",)}


def read(file: SourceFile) -> Iterator[Dialogue | Problem]:
    """Yield the dialogues of one file."""
    for item in read_csv(file, _COLUMNS, optional=("answer_choice", "type")):
        if isinstance(item, Problem):
            yield item
            continue
        line, row = item
        target = unescape_from_t5(row["target"]).strip()
        if not row["input"].strip() or not target:
            yield Problem(file.name, line, "an empty input or target")
            continue
        messages = (*messages_of_prompt(row["input"]), Message(Role.ASSISTANT, target))
        yield Dialogue(SOURCE, f"{file.stem}-{line}", messages, file.name, line)
