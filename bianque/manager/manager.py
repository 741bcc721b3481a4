"""Loads the planned models in the background and hands them out.

The page is usable while models load: `status` says how far each one is, `get` raises until it is there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bianque.errors import BianQueError, ModelUnavailableError
from bianque.manager.loader import LoadedModel, load_model
from bianque.manager.plan import ModelPlan, PlannedModel, demonstration_models, plan_models
from bianque.manager.registry import Job, ModelSpec
from bianque.manager.snapshot import resolve_snapshot
from bianque.settings import Settings

logger = logging.getLogger(__name__)

State = Literal["waiting", "fetching", "loading", "ready", "failed"]


@dataclass(frozen=True)
class ModelStatus:
    """How far one model is.

    Attributes:
        job: what it is for.
        name: as shown to people.
        state: `waiting`, `fetching` (from the Hub), `loading`, `ready` or `failed`.
        is_demonstration: whether it is one of the small models made for demonstration.
        device: where it runs, once ready.
        dtype: of its weights, once ready.
        error: why it failed.
    """

    job: Job
    name: str
    state: State
    is_demonstration: bool
    device: str = ""
    dtype: str = ""
    error: BianQueError | None = None


def has_cuda() -> bool:
    """Whether torch sees a CUDA device."""
    import torch

    return torch.cuda.is_available()


class ModelManager:
    """Owner of the loaded models. All methods may be called from any thread."""

    def __init__(
        self,
        settings: Settings,
        *,
        probe_cuda: Callable[[], bool] = has_cuda,
        load: Callable[..., LoadedModel] = load_model,
    ) -> None:
        """Store what is needed; nothing is imported or read before `start`.

        Args:
            settings: of the application.
            probe_cuda: asks for a CUDA device; called in the loading thread, because importing torch takes seconds.
            load: `loader.load_model` or a stand-in with its signature.
        """
        self._settings = settings
        self._probe_cuda = probe_cuda
        self._load = load
        self._condition = threading.Condition()
        self._plan: ModelPlan | None = None
        self._statuses: dict[Job, ModelStatus] = {}
        self._loaded: dict[Job, LoadedModel] = {}
        self._is_settled = False
        self._fallback_error: BianQueError | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to load in a background thread; a second call does nothing."""
        with self._condition:
            if self._thread is None:
                self._thread = threading.Thread(target=self._load_all, name="model-loader", daemon=True)
                self._thread.start()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until every model is ready or failed; return whether that is so."""
        with self._condition:
            return self._condition.wait_for(lambda: self._is_settled, timeout_seconds)

    def get(self, job: Job) -> LoadedModel:
        """Return the model for `job`.

        Raises:
            ModelUnavailableError: while it loads, when it failed, or when no model was planned for the job.
        """
        with self._condition:
            if job in self._loaded:
                return self._loaded[job]
            status = self._statuses.get(job)
            if status is None and self._plan is not None:
                raise ModelUnavailableError("model_not_planned", job=job.value, variable=f"BIANQUE_{job.name}")
            if status is not None and status.state == "failed" and status.error is not None:
                raise ModelUnavailableError(
                    "model_unavailable",
                    name=status.name,
                    reason_zh=status.error.text("zh"),
                    reason_en=status.error.text("en"),
                ) from status.error
            raise ModelUnavailableError("model_loading", name=status.name if status else job.value)

    def spec(self, job: Job) -> ModelSpec | None:
        """Return what is planned for `job`, loaded or not; None without a plan or a model for it."""
        with self._condition:
            planned = self._plan.models.get(job) if self._plan else None
            return planned.spec if planned else None

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Return the state of every planned model."""
        with self._condition:
            return tuple(self._statuses.values())

    @property
    def plan(self) -> ModelPlan | None:
        """The plan in force, or None until the machine has been probed."""
        with self._condition:
            return self._plan

    @property
    def fallback_error(self) -> BianQueError | None:
        """Why the demonstration models stand in for the real ones, if they do."""
        with self._condition:
            return self._fallback_error

    @property
    def is_settled(self) -> bool:
        """Whether every planned model is ready or failed."""
        with self._condition:
            return self._is_settled

    def shutdown(self) -> None:
        """Stop every engine; replies in progress end with an error."""
        with self._condition:
            engines = {id(loaded.engine): loaded.engine for loaded in self._loaded.values()}
        for engine in engines.values():
            engine.shutdown()

    def _load_all(self) -> None:
        try:
            has_device = self._probe_cuda()
            plan = plan_models(self._settings, has_cuda=has_device)
            self._set_threads(plan)
            self._adopt(plan)
            self._load_plan(plan, has_cuda=has_device)
            failed = next((status.error for status in self.statuses() if status.state == "failed"), None)
            if failed and plan.may_fall_back and not plan.is_demonstration:
                logger.warning("%s Falling back to the demonstration models.", failed)
                self.shutdown()
                with self._condition:
                    self._fallback_error = failed
                    self._loaded.clear()
                fallback = replace(plan, models=demonstration_models())
                self._adopt(fallback)
                self._load_plan(fallback, has_cuda=has_device)
        finally:
            with self._condition:
                self._is_settled = True
                self._condition.notify_all()

    def _set_threads(self, plan: ModelPlan) -> None:
        """Use the threads asked for; one for demonstration models, whose steps are too short to share.

        On two busy cores, two threads that wait for each other made a decode step of these models ten times slower.
        """
        num_threads = self._settings.num_threads or (1 if plan.is_demonstration else 0)
        if num_threads:
            import torch

            torch.set_num_threads(num_threads)

    def _adopt(self, plan: ModelPlan) -> None:
        with self._condition:
            self._plan = plan
            self._statuses = {
                job: ModelStatus(job, planned.spec.name, "waiting", planned.spec.is_demonstration)
                for job, planned in plan.models.items()
            }
        names = ", ".join(f"{job.value}={planned.source.location}" for job, planned in plan.models.items())
        logger.info("model plan %s: %s", plan.reason, names)

    def _load_plan(self, plan: ModelPlan, *, has_cuda: bool) -> None:
        by_source: dict[tuple[str, str | None], LoadedModel] = {}
        for job, planned in plan.models.items():
            key = (planned.source.location, planned.source.revision)
            shared = by_source.get(key)
            if shared is not None and shared.spec.family == planned.spec.family:
                self._settle(job, replace(shared, spec=planned.spec))
                continue
            loaded = self._load_one(job, planned, has_cuda=has_cuda)
            if loaded is not None:
                by_source[key] = loaded

    def _load_one(self, job: Job, planned: PlannedModel, *, has_cuda: bool) -> LoadedModel | None:
        try:
            self._update(job, state="fetching")
            folder: Path = resolve_snapshot(planned.source)
            self._update(job, state="loading")
            loaded = self._load(folder, planned.spec, self._settings, has_cuda=has_cuda)
        except BianQueError as error:
            logger.error("%s: %s", planned.spec.name, error)
            self._update(job, state="failed", error=error)
            return None
        except Exception as error:
            # Whatever a library raises here must end as a state on the page, not as a thread that died unseen.
            logger.exception("%s could not be loaded", planned.spec.name)
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error) else ''}"
            failure = ModelUnavailableError("load_failed", reason=reason)
            self._update(job, state="failed", error=failure)
            return None
        self._settle(job, loaded)
        return loaded

    def _settle(self, job: Job, loaded: LoadedModel) -> None:
        with self._condition:
            self._loaded[job] = loaded
        self._update(job, state="ready", device=loaded.device, dtype=loaded.dtype)

    def _update(self, job: Job, **changes: object) -> None:
        with self._condition:
            self._statuses[job] = replace(self._statuses[job], **changes)  # type: ignore[arg-type]
            self._condition.notify_all()
