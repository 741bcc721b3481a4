"""The embedded demonstration models keep the figures that the README gives, on a fifth of the held-out dialogues.

The floors lie below the figures of the whole evaluation by what a fifth of the dialogues may scatter; a model that has
learnt nothing, or a prompt that differs from the one it was trained on, falls far below them.
"""

from __future__ import annotations

import pytest
import torch

from bianque.minis.evaluation import Evaluation
from bianque.minis.knowledge import load_knowledge

FLOORS = {
    "asker: clinical question while asking": 0.97,
    "asker: not asked before in the dialogue (text and item)": 0.98,
    "asker: question fits the complaint": 0.82,
    "adviser: names the right department": 0.83,
    "adviser: outside the list, clause well formed": 0.98,
}


@pytest.fixture(scope="module")
def figures():
    torch.set_num_threads(1)  # steps this short gain nothing from two threads and crawl when a core is busy
    return {figure.name: figure for figure in Evaluation(load_knowledge(), is_fast=True).run()}


@pytest.mark.parametrize("name", FLOORS)
def test_figures_stay_above_their_floor(figures, name):
    print(figures[name].line())
    assert figures[name].share >= FLOORS[name], figures[name].line()
