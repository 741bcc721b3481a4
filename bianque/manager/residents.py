"""The models that are in memory, and which of them goes first when another one needs the room."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bianque import __version__
from bianque.manager.download.hub_cache import COMMIT
from bianque.manager.loader import LoadedModel
from bianque.manager.registry import MINIS_FOLDER, Precision

GRACE_SECONDS = 1.0
"""A model handed out this short ago counts as in use: whoever has it is about to submit a request."""

Key = tuple[str, str | None, str, int]
"""What tells loaded models apart: location, revision, the precision planned, slots."""


class NoRoomError(MemoryError):
    """The budget has no room for a model, whatever goes."""


@dataclass
class Resident:
    """One model in memory.

    Attributes:
        key: what it is.
        loaded: the model and its engine.
        precision: of its weights; lower than the one planned when memory ran out.
        num_bytes: weights and KV cache on the device.
        folder: of its files.
        lowered_from: the precision planned, if memory had no room for it; else empty.
        last_used: `time.monotonic()` when it was handed out last.
    """

    key: Key
    loaded: LoadedModel
    precision: Precision
    num_bytes: int
    folder: Path
    lowered_from: str = ""
    last_used: float = field(default_factory=time.monotonic)

    @property
    def revision(self) -> str:
        """Commit of a snapshot in the Hub's cache, version of the project for what travels with it, else empty."""
        if self.folder.parent == MINIS_FOLDER:
            return f"bianque {__version__}"
        is_commit = self.folder.parent.name == "snapshots" and COMMIT.fullmatch(self.folder.name)
        return self.folder.name if is_commit else ""

    @property
    def is_in_use(self) -> bool:
        """Whether sequences run or wait, or are about to."""
        status = self.loaded.engine.status()
        return bool(status.num_running or status.num_waiting) or self._grace_left > 0

    @property
    def _grace_left(self) -> float:
        return self.last_used + GRACE_SECONDS - time.monotonic()

    def wait_idle(self, timeout_seconds: float) -> bool:
        """Wait until nothing uses it any more; return whether that is so. Nobody may hand it out meanwhile."""
        time.sleep(max(0.0, self._grace_left))
        return self.loaded.engine.wait_idle(timeout_seconds)


class Residents:
    """The models in memory. Not safe from several threads: the manager holds its lock."""

    def __init__(self) -> None:
        self._by_key: dict[Key, Resident] = {}

    def __iter__(self) -> Iterator[Resident]:
        return iter(tuple(self._by_key.values()))

    def find(self, key: Key) -> Resident | None:
        """Return the model with `key`, if it is in memory."""
        return self._by_key.get(key)

    def add(self, resident: Resident) -> None:
        """Count a model that has been loaded."""
        self._by_key[resident.key] = resident

    def remove(self, resident: Resident) -> None:
        """Count it no more; it may have gone already."""
        self._by_key.pop(resident.key, None)

    @property
    def used_bytes(self) -> int:
        """What all of them take of the device."""
        return sum(resident.num_bytes for resident in self._by_key.values())

    def choose_victims(self, needed_bytes: int, budget_bytes: int, keep: Collection[Key]) -> list[Resident] | None:
        """Return what has to go for `needed_bytes` more: idle ones first, of these the least recently used.

        Returns:
            None if there is no room even without all but `keep`.
        """
        candidates = [resident for resident in self if resident.key not in keep]
        candidates.sort(key=lambda resident: (resident.is_in_use, resident.last_used))
        missing = self.used_bytes + needed_bytes - budget_bytes
        victims = []
        while missing > 0:
            if not candidates:
                return None
            victims.append(candidates.pop(0))
            missing -= victims[-1].num_bytes
        return victims


def release_memory() -> None:
    """Give memory that nothing refers to any more back to the device."""
    gc.collect()
    # Another thread may be in the middle of importing torch, which takes seconds, when the program ends.
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is not None and getattr(cuda, "is_initialized", bool)():
        cuda.empty_cache()


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether memory ran out, also where another error was raised because of it."""
    while error is not None:
        if isinstance(error, MemoryError) or any(words in str(error) for words in _MEMORY_WORDS):
            return True
        error = error.__cause__ or error.__context__
    return False


# torch has no one exception for it: CUDA's is a RuntimeError of its own class, the CPU allocator's a plain one.
_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory", "Cannot allocate memory")
