"""Which models to run, and at which precision: a pure decision from the settings and the machine, with its reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from bianque.manager.catalogue import describe_source
from bianque.manager.memory import Machine
from bianque.manager.precision import MemoryPlan, in_gb, needed_bytes, plan_memory
from bianque.manager.registry import DEMONSTRATION_MODELS, REAL_MODELS, Job, ModelSpec, Precision
from bianque.manager.residents import Key
from bianque.settings import ModelSource, PrecisionChoice, Settings
from bianque.texts import Language, text

Reason = Literal["plan_demo_chosen", "plan_no_gpu", "plan_gpu", "plan_real_chosen", "plan_named"]

GROUPS: tuple[tuple[Job, ...], ...] = ((Job.ASKER, Job.ADVISER), (Job.LISTENER,))
"""Jobs that are needed at once; the joint mode needs two. Models of different groups may take turns in memory."""


@dataclass(frozen=True)
class PlannedModel:
    """One model to load.

    Attributes:
        spec: what it is.
        source: the repo or folder and revision to take it from.
        precision: of its weights; fp16 until memory has been planned.
        visitors: served at once.
    """

    spec: ModelSpec
    source: ModelSource
    precision: Precision = "fp16"
    visitors: int = 1

    @property
    def key(self) -> Key:
        """What tells it apart in memory; jobs whose models have equal keys share one."""
        return (self.source.location, self.source.revision, self.precision, self.visitors)

    def needed_bytes(self, machine: Machine) -> int:
        """Return what it takes of the device: weights and KV caches."""
        return needed_bytes(self.spec, self.precision, machine.kind, self.visitors)


@dataclass(frozen=True)
class ModelPlan:
    """What to load.

    Attributes:
        models: by job; a job without a model is absent.
        reason: entry of the translation table that says why.
        may_fall_back: whether the demonstration models may stand in when a download fails. Models that the owner
            named are never replaced silently.
        memory: of the first group of jobs, once planned.
    """

    models: Mapping[Job, PlannedModel]
    reason: Reason
    may_fall_back: bool
    memory: MemoryPlan | None = None

    @property
    def is_demonstration(self) -> bool:
        """Whether demonstration models answer in any mode."""
        return any(planned.spec.is_demonstration for planned in self.models.values())


def demonstration_models() -> dict[Job, PlannedModel]:
    """Return the models that travel with the project."""
    return {job: PlannedModel(spec, ModelSource(spec.location)) for job, spec in DEMONSTRATION_MODELS.items()}


def choose_models(settings: Settings, machine: Machine) -> ModelPlan:
    """Choose the models: those the owner named, else the real ones on a GPU, else the demonstration ones.

    SoulChat is a second model of 6.2 B parameters that most visitors never ask for, so of the real models it is only
    taken when named.
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
    wants_real = settings.models == "real" or (settings.models == "auto" and machine.has_gpu)
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
        spec, source = describe_source(source, job)
        models[job] = PlannedModel(spec, source)
    may_fall_back = settings.models == "auto" and not named
    return ModelPlan(models, "plan_named" if named else reason, may_fall_back)


def plan_precisions(
    plan: ModelPlan, machine: Machine, *, visitors: int, requested: PrecisionChoice = "auto", limit_bytes: int = 0
) -> ModelPlan:
    """Return the plan with a precision and a number of visitors for every model.

    Models of one group have to fit together; those of another group may take their turns.

    Raises:
        SettingsError: if the precision asked for is not possible on the device, or not even the lowest fits.
    """
    models = dict(plan.models)
    first: MemoryPlan | None = None
    chosen: dict[ModelSource, PlannedModel] = {}
    for group in GROUPS:
        sources = dict.fromkeys(models[job].source for job in group if job in models)
        new = {source: next(each for each in models.values() if each.source == source) for source in sources}
        new = {source: planned for source, planned in new.items() if source not in chosen}
        if not new:
            continue
        specs = [planned.spec for planned in new.values()]
        memory = plan_memory(specs, machine, visitors=visitors, requested=requested, limit_bytes=limit_bytes)
        first = first or memory
        for planned, precision in zip(new.values(), memory.precisions, strict=True):
            chosen[planned.source] = replace(planned, precision=precision, visitors=memory.visitors)
    for job, planned in models.items():
        models[job] = replace(chosen[planned.source], spec=planned.spec)
    return replace(plan, models=models, memory=first)


def explain_memory(plan: ModelPlan, machine: Machine, requested: str, language: Language) -> str:
    """Return the sentence that says which precision was chosen and why; empty before memory has been planned."""
    memory = plan.memory
    if memory is None:
        return ""
    models = ", ".join(dict.fromkeys(f"{each.spec.name} {each.precision}" for each in plan.models.values()))
    return text(
        memory.reason,
        language,
        device=machine.name,
        free=in_gb(machine.device_bytes),
        budget=in_gb(memory.budget_bytes),
        models=models,
        visitors=memory.visitors,
        needed=in_gb(memory.needed_bytes),
        better=in_gb(memory.better_bytes),
        asked=requested,
    )
