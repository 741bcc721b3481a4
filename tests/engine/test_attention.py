"""Attention of new tokens to their slots: the compiled kernel against PyTorch's attention, row by row."""

from __future__ import annotations

import pytest
import torch

from bianque.cpu_kernels.build import load_kernels
from bianque.engine import attention
from bianque.engine.attention import RowAttention
from bianque.engine.kv_cache import CacheShape, SlotCache

NUM_HEADS, NUM_PLACES = 3, 70


@pytest.fixture(params=["kernel", "torch"])
def way(request, monkeypatch):
    """Run the test both ways."""
    if request.param == "torch":
        monkeypatch.setattr(attention, "load_kernels", lambda: None)
    elif load_kernels() is None:
        pytest.skip("needs AVX2 and a C compiler")
    return request.param


def make_cache(lengths: list[int], head_size: int = 64) -> SlotCache:
    """Return a cache of one layer, full of numbers, of which `lengths` count."""
    torch.manual_seed(0)
    shape = CacheShape(1, len(lengths), NUM_HEADS, NUM_PLACES, head_size)
    cache = SlotCache(shape, dtype=torch.float32, device=torch.device("cpu"))
    for stored in (*cache.keys, *cache.values):
        stored.normal_()
    cache.lengths = list(lengths)
    return cache


def make_new(num_rows: int, head_size: int = 64) -> list[torch.Tensor]:
    """Return query, key and value (n, H, 1, D) as a mixed projection has them: not contiguous."""
    mixed = torch.randn(num_rows, 1, NUM_HEADS, 3, head_size)
    return [part.transpose(1, 2) for part in mixed.unbind(3)]


def expected(cache: SlotCache, slot: int, query: torch.Tensor, scale: float, bias: torch.Tensor | None = None):
    """Return softmax(K q) V of all that a slot holds, (H · D,), in fp64."""
    count = cache.lengths[slot]
    keys, values = (stored[0][slot, :, :count].double() for stored in (cache.keys, cache.values))
    scores = (keys @ query[:, 0, :, None].double())[..., 0] * scale
    if bias is not None:
        scores = scores + bias[:, bias.shape[1] - count :]
    return (scores.softmax(-1)[:, None] @ values).flatten().float()


@pytest.mark.parametrize("head_size", [8, 24, 64, 80, 128])
def test_each_row_attends_to_its_own_slot(way, head_size):
    cache, slots = make_cache([1, 69, 0, 8, 33], head_size), [4, 0, 3, 1, 2]
    query, key, value = make_new(len(slots), head_size)
    attended = RowAttention(cache, slots).attend(0, query, key, value)
    assert attended.shape == (len(slots), 1, NUM_HEADS * head_size)
    for row, slot in enumerate(slots):
        place = cache.lengths[slot]
        assert torch.equal(cache.keys[0][slot, :, place], key[row, :, 0])
        assert torch.equal(cache.values[0][slot, :, place], value[row, :, 0])
        cache.lengths[slot] += 1
        torch.testing.assert_close(attended[row, 0], expected(cache, slot, query[row], head_size**-0.5))


def test_a_bias_ends_at_the_new_token(way):
    cache, slots = make_cache([5, 40, 69]), [2, 0]
    bias = torch.randn(NUM_HEADS, NUM_PLACES)
    query, key, value = make_new(2)
    attended = RowAttention(cache, slots, scale=1.0, bias=bias).attend(0, query, key, value)
    for row, slot in enumerate(slots):
        cache.lengths[slot] += 1
        torch.testing.assert_close(attended[row, 0], expected(cache, slot, query[row], 1.0, bias))


def test_what_is_stored_is_read_only(way):
    cache = make_cache([3, 70])
    before = cache.keys[0].clone(), cache.values[0].clone()
    query, _, _ = make_new(2)
    attended = RowAttention(cache, [1, 0], scale=0.3).attend_stored(0, query)
    assert torch.equal(cache.keys[0], before[0]) and torch.equal(cache.values[0], before[1])
    for row, slot in enumerate((1, 0)):
        torch.testing.assert_close(attended[row, 0], expected(cache, slot, query[row], 0.3))


def test_a_row_is_the_same_alone_and_with_others(way):
    query, key, value = make_new(4)
    together = RowAttention(make_cache([9, 30, 61, 2]), [0, 1, 2, 3]).attend(0, query, key, value)
    for row in range(4):
        cache = make_cache([9, 30, 61, 2])
        alone = RowAttention(cache, [row]).attend(0, *(one[row : row + 1] for one in (query, key, value)))
        assert torch.equal(alone[0], together[row])


def test_nan_stays_in_its_row_and_large_scores_do_not_overflow(way):
    cache = make_cache([20, 20, 20])
    query, key, value = make_new(3)
    cache.keys[0][0, :, 7] = torch.nan
    query[1] *= 1000
    attended = RowAttention(cache, [0, 1, 2]).attend(0, query, key, value)
    assert attended[0].isnan().all()
    cache.lengths = [21, 21, 21]
    torch.testing.assert_close(attended[1, 0], expected(cache, 1, query[1], 0.125), atol=2e-4, rtol=2e-4)
    torch.testing.assert_close(attended[2, 0], expected(cache, 2, query[2], 0.125))


@pytest.mark.parametrize("num_threads", [2, 3])
def test_threads_change_nothing(num_threads):
    before = torch.get_num_threads()
    lengths = [69] * 12
    query, key, value = make_new(12, 128)
    results = []
    try:
        for threads in (1, num_threads):
            torch.set_num_threads(threads)
            results.append(RowAttention(make_cache(lengths, 128), range(12)).attend(0, query, key, value))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)
