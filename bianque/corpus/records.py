r"""What the corpus is made of: dialogues, problems, and the samples a model learns from.

A dialogue on disk is one JSON object a line:

    {"source": "meddg", "id": "train-17", "messages": [{"role": "user", "content": "…"}, …]}

`role` is `user` (the patient) or `assistant` (the doctor), `source` is a key of `sources.reading.SOURCES`, `id` unique
within a source. A sample on disk is

    {"source": …, "dialogue_id": …, "turn": 1, "input": "病人：…\n医生：", "target": "…", "is_question": false}

with `turn` counting the doctor's replies of the dialogue from 1, `input` ending in `医生：` as inference has it, real
newlines in both, and `is_question` by `consultation.questions`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bianque.consultation.messages import Message, Role
from bianque.consultation.questions import is_clinical_question
from bianque.consultation.templates import render, split_turns


@dataclass(frozen=True)
class Dialogue:
    """One consultation.

    Attributes:
        source: key of the set it comes from.
        id: unique within the source.
        messages: what was said, oldest first; `Role.USER` is the patient, `Role.ASSISTANT` the doctor.
        file: where it was read; `archive.zip/member.csv` inside an archive.
        line: 1-based line in that file where the record begins.
    """

    source: str
    id: str
    messages: tuple[Message, ...]
    file: str = ""
    line: int = 0

    def with_messages(self, messages: Sequence[Message]) -> Dialogue:
        """Return the same dialogue with other messages."""
        return replace(self, messages=tuple(messages))

    def to_json(self) -> dict[str, Any]:
        """Return the object that stands for the dialogue on disk."""
        messages = [{"role": message.role.value, "content": message.text} for message in self.messages]
        return {"source": self.source, "id": self.id, "messages": messages}

    @classmethod
    def from_json(cls, value: Any, file: str = "", line: int = 0) -> Dialogue:
        """Return the dialogue an object stands for.

        Raises:
            ValueError: if the object is not what `to_json` makes.
        """
        try:
            messages = tuple(Message(Role(entry["role"]), str(entry["content"])) for entry in value["messages"])
            return cls(str(value.get("source", "")), str(value.get("id", line)), messages, file, line)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("not a dialogue with messages of role and content") from error


@dataclass(frozen=True)
class Problem:
    """A record that could not be read: where it is and why; never what it says."""

    file: str
    line: int
    reason: str


@dataclass(frozen=True)
class Sample:
    """One reply of the doctor and what was said before it.

    Attributes:
        source: key of the set.
        dialogue_id: id of the dialogue within it.
        turn: number of the reply in its dialogue, from 1.
        messages: the conversation before the reply, ending with the patient.
        target: the reply.
    """

    source: str
    dialogue_id: str
    turn: int
    messages: tuple[Message, ...]
    target: str

    @property
    def prompt(self) -> str:
        """The conversation as a model reads it, ending in `医生：`."""
        return render(self.messages)

    def to_json(self) -> dict[str, Any]:
        """Return the object that stands for the sample on disk."""
        return {
            "source": self.source,
            "dialogue_id": self.dialogue_id,
            "turn": self.turn,
            "input": self.prompt,
            "target": self.target,
            "is_question": is_clinical_question(self.target),
        }


def samples_of(dialogue: Dialogue) -> Iterator[Sample]:
    """Yield one sample for each reply of the doctor that follows a patient's message.

    Several messages of one speaker in a row are one turn, joined by newlines as in every prompt.
    """
    before: list[Message] = []
    turns = split_turns(dialogue.messages)
    for number, (patient, doctor) in enumerate(turns, start=1):
        before.append(Message(Role.USER, "\n".join(patient)))
        if doctor:
            target = "\n".join(doctor)
            yield Sample(dialogue.source, dialogue.id, number, tuple(before), target)
            before.append(Message(Role.ASSISTANT, target))
