"""The largest values of rows beside a sort of everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bianque.cpu_kernels.build import load_kernels
from bianque.cpu_kernels.operations import Largest

pytestmark = pytest.mark.skipif(load_kernels() is None, reason="needs AVX2 and a C compiler")


def largest(rows: torch.Tensor, count: int, threads: int = 2):
    kernels = load_kernels()
    assert kernels is not None
    values, ids = torch.empty(len(rows), count), torch.empty(len(rows), count, dtype=torch.int64)
    sums = torch.empty(len(rows))
    pointers = [array.data_ptr() for array in (rows, rows, values, ids, sums)]
    assert kernels.largest(Largest(*pointers, rows.shape[1], count), len(rows), threads) == 0
    return values, ids, sums


def expected(rows: torch.Tensor, count: int):
    order = np.stack([np.lexsort((np.arange(len(row)), -row)) for row in rows.numpy()])
    ids = torch.from_numpy(order)[:, :count]
    return rows.gather(1, ids), ids


@pytest.mark.parametrize("size", [1, 7, 8, 130, 32129])
@pytest.mark.parametrize("num_rows", [1, 5])
def test_as_a_stable_sort_has_them(num_rows, size):
    rows = torch.randn(num_rows, size, generator=torch.Generator().manual_seed(size))
    for count in sorted({1, min(58, size), min(512, size)}):
        values, ids, sums = largest(rows, count)
        assert torch.equal(values, expected(rows, count)[0]) and torch.equal(ids, expected(rows, count)[1])
        torch.testing.assert_close(sums, rows.sum(1), atol=1e-2, rtol=1e-4)


def test_of_equals_the_first_ones_come_first():
    rows = torch.randint(5, (4, 400), generator=torch.Generator().manual_seed(0)).float()
    values, ids, _ = largest(rows, 60)
    assert torch.equal(values, expected(rows, 60)[0]) and torch.equal(ids, expected(rows, 60)[1])


def test_what_is_not_finite():
    rows = torch.full((3, 50), -torch.inf)
    rows[0, 7], rows[1, 9], rows[1, 3] = 2.0, torch.nan, 1.0
    rows[2] = torch.arange(50.0)
    values, ids, sums = largest(rows, 4)
    assert values[0].tolist() == [2.0, -torch.inf, -torch.inf, -torch.inf] and ids[0, 0] == 7
    assert values[1, 0] == 1.0 and ids[1, 0] == 3, "NaN is passed over"
    assert sums.isfinite().tolist() == [False, False, True]
    assert values[2].tolist() == [49.0, 48.0, 47.0, 46.0]


def test_more_than_there_is_room_for_is_refused():
    kernels = load_kernels()
    assert kernels is not None
    assert kernels.largest(Largest(size=1000, count=513), 1, 1) == 1
