"""What changes the models in memory, one change at a time: one is brought, unloaded, or takes another one's place."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import partial

from bianque.errors import BianQueError, ModelUnavailableError
from bianque.manager.catalogue import describe_source
from bianque.manager.loading import ModelLoading
from bianque.manager.plan import PlannedModel
from bianque.manager.precision import MemoryPlan, budget_bytes, plan_memory
from bianque.manager.registry import Job, ModelSpec
from bianque.manager.residents import Key, NoRoomError
from bianque.manager.serving import Serving
from bianque.manager.status import ModelStatus
from bianque.manager.threads import CpuThreads
from bianque.settings import ModelSource, PrecisionChoice

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelChanges:
    """Changes to what is in memory; each waits for the one before. Safe from any thread.

    Attributes:
        serving: the state that is changed.
        loading: how models come into memory.
        limit_bytes: the owner's own limit of memory; 0 for none.
        threads: set anew where other models serve.
    """

    serving: Serving
    loading: ModelLoading
    limit_bytes: int
    threads: CpuThreads
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def bring(self, job: Job) -> BianQueError | None:
        """Bring the model of `job` into memory unless it is there; return what prevents it, which its state tells."""
        with self._turn:
            planned = self.serving.planned(job)
            if planned is None or self.serving.get(job) is not None:
                return None
            try:
                self._bring(job)
                return None
            except Exception as error:
                failure = as_error(planned.spec.name, error)
                # Models that stayed in use will not be so for ever: the next request tries again.
                is_final = failure.key != "models_in_use"
                state = {"state": "failed", "error": failure} if is_final else {"state": "absent"}
                self.serving.update(job, fraction=None, seconds_left=None, **state)
                return failure

    def unload(self, job: Job) -> None:
        """Unload the model of `job` once its replies are written.

        Raises:
            ModelUnavailableError: if it stays in use.
        """
        with self._turn:
            self.serving.unload(job)

    def switch(self, job: Job, source: ModelSource, precision: PrecisionChoice, *, visitors: int) -> None:
        """Let another model do `job`; when it cannot be loaded, the present one goes on.

        Raises:
            BianQueError: if it cannot be loaded.
        """
        with self._turn:
            try:
                self._switch(job, source, precision, visitors)
            finally:
                self.threads.adapt(self.serving.models)
                if not self.loading.cancelled.is_set():
                    self._stop.clear()

    def cancel_switch(self) -> bool:
        """Give up a switch whose model does not serve yet, soon after; return False if there is none.

        What has been downloaded stays for the next time. A model that is being put in place at this moment still is.
        """
        with self.serving.changed:
            incoming = self.serving.incoming
            if incoming is None or incoming.state == "failed":
                return False
            self._stop.set()
            return True

    def stop(self) -> None:
        """Give up a switch and begin none any more: the application ends."""
        self._stop.set()

    def announce(self, job: Job, source: ModelSource) -> ModelStatus:
        """Show that another model is about to do `job`, and return its state."""
        spec, _ = describe_source(source, job)
        status = ModelStatus(job, spec.name, "absent", spec.is_demonstration)
        self.serving.set_incoming(status)
        return status

    def _bring(self, job: Job) -> None:
        """Load the model planned for `job`, or share one that is in memory."""
        planned = self.serving.planned(job)
        assert planned is not None
        resident = self.serving.find(planned.key)
        if resident is None:
            tell = partial(self.serving.update, job)
            folder, described = self.loading.fetch(planned, tell)
            keep = self.serving.keys_beside(job)
            make_room = partial(self._make_room, described, keep)
            resident = self.loading.load_at_best(folder, described, tell, make_room)
        self.serving.install(job, resident)

    def _switch(self, job: Job, source: ModelSource, precision: PrecisionChoice, visitors: int) -> None:
        was_ready = (status := self.serving.status(job)) is not None and status.state == "ready"
        spec, source = describe_source(source, job)
        planned = PlannedModel(spec, source)
        self.announce(job, source)
        try:
            memory = self.plan_beside(job, spec, precision, visitors=visitors)
            planned = replace(planned, precision=memory.precisions[0], visitors=memory.visitors)
            resident = self.serving.find(planned.key)
            if resident is None:
                loading = replace(self.loading, cancelled=self._stop)
                folder, planned = loading.fetch(planned, self.serving.update_incoming)
                # An engine counts its threads when it is made.
                self.threads.adapt({**self.serving.models, job: planned})
                make_room = partial(self._make_room_for_successor, planned, job)
                resident = loading.load_at_best(folder, planned, self._tell_or_stop, make_room)
        except Exception as error:
            failure = _cancelled(spec.name) if self._stop.is_set() else as_error(spec.name, error)
            self.serving.update_incoming(state="failed", error=failure)
            # What had not been in memory need not be now: bringing it might push out what serves.
            if was_ready and self.serving.get(job) is None:
                self._bring_back(job)
            raise failure from error
        with self.serving.changed:  # nobody may look in between, when neither of the two serves
            self.serving.set_incoming(None)
            self.serving.replan(job, planned)
            self.serving.install(job, resident)
        logger.info("%s now serves the %s at %s", planned.spec.name, job.value, resident.precision)

    def _tell_or_stop(self, **changes: object) -> None:
        """Tell how far the reading of weights is, which has no other place where it can be ended."""
        if self._stop.is_set():
            raise ModelUnavailableError("switch_cancelled")
        self.serving.update_incoming(**changes)

    def budget(self, *extra: PlannedModel) -> int:
        """Return what all models may take of the device together."""
        specs = [planned.spec for planned in (*self.serving.models.values(), *extra)]
        return budget_bytes(specs, self.loading.machine, self.limit_bytes)

    def plan_beside(self, job: Job, spec: ModelSpec, precision: PrecisionChoice, *, visitors: int) -> MemoryPlan:
        """Choose a precision for a model that is to do `job`, beside those that are needed at the same time.

        Raises:
            SettingsError: if it does not fit; see `plan_memory`.
        """
        taken = self.serving.bytes_of(self.serving.keys_beside(job))
        machine = self.loading.machine
        return plan_memory(
            [spec],
            replace(machine, device_bytes=max(0, machine.device_bytes - taken)),
            visitors=visitors,
            requested=precision,
            limit_bytes=max(1, self.limit_bytes - taken) if self.limit_bytes else 0,
        )

    def _make_room(self, planned: PlannedModel, keep: Collection[Key], num_bytes: int) -> None:
        self.serving.make_room(planned.spec.name, num_bytes, self.budget(planned), keep)

    def _make_room_for_successor(self, planned: PlannedModel, job: Job, num_bytes: int) -> None:
        """Make room and leave the present model alone if possible."""
        before = self.serving.planned(job)
        keep = self.serving.keys_beside(job)
        try:
            self._make_room(planned, {*keep, *([before.key] if before else [])}, num_bytes)
        except NoRoomError:
            self._make_room(planned, keep, num_bytes)

    def _bring_back(self, job: Job) -> None:
        try:
            self._bring(job)
        except Exception as error:
            planned = self.serving.planned(job)
            assert planned is not None
            self.serving.update(job, state="failed", error=as_error(planned.spec.name, error))


def _cancelled(name: str) -> BianQueError:
    logger.info("%s: its taking over was cancelled", name)
    return ModelUnavailableError("switch_cancelled")


def as_error(name: str, error: Exception) -> BianQueError:
    """Return what people are told about an error, and log it: a library's own must end as a sentence as well."""
    if isinstance(error, BianQueError):
        logger.error("%s: %s", name, error)
        return error
    logger.error("%s could not be loaded", name, exc_info=error)
    lines = str(error).strip().splitlines()
    return ModelUnavailableError("load_failed", reason=f"{type(error).__name__}: {lines[0][:200] if lines else ''}")
