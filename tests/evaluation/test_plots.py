"""The picture of a run: turns stand in the order of their numbers, whatever the runs have of them."""

from __future__ import annotations

import random

import pytest

from bianque.evaluation import plots
from bianque.evaluation.bootstrap import Figure


def number(label: str) -> int:
    return int(label.rstrip("+"))


def run_with(*labels: str):
    """Return the groups of a run whose share of questions at turn N is N percent."""
    return {
        f"turn {label}": {"questions": Figure(float(label.rstrip("+"))), "reference questions": Figure(50.0)}
        for label in labels
    }


def drawn(runs):
    figure_module = pytest.importorskip("matplotlib.figure")
    axes = figure_module.Figure().subplots()
    plots._lines(axes, runs)
    axes.figure.draw_without_rendering()
    labels = [label.get_text() for label in axes.get_xticklabels()]
    lines = {line.get_label(): dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axes.lines}
    return labels, lines


@pytest.mark.parametrize(
    "runs",
    [
        {"a": run_with("1", "2", "8+"), "b": run_with("1", "2", "3", "8+")},
        {"a": run_with("8+", "2", "1", "3")},
        {"a": run_with(*map(str, random.Random(0).sample(range(1, 13), 12)))},
        {"a": run_with("10", "2"), "b": run_with("1")},
    ],
    ids=["gap", "mixed", "more-than-nine", "later-run-begins-earlier"],
)
def test_turns_stand_in_the_order_of_their_numbers(runs):
    labels, lines = drawn(runs)
    assert labels == sorted(labels, key=number) and len(labels) == len(set(labels))
    for run, groups in runs.items():
        shown = {labels[int(place)]: value for place, value in lines[run].items()}
        assert shown == {label.removeprefix("turn "): figures["questions"].value for label, figures in groups.items()}
        assert list(lines[run]) == sorted(lines[run])  # the line does not go back
