"""What a table of ratings says, as JSON, Markdown and PNG, with the outcomes it was made from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bianque import __version__
from bianque.corpus.plots import new_figure
from bianque.corpus.report import markdown_table
from bianque.evaluation.bootstrap import Figure
from bianque.evaluation.elo import EloOptions, Outcome, ratings
from bianque.evaluation.outcomes import JudgeCount, Outcomes

DEFINITION = (
    "Elo: K {k:g}, base {base:g}, scale {scale:g}, from {initial:g}; median of {num_bootstraps} bootstraps over "
    "judged pairs (seed {seed}), in brackets 95 % intervals. A pair that a model judged in both orders counts once, "
    "with the mean of both; both bad counts as a tie."
)
ONCE = (
    "Elo: K {k:g}, base {base:g}, scale {scale:g}, from {initial:g}; the pairs once in the order in which they were "
    "judged. A pair that a model judged in both orders counts once, with the mean of both; both bad counts as a tie."
)


@dataclass(frozen=True)
class EloReport:
    """Ratings and what they rest on.

    Attributes:
        command: that made it.
        options: constants and bootstraps.
        figures: rating of each model, best first.
        outcomes: judged pairs.
        judges: what each judge did.
    """

    command: str
    options: EloOptions
    figures: dict[str, Figure]
    outcomes: Sequence[Outcome]
    judges: dict[str, JudgeCount]

    @classmethod
    def of(cls, found: Outcomes, options: EloOptions, command: str) -> EloReport:
        """Rate the models of some outcomes."""
        return cls(command, options, ratings(found.outcomes, options), found.outcomes, found.judges)

    @property
    def definition(self) -> str:
        """What the ratings mean."""
        return (DEFINITION if self.options.num_bootstraps else ONCE).format(**asdict(self.options))

    def shares(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what each model (row) got from each other (column): mean score 0 to 1, and the number of pairs.

        Returns:
            Two arrays `(models, models)` in the order of `figures`; not a number where two never met.
        """
        place = {name: index for index, name in enumerate(self.figures)}
        score, number = np.zeros((2, len(place), len(place)))
        for one in self.outcomes:
            a, b = place[one.model_a], place[one.model_b]
            score[a, b] += one.score
            score[b, a] += 1 - one.score
            number[a, b] += 1
            number[b, a] += 1
        return np.divide(score, number, out=np.full(score.shape, np.nan), where=number > 0), number

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        shares, number = self.shares()
        names = list(self.figures)
        pairs = [
            {"model": names[row], "against": names[column], "score": shares[row, column], "pairs": int(total)}
            for (row, column), total in np.ndenumerate(number)
            if total
        ]
        return {
            "command": self.command,
            "version": __version__,
            "definition": self.definition,
            "options": asdict(self.options),
            "ratings": {name: asdict(figure) for name, figure in self.figures.items()},
            "pairs": pairs,
            "judges": {name: asdict(count) for name, count in self.judges.items()},
        }

    def markdown(self) -> str:
        """Return ratings, who met whom, and what the judges did, as tables."""
        shares, number = self.shares()
        mean, totals = np.nansum(shares * number, axis=1), number.sum(axis=1)
        rows = [
            [name, _rating(figure), f"{100 * mean[index] / totals[index]:.1f} %", int(totals[index])]
            for index, (name, figure) in enumerate(self.figures.items())
        ]
        met = [
            [name, *(f"{100 * shares[row, column]:.0f} % ({number[row, column]:.0f})" if number[row, column] else "–"
                     for column in range(len(rows)))]
            for row, name in enumerate(self.figures)
        ]  # fmt: skip
        parts = [
            "# Elo",
            f"Made by `{self.command}`.",
            markdown_table(["model", "rating", "mean score", "pairs"], rows),
            self.definition,
            "## Mean score of the row against the column (pairs)",
            markdown_table(["", *self.figures], met),
            "## Judges",
            markdown_table(_JUDGE_HEADER, [_judge_row(name, count) for name, count in self.judges.items()]),
        ]
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path) -> None:
        """Write `elo.json`, `.md` and `.png`, and `outcomes.jsonl` in the format of stored battles."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "elo.json").write_text(json.dumps(self.to_json(), ensure_ascii=False, indent=1) + "\n", "utf-8")
        (folder / "elo.md").write_text(self.markdown(), "utf-8")
        lines = (json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in self.outcomes)
        (folder / "outcomes.jsonl").write_text("".join(lines), "utf-8")
        self._plot(folder / "elo.png")

    def _plot(self, path: Path) -> None:
        figure = new_figure(12, 1.5 + 0.45 * len(self.figures), "evaluate")
        scale, grid = figure.subplots(1, 2)
        names, values = list(self.figures), list(self.figures.values())
        below = [one.value - one.low if one.low is not None else 0.0 for one in values]
        above = [one.high - one.value if one.high is not None else 0.0 for one in values]
        places = range(len(names))
        scale.errorbar([one.value for one in values], places, xerr=[below, above], fmt="o", capsize=3)
        scale.set_yticks(places, names)
        scale.invert_yaxis()
        scale.set(title="Elo", xlabel="rating, 95 % interval")
        shares, _ = self.shares()
        grid.imshow(100 * shares, cmap="RdBu", vmin=0, vmax=100, aspect="auto")
        for (row, column), share in np.ndenumerate(shares):
            if not np.isnan(share):
                grid.text(column, row, f"{100 * share:.0f}", ha="center", va="center")
        grid.set_xticks(places, names, rotation=25, ha="right")
        grid.set_yticks(places, names)
        grid.set(title="Mean score of the row against the column, percent")
        figure.savefig(path, dpi=120)


_JUDGE_HEADER = ["judge", "pairs", "ties", "both bad", "unreadable", "incomplete", "left out", "first preferred"]
_JUDGE_HEADER += ["same in both orders"]


def _judge_row(name: str, count: JudgeCount) -> list[object]:
    plain = [count.pairs, count.ties, count.both_bad, count.unreadable, count.incomplete, count.left_out]
    return [name, *plain, _share(count.first, count.decided), _share(count.agreeing, count.twice)]


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} % of {whole}" if whole else "–"


def _rating(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return f"{figure.value:.0f}"
    return f"{figure.value:.0f} [{figure.low:.0f}, {figure.high:.0f}]"
