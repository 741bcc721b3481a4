"""A picture of one run or of several: the main figures with their intervals, and how much is asked at which turn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bianque.corpus.plots import new_figure
from bianque.evaluation.bootstrap import Figure

MAIN = (
    *("BLEU-1", "BLEU-4", "ROUGE-L", "distinct-2", "PQA F1", "questions", "repetition", "echo"),
    *("dialogues with a question", "items covered", "repeated questions", "understood questions", "advice reached"),
    "right department",
)
"""What is drawn as bars, of those that a run has: shares in percent."""

Groups = Mapping[str, Mapping[str, Figure]]
_NOTHING = Figure(math.nan)


def plot_runs(runs: Mapping[str, Groups], path: Path) -> None:
    """Draw runs, by their names, into a PNG.

    Args:
        runs: figures of each run, by group (`all`, `turn 1` …) and name.
        path: of the PNG.
    """
    figure = new_figure(13, 5, "evaluate")
    bars, chain = figure.subplots(1, 2, width_ratios=(2, 1))
    totals = {run: groups.get("all", {}) for run, groups in runs.items()}
    names = [name for name in MAIN if any(name in total for total in totals.values())]
    _bars(bars, names, totals)
    bars.set(title="All replies", ylabel="percent")
    if any(_turns(groups) for groups in runs.values()):
        _lines(chain, runs)
        chain.set(title="Questions by turn", xlabel="doctor's turn", ylabel="percent of replies", ylim=(0, 100))
        chain.legend()
    else:
        _bars(chain, ["questions before advice"], totals)
        chain.set(title="Chain of questioning", ylabel="number")
    bars.legend()
    figure.savefig(path, dpi=120)


def _bars(axes: Any, names: Sequence[str], totals: Mapping[str, Mapping[str, Figure]]) -> None:
    width = 0.8 / len(totals)
    for index, (run, total) in enumerate(totals.items()):
        shown = [total.get(name, _NOTHING) for name in names]
        # A bar without an interval gets no whiskers: matplotlib leaves out what is not a number.
        below = [one.value - one.low if one.low is not None else math.nan for one in shown]
        above = [one.high - one.value if one.high is not None else math.nan for one in shown]
        reach = [
            [max(length, 0.0) if math.isfinite(length) else math.nan for length in side] for side in (below, above)
        ]
        places = [place + (index - (len(totals) - 1) / 2) * width for place in range(len(names))]
        axes.bar(places, [one.value for one in shown], width, yerr=reach, label=run, capsize=2)
    axes.set_xticks(range(len(names)), names, rotation=25, ha="right")


def _turns(groups: Groups) -> dict[str, Mapping[str, Figure]]:
    return {group.removeprefix("turn "): named for group, named in groups.items() if group.startswith("turn ")}


def _lines(axes: Any, runs: Mapping[str, Groups]) -> None:
    turns = {run: _turns(groups) for run, groups in runs.items()}
    # Left to itself, matplotlib puts turns in the order in which they come: after 1 and 8+ of one run 2 of the next.
    labels = sorted({label for named in turns.values() for label in named}, key=_number)
    place = {label: index for index, label in enumerate(labels)}
    for run, named in turns.items():
        shown = sorted(named, key=_number)
        shares = [named[label].get("questions", _NOTHING).value for label in shown]
        axes.plot([place[label] for label in shown], shares, marker="o", label=run)
    longest = max(turns.values(), key=len)
    shown = sorted(longest, key=_number)
    doctors = [longest[label].get("reference questions", _NOTHING).value for label in shown]
    axes.plot([place[label] for label in shown], doctors, color="black", linestyle=":", label="doctors")
    axes.set_xticks(range(len(labels)), labels)


def _number(label: str) -> int:
    """Return the turn that a label names; the last is `8+`."""
    return int(label.removesuffix("+"))
