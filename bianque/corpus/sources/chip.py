"""CHIP-MDCFNPC: JSON lines of `{"dialog_info": [{"sender": "患者", "text": …}]}`, and PromptCBLUE's instructions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bianque.consultation.messages import Message
from bianque.corpus.files import SourceFile
from bianque.corpus.json_stream import Located, read_json
from bianque.corpus.records import Dialogue, Problem
from bianque.corpus.sources.promptcblue import is_prompt, read_prompt
from bianque.corpus.sources.speakers import role_of

SOURCE = "chip_mdcfnpc"


def read(file: SourceFile) -> Iterator[Dialogue | Problem]:
    """Yield the dialogues of one file."""
    for record in read_json(file, _is_record):
        if isinstance(record, Problem):
            yield record
        elif is_prompt(record.value):
            yield from read_prompt(record, SOURCE, "CHIP-MDCFNPC", file.name)
        else:
            yield _dialog_info(record, file)


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("dialog_info"), list)


def _dialog_info(record: Located, file: SourceFile) -> Dialogue | Problem:
    if not _is_record(record.value):
        return Problem(file.name, record.line, "no dialog_info")
    messages = []
    for entry in record.value["dialog_info"]:
        role = role_of(entry.get("sender")) if isinstance(entry, dict) else None
        if role is None or not isinstance(entry.get("text"), str):
            return Problem(file.name, record.line, "a line without sender and text")
        messages.append(Message(role, entry["text"].strip()))
    identity = str(record.value.get("dialog_id") or f"{file.stem}-{record.line}")
    return Dialogue(SOURCE, identity, tuple(messages), file.name, record.line)
