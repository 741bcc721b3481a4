"""The sampler against the reference's recorded stages, against a plain restatement of them, and at its edges."""

from __future__ import annotations

import json
import math

import pytest
import torch

from bianque.engine.sampler import Sampler
from bianque.engine.sampling import SamplingParams
from bianque.errors import GenerationError
from tests.golden import GOLDEN, requires_golden

LARGE = 130_528  # the published vocabulary, which takes the path by blocks


def restated_probabilities(logits, params):
    """Temperature, top-k, top-p and softmax over the whole row, each as the reference library defines it."""
    scores = logits.double() / params.temperature
    if params.top_k:
        kth = scores.topk(min(params.top_k, len(scores))).values[-1]
        scores = scores.masked_fill(scores < kth, -math.inf)
    if params.top_p < 1:
        ascending, order = scores.sort(stable=True)
        removed = ascending.softmax(0).cumsum(0) <= 1 - params.top_p
        removed[-1] = False
        scores = scores.index_fill(0, order[removed], -math.inf)
    return scores.softmax(0)


def counts_of_draws(sampler_of_seed, logits, num_draws):
    """Draw once from each of `num_draws` fresh samplers and count the tokens."""
    counts = torch.zeros(len(logits))
    for seed in range(num_draws):
        counts[sampler_of_seed(seed).sample(logits)] += 1
    return counts


@pytest.mark.parametrize("vocab_size", [7, 2400, 16_400, LARGE])
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0.7, top_k=50, top_p=1.0),
        SamplingParams(temperature=1.5, top_k=0, top_p=0.7),
        SamplingParams(temperature=1.0, top_k=0, top_p=1.0),
        SamplingParams(temperature=0.3, top_k=1, top_p=0.9),
        SamplingParams(temperature=1.0, top_k=1000, top_p=0.99),
    ],
    ids=str,
)
def test_distribution_over_candidates_equals_that_over_the_whole_row(vocab_size, params):
    logits = torch.randn(vocab_size, generator=torch.Generator().manual_seed(vocab_size)) * 4
    probs = Sampler(params).probabilities(logits)
    # fp32 sums over a whole vocabulary are good to about 1e-6.
    torch.testing.assert_close(probs, restated_probabilities(logits, params), atol=1e-6, rtol=0)


@pytest.mark.parametrize("vocab_size", [60, LARGE])
def test_top_k_keeps_all_that_tie_with_the_kth(vocab_size):
    logits = torch.zeros(vocab_size)
    logits[[3, 50]] = 2.0
    logits[[0, 17, 59, vocab_size - 1]] = 1.0
    params = SamplingParams(temperature=1.0, top_k=3, top_p=1.0)
    probs = Sampler(params).probabilities(logits)
    assert probs.nonzero()[:, 0].tolist() == sorted({0, 3, 17, 50, 59, vocab_size - 1})
    torch.testing.assert_close(probs, restated_probabilities(logits, params), atol=1e-12, rtol=0)


@pytest.mark.parametrize("vocab_size", [100, LARGE])
def test_equal_logits_keep_the_whole_vocabulary_under_top_k(vocab_size):
    probs = Sampler(SamplingParams(top_p=1.0)).probabilities(torch.ones(vocab_size))
    assert bool((probs > 0).all())


@pytest.mark.parametrize("vocab_size", [100, LARGE])
def test_greedy_takes_the_first_of_equals(vocab_size):
    logits = torch.zeros(vocab_size)
    logits[[41, 42, vocab_size - 1]] = 5.0
    assert Sampler(SamplingParams(temperature=0)).sample(logits) == 41


def test_top_p_always_keeps_the_best_token():
    logits = torch.tensor([1.0, 3.0, 2.0])
    assert Sampler(SamplingParams(top_p=1e-9)).probabilities(logits).tolist() == [0.0, 1.0, 0.0]


def test_low_temperature_does_not_overflow():
    probs = Sampler(SamplingParams(temperature=2e-4, top_k=0, top_p=0.9)).probabilities(torch.tensor([3e4, 2e4, -3e4]))
    assert probs.tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [0, 1])
def test_logits_that_are_not_finite_end_the_request(bad, temperature):
    logits = torch.randn(100, generator=torch.Generator().manual_seed(0))
    logits[60] = bad
    with pytest.raises(GenerationError) as error:
        Sampler(SamplingParams(temperature=temperature)).sample(logits)
    assert error.value.key == "logits_not_finite"


def test_finite_logits_with_an_infinite_sum_are_accepted():
    assert Sampler(SamplingParams(temperature=0)).sample(torch.tensor([2e38, 3e38, 1e38])) == 1


def test_banned_ngrams_have_no_probability_and_do_not_trip_the_guard():
    sampler = Sampler(SamplingParams(temperature=1, top_k=0, top_p=1.0, no_repeat_ngram_size=2), [5, 1, 5, 2, 5])
    probs = sampler.probabilities(torch.zeros(8))
    assert probs[[1, 2]].tolist() == [0.0, 0.0]
    assert (probs > 0).sum() == 6


def test_ngrams_of_sampled_tokens_are_banned_too():
    sampler = Sampler(SamplingParams(temperature=0, no_repeat_ngram_size=3), [0])
    logits = torch.tensor([0.0, 0.0, 3.0, 2.0])
    # 2 2 would be followed by 2 again: 2 2 2 is new once, then 3 must come.
    assert [sampler.sample(logits) for _ in range(6)] == [2, 2, 2, 3, 2, 2]
    assert sampler.sample(logits) == 0


def test_ban_of_single_tokens():
    sampler = Sampler(SamplingParams(temperature=0, no_repeat_ngram_size=1), [2])
    assert [sampler.sample(torch.tensor([0.0, 1.0, 2.0])) for _ in range(2)] == [1, 0]


def test_bans_are_lifted_when_they_would_leave_nothing():
    sampler = Sampler(SamplingParams(temperature=0, no_repeat_ngram_size=1), [0, 1, 2])
    assert sampler.sample(torch.tensor([0.0, 1.0, 2.0])) == 2


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits():
    sampler = Sampler(SamplingParams(temperature=1, top_k=0, top_p=1.0, repetition_penalty=2.0), [0, 1, 1])
    probs = sampler.probabilities(torch.tensor([1.0, -1.0, 0.5]))
    torch.testing.assert_close(probs, torch.tensor([0.5, -2.0, 0.5]).double().softmax(0))


def test_repetition_penalty_covers_sampled_tokens():
    sampler = Sampler(SamplingParams(temperature=0, repetition_penalty=2.0))
    assert [sampler.sample(torch.tensor([1.0, 1.5])) for _ in range(3)] == [1, 0, 1]


def test_logits_are_not_changed():
    logits = torch.tensor([1.0, 2.0, 3.0])
    Sampler(SamplingParams(repetition_penalty=1.3, no_repeat_ngram_size=1, seed=0), [0, 2]).sample(logits)
    assert logits.tolist() == [1.0, 2.0, 3.0]


def test_half_precision_row_is_accepted():
    logits = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float16)
    assert Sampler(SamplingParams(temperature=0)).sample(logits) == 2


def test_draws_follow_the_distribution():
    """By Hoeffding, a frequency of 2000 draws is off by more than 0.06 with a probability below 2e-6."""
    logits = torch.tensor([0.0, 1.0, 2.0, -4.0])
    params = {"temperature": 1.0, "top_k": 3, "top_p": 0.95}
    counts = counts_of_draws(lambda seed: Sampler(SamplingParams(**params, seed=seed)), logits, 2000)
    expected = restated_probabilities(logits, SamplingParams(**params)).float()
    assert (counts / 2000 - expected).abs().max() < 0.06
    assert counts[expected == 0].sum() == 0


def test_same_seed_gives_the_same_tokens_and_another_seed_others():
    logits = torch.zeros(1000)

    def draw(seed):
        sampler = Sampler(SamplingParams(seed=seed, top_k=0))
        return [sampler.sample(logits) for _ in range(20)]

    assert draw(7) == draw(7) != draw(8)


def test_without_a_seed_draws_differ():
    """Twenty draws from 1000 equal tokens coincide with a probability of 1e-60."""
    logits = torch.zeros(1000)
    first, second = (Sampler(SamplingParams(top_k=0, top_p=1.0)) for _ in range(2))
    assert [first.sample(logits) for _ in range(20)] != [second.sample(logits) for _ in range(20)]


def golden_arrays():
    from safetensors.torch import load_file

    return load_file(GOLDEN / "golden_chatglm.safetensors")


def golden_sampling():
    return json.loads((GOLDEN / "golden_chatglm.json").read_text(encoding="utf-8"))["sampling"]


def params_of(config):
    options = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
    for step in config["logits_processors"] + config["logits_warpers"]:
        options |= {
            name if name != "penalty" else "repetition_penalty": value
            for name, value in step.items()
            if name in ("temperature", "top_k", "top_p", "penalty")
        }
    return SamplingParams(**options)


@requires_golden
def test_golden_distributions_of_every_stage():
    arrays = golden_arrays()
    checked = 0
    prompt = json.loads((GOLDEN / "golden_chatglm.json").read_text(encoding="utf-8"))["cases"][0]["input_ids"]
    for config in golden_sampling()["configs"]:
        name = f"sampling.{config['name']}.probs"
        if name not in arrays:
            continue
        params = params_of(config)
        probs = Sampler(params, prompt).probabilities(arrays["single_zh.last_logits"])
        # fp32 in the reference, float64 here
        torch.testing.assert_close(probs.float(), arrays[name], atol=2e-6, rtol=0, msg=config["name"])
        assert int((probs > 0).sum()) == config["stages"][-1]["n_finite"], config["name"]
        checked += 1
    assert checked == 6


@requires_golden
def test_golden_synthetic_row():
    arrays, synthetic = golden_arrays(), golden_sampling()["synthetic"]
    logits = arrays["sampling.synthetic.logits"]
    for stage, params in zip(
        synthetic["stages(temperature 0.95, top_k 50, top_p 0.7)"],
        (SamplingParams(top_k=0, top_p=1.0), SamplingParams(top_p=1.0), SamplingParams()),
        strict=True,
    ):
        probs = Sampler(params).probabilities(logits)
        recorded = arrays[f"sampling.synthetic.after_{stage['after']}"].softmax(0)
        torch.testing.assert_close(probs.float(), recorded, atol=2e-6, rtol=0)
        assert int((probs > 0).sum()) == stage["n_finite"]
    torch.testing.assert_close(probs.float(), arrays["sampling.synthetic.probs"], atol=2e-6, rtol=0)
    without_top_k = Sampler(SamplingParams(top_k=0)).probabilities(logits)
    assert int((without_top_k > 0).sum()) == synthetic["n_finite_if_top_k_were_off"]
    generator = torch.Generator().manual_seed(77)
    draws = [int(torch.multinomial(probs.float(), 1, generator=generator)) for _ in range(17)]
    assert draws == synthetic["torch_manual_seed_77_multinomial_17_draws"]


@pytest.mark.parametrize("seed", [0, 11, 2**63 - 1])
def test_draws_are_those_of_the_generator_one_by_one(seed):
    """A seed gives the same reply in every version."""
    sampler, generator = Sampler(SamplingParams(seed=seed)), torch.Generator().manual_seed(seed)
    for _ in range(100):
        assert sampler.draw() == float(torch.rand((), generator=generator, dtype=torch.float64))
