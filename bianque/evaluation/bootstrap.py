"""Figures of added-up columns, with 95 % percentile intervals of bootstraps over rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Sums = np.ndarray
FigureOfSums = Callable[[Sums], np.ndarray]
"""From added-up columns `(…, columns)` to a number for each row `(…,)`, NaN where there is nothing to divide by."""


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
        figures: by name.
        num_bootstraps: how often rows are drawn with replacement; 0 for no intervals, and one row has none either.
        seed: of the drawing.
    """
    num_bootstraps = num_bootstraps if len(rows) > 1 else 0
    rng = np.random.default_rng(seed)
    sums = np.empty((num_bootstraps + 1, rows.shape[1]))
    sums[0] = rows.sum(axis=0)
    for index in range(1, num_bootstraps + 1):
        weights = np.bincount(rng.integers(len(rows), size=len(rows)), minlength=len(rows))
        sums[index] = weights @ rows
    values = {name: figure(sums) for name, figure in figures.items()}
    return {name: _with_interval(float(value[0]), value[1:]) for name, value in values.items()}


def _with_interval(value: float, drawn: np.ndarray) -> Figure:
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return Figure(value)
    low, high = np.percentile(known, (2.5, 97.5))
    return Figure(value, float(low), float(high))


def ratio(columns: Mapping[str, int], above: str, below: str, factor: float = 100.0) -> FigureOfSums:
    """Return the figure `factor * above / below` of two columns; not a number where `below` is 0."""
    return lambda sums: factor * divide(sums[..., columns[above]], sums[..., columns[below]])


def divide(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return `above / below`, not a number where `below` is 0."""
    return np.divide(above, below, out=np.full(np.shape(above), np.nan), where=below != 0)
