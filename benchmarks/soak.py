"""Many requests of all kinds for a long time: is memory flat, does nothing stay behind?

    python benchmarks/soak.py                         both demonstration models, two minutes
    python benchmarks/soak.py --minutes 60            an hour
    python benchmarks/soak.py --requests 300          so many requests and no more

Visitors send short and long prompts, want short and long replies, and give up one in four: while waiting, in the
prompt, or in the reply. Printed at intervals: requests, refusals, tokens, resident memory. At the end: the slope of
memory after the first tenth, in which libraries set up their buffers, and whether slots or threads are left over.
The number of requests is bounded in any case, and the queue is, so that the work is the same on every machine.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import random
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import bianque  # noqa: F401, I001 - sets how torch's threads wait, before it is loaded
import torch

from bianque.engine.engine import Engine
from bianque.engine.sampling import SamplingParams
from bianque.errors import QueueFullError

# The first part of a soak, which tells nothing about leaks.
WARM_UP = 0.1
# Who is refused tries again after this.
_PAUSE_SECONDS = 0.2


@dataclass
class Soak:
    """Visitors of one engine, until there are no requests or no time left.

    Attributes:
        engine: what they talk to.
        make_prompt: a prompt of a given length.
        max_prompt: longest prompt, in tokens.
        max_reply: longest reply.
        num_left: requests that may still be sent.
        ends: when to stop, on the monotonic clock.
    """

    engine: Engine
    make_prompt: Any
    max_prompt: int
    max_reply: int
    num_left: int
    ends: float
    num_requests: int = 0
    num_refused: int = 0
    num_given_up: int = 0
    num_tokens: int = 0
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_over(self) -> bool:
        """Whether no more requests may be sent."""
        return self.num_left <= 0 or time.monotonic() >= self.ends

    def visit(self, seed: int) -> None:
        """Be one visitor."""
        choose = random.Random(seed)
        while True:
            with self.lock:
                if self.is_over:
                    return
                self.num_left -= 1
                self.num_requests += 1
            self._ask(choose, str(seed))

    def _ask(self, choose: random.Random, visitor: str) -> None:
        prompt_ids = self.make_prompt(_log_uniform(choose, 4, self.max_prompt), choose)
        num_new = _log_uniform(choose, 1, self.max_reply)
        params = SamplingParams(max_new_tokens=num_new, seed=choose.getrandbits(30))
        try:
            sequence = self.engine.submit(prompt_ids, params, visitor=visitor)
        except QueueFullError:
            with self.lock:
                self.num_refused += 1
            time.sleep(_PAUSE_SECONDS)
            return
        gives_up = choose.random() < 0.25
        num_wanted = choose.randrange(0, num_new) if gives_up else num_new
        with self.engine.stream(sequence) as stream:
            for _ in zip(range(num_wanted), stream, strict=False):
                pass
        with self.lock:
            self.num_given_up += gives_up
            self.num_tokens += len(sequence.output_ids)
            if sequence.error is not None:
                self.errors.append(sequence.error.key)


def run(soak: Soak, num_visitors: int, interval_seconds: float, tell: Any = print) -> list[tuple[float, float]]:
    """Let visitors talk until the soak is over; return (seconds, resident MB) at intervals and at the end."""
    started = time.monotonic()
    visitors = [threading.Thread(target=soak.visit, args=(seed,)) for seed in range(num_visitors)]
    for visitor in visitors:
        visitor.start()
    samples: list[tuple[float, float]] = []

    def sample() -> None:
        gc.collect()
        samples.append((time.monotonic() - started, resident_megabytes()))
        tell(
            f"{samples[-1][0]:8.0f} s {soak.num_requests:8d} requests {soak.num_given_up:6d} given up "
            f"{soak.num_refused:6d} refused {soak.num_tokens:9d} tokens {samples[-1][1]:8.1f} MB"
        )

    for visitor in visitors:
        while visitor.is_alive():
            visitor.join(interval_seconds)
            if visitor.is_alive():
                sample()
    soak.engine.wait_idle(60)
    sample()
    return samples


def slope_mb_per_hour(samples: list[tuple[float, float]]) -> float:
    """Return the least-squares slope of memory after the warming up; NaN with less than two samples left."""
    end = samples[-1][0]
    later = [(seconds, megabytes) for seconds, megabytes in samples if seconds >= WARM_UP * end]
    if len(later) < 2:
        return float("nan")
    mean_x = sum(seconds for seconds, _ in later) / len(later)
    mean_y = sum(megabytes for _, megabytes in later) / len(later)
    spread = sum((seconds - mean_x) ** 2 for seconds, _ in later)
    return 3600 * sum((seconds - mean_x) * (megabytes - mean_y) for seconds, megabytes in later) / spread


def resident_megabytes() -> float:
    """Return this process's resident memory."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _log_uniform(choose: random.Random, low: int, high: int) -> int:
    """Return a number of which short and long ones are equally likely."""
    return min(high, round(low * (high / low) ** choose.random()))


def main() -> None:
    """Run what the command line asks for."""
    from engine import make_prompt, make_runner

    from bianque.manager.registry import MINI_ADVISER, MINI_ASKER

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0, help="for each model")
    parser.add_argument("--requests", type=int, default=1_000_000, help="most requests for each model")
    parser.add_argument("--visitors", type=int, default=12)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--waiting", type=int, default=2, help="places in the queue; more visitors are refused")
    parser.add_argument("--prompt", type=int, default=256, help="longest prompt in tokens")
    parser.add_argument("--reply", type=int, default=128, help="longest reply in tokens")
    parser.add_argument("--interval", type=float, default=0.0, help="seconds; 0 is a twentieth of the time")
    options = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, fp32"
    )
    for spec in (MINI_ASKER, MINI_ADVISER):
        runner: Any = make_runner(
            Path(spec.location),
            spec.family,
            "fp32",
            "cpu",
            num_slots=options.slots,
            prompt=options.prompt,
            reply=options.reply,
        )
        print(f"\n{spec.name}: {options.visitors} visitors, {options.slots} slots, {options.waiting} may wait")
        num_threads = threading.active_count()
        with Engine(runner, max_waiting=options.waiting) as engine:
            soak = Soak(
                engine,
                lambda length, choose, runner=runner: make_prompt(runner, length, choose),
                options.prompt,
                options.reply,
                options.requests,
                time.monotonic() + 60 * options.minutes,
            )
            samples = run(soak, options.visitors, options.interval or 3 * options.minutes)
            status = engine.status()
        print(
            f"memory {slope_mb_per_hour(samples):+.1f} MB an hour after warming up; errors: {soak.errors or 'none'}; "
            f"left over: {status.num_running} running, {status.num_waiting} waiting, "
            f"{threading.active_count() - num_threads} threads",
            flush=True,
        )


if __name__ == "__main__":
    main()
