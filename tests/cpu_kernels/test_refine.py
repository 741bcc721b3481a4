"""The low digits of a weight: added wherever the largest values of a row are at stake, and the same ones always."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from bianque.cpu_kernels.build import load_kernels
from bianque.cpu_kernels.operations import Refine
from bianque.cpu_kernels.program import LowDigits, Matrix, Program
from bianque.quantization.digits import Digits, encode

pytestmark = pytest.mark.skipif(load_kernels() is None, reason="needs AVX2 and a C compiler")

COUNTS = (1, 2, 50, 512)


@pytest.fixture
def threads():
    """Give a test the number of threads to set, and the old one back afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def high_product(digits: Digits, x: torch.Tensor) -> torch.Tensor:
    return (x.double() @ (digits.high.double() * digits.scale.double()[:, None]).T).float()


def low_product(digits: Digits, x: torch.Tensor) -> torch.Tensor:
    return x.double() @ (digits.low.double() / 256 * digits.scale.double()[:, None]).T


def refine(digits: Digits, x: torch.Tensor, counts, num_threads: int = 2) -> torch.Tensor:
    """Return y after the operation on the product of the high digits."""
    kernels, y = load_kernels(), high_product(digits, x)
    assert kernels is not None
    counts = torch.tensor(counts).expand(len(x)).contiguous()
    arrays = (x, digits.low, digits.scale, digits.bound, counts, y)
    arguments = Refine(*(array.data_ptr() for array in arrays), x.shape[1], len(digits.low))
    assert kernels.refine(arguments, len(x), num_threads) == 0
    return y


def digits_of(high: torch.Tensor, low: torch.Tensor, scale: torch.Tensor | float) -> Digits:
    return Digits.of(high.to(torch.int8), low.to(torch.int8), (torch.ones(len(high)) * scale).half())


def random_case() -> tuple[Digits, torch.Tensor]:
    return encode(drawn(3000, 136)), drawn(3, 136, seed=1)


def peaked_case() -> tuple[Digits, torch.Tensor]:
    weight, x = drawn(3000, 136), drawn(3, 136, seed=1)
    weight[70], weight[2999] = x[0], x[1]
    return encode(weight), x


def tied_case() -> tuple[Digits, torch.Tensor]:
    """High digits that tie everywhere: only the low ones tell rows apart."""
    low = torch.randint(-128, 128, (3000, 136), generator=torch.Generator().manual_seed(3))
    return digits_of(torch.ones(3000, 136), low, 0.01), drawn(3, 136, seed=1)


def equal_rows_case() -> tuple[Digits, torch.Tensor]:
    return encode(drawn(10, 136).repeat(300, 1)), drawn(3, 136, seed=1)


def zero_rows_case() -> tuple[Digits, torch.Tensor]:
    weight, x = drawn(3000, 136), drawn(3, 136, seed=1)
    weight[::2] = 0
    x[2] = 0
    return encode(weight), x


def tight_case() -> tuple[Digits, torch.Tensor]:
    """Low digits that are x or its opposite add all that the bound allows, and high ones that lie within it."""
    x = torch.randint(-127, 128, (3, 136), generator=torch.Generator().manual_seed(4)).float()
    x[:, -1] = 100
    high = torch.zeros(3000, 136)
    high[:, -1] = torch.randint(-127, 128, (3000,), generator=torch.Generator().manual_seed(5))
    low = x[torch.arange(3000) % 3] * torch.tensor([1.0, -1.0]).repeat_interleave(3).repeat(500)[:, None]
    return digits_of(high, low, torch.linspace(0.01, 0.011, 3000)), x


CASES = (random_case, peaked_case, tied_case, equal_rows_case, zero_rows_case, tight_case)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_all_digits_give_the_exact_sums(case):
    digits, x = case()
    expected = high_product(digits, x) + low_product(digits, x)
    size = x.norm(dim=1, keepdim=True).double() * digits.bound.double()
    # fp32 sums, and the rounding of y itself.
    assert ((refine(digits, x, 0) - expected).abs() <= 1e-5 * size + 2e-7 * expected.abs()).all()


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_largest_are_exact_and_the_others_below_them(case, count, num_threads):
    digits, x = case()
    estimates, exact = high_product(digits, x), refine(digits, x, 0, num_threads=1)
    got = refine(digits, x, count, num_threads)
    smallest = exact.sort(1, descending=True).values[:, count - 1 : count]
    is_exact = got == exact
    assert is_exact[exact >= smallest].all()
    assert ((got < smallest) & (exact < smallest))[~is_exact].all()
    assert torch.equal(got[~is_exact], estimates[~is_exact])


@pytest.mark.parametrize("count", COUNTS)
def test_what_the_bound_just_allows_is_looked_at(count):
    """Low digits bring the rows that lead down, and as many others, almost twice the bound behind, past them."""
    x = torch.randint(-127, 128, (1, 136), generator=torch.Generator().manual_seed(4)).float()
    x[0, -1] = 100
    bound = float((x * x).sum()) / 256 / 100  # in steps of the last high digit
    leading, behind = 100, math.floor(100 - 2 * bound) + 1
    assert 0 < behind < leading - bound
    high, low = torch.zeros(3000, 136), torch.zeros(3000, 136)
    high[:, -1] = torch.randint(-100, -60, (3000,), generator=torch.Generator().manual_seed(5))
    high[:count, -1], low[:count] = leading, -x
    high[-count:, -1], low[-count:] = behind, x
    digits = digits_of(high, low, 0.01)
    exact, got = refine(digits, x, 0)[0], refine(digits, x, count)[0]
    assert exact.topk(count).indices.min() == 3000 - count
    assert torch.equal(got, exact)


def test_few_are_read_where_few_can_be_the_largest():
    digits, x = random_case()
    estimates = high_product(digits, x)
    share = {count: float((refine(digits, x, count) != estimates).float().mean()) for count in (0, 1, 50)}
    assert share[0] > 0.99 and share[1] < 0.03 and share[50] < 0.2


@pytest.mark.parametrize("count", [0, -1, 513, 100_000])
def test_without_a_count_or_with_one_too_large_all_are_computed(count):
    digits, x = random_case()
    assert torch.equal(refine(digits, x, count), refine(digits, x, 0))
    difference = refine(digits, x, count) - high_product(digits, x) - low_product(digits, x)
    assert difference.abs().max() < 1e-5


def test_a_count_above_the_number_of_values_takes_all():
    digits, x = encode(drawn(37, 24)), drawn(2, 24, seed=1)
    assert torch.equal(refine(digits, x, 50), refine(digits, x, 0))


def test_every_row_has_its_own_count():
    digits, x = random_case()
    counts = [1, 0, 50]
    for row, (got, count) in enumerate(zip(refine(digits, x, counts), counts, strict=True)):
        assert torch.equal(got, refine(digits, x[row : row + 1], [count])[0])


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (9, 8), (259, 33), (1000, 1090)])
def test_a_value_is_the_same_alone_in_any_batch_and_on_any_number_of_threads(shape):
    digits, x = encode(drawn(*shape)), drawn(5, shape[1], seed=1)
    together = refine(digits, x, 0)
    for num_threads in (1, 2, 3):
        for row in range(5):
            assert torch.equal(refine(digits, x[row : row + 1], 0, num_threads)[0], together[row])
            alone = refine(digits, x[row : row + 1], 1, num_threads)[0]
            assert alone.max() == together[row].max()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_row_that_is_not_finite_stays_so_and_alone(value, threads):
    threads(2)
    kernels = load_kernels()
    assert kernels is not None
    digits, x = random_case()
    program, counts = Program(kernels, 3), torch.tensor([50, 50, 0])
    matrix = Matrix(digits.high, digits.scale, None, 8, LowDigits(digits.low, digits.bound))
    product = program.multiply(program.pack(x, 8), matrix, num_exact=counts)
    program.run(3)
    clean = product.clone()
    for row in range(3):
        x[row, 9] = value
        program.run(3)
        assert not product[row].sum().isfinite()
        x[row] = random_case()[1][row]
        others = [other for other in range(3) if other != row]
        assert torch.equal(product[others], clean[others])


def test_inputs_of_any_size_keep_the_contract():
    """The norm is summed in fp64: squares of such values are no fp32 numbers."""
    digits, x = tight_case()
    for factor in (1e-25, 1e25):
        exact, got = refine(digits, x * factor, 0), refine(digits, x * factor, 50)
        smallest = exact.sort(1, descending=True).values[:, 49:50]
        assert torch.equal(got[exact >= smallest], exact[exact >= smallest])
        assert (got[exact < smallest] < smallest.max()).all()


@pytest.mark.parametrize("num_rows", [1, 5])
def test_a_program_multiplies_by_both_digits(num_rows, threads):
    threads(2)
    kernels = load_kernels()
    assert kernels is not None
    weight, x = drawn(600, 1088), drawn(5, 1088, seed=1)
    digits = encode(weight)
    program, counts = Program(kernels, 5), torch.zeros(5, dtype=torch.int64)
    matrix = Matrix(digits.high, digits.scale, None, 8, LowDigits(digits.low, digits.bound))
    packed = program.pack(x, 8)
    high = program.multiply(packed, replace(matrix, low=None))
    everything = program.multiply(packed, matrix)
    largest = program.multiply(packed, matrix, num_exact=counts)
    counts.fill_(4)
    program.run(num_rows)
    expected = x[:num_rows] @ weight.T
    # Activations are rounded to 16 bits; the high digits alone are off by a hundred times as much.
    assert (everything[:num_rows] - expected).abs().max() < 1e-2 < (high[:num_rows] - expected).abs().max() / 10
    top = everything[:num_rows].topk(4)
    assert torch.equal(largest[:num_rows].topk(4).values, top.values)
    assert torch.equal(largest[:num_rows].topk(4).indices, top.indices)
    assert (largest[:num_rows] == high[:num_rows]).float().mean() > 0.5
