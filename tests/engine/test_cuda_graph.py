"""Recorded decode steps; all but the sizes of buckets need a GPU: `python -m pytest -m gpu tests/engine`."""

from __future__ import annotations

import copy

import pytest
import torch

from bianque.engine.cuda_graph import bucket
from bianque.engine.engine import Engine
from bianque.engine.sampling import SamplingParams
from tests.engine.conftest import prefill
from tests.engine.test_runner import chatglm, make_runner, t5

__all__ = ["chatglm", "t5"]

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
# fp32 on two devices; TF32 is off by default.
TOLERANCE = 2e-3


@pytest.mark.parametrize(("number", "expected"), [(1, 1), (2, 2), (3, 4), (8, 8), (9, 16)])
def test_buckets_are_powers_of_two(number, expected):
    assert bucket(number, 1) == expected
    assert bucket(number, 256) == 256


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("name", ["chatglm", "t5"])
def test_recorded_steps_equal_those_on_the_cpu(name, request):
    model = request.getfixturevalue(name)
    on_cpu = make_runner(model, num_slots=4)
    on_gpu = make_runner(copy.deepcopy(model).to("cuda"), num_slots=4)
    for slot in (0, 2, 3):
        prompt = [5 + slot, 9, 101, 104]
        torch.testing.assert_close(
            prefill(on_gpu, slot, prompt).cpu(), prefill(on_cpu, slot, prompt), atol=TOLERANCE, rtol=0
        )
    for slots in ([0, 2, 3], [3, 0, 2], [0], [2, 3], [0, 2, 3]):
        token_ids = [7 + slot for slot in slots]
        torch.testing.assert_close(
            on_gpu.decode(slots, token_ids).cpu(), on_cpu.decode(slots, token_ids), atol=TOLERANCE, rtol=0
        )
    assert on_gpu._graphs._recorded, "nothing was recorded"
    on_gpu.trim()
    assert not on_gpu._graphs._recorded
    torch.testing.assert_close(on_gpu.decode([0], [9]).cpu(), on_cpu.decode([0], [9]), atol=TOLERANCE, rtol=0)


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("name", ["chatglm", "t5"])
def test_replies_on_the_gpu_are_those_of_the_cpu(name, request):
    model = request.getfixturevalue(name)
    params = SamplingParams(temperature=0, max_new_tokens=12)
    replies = []
    for placed in (model, copy.deepcopy(model).to("cuda")):
        with Engine(make_runner(placed, num_slots=3)) as engine:
            sequences = [engine.submit([5 + number, 9, 101, 104], params) for number in range(6)]
            replies.append([list(engine.stream(sequence)) for sequence in sequences])
    assert replies[0] == replies[1]
