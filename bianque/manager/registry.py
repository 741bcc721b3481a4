"""The models this project knows: what each is for, where it is published, and how it is decoded.

Sources: the model cards and demo programs of scutcyr/BianQue (decoding defaults of the joint demo) and
scutcyr/SoulChat. The parameters are counted from the published configurations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Literal

from bianque.engine.sampling import SamplingParams

Family = Literal["t5", "chatglm"]
Template = Literal["bianque", "soulchat"]

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
        licence: as stated on the model card.
        num_parameters: counted from the configuration.
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
    num_parameters: int
    is_demonstration: bool = False


_ASKER_SAMPLING = SamplingParams(temperature=0.7, top_k=50, top_p=1.0, no_repeat_ngram_size=3, max_new_tokens=512)
_ADVISER_SAMPLING = SamplingParams(temperature=0.95, top_k=50, top_p=0.7, max_new_tokens=512)
_LISTENER_SAMPLING = SamplingParams(temperature=0.95, top_k=50, top_p=0.75, max_new_tokens=512)

BIANQUE_1 = ModelSpec(
    name="BianQue-1.0",
    job=Job.ASKER,
    location="scutcyr/BianQue-1.0",
    family="t5",
    template="bianque",
    max_prompt_tokens=768,
    sampling=_ASKER_SAMPLING,
    licence="apache-2.0",
    num_parameters=783_150_080,
)
BIANQUE_2 = ModelSpec(
    name="BianQue-2.0",
    job=Job.ADVISER,
    location="scutcyr/BianQue-2",
    family="chatglm",
    template="bianque",
    max_prompt_tokens=2048,
    sampling=_ADVISER_SAMPLING,
    licence="apache-2.0 + ChatGLM-6B model licence",
    num_parameters=6_173_286_400,
)
SOULCHAT = ModelSpec(
    name="SoulChat",
    job=Job.LISTENER,
    location="scutcyr/SoulChat",
    family="chatglm",
    template="soulchat",
    max_prompt_tokens=2048,
    sampling=_LISTENER_SAMPLING,
    licence="apache-2.0 + ChatGLM-6B model licence",
    num_parameters=6_173_286_400,
)
REAL_MODELS = {spec.job: spec for spec in (BIANQUE_1, BIANQUE_2, SOULCHAT)}

# Sampling of a model this small is kept close to its most probable words.
_MINI_SAMPLING = SamplingParams(temperature=0.3, top_k=50, top_p=0.7, max_new_tokens=256)

MINI_ASKER = ModelSpec(
    name="mini-asker",
    job=Job.ASKER,
    location=str(MINIS_FOLDER / "mini-asker"),
    family="t5",
    template="bianque",
    max_prompt_tokens=768,
    sampling=_MINI_SAMPLING,
    licence="apache-2.0",
    num_parameters=0,
    is_demonstration=True,
)
MINI_ADVISER = ModelSpec(
    name="mini-adviser",
    job=Job.ADVISER,
    location=str(MINIS_FOLDER / "mini-adviser"),
    family="chatglm",
    template="bianque",
    max_prompt_tokens=2048,
    sampling=_MINI_SAMPLING,
    licence="apache-2.0",
    num_parameters=0,
    is_demonstration=True,
)
# The demonstration adviser has also learnt SoulChat's prompts, so one set of weights does both jobs.
MINI_LISTENER = replace(MINI_ADVISER, job=Job.LISTENER, template="soulchat")
DEMONSTRATION_MODELS = {spec.job: spec for spec in (MINI_ASKER, MINI_ADVISER, MINI_LISTENER)}
