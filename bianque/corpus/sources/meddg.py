"""MedDG (digestive complaints): CCKS-21 / CBLUE JSON, the original pickles, and PromptCBLUE's instructions.

- `MedDG_train.json`: an array of dialogues, each an array of `{"id": "Patients" | "Doctor", "Sentence": …}`;
- `MedDG_test.json`: an array of `{"history": ["患者：…", "医生：…"], …}`, with `response` where it is known;
- the original release: pickles of a list of `{"history": […], "response": …, "id": …}`. They are read with every
  class refused, since plain containers and strings need none; a pickle is the one format that is read whole.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

from bianque.consultation.messages import Message, Role
from bianque.corpus.files import SourceFile
from bianque.corpus.json_stream import read_json
from bianque.corpus.records import Dialogue, Problem
from bianque.corpus.sources.promptcblue import is_prompt, read_prompt
from bianque.corpus.sources.speakers import role_of, utterance_of

SOURCE = "meddg"


def read(file: SourceFile) -> Iterator[Dialogue | Problem]:
    """Yield the dialogues of one file."""
    if file.suffix in (".pk", ".pkl", ".pickle"):
        yield from _pickled(file)
        return
    for index, record in enumerate(read_json(file, _is_record), start=1):
        if isinstance(record, Problem):
            yield record
        elif is_prompt(record.value):
            yield from read_prompt(record, SOURCE, "MedDG", file.name)
        else:
            yield _record(record.value, index, file, record.line)


def _is_record(value: Any) -> bool:
    if isinstance(value, dict):
        return isinstance(value.get("history"), list)
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) and "Sentence" in v for v in value)


def _record(value: Any, index: int, file: SourceFile, line: int) -> Dialogue | Problem:
    if not _is_record(value):
        return Problem(file.name, line, "neither an array of sentences nor a history")
    messages: list[Message | None]
    identity = f"{file.stem}-{index}"
    if isinstance(value, dict):
        messages = [utterance_of(str(text)) for text in value["history"]]
        if messages and all(message is None for message in messages):
            # The original release marks nobody: patient and doctor take turns, the patient first.
            roles = (Role.USER, Role.ASSISTANT)
            messages = [Message(roles[number % 2], str(text).strip()) for number, text in enumerate(value["history"])]
        if isinstance(value.get("response"), str) and value["response"].strip():
            messages.append(Message(Role.ASSISTANT, value["response"].strip()))
        identity = f"{file.stem}-{value['id']}-{index}" if "id" in value else identity
    else:
        messages = [_sentence(entry) for entry in value]
    if None in messages:
        return Problem(file.name, line, "an utterance without its speaker")
    return Dialogue(SOURCE, identity, tuple(filter(None, messages)), file.name, line)


def _sentence(entry: dict[str, Any]) -> Message | None:
    role = role_of(entry.get("id"))
    return None if role is None else Message(role, str(entry["Sentence"]).strip())


class _PlainUnpickler(pickle.Unpickler):
    """Builds lists, dictionaries, strings and numbers; anything that would import a class is refused."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise pickle.UnpicklingError(f"{module_name}.{global_name} is refused")


def _pickled(file: SourceFile) -> Iterator[Dialogue | Problem]:
    try:
        with file.open_bytes() as stream:
            records = _PlainUnpickler(stream, encoding="utf-8").load()
    except (pickle.UnpicklingError, EOFError, UnicodeDecodeError, ValueError, AttributeError, IndexError) as error:
        yield Problem(file.name, 1, f"not a pickle of plain values ({type(error).__name__})")
        return
    if not isinstance(records, list):
        yield Problem(file.name, 1, "not a pickle of a list")
        return
    for index, value in enumerate(records, start=1):
        yield _record(value, index, file, index)
