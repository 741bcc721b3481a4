"""The choice of a model and a precision while the application runs: what is offered for a job, and the change.

Only what is listed here can be chosen: the published model and the small one for the job, the one the owner named, and
the one that serves. Nobody can make the machine fetch anything else. Whether people may choose at all is the owner's
decision (`Settings.may_switch_models`), because everybody is served by the same models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bianque.errors import BianQueError, ModelUnavailableError, SettingsError
from bianque.manager.catalogue import describe_source
from bianque.manager.download.snapshot import OnDisk, snapshot_on_disk
from bianque.manager.manager import ModelManager
from bianque.manager.memory import DeviceKind
from bianque.manager.precision import GB, in_gb, needed_bytes
from bianque.manager.registry import DEMONSTRATION_MODELS, REAL_MODELS, Job, ModelSpec, Precision
from bianque.manager.status import ModelStatus
from bianque.settings import ModelSource, PrecisionChoice

OFFERED: dict[DeviceKind, tuple[Precision, ...]] = {
    "cuda": ("fp16", "bf16", "int8", "int4"),
    "cpu": ("fp32", "int8", "int4"),
    "mps": ("fp16",),
}
"""Precisions worth choosing on each device, highest first: 16-bit arithmetic is slower than int8 on a CPU."""


@dataclass(frozen=True)
class PrecisionOffer:
    """One precision of one model.

    Attributes:
        precision: of the weights.
        needed_bytes: weights and the KV caches of `visitors`; of one visitor where it does not fit.
        visitors: served at once; 0 if it does not fit.
        obstacle: why it cannot be chosen; None if it can.
    """

    precision: Precision
    needed_bytes: int
    visitors: int
    obstacle: BianQueError | None

    @property
    def needed_gb(self) -> float:
        """`needed_bytes` in GB (10^9 bytes)."""
        return self.needed_bytes / GB

    @property
    def fits(self) -> bool:
        """Whether it can be chosen."""
        return self.obstacle is None


@dataclass(frozen=True)
class ModelOffer:
    """One model that can do a job.

    Attributes:
        job: what it would do.
        name: as shown to people, and what `ModelSwitcher.switch` takes.
        source: where its files come from.
        licence: as stated on its card; empty if nothing is known.
        is_demonstration: whether it is one of the small models made for demonstration.
        precisions: what it takes at each, highest first. Estimates for a model whose files are not here.
        on_disk: how much of its files is here; what is not has to be downloaded.
        is_planned: whether it is the one that does the job, or will once it is loaded.
        status: how far it is, if it does the job, or is about to or failed to take the job over; else None.
    """

    job: Job
    name: str
    source: ModelSource
    licence: str
    is_demonstration: bool
    precisions: tuple[PrecisionOffer, ...]
    on_disk: OnDisk
    is_planned: bool
    status: ModelStatus | None

    @property
    def fits(self) -> bool:
        """Whether it can be chosen at any precision."""
        return any(choice.fits for choice in self.precisions)


class ModelSwitcher:
    """Offers models and changes them in the background. All methods may be called from any thread, and return soon."""

    def __init__(self, manager: ModelManager) -> None:
        """Store the manager, which decides and reports everything."""
        self._manager = manager

    @property
    def refusal(self) -> BianQueError | None:
        """Why nothing can be changed, now or at all; None if a change may begin."""
        settings = self._manager.settings
        if settings.is_zero_gpu:
            return SettingsError("models_are_fixed")
        if not settings.may_switch_models:
            return SettingsError("switch_not_allowed")
        return None if self._manager.is_settled else ModelUnavailableError("switch_running")

    @property
    def is_allowed(self) -> bool:
        """Whether people may choose at all; it does not change while the application runs."""
        settings = self._manager.settings
        return settings.may_switch_models and not settings.is_zero_gpu

    def offers(self, job: Job) -> tuple[ModelOffer, ...]:
        """Return what can do `job`, the planned model first; nothing until the machine has been looked at.

        Files of the models are looked for on disk; nothing is asked of a network.
        """
        if self._manager.machine is None:
            return ()
        offers: dict[str, ModelOffer] = {}
        for spec, source in self._candidates(job):
            if all(offer.source != source for offer in offers.values()):
                # Of two models with one name the first counts: the one that serves, or the owner's.
                offers.setdefault(spec.name, self._offer(job, spec, source))
        return tuple(offers.values())

    def switch(self, job: Job, name: str, precision: PrecisionChoice = "auto") -> ModelStatus:
        """Begin to let another model do `job`; the present one serves until then, and when it fails.

        Args:
            job: which model to replace.
            name: of one of the `offers`.
            precision: of its weights; `auto` is the best that fits.

        Returns:
            The state of the new model. How it goes on is in `ModelManager.statuses`: until it is ready there is one
            state more for the job, which stays when it fails, with the reason.

        Raises:
            SettingsError: if models may not be changed, this one is not offered, or it does not fit.
            ModelUnavailableError: if another one is being loaded.
        """
        if (refusal := self.refusal) is not None:
            raise refusal
        offers = {offer.name: offer for offer in self.offers(job)}
        offer = offers.get(name)
        if offer is None:
            raise SettingsError("model_not_offered", name=name[:80], offered=", ".join(offers))
        obstacle = _obstacle(offer, precision)
        if obstacle is not None:
            raise obstacle
        if offer.is_planned and offer.status is not None and offer.status.state == "ready":
            if precision in ("auto", offer.status.precision):
                return offer.status
        return self._manager.begin_switch(job, offer.source, precision)

    def cancel(self) -> None:
        """Give up a change that is under way; the present model goes on, and what was downloaded stays.

        Raises:
            SettingsError: if models may not be changed.
            ModelUnavailableError: if none is being changed, or the new one serves by now.
        """
        if not self.is_allowed and (refusal := self.refusal) is not None:
            raise refusal
        if not self._manager.cancel_switch():
            raise ModelUnavailableError("switch_over")

    def _candidates(self, job: Job) -> Iterator[tuple[ModelSpec, ModelSource]]:
        planned = self._manager.planned(job)
        if planned is not None:
            yield planned.spec, planned.source
        settings = self._manager.settings
        named = {Job.ASKER: settings.asker, Job.ADVISER: settings.adviser, Job.LISTENER: settings.listener}[job]
        if named is not None:
            yield describe_source(named, job)
        for spec in (REAL_MODELS[job], DEMONSTRATION_MODELS[job]):
            yield spec, ModelSource(spec.location)

    def _offer(self, job: Job, spec: ModelSpec, source: ModelSource) -> ModelOffer:
        planned = self._manager.planned(job)
        is_planned = planned is not None and planned.source == source
        states = [status for status in self._manager.statuses() if (status.job, status.name) == (job, spec.name)]
        return ModelOffer(
            job,
            spec.name,
            source,
            spec.licence,
            spec.is_demonstration,
            tuple(self._precisions(job, spec)),
            snapshot_on_disk(source)[0],
            is_planned,
            states[-1] if states else None,
        )

    def _precisions(self, job: Job, spec: ModelSpec) -> Iterator[PrecisionOffer]:
        machine = self._manager.machine
        assert machine is not None  # checked by `offers`
        for precision in OFFERED[machine.kind]:
            obstacle: BianQueError | None = None
            try:
                memory = self._manager.plan_beside(job, spec, precision)
                if memory.precisions[0] == precision:
                    yield PrecisionOffer(precision, memory.needed_bytes, memory.visitors, None)
                    continue
                needed, free = needed_bytes(spec, precision, machine.kind, 1), memory.budget_bytes
                obstacle = SettingsError(
                    "model_too_large", name=spec.name, precision=precision, needed=in_gb(needed), free=in_gb(free)
                )
            except SettingsError as error:
                obstacle = error
            yield PrecisionOffer(precision, needed_bytes(spec, precision, machine.kind, 1), 0, obstacle)


def _obstacle(offer: ModelOffer, precision: PrecisionChoice) -> BianQueError | None:
    """Return why a model cannot be chosen at a precision; None if it can."""
    if precision == "auto":
        return None if offer.fits else offer.precisions[-1].obstacle
    choices = {choice.precision: choice for choice in offer.precisions}
    if precision not in choices:
        possible = " / ".join(choices)
        return SettingsError("precision_not_offered", name=offer.name, precision=precision, possible=possible)
    return choices[precision].obstacle
