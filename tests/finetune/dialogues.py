"""Twenty short consultations, written for these tests, and the samples made from them."""

from __future__ import annotations

import json
from pathlib import Path

from bianque.consultation.messages import Message, Role
from bianque.corpus.records import Dialogue, samples_of

COMPLAINTS = (
    *("头痛", "咳嗽", "胃疼", "腰疼", "失眠", "发烧", "便秘", "腹泻", "牙疼", "耳鸣"),
    *("鼻塞", "皮肤痒", "心慌", "头晕", "嗓子疼", "膝盖疼", "眼睛干", "乏力", "恶心", "手麻"),
)
PLACES = ("神经内科", "呼吸内科", "消化内科", "骨科", "睡眠门诊")


def answer_for(complaint: str) -> str:
    """Return what the doctor says of a complaint; its second line tests newlines."""
    return f"{complaint}的话，先休息两天。\n不好转就到{PLACES[COMPLAINTS.index(complaint) % len(PLACES)]}看看。"


def dialogues() -> list[Dialogue]:
    """Return one consultation for each complaint."""
    return [
        Dialogue(
            "test",
            str(number),
            (Message(Role.USER, f"我{complaint}"), Message(Role.ASSISTANT, answer_for(complaint))),
        )
        for number, complaint in enumerate(COMPLAINTS)
    ]


def write_samples(path: Path, number: int = len(COMPLAINTS)) -> Path:
    """Write the samples of the first dialogues as `corpus build` does."""
    samples = [sample for dialogue in dialogues()[:number] for sample in samples_of(dialogue)]
    lines = [json.dumps(sample.to_json(), ensure_ascii=False) for sample in samples]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
