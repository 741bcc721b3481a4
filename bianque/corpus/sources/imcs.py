"""IMCS-V2 (children's medicine): the full JSON, the DX dialogues it grew from, and PromptCBLUE's instructions.

- `IMCS-V2_train.json` …: `{id: {"self_report": …, "dialogue": [{"speaker": "患者", "sentence": …}]}}`; the self-report
  is what the patient says first;
- DX text: `train [{'self_repo': …, 'consult_id': …, 'dialog': [patient, doctor, patient …]}, …]`, a Python literal
  whose dialogues begin with the self-report.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TextIO

from bianque.consultation.messages import Message, Role
from bianque.corpus.files import SourceFile
from bianque.corpus.json_stream import Located, read_json
from bianque.corpus.records import Dialogue, Problem
from bianque.corpus.sources.promptcblue import is_prompt, read_prompt
from bianque.corpus.sources.speakers import role_of

SOURCE = "imcs_v2"
CHUNK_CHARS = 1 << 18
_DX_START = re.compile(r"\{'self_repo'\s*:")


def read(file: SourceFile) -> Iterator[Dialogue | Problem]:
    """Yield the dialogues of one file."""
    if file.suffix == ".txt":
        yield from _dx(file)
        return
    for record in read_json(file, _is_record):
        if isinstance(record, Problem):
            yield record
        elif is_prompt(record.value):
            yield from read_prompt(record, SOURCE, "IMCS-V2", file.name)
        else:
            yield _full(record, file)


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("dialogue"), list)


def _full(record: Located, file: SourceFile) -> Dialogue | Problem:
    if not _is_record(record.value):
        return Problem(file.name, record.line, "no dialogue")
    messages = []
    self_report = str(record.value.get("self_report") or "").strip()
    if self_report:
        messages.append(Message(Role.USER, self_report))
    for entry in record.value["dialogue"]:
        role = role_of(entry.get("speaker")) if isinstance(entry, dict) else None
        if role is None or not isinstance(entry.get("sentence"), str):
            return Problem(file.name, record.line, "a line without speaker and sentence")
        messages.append(Message(role, entry["sentence"].strip()))
    identity = record.key or str(record.value.get("example_id") or record.line)
    return Dialogue(SOURCE, identity, tuple(messages), file.name, record.line)


def _dx(file: SourceFile) -> Iterator[Dialogue | Problem]:
    with file.open_text() as stream:
        for line, text in _literals(stream):
            yield _dx_record(text, line, file.name)


def _literals(stream: TextIO) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of every record: from one `{'self_repo'` to the next."""
    window, line = "", 1
    while True:
        chunk = stream.read(CHUNK_CHARS)
        window += chunk
        starts = [match.start() for match in _DX_START.finditer(window)]
        if starts:
            line += window.count("\n", 0, starts[0])
        for start, end in pairwise(starts):
            yield line, window[start:end]
            line += window.count("\n", start, end)
        if not chunk:
            if starts:
                yield line, window[starts[-1] :]
            return
        if starts:
            window = window[starts[-1] :]


def _dx_record(text: str, line: int, name: str) -> Dialogue | Problem:
    literal = text[: text.rfind("}") + 1]
    try:
        value = ast.literal_eval(literal)
        dialog, identity = value["dialog"], str(value["consult_id"])
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError):
        return Problem(name, line, "not a whole Python literal of self_repo and dialog")
    roles = (Role.USER, Role.ASSISTANT)
    messages = tuple(Message(roles[index % 2], str(said).strip()) for index, said in enumerate(dialog))
    return Dialogue(SOURCE, identity, messages, name, line)
