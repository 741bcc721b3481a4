"""The published scheme, bit for bit: by hand, against plain NumPy loops, and against reference data if it is there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bianque.quantization.scheme import dequantize, pack_int4, quantize, unpack_int4
from tests.golden import GOLDEN, requires_golden


def slow_quantize(weight: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Follow the published rule value by value, in the weight's dtype."""
    integers = np.zeros(weight.shape, dtype=np.int8)
    scales = np.zeros(len(weight), dtype=np.float16)
    for i, row in enumerate(weight):
        scales[i] = np.float16(np.max(np.abs(row)) / weight.dtype.type(limit))
        for j, value in enumerate(row):
            integers[i, j] = int(np.rint(value / weight.dtype.type(scales[i])))
    return integers, scales


def test_worked_example_of_8_bits():
    weight = torch.tensor([[1.27, -0.635, 0.004, 0.016], [-254.0, 127.0, 1.0, 3.0]], dtype=torch.float32)
    integers, scale = quantize(weight, 8)
    assert scale.dtype == torch.float16 and scale.tolist() == [float(np.float16(0.01)), 2.0]
    # 0.5 and 1.5 are halfway: both go to the even neighbour.
    assert integers.dtype == torch.int8 and integers.tolist() == [[127, -63, 0, 2], [-127, 64, 0, 2]]


def test_worked_example_of_4_bits_has_the_even_column_in_the_high_nibble():
    integers, scale = quantize(torch.tensor([[7.0, -7.0, -1.0, 3.0]]), 4)
    assert scale.tolist() == [1.0]
    assert [byte & 0xFF for byte in integers[0].tolist()] == [0x79, 0xF3]


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_equals_the_rule_followed_value_by_value(bits, dtype):
    generator = torch.Generator().manual_seed(5)
    weight = (torch.randn(20, 48, generator=generator) * torch.logspace(-2, 1, 20)[:, None]).to(dtype)
    integers, scale = quantize(weight, bits)
    slow_integers, slow_scale = slow_quantize(weight.numpy(), 127 if bits == 8 else 7)
    assert np.array_equal(scale.numpy(), slow_scale)
    assert np.array_equal((unpack_int4(integers) if bits == 4 else integers).numpy(), slow_integers)
    expected = (slow_integers.astype(np.float16) * slow_scale[:, None]).astype(np.float32)
    assert np.array_equal(dequantize(integers, scale, bits, torch.float32).numpy(), expected)


def test_long_weights_are_quantized_as_short_ones(monkeypatch):
    weight = torch.randn(37, 16, generator=torch.Generator().manual_seed(1))
    whole = quantize(weight, 8)
    monkeypatch.setattr("bianque.quantization.scheme._CHUNK_VALUES", 5 * 16)
    chunked = quantize(weight, 8)
    assert torch.equal(whole[0], chunked[0]) and torch.equal(whole[1], chunked[1])


@pytest.mark.parametrize("bits", [8, 4])
def test_rows_without_a_scale_become_zeros(bits):
    # The second row's scale is below the smallest fp16 number, so nothing of the row can be represented.
    weight = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1e-8, -1e-8, 0.0, 1e-8], [1.0, 0.5, 0.0, -1.0]])
    integers, scale = quantize(weight, bits)
    values = dequantize(integers, scale, bits, torch.float32)
    assert scale[:2].tolist() == [0.0, 0.0] and values[:2].abs().max() == 0
    assert values[2, 0] == pytest.approx(1.0, abs=1e-3)


def test_bf16_weights_are_quantized_as_the_same_numbers_in_fp32():
    weight = torch.randn(9, 32, generator=torch.Generator().manual_seed(2)).bfloat16()
    for got, expected in zip(quantize(weight, 8), quantize(weight.float(), 8), strict=True):
        assert torch.equal(got, expected)


def test_int4_packing_is_undone_for_every_pair():
    pairs = torch.cartesian_prod(torch.arange(-8, 8), torch.arange(-8, 8)).to(torch.int8)
    packed = pack_int4(pairs)
    assert len(set(packed.flatten().tolist())) == 256
    assert torch.equal(unpack_int4(packed), pairs)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
def test_weights_that_no_scale_can_hold_are_refused(value):
    weight = torch.ones(3, 4)
    weight[1, 2] = value
    with pytest.raises(ValueError, match="NaN, infinite or too large"):
        quantize(weight, 8)


def test_wrong_forms_are_refused():
    with pytest.raises(ValueError, match="4 or 8"):
        quantize(torch.ones(2, 2), 3)
    with pytest.raises(ValueError, match="even number"):
        quantize(torch.ones(2, 3), 4)
    with pytest.raises(ValueError, match="floating"):
        quantize(torch.ones(2, 2, dtype=torch.int8), 8)
    with pytest.raises(ValueError, match="floating"):
        quantize(torch.ones(2), 8)


@requires_golden
def test_equals_the_reference_arrays():
    arrays = load_file(GOLDEN / "golden_quant.safetensors")
    keys = [name.removesuffix(".qweight") for name in arrays if name.endswith(".qweight")]
    assert len(keys) == 12
    for key in keys:
        bits = 8 if "int8" in key else 4
        integers, scale = quantize(arrays[f"{key}.weight"], bits)
        assert torch.equal(integers, arrays[f"{key}.qweight"]), key
        assert torch.equal(scale, arrays[f"{key}.scale"]), key
        assert torch.equal(dequantize(integers, scale, bits, torch.float16), arrays[f"{key}.dequant"]), key
        if bits == 4:
            assert torch.equal(unpack_int4(integers), arrays[f"{key}.unpacked"]), key
