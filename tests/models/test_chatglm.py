"""What the ChatGLM model does beyond parity: forms of input, loading, training, generation settings."""

from __future__ import annotations

import copy
import json
import logging
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import DynamicCache

from bianque.models.chatglm import ChatGLMConfig, ChatGLMForConditionalGeneration, build_rotary_table
from bianque.models.chatglm_positions import build_position_ids, build_prefix_mask
from tests.models.chatglm_data import OWN_FOLDER, load_model, reference


@pytest.fixture(scope="module")
def model():
    return load_model("own")


@pytest.fixture(scope="module")
def prompt():
    return torch.tensor([reference("own").case("multi_turn")["input_ids"]])


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(OWN_FOLDER, tmp_path / "copy")
    return tmp_path / "copy"


def stored_tensors() -> dict[str, torch.Tensor]:
    """Return the fixture's tensors as the shards hold them."""
    tensors = {}
    for path in sorted(OWN_FOLDER.glob("*.bin")):
        tensors |= torch.load(path, weights_only=True)
    return tensors


# --- forms of input ---------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_context_is_read_in_both_directions_and_the_reply_is_not(model, prompt):
    base = model(prompt).logits
    changed = prompt.clone()
    changed[0, 10] += 1
    assert not torch.allclose(model(changed).logits[0, 5], base[0, 5])  # an earlier token sees the change
    reply = torch.cat((prompt, torch.tensor([[7, 8]])), dim=1)
    assert torch.allclose(
        model(reply).logits[0, : prompt.shape[1]], base[0], atol=1e-5
    )  # <sop> does not see the reply


@torch.inference_mode()
def test_explicit_masks_and_positions_change_nothing(model, prompt):
    expected = model(prompt).logits
    explicit = model(
        prompt,
        attention_mask=build_prefix_mask(prompt, model.config),
        position_ids=build_position_ids(prompt, model.config),
    ).logits
    assert torch.equal(explicit, expected)


@torch.inference_mode()
def test_several_tokens_after_a_cached_prompt_equal_single_steps(model, prompt):
    new_ids = torch.tensor([[7, 8, 9]])
    position_ids = build_position_ids(torch.cat((prompt, new_ids), dim=1), model.config)[..., -3:]
    whole = model(torch.cat((prompt, new_ids), dim=1)).logits[:, -3:]
    cache = DynamicCache()
    model(prompt, cache=cache)
    together = model(new_ids, position_ids=position_ids, cache=cache).logits
    assert torch.allclose(together, whole, atol=1e-4)  # the same sums in another order


@torch.inference_mode()
def test_tokens_after_a_cached_prompt_need_positions(model, prompt):
    cache = DynamicCache()
    model(prompt, cache=cache)
    with pytest.raises(ValueError, match="position_ids"):
        model(torch.tensor([[7]]), cache=cache)


@pytest.mark.parametrize(
    "mask",
    [
        torch.ones(1, 3, dtype=torch.long),
        torch.zeros(1, 1, 3, 3, dtype=torch.bool),
        torch.zeros(1, 1, 42, 42),
        torch.zeros(42, 42, dtype=torch.bool)[None],
    ],
)
def test_masks_of_another_form_are_refused(model, prompt, mask):
    assert prompt.shape == (1, 42)
    with pytest.raises(ValueError, match="attention_mask"):
        model(prompt, attention_mask=mask)


def test_a_prompt_without_its_special_tokens_is_refused(model):
    with pytest.raises(ValueError, match="<sop>"):
        model(torch.tensor([[7, 8]]))
    with pytest.raises(ValueError, match="gMASK"):
        model(torch.tensor([[7, model.config.bos_token_id]]))


def test_no_row_of_the_attention_is_empty(model):
    # A softmax over nothing is NaN in some kernels, and NaN values spread even where their weight is 0.
    ids = torch.tensor([[3, 3, 10, model.config.gmask_token_id, model.config.bos_token_id]])
    mask = build_prefix_mask(ids, model.config, (ids != 3).long())
    for form in (mask, (ids != 3).long()):
        assert model.transformer._visible(form, ids, 0).any(dim=-1).all()


@torch.inference_mode()
def test_logits_to_keep_gives_the_last_ones(model, prompt):
    assert torch.allclose(model(prompt, logits_to_keep=2).logits, model(prompt).logits[:, -2:], atol=1e-5)


@torch.inference_mode()
def test_a_sequence_may_be_longer_than_the_rotary_table(prompt):
    model = copy.deepcopy(load_model("own"))
    expected = model(prompt).logits
    model.config.max_sequence_length = 8
    model.transformer._rotary_table = None
    assert torch.equal(model(prompt).logits, expected)


def test_rotary_frequencies_are_rounded_to_half_precision():
    # 10000^(-2/8) = 0.1 is 0.0999755859375 in fp16: at position 2000 the angle is off by 0.05.
    table = build_rotary_table(2001, 16)
    assert table[2000, 0, 1].item() == pytest.approx(math.cos(2000 * 0.0999755859375), abs=1e-5)


# --- loading and saving -----------------------------------------------------------------------------------------


def test_published_layout_loads_without_a_word(caplog):
    caplog.set_level(logging.WARNING, logger="transformers")
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        model, info = ChatGLMForConditionalGeneration.from_pretrained(OWN_FOLDER, output_loading_info=True)
    finally:
        logger.removeHandler(caplog.handler)
    assert not any(info.values()), info
    assert not caplog.records
    assert model.dtype == torch.float16  # what the configuration says
    assert model.lm_head.weight is model.transformer.word_embeddings.weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_every_dtype_computes_nearly_the_same(prompt, dtype):
    model = ChatGLMForConditionalGeneration.from_pretrained(OWN_FOLDER, dtype=dtype).eval()
    assert model.dtype == dtype
    expected = load_model("own")(prompt).logits[0, -1]
    difference = (model(prompt).logits[0, -1].float() - expected).abs().max()
    # bf16 keeps 8 bits: of logits up to 10, rounding alone is 0.03, and errors add up over three layers.
    assert difference <= {torch.float32: 0, torch.bfloat16: 0.5, torch.float16: 0.06}[dtype]


@torch.inference_mode()
def test_safetensors_give_what_pickled_shards_give(folder, model, prompt):
    for path in folder.glob("*.bin*"):
        path.unlink()
    save_file(stored_tensors(), folder / "model.safetensors", metadata={"format": "pt"})
    loaded = ChatGLMForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    assert torch.equal(loaded(prompt).logits, model(prompt).logits)


@torch.inference_mode()
def test_saving_and_loading_keeps_everything(tmp_path, model, prompt):
    model.save_pretrained(tmp_path)
    assert "transformer.layers.2.attention.query_key_value.weight" in load_file(tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["inner_hidden_size"] == 96 and config["layernorm_epsilon"] == 1e-5
    loaded = ChatGLMForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(prompt).logits, model(prompt).logits)
    assert loaded.lm_head.weight is loaded.transformer.word_embeddings.weight


@torch.inference_mode()
def test_a_stored_head_never_replaces_the_embedding(folder, model, prompt):
    path = folder / "pytorch_model-00002-of-00002.bin"
    tensors = torch.load(path, weights_only=True)
    tensors["lm_head.weight"] = tensors["lm_head.weight"] + 1
    torch.save(tensors, path)
    loaded = ChatGLMForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    assert torch.equal(loaded(prompt).logits, model(prompt).logits)


@torch.inference_mode()
def test_the_model_can_be_built_on_the_meta_device(model, prompt):
    with torch.device("meta"):
        empty = ChatGLMForConditionalGeneration(model.config)
    assert not list(empty.buffers())  # nothing that assigning the weights would leave empty
    state = {name: tensor.float() for name, tensor in stored_tensors().items() if not name.endswith("inv_freq")}
    empty.load_state_dict(state, assign=True)
    empty.tie_weights()
    assert torch.equal(empty.eval()(prompt).logits, model(prompt).logits)


# --- training ---------------------------------------------------------------------------------------------------


def test_loss_compares_each_token_with_the_next_label(model, prompt):
    labels = prompt.clone()
    labels[0, :30] = -100
    output = model(prompt, labels=labels)
    by_hand = [functional.cross_entropy(output.logits[0, t], prompt[0, t + 1]) for t in range(29, 41)]
    assert output.loss.item() == pytest.approx(torch.stack(by_hand).mean().item(), rel=1e-5)
    summed = model(prompt, labels=labels, num_items_in_batch=torch.tensor(48)).loss
    assert summed.item() == pytest.approx(output.loss.item() * 12 / 48, rel=1e-5)


def test_every_parameter_gets_the_same_gradient_with_checkpointing(prompt):
    gradients = []
    for checkpointing in (False, True):
        model = copy.deepcopy(load_model("own")).train()
        if checkpointing:
            model.activation_checkpointing_enable()
        output = model(prompt, labels=prompt)
        assert output.cache is None  # a cache would hold every layer's keys until the backward pass
        output.loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert all(gradient is not None and gradient.any() for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        assert torch.equal(gradients[1][name], gradient), name


def test_a_fresh_model_learns(prompt):
    torch.manual_seed(0)
    config = ChatGLMConfig(**{**load_model("own").config.to_dict(), "dtype": "float32"})
    model = ChatGLMForConditionalGeneration(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss = model(prompt, labels=prompt).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(config.vocab_size), rel=0.2)  # no better than a guess
    assert losses[-1] < losses[0] / 2


# --- generation -------------------------------------------------------------------------------------------------


def test_sampling_follows_the_seed(model, prompt):
    settings = {"do_sample": True, "top_p": 0.9, "temperature": 2.0, "max_new_tokens": 8, "num_return_sequences": 3}
    torch.manual_seed(3)
    first = model.generate(prompt, **settings)
    torch.manual_seed(3)
    assert torch.equal(model.generate(prompt, **settings), first)
    assert len({tuple(row) for row in first.tolist()}) == 3  # 8 tokens at temperature 2 do not repeat by chance


def test_generation_without_cache_equals_generation_with_it(model, prompt):
    settings = {"do_sample": False, "max_new_tokens": 8}
    assert torch.equal(model.generate(prompt, use_cache=False, **settings), model.generate(prompt, **settings))


@torch.inference_mode()
def test_beam_search_finds_a_reply_at_least_as_likely_as_the_greedy_one(model, prompt):
    def log_likelihood(sequence: torch.Tensor) -> float:
        logits = model(sequence).logits[:, prompt.shape[1] - 1 : -1].log_softmax(-1)
        return logits.gather(-1, sequence[:, prompt.shape[1] :, None]).sum().item()

    settings = {"do_sample": False, "max_new_tokens": 6}
    beams = model.generate(prompt, num_beams=4, **settings)
    assert log_likelihood(beams) >= log_likelihood(model.generate(prompt, **settings))


def test_a_cache_can_be_continued(model, prompt):
    settings = {"do_sample": False, "return_dict_in_generate": True}
    whole = model.generate(prompt, max_new_tokens=8, **settings).sequences
    half = model.generate(prompt, max_new_tokens=4, **settings)
    continued = model.generate(half.sequences, cache=half.cache, max_new_tokens=4, **settings).sequences
    assert torch.equal(continued, whole)


def test_a_pad_id_that_a_user_wrote_is_a_token(model):
    case = reference("own").case("special_literals")
    assert model.config.pad_token_id in case["input_ids"]
    ids = torch.tensor([case["input_ids"]])
    output = model.generate(
        torch.cat((ids, ids)), do_sample=False, max_new_tokens=1, output_logits=True, return_dict_in_generate=True
    )
    expected = reference("own").arrays["special_literals.last_logits"]
    assert torch.allclose(output.logits[0], expected.expand(2, -1), atol=2e-4)  # the tolerance of the parity tests
