"""Which models to run: a pure decision from the settings and the machine, with the reason for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from bianque.manager.registry import DEMONSTRATION_MODELS, REAL_MODELS, Job, ModelSpec
from bianque.settings import ModelSource, Settings

Reason = Literal["plan_demo_chosen", "plan_no_gpu", "plan_gpu", "plan_real_chosen", "plan_named"]


@dataclass(frozen=True)
class PlannedModel:
    """One model to load: what it is, and the repo or folder and revision to take it from."""

    spec: ModelSpec
    source: ModelSource


@dataclass(frozen=True)
class ModelPlan:
    """What to load.

    Attributes:
        models: by job; a job without a model is absent.
        reason: entry of the translation table that says why.
        may_fall_back: whether the demonstration models may stand in when a download fails. Models that the owner
            named are never replaced silently.
    """

    models: Mapping[Job, PlannedModel]
    reason: Reason
    may_fall_back: bool

    @property
    def is_demonstration(self) -> bool:
        """Whether demonstration models answer in any mode."""
        return any(planned.spec.is_demonstration for planned in self.models.values())


def demonstration_models() -> dict[Job, PlannedModel]:
    """Return the models that travel with the project."""
    return {job: PlannedModel(spec, ModelSource(spec.location)) for job, spec in DEMONSTRATION_MODELS.items()}


def plan_models(settings: Settings, *, has_cuda: bool) -> ModelPlan:
    """Choose the models: those the owner named, else the real ones on a CUDA device, else the demonstration ones.

    SoulChat is a second model of 6.2 B parameters and would not fit beside BianQue-2.0 on most devices, so of the real
    models it is only taken when named.
    """
    named = {
        job: source
        for job, source in (
            (Job.ASKER, settings.asker),
            (Job.ADVISER, settings.adviser),
            (Job.LISTENER, settings.listener),
        )
        if source
    }
    wants_real = settings.models == "real" or (settings.models == "auto" and has_cuda)
    if wants_real:
        models = {
            job: PlannedModel(REAL_MODELS[job], ModelSource(REAL_MODELS[job].location))
            for job in (Job.ASKER, Job.ADVISER)
        }
        reason: Reason = "plan_real_chosen" if settings.models == "real" else "plan_gpu"
    else:
        models = demonstration_models()
        reason = "plan_demo_chosen" if settings.models == "demo" else "plan_no_gpu"
    for job, source in named.items():
        models[job] = PlannedModel(_named_spec(job, source), source)
    may_fall_back = settings.models == "auto" and not named
    return ModelPlan(models, "plan_named" if named else reason, may_fall_back)


def _named_spec(job: Job, source: ModelSource) -> ModelSpec:
    """Describe a model the owner named: a published one by its repo id, another by the last part of its path."""
    for spec in (*REAL_MODELS.values(), *DEMONSTRATION_MODELS.values()):
        if spec.location == source.location and spec.job == job:
            return spec
    name = source.location.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]
    return replace(REAL_MODELS[job], name=name, location=source.location, licence="", size=None)
