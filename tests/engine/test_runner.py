"""Runners against the models they wrap, and ChatGLM's greedy replies against the reference."""

from __future__ import annotations

import json
import random

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from bianque.cpu_kernels.program import Program
from bianque.engine.chatglm_runner import ChatGLMRunner
from bianque.engine.cuda_graph import StepGraphs
from bianque.engine.engine import Engine
from bianque.engine.kv_cache import kv_cache_bytes
from bianque.engine.sampler import Sampler
from bianque.engine.sampling import SamplingParams
from bianque.engine.t5_runner import T5Runner
from bianque.models.chatglm import ChatGLMConfig, ChatGLMForConditionalGeneration
from tests.engine.conftest import prefill, tiny_chatglm
from tests.golden import GOLDEN, requires_golden

# fp32 sums in another order.
TOLERANCE = 2e-4


@pytest.fixture(scope="module")
def chatglm():
    model = tiny_chatglm()
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


@pytest.fixture(params=["rows", "batched"])
def is_batched(request):
    return request.param == "batched"


def make_runner(model, **options):
    if model.config.is_encoder_decoder:
        return T5Runner(model, max_prompt_len=20, max_new_tokens=20, **options)
    return ChatGLMRunner(model, **options)


def use_buckets(runner):
    """Run a batched runner's steps in the shapes of CUDA graphs, without recording any."""
    runner._graphs = StepGraphs(runner._batched_step, runner._caches[0].shape.max_len, runner.device)
    runner._graphs._can_record = False


@pytest.mark.parametrize(
    "prompt", [[5, 6, 7, 101, 104], [9, 104, 8, 7, 101, 104], [101, 104]], ids=["plain", "literal_sop", "empty"]
)
def test_chatglm_steps_equal_one_forward_over_everything(chatglm, prompt, is_batched):
    runner = ChatGLMRunner(chatglm, is_batched=is_batched)
    logits = prefill(runner, 2, prompt)
    reply = []
    for token_id in (11, 12, 13, 14, 15):
        torch.testing.assert_close(logits, full_logits(chatglm, prompt, reply), atol=TOLERANCE, rtol=0)
        (logits,) = runner.decode([2], [token_id])
        reply.append(token_id)
    torch.testing.assert_close(logits, full_logits(chatglm, prompt, reply), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["chatglm", "t5"])
@pytest.mark.parametrize("way", ["rows", "batched", "bucketed"])
def test_every_row_is_as_if_alone_while_others_join_leave_and_wait(name, way, request):
    """Sixty random steps: prompts that are run in the middle of others' steps, steps of some rows only, ends."""
    model = request.getfixturevalue(name)
    ending = [1] if name == "t5" else [101, 104]
    runner = make_runner(model, num_slots=4, is_batched=way != "rows")
    if way == "bucketed":
        use_buckets(runner)
    choose = random.Random(3)
    running, num_together = {}, 0
    for _ in range(60):
        free = [slot for slot in range(4) if slot not in running]
        joining = None
        if free and choose.random() < 0.4:
            joining = choose.choice(free)
            prompt = [choose.randrange(5, 90) for _ in range(choose.randrange(1, 12))] + ending
            rest = runner.prefill(joining, prompt)
            next(rest)  # the first layer only: the others' step comes in between
        if running:
            slots = choose.sample(sorted(running), choose.randrange(1, len(running) + 1))
            token_ids = [choose.randrange(5, 90) for _ in slots]
            num_together = max(num_together, len(slots))
            for slot, token_id, logits in zip(slots, token_ids, runner.decode(slots, token_ids), strict=True):
                running[slot][1].append(token_id)
                torch.testing.assert_close(logits, full_logits(model, *running[slot]), atol=TOLERANCE, rtol=0)
                if len(running[slot][1]) == 15:
                    runner.free(slot)
                    del running[slot]
        if joining is not None:
            torch.testing.assert_close(prefill(rest), full_logits(model, prompt, []), atol=TOLERANCE, rtol=0)
            running[joining] = (prompt, [])
    assert num_together == 4


def test_a_step_may_be_tried_again_after_it_failed(chatglm, t5, monkeypatch):
    for model in (chatglm, t5):
        runner = make_runner(model)
        for slot in (0, 1):
            prefill(runner, slot, [5 + slot, 101, 104])
        with monkeypatch.context() as patch:
            # A runner computes with programs of the kernels, or by the modules.
            patch.setattr(Program, "run", lambda program, num_rows: 1 / 0)
            patch.setattr(model.lm_head, "forward", lambda hidden_states: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                runner.decode([0, 1], [8, 9])
        (logits,) = runner.decode([1], [9])
        torch.testing.assert_close(logits, full_logits(model, [6, 101, 104], [9]), atol=TOLERANCE, rtol=0)


def test_a_slot_used_before_is_as_good_as_new(chatglm, t5, is_batched):
    for model in (chatglm, t5):
        runner = make_runner(model, num_slots=1, is_batched=is_batched)
        prefill(runner, 0, [5, 6, 7, 8, 9, 101, 104])
        runner.decode([0], [9])
        runner.free(0)
        prefill(runner, 0, [11, 101, 104])
        (logits,) = runner.decode([0], [12])
        torch.testing.assert_close(logits, full_logits(model, [11, 101, 104], [12]), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["chatglm", "t5"])
def test_what_is_not_finite_ends_with_its_sequence(name, request, is_batched):
    """A half-precision sequence that overflows leaves NaN in its slot; whoever comes next must not see it."""
    model = request.getfixturevalue(name)
    runner = make_runner(model, num_slots=2, is_batched=is_batched)
    if is_batched:
        use_buckets(runner)
    for cache in runner._caches:
        for stored in (*cache.keys, *cache.values):
            stored[0] = torch.nan
    prompt = [11, 101, 104]
    prefill(runner, 1, [5, 6, 7, 8, 9, 101, 104])
    torch.testing.assert_close(prefill(runner, 0, prompt), full_logits(model, prompt, []), atol=TOLERANCE, rtol=0)
    (logits,) = runner.decode([0], [12])
    torch.testing.assert_close(logits, full_logits(model, prompt, [12]), atol=TOLERANCE, rtol=0)


def test_properties_come_from_the_model(chatglm, t5):
    glm, seq2seq = ChatGLMRunner(chatglm), T5Runner(t5, max_prompt_len=77)
    assert (glm.vocab_size, set(glm.eos_token_ids), glm.max_prompt_len, glm.is_encoder_decoder) == (
        120,
        {105},
        64,
        False,
    )
    assert (seq2seq.vocab_size, set(seq2seq.eos_token_ids), seq2seq.max_prompt_len) == (120, {1}, 77)
    assert list(glm.context_ids([4, 101, 104])) == [4, 101, 104]
    assert list(seq2seq.context_ids([4, 1])) == [0]


def test_cache_takes_what_was_said_before(chatglm, t5):
    for model, runner in (
        (chatglm, ChatGLMRunner(chatglm, num_slots=3, max_len=50)),
        (t5, T5Runner(t5, num_slots=3, max_prompt_len=50, max_new_tokens=30)),
    ):
        said = kv_cache_bytes(
            model.config.to_dict(), num_slots=3, max_prompt_len=50, max_new_tokens=30, bytes_per_value=4
        )
        assert runner.kv_cache_bytes == said
        caches = [runner._cache] if model is chatglm else [runner._reply, runner._prompt]
        allocated = sum(tensor.nbytes for cache in caches for tensor in (*cache.keys, *cache.values))
        assert allocated == said


def test_published_sizes_of_the_cache():
    published = ChatGLMConfig().to_dict()
    assert kv_cache_bytes(published, num_slots=1, max_prompt_len=1, max_new_tokens=0, bytes_per_value=2) == 458_752
    with pytest.raises(ValueError, match="model_type"):
        kv_cache_bytes({"model_type": "bert"}, num_slots=1, max_prompt_len=1, max_new_tokens=0, bytes_per_value=2)


def test_logits_need_no_gradient(chatglm, t5):
    for model in (chatglm, t5):
        runner = make_runner(model)
        assert not prefill(runner, 0, [5, 101, 104]).requires_grad
        assert not runner.decode([0], [7]).requires_grad


def test_linear_layers_are_only_called(chatglm, t5):
    """A quantized layer has no `weight` of a linear layer's shape; it is a module to be called."""

    class Called(torch.nn.Module):
        def __init__(self, linear):
            super().__init__()
            self._call = linear.forward
            self.in_features = linear.in_features

        def forward(self, hidden_states):
            return self._call(hidden_states)

    for model, prompt in ((chatglm, [5, 101, 104]), (t5, [5, 6, 1])):
        layers = model.transformer.layers if model is chatglm else model.decoder.block
        plain = [prefill(make_runner(model), 0, prompt)]
        originals = []
        for parent in list(layers.modules()):
            for name, child in list(parent.named_children()):
                # T5's feed-forward block is transformers' own and looks at the dtype of `wo`.
                if isinstance(child, torch.nn.Linear) and name != "wo":
                    originals.append((parent, name, child))
                    setattr(parent, name, Called(child))
        try:
            runner = make_runner(model)
            torch.testing.assert_close(prefill(runner, 0, prompt), plain[0])
            runner.decode([0], [7])
        finally:
            for parent, name, child in originals:
                setattr(parent, name, child)
        assert originals


def test_length_of_a_prompt_is_the_models(chatglm):
    with Engine(ChatGLMRunner(chatglm)) as engine:
        sequence = engine.submit([5] * 58 + [101, 104], SamplingParams(temperature=0))
        assert len(list(engine.stream(sequence))) == 4
        assert sequence.finish_reason == "length"


@pytest.fixture(scope="module")
def golden():
    return json.loads((GOLDEN / "golden_chatglm.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def golden_model():
    return ChatGLMForConditionalGeneration.from_pretrained(GOLDEN / "chatglm", dtype=torch.float32).eval()


@pytest.fixture
def golden_runner(golden_model):
    return ChatGLMRunner(golden_model)


@requires_golden
@pytest.mark.parametrize("num_slots", [1, 5])
def test_golden_chat_replies_through_the_engine(golden, golden_model, num_slots):
    # The reference runs one token over the limit of 2048 for a prompt that is too long; here it is refused.
    cases = [case for case in golden["cases"] if case["n_prompt_ids"] < 2048]
    assert len(cases) == 17
    params = SamplingParams(temperature=0, max_new_tokens=2048)
    with Engine(ChatGLMRunner(golden_model, num_slots=num_slots), max_waiting=20) as engine:
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
        if case["n_prompt_ids"] > 2048:
            continue  # the engine refuses it
        logits = prefill(golden_runner, 0, case["input_ids"])
        torch.testing.assert_close(logits, arrays[f"{case['id']}.last_logits"], atol=TOLERANCE, rtol=0, msg=case["id"])


@requires_golden
def test_golden_batch_rows_equal_sequences_run_side_by_side(golden, golden_model):
    rows = [row for batch in golden["batches"] for row in batch["rows"] if row["generation_equals_single"]]
    prompts = [
        ids[row["n_pad"] :]
        for batch in golden["batches"]
        for ids, row in zip(batch["input_ids"], batch["rows"], strict=True)
        if row["generation_equals_single"]
    ]
    assert len(rows) >= 3
    with Engine(ChatGLMRunner(golden_model, num_slots=len(rows)), max_waiting=0) as engine:
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
        logits = prefill(golden_runner, 0, prompt)
        reply = []
        while len(reply) < len(config["seed_1234_ids"]):
            probs = Sampler(params, prompt + reply).probabilities(logits).float()
            reply.append(int(torch.multinomial(probs, 1, generator=generator)))
            (logits,) = golden_runner.decode([0], [reply[-1]])
        assert reply == config["seed_1234_ids"], config["name"]
        num_checked += 1
    assert num_checked == 6


@pytest.mark.parametrize("name", ["chatglm", "t5"])
def test_warming_up_runs_every_number_of_rows_and_leaves_no_trace(name, request, monkeypatch):
    model = request.getfixturevalue(name)
    runner, fresh = (make_runner(model, num_slots=6, is_batched=True) for _ in range(2))
    use_buckets(runner)
    shapes = []
    run = runner._graphs.run
    monkeypatch.setattr(
        runner._graphs, "run", lambda inputs, length: shapes.append(len(inputs)) or run(inputs, length)
    )
    runner.warm_up()
    assert shapes == [1, 2, 4, 6]
    prompts = {slot: [5 + slot, 9, 101, 104] for slot in (0, 3, 5)}
    for slot, prompt in prompts.items():
        torch.testing.assert_close(prefill(runner, slot, prompt), prefill(fresh, slot, prompt))
    for _ in range(3):
        decoded = [one.decode(list(prompts), [7, 8, 9]) for one in (runner, fresh)]
        torch.testing.assert_close(*decoded, atol=TOLERANCE, rtol=0)
    assert set(shapes[4:]) <= {1, 2, 4, 6}, "a step of another size was left for the visitors"
