"""The results of one run and the comparison of several, as JSON, Markdown and PNG."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bianque import __version__
from bianque.corpus.report import markdown_table
from bianque.errors import DataError
from bianque.evaluation.bootstrap import Figure
from bianque.evaluation.metrics import NAMES
from bianque.evaluation.plots import plot_runs

DEFINITIONS = (
    "BLEU: sacrebleu, tokenizer zh, corpus level, cumulative. ROUGE: words of jieba, F1. distinct-n: words of jieba. "
    "PQA (our definition): “this reply is a question” against the reference reply. Percent, but for lengths; "
    "in brackets 95 % intervals of 1,000 bootstraps over dialogues."
)


@dataclass(frozen=True)
class Results:
    """What one run measured.

    Attributes:
        name: of the run, for tables.
        command: that made it.
        run: model, mode, decoding and data, as plain values.
        counts: predictions of each group.
        figures: by group and name.
        definitions: what the figures mean, for the foot of tables.
    """

    name: str
    command: str
    run: Mapping[str, Any]
    counts: Mapping[str, int]
    figures: Mapping[str, Mapping[str, Figure]]
    definitions: str = DEFINITIONS

    def to_json(self) -> dict[str, Any]:
        """Return plain values; what is not a number becomes null."""
        figures = {
            group: {name: {key: _finite(value) for key, value in asdict(one).items()} for name, one in named.items()}
            for group, named in self.figures.items()
        }
        plain = {"name": self.name, "command": self.command, "version": __version__, "definitions": self.definitions}
        return {**plain, "run": dict(self.run), "counts": dict(self.counts), "figures": figures}

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read `results.json`, given itself or its folder.

        Raises:
            DataError: if there is none.
        """
        file = path / "results.json" if path.is_dir() else path
        try:
            value = json.loads(file.read_text("utf-8"))
            figures = {
                group: {name: _figure(one) for name, one in named.items()} for group, named in value["figures"].items()
            }
            return cls(value["name"], value["command"], value["run"], value["counts"], figures, value["definitions"])
        except OSError as error:
            raise DataError("corpus_file_missing", file=file) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError("data_line_invalid", file=file, line=1, reason="not the results of a run") from error

    def write(self, folder: Path) -> None:
        """Write `results.json`, `results.md` and `results.png`."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_json(), ensure_ascii=False, indent=1)
        (folder / "results.json").write_text(text + "\n", "utf-8")
        (folder / "results.md").write_text(self.markdown(), "utf-8")
        plot_runs({self.name: self.figures}, folder / "results.png")

    def markdown(self) -> str:
        """Return the figures as a table with a column for each group."""
        header = ["", *(f"{group} ({self.counts[group]})" for group in self.figures)]
        rows = [[name, *(cell(named.get(name)) for named in self.figures.values())] for name in _names(self.figures)]
        facts = "\n".join(f"- {name}: {value}" for name, value in self.run.items())
        table = markdown_table(header, rows)
        return f"# {self.name}\n\nMade by `{self.command}`.\n\n{facts}\n\n{table}\n\n{self.definitions}\n"


def _names(figures: Mapping[str, Mapping[str, Figure]]) -> list[str]:
    """Return the names of all figures, the known ones in their usual order, then the others."""
    present = dict.fromkeys(name for named in figures.values() for name in named)
    return [name for name in NAMES if name in present] + [name for name in present if name not in NAMES]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _figure(value: Mapping[str, float | None]) -> Figure:
    known = value["value"]
    return Figure(math.nan if known is None else known, value["low"], value["high"])


def cell(figure: Figure | None) -> str:
    """Return a figure as a table shows it."""
    if figure is None or not math.isfinite(figure.value):
        return "–"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.1f}"
    return f"{figure.value:.1f} [{figure.low:.1f}, {figure.high:.1f}]"


def compare(runs: Sequence[Results], group: str = "all") -> str:
    """Return a Markdown table with a column for each run, and the command that made each."""
    figures = {str(index): run.figures.get(group, {}) for index, run in enumerate(runs)}
    header = [group, *(f"{run.name} ({run.counts.get(group, 0)})" for run in runs)]
    rows = [[name, *(cell(named.get(name)) for named in figures.values())] for name in _names(figures)]
    definitions = dict.fromkeys(run.definitions for run in runs)
    lines = [markdown_table(header, rows), "", *definitions, ""]
    if len({json.dumps(run.run.get("data"), sort_keys=True) for run in runs}) > 1:
        lines += ["These runs answered different data; compare them with care.", ""]
    return "\n".join([*lines, *(f"- {run.name}: `{run.command}`" for run in runs), ""])


def write_comparison(runs: Sequence[Results], folder: Path) -> str:
    """Write `comparison.json`, `.md` and `.png`, and return the Markdown of all groups that the runs share."""
    folder.mkdir(parents=True, exist_ok=True)
    shared = [group for group in runs[0].figures if all(group in run.figures for run in runs)]
    text = "\n".join(f"## {group}\n\n{compare(runs, group)}" for group in shared or ["all"])
    values = json.dumps([run.to_json() for run in runs], ensure_ascii=False, indent=1)
    (folder / "comparison.json").write_text(values + "\n", "utf-8")
    (folder / "comparison.md").write_text(text, "utf-8")
    names = [
        run.name if [one.name for one in runs].count(run.name) == 1 else f"{run.name} {number}"
        for number, run in enumerate(runs, start=1)
    ]
    plot_runs(dict(zip(names, (run.figures for run in runs), strict=True)), folder / "comparison.png")
    return text
