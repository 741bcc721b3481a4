"""Which model serves which job: the plan in force, how far each model is, and what is in memory for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from bianque.errors import BianQueError, ModelUnavailableError
from bianque.manager.catalogue import describe_folder
from bianque.manager.loader import LoadedModel
from bianque.manager.plan import GROUPS, ModelPlan, PlannedModel
from bianque.manager.registry import Job
from bianque.manager.residents import Key, NoRoomError, Resident, Residents, release_memory
from bianque.manager.status import ModelStatus

DRAIN_SECONDS = 600.0
"""How long a model that has to go may finish the replies it is writing; the longest reply takes minutes on a CPU."""


class Serving:
    """The state of all models, for any number of threads; `changed` wakes whoever waits for a state."""

    def __init__(self) -> None:
        """Begin without a plan."""
        self.changed = threading.Condition()
        self.plan: ModelPlan | None = None
        self.incoming: ModelStatus | None = None
        self._statuses: dict[Job, ModelStatus] = {}
        self._served: dict[Job, tuple[LoadedModel, Resident]] = {}
        self._residents = Residents()
        self._is_closed = False

    # ------------------------------------------------------------------ plan and states

    def adopt(self, plan: ModelPlan) -> None:
        """Put a plan in force, of which nothing is loaded yet."""
        with self.changed:
            self.plan = plan
            self._served.clear()
            self._statuses = {job: _absent(job, planned) for job, planned in plan.models.items()}
            self.changed.notify_all()

    @property
    def models(self) -> Mapping[Job, PlannedModel]:
        """The models planned, by job; none without a plan."""
        with self.changed:
            return self.plan.models if self.plan else {}

    def planned(self, job: Job) -> PlannedModel | None:
        """Return the model planned for `job`, loaded or not."""
        return self.models.get(job)

    def replan(self, job: Job, planned: PlannedModel) -> None:
        """Put another model in the place of the one planned for `job`."""
        with self.changed:
            assert self.plan is not None
            self.plan = replace(self.plan, models={**self.plan.models, job: planned}, reason="plan_named")
            self._served.pop(job, None)
            self._statuses[job] = _absent(job, planned)

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Return the state of every planned model, and of one that is about to take another's place."""
        with self.changed:
            return (*self._statuses.values(), *([self.incoming] if self.incoming else []))

    def status(self, job: Job) -> ModelStatus | None:
        """Return the state of the model planned for `job`."""
        with self.changed:
            return self._statuses.get(job)

    def update(self, job: Job, **changes: object) -> None:
        """Change the state of a job's model, in all the jobs it has."""
        with self.changed:
            for other in self._jobs_of(job):
                self._statuses[other] = replace(self._statuses[other], **changes)  # type: ignore[arg-type]
            self.changed.notify_all()

    def update_incoming(self, **changes: object) -> None:
        """Change the state of the model that is about to take another's place."""
        with self.changed:
            if self.incoming is not None:
                self.incoming = replace(self.incoming, **changes)  # type: ignore[arg-type]
            self.changed.notify_all()

    def set_incoming(self, status: ModelStatus | None) -> None:
        """Begin or end to show a model that is about to take another's place."""
        with self.changed:
            self.incoming = status
            self.changed.notify_all()

    def _jobs_of(self, job: Job) -> list[Job]:
        assert self.plan is not None
        key = self.plan.models[job].key
        return [other for other, planned in self.plan.models.items() if planned.key == key]

    # ------------------------------------------------------------------ models in memory

    def get(self, job: Job) -> LoadedModel | None:
        """Return the model that serves `job` and count it as used now; None if none does."""
        with self.changed:
            if job not in self._served:
                return None
            loaded, resident = self._served[job]
            resident.last_used = time.monotonic()
            return loaded

    def find(self, key: Key) -> Resident | None:
        """Return a model in memory, whether or not it serves a job."""
        with self.changed:
            return self._residents.find(key)

    def install(self, job: Job, resident: Resident) -> None:
        """Let a model in memory serve `job`, and every other job for which it is planned.

        Raises:
            ModelUnavailableError: if all has ended meanwhile; the model's engine is then shut down.
        """
        with self.changed:
            if self._is_closed:
                resident.loaded.engine.shutdown()
                raise ModelUnavailableError("engine_stopped")
            assert self.plan is not None
            if self._residents.find(resident.key) is None:
                self._residents.add(resident)
            models = dict(self.plan.models)
            for other in self._jobs_of(job):
                spec = describe_folder(resident.folder, models[other].spec)
                models[other] = replace(models[other], spec=spec)
                self._served[other] = (replace(resident.loaded, spec=spec), resident)
                self._statuses[other] = replace(
                    _absent(other, models[other]),
                    state="ready",
                    device=resident.loaded.device,
                    precision=resident.precision,
                    lowered_from=resident.lowered_from,
                    revision=resident.revision,
                )
            self.plan = replace(self.plan, models=models)
            self.changed.notify_all()

    def keys_beside(self, job: Job) -> set[Key]:
        """Return what is needed at the same time as the model of `job`, itself left out."""
        with self.changed:
            group = next(group for group in GROUPS if job in group)
            return {self.models[other].key for other in group if other in self.models and other is not job}

    def bytes_of(self, keys: Collection[Key]) -> int:
        """Return what models take of the device, as far as they are in memory."""
        with self.changed:
            return sum(resident.num_bytes for resident in self._residents if resident.key in keys)

    def has_room(self, num_bytes: int, budget_bytes: int) -> bool:
        """Return whether so much fits without unloading anything."""
        with self.changed:
            return self._residents.used_bytes + num_bytes <= budget_bytes

    def make_room(self, name: str, num_bytes: int, budget_bytes: int, keep: Collection[Key]) -> None:
        """Unload what has to go for a model, the least recently used first, once their replies are written.

        Raises:
            NoRoomError: if there is no room even without all but `keep`.
            ModelUnavailableError: if one of them stays in use.
        """
        with self.changed:
            victims = self._residents.choose_victims(num_bytes, budget_bytes, keep)
            if victims is None:
                raise NoRoomError
            retired = self._retire(victims)
        if victims:
            self._drop(name, victims, retired)

    def unload(self, job: Job) -> None:
        """Unload the model that serves `job`, once its replies are written; does nothing if none does.

        Raises:
            ModelUnavailableError: if it stays in use.
        """
        with self.changed:
            if job not in self._served:
                return
            victims = [self._served[job][1]]
            retired = self._retire(victims)
        self._drop(victims[0].loaded.spec.name, victims, retired)

    def close(self) -> None:
        """End every engine, and let none that is still being loaded serve."""
        with self.changed:
            self._is_closed = True
        self.unload_all()

    def unload_all(self) -> None:
        """End every engine at once; replies in progress end with an error."""
        with self.changed:
            residents = list(self._residents)
            self._retire(residents)
            for resident in residents:
                self._residents.remove(resident)
        while residents:
            residents.pop().loaded.engine.shutdown()
        release_memory()

    def _retire(self, victims: Sequence[Resident]) -> dict[Job, tuple[LoadedModel, Resident]]:
        """Hand out no longer what is to go; return what it served. Needs the lock."""
        retired = {job: served for job, served in self._served.items() if served[1] in victims}
        for job in retired:
            del self._served[job]
            self._statuses[job] = replace(self._statuses[job], state="absent", device="")
        self.changed.notify_all()
        return retired

    def _drop(self, name: str, victims: list[Resident], retired: dict[Job, tuple[LoadedModel, Resident]]) -> None:
        """Shut retired models down and forget them; both arguments are emptied, so that nothing holds the weights."""
        if not all(victim.wait_idle(DRAIN_SECONDS) for victim in victims):
            with self.changed:
                if self._is_closed:
                    raise ModelUnavailableError("engine_stopped")
                self._served.update(retired)
                for job, (loaded, _) in retired.items():
                    self._statuses[job] = replace(self._statuses[job], state="ready", device=loaded.device)
                self.changed.notify_all()
            raise ModelUnavailableError("models_in_use", name=name)
        retired.clear()
        while victims:
            victims[-1].loaded.engine.shutdown()
            with self.changed:
                self._residents.remove(victims.pop())
        release_memory()


def unavailable(status: ModelStatus | None, job: Job, *, is_planned: bool) -> BianQueError:
    """Return the error that says why no model serves `job`."""
    if status is None and is_planned:
        return ModelUnavailableError("model_not_planned", job=job.value, variable=f"BIANQUE_{job.name}")
    if status is not None and status.state == "failed" and status.error is not None:
        reason_zh, reason_en = status.error.text("zh"), status.error.text("en")
        return ModelUnavailableError("model_unavailable", name=status.name, reason_zh=reason_zh, reason_en=reason_en)
    return ModelUnavailableError("model_loading", name=status.name if status else job.value)


def _absent(job: Job, planned: PlannedModel) -> ModelStatus:
    spec = planned.spec
    return ModelStatus(
        job, spec.name, "absent", spec.is_demonstration, precision=planned.precision, template=spec.template
    )
