"""From a loaded model to the engine that runs it."""

from __future__ import annotations

from typing import Any

from bianque.engine.engine import Engine
from bianque.engine.threads import ThreadChooser
from bianque.engine.turns import turns_of
from bianque.manager.precision import LONGEST_QUESTION_TOKENS, default_visitors
from bianque.manager.registry import ModelSpec
from bianque.settings import Settings


def make_engine(model: Any, spec: ModelSpec, settings: Settings) -> Engine:
    """Return a running engine over a loaded model; its KV cache is allocated here, once.

    Args:
        model: a `T5ForConditionalGeneration` or `ChatGLMForConditionalGeneration` in evaluation mode.
        spec: what it is; decides the runner and the length of prompts.
        settings: of the application.
    """
    from bianque.engine.chatglm_runner import ChatGLMRunner
    from bianque.engine.t5_runner import T5Runner

    num_slots = settings.num_slots or default_visitors([spec])
    runner: ChatGLMRunner | T5Runner
    if spec.family == "t5":
        max_new_tokens = max(LONGEST_QUESTION_TOKENS, spec.sampling.max_new_tokens)
        runner = T5Runner(
            model,
            num_slots=num_slots,
            max_prompt_len=spec.max_prompt_tokens,
            max_new_tokens=max_new_tokens,
        )
    else:
        runner = ChatGLMRunner(model, num_slots=num_slots, max_len=spec.max_prompt_tokens)
    if not settings.is_zero_gpu:  # there an engine lives for one reply
        runner.warm_up()
    return Engine(
        runner,
        max_waiting=settings.max_waiting,
        max_per_visitor=settings.max_running_per_visitor or None,
        max_seconds=settings.max_seconds or None,
        turns=turns_of(str(runner.device)),
        threads=_thread_chooser(runner.device.type, settings),
    )


def _thread_chooser(device_type: str, settings: Settings) -> ThreadChooser | None:
    """Return what finds the best number of threads, unless the owner set one or there is nothing to choose."""
    import torch

    num_threads = torch.get_num_threads()
    if device_type != "cpu" or settings.num_threads or num_threads < 2:
        return None
    return ThreadChooser(num_threads, torch.set_num_threads)
