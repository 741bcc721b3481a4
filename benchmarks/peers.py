"""The engine beside other ways to run the same models on this machine, in one run.

    python benchmarks/peers.py --t5 FOLDER --precision int8           transformers' generate, CTranslate2 if installed
    python benchmarks/peers.py --chatglm FOLDER --precision int8      transformers' generate, chatglm.cpp if installed

Folders with random weights of the published sizes: `scripts/make_checkpoint.py FOLDER --model bianque-1`. CTranslate2
is in the group `bench`; it gets the folder converted by its own converter. chatglm.cpp gets random weights of the same
sizes (q8_0, or q4_0 beside int4) unless `--ggml` names a file. Its package, chatglm-cpp 0.4.2, is built from source,
with CMAKE_POLICY_VERSION_MINIMUM=3.5 for a CMake of today.

Every way gets the same prompts of random tokens and writes the same number of tokens, greedy, end tokens not heeded
where the library lets one say so. "prompts" is the time to the first tokens of all chats; "decode" the rate of the
tokens after them, of our engine while all chats write; "in all" that of all tokens over the whole time. Each is of all
chats together, and the ratios are speeds beside our engine's in the same run. Ways that take one request at a time get
the chats one after the other, as their demos do: one chat is measured and counted as often as there are chats.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import bianque  # noqa: F401, I001 - sets how torch's threads wait, before it is loaded
import torch

from benchmarks.chatglm_cpp_file import write_model
from benchmarks.cpu_linear import cpu_name
from bianque.engine.chatglm_runner import ChatGLMRunner
from bianque.engine.engine import Engine
from bianque.engine.sampling import SamplingParams
from bianque.engine.t5_runner import T5Runner
from bianque.manager.weights.load import load_weights


@dataclass(frozen=True)
class Way:
    """A way to run a model.

    Attributes:
        generate: takes prompts and the length of replies, returns how many tokens were written.
        is_serial: takes one chat after the other, so that several take as many times as long as one.
        together: tokens a second while all chats were writing, one value for each run, of a way that begins to write
            some replies while it still reads the prompts of others.
    """

    generate: Callable[[list[list[int]], int], int]
    is_serial: bool = False
    together: list[float] = field(default_factory=list)


def ours(runner: Any) -> Way:
    """Return our engine, all chats at once."""
    together: list[float] = []

    def generate(prompts: list[list[int]], reply: int) -> int:
        times: list[list[float]] = [[] for _ in prompts]

        def read(engine: Engine, sequence: Any, chat: int) -> None:
            times[chat] = [time.perf_counter() for _ in engine.stream(sequence)]

        with Engine(runner, max_waiting=len(prompts), eos_token_ids=()) as engine:
            params = SamplingParams(temperature=0, max_new_tokens=reply)
            readers = [
                threading.Thread(target=read, args=(engine, engine.submit(prompt_ids, params), chat))
                for chat, prompt_ids in enumerate(prompts)
            ]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()
        begin, end = max(one[0] for one in times), min(one[-1] for one in times)
        num_tokens = sum(begin < moment <= end for one in times for moment in one)
        if num_tokens:
            together.append(num_tokens / (end - begin))
        return sum(map(len, times))

    return Way(generate, together=together)


def transformers_generate(model: Any) -> Way:
    """Return transformers' `generate` over a padded batch."""

    def generate(prompts: list[list[int]], reply: int) -> int:
        output = model.generate(torch.tensor(prompts), do_sample=False, min_new_tokens=reply, max_new_tokens=reply)
        return len(prompts) * reply if output is not None else 0

    return Way(generate)


def ctranslate2(folder: Path, compute_type: str) -> Way | None:
    """Return CTranslate2 over the converted folder, all chats in one batch; None where it is not installed."""
    if importlib.util.find_spec("ctranslate2") is None:
        print("CTranslate2 is not installed")
        return None
    os.environ.pop("OMP_WAIT_POLICY", None)  # its own copy of OpenMP waits as it does everywhere
    import ctranslate2 as library
    from ctranslate2.converters import TransformersConverter

    converted = Path(tempfile.mkdtemp(prefix="bianque-peers-")) / "model"
    TransformersConverter(str(folder)).convert(str(converted), quantization="int8" if "int8" in compute_type else None)
    translator = library.Translator(
        str(converted), device="cpu", compute_type=compute_type, intra_threads=torch.get_num_threads()
    )
    tokens = json.loads((converted / "shared_vocabulary.json").read_text(encoding="utf-8"))

    def generate(prompts: list[list[int]], reply: int) -> int:
        results = translator.translate_batch(
            [[tokens[token_id] for token_id in prompt_ids] for prompt_ids in prompts],
            beam_size=1,
            min_decoding_length=reply,
            max_decoding_length=reply,
            max_batch_size=len(prompts),
        )
        return sum(len(result.hypotheses[0]) for result in results)

    return Way(generate)


def chatglm_cpp(file: Path | None, bits: int, config: Any) -> Way | None:
    """Return chatglm.cpp, one chat after the other; None where it is not installed."""
    if importlib.util.find_spec("chatglm_cpp") is None:
        print("chatglm.cpp is not installed")
        return None
    import chatglm_cpp as library

    if file is None:
        file = Path(tempfile.mkdtemp(prefix="bianque-peers-")) / "model.ggml"
        write_model(file, bits, config)
    pipeline = library.Pipeline(str(file))

    def generate(prompts: list[list[int]], reply: int) -> int:
        num_tokens = 0
        for prompt_ids in prompts:
            config = library._C.GenerationConfig(
                max_length=len(prompt_ids) + reply, max_context_length=len(prompt_ids), do_sample=False
            )
            num_tokens += len(pipeline._sync_generate_ids(prompt_ids, None, config))
        return num_tokens

    return Way(generate, is_serial=True)


def measure(ways: dict[str, Way | None], prompts: list[list[int]], options: argparse.Namespace) -> None:
    """Print what every way needs for the prompts and then for a token, for one chat and for several."""
    print(f"\nprompt {options.prompt}, reply {options.reply} tokens, best of {options.repeats}; (ratio to ours)")
    print(f"{'':36s} {'chats':>5s}  {'prompts':>14s}  {'decode':>21s}  {'in all':>21s}")
    ours_speeds: dict[int, tuple[float, ...]] = {}
    for name, way in ways.items():
        if way is None:
            continue
        for batch in (prompts[:1], prompts):
            measured = batch[:1] if way.is_serial else batch
            best = {1: float("inf"), options.reply: float("inf")}
            way.generate(measured, 2)  # libraries set up their buffers
            way.together.clear()
            for _ in range(options.repeats):
                for reply in best:
                    started = time.perf_counter()
                    num_tokens = way.generate(measured, reply)
                    best[reply] = min(best[reply], time.perf_counter() - started)
                    assert num_tokens == len(measured) * reply, f"{name} wrote {num_tokens} tokens"
            prompt_seconds, seconds = (taken * len(batch) / len(measured) for taken in best.values())
            decoded = len(batch) * (options.reply - 1) / max(1e-9, seconds - prompt_seconds)
            if way.together:
                decoded = max(way.together)
            speeds = (len(batch) / prompt_seconds, decoded, len(batch) * options.reply / seconds)
            ours_speeds.setdefault(len(batch), speeds)
            ratios = [speed / own for speed, own in zip(speeds, ours_speeds[len(batch)], strict=True)]
            print(
                f"{name:36s} {len(batch):5d}  {prompt_seconds:6.2f} s ({ratios[0]:.2f})  "
                f"{decoded:6.2f} tokens/s ({ratios[1]:.2f})  {speeds[2]:6.2f} tokens/s ({ratios[2]:.2f})",
                flush=True,
            )
            if way is next(iter(ways.values())) and len(batch) > 1:
                gains = [many / one for many, one in zip(speeds, ours_speeds[1], strict=True)]
                print(f"{'':36s} {len(batch)} chats to one: decode {gains[1]:.2f}, in all {gains[2]:.2f}", flush=True)


def make_prompts(options: argparse.Namespace, ending: list[int]) -> list[list[int]]:
    """Return prompts of random ids, all of one length."""
    choose = random.Random(0)
    length = options.prompt - len(ending)
    return [[choose.randrange(10, 3000) for _ in range(length)] + ending for _ in range(options.chats)]


def measure_t5(options: argparse.Namespace) -> None:
    """Compare on BianQue-1.0 or another T5."""
    model: Any = load_weights(options.t5, "t5", device="cpu", precision=options.precision)
    runner = T5Runner(model, num_slots=options.chats, max_prompt_len=options.prompt, max_new_tokens=options.reply)
    ways: dict[str, Way | None] = {f"this engine, {options.precision}": ours(runner)}
    for compute_type in ("int8", "float32"):
        ways[f"CTranslate2, {compute_type}"] = ctranslate2(options.t5, compute_type)
    ways[f"transformers' generate, {options.precision}"] = transformers_generate(model)
    measure(ways, make_prompts(options, [1]), options)


def measure_chatglm(options: argparse.Namespace) -> None:
    """Compare on BianQue-2.0 or another ChatGLM-6B."""
    model: Any = load_weights(options.chatglm, "chatglm", device="cpu", precision=options.precision)
    runner = ChatGLMRunner(model, num_slots=options.chats, max_len=options.prompt + options.reply)
    ways: dict[str, Way | None] = {f"this engine, {options.precision}": ours(runner)}
    bits = 4 if options.precision == "int4" else 8
    name = options.ggml.name if options.ggml else f"q{bits}_0, random weights"
    ways[f"chatglm.cpp, {name}"] = chatglm_cpp(options.ggml, bits, model.config)
    ways[f"transformers' generate, {options.precision}"] = transformers_generate(model)
    measure(ways, make_prompts(options, [model.config.gmask_token_id, model.config.bos_token_id]), options)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--t5", type=Path, help="a snapshot of a T5")
    parser.add_argument("--chatglm", type=Path, help="a snapshot of a ChatGLM-6B")
    parser.add_argument("--ggml", type=Path, help="a model file for chatglm.cpp")
    parser.add_argument("--precision", choices=("fp32", "bf16", "int8", "int4"), default="fp32")
    parser.add_argument("--chats", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--reply", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    print(
        f"{cpu_name()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"load {os.getloadavg()[0]:.1f}, torch {torch.__version__}"
    )
    if options.t5:
        measure_t5(options)
    if options.chatglm:
        measure_chatglm(options)


if __name__ == "__main__":
    main()
