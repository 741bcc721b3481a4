"""transformers' T5 through this project's tokenizer and engine, against what the original computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import T5ForConditionalGeneration

from bianque.engine.engine import Engine
from bianque.engine.sampler import Sampler
from bianque.engine.sampling import SamplingParams
from bianque.engine.t5_runner import T5Runner
from bianque.models.t5_decoder import encode
from bianque.tokenization.t5 import BianQueT5Tokenizer
from tests.engine.conftest import prefill
from tests.golden import GOLDEN, requires_golden

FIXTURE = Path(__file__).parent.parent / "fixtures" / "t5"
# fp32 sums in another order: PyTorch's own and the kernels' differ from fp64 by up to 2.5e-4 and 1.8e-4 here.
LOGITS_TOLERANCE = 5e-4
START, EOS = 0, 1


def load_model(folder):
    return T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def fixture_model():
    return load_model(FIXTURE)


@pytest.fixture(scope="module")
def golden():
    return json.loads((GOLDEN / "golden_t5.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def golden_arrays():
    from safetensors.torch import load_file

    return load_file(GOLDEN / "golden_t5.safetensors")


@pytest.fixture(scope="module")
def golden_model():
    return load_model(GOLDEN / "t5")


def generate_all(model, prompts, params, *, num_slots=1):
    """Return what the engine streams for each prompt, with the start token before and the end token after it."""
    with Engine(T5Runner(model, num_slots=num_slots), max_waiting=len(prompts)) as engine:
        sequences = [engine.submit(prompt, params) for prompt in prompts]
        streamed = [list(engine.stream(sequence)) for sequence in sequences]
    return [
        [START, *token_ids, *([EOS] if sequence.finish_reason == "stop" else [])]
        for token_ids, sequence in zip(streamed, sequences, strict=True)
    ]


@pytest.mark.parametrize("num_slots", [1, 4])
def test_fixture_replies_equal_those_of_generate(fixture_model, num_slots):
    expected = json.loads((FIXTURE / "expected.json").read_text(encoding="utf-8"))
    tokenizer = BianQueT5Tokenizer.from_pretrained(FIXTURE)
    prompts = [tokenizer.encode(case["text"]) for case in expected]
    replies = generate_all(
        fixture_model, prompts, SamplingParams(temperature=0, max_new_tokens=48), num_slots=num_slots
    )
    assert replies == [case["greedy_output_ids"] for case in expected]
    assert [tokenizer.decode(reply) for reply in replies] == [case["greedy_text"] for case in expected]


def test_fixture_logits(fixture_model):
    runner = T5Runner(fixture_model)
    for case in json.loads((FIXTURE / "expected.json").read_text(encoding="utf-8")):
        logits = prefill(runner, 0, case["input_ids"])
        torch.testing.assert_close(logits, torch.tensor(case["first_logits"]), atol=LOGITS_TOLERANCE, rtol=0)


@requires_golden
def test_golden_greedy_replies(golden, golden_model):
    tokenizer = BianQueT5Tokenizer.from_pretrained(GOLDEN / "t5")
    prompts = [tokenizer.encode(case["preprocessed_text"], max_length=768) for case in golden["cases"]]
    replies = generate_all(golden_model, prompts, SamplingParams(temperature=0, max_new_tokens=512))
    for case, reply in zip(golden["cases"], replies, strict=True):
        assert reply == case["greedy_output_ids"], case["id"]
        assert tokenizer.decode(reply) == case["greedy_raw_text"], case["id"]


@requires_golden
def test_golden_greedy_replies_without_repeated_trigrams(golden, golden_model):
    prompts = [case["input_ids"] for case in golden["cases"]]
    params = SamplingParams(temperature=0, no_repeat_ngram_size=3, max_new_tokens=512)
    for case, reply in zip(golden["cases"], generate_all(golden_model, prompts, params, num_slots=3), strict=True):
        assert reply == case["greedy_ngram3_output_ids"], case["id"]


@requires_golden
def test_golden_batch_rows_equal_sequences_run_side_by_side(golden, golden_model):
    batch = golden["batch"]
    prompts = [
        [token_id for token_id, is_token in zip(ids, mask, strict=True) if is_token]
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    expected = [row["output_ids"] for row in batch["rows"]]
    params = SamplingParams(temperature=0, max_new_tokens=len(expected[0]) - 1)
    assert generate_all(golden_model, prompts, params, num_slots=3) == expected
    padded = golden_model.generate(
        torch.tensor(batch["input_ids"]),
        attention_mask=torch.tensor(batch["attention_mask"]),
        max_new_tokens=params.max_new_tokens,
        do_sample=False,
    )
    assert padded.tolist() == expected


@requires_golden
def test_golden_encoder_states_and_logits(golden, golden_model, golden_arrays):
    runner = T5Runner(golden_model)
    num_checked = 0
    for case in golden["cases"]:
        logits = prefill(runner, 0, case["input_ids"])
        encoded = golden_arrays.get(f"{case['id']}.encoder_last_hidden")
        if encoded is not None:
            with torch.inference_mode():
                hidden_states = prefill(encode(golden_model, torch.tensor([case["input_ids"]])))[0]
            torch.testing.assert_close(hidden_states, encoded, atol=LOGITS_TOLERANCE, rtol=0)
            num_checked += 1
        first = golden_arrays.get(f"{case['id']}.first_logits")
        if first is not None:
            torch.testing.assert_close(logits, first, atol=LOGITS_TOLERANCE, rtol=0)
            num_checked += 1
    assert num_checked == 13


@requires_golden
def test_golden_logits_step_by_step(golden, golden_model, golden_arrays):
    case = next(case for case in golden["cases"] if case["id"] == "two_turns")
    runner = T5Runner(golden_model)
    logits = prefill(runner, 0, case["input_ids"])
    steps = [logits, *(runner.decode([0], [token_id])[0] for token_id in case["greedy_output_ids"][1:16])]
    expected = golden_arrays["two_turns.teacher_forced_16_logits"]
    torch.testing.assert_close(torch.stack(steps), expected, atol=LOGITS_TOLERANCE, rtol=0)


@requires_golden
def test_golden_draws_of_the_sampled_call(golden, golden_model):
    """The reference draws from the whole row with torch's generator; so does this, from our distribution."""
    recorded = golden["sampling"][0]["seed_4321_first_24_ids"]
    prompt = next(case["input_ids"] for case in golden["cases"] if case["id"] == "two_turns")
    params = SamplingParams(temperature=0.7, top_k=50, top_p=1.0, no_repeat_ngram_size=3)
    runner = T5Runner(golden_model)
    generator = torch.Generator().manual_seed(4321)
    logits = prefill(runner, 0, prompt)
    reply = [START]
    while len(reply) < len(recorded):
        probs = Sampler(params, reply).probabilities(logits).float()
        reply.append(int(torch.multinomial(probs, 1, generator=generator)))
        (logits,) = runner.decode([0], [reply[-1]])
    assert reply == recorded
