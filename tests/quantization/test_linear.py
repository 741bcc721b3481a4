"""The quantized layer and the replacement of a model's linears by it."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from bianque.models.chatglm import ChatGLMConfig, ChatGLMForConditionalGeneration
from bianque.quantization.half import HalfLinear, replace_head
from bianque.quantization.linear import QuantizedLinear, replace_linears, selects_linear
from bianque.quantization.scheme import dequantize, quantize
from tests.models.chatglm_data import OWN_FOLDER


def make_layer(
    bits: int, *, rows: int = 24, columns: int = 64, bias: bool = True
) -> tuple[QuantizedLinear, torch.Tensor]:
    generator = torch.Generator().manual_seed(bits)
    weight = torch.randn(rows, columns, generator=generator)
    layer = QuantizedLinear(columns, rows, bits=bits, bias=bias, device="cpu", dtype=torch.float32)
    layer.load_weight(weight)
    if bias:
        layer.bias.copy_(torch.randn(rows, generator=generator))
    return layer, weight


@pytest.mark.parametrize("bits", [8, 4])
def test_computes_with_the_dequantized_weight(bits):
    layer, weight = make_layer(bits)
    hidden_states = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(3))
    expected = hidden_states @ dequantize(*quantize(weight, bits), bits, torch.float32).T + layer.bias
    # Published weights are rounded to fp16 once more, 2e-4 of each; the CPU kernel leaves that out.
    assert torch.allclose(layer(hidden_states), expected, atol=1e-3 * expected.abs().max())


@pytest.mark.parametrize("bits", [8, 4])
def test_gives_back_what_was_loaded(bits):
    layer, weight = make_layer(bits)
    other = QuantizedLinear(64, 24, bits=bits, bias=False, device="cpu", dtype=torch.float32)
    other.load_quantized(*layer.quantized())
    for got, expected in zip(other.quantized(), quantize(weight, bits), strict=True):
        assert got.dtype == expected.dtype and torch.equal(got, expected)


@pytest.mark.parametrize("bits", [8, 4])
def test_holds_no_more_than_the_stored_arrays(bits):
    layer, weight = make_layer(bits, bias=False)
    reference = weakref.ref(weight)
    del weight
    gc.collect()
    assert reference() is None
    held = sum(buffer.untyped_storage().nbytes() for buffer in layer.buffers())
    assert held == 24 * 64 * bits // 8 + 24 * 2


def test_takes_no_memory_before_it_is_loaded():
    layer = QuantizedLinear(1 << 20, 1 << 20, bits=8, bias=False, device="cpu", dtype=torch.float32)  # 1 TB if it did
    assert layer.weight.is_meta


def test_a_layer_built_on_the_meta_device_is_loaded_where_the_weight_is():
    with torch.device("meta"):
        layer = QuantizedLinear(8, 4, bits=8, bias=False, device="meta", dtype=torch.float32)
    layer.load_weight(torch.ones(4, 8))
    assert torch.allclose(layer(torch.ones(1, 8)), torch.full((1, 4), 8.0), rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_casting_the_model_leaves_integers_and_scales(dtype):
    layer, weight = make_layer(8)
    model = nn.Sequential(layer).to(dtype)
    for got, expected in zip(layer.quantized(), quantize(weight, 8), strict=True):
        assert torch.equal(got, expected)
    assert layer.bias.dtype == dtype
    assert model(torch.ones(1, 64, dtype=dtype)).dtype == dtype


def test_gradients_reach_the_input():
    layer, weight = make_layer(8)
    hidden_states = torch.ones(1, 64, requires_grad=True)
    layer(hidden_states).sum().backward()
    expected = dequantize(*quantize(weight, 8), 8, torch.float32).sum(dim=0)
    assert torch.allclose(hidden_states.grad[0], expected, atol=1e-4)


def test_misshapen_arrays_are_refused():
    layer, _ = make_layer(4)
    integers, scale = layer.quantized()
    with pytest.raises(ValueError, match=r"weight must be \(24, 64\)"):
        layer.load_weight(torch.ones(64, 24))
    with pytest.raises(ValueError, match="weight must be"):
        layer.load_quantized(integers[:, 1:], scale)
    with pytest.raises(ValueError, match="scale must be"):
        layer.load_quantized(integers, scale.float())
    with pytest.raises(ValueError, match="4 or 8"):
        QuantizedLinear(8, 8, bits=5, bias=False, device="cpu", dtype=torch.float32)
    with pytest.raises(ValueError, match="even"):
        QuantizedLinear(7, 8, bits=4, bias=False, device="cpu", dtype=torch.float32)


def test_replaces_the_published_linears_and_nothing_else():
    model = ChatGLMForConditionalGeneration.from_pretrained(OWN_FOLDER, dtype=torch.float16)
    first = model.transformer.layers[0].attention.dense
    weight, bias = first.weight.clone(), first.bias.clone()
    names = replace_linears(model, 8, device="cpu", dtype=torch.float32, select=selects_linear("chatglm"))
    assert len(names) == 4 * model.config.num_layers
    assert {name.rpartition(".")[2] for name in names} == {
        "query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"
    }  # fmt: skip
    assert type(model.lm_head) is nn.Linear
    replaced = model.get_submodule("transformer.layers.0.attention.dense")
    assert torch.equal(replaced.quantized()[0], quantize(weight, 8)[0])
    assert torch.equal(replaced.bias, bias.float())


def test_replaces_every_linear_of_t5_blocks():
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=32, d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    model = T5ForConditionalGeneration(config).eval()
    names = replace_linears(model, 8, device="cpu", dtype=torch.float32, select=selects_linear("t5"))
    left = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert left == ["lm_head"] and len(names) == 2 * (4 + 3) + 2 * (8 + 3)
    with torch.inference_mode():
        assert model(input_ids=torch.tensor([[5, 1]]), decoder_input_ids=torch.tensor([[0]])).logits.isfinite().all()


def test_a_meta_model_stays_on_the_meta_device_until_it_is_loaded():
    config = ChatGLMConfig(vocab_size=40, hidden_size=16, num_layers=1, num_attention_heads=2, inner_hidden_size=32)
    with torch.device("meta"):
        model = ChatGLMForConditionalGeneration(config)
    names = replace_linears(model, 4, device="cpu", dtype=torch.float32, select=selects_linear("chatglm"))
    replace_head(model)
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    layer = model.get_submodule(names[0])
    layer.load_weight(torch.ones(48, 16))
    assert layer.weight.device.type == "cpu" and layer.bias.is_meta


def test_a_half_head_computes_in_fp32_and_keeps_its_dtype():
    model = ChatGLMForConditionalGeneration.from_pretrained(OWN_FOLDER, dtype=torch.float32).eval()
    prompt = torch.tensor([[5, 6, 7, model.config.gmask_token_id, model.config.bos_token_id]])
    with torch.inference_mode():
        expected = model(prompt).logits
    head = replace_head(model)
    model.to(torch.float32)
    assert isinstance(model.lm_head, HalfLinear) and head.weight.dtype == torch.float16
    with torch.inference_mode():
        logits = model(prompt).logits
    assert logits.dtype == torch.float32
    # The fixture's weights are stored in fp16, so that only the order of additions differs.
    assert torch.allclose(logits, expected, atol=1e-4)


def test_a_half_head_shares_an_fp16_weight_and_refuses_another_shape():
    head = HalfLinear(16, 32)
    assert head.weight.is_meta
    weight = torch.randn(32, 16).half()
    head.load_weight(weight)
    assert head.weight.data_ptr() == weight.data_ptr()
    with pytest.raises(ValueError, match="weight must be"):
        head.load_weight(weight.T)


def test_gradients_pass_a_half_head():
    head = HalfLinear(16, 32)
    head.load_weight(torch.ones(32, 16))
    hidden_states = torch.ones(1, 16, requires_grad=True)
    head(hidden_states).sum().backward()
    assert (hidden_states.grad == 32).all()
