"""What a build did, per source and step: as JSON for machines, as a table for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bianque import __version__
from bianque.corpus.cleaning import StepCount
from bianque.corpus.lengths import LengthLimits


@dataclass
class SourceReport:
    """What became of one source.

    Attributes:
        num_read: dialogues read.
        num_kept: dialogues written.
        num_samples: samples made from them.
        num_samples_repeated: of these, samples that an earlier dialogue had word for word; left out.
        num_samples_kept: the others within the length limits, which are written.
        steps: what each cleaning step did.
        duplicates: dialogues dropped as duplicates, by kind.
        splits: dialogues written, by split.
        problems: records that could not be read, by reason.
        lengths: what the length limits did; empty without limits.
    """

    num_read: int = 0
    num_kept: int = 0
    num_samples: int = 0
    num_samples_repeated: int = 0
    num_samples_kept: int = 0
    steps: dict[str, StepCount] = field(default_factory=dict)
    duplicates: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, int] = field(default_factory=dict)

    def add_steps(self, counts: Mapping[str, StepCount], limits: LengthLimits | None) -> None:
        """Add what the steps counted; a source may be read from several paths."""
        for name, count in counts.items():
            self.steps.setdefault(name, StepCount()).add(count)
        if limits is not None:
            for name in ("shortened", "input_too_long", "target_too_long"):
                self.lengths[name] = self.lengths.get(name, 0) + getattr(limits, name)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        counters = {"duplicates": self.duplicates, "splits": self.splits, "problems": self.problems}
        return {
            **{name: getattr(self, name) for name in ("num_read", "num_kept", "num_samples")},
            **{name: getattr(self, name) for name in ("num_samples_repeated", "num_samples_kept")},
            "steps": {name: asdict(count) for name, count in self.steps.items()},
            **{name: dict(counter) for name, counter in counters.items()},
            "lengths": self.lengths,
        }

    @property
    def num_problems(self) -> int:
        """Records that could not be read."""
        return self.problems.total()


@dataclass
class BuildReport:
    """What a build did.

    Attributes:
        command: the command that ran.
        sources: by source.
    """

    command: str = ""
    sources: dict[str, SourceReport] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        sources = {name: source.to_json() for name, source in self.sources.items()}
        return {"command": self.command, "version": __version__, "sources": sources}

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        path.write_text(json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n", "utf-8")

    def markdown(self) -> str:
        """Return a table with a column for each source."""
        rows = [(label, [get(source) for source in self.sources.values()]) for label, get in self._rows()]
        return markdown_table(["", *self.sources], [[label, *cells] for label, cells in rows])

    def _rows(self) -> list[tuple[str, Any]]:
        steps = dict.fromkeys(name for source in self.sources.values() for name in source.steps)
        kinds = dict.fromkeys(kind for source in self.sources.values() for kind in source.duplicates)
        lengths = dict.fromkeys(name for source in self.sources.values() for name in source.lengths)
        rows: list[tuple[str, Any]] = [
            ("records not readable", lambda source: source.num_problems),
            ("dialogues read", lambda source: source.num_read),
        ]
        for name in steps:
            rows.append((f"{name}: changed", lambda source, name=name: source.steps[name].changed))
            rows.append((f"{name}: messages less", lambda source, name=name: source.steps[name].messages))
            rows.append((f"{name}: dropped", lambda source, name=name: source.steps[name].dropped))
        rows += [(f"{kind}: dropped", lambda source, kind=kind: source.duplicates[kind]) for kind in kinds]
        rows.append(("dialogues kept", lambda source: source.num_kept))
        rows.append(("samples", lambda source: source.num_samples))
        rows.append(("repeated samples: dropped", lambda source: source.num_samples_repeated))
        rows += [(f"tokens: {name}", lambda source, name=name: source.lengths.get(name, 0)) for name in lengths]
        rows.append(("samples kept", lambda source: source.num_samples_kept))
        return [row for row in rows if ": " not in row[0] or any(row[1](source) for source in self.sources.values())]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table, its first column left-aligned and the others right-aligned."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
