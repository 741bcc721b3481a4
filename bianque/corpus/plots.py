"""A picture of a corpus: turns, lengths, questions and chains of questioning, one line for each source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bianque.corpus.packages import Group, require
from bianque.corpus.statistics import SourceStatistics

LONGEST_TURNS = 20
LONGEST_CHAIN = 10


def new_figure(width: float, height: float, group: Group) -> Any:
    """Return an empty figure that draws into files and touches no display.

    Raises:
        SettingsError: if matplotlib is not installed.
    """
    figure_module = require("matplotlib.figure", group)
    return figure_module.Figure(figsize=(width, height), layout="constrained")


def plot_statistics(sources: Mapping[str, SourceStatistics], path: Path) -> None:
    """Draw the statistics of each source into a PNG."""
    figure = new_figure(12, 8, "corpus")
    turns, lengths, shares, chains = figure.subplots(2, 2).flatten()
    _lines(turns, sources, lambda source: source.turns, LONGEST_TURNS)
    turns.set(title="Turns", xlabel="doctor's replies in a dialogue", ylabel="share of dialogues")
    _cumulative(lengths, sources)
    lengths.set(title="Targets", xlabel="characters of a target", ylabel="share of targets up to this length")
    lengths.set_xscale("log")
    shares.bar(list(sources), [source.question_share for source in sources.values()])
    shares.set(title="Questions", ylabel="share of targets that ask", ylim=(0, 1))
    shares.tick_params("x", rotation=20)
    _lines(chains, sources, lambda source: source.chains, LONGEST_CHAIN)
    chains.set(title="Chain of questioning", xlabel="questions before the first advice", ylabel="share of dialogues")
    turns.legend()
    figure.savefig(path, dpi=120)


def _lines(
    axes: Any,
    sources: Mapping[str, SourceStatistics],
    pick: Callable[[SourceStatistics], Counter[int]],
    longest: int,
) -> None:
    """Draw the shares of the values 0 … `longest`; whatever is longer counts as the longest."""
    for name, source in sources.items():
        counter = pick(source)
        folded = Counter[int]()
        for value, number in counter.items():
            folded[min(value, longest)] += number
        total = max(counter.total(), 1)
        axes.plot(range(longest + 1), [folded[value] / total for value in range(longest + 1)], marker=".", label=name)
    axes.set_xticks(range(0, longest + 1, 2))


def _cumulative(axes: Any, sources: Mapping[str, SourceStatistics]) -> None:
    for source in sources.values():
        values = sorted(source.target_chars)
        total, seen, shares = max(source.target_chars.total(), 1), 0, []
        for value in values:
            seen += source.target_chars[value]
            shares.append(seen / total)
        axes.plot([max(value, 1) for value in values], shares)
