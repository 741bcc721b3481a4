"""Figures of added-up columns, with 95 % percentile intervals of bootstraps over rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Sums = np.ndarray
FigureOfSums = Callable[[Sums], float]


@dataclass(frozen=True)
class Figure:
    """One figure: its value and, where there is one, the interval it lies in with 95 % confidence."""

    value: float
    low: float | None = None
    high: float | None = None


def figures_of(
    rows: np.ndarray, figures: Mapping[str, FigureOfSums], *, num_bootstraps: int = 1000, seed: int = 0
) -> dict[str, Figure]:
    """Return every figure of the rows' sum.

    Args:
        rows: `(rows, columns)` in float64, at least one row; rows are what is drawn, so they must be independent.
        figures: from added-up columns to a number, or to NaN where there is nothing to divide by.
        num_bootstraps: how often rows are drawn with replacement; 0 for no intervals, and one row has none either.
        seed: of the drawing.
    """
    total = rows.sum(axis=0)
    num_bootstraps = num_bootstraps if len(rows) > 1 else 0
    drawn = {name: np.empty(num_bootstraps) for name in figures}
    rng = np.random.default_rng(seed)
    for index in range(num_bootstraps):
        weights = np.bincount(rng.integers(len(rows), size=len(rows)), minlength=len(rows))
        resampled = weights @ rows
        for name, figure in figures.items():
            drawn[name][index] = figure(resampled)
    return {name: _with_interval(figure(total), drawn[name]) for name, figure in figures.items()}


def _with_interval(value: float, drawn: np.ndarray) -> Figure:
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return Figure(value)
    low, high = np.percentile(known, (2.5, 97.5))
    return Figure(value, float(low), float(high))


def ratio(columns: Mapping[str, int], above: str, below: str, factor: float = 100.0) -> FigureOfSums:
    """Return the figure `factor * above / below` of two columns; not a number where `below` is 0."""

    def figure(sums: Sums) -> float:
        return float(factor * sums[columns[above]] / sums[columns[below]]) if sums[columns[below]] else float("nan")

    return figure
