"""Elo ratings of models from who was preferred to whom.

The rule is that of PULSE-EVAL and FastChat: after each outcome, model A's rating moves by
`K · (score − 1 / (1 + base^((B − A) / scale)))` and B's by the opposite. Ratings depend on the order of the outcomes,
so what is reported is the median of bootstraps, each of which draws as many outcomes as there are, with replacement
and in random order; intervals are their 2.5 and 97.5 percentiles.

Deviation: a score may lie between 0, ½ and 1, because a judge's two orders of one pair count as one outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bianque.evaluation.bootstrap import Figure


@dataclass(frozen=True)
class EloOptions:
    """How ratings are computed; the defaults are PULSE-EVAL's.

    Attributes:
        k: the most that one outcome moves a rating by.
        base: of the power that turns a difference into odds, above 1.
        scale: difference at which the odds are `base` to 1.
        initial: rating before the first outcome.
        num_bootstraps: how often outcomes are drawn; 0 takes them once in their own order, without intervals.
        seed: of the drawing.
    """

    k: float = 4.0
    base: float = 10.0
    scale: float = 400.0
    initial: float = 1000.0
    num_bootstraps: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what gives no ratings."""
        if not (self.k > 0 and self.base > 1 and self.scale > 0 and self.num_bootstraps >= 0):
            raise ValueError("k and scale must be above 0, base above 1, and bootstraps at least 0")


@dataclass(frozen=True)
class Outcome:
    """One pair, judged.

    Attributes:
        model_a: one model.
        model_b: the other.
        score: 1 if `model_a` was preferred, 0 if `model_b` was, ½ for a tie, or between.
        judge: who judged.
    """

    model_a: str
    model_b: str
    score: float
    judge: str = ""


PULSE = EloOptions()


def ratings(outcomes: Sequence[Outcome], options: EloOptions = PULSE) -> dict[str, Figure]:
    """Return the rating of every model, best first.

    Args:
        outcomes: at least one.
        options: constants and bootstraps.
    """
    names = list(dict.fromkeys(name for one in outcomes for name in (one.model_a, one.model_b)))
    place = {name: index for index, name in enumerate(names)}
    first = np.array([place[one.model_a] for one in outcomes])
    second = np.array([place[one.model_b] for one in outcomes])
    scores = np.array([one.score for one in outcomes])
    rows = np.arange(max(options.num_bootstraps, 1))
    rated = np.full((len(rows), len(names)), options.initial)  # (bootstraps, models)
    rng = np.random.default_rng(options.seed)
    for step in range(len(outcomes)):
        # Drawing at every step is drawing with replacement, and needs no table of all draws.
        drawn = rng.integers(len(outcomes), size=len(rows)) if options.num_bootstraps else np.array([step])
        a, b = first[drawn], second[drawn]
        expected = 1 / (1 + options.base ** ((rated[rows, b] - rated[rows, a]) / options.scale))
        change = options.k * (scores[drawn] - expected)
        rated[rows, a] += change
        rated[rows, b] -= change
    figures = dict(zip(names, map(_figure, rated.T), strict=True))
    return dict(sorted(figures.items(), key=lambda one: -one[1].value))


def _figure(drawn: np.ndarray) -> Figure:
    if len(drawn) == 1:
        return Figure(float(drawn[0]))
    low, median, high = np.percentile(drawn, (2.5, 50, 97.5))
    return Figure(float(median), float(low), float(high))
