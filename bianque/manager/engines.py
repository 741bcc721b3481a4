"""From a loaded model to the engine that runs it."""

from __future__ import annotations

from typing import Any

from bianque.engine.engine import Engine
from bianque.manager.registry import ModelSpec
from bianque.settings import Settings


def make_engine(model: Any, spec: ModelSpec, settings: Settings) -> Engine:
    """Return a running engine over a loaded model.

    Args:
        model: a `T5ForConditionalGeneration` or `ChatGLMForConditionalGeneration` in evaluation mode.
        spec: what it is; decides the runner and the length of prompts.
        settings: of the application.
    """
    from bianque.engine.runner import ChatGLMRunner, ModelRunner, T5Runner

    runner: ModelRunner = T5Runner(model) if spec.family == "t5" else ChatGLMRunner(model)
    return Engine(
        runner, num_slots=settings.num_slots, max_waiting=settings.max_waiting, max_model_len=spec.max_prompt_tokens
    )
