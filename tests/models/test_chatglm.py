"""ChatGLM-6B of this project against what the original remote code computed, and against a slow independent reference.

The first half needs `../shared/golden`; the second half uses the fixtures that travel with the project.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from bianque.models.auto import register
from bianque.models.chatglm import ChatGLMConfig, ChatGLMForConditionalGeneration
from bianque.models.chatglm_positions import build_position_ids, build_prefix_mask, context_length
from tests.golden import GOLDEN, requires_golden

FIXTURE = Path(__file__).resolve().parent.parent / "fixtures" / "chatglm"
# The reference's own fp32 differs from its fp64 by up to 2.4e-5; each known mistake moves logits by 2e-4 or more.
TOLERANCE = 2e-4

register()


def load(folder: Path) -> ChatGLMForConditionalGeneration:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def golden():
    return json.loads((GOLDEN / "golden_chatglm.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def arrays():
    return load_file(GOLDEN / "golden_chatglm.safetensors")


@pytest.fixture(scope="module")
def model():
    return load(GOLDEN / "chatglm")


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(GOLDEN / "chatglm")


@pytest.fixture(scope="module")
def own_model():
    return load(FIXTURE)


@pytest.fixture(scope="module")
def expected():
    return json.loads((FIXTURE / "expected.json").read_text(encoding="utf-8"))


@requires_golden
def test_published_folders_are_read_without_remote_code(model, tokenizer):
    assert type(model) is ChatGLMForConditionalGeneration
    assert type(AutoConfig.from_pretrained(GOLDEN / "chatglm")) is ChatGLMConfig
    assert type(tokenizer).__name__ == "ChatGLMTokenizer"
    assert model.lm_head.weight is model.transformer.word_embeddings.weight


@requires_golden
def test_ids_positions_and_masks_equal_the_reference(golden, arrays, model, tokenizer):
    for case in golden["cases"]:
        input_ids = tokenizer(case["prompt"])["input_ids"]
        assert input_ids == case["input_ids"], case["id"]
        row = torch.tensor([input_ids])
        assert int(context_length(row, model.config)) == case["context_length"], case["id"]
        assert build_position_ids(row, model.config)[0].tolist() == case["position_ids"], case["id"]
        mask = build_prefix_mask(row, model.config).to(torch.uint8)
        assert hashlib.sha256(mask.numpy().tobytes()).hexdigest() == case["attention_mask_sha256"], case["id"]
        if case["attention_mask_in_safetensors"]:
            assert torch.equal(mask[0], arrays[f"{case['id']}.attention_mask"]), case["id"]


@requires_golden
@torch.inference_mode()
def test_last_logits_equal_the_reference(golden, arrays, model):
    worst = {}
    for case in golden["cases"]:
        logits = model(torch.tensor([case["input_ids"]]), logits_to_keep=1).logits[0, -1]
        worst[case["id"]] = float((logits - arrays[f"{case['id']}.last_logits"]).abs().max())
    print("largest logit differences:", {name: f"{value:.1e}" for name, value in worst.items()})
    assert max(worst.values()) <= TOLERANCE


@requires_golden
@torch.inference_mode()
def test_hidden_states_equal_the_reference(golden, arrays, model):
    case = golden["cases"][0]
    output = model(torch.tensor([case["input_ids"]]), output_hidden_states=True)
    assert (output.logits[0] - arrays["single_zh.all_logits"]).abs().max() <= TOLERANCE
    for index, hidden_states in enumerate(output.hidden_states):
        assert (hidden_states[0] - arrays[f"single_zh.hidden_{index}"]).abs().max() <= TOLERANCE, index


@requires_golden
def test_greedy_chats_equal_the_reference_token_for_token(golden, model, tokenizer):
    for case in golden["cases"]:
        input_ids = torch.tensor([case["input_ids"]])
        room = max(case["chat_max_length"] - input_ids.shape[1], 1)
        output = model.generate(input_ids, max_new_tokens=room, do_sample=False)
        assert output[0, input_ids.shape[1] :].tolist() == case["chat_new_ids"], case["id"]
        assert tokenizer.decode(case["chat_new_ids"]) == case["raw_decoded_BianQue2"], case["id"]


@requires_golden
def test_batches_equal_the_reference(golden, arrays, model, tokenizer):
    for batch in golden["batches"]:
        encoded = tokenizer([row["prompt"] for row in batch["rows"]], padding=True, return_tensors="pt")
        name = batch["id"]
        assert encoded["input_ids"].tolist() == batch["input_ids"], name
        assert encoded["position_ids"].tolist() == batch["position_ids"], name
        assert torch.equal(encoded["attention_mask"].to(torch.uint8), arrays[f"{name}.attention_mask"].to(torch.uint8))
        with torch.inference_mode():
            logits = model(**encoded).logits[:, -1]
        assert (logits - arrays[f"{name}.last_logits"]).abs().max() <= TOLERANCE
        longest = max(len(row["batch_new_ids_raw"]) for row in batch["rows"])
        output = model.generate(**encoded, max_new_tokens=longest, do_sample=False)
        for row, token_ids in zip(batch["rows"], output[:, encoded["input_ids"].shape[1] :].tolist(), strict=True):
            assert token_ids[: len(row["batch_new_ids_raw"])] == row["batch_new_ids_raw"], name


@torch.inference_mode()
def test_logits_equal_the_slow_reference(own_model, expected):
    for case in expected["cases"]:
        row = torch.tensor([case["input_ids"]])
        assert build_position_ids(row, own_model.config)[0].tolist() == case["position_ids"]
        logits = own_model(row, logits_to_keep=1).logits[0, -1]
        assert (logits - torch.tensor(case["last_logits"])).abs().max() <= TOLERANCE


def test_greedy_tokens_equal_the_slow_reference(own_model, expected):
    for case in expected["cases"]:
        row = torch.tensor([case["input_ids"]])
        num_new = len(case["greedy_ids"])
        output = own_model.generate(row, max_new_tokens=num_new, do_sample=False)
        assert output[0, row.shape[1] :].tolist() == case["greedy_ids"]


@torch.inference_mode()
def test_prefill_equals_step_by_step(own_model, expected):
    from transformers import DynamicCache

    case = max(expected["cases"], key=lambda each: len(each["greedy_ids"]))
    token_ids = case["input_ids"] + case["greedy_ids"][:8]
    whole = own_model(torch.tensor([token_ids])).logits[0]
    prompt = torch.tensor([case["input_ids"]])
    kv_cache = DynamicCache()
    positions = build_position_ids(prompt, own_model.config)
    steps = [own_model(prompt, position_ids=positions, cache=kv_cache).logits[0, -1]]
    newest = positions[..., -1:]
    for token_id in case["greedy_ids"][:8]:
        newest = newest + torch.tensor([[[0], [1]]])
        steps.append(own_model(torch.tensor([[token_id]]), position_ids=newest, cache=kv_cache).logits[0, -1])
    # The same sums in another order.
    assert (torch.stack(steps) - whole[len(case["input_ids"]) - 1 :]).abs().max() <= 1e-4


def test_batched_rows_equal_single_runs(own_model, expected):
    pad = own_model.config.pad_token_id
    rows = [case["input_ids"] for case in expected["cases"]]
    width = max(map(len, rows))
    batch = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    output = own_model.generate(batch, attention_mask=mask, max_new_tokens=12, do_sample=False)
    for row, token_ids in zip(rows, output[:, width:].tolist(), strict=True):
        single = own_model.generate(torch.tensor([row]), max_new_tokens=12, do_sample=False)[0, len(row) :].tolist()
        assert token_ids[: len(single)] == single


def test_loss_is_that_of_the_next_token(own_model, expected):
    row = torch.tensor([expected["cases"][0]["input_ids"]])
    labels = row.clone()
    labels[:, :3] = -100
    output = own_model(row, labels=labels)
    by_hand = torch.nn.functional.cross_entropy(output.logits[0, 2:-1], row[0, 3:])
    torch.testing.assert_close(output.loss, by_hand)


def test_gradients_reach_every_parameter(expected):
    model = load(FIXTURE).train()
    row = torch.tensor([expected["cases"][0]["input_ids"]])
    model(row, labels=row).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_saved_and_loaded_again(own_model, expected, tmp_path):
    own_model.save_pretrained(tmp_path)
    again = load(tmp_path)
    row = torch.tensor([expected["cases"][0]["input_ids"]])
    with torch.inference_mode():
        assert torch.equal(again(row).logits, own_model(row).logits)


def test_a_prompt_without_sop_is_refused(own_model):
    with pytest.raises(ValueError, match="<sop>"):
        own_model(torch.tensor([[7, 8, 9]]))
