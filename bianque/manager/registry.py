"""The models this project knows: what each is for, where it is published, and how it is decoded.

Sources: the model cards and demo programs of scutcyr/BianQue (decoding defaults of the joint demo) and
scutcyr/SoulChat, and the published configurations, from which the sizes are counted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Literal, get_args

from bianque.engine.sampling import SamplingParams
from bianque.manager.sizes import ModelSize, measure_config

Family = Literal["t5", "chatglm"]
Template = Literal["bianque", "soulchat"]
Precision = Literal["fp32", "bf16", "fp16", "int8", "int4"]
"""Precision of the weights: a floating-point type, or integers of the published scheme with fp16 scales."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
"""All of them, highest first."""

MINIS_FOLDER = Path(__file__).resolve().parent.parent / "minis"


class Job(StrEnum):
    """What a model is used for."""

    ASKER = "asker"
    ADVISER = "adviser"
    LISTENER = "listener"


@dataclass(frozen=True)
class ModelSpec:
    """One known model.

    Attributes:
        name: as shown to people.
        job: what the application uses it for.
        location: Hub repo id, or a folder for the models that travel with the project.
        family: architecture, which decides the model class, the tokenizer and the runner.
        template: prompt template it was trained on.
        max_prompt_tokens: longest prompt of an encoder-decoder; for a decoder-only model, prompt and reply together.
        sampling: decoding defaults of the original demo.
        licence: as stated on the model card; empty if nothing is known.
        size: counted from the configuration; None until a model that the owner named has its files here.
        is_demonstration: whether it is one of the small models made for demonstration.
    """

    name: str
    job: Job
    location: str
    family: Family
    template: Template
    max_prompt_tokens: int
    sampling: SamplingParams
    licence: str
    size: ModelSize | None
    is_demonstration: bool = False

    @property
    def num_parameters(self) -> int:
        """All parameters, tied ones once; 0 if not known."""
        return self.size.num_parameters if self.size else 0

    def bytes_at(self, precision: Precision, *, on_cpu: bool = False) -> int:
        """Return the bytes of the weights once loaded; 0 if not known. See `ModelSize.bytes_at`."""
        return self.size.bytes_at(precision, on_cpu=on_cpu) if self.size else 0


_CHATGLM_6B = {
    "hidden_size": 4096,
    "inner_hidden_size": 16384,
    "num_layers": 28,
    "vocab_size": 130528,
    "max_sequence_length": 2048,
}
_CHATYUAN_LARGE = {
    "d_model": 1024,
    "d_ff": 2816,
    "d_kv": 64,
    "num_heads": 16,
    "num_layers": 24,
    "num_decoder_layers": 24,
    "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}

BIANQUE_1 = ModelSpec(
    name="BianQue-1.0",
    job=Job.ASKER,
    location="scutcyr/BianQue-1.0",
    family="t5",
    template="bianque",
    max_prompt_tokens=768,
    sampling=SamplingParams(temperature=0.7, top_k=50, top_p=1.0, no_repeat_ngram_size=3, max_new_tokens=512),
    licence="apache-2.0",
    size=measure_config(_CHATYUAN_LARGE, "t5"),
)
BIANQUE_2 = ModelSpec(
    name="BianQue-2.0",
    job=Job.ADVISER,
    location="scutcyr/BianQue-2",
    family="chatglm",
    template="bianque",
    max_prompt_tokens=2048,
    sampling=SamplingParams(temperature=0.95, top_k=50, top_p=0.7, max_new_tokens=512),
    licence="apache-2.0 + ChatGLM-6B model licence",
    size=measure_config(_CHATGLM_6B, "chatglm"),
)
SOULCHAT = replace(
    BIANQUE_2,
    name="SoulChat",
    job=Job.LISTENER,
    location="scutcyr/SoulChat",
    template="soulchat",
    sampling=replace(BIANQUE_2.sampling, top_p=0.75),
)
REAL_MODELS = {spec.job: spec for spec in (BIANQUE_1, BIANQUE_2, SOULCHAT)}


def _demonstration(model: ModelSpec, name: str) -> ModelSpec:
    """Describe the small model that has the architecture, the job and the prompts of `model`."""
    folder = MINIS_FOLDER / name
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return replace(
        model,
        name=name,
        location=str(folder),
        # Sampling of a model this small is kept close to its most probable words.
        sampling=SamplingParams(temperature=0.3, top_k=50, top_p=0.7, max_new_tokens=256),
        licence="apache-2.0",
        size=measure_config(config, model.family),
        is_demonstration=True,
    )


MINI_ASKER = _demonstration(BIANQUE_1, "mini-asker")
MINI_ADVISER = _demonstration(BIANQUE_2, "mini-adviser")
# The demonstration adviser has also learnt SoulChat's prompts, so one set of weights does both jobs.
MINI_LISTENER = replace(MINI_ADVISER, job=Job.LISTENER, template=SOULCHAT.template)
DEMONSTRATION_MODELS = {spec.job: spec for spec in (MINI_ASKER, MINI_ADVISER, MINI_LISTENER)}
