"""CMtMedQA (Zhongjing): JSON of `{"history": [[patient, doctor], …], "instruction": patient, "output": doctor}`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bianque.consultation.messages import Message, Role
from bianque.corpus.files import SourceFile
from bianque.corpus.json_stream import read_json
from bianque.corpus.records import Dialogue, Problem

SOURCE = "cmtmedqa"


def read(file: SourceFile) -> Iterator[Dialogue | Problem]:
    """Yield the dialogues of one file."""
    for record in read_json(file, _is_record):
        if isinstance(record, Problem):
            yield record
        elif not _is_record(record.value):
            yield Problem(file.name, record.line, "no instruction and output")
        else:
            identity = str(record.value.get("id") or f"{file.stem}-{record.line}")
            yield Dialogue(SOURCE, identity, _messages(record.value), file.name, record.line)


def _is_record(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("history", []), list):
        return False
    pairs = value.get("history", [])
    return {"instruction", "output"} <= set(value) and all(isinstance(p, list) and len(p) == 2 for p in pairs)


def _messages(value: dict[str, Any]) -> tuple[Message, ...]:
    asked = "\n".join(filter(None, (str(value["instruction"]), str(value.get("input") or ""))))
    pairs = [*value.get("history", []), [asked, value["output"]]]
    roles = (Role.USER, Role.ASSISTANT)
    return tuple(Message(role, str(said).strip()) for pair in pairs for role, said in zip(roles, pair, strict=True))
