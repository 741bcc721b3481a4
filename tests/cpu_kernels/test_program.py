"""Programs: every operation against PyTorch's, rows that do not touch each other, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from bianque.cpu_kernels.build import load_kernels
from bianque.cpu_kernels.program import Matrix, Program
from bianque.models.chatglm import apply_rotary, build_rotary_table
from bianque.quantization.scheme import quantize, unpack_int4

MAX_ROWS = 40
# Around the points from which work is shared: one row, a few, many.
NUM_ROWS = (1, 2, 7, MAX_ROWS)


@pytest.fixture
def program():
    kernels = load_kernels()
    if kernels is None:
        pytest.skip("needs AVX2 and a C compiler")
    return Program(kernels, MAX_ROWS)


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def make_matrix(out_features: int, in_features: int, bits: int, *, has_bias: bool) -> tuple[Matrix, torch.Tensor]:
    """Return a stored weight and the fp32 one that it stands for."""
    weight, bias = drawn(out_features, in_features), drawn(out_features) if has_bias else None
    if bits > 8:
        stored = weight.half() if bits == 16 else weight
        return Matrix(stored, None, bias, bits), stored.float()
    stored, scale = quantize(weight, bits)
    integers = unpack_int4(stored) if bits == 4 else stored
    return Matrix(stored, scale, bias, bits), integers.float() * scale.float()[:, None]


@pytest.mark.parametrize("num_rows", NUM_ROWS)
@pytest.mark.parametrize("size", [8, 72, 1024])
@pytest.mark.parametrize("has_bias", [False, True], ids=["rms", "layer"])
def test_norms(program, has_bias, size, num_rows):
    rows, weight, bias = drawn(MAX_ROWS, size) * 3 + 1, drawn(size), drawn(size) if has_bias else None
    normed = program.norm(rows, weight, bias, 1e-5)
    program.run(num_rows)
    if bias is None:
        expected = weight * rows * torch.rsqrt(rows.pow(2).mean(-1, keepdim=True) + 1e-5)
    else:
        expected = functional.layer_norm(rows, (size,), weight, bias, 1e-5)
    torch.testing.assert_close(normed[:num_rows], expected[:num_rows], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_rows", NUM_ROWS)
@pytest.mark.parametrize("is_gated", [False, True])
def test_gelu(program, is_gated, num_rows):
    rows, gate = drawn(MAX_ROWS, 1000) * 6, drawn(MAX_ROWS, 1000)
    rows[0, :8] = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 90.0, -90.0, 3e38, -3e38])
    expected = functional.gelu(rows, approximate="tanh") * (gate if is_gated else 1)
    program.gelu(rows, gate if is_gated else None)
    program.run(num_rows)
    torch.testing.assert_close(rows[:num_rows], expected[:num_rows], atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize("num_rows", NUM_ROWS)
def test_rotary_positions(program, num_rows):
    num_heads, size = 3, 16
    table = build_rotary_table(50, size)
    positions = torch.randint(50, (MAX_ROWS, 2), generator=torch.Generator().manual_seed(0))
    mixed = drawn(MAX_ROWS, num_heads * 3 * size)
    heads = mixed.view(MAX_ROWS, 1, num_heads, 3, size).clone()
    turned = apply_rotary(heads[..., :2, :], table[positions[..., None]].transpose(1, 2)[:, :, None, None])
    expected = torch.cat((turned, heads[..., 2:, :]), dim=-2).view(MAX_ROWS, -1)
    program.rotate(mixed, positions, table, num_heads)
    program.run(num_rows)
    torch.testing.assert_close(mixed[:num_rows], expected[:num_rows], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("num_rows", NUM_ROWS)
@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_products_share_their_rows_and_add_to_the_residual(program, bits, num_rows):
    rows, residual = drawn(MAX_ROWS, 600), drawn(MAX_ROWS, 130)
    expected_residual = residual.clone()
    first, first_weight = make_matrix(130, 600, bits, has_bias=True)
    second, second_weight = make_matrix(50, 600, bits, has_bias=False)
    packed = program.pack(rows, bits)
    program.multiply(packed, first, residual=residual, residual_scale=7.5, out=residual)
    plain = program.multiply(packed, second)
    program.run(num_rows)
    expected = functional.linear(rows, first_weight, first.bias) + 7.5 * expected_residual
    torch.testing.assert_close(residual[:num_rows], expected[:num_rows], atol=5e-3, rtol=1e-3)
    torch.testing.assert_close(residual[num_rows:], expected_residual[num_rows:], atol=0, rtol=0)
    torch.testing.assert_close(
        plain[:num_rows], functional.linear(rows, second_weight)[:num_rows], atol=5e-3, rtol=1e-3
    )


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_a_row_is_the_same_among_any_others_and_a_bad_one_stays_alone(program, bits):
    rows = drawn(MAX_ROWS, 512)
    matrix, _ = make_matrix(512, 512, bits, has_bias=True)
    weight, bias = drawn(512), drawn(512)
    normed = program.norm(rows, weight, bias, 1e-5)
    product = program.multiply(program.pack(normed, bits), matrix, residual=rows)
    program.gelu(product)
    program.run(MAX_ROWS)
    all_together = product.clone()
    assert all_together.isfinite().all()
    for num_rows in (1, 3, 17):
        program.run(num_rows)
        assert torch.equal(product[:num_rows], all_together[:num_rows])
    rows[2, 5] = torch.nan
    program.run(4)
    assert product[2].isnan().all()
    assert torch.equal(product[[0, 1, 3]], all_together[[0, 1, 3]])


def test_operations_run_in_their_order_again_and_again(program):
    rows = torch.ones(MAX_ROWS, 8)
    double = Matrix(torch.eye(8) * 2, None, None, 32)
    for _ in range(3):
        program.multiply(program.pack(rows, 32), double, out=rows)
    program.run(1)
    program.run(2)
    assert rows[:3, 0].tolist() == [64.0, 8.0, 1.0]


def test_what_does_not_fit_is_refused(program):
    rows = torch.zeros(MAX_ROWS, 16)
    packed = program.pack(rows, 8)
    for matrix in (make_matrix(8, 24, 8, has_bias=False)[0], make_matrix(8, 16, 4, has_bias=False)[0]):
        with pytest.raises(ValueError, match="do not fit"):
            program.multiply(packed, matrix)
    with pytest.raises(ValueError, match="rows must have 8 values, but they have 16"):
        program.norm(rows, torch.ones(8), None, 1e-5)
    with pytest.raises(ValueError, match="contiguous"):
        program.pack(torch.zeros(16, MAX_ROWS).T, 8)
    with pytest.raises(ValueError, match=f"room for {MAX_ROWS} rows, but {MAX_ROWS + 1} came"):
        program.run(MAX_ROWS + 1)
