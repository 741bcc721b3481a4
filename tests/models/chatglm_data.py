"""The sets of ChatGLM reference data in one shape: the project's own, and what may lie beside a checkout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bianque.models.chatglm import ChatGLMForConditionalGeneration
from tests.golden import GOLDEN, requires_golden

OWN_FOLDER = Path(__file__).resolve().parent.parent / "fixtures" / "chatglm"
SOURCES = ["own", pytest.param("golden", marks=requires_golden)]


@dataclass(frozen=True)
class Reference:
    """A checkpoint folder and what it must compute."""

    folder: Path
    expected: dict[str, Any]
    arrays: dict[str, torch.Tensor]

    @property
    def cases(self) -> list[dict[str, Any]]:
        return self.expected["cases"]

    def case(self, name: str) -> dict[str, Any]:
        return next(case for case in self.cases if case["id"] == name)


@cache
def reference(source: str) -> Reference:
    """Return `own` or `golden`; both are only read."""
    if source == "own":
        folder, expected = OWN_FOLDER, OWN_FOLDER / "expected.json"
    else:
        folder, expected = GOLDEN / "chatglm", GOLDEN / "golden_chatglm.json"
    return Reference(
        folder, json.loads(expected.read_text(encoding="utf-8")), load_file(expected.with_suffix(".safetensors"))
    )


@cache
def load_model(source: str) -> ChatGLMForConditionalGeneration:
    """Return the checkpoint in fp32 for evaluation; shared, so do not change it."""
    return ChatGLMForConditionalGeneration.from_pretrained(reference(source).folder, dtype=torch.float32).eval()
