"""The first loading: look at the machine, plan, load, and fall back to the demonstration models."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bianque.errors import BianQueError
from bianque.manager.changes import ModelChanges, as_error
from bianque.manager.loader import LoadedModel
from bianque.manager.loading import ModelLoading
from bianque.manager.memory import Machine
from bianque.manager.plan import ModelPlan, choose_models, demonstration_models, explain_memory, plan_precisions
from bianque.manager.precision import GB
from bianque.manager.serving import Serving
from bianque.manager.threads import CpuThreads
from bianque.settings import Settings

logger = logging.getLogger(__name__)


class Startup:
    """Brings the planned models into memory, once."""

    def __init__(
        self,
        settings: Settings,
        serving: Serving,
        probe: Callable[[str], Machine],
        load: Callable[..., LoadedModel],
        resolve: Callable[..., Path],
    ) -> None:
        """Store what is needed; nothing is imported or read before `run`.

        Args:
            settings: of the application.
            serving: the state that is changed.
            probe: `memory.probe_machine`; called in the loading thread, because importing torch takes seconds.
            load: `loader.load_model` or a stand-in with its signature.
            resolve: `snapshot.resolve_snapshot` or a stand-in with its signature.
        """
        self._settings = settings
        self._serving = serving
        self._probe = probe
        self._load = load
        self._resolve = resolve
        self._cancelled = threading.Event()
        self._threads = CpuThreads(settings.num_threads)
        self._is_over = False
        self.changes: ModelChanges | None = None
        self.fallback_error: BianQueError | None = None

    def wait_probed(self) -> ModelChanges:
        """Wait until the machine has been looked at and return what changes models on it; `run` must be under way."""
        with self._serving.changed:
            self._serving.changed.wait_for(lambda: self.changes is not None)
            assert self.changes is not None
            return self.changes

    def wait_over(self) -> ModelChanges:
        """Wait until `run` has ended, which must be under way, and return what changes models from then on."""
        with self._serving.changed:
            self._serving.changed.wait_for(lambda: self._is_over)
        return self.wait_probed()

    def cancel(self) -> None:
        """Stop downloads, now and later, and load nothing more."""
        self._cancelled.set()
        if self.changes is not None:
            self.changes.stop()

    def run(self) -> None:
        """Look at the machine, plan, and load."""
        try:
            self._run()
        finally:
            with self._serving.changed:
                self._is_over = True
                self._serving.changed.notify_all()

    def _run(self) -> None:
        machine, failure = Machine("cpu", "CPU", 0, 0), None
        try:
            machine = self._probe(self._settings.device)
        except Exception as error:
            failure = as_error("the machine", error)
        loading = ModelLoading(self._settings, machine, self._resolve, self._load, self._cancelled)
        changes = ModelChanges(self._serving, loading, self._settings.memory_gb * GB, self._threads)
        with self._serving.changed:
            self.changes = changes
            self._serving.changed.notify_all()
        try:
            plan = choose_models(self._settings, machine)
        except Exception as error:
            # Without a plan whoever waits for a model would wait for ever.
            failure = failure or as_error("the plan", error)
            plan = ModelPlan(demonstration_models(), "plan_named", may_fall_back=False)
        if failure is not None:
            self._fail_all(plan, failure)
            return
        self._load_plan(plan, changes)
        failure = next((status.error for status in self._serving.statuses() if status.state == "failed"), None)
        if failure and plan.may_fall_back and not plan.is_demonstration and not self._cancelled.is_set():
            logger.warning("%s Falling back to the demonstration models.", failure)
            self._serving.unload_all()
            self.fallback_error = failure
            self._load_plan(replace(plan, models=demonstration_models()), changes)

    def _load_plan(self, plan: ModelPlan, changes: ModelChanges) -> None:
        """Choose precisions and load what fits at once; the rest waits to be asked for."""
        settings, machine = self._settings, changes.loading.machine
        try:
            plan = plan_precisions(
                plan,
                machine,
                visitors=settings.num_slots,
                requested=settings.precision,
                limit_bytes=changes.limit_bytes,
            )
        except Exception as error:
            self._fail_all(plan, as_error("the plan", error))
            return
        self._serving.adopt(plan)
        self._threads.adapt(plan.models)
        names = ", ".join(f"{job.value}={planned.source.location}" for job, planned in plan.models.items())
        logger.info("model plan %s: %s", plan.reason, names)
        logger.info("%s", explain_memory(plan, machine, settings.precision, "en"))
        for job, planned in plan.models.items():
            if self._cancelled.is_set():
                return
            if self._serving.has_room(planned.needed_bytes(machine), changes.budget()):
                changes.bring(job)

    def _fail_all(self, plan: ModelPlan, error: BianQueError) -> None:
        self._serving.adopt(plan)
        for job in plan.models:
            self._serving.update(job, state="failed", error=error)
