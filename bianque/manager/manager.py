"""Loads the planned models in the background, hands them out, and keeps them within the memory there is.

The page is usable while models load: `statuses` says how far each one is, `wait_for` lets a request wait for one,
`get` raises until it is there. One model is loaded at a time. A model that takes another's place leaves that one
serving until it is ready itself, and when it fails.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from bianque.errors import BianQueError, QueueFullError, SettingsError
from bianque.manager.changes import ModelChanges, as_error
from bianque.manager.download.snapshot import resolve_snapshot
from bianque.manager.loader import LoadedModel, load_model
from bianque.manager.loading import ModelLoading
from bianque.manager.memory import Machine, probe_machine
from bianque.manager.plan import ModelPlan, choose_models, demonstration_models, explain_memory, plan_precisions
from bianque.manager.precision import GB
from bianque.manager.registry import Job, ModelSpec
from bianque.manager.serving import Serving, unavailable
from bianque.manager.status import ModelStatus
from bianque.settings import ModelSource, PrecisionChoice, Settings

logger = logging.getLogger(__name__)

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
        self._probe = probe
        self._load = load
        self._resolve = resolve
        self._serving = Serving()
        self._changed = self._serving.changed
        self._turn = threading.Lock()  # held by whoever loads or unloads
        self._cancelled = threading.Event()
        self._changes: ModelChanges | None = None
        self._fallback_error: BianQueError | None = None
        self._has_started = False
        self._num_tasks = 0
        self._default_threads = 0
        self._waiting: Counter[Job] = Counter()

    # ------------------------------------------------------------------ state

    def start(self) -> None:
        """Begin to load in a background thread; a second call does nothing."""
        with self._changed:
            if not self._has_started:
                self._has_started = True
                self._spawn(self._load_planned)

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until nothing is loading any more; return whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: self.is_settled, timeout_seconds)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is loading any more: every model is ready, failed, or waits to be asked for."""
        with self._changed:
            return self._has_started and not self._num_tasks

    @property
    def plan(self) -> ModelPlan | None:
        """The plan in force, or None until the machine has been probed."""
        return self._serving.plan

    @property
    def fallback_error(self) -> BianQueError | None:
        """Why the demonstration models stand in for the real ones, if they do."""
        return self._fallback_error

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Return the state of every planned model, and of one that is about to take another's place."""
        return self._serving.statuses()

    def spec(self, job: Job) -> ModelSpec | None:
        """Return what is planned for `job`, loaded or not; None without a plan or a model for it."""
        planned = self._serving.planned(job)
        return planned.spec if planned else None

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
                self._spawn(partial(self._try, job))
            self._changed.wait(UPDATE_SECONDS)
            return self._serving.status(job) or ModelStatus(job, job.value, "absent")

    def _unavailable(self, job: Job) -> BianQueError:
        return unavailable(self._serving.status(job), job, is_planned=self._serving.plan is not None)

    # ------------------------------------------------------------------ load, unload, switch

    def load(self, job: Job) -> None:
        """Load the model planned for `job` and wait for it; does nothing if it is in memory.

        Raises:
            BianQueError: if it cannot be loaded.
        """
        with self._task():
            self._wait_probed()
            failure = self._try(job)
        if failure is not None:
            raise failure
        self.get(job)

    def unload(self, job: Job) -> None:
        """Unload the model of `job` once its replies are written; the next request for it loads it again.

        Raises:
            ModelUnavailableError: if it stays in use.
        """
        self._check_not_fixed()
        with self._task(), self._turn:
            self._serving.unload(job)

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
        with self._task():
            changes = self._wait_probed()
            with self._turn:
                changes.switch(job, source, precision, visitors=self._settings.num_slots)
                self._set_threads()
        status = self._serving.status(job)
        assert status is not None  # it serves
        return status

    def shutdown(self) -> None:
        """Stop downloads and every engine; replies in progress end with an error."""
        self._cancelled.set()
        self._serving.unload_all()

    def _check_not_fixed(self) -> None:
        if self._settings.is_zero_gpu:
            raise SettingsError("models_are_fixed")

    # ------------------------------------------------------------------ threads

    def _load_planned(self) -> None:
        """Look at the machine, plan, and load; the first thread's body."""
        machine, failure = Machine("cpu", "CPU", 0, 0), None
        try:
            machine = self._probe(self._settings.device)
        except Exception as error:
            failure = as_error("the machine", error)
        loading = ModelLoading(self._settings, machine, self._resolve, self._load, self._cancelled)
        with self._changed:
            self._changes = ModelChanges(self._serving, loading, self._settings.memory_gb * GB)
            self._changed.notify_all()
        plan = choose_models(self._settings, machine)
        if failure is not None:
            self._fail_all(plan, failure)
            return
        self._load_plan(plan)
        failure = next((status.error for status in self.statuses() if status.state == "failed"), None)
        if failure and plan.may_fall_back and not plan.is_demonstration:
            logger.warning("%s Falling back to the demonstration models.", failure)
            self._serving.unload_all()
            self._fallback_error = failure
            self._load_plan(replace(plan, models=demonstration_models()))

    def _load_plan(self, plan: ModelPlan) -> None:
        """Choose precisions and load what fits at once; the rest waits to be asked for."""
        settings, changes = self._settings, self._wait_probed()
        machine = changes.loading.machine
        try:
            plan = plan_precisions(
                plan,
                machine,
                visitors=settings.num_slots,
                requested=settings.precision,
                limit_bytes=changes.limit_bytes,
            )
        except SettingsError as error:
            logger.error("%s", error)
            self._fail_all(plan, error)
            return
        self._serving.adopt(plan)
        self._set_threads()
        names = ", ".join(f"{job.value}={planned.source.location}" for job, planned in plan.models.items())
        logger.info("model plan %s: %s", plan.reason, names)
        logger.info("%s", explain_memory(plan, machine, settings.precision, "en"))
        for job, planned in plan.models.items():
            if self._serving.has_room(planned.needed_bytes(machine), changes.budget()):
                self._try(job)

    def _fail_all(self, plan: ModelPlan, error: BianQueError) -> None:
        self._serving.adopt(plan)
        for job in plan.models:
            self._serving.update(job, state="failed", error=error)

    def _try(self, job: Job) -> BianQueError | None:
        """Bring the model of `job` into memory unless it is there; return what prevents it, which its state tells."""
        with self._turn:
            planned = self._serving.planned(job)
            if planned is None or self._serving.get(job) is not None:
                return None
            try:
                self._wait_probed().bring(job)
                return None
            except Exception as error:
                failure = as_error(planned.spec.name, error)
                # Models that stayed in use will not be so for ever: the next request tries again.
                is_final = failure.key != "models_in_use"
                state = {"state": "failed", "error": failure} if is_final else {"state": "absent"}
                self._serving.update(job, fraction=None, seconds_left=None, **state)
                return failure

    def _set_threads(self) -> None:
        """Use the threads asked for; one where all are demonstration models, whose steps are too short to share.

        On two busy cores, two threads that wait for each other made a decode step of these models ten times slower.
        """
        import torch

        self._default_threads = self._default_threads or torch.get_num_threads()
        plan = self._serving.plan
        is_small = plan is not None and all(planned.spec.is_demonstration for planned in plan.models.values())
        torch.set_num_threads(self._settings.num_threads or (1 if is_small else self._default_threads))

    def _wait_probed(self) -> ModelChanges:
        """Wait until the machine has been looked at."""
        self.start()
        with self._changed:
            self._changed.wait_for(lambda: self._changes is not None)
            assert self._changes is not None
            return self._changes

    def _spawn(self, work: Callable[[], object]) -> None:
        """Do work in a thread of its own; it counts as a task at once."""
        task = self._task()
        task.__enter__()

        def run() -> None:
            try:
                work()
            finally:
                task.__exit__(None, None, None)

        threading.Thread(target=run, name="model-loader", daemon=True).start()

    @contextmanager
    def _task(self) -> Iterator[None]:
        """Count a piece of work, so that whoever looks knows that states may change."""
        with self._changed:
            self._num_tasks += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_tasks -= 1
                self._changed.notify_all()
