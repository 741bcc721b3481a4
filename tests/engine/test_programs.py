"""Decode steps and prompts as programs of the CPU kernels, beside the plain path through the modules."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from bianque.cpu_kernels.build import load_kernels
from bianque.cpu_kernels.program import Program
from bianque.engine.batch_sampler import num_exact, sample_rows
from bianque.engine.chatglm_runner import ChatGLMRunner
from bianque.engine.sampler import Sampler
from bianque.engine.sampling import SamplingParams
from bianque.engine.t5_runner import T5Runner
from bianque.models.low_rank import LowRankLinear
from bianque.quantization.digit_layers import replace_tied_head
from bianque.quantization.half import replace_head
from bianque.quantization.linear import replace_linears, selects_linear
from tests.engine.conftest import prefill, tiny_chatglm

pytestmark = pytest.mark.skipif(load_kernels() is None, reason="needs AVX2 and a C compiler")

PROMPTS = {2: [5, 6, 7, 8, 9], 0: [11], 3: [12, 104, 13] * 4, 1: [14, 15]}
# int16 activations beside fp32 ones, on logits of a size of 2.
TOLERANCES = {None: 1e-4, 8: 3e-3, 4: 3e-3}


def tiny_t5(**changes):
    torch.manual_seed(0)
    sizes = {"vocab_size": 120, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 3}
    config = T5Config(**{**sizes, "num_heads": 4, "feed_forward_proj": "gated-gelu", "eos_token_id": 1, **changes})
    return T5ForConditionalGeneration(config).eval()


MODELS = {
    "chatglm": tiny_chatglm,
    "t5": tiny_t5,
    "t5 without a gate": partial(tiny_t5, feed_forward_proj="gelu", dense_act_fn="gelu_new", is_gated_act=False),
    "t5 with a scaled head": partial(tiny_t5, scale_decoder_outputs=True),
}


def make_model(name: str, bits: int | None, **changes):
    model = MODELS[name](**changes)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3.0)  # away from the uniform attention of small random weights
    if bits is not None:
        family = "chatglm" if name == "chatglm" else "t5"
        replace_linears(model, bits, device="cpu", dtype=torch.float32, select=selects_linear(family))
        if family == "chatglm":
            replace_tied_head(model)
        else:
            replace_head(model)
    return model


def make_runner(model, **options):
    if model.config.is_encoder_decoder:
        return T5Runner(model, max_prompt_len=20, max_new_tokens=20, **options)
    return ChatGLMRunner(model, **options)


def replay(runner) -> torch.Tensor:
    """Return the logits of prompts and steps of several sequences."""
    ending = [1] if runner.is_encoder_decoder else [101, 104]
    logits = [prefill(runner, slot, [*prompt, *ending])[None] for slot, prompt in PROMPTS.items()]
    for token_id in range(20, 26):
        slots = [2, 3] if token_id % 2 else [3, 0, 1, 2]
        logits.append(runner.decode(slots, [token_id + slot for slot in slots]))
    return torch.cat(logits)


@pytest.mark.parametrize("bits", [None, 8, 4])
@pytest.mark.parametrize("name", MODELS)
def test_gives_what_the_modules_give(name, bits):
    model = make_model(name, bits)
    runner, plain = make_runner(model), make_runner(model)
    assert runner._program is not None
    plain._program = None
    logits, expected = replay(runner), replay(plain)
    assert expected.std() > 0.3
    torch.testing.assert_close(logits, expected, atol=TOLERANCES[bits] * float(expected.std()), rtol=0)


@pytest.mark.parametrize("bits", [None, 8])
@pytest.mark.parametrize("name", ["chatglm", "t5"])
def test_a_row_is_bit_for_bit_the_same_alone_and_with_others(name, bits):
    model = make_model(name, bits)
    together, alone = make_runner(model), make_runner(model, num_slots=1)
    ending = [1] if name == "t5" else [101, 104]
    logits = {slot: prefill(together, slot, [*prompt, *ending]) for slot, prompt in PROMPTS.items()}
    steps = [together.decode([0, 1, 2, 3], [token_id] * 4) for token_id in (30, 31, 32)]
    for slot, prompt in PROMPTS.items():
        assert torch.equal(prefill(alone, 0, [*prompt, *ending]), logits[slot])
        for token_id, step in zip((30, 31, 32), steps, strict=True):
            assert torch.equal(alone.decode([0], [token_id])[0], step[slot])


@pytest.mark.parametrize("bits", [8, 4])
def test_the_logits_that_are_asked_for_are_those_of_a_full_step(bits):
    model = make_model("chatglm", bits, vocab_size=5000)
    runner, full = make_runner(model), make_runner(model)
    for one in (runner, full):
        for slot, prompt in PROMPTS.items():
            prefill(one, slot, [*prompt, 101, 104])
    num_estimates = 0
    for token_id, counts in ((30, [1, 58, 0, 5000]), (31, [7, 1, 300, 1]), (32, [1, 1, 1, 1])):
        slots = list(PROMPTS)
        logits, expected = runner.decode(slots, [token_id] * 4, counts), full.decode(slots, [token_id] * 4)
        assert torch.equal(full.decode([0], [9]), runner.decode([0], [9], [0]))
        for row, wanted, count in zip(logits, expected, counts, strict=True):
            smallest = wanted.topk(count or len(wanted)).values[-1]
            assert torch.equal(row[wanted >= smallest], wanted[wanted >= smallest])
            assert (row[wanted < smallest] < smallest).all()
            num_estimates += int((row != wanted).sum())
    assert num_estimates > 10_000, "something was saved"


CHOICES = (
    {"temperature": 0.0},
    {"top_k": 5, "top_p": 1.0},
    {"temperature": 0.0, "repetition_penalty": 1.3},
    {"top_k": 8, "no_repeat_ngram_size": 2, "temperature": 3.0},
)


def test_replies_are_those_of_full_steps():
    model = make_model("chatglm", 8, vocab_size=5000)
    replies = []
    for is_full in (False, True):
        runner, slots = make_runner(model), list(PROMPTS)
        for slot, prompt in PROMPTS.items():
            prefill(runner, slot, [*prompt, 101, 104])
        samplers = [Sampler(SamplingParams(**choice, seed=1), PROMPTS[slot]) for slot, choice in enumerate(CHOICES)]
        token_ids, reply = [20, 21, 22, 23], []
        for _ in range(40):
            counts = None if is_full else [num_exact(sampler) for sampler in samplers]
            token_ids = sample_rows(samplers, runner.decode(slots, token_ids, counts))
            reply.append(token_ids)
        replies.append(reply)
    assert replies[0] == replies[1]


def test_logits_of_a_step_stay_when_the_next_one_runs():
    for name in ("chatglm", "t5"):
        runner = make_runner(make_model(name, 8))
        prefill(runner, 0, [5, 6, 101, 104])
        logits = runner.decode([0], [7])
        kept = logits.clone()
        runner.decode([0], [8])
        assert torch.equal(logits, kept)


@pytest.mark.parametrize("name", ["chatglm", "t5"])
def test_a_prompt_is_read_while_others_go_on(name):
    runner, quiet = (make_runner(make_model(name, 8)) for _ in range(2))
    for one in (runner, quiet):
        prefill(one, 0, [5, 6, 101, 104])
    rest = runner.prefill(1, [7, 8, 9, 101, 104])
    for token_id, _ in enumerate(rest, start=20):
        logits = runner.decode([0], [token_id])
        assert torch.equal(logits, quiet.decode([0], [token_id]))
    assert torch.equal(runner.decode([1], [9]), (prefill(quiet, 1, [7, 8, 9, 101, 104]), quiet.decode([1], [9]))[1])


@pytest.mark.parametrize("name", ["chatglm", "t5"])
def test_a_step_that_ran_out_of_memory_may_be_tried_again(name, monkeypatch):
    runner, other = (make_runner(make_model(name, 8)) for _ in range(2))
    for one in (runner, other):
        prefill(one, 0, [5, 6, 101, 104])
    run = Program.run

    def fail_at_the_end(program, num_rows):
        run(program, num_rows)
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Program, "run", fail_at_the_end)
        with pytest.raises(MemoryError):
            runner.decode([0], [7])
    assert torch.equal(runner.decode([0], [7]), other.decode([0], [7]))


def test_other_models_run_by_their_modules():
    def with_adapter():
        model = make_model("chatglm", 8)
        block = model.transformer.layers[1].attention
        layer = block.query_key_value
        block.query_key_value = LowRankLinear(layer, torch.zeros(2, 32), torch.zeros(96, 2))
        return model

    assert make_runner(tiny_t5(feed_forward_proj="relu"))._program is None
    assert make_runner(tiny_t5(d_ff=60))._program is None
    assert make_runner(with_adapter())._program is None
    assert make_runner(tiny_chatglm().bfloat16())._program is None
    assert make_runner(make_model("chatglm", 8), is_batched=True)._program is None
