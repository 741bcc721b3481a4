"""Weights in two digits: how close they are, and the head and embedding that hold them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bianque.cpu_kernels.build import load_kernels
from bianque.models.chatglm import ChatGLMForConditionalGeneration
from bianque.quantization import cpu
from bianque.quantization.digit_layers import DigitEmbedding, DigitLinear, replace_tied_head
from bianque.quantization.digits import Digits, encode
from tests.models.chatglm_data import OWN_FOLDER


@pytest.fixture(params=["kernel", "torch"])
def route(request, monkeypatch):
    """Run a test with the kernel, then without."""
    if request.param == "torch":
        monkeypatch.setattr(cpu, "load_kernels", lambda: None)
    elif load_kernels() is None:
        pytest.skip("needs AVX2 and a C compiler")
    return request.param


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def value_of(digits: Digits) -> torch.Tensor:
    return (digits.high.double() + digits.low.double() / 256) * digits.scale.double()[:, None]


def make_head(weight: torch.Tensor) -> DigitLinear:
    head = DigitLinear(weight.shape[1], weight.shape[0])
    head.load_weight(weight)
    return head


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (40, 1000), (3000, 1024)])
def test_the_error_is_at_most_half_a_step(shape, dtype):
    weight = (drawn(*shape) * torch.logspace(-4, 3, shape[0])[:, None]).to(dtype)
    digits = encode(weight)
    # The quotient, up to 32512, is rounded to fp32: a 250th of half a step more.
    limit = digits.scale.double()[:, None] / 512 * 1.005
    assert ((value_of(digits) - weight.double()).abs() <= limit).all()
    largest = weight.double().abs().amax(1)
    assert (digits.scale.double() * 127 <= largest * 1.002 + 127 * 6e-8).all()


def test_every_value_of_a_row_has_its_digits():
    """Also those just below the next high digit, whose low digit would be 128."""
    steps = torch.arange(-127 * 256, 127 * 256 + 1)
    digits = encode((steps / 256.0)[None])
    assert digits.scale.tolist() == [1.0]
    assert torch.equal(digits.high[0].int() * 256 + digits.low[0].int(), steps.int())


def test_rows_of_zeros_and_next_to_nothing():
    weight = torch.zeros(4, 16)
    weight[1, 3], weight[2] = 1e-9, 6e-8
    weight[3] = 1e-5
    assert (value_of(encode(weight)) - weight).abs().max() < 6e-8 / 256
    assert (encode(weight).high[0] == 0).all() and encode(weight).scale[0] == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e8])
def test_values_that_cannot_be_encoded_are_refused(value):
    weight = torch.ones(4, 16)
    weight[2, 1] = value
    with pytest.raises(ValueError, match="NaN, infinite or too large"):
        encode(weight)


def test_other_forms_are_refused():
    with pytest.raises(ValueError, match="floating"):
        encode(torch.ones(4))
    with pytest.raises(ValueError, match="floating"):
        encode(torch.ones(4, 4, dtype=torch.int8))


def test_large_weights_are_encoded_row_by_row_alike(monkeypatch):
    weight = drawn(100, 64)
    whole = encode(weight)
    monkeypatch.setattr("bianque.quantization.digits._CHUNK_VALUES", 1000)
    for got, expected in zip(vars(encode(weight)).values(), vars(whole).values(), strict=True):
        assert torch.equal(got, expected)
    assert torch.equal(whole.rows(torch.arange(100)), torch.cat(list(whole.floats())))


def test_no_sum_of_low_digits_exceeds_the_bound():
    digits = encode(drawn(500, 4096))
    added = value_of(digits) - digits.high.double() * digits.scale.double()[:, None]
    # The largest of all sums: inputs in the direction of the row.
    assert (added.norm(dim=1) < digits.bound.double()).all()
    assert (added.norm(dim=1) > 0.998 * digits.bound.double()).all()


@pytest.mark.parametrize("shape", [(1, 3), (66, 512), (300, 1090)])
def test_the_head_multiplies_by_both_digits(route, shape):
    weight, rows = drawn(*shape), drawn(9, shape[1])
    expected = (rows.double() @ value_of(encode(weight)).T).float()
    # Activations are rounded to 16 bits by the kernel; without low digits it would be off a hundred times as much.
    assert (make_head(weight)(rows) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_the_head_takes_any_leading_shape_and_dtype(route):
    head, rows = make_head(drawn(24, 64)), drawn(6, 64)
    expected = head(rows)
    assert torch.equal(head(rows.view(2, 3, 64)), expected.view(2, 3, 24))
    assert torch.equal(head(rows.T.contiguous().T), expected)
    assert head(rows[:0]).shape == (0, 24)
    product = head(rows.bfloat16())
    assert product.dtype == torch.bfloat16 and torch.equal(product, head(rows.bfloat16().float()).bfloat16())


def test_gradients_pass_the_head():
    weight = drawn(32, 16)
    head, rows = make_head(weight), torch.ones(2, 3, 16, requires_grad=True)
    head(rows).sum().backward()
    torch.testing.assert_close(rows.grad, weight.sum(0).expand(2, 3, 16), atol=2e-3, rtol=0)


def test_the_embedding_is_the_heads_rows():
    model = ChatGLMForConditionalGeneration.from_pretrained(OWN_FOLDER, dtype=torch.float16).eval()
    weight = model.lm_head.weight.float()
    embedding, head = replace_tied_head(model)
    assert model.transformer.word_embeddings is embedding and model.lm_head is head
    for (name, one), (_, other) in zip(vars(embedding.digits).items(), vars(head.digits).items(), strict=True):
        assert one.data_ptr() == other.data_ptr(), name
    ids = torch.tensor([[5, 6, 7], [7, 0, 9]])
    looked_up = embedding(ids)
    assert looked_up.dtype == torch.float32
    assert torch.equal(looked_up, value_of(head.digits)[ids].float())
    assert ((looked_up - weight[ids]).abs() <= head.scale.float()[ids][..., None] / 500).all()


def test_a_model_computes_what_it_computed(route):
    model = ChatGLMForConditionalGeneration.from_pretrained(OWN_FOLDER, dtype=torch.float32).eval()
    prompt = torch.tensor([[5, 6, 7, model.config.gmask_token_id, model.config.bos_token_id]])
    with torch.inference_mode():
        expected = model(prompt).logits
        replace_tied_head(model)
        assert (model(prompt).logits - expected).abs().max() < 1e-3 * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_casting_the_model_changes_nothing(dtype):
    head = make_head(drawn(24, 64))
    before = {name: array.clone() for name, array in head.state_dict().items()}
    nn.Sequential(head).to(dtype)
    for name, array in head.state_dict().items():
        assert array.dtype == before[name].dtype and torch.equal(array, before[name])


def test_takes_no_memory_before_it_is_loaded():
    for layer in (DigitLinear(1 << 20, 1 << 20), DigitEmbedding(1 << 20, 1 << 20)):  # 2 TB if they did
        assert all(array.is_meta for array in layer.state_dict().values())


def test_misshapen_arrays_are_refused():
    head, digits = DigitLinear(16, 32), encode(drawn(32, 16))
    with pytest.raises(ValueError, match=r"weight must be \(32, 16\)"):
        head.load_weight(drawn(16, 32))
    for changed in (
        Digits(digits.high.T, digits.low, digits.scale, digits.bound),
        Digits(digits.high, digits.low.half(), digits.scale, digits.bound),
        Digits(digits.high, digits.low, digits.scale.float(), digits.bound),
        Digits(digits.high, digits.low, digits.scale, digits.bound[1:]),
    ):
        with pytest.raises(ValueError, match="must be torch"):
            head.load_digits(changed)
    head.load_digits(digits)
    assert head.high.data_ptr() == digits.high.data_ptr()
