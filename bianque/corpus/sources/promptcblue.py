"""Dialogues inside the instructions of PromptCBLUE (and PULSE-EVAL, which quotes it).

PromptCBLUE republishes CHIP-MDCFNPC, IMCS-V2 and MedDG as JSON lines of `input` (an instruction around a dialogue),
`target`, `task_dataset` and `sample_id`; PULSE-EVAL calls the instruction `question` and names no task. Only MedDG's
target goes on with the dialogue: it is the doctor's next reply.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bianque.consultation.messages import Message, Role
from bianque.corpus.json_stream import Located
from bianque.corpus.records import Dialogue, Problem
from bianque.corpus.sources.speakers import dialogue_of

# What the instructions say around a dialogue.
_INSTRUCTION = re.compile(
    r"(?:临床发现实体|阴阳性选项|症状阴阳性选项|意图选项|类型选项|选项|候选|说明|问题)[：:]|答[：:]|(?:根据)?上述"
    r"|(?:问诊)?对话历史[：:]$|当前对话[：:]$|找出当前对话|当前对话涉及|根据对话历史|(?:给出|根据|自动生成|总结).*(?:回复|报告)[：:]?$"
)


def is_prompt(value: Any) -> bool:
    """Return whether a record is one of PromptCBLUE or PULSE-EVAL."""
    return isinstance(value, dict) and isinstance(_prompt_of(value), str)


def _prompt_of(value: dict[str, Any]) -> Any:
    return value.get("input", value.get("question"))


def read_prompt(record: Located, source: str, task: str, file: str) -> Iterator[Dialogue | Problem]:
    """Yield the dialogue of one record, or say why there is none.

    Args:
        record: a record for which `is_prompt` holds.
        source: key of the set to name in the dialogue.
        task: how `task_dataset` begins for this set.
        file: name of the file.
    """
    value = record.value
    dataset = value.get("task_dataset", task)
    if not str(dataset).startswith(task):
        yield Problem(file, record.line, f"belongs to {str(dataset)[:40]}")
        return
    lines = [line for line in _prompt_of(value).split("\n") if not _INSTRUCTION.match(line.strip())]
    messages = dialogue_of(lines)
    if not messages:
        yield Problem(file, record.line, "no dialogue in this instruction")
        return
    target = value.get("target")
    if value.get("task_type") == "response_generation" and isinstance(target, str):
        messages.append(Message(Role.ASSISTANT, target.strip()))
    identity = str(value.get("sample_id") or record.line)
    yield Dialogue(source, identity, tuple(messages), file, record.line)
