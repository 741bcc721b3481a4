"""Hands out the models that serve, and lets them be loaded, unloaded and changed.

The page is usable while models load: `statuses` says how far each one is, `wait_for` lets a request wait for one,
`get` raises until it is there. One model is loaded at a time. A model that takes another's place leaves that one
serving until it is ready itself, and when it fails.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path

from bianque.errors import BianQueError, ModelUnavailableError, QueueFullError, SettingsError
from bianque.manager.changes import ModelChanges
from bianque.manager.download.snapshot import resolve_snapshot
from bianque.manager.loader import LoadedModel, load_model
from bianque.manager.memory import Machine, probe_machine
from bianque.manager.plan import ModelPlan, PlannedModel
from bianque.manager.precision import MemoryPlan
from bianque.manager.registry import Job, ModelSpec
from bianque.manager.serving import Serving, unavailable
from bianque.manager.startup import Startup
from bianque.manager.status import ModelStatus
from bianque.manager.tasks import Tasks
from bianque.settings import ModelSource, PrecisionChoice, Settings

UPDATE_SECONDS = 0.5
"""Longest time between two states that a waiting request is given."""


class ModelManager:
    """Owner of the loaded models. All methods may be called from any thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        probe: Callable[[str], Machine] = probe_machine,
        load: Callable[..., LoadedModel] = load_model,
        resolve: Callable[..., Path] = resolve_snapshot,
    ) -> None:
        """Store what is needed; nothing is imported or read before `start`.

        Args:
            settings: of the application.
            probe: `memory.probe_machine`; called in the loading thread, because importing torch takes seconds.
            load: `loader.load_model` or a stand-in with its signature.
            resolve: `snapshot.resolve_snapshot` or a stand-in with its signature.
        """
        self._settings = settings
        self._serving = Serving()
        self._changed = self._serving.changed
        self._startup = Startup(settings, self._serving, probe, load, resolve)
        self._tasks = Tasks(self._changed)
        self._has_started = False
        self._waiting: Counter[Job] = Counter()

    # ------------------------------------------------------------------ state

    def start(self) -> None:
        """Begin to load in a background thread; a second call does nothing.

        On ZeroGPU the calling thread loads, and this returns when it is done: the platform's stand-in for CUDA exists
        only in the thread that imported its package.
        """
        with self._changed:
            if self._has_started:
                return
            self._has_started = True
            if not self._settings.is_zero_gpu:
                self._tasks.spawn(self._startup.run)
                return
        with self._tasks.counted():
            self._startup.run()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until nothing is loading any more; return whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: self.is_settled, timeout_seconds)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is loading any more: every model is ready, failed, or waits to be asked for."""
        with self._changed:
            return self._has_started and self._tasks.is_idle

    @property
    def plan(self) -> ModelPlan | None:
        """The plan in force, or None until the machine has been probed."""
        return self._serving.plan

    @property
    def fallback_error(self) -> BianQueError | None:
        """Why the demonstration models stand in for the real ones, if they do."""
        return self._startup.fallback_error

    @property
    def settings(self) -> Settings:
        """The settings it was made with."""
        return self._settings

    @property
    def machine(self) -> Machine | None:
        """What models run on, or None until it has been looked at."""
        changes = self._startup.changes
        return changes.loading.machine if changes else None

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Return the state of every planned model, and of one that is about to take another's place."""
        return self._serving.statuses()

    def spec(self, job: Job) -> ModelSpec | None:
        """Return what is planned for `job`, loaded or not; None without a plan or a model for it."""
        planned = self.planned(job)
        return planned.spec if planned else None

    def planned(self, job: Job) -> PlannedModel | None:
        """Return the model planned for `job` with its source and precision; None as for `spec`."""
        return self._serving.planned(job)

    # ------------------------------------------------------------------ use

    def get(self, job: Job) -> LoadedModel:
        """Return the model for `job`.

        Raises:
            ModelUnavailableError: while it loads, when it failed, or when no model was planned for the job.
        """
        loaded = self._serving.get(job)
        if loaded is None:
            raise self._unavailable(job)
        return loaded

    def wait_for(self, job: Job) -> Generator[ModelStatus, None, LoadedModel]:
        """Yield how far the model for `job` is and return it once it is ready; one not in memory begins to load.

        Raises:
            ModelUnavailableError: when it failed, or when no model was planned for the job.
            QueueFullError: if more requests wait than `max_waiting`.
        """
        with self._changed:
            loaded = self._serving.get(job)
            if loaded is not None:
                return loaded
            if self._waiting[job] >= max(1, self._settings.max_waiting):
                raise QueueFullError("queue_full", waiting=self._waiting[job])
            self._waiting[job] += 1
        try:
            while isinstance(state := self._next_state(job), ModelStatus):
                yield state
            return state
        finally:
            with self._changed:
                self._waiting[job] -= 1

    def _next_state(self, job: Job) -> ModelStatus | LoadedModel:
        """Wait for a change and return the state, or the model once it is ready."""
        with self._changed:
            loaded = self._serving.get(job)
            if loaded is not None:
                return loaded
            status = self._serving.status(job)
            if (status is None and self._serving.plan is not None) or (status and status.state == "failed"):
                raise self._unavailable(job)
            if status is not None and self.is_settled:
                self._tasks.spawn(partial(self._startup.wait_probed().bring, job))
            self._changed.wait(UPDATE_SECONDS)
            return self._serving.status(job) or ModelStatus(job, job.value, "absent")

    def _unavailable(self, job: Job) -> BianQueError:
        return unavailable(self._serving.status(job), job, is_planned=self._serving.plan is not None)

    # ------------------------------------------------------------------ load, unload, switch

    def load(self, job: Job) -> None:
        """Load the model planned for `job` and wait for it; does nothing if it is in memory.

        Like `unload` and `switch`, it waits until the models of the start have been loaded.

        Raises:
            BianQueError: if it cannot be loaded.
        """
        with self._tasks.counted():
            failure = self._wait_started().bring(job)
        if failure is not None:
            raise failure
        self.get(job)

    def unload(self, job: Job) -> None:
        """Unload the model of `job` once its replies are written; the next request for it loads it again.

        Raises:
            ModelUnavailableError: if it stays in use.
        """
        self._check_not_fixed()
        with self._tasks.counted():
            self._wait_started().unload(job)

    def switch(self, job: Job, source: ModelSource, precision: PrecisionChoice = "auto") -> ModelStatus:
        """Let another model do `job`, and wait until it does; the present one serves until then.

        Where memory has no room for both, the present one goes first, and comes back if the other one fails.

        Args:
            job: which model to replace.
            source: a name of the catalogue, a Hub repo or a folder.
            precision: of its weights.

        Returns:
            The state of the new model.

        Raises:
            BianQueError: if it cannot be loaded; the present model then goes on.
        """
        self._check_not_fixed()
        with self._tasks.counted():
            self._wait_started().switch(job, source, precision, visitors=self._settings.num_slots)
        status = self._serving.status(job)
        assert status is not None  # it serves
        return status

    def begin_switch(self, job: Job, source: ModelSource, precision: PrecisionChoice = "auto") -> ModelStatus:
        """Begin to do in the background what `switch` does; return the state of the new model, one of `statuses`.

        Raises:
            SettingsError: on ZeroGPU.
            ModelUnavailableError: while something else is being loaded.
        """
        self._check_not_fixed()
        with self._changed:
            changes = self._startup.changes
            if changes is None or not self.is_settled:
                raise ModelUnavailableError("switch_running")
            status = changes.announce(job, source)
            self._tasks.spawn(partial(self._switch_quietly, changes, job, source, precision))
            return status

    def cancel_switch(self) -> bool:
        """Give up a switch that is under way: the present model goes on. Return False if there is none."""
        changes = self._startup.changes
        return changes is not None and changes.cancel_switch()

    def plan_beside(self, job: Job, spec: ModelSpec, precision: PrecisionChoice) -> MemoryPlan:
        """Return at which precision and for how many visitors a model would do `job`, beside what is needed with it.

        Raises:
            SettingsError: if it does not fit.
        """
        self.start()
        changes = self._startup.wait_probed()
        return changes.plan_beside(job, spec, precision, visitors=self._settings.num_slots)

    def shutdown(self) -> None:
        """Stop downloads and every engine; replies in progress end with an error."""
        self._startup.cancel()
        self._serving.close()

    def _check_not_fixed(self) -> None:
        if self._settings.is_zero_gpu:
            raise SettingsError("models_are_fixed")

    def _switch_quietly(
        self, changes: ModelChanges, job: Job, source: ModelSource, precision: PrecisionChoice
    ) -> None:
        try:
            changes.switch(job, source, precision, visitors=self._settings.num_slots)
        except BianQueError:
            pass  # logged, and told by the state

    def _wait_started(self) -> ModelChanges:
        """Return what changes models once the first loading is over: until then it may put another plan in force."""
        self.start()
        return self._startup.wait_over()
