"""Rows of a step against the same rows one by one."""

from __future__ import annotations

import math
import random

import pytest
import torch

from bianque.engine.batch_sampler import num_exact, sample_rows
from bianque.engine.sampler import Sampler
from bianque.engine.sampling import SamplingParams
from bianque.errors import GenerationError

LARGE = 130_528
CHOICES = (
    {"temperature": 0.0},
    {"temperature": 0.0, "repetition_penalty": 1.5},
    {},
    {"top_p": 1.0},
    {"top_k": 1},
    {"top_k": 200, "temperature": 1.3},
    {"top_k": 0, "top_p": 0.9},
    {"top_k": 1000},
    {"top_p": 1.0, "no_repeat_ngram_size": 2},
    {"repetition_penalty": 1.2, "top_k": 5},
)


def make_logits(num_rows, vocab_size, seed, *, is_coarse=False):
    logits = torch.randn(num_rows, vocab_size, generator=torch.Generator().manual_seed(seed)) * 4
    return logits.round() if is_coarse else logits  # coarse logits tie in great numbers


@pytest.mark.parametrize("is_coarse", [False, True], ids=["smooth", "with_ties"])
@pytest.mark.parametrize("vocab_size", [50, 3000, LARGE])
def test_rows_get_the_tokens_they_get_alone(vocab_size, is_coarse):
    """Many steps of rows with all kinds of parameters, in ever changing company."""
    mix = random.Random(vocab_size)
    params = [SamplingParams(**choice, seed=index) for index, choice in enumerate(CHOICES)]
    context = [1, 2, 3, 1]
    alone, together = ([Sampler(each, context) for each in params] for _ in range(2))
    for step in range(4 if vocab_size == LARGE else 12):
        logits = make_logits(len(params), vocab_size, step, is_coarse=is_coarse)
        rows = mix.sample(range(len(params)), mix.randrange(1, len(params) + 1))
        expected = [alone[row].sample(logits[row]) for row in rows]
        assert sample_rows([together[row] for row in rows], logits[rows]) == expected


def estimated(logits: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Return what a runner may give where the `count` largest were asked for: others are below, some only just."""
    smallest = logits.topk(count or len(logits)).values[-1]
    noise = torch.rand(len(logits), generator=torch.Generator().manual_seed(seed)) ** 8
    below = torch.nextafter(smallest - noise, torch.tensor(-torch.inf))
    return torch.where(logits < smallest, below, logits)


@pytest.mark.parametrize("is_coarse", [False, True], ids=["smooth", "with_ties"])
@pytest.mark.parametrize("vocab_size", [50, 3000, LARGE])
def test_estimates_of_logits_that_are_not_asked_for_change_no_token(vocab_size, is_coarse):
    params = [SamplingParams(**choice, seed=index) for index, choice in enumerate(CHOICES)]
    context = [*range(0, min(300, vocab_size), 3), 1, 2, 3, 1]
    exact, rough = ([Sampler(each, context) for each in params] for _ in range(2))
    for step in range(4 if vocab_size == LARGE else 12):
        logits = make_logits(len(params), vocab_size, step, is_coarse=is_coarse)
        # What was seen is large, so that penalties and bans bring up what is behind it.
        logits[:, context] += 6
        counts = [num_exact(sampler) for sampler in rough]
        rows = [estimated(row, min(count, vocab_size), step) for row, count in zip(logits, counts, strict=True)]
        assert sample_rows(rough, torch.stack(rows)) == sample_rows(exact, logits)


@pytest.mark.parametrize(
    ("choice", "count"),
    [
        ({}, 50),
        ({"temperature": 0.0}, 1),
        ({"top_k": 256}, 256),
        ({"top_k": 257}, 0),
        ({"top_k": 0}, 0),
        ({"top_k": 0, "temperature": 0.0}, 1),
        ({"repetition_penalty": 1.5}, 53),
        ({"repetition_penalty": 0.9}, 0),
        ({"no_repeat_ngram_size": 2}, 51),
        ({"no_repeat_ngram_size": 3}, 50),
        ({"no_repeat_ngram_size": 1, "repetition_penalty": 1.5}, 56),
    ],
)
def test_how_many_logits_a_row_needs(choice, count):
    assert num_exact(Sampler(SamplingParams(**choice), [1, 2, 3, 1])) == count


def test_bans_do_not_send_a_row_the_long_way(monkeypatch):
    """A banned logit of -inf is none of the model's that is not finite, also where rows take different ways."""
    samplers = [
        Sampler(SamplingParams(temperature=0, no_repeat_ngram_size=1), [3]),
        Sampler(SamplingParams(top_k=0, top_p=0.9, seed=1)),
    ]
    taken = []
    sample = Sampler.sample
    monkeypatch.setattr(Sampler, "sample", lambda sampler, row: taken.append(sampler) or sample(sampler, row))
    sample_rows(samplers, make_logits(2, 500, 0))
    assert taken == samplers[1:]


def test_logits_are_not_changed():
    logits = make_logits(2, 100, 0)
    before = logits.clone()
    sample_rows([Sampler(SamplingParams(no_repeat_ngram_size=1, repetition_penalty=2.0), [4, 5])] * 2, logits)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_fails_alone(bad):
    logits = make_logits(3, 500, 1)
    expected = int(logits[0].argmax()), int(logits[2].argmax())
    logits[1, 77] = bad
    first, failed, last = sample_rows([Sampler(SamplingParams(temperature=0)) for _ in range(3)], logits)
    assert (first, last) == expected
    assert isinstance(failed, GenerationError) and failed.key == "logits_not_finite"


def test_half_precision_rows():
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 3.0, 2.0]], dtype=torch.float16)
    assert sample_rows([Sampler(SamplingParams(temperature=0)) for _ in range(2)], logits) == [1, 0]


@pytest.mark.parametrize("vocab_size", [1000, LARGE])
def test_greedy_takes_the_first_of_equals(vocab_size):
    logits = torch.zeros(2, vocab_size)
    logits[0, [41, 42, vocab_size - 1]] = 5.0
    logits[1, 7:700] = 1.0
    assert sample_rows([Sampler(SamplingParams(temperature=0)) for _ in range(2)], logits) == [41, 7]
