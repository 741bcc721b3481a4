"""Samples, tiny models, and one adapter trained for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bianque.finetune.options import PRESETS, FinetuneOptions
from bianque.settings import ModelSource
from tests.finetune.dialogues import write_samples

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
CHATGLM, T5 = FIXTURES / "chatglm", FIXTURES / "t5"

# Small steps of a tiny model: enough for everything that is not about learning.
QUICK = FinetuneOptions(
    method="lora",
    learning_rate=1e-3,
    schedule="linear",
    warmup=0.0,
    max_steps=4,
    batch_size=4,
    accumulation=1,
    max_prompt_tokens=256,
    max_target_tokens=256,
    lora_dropout=0.1,
    save_every=2,
    log_every=1,
)


@pytest.fixture(autouse=True, scope="package")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package")
def samples(tmp_path_factory) -> Path:
    return write_samples(tmp_path_factory.mktemp("samples") / "train.jsonl")


@pytest.fixture
def run(tmp_path, samples):
    """Fine-tune a tiny ChatGLM, or another model, with options that a test may change."""
    from dataclasses import replace

    from bianque.finetune.run import FinetuneJob, finetune

    def start(options=QUICK, *, callbacks=(), lines=None, **job):
        job = FinetuneJob(
            **{"data": samples, "output": tmp_path / "run", "model": ModelSource(str(CHATGLM)), "device": "cpu", **job}
        )
        show = (lambda line: None) if lines is None else lines.append
        return finetune(job, replace(options), show, callbacks=callbacks)

    return start


@pytest.fixture(scope="package")
def tuned(tmp_path_factory, samples):
    """An adapter of the mini-adviser that has learnt the twenty dialogues by heart, and the report of its run."""
    from dataclasses import replace

    from bianque.finetune.run import FinetuneJob, finetune

    options = replace(
        PRESETS["mini"].options,
        learning_rate=5e-3,
        epochs=30,
        batch_size=10,
        log_every=10,
        save_every=30,
        patience=0,
        lora_rank=16,
        lora_alpha=32,
    )
    output = tmp_path_factory.mktemp("tuned") / "clinic"
    job = FinetuneJob(samples, output, ModelSource("mini-adviser"), device="cpu", command="python -m bianque finetune")
    return finetune(job, options)
