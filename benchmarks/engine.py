"""Throughput and latency of the engine against the number of visitors.

    python benchmarks/engine.py                                            both demonstration models
    python benchmarks/engine.py --folder FOLDER --family t5 --precision int8     a full-size folder
    python benchmarks/engine.py --folder FOLDER --precision fp16 --device cuda   the same on a GPU
    python benchmarks/engine.py --joint                                    two engines on one device

Each visitor sends a request, reads the reply to its end and sends the next. Prompts are random tokens, replies have
their full length (end tokens are not heeded), sampling is BianQue-2.0's (top_k 50, top_p 0.7). Every line is of one
run; ratios are to the first line of the same run. "outside the model" is what scheduling, sampling and handing out
tokens take of the time; "of the worker" counts the processor time of the engine's thread alone, which other programs
on the machine do not lengthen.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import bianque  # noqa: F401, I001 - sets how torch's threads wait, before it is loaded
import torch

from bianque.engine.chatglm_runner import ChatGLMRunner
from bianque.engine.engine import Engine
from bianque.engine.sampling import SamplingParams
from bianque.engine.t5_runner import T5Runner
from bianque.engine.turns import Turns
from bianque.manager.registry import MINI_ADVISER, MINI_ASKER
from bianque.manager.weights.load import load_weights


@dataclass
class Timed:
    """A runner whose calls are timed; everything else is its own."""

    runner: Any
    model_seconds: float = 0.0
    model_cpu_seconds: float = 0.0
    num_steps: int = 0
    first_cpu: float = 0.0
    last_cpu: float = 0.0

    @contextmanager
    def timing(self) -> Iterator[None]:
        """Count what is run inside: seconds, and seconds of this thread on the processor."""
        started, cpu_started = time.perf_counter(), time.thread_time()
        self.first_cpu = self.first_cpu or cpu_started
        try:
            yield
        finally:
            self.last_cpu = time.thread_time()
            self.model_cpu_seconds += self.last_cpu - cpu_started
            self.model_seconds += time.perf_counter() - started

    @property
    def cpu_share_outside(self) -> float:
        """Of the worker's processor time from the first call to the last, the share that is not the model's."""
        return 1 - self.model_cpu_seconds / max(1e-9, self.last_cpu - self.first_cpu)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runner, name)

    def prefill(self, slot: int, prompt_ids: list[int]) -> Any:
        """Time each layer."""
        steps = self.runner.prefill(slot, prompt_ids)
        while True:
            try:
                with self.timing():
                    next(steps)
            except StopIteration as end:
                return end.value
            yield

    def decode(self, slots: list[int], token_ids: list[int], num_exact: list[int] | None = None) -> Any:
        """Time a decode step."""
        with self.timing():
            logits = self.runner.decode(slots, token_ids, num_exact)
        self.num_steps += 1
        return logits


@dataclass
class Load:
    """What the visitors of one run saw."""

    first: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    num_tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all visitors a second."""
        return self.num_tokens / self.seconds


def make_runner(
    folder: Path, family: str, precision: str, device: str, *, num_slots: int, prompt: int, reply: int
) -> T5Runner | ChatGLMRunner:
    """Load a folder and wrap it in a runner whose slots just hold the lengths that are measured."""
    model: Any = load_weights(folder, family, device=device, precision=precision)  # type: ignore[arg-type]
    runner: T5Runner | ChatGLMRunner
    if family == "t5":
        runner = T5Runner(model, num_slots=num_slots, max_prompt_len=prompt, max_new_tokens=reply)
    else:
        runner = ChatGLMRunner(model, num_slots=num_slots, max_len=prompt + reply)
    runner.warm_up()
    return runner


def make_prompt(runner: Any, length: int, choose: random.Random) -> list[int]:
    """Return random ids with what the architecture needs at the end."""
    config = runner._model.config
    ending = [1] if runner.is_encoder_decoder else [config.gmask_token_id, config.bos_token_id]
    return [choose.randrange(10, 3000) for _ in range(length - len(ending))] + ending


def visit(engine: Engine, prompts: list[list[int]], reply: int, load: Load, lock: threading.Lock) -> None:
    """Send one request after the other and note when tokens come."""
    for number, prompt_ids in enumerate(prompts):
        params = SamplingParams(temperature=0.95, top_k=50, top_p=0.7, max_new_tokens=reply, seed=number)
        times = [time.perf_counter()]
        for _ in engine.stream(engine.submit(prompt_ids, params)):
            times.append(time.perf_counter())
        with lock:
            load.first.append(times[1] - times[0])
            load.gaps += [later - earlier for earlier, later in itertools.pairwise(times[1:])]
            load.num_tokens += len(times) - 1


def run_load(engine: Engine, runner: Any, num_visitors: int, rounds: int, prompt: int, reply: int) -> Load:
    """Let so many visitors talk at once."""
    load, lock, choose = Load(), threading.Lock(), random.Random(num_visitors)
    visitors = []
    for _ in range(num_visitors):
        prompts = [make_prompt(runner, prompt, choose) for _ in range(rounds)]
        visitors.append(threading.Thread(target=visit, args=(engine, prompts, reply, load, lock)))
    started = time.perf_counter()
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    load.seconds = time.perf_counter() - started
    return load


def percentile(values: list[float], share: float) -> float:
    """Return the value that `share` of all stay below."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def measure(name: str, runner: Any, options: argparse.Namespace) -> list[tuple[int, Load]]:
    """Print the table of one model and return it."""
    print(
        f"\n{name}: prompt {options.prompt}, reply {options.reply} tokens, {runner.num_slots} slots, "
        f"KV cache {runner.kv_cache_bytes / 1e6:.0f} MB"
    )
    print("visitors  tokens/s  ratio  first p50   p95     gap p50    p95    outside the model")
    table: list[tuple[int, Load]] = []
    for num_visitors in options.visitors:
        if not table:
            with Engine(runner, eos_token_ids=()) as engine:  # libraries set up their buffers
                run_load(engine, runner, 1, 1, options.prompt, min(4, options.reply))
        timed = Timed(runner)
        with Engine(timed, max_waiting=1000, eos_token_ids=()) as engine:
            load = run_load(engine, runner, num_visitors, options.rounds, options.prompt, options.reply)
        table.append((num_visitors, load))
        outside = load.seconds - timed.model_seconds
        print(
            f"{num_visitors:8d} {load.tokens_per_second:9.1f} "
            f"{load.tokens_per_second / table[0][1].tokens_per_second:6.2f} "
            f"{percentile(load.first, 0.5):8.3f} s {percentile(load.first, 0.95):6.3f} s "
            f"{percentile(load.gaps, 0.5) * 1e3:7.1f} {percentile(load.gaps, 0.95) * 1e3:7.1f} ms "
            f"{outside / max(1, timed.num_steps) * 1e3:7.2f} ms a step, {outside / load.seconds:.1%}; "
            f"{timed.cpu_share_outside:.1%} of the worker",
            flush=True,
        )
    return table


def measure_wait(runner: Any, options: argparse.Namespace) -> None:
    """Print what the visitor is told who comes when all slots are taken, and what happens."""
    with Engine(runner, eos_token_ids=()) as engine:
        choose = random.Random(0)
        params = SamplingParams(max_new_tokens=options.reply, seed=1)
        list(engine.stream(engine.submit(make_prompt(runner, options.prompt, choose), params)))
        for known in ("one reply alone", "a full house"):
            for _ in range(runner.num_slots):
                engine.submit(make_prompt(runner, options.prompt, choose), params)
            late = engine.submit(make_prompt(runner, options.prompt, choose), params)
            told = engine.expected_wait_seconds(late)
            next(iter(engine.stream(late)))
            engine.wait_idle()
            assert told is not None and late.time_to_first_token_seconds is not None
            print(
                f"visitor {runner.num_slots + 1} of {runner.num_slots} slots: told {told:.2f} s to the first token "
                f"(from {known}), it came after {late.time_to_first_token_seconds:.2f} s"
            )


def measure_joint(runners: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the throughput of two engines alone, together in turns, and together without."""
    print(f"\ntwo engines at once, {options.joint_visitors} visitors each: tokens/s")
    arrangements = (("alone", None), ("together, in turns", Turns()), ("together, each when it likes", None))
    for arrangement, turns in arrangements:
        loads: dict[str, Load] = {}

        def run(name: str, runner: Any, turns: Turns | None = turns, loads: dict[str, Load] = loads) -> None:
            with Engine(runner, max_waiting=1000, eos_token_ids=(), turns=turns) as engine:
                loads[name] = run_load(
                    engine, runner, options.joint_visitors, options.rounds, options.prompt, options.reply
                )

        threads = [threading.Thread(target=run, args=item) for item in runners.items()]
        for thread in threads:
            thread.start()
            if arrangement == "alone":
                thread.join()
        for thread in threads:
            thread.join()
        print(
            f"{arrangement:30s} "
            + "  ".join(
                f"{name} {load.tokens_per_second:.1f} (gap p95 {percentile(load.gaps, 0.95) * 1e3:.1f} ms)"
                for name, load in loads.items()
            ),
            flush=True,
        )


def plot(tables: dict[str, list[tuple[int, Load]]], path: Path) -> None:
    """Draw throughput and latency against visitors."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for name, table in tables.items():
        visitors = [num_visitors for num_visitors, _ in table]
        axes[0].plot(visitors, [load.tokens_per_second for _, load in table], "o-", label=name)
        for axis, values in ((axes[1], "first"), (axes[2], "gaps")):
            for share, style in ((0.5, "o-"), (0.95, "s--")):
                points = [percentile(getattr(load, values), share) * 1e3 for _, load in table]
                axis.plot(visitors, points, style, label=f"{name} p{share * 100:.0f}")
    for axis, title in zip(
        axes, ("tokens per second, all visitors", "first token, ms", "gap between tokens, ms"), strict=True
    ):
        axis.set(title=title, xlabel="visitors at once")
        axis.set_xscale("log", base=2)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    print(f"plot: {path}")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="a snapshot; else the demonstration models")
    parser.add_argument("--family", choices=("t5", "chatglm"), default="chatglm", help="of --folder")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16", "int8", "int4"), default="fp32")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--visitors", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3, help="replies that each visitor reads")
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--reply", type=int, default=64)
    parser.add_argument("--threads", type=int, default=0, help="0 leaves it to torch")
    parser.add_argument("--joint", action="store_true", help="two engines at once instead")
    parser.add_argument("--joint-visitors", type=int, default=4)
    parser.add_argument("--plot", type=Path, help="a PNG file (needs matplotlib)")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, {options.precision}"
        + (f" on {torch.cuda.get_device_name(options.device)}" if options.device.startswith("cuda") else "")
    )
    sources = (
        {options.folder.name: (options.folder, options.family)}
        if options.folder
        else {spec.name: (Path(spec.location), spec.family) for spec in (MINI_ASKER, MINI_ADVISER)}
    )
    runners = {
        name: make_runner(
            folder,
            family,
            options.precision,
            options.device,
            num_slots=options.slots,
            prompt=options.prompt,
            reply=options.reply,
        )
        for name, (folder, family) in sources.items()
    }
    if options.joint:
        measure_joint(runners, options)
        return
    tables = {}
    for name, runner in runners.items():
        tables[name] = measure(name, runner, options)
        measure_wait(runner, options)
    if options.plot and tables:
        plot(tables, options.plot)


if __name__ == "__main__":
    main()
