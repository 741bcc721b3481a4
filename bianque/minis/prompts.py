"""Turn samples into the exact strings that inference makes: the consultation's own templates do the work."""

from __future__ import annotations

from collections.abc import Sequence

from bianque.consultation.messages import Message, Role
from bianque.consultation.templates import PATIENT_DOCTOR, SOULCHAT, escape_for_t5, render
from bianque.minis.dialogues import Sample, Step


def messages_of(steps: Sequence[Step]) -> list[Message]:
    """Return the visible conversation as the service holds it; the greeting is not part of any prompt."""
    return [Message(Role.USER if step.speaker == "patient" else Role.ASSISTANT, step.text) for step in steps]


def prompt_of(sample: Sample) -> str:
    """Return the prompt for the model that writes the sample's target; T5's is escaped."""
    template = SOULCHAT if sample.mode == "soulchat" else PATIENT_DOCTOR
    prompt = render(messages_of(sample.before), template)
    return escape_for_t5(prompt) if sample.target.speaker == "asker" else prompt
