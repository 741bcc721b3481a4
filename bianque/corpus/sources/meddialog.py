"""MedDialog-CN: the raw text of each year, the records of the Hub's raw configuration, and the processed lists.

- raw `2010.txt` …: blocks of `id=N`, an address, `Description` and `Dialogue`; the description (疾病, 病情描述,
  希望获得的帮助) is what the patient says first, unless the dialogue begins with it;
- Hub: `{"dialogue_id": …, "dialogue_turns": [{"speaker": "病人", "utterance": …}]}`;
- processed `train_data.json` …: an array of dialogues, each an array of strings that begin with their speaker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bianque.consultation.messages import Message, Role
from bianque.corpus.files import SourceFile
from bianque.corpus.json_stream import Located, read_json
from bianque.corpus.records import Dialogue, Problem
from bianque.corpus.sources.speakers import dialogue_of, role_of, utterance_of

SOURCE = "meddialog_cn"
_ID_LINE = re.compile(r"\s*id\s*=\s*(\d+)\s*$")
_SECTIONS = ("Description", "Dialogue", "Diagnosis and suggestions")
_DESCRIPTION_LABEL = re.compile(r"^(疾病|病情描述[^：:]{0,20}|希望[^：:]{0,20}|内容)[：:]\s*")
_WANTED_LABELS = ("疾病", "病情描述", "希望", "内容")
_ANY_LABEL = re.compile(r"^[^，。；\s]{2,12}[：:]")


def read(file: SourceFile) -> Iterator[Dialogue | Problem]:
    """Yield the dialogues of one file."""
    if file.suffix == ".txt":
        yield from _raw(file)
        return
    for index, record in enumerate(read_json(file, _is_record), start=1):
        if isinstance(record, Problem):
            yield record
        elif isinstance(record.value, dict):
            yield _hub(record, file.name)
        else:
            yield _processed(record, index, file)


def _is_record(value: Any) -> bool:
    if isinstance(value, dict):
        return "dialogue_turns" in value
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)


def _processed(record: Located, index: int, file: SourceFile) -> Dialogue | Problem:
    if not _is_record(record.value):
        return Problem(file.name, record.line, "not an array of utterances")
    messages = [utterance_of(text) for text in record.value]
    if None in messages:
        return Problem(file.name, record.line, "an utterance without its speaker")
    return Dialogue(SOURCE, f"{file.stem}-{index}", tuple(filter(None, messages)), file.name, record.line)


def _hub(record: Located, name: str) -> Dialogue | Problem:
    turns = record.value.get("dialogue_turns")
    try:
        spoken = [(role_of(turn["speaker"]), str(turn["utterance"]).strip()) for turn in turns]
    except (KeyError, TypeError):
        return Problem(name, record.line, "no dialogue_turns of speaker and utterance")
    if any(role is None for role, _ in spoken):
        return Problem(name, record.line, "an unknown speaker")
    messages = tuple(Message(role, text) for role, text in spoken if role is not None)
    return Dialogue(SOURCE, str(record.value.get("dialogue_id", record.line)), messages, name, record.line)


def _raw(file: SourceFile) -> Iterator[Dialogue | Problem]:
    identity, start, lines = "", 0, list[str]()
    with file.open_text() as stream:
        for number, line in enumerate(stream, start=1):
            match = _ID_LINE.match(line)
            if match is None:
                lines.append(line.strip())
                continue
            if start:
                yield _block(identity, lines, file.name, start)
            identity, start, lines = f"{file.stem}-{match[1]}", number, []
    yield _block(identity, lines, file.name, start) if start else Problem(file.name, 1, "no block begins with id=")


def _block(identity: str, lines: list[str], name: str, line: int) -> Dialogue | Problem:
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for text in lines:
        if text in _SECTIONS:
            current = sections.setdefault(text, [])
        else:
            current.append(text)
    if "Dialogue" not in sections:
        return Problem(name, line, "no Dialogue section")
    messages = dialogue_of(sections["Dialogue"])
    told = _description(sections.get("Description", []))
    if told and not (messages and messages[0].role is Role.USER and told in messages[0].text):
        messages.insert(0, Message(Role.USER, told))
    return Dialogue(SOURCE, identity, tuple(messages), name, line) if messages else Problem(name, line, "no utterance")


def _description(lines: list[str]) -> str:
    """Return what the patient wrote before the dialogue; other labelled lines (所就诊医院科室 …) are left out."""
    kept, is_wanted = list[str](), False
    for text in lines:
        label = _DESCRIPTION_LABEL.match(text)
        if label:
            is_wanted, text = label[1].startswith(_WANTED_LABELS), text[label.end() :]
        elif _ANY_LABEL.match(text):
            is_wanted = False
        if is_wanted and text:
            kept.append(text)
    return "\n".join(kept)
