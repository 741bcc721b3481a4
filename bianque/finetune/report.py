"""What a run did: losses, speed and memory as JSON, a page of Markdown and a picture of the curves."""

from __future__ import annotations

import json
import math
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bianque.corpus.plots import new_figure
from bianque.corpus.report import markdown_table
from bianque.finetune.data import DataReport


@dataclass
class FinetuneReport:
    """One run.

    Attributes:
        command: that made it.
        base: model and revision.
        options: hyperparameters.
        data: what became of each split.
        notes: of the preset.
        result: folder of the adapter or model.
        history: log of the Trainer, over all its starts.
        num_trained: parameters that were trained.
        num_parameters: of base and adapter together.
        steps: optimizer steps, over all starts.
        best_step: step of the weights that were kept; None if those of the last step were.
        seconds: of the last start, evaluation and saving included.
        tokens_per_second: of forward and backward passes of the last start, padding left out; of one device.
        num_tokens: of the last start.
        padding_share: of what went through the model.
        peak_memory_bytes: most that the process held: of the GPU where there is one, else of main memory.
        device: where it ran.
        versions: of the libraries.
    """

    command: str
    base: str
    options: Mapping[str, Any]
    data: Mapping[str, DataReport]
    notes: Sequence[str] = ()
    result: str = ""
    history: Sequence[Mapping[str, Any]] = ()
    num_trained: int = 0
    num_parameters: int = 0
    steps: int = 0
    best_step: int | None = None
    seconds: float = 0.0
    tokens_per_second: float = math.nan
    num_tokens: int = 0
    padding_share: float = math.nan
    peak_memory_bytes: int = 0
    device: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def train_losses(self) -> list[tuple[int, float]]:
        """(step, loss) of every log line, the mean since the one before."""
        return [(entry["step"], entry["loss"]) for entry in self.history if "loss" in entry]

    @property
    def validation_losses(self) -> list[tuple[int, float]]:
        """(step, loss) of every evaluation."""
        return [(entry["step"], entry["eval_loss"]) for entry in self.history if "eval_loss" in entry]

    def write(self, folder: Path) -> None:
        """Write `report.json`, `report.md` and `curves.png`."""
        values = {name: _finite(value) for name, value in asdict(self).items()}
        (folder / "report.json").write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", "utf-8")
        (folder / "report.md").write_text(self.markdown(), "utf-8")
        self.plot(folder / "curves.png")

    def markdown(self) -> str:
        """Return the report as a page."""
        lines = [f"# {Path(self.result).parent.name}", "", f"Made by `{self.command}`.", "", self.table(), ""]
        lines += [f"- {note}" for note in self.notes]
        lines += ["", *(f"- {name}: {value}" for name, value in self.options.items()), ""]
        return "\n".join(lines)

    def table(self) -> str:
        """Return the figures as a table."""
        train, validation = self.train_losses, self.validation_losses
        share = self.num_trained / self.num_parameters if self.num_parameters else math.nan
        rows: list[tuple[str, str]] = [
            ("base", self.base),
            *((f"samples: {name}", _samples(report)) for name, report in self.data.items()),
            ("trained parameters", f"{self.num_trained:,} of {self.num_parameters:,} ({share:.2%})"),
            ("steps", f"{self.steps:,}" + (f", best at {self.best_step:,}" if self.best_step else "")),
        ]
        if train:
            rows.append(("training loss", f"{train[0][1]:.4f} → {train[-1][1]:.4f}"))
        if validation:
            best = min(loss for _, loss in validation)
            rows.append(("validation loss", f"{validation[0][1]:.4f} → {validation[-1][1]:.4f}, best {best:.4f}"))
        rows += [
            ("time", f"{self.seconds:.0f} s"),
            ("speed", f"{self.tokens_per_second:.0f} tokens/s, padding {self.padding_share:.1%}"),
            ("peak memory", f"{self.peak_memory_bytes / 1e9:.2f} GB"),
            ("device", self.device),
            ("versions", ", ".join(f"{name} {version}" for name, version in self.versions.items())),
            ("result", self.result),
        ]
        return markdown_table(["", "value"], rows)

    def plot(self, path: Path) -> None:
        """Draw losses and learning rate into a PNG."""
        figure = new_figure(11, 4, "train")
        losses, rates = figure.subplots(1, 2, width_ratios=(2, 1))
        for values, name in ((self.train_losses, "training"), (self.validation_losses, "validation")):
            if values:
                losses.plot(*zip(*values, strict=True), marker=".", label=name)
        if self.best_step:
            losses.axvline(self.best_step, color="gray", linestyle=":", label="kept")
        losses.set(title="Loss over target tokens", xlabel="step", ylabel="nats a token")
        losses.legend()
        logged = [(entry["step"], entry["learning_rate"]) for entry in self.history if "learning_rate" in entry]
        if logged:
            rates.plot(*zip(*logged, strict=True))
        rates.set(title="Learning rate", xlabel="step")
        figure.savefig(path, dpi=120)


def peak_memory_bytes(device_type: str) -> int:
    """Return the most memory that this process has held so far: of its GPU, else resident main memory."""
    if device_type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024


def describe_device(device: Any) -> str:
    """Return the device in words, with the number of threads on a CPU."""
    import torch

    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} x {torch.cuda.device_count()}"
    return f"CPU {platform.machine()}, {torch.get_num_threads()} threads"


def _samples(report: DataReport) -> str:
    parts = [f"{report.num_kept:,} of {report.num_read:,}"]
    if report.num_shortened:
        parts.append(f"{report.num_shortened:,} without their oldest turns")
    parts += [f"{count:,} dropped: {reason}" for reason, count in report.dropped.items()]
    parts.append(f"{report.num_prompt_tokens:,} + {report.num_target_tokens:,} tokens")
    return "; ".join(parts)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
