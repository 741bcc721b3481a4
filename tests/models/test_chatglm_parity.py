"""ChatGLM against a slow float64 reference on the project's fixture, and against the original's recorded results."""

from __future__ import annotations

import hashlib

import pytest
import torch
from transformers import DynamicCache

from bianque.models.chatglm_positions import build_position_ids, build_prefix_mask, context_length, mask_position
from bianque.tokenization.chatglm import ChatGLMTokenizer
from tests.models.chatglm_data import SOURCES, load_model, reference

# fp32 is within 5e-5 of the references; the smallest known mistake (LayerNorm epsilon 1e-12) moves logits by 9e-4.
TOLERANCE = 2e-4


@pytest.fixture(scope="module", params=SOURCES)
def source(request):
    return request.param


@pytest.fixture(scope="module")
def data(source):
    return reference(source)


@pytest.fixture(scope="module")
def model(source):
    return load_model(source)


@pytest.fixture(scope="module")
def tokenizer(data):
    return ChatGLMTokenizer.from_pretrained(data.folder)


def largest_difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    assert actual.shape == expected.shape
    return (actual - expected).abs().max().item()


def test_positions_and_masks_equal_the_reference(data, model):
    for case in data.cases:
        ids = torch.tensor([case["input_ids"]])
        assert context_length(ids, model.config).item() == case["context_length"], case["id"]
        assert mask_position(ids, model.config).item() == case["gmask_or_mask_position"], case["id"]
        assert build_position_ids(ids, model.config)[0].tolist() == case["position_ids"], case["id"]
        hidden = build_prefix_mask(ids, model.config).to(torch.uint8)
        digest = hashlib.sha256(hidden.numpy().tobytes()).hexdigest()
        assert digest == case["attention_mask_sha256"], case["id"]


@torch.inference_mode()
def test_last_logits_equal_the_reference(data, model):
    differences = {}
    for case in data.cases:
        logits = model(torch.tensor([case["input_ids"]]), logits_to_keep=1).logits[0, -1]
        differences[case["id"]] = largest_difference(logits, data.arrays[f"{case['id']}.last_logits"])
    print("\n".join(f"{name}: {difference:.1e}" for name, difference in differences.items()))
    assert max(differences.values()) <= TOLERANCE, differences


@torch.inference_mode()
def test_all_logits_and_hidden_states_equal_the_reference(data, model):
    name = data.cases[0]["id"]
    output = model(torch.tensor([data.cases[0]["input_ids"]]), output_hidden_states=True)
    assert largest_difference(output.logits[0], data.arrays[f"{name}.all_logits"]) <= TOLERANCE
    assert len(output.hidden_states) == model.config.num_layers + 1
    for index, states in enumerate(output.hidden_states):
        assert largest_difference(states[0], data.arrays[f"{name}.hidden_{index}"]) <= TOLERANCE, index


def test_greedy_replies_equal_the_reference_token_for_token(data, model, tokenizer):
    for case in data.cases:
        ids = torch.tensor([case["input_ids"]])
        # A prompt at or beyond the limit gets exactly one new token, as from the original.
        max_new_tokens = max(case["chat_max_length"] - ids.shape[1], 1)
        new_ids = model.generate(ids, do_sample=False, max_new_tokens=max_new_tokens)[0, ids.shape[1] :].tolist()
        assert new_ids == case["chat_new_ids"], case["id"]
        assert tokenizer.decode(new_ids) == case["raw_decoded_BianQue2"], case["id"]


@torch.inference_mode()
def test_cached_steps_equal_one_pass_over_prompt_and_reply(data, model):
    case = data.cases[1]
    new_ids = case["chat_new_ids"][:8]
    prompt = torch.tensor([case["input_ids"]])
    whole = model(torch.tensor([case["input_ids"] + new_ids]), use_cache=False).logits[0, prompt.shape[1] - 1 :]
    cache = DynamicCache()
    steps = [model(prompt, cache=cache).logits[0, -1]]
    position_ids = build_position_ids(prompt, model.config)[..., -1:]
    for token_id in new_ids:
        position_ids = position_ids + torch.tensor([[0], [1]])
        steps.append(model(torch.tensor([[token_id]]), position_ids=position_ids, cache=cache).logits[0, -1])
    assert cache.get_seq_length() == prompt.shape[1] + len(new_ids)
    # The same sums in another order.
    assert largest_difference(torch.stack(steps), whole) <= 1e-4


def test_padded_batches_equal_the_reference(data, model, tokenizer):
    for batch in data.expected["batches"]:
        encoded = tokenizer([row["prompt"] for row in batch["rows"]], padding=True, return_tensors="pt")
        assert encoded["input_ids"].tolist() == batch["input_ids"]
        assert encoded["position_ids"].tolist() == batch["position_ids"]
        if (stored := data.arrays.get(f"{batch['id']}.attention_mask")) is not None:
            assert torch.equal(encoded["attention_mask"], stored.bool())
        with torch.inference_mode():
            logits = model(**encoded).logits
        assert logits.isfinite().all()
        if (stored := data.arrays.get(f"{batch['id']}.last_logits")) is not None:
            assert largest_difference(logits[:, -1], stored) <= TOLERANCE
        replies = [row["batch_new_ids_until_eos"] for row in batch["rows"]]
        length = max(map(len, replies))
        new_ids = model.generate(**encoded, do_sample=False, max_new_tokens=length)[:, encoded["input_ids"].shape[1] :]
        pad_id = model.config.pad_token_id
        assert new_ids.tolist() == [reply + [pad_id] * (length - len(reply)) for reply in replies]


@torch.inference_mode()
def test_batched_rows_equal_single_rows(data, model, tokenizer):
    rows = [row for row in data.expected["batches"][0]["rows"]]
    encoded = tokenizer([row["prompt"] for row in rows], padding=True, return_tensors="pt")
    batched = model(**encoded).logits
    for index, row in enumerate(rows):
        single = model(**tokenizer(row["prompt"], return_tensors="pt")).logits[0]
        # Padding changes the order of sums and nothing else.
        assert largest_difference(batched[index, -len(single) :], single) <= 1e-4


def test_a_plain_padding_mask_does_what_the_tokenizers_masks_do(data, model, tokenizer):
    rows = data.expected["batches"][0]["rows"]
    encoded = tokenizer([row["prompt"] for row in rows], padding=True, return_tensors="pt")
    padding_mask = (encoded["input_ids"] != model.config.pad_token_id).long()
    with torch.inference_mode():
        expected = model(**encoded).logits[:, -1]
        plain = model(encoded["input_ids"], attention_mask=padding_mask).logits[:, -1]
    assert torch.equal(plain, expected)
    settings = {"do_sample": False, "max_new_tokens": 6}
    full = model.generate(**encoded, **settings)
    assert torch.equal(model.generate(encoded["input_ids"], attention_mask=padding_mask, **settings), full)
    assert torch.equal(model.generate(encoded["input_ids"], **settings), full)
