"""SamplingParams refuses what is out of range, and needs no torch."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from bianque.engine.sampling import SamplingParams


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", "1"),
        ("temperature", True),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", None),
        ("repetition_penalty", 0.0),
        ("no_repeat_ngram_size", -1),
        ("max_new_tokens", 0),
        ("max_new_tokens", 2**63),
        ("seed", -1),
        ("seed", 2**63),
        ("seed", 1.0),
    ],
)
def test_value_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        SamplingParams(**{name: value})


def test_bounds_are_accepted():
    assert SamplingParams(0, 0, 1.0, 0.01, 0, 1, 0).max_new_tokens == 1
    assert SamplingParams(100, 2**62, 1e-9, 10, 9, 2**62, 2**63 - 1).seed == 2**63 - 1


def test_tiny_temperature_counts_as_greedy():
    assert SamplingParams(temperature=0).is_greedy
    assert SamplingParams(temperature=5e-324).is_greedy
    assert not SamplingParams(temperature=0.01).is_greedy


def test_params_and_engine_are_importable_without_torch():
    script = "import sys, bianque.engine.engine, bianque.engine.sampling; print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
    )
