"""Runners against the models they wrap, and ChatGLM's greedy replies against the reference."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from bianque.engine.engine import Engine
from bianque.engine.runner import ChatGLMRunner, T5Runner
from bianque.engine.sampler import Sampler
from bianque.engine.sampling import SamplingParams
from bianque.models.chatglm import ChatGLMConfig, ChatGLMForConditionalGeneration
from tests.golden import GOLDEN, requires_golden

# fp32 sums in another order.
TOLERANCE = 2e-4


@pytest.fixture(scope="module")
def chatglm():
    torch.manual_seed(0)
    config = ChatGLMConfig(
        vocab_size=120,
        hidden_size=32,
        num_layers=2,
        num_attention_heads=2,
        inner_hidden_size=64,
        max_sequence_length=64,
        bos_token_id=104,
        eos_token_id=105,
        mask_token_id=100,
        gmask_token_id=101,
        pad_token_id=3,
    )
    model = ChatGLMForConditionalGeneration(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4.0)  # away from the uniform attention of small random weights
    return model


@pytest.fixture(scope="module")
def t5():
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=120, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_decoder_layers=3, num_heads=4, eos_token_id=1
    )
    return T5ForConditionalGeneration(config).eval()


def full_logits(model, prompt, reply):
    """Return the logits after a prompt and a reply from one forward over everything."""
    with torch.inference_mode():
        if model.config.is_encoder_decoder:
            decoder_input_ids = torch.tensor([[0, *reply]])
            return model(input_ids=torch.tensor([prompt]), decoder_input_ids=decoder_input_ids).logits[0, -1]
        return model(torch.tensor([prompt + reply]), use_cache=False).logits[0, -1]


@pytest.mark.parametrize(
    "prompt", [[5, 6, 7, 101, 104], [9, 104, 8, 7, 101, 104], [101, 104]], ids=["plain", "literal_sop", "empty"]
)
def test_chatglm_steps_equal_one_forward_over_everything(chatglm, prompt):
    runner = ChatGLMRunner(chatglm)
    state, logits = runner.prefill(prompt)
    reply = []
    for token_id in (11, 12, 13, 14, 15):
        torch.testing.assert_close(logits, full_logits(chatglm, prompt, reply), atol=TOLERANCE, rtol=0)
        logits = runner.decode(state, token_id)
        reply.append(token_id)
    torch.testing.assert_close(logits, full_logits(chatglm, prompt, reply), atol=TOLERANCE, rtol=0)


def test_t5_steps_equal_one_forward_over_everything(t5):
    runner = T5Runner(t5)
    state, logits = runner.prefill([5, 6, 7, 1])
    reply = []
    for token_id in (11, 12, 13):
        torch.testing.assert_close(logits, full_logits(t5, [5, 6, 7, 1], reply), atol=TOLERANCE, rtol=0)
        logits = runner.decode(state, token_id)
        reply.append(token_id)


def test_sequences_do_not_share_state(chatglm):
    runner = ChatGLMRunner(chatglm)
    first, _ = runner.prefill([5, 101, 104])
    second, _ = runner.prefill([6, 7, 101, 104])
    runner.decode(second, 9)
    torch.testing.assert_close(
        runner.decode(first, 8), full_logits(chatglm, [5, 101, 104], [8]), atol=TOLERANCE, rtol=0
    )


def test_properties_come_from_the_model(chatglm, t5):
    glm, seq2seq = ChatGLMRunner(chatglm), T5Runner(t5, max_model_len=768)
    assert (glm.vocab_size, set(glm.eos_token_ids), glm.max_model_len, glm.is_encoder_decoder) == (
        120,
        {105},
        64,
        False,
    )
    assert (seq2seq.vocab_size, set(seq2seq.eos_token_ids), seq2seq.max_model_len) == (120, {1}, 768)
    assert list(glm.context_ids([4, 101, 104])) == [4, 101, 104]
    assert list(seq2seq.context_ids([4, 1])) == [0]


def test_logits_need_no_gradient(chatglm, t5):
    for runner in (ChatGLMRunner(chatglm), T5Runner(t5)):
        state, logits = runner.prefill([5, 101, 104])
        assert not logits.requires_grad
        assert not runner.decode(state, 7).requires_grad


def test_length_of_a_prompt_is_the_models(chatglm):
    with Engine(ChatGLMRunner(chatglm)) as engine:
        sequence = engine.submit([5] * 58 + [101, 104], SamplingParams(temperature=0))
        assert len(list(engine.stream(sequence))) == 4
        assert sequence.finish_reason == "length"


@pytest.fixture(scope="module")
def golden():
    return json.loads((GOLDEN / "golden_chatglm.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def golden_runner():
    return ChatGLMRunner(
        ChatGLMForConditionalGeneration.from_pretrained(GOLDEN / "chatglm", dtype=torch.float32).eval()
    )


@requires_golden
@pytest.mark.parametrize("num_slots", [1, 5])
def test_golden_chat_replies_through_the_engine(golden, golden_runner, num_slots):
    # The reference runs one token over the limit of 2048 for a prompt that is too long; here it is refused.
    cases = [case for case in golden["cases"] if case["n_prompt_ids"] < 2048]
    assert len(cases) == 17
    params = SamplingParams(temperature=0, max_new_tokens=2048)
    with Engine(golden_runner, num_slots=num_slots, max_waiting=20) as engine:
        sequences = [engine.submit(case["input_ids"], params) for case in cases]
        for case, sequence in zip(cases, sequences, strict=True):
            token_ids = list(engine.stream(sequence))
            if sequence.finish_reason == "stop":
                token_ids.append(2005)
            assert token_ids == case["chat_new_ids"], case["id"]
            assert sequence.finish_reason == ("length" if case["chat_stopped_by"] == "max_length" else "stop")


@requires_golden
def test_golden_last_logits(golden, golden_runner):
    from safetensors.torch import load_file

    arrays = load_file(GOLDEN / "golden_chatglm.safetensors")
    for case in golden["cases"]:
        _, logits = golden_runner.prefill(case["input_ids"])
        torch.testing.assert_close(logits, arrays[f"{case['id']}.last_logits"], atol=TOLERANCE, rtol=0, msg=case["id"])


@requires_golden
def test_golden_batch_rows_equal_sequences_run_side_by_side(golden, golden_runner):
    rows = [row for batch in golden["batches"] for row in batch["rows"] if row["generation_equals_single"]]
    prompts = [
        ids[row["n_pad"] :]
        for batch in golden["batches"]
        for ids, row in zip(batch["input_ids"], batch["rows"], strict=True)
        if row["generation_equals_single"]
    ]
    assert len(rows) >= 3
    with Engine(golden_runner, num_slots=len(rows), max_waiting=0) as engine:
        sequences = [
            engine.submit(prompt, SamplingParams(temperature=0, max_new_tokens=len(row["single_new_ids"])))
            for prompt, row in zip(prompts, rows, strict=True)
        ]
        for row, sequence in zip(rows, sequences, strict=True):
            streamed = list(engine.stream(sequence))
            assert streamed == [token_id for token_id in row["single_new_ids"] if token_id != 2005]


@requires_golden
def test_golden_draws_of_the_sampled_calls(golden, golden_runner):
    """The reference draws from the whole row with torch's generator; so does this, from our distribution."""
    prompt = golden["cases"][0]["input_ids"]
    num_checked = 0
    for config in golden["sampling"]["configs"]:
        if "seed_1234_ids" not in config or not config["logits_warpers"]:
            continue
        options = {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
        for step in config["logits_processors"] + config["logits_warpers"]:
            options |= {key: step[key] for key in options if key in step}
            if "penalty" in step:
                options["repetition_penalty"] = step["penalty"]
        params, generator = SamplingParams(**options), torch.Generator().manual_seed(1234)
        state, logits = golden_runner.prefill(prompt)
        reply = []
        while len(reply) < len(config["seed_1234_ids"]):
            probs = Sampler(params, prompt + reply).probabilities(logits).float()
            reply.append(int(torch.multinomial(probs, 1, generator=generator)))
            logits = golden_runner.decode(state, reply[-1])
        assert reply == config["seed_1234_ids"], config["name"]
        num_checked += 1
    assert num_checked == 6
