"""How far each model is, for the page, the log and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bianque.errors import BianQueError
from bianque.manager.download.progress import format_bytes, format_seconds
from bianque.manager.registry import Job
from bianque.texts import Language, text

State = Literal["absent", "downloading", "loading", "ready", "failed"]


@dataclass(frozen=True)
class ModelStatus:
    """How far one model is.

    Attributes:
        job: what it is for.
        name: as shown to people.
        state: `absent` (waits for its turn, or until somebody asks for it), `downloading`, `loading`, `ready` or
            `failed`.
        is_demonstration: whether it is one of the small models made for demonstration.
        fraction: done of the download or of the loading, 0 to 1; None while nothing is known.
        bytes_per_second: of the download.
        seconds_left: of the download or the loading; None while nothing is known.
        device: where it runs, once ready.
        precision: of its weights, once known.
        lowered_from: the precision that did not fit into memory, if it had to be given up.
        revision: commit of its snapshot on the Hub, or the version of the project it travels with; empty for a folder
            of the owner's and until it is ready.
        template: name of the prompts it is given.
        error: why it failed.
    """

    job: Job
    name: str
    state: State
    is_demonstration: bool = False
    fraction: float | None = None
    bytes_per_second: float = 0.0
    seconds_left: float | None = None
    device: str = ""
    precision: str = ""
    lowered_from: str = ""
    revision: str = ""
    template: str = ""
    error: BianQueError | None = None

    @property
    def percent(self) -> int | None:
        """Whole percent done, rounded down so that 100 means done; None while nothing is known."""
        return None if self.fraction is None else int(100 * self.fraction)

    @property
    def is_busy(self) -> bool:
        """Whether it is being downloaded or loaded."""
        return self.state in ("downloading", "loading")

    def describe(self, language: Language) -> str:
        """Return the state in words: percent, rate and time left while busy, the reason once failed."""
        words = text(f"state_{self.state}", language)
        if self.is_busy and self.percent is not None:
            words += f" {self.percent} %"
        parts = [words]
        if self.state == "downloading" and self.bytes_per_second > 0:
            parts.append(f"{format_bytes(self.bytes_per_second)}/s")
        if self.is_busy and self.seconds_left is not None:
            parts.append(text("state_seconds_left", language, left=format_seconds(self.seconds_left)))
        if self.state == "ready":
            parts.append(f"{self.device} {self.precision}".strip())
        if self.error is not None:
            parts.append(self.error.text(language))
        if self.lowered_from:
            parts.append(text("precision_gave_way", language, asked=self.lowered_from, taken=self.precision))
        separator = "，" if language == "zh" else ", "
        return separator.join(part for part in parts if part)

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain values, with the reason of a failure in both languages."""
        return {
            "job": self.job.value,
            "name": self.name,
            "state": self.state,
            "percent": self.percent,
            "bytes_per_second": round(self.bytes_per_second),
            "seconds_left": None if self.seconds_left is None else round(self.seconds_left),
            "device": self.device,
            "precision": self.precision,
            "lowered_from": self.lowered_from,
            "revision": self.revision,
            "template": self.template,
            "is_demonstration": self.is_demonstration,
            "text": {language: self.describe(language) for language in ("zh", "en")},
        }


def without_repeats(statuses: Mapping[Job, ModelStatus] | tuple[ModelStatus, ...]) -> tuple[ModelStatus, ...]:
    """Return one status for each model: one that does several jobs is the same in all of them."""
    values = statuses.values() if isinstance(statuses, Mapping) else statuses
    return tuple({(status.name, status.state, status.precision): status for status in values}.values())
