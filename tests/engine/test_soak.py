"""Many requests of all kinds, some given up on the way: memory stays flat and nothing is left behind."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from bianque.engine.engine import Engine
from bianque.engine.sampling import SamplingParams
from bianque.errors import QueueFullError
from tests.engine.test_runner import chatglm, make_runner, t5

__all__ = ["chatglm", "t5"]

NUM_VISITORS = 6
NUM_REQUESTS = 60
# A leak of one KV cache of these tiny models a request would take more; the allocator's own ups and downs take less.
MAX_GROWTH_MB = 6


def resident_megabytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def visit(engine, seed, num_requests, errors):
    """Send requests one after the other; give up one in three while it waits, starts or runs."""
    choose = random.Random(seed)
    for number in range(num_requests):
        prompt = [choose.randrange(5, 90) for _ in range(choose.randrange(1, 15))] + [101, 104]
        params = SamplingParams(seed=number, max_new_tokens=choose.randrange(1, 15))
        try:
            sequence = engine.submit(prompt, params, visitor=str(seed))
        except QueueFullError:
            continue
        num_wanted = choose.randrange(0, 8) if choose.random() < 1 / 3 else 10**6
        with engine.stream(sequence) as stream:
            for num_read, _ in enumerate(stream, start=1):
                if num_read > num_wanted:
                    break
        if sequence.error is not None:
            errors.append(sequence.error.key)


@pytest.mark.parametrize("name", ["chatglm", "t5"])
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_stays_flat_over_many_requests(name, request):
    runner = make_runner(request.getfixturevalue(name), num_slots=3)
    errors = []

    def soak(engine, num_requests):
        visitors = [
            threading.Thread(target=visit, args=(engine, seed, num_requests, errors)) for seed in range(NUM_VISITORS)
        ]
        for visitor in visitors:
            visitor.start()
        for visitor in visitors:
            visitor.join(300)
        assert engine.wait_idle(60)

    with Engine(runner, max_waiting=2, max_per_visitor=1) as engine:
        soak(engine, NUM_REQUESTS // 3)  # all libraries have their buffers now
        before, num_threads = resident_megabytes(), threading.active_count()
        soak(engine, NUM_REQUESTS)
        assert resident_megabytes() - before < MAX_GROWTH_MB
        assert threading.active_count() == num_threads
        status = engine.status()
    assert not errors
    assert (status.num_running, status.num_waiting) == (0, 0)
