"""From one planned model to one in memory: fetch, look at, load, and one precision lower when memory runs out."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from bianque.errors import ModelUnavailableError, SnapshotError
from bianque.manager.adapters import base_source, is_adapter, read_adapter
from bianque.manager.catalogue import check_source, describe_folder
from bianque.manager.download.progress import Progress
from bianque.manager.loader import LoadedModel
from bianque.manager.memory import Machine
from bianque.manager.plan import PlannedModel
from bianque.manager.precision import ladder
from bianque.manager.residents import Resident, is_out_of_memory, release_memory
from bianque.settings import Settings

logger = logging.getLogger(__name__)

Tell = Callable[..., None]
"""Takes changes to a `ModelStatus` as keywords; may be called from any thread."""


@dataclass(frozen=True)
class ModelLoading:
    """How models come into memory on this machine.

    Attributes:
        settings: of the application.
        machine: what models run on.
        resolve: `snapshot.resolve_snapshot` or a stand-in with its signature.
        load: `loader.load_model` or a stand-in with its signature.
        cancelled: ends a download.
    """

    settings: Settings
    machine: Machine
    resolve: Callable[..., Path]
    load: Callable[..., LoadedModel]
    cancelled: threading.Event

    def fetch(self, planned: PlannedModel, tell: Tell) -> tuple[Path, PlannedModel]:
        """Return the folder of a model's files, downloaded if need be, and the model as its files describe it.

        Raises:
            SettingsError: if what was named can be no model.
            SnapshotError: if its files cannot be had or are of another architecture.
        """
        check_source(planned.source)

        def report(progress: Progress) -> None:
            if progress.done_bytes < progress.total_bytes:
                tell(
                    state="downloading",
                    fraction=progress.share,
                    bytes_per_second=progress.bytes_per_second,
                    seconds_left=progress.seconds_left,
                )

        try:
            folder = self.resolve(planned.source, report=report, cancelled=self.cancelled, family=planned.spec.family)
        except SnapshotError as error:
            # Of a model the owner named the family was a guess, which its configuration corrects.
            if error.key != "snapshot_wrong_architecture" or planned.spec.size is not None:
                raise
            describe_folder(Path(str(error.params["folder"])), planned.spec)
            folder = self.resolve(planned.source, report=report, cancelled=self.cancelled)
        if is_adapter(folder):
            base = base_source(read_adapter(folder))
            self.resolve(base, report=report, cancelled=self.cancelled)
        return folder, replace(planned, spec=describe_folder(folder, planned.spec))

    def load_at_best(
        self, folder: Path, planned: PlannedModel, tell: Tell, make_room: Callable[[int], None]
    ) -> Resident:
        """Load a model at the precision planned, or the next lower one that memory allows.

        Args:
            folder: of its files.
            planned: what it is.
            tell: receives the state.
            make_room: unloads what has to go for a number of bytes, or raises `residents.NoRoomError`.

        Raises:
            BianQueError: if it cannot be loaded; `memory_ran_out` when memory has no room for the lowest precision,
                `engine_stopped` when all has ended.
        """
        if self.cancelled.is_set():
            raise ModelUnavailableError("engine_stopped")
        for precision in ladder(planned.spec, self.machine.kind, planned.precision):
            attempt = replace(planned, precision=precision)
            lowered_from = "" if precision == planned.precision else planned.precision
            tell(state="loading", fraction=None, seconds_left=None, precision=precision, lowered_from=lowered_from)
            try:
                make_room(attempt.needed_bytes(self.machine))
                loaded = self._load_once(folder, attempt, tell)
                num_bytes = attempt.needed_bytes(self.machine)
                return Resident(planned.key, loaded, precision, num_bytes, folder, lowered_from)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                logger.warning("%s: memory ran out at %s", planned.spec.name, precision)
            release_memory()  # only here, because the error's traceback held on to what had been loaded
        raise ModelUnavailableError("memory_ran_out", name=planned.spec.name, precision=precision)

    def _load_once(self, folder: Path, planned: PlannedModel, tell: Tell) -> LoadedModel:
        started = time.monotonic()

        def report(done_bytes: int, total_bytes: int) -> None:
            fraction = done_bytes / total_bytes if total_bytes else 1.0
            elapsed = time.monotonic() - started
            tell(fraction=fraction, seconds_left=elapsed * (1 - fraction) / fraction if fraction else None)

        settings = replace(
            self.settings, device=self.machine.device, precision=planned.precision, num_slots=planned.visitors
        )
        has_cuda = self.machine.kind == "cuda"
        return self.load(folder, planned.spec, settings, has_cuda=has_cuda, report=report)
