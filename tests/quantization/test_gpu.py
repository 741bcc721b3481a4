"""Products on a CUDA device: each backend's numbers, graphs, memory, and the reference logits."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from bianque.models.chatglm import ChatGLMForConditionalGeneration
from bianque.quantization import cuda
from bianque.quantization.linear import QuantizedLinear, replace_linears, selects_linear
from bianque.quantization.scheme import dequantize
from tests.golden import GOLDEN, requires_golden

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SHAPES = [(1, 4096, 12288), (1, 16384, 4096), (3, 4096, 4096), (8, 4096, 16384), (64, 1024, 2816), (200, 4096, 4096)]


@pytest.fixture(autouse=True)
def chosen_afresh(monkeypatch):
    monkeypatch.setattr(cuda, "_chooser", cuda._Chooser())


def make_layer(in_features, out_features, bits, dtype):
    torch.manual_seed(0)
    layer = QuantizedLinear(in_features, out_features, bits=bits, bias=True, device="cuda", dtype=dtype)
    layer.load_weight(torch.randn(out_features, in_features) * 0.02)
    torch.nn.init.normal_(layer.bias)
    return layer


def require(name, batch, layer, dtype):
    kind = cuda.Kind(layer.weight.device, dtype, layer.bits, batch, layer.in_features, layer.out_features)
    if not cuda.can_compute(name, kind):
        pytest.skip(f"{name} does not compute {kind}")


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", cuda.BACKENDS)
def test_products_agree_with_the_unpacked_weight(name, shape, bits, dtype):
    batch, in_features, out_features = shape
    layer = make_layer(in_features, out_features, bits, dtype)
    require(name, batch, layer, dtype)
    x = torch.randn(batch, in_features, device="cuda", dtype=dtype)
    x[:, 5] *= 60
    x[-1] *= 100
    weight = dequantize(layer.weight, layer.weight_scale, bits, torch.float32)
    expected = torch.nn.functional.linear(x.float(), weight, layer.bias.float())
    product = cuda._PRODUCTS[name](x, layer.weight, layer.weight_scale, layer.bias, bits).float()
    errors = (product - expected).norm(dim=1) / expected.norm(dim=1)
    # Rounding of the result: 0.0003 in fp16, 0.002 in bf16. cpm's two digits add 0.001, bf16 weights of torch 0.002.
    assert errors.max() < (0.003 if dtype == torch.float16 else 0.006)
    others = x.clone()
    others[1:] *= 2
    again = cuda._PRODUCTS[name](others, layer.weight, layer.weight_scale, layer.bias, bits).float()
    assert torch.equal(again[0], product[0])


@pytest.mark.parametrize("name", ["triton", "cpm"])
def test_fast_backends_pass_their_trial_where_they_apply(name):
    """A backend that is made for this card and does not come up would only be a line in the log."""
    layer = make_layer(4096, 4096, 8, torch.float16)
    for batch in (1, 8):
        require(name, batch, layer, torch.float16)
        kind = cuda.Kind(layer.weight.device, torch.float16, 8, batch, 4096, 4096)
        assert name in cuda.try_backends([name, "torch"], kind, layer.weight, layer.weight_scale)


@torch.inference_mode()
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("name", cuda.BACKENDS)
def test_a_captured_product_replays_with_new_values(name, batch, bits):
    layer = make_layer(4096, 4096, bits, torch.float16)
    require(name, batch, layer, torch.float16)
    cuda.prefer(name)
    x = torch.randn(batch, 4096, device="cuda", dtype=torch.float16)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        layer(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = layer(x)
    x.copy_(torch.randn_like(x))
    graph.replay()
    torch.testing.assert_close(captured, layer(x), rtol=0, atol=0)


@torch.inference_mode()
@pytest.mark.parametrize("bits", [8, 4])
def test_a_layer_takes_no_more_than_its_integers(bits):
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    layer = make_layer(4096, 16384, bits, torch.float16)
    stored = 4096 * 16384 * bits // 8
    assert torch.cuda.memory_allocated() - before <= stored * 1.01 + 2**20
    x = torch.randn(1, 4096, device="cuda", dtype=torch.float16)
    layer(x)  # the trial unpacks
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    layer(x)
    chosen = next(iter(cuda._chooser._chosen.values()))
    if chosen != "torch":
        assert torch.cuda.max_memory_allocated() - held <= 2**20


@requires_golden
@torch.inference_mode()
@pytest.mark.parametrize("bits", [8, 4])
def test_reference_logits_on_the_device(bits):
    cases = {case["id"]: case for case in json.loads((GOLDEN / "golden_chatglm.json").read_text("utf-8"))["cases"]}
    arrays = load_file(GOLDEN / "golden_quant.safetensors")
    model = ChatGLMForConditionalGeneration.from_pretrained(GOLDEN / "chatglm", dtype=torch.float16).eval()
    replaced = replace_linears(model, bits, device="cuda", dtype=torch.float16, select=selects_linear("chatglm"))
    assert len(replaced) == 4 * model.config.num_layers
    model.cuda()
    for key, expected in arrays.items():
        if key.startswith(f"model.int{bits}."):
            ids = torch.tensor([cases[key.split(".")[2]]["input_ids"]], device="cuda")
            logits = model(ids, logits_to_keep=1).logits[0, -1].float().cpu()
            # fp16 activations differ from the fp32 reference by up to 0.06 on a CPU.
            assert (logits - expected).abs().max() < 0.12, key
