"""Measure a full-size BianQue-2.0 on the CPU, end to end: prefill, one chat, eight chats, memory; beside chatglm.cpp.

The model has the published sizes and random weights, built layer by layer at 8 or 4 bits, so that no checkpoint and
only its own memory is needed. It runs as in the Space, through `ChatGLMRunner`. With `--peer FILE` (a model file of
chatglm.cpp, see `--write-peer`) the same lengths are then measured with the package chatglm-cpp, and ratios printed.

    python benchmarks/cpu_decode.py --bits 8
    python benchmarks/cpu_decode.py --bits 8 --write-peer q8_0.bin      needs chatglm-cpp and as much free disk
    python benchmarks/cpu_decode.py --bits 8 --peer q8_0.bin
    python benchmarks/cpu_decode.py --bits 8 --peer q8_0.bin --busy     the same beside a process that needs one core
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import bianque  # noqa: E402, F401, I001 - sets how torch's threads wait, before it is loaded
import torch  # noqa: E402

from benchmarks.chatglm_cpp_file import SCALES, write_model  # noqa: E402
from benchmarks.cpu_linear import cpu_name  # noqa: E402
from bianque.engine.batch_sampler import num_exact  # noqa: E402
from bianque.engine.chatglm_runner import ChatGLMRunner  # noqa: E402
from bianque.engine.sampler import Sampler  # noqa: E402
from bianque.engine.sampling import SamplingParams  # noqa: E402
from bianque.models.chatglm import ChatGLMConfig, ChatGLMForConditionalGeneration  # noqa: E402
from bianque.quantization.digit_layers import replace_tied_head  # noqa: E402
from bianque.quantization.digits import encode  # noqa: E402
from bianque.quantization.linear import QuantizedLinear, replace_linears, selects_linear  # noqa: E402

NUM_CHATS = 8


def resident_gib() -> float:
    """Return the resident memory of this process."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024**2 if found else float("nan")


def build_model(bits: Any, num_layers: int) -> ChatGLMForConditionalGeneration:
    """Return a random model of published sizes, quantized as the loader does on a CPU."""
    config = ChatGLMConfig(num_layers=num_layers)
    with torch.device("meta"):
        model = ChatGLMForConditionalGeneration(config)
    replace_linears(model, bits, device="cpu", dtype=torch.float32, select=selects_linear("chatglm"))
    table = torch.empty(config.vocab_size, config.hidden_size, dtype=torch.float16)
    for chunk in table.split(4096):
        chunk.normal_(std=0.02)
    digits = encode(table)
    del table
    for layer in replace_tied_head(model):
        layer.load_digits(digits)
    # Every weight begins elsewhere in one pool of random bytes: drawing six billion would take minutes.
    pool = torch.randint(-128, 128, (1 << 26,), dtype=torch.int8)
    for number, module in enumerate(model.modules()):
        if isinstance(module, QuantizedLinear):
            size = module.weight.numel()
            begin = number * 4099
            weight = torch.cat((pool[begin:], pool[:begin]))[:size].view(module.weight.shape).clone()
            module.load_quantized(weight, torch.full((module.out_features,), SCALES[bits]).half())
            module.bias = torch.nn.Parameter(torch.zeros(module.out_features), requires_grad=False)
        elif isinstance(module, torch.nn.LayerNorm):
            module.weight = torch.nn.Parameter(torch.ones(config.hidden_size), requires_grad=False)
            module.bias = torch.nn.Parameter(torch.zeros(config.hidden_size), requires_grad=False)
    left = [name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta]
    assert not left, left
    return model.eval()


def prompt_ids(config: ChatGLMConfig, length: int) -> list[int]:
    """Return `length` ids as a tokenizer delivers them."""
    words = torch.randint(1000, 60_000, (length - 2,)).tolist()
    return [*words, config.gmask_token_id, config.bos_token_id]


def run_prefill(runner: ChatGLMRunner, slot: int, ids: list[int]) -> torch.Tensor:
    """Run a prompt to its end; return the logits."""
    steps = runner.prefill(slot, ids)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def measure_own(bits: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Return tokens a second of prefill, one chat and eight, and the memory.

    Chats need the logits that sampling needs by default; `decode_1_all` is one chat that needs all of them.
    """
    torch.manual_seed(0)
    model = build_model(bits, arguments.num_layers)
    runner = ChatGLMRunner(model, num_slots=NUM_CHATS, max_len=512)
    short = prompt_ids(model.config, arguments.context)
    for slot in range(NUM_CHATS):
        run_prefill(runner, slot, short)
    results = {}
    few = num_exact(Sampler(SamplingParams()))
    for name, num_chats, count in (("decode_1", 1, few), ("decode_1_all", 1, 0), ("decode_8", NUM_CHATS, few)):
        slots = list(range(num_chats))
        times = []
        for _ in range(arguments.num_tokens + 1):
            started = time.perf_counter()
            runner.decode(slots, [1234 + slot for slot in slots], [count] * num_chats)
            times.append(time.perf_counter() - started)
        results[name] = num_chats / statistics.median(times[1:])
    times = []
    for _ in range(2):
        runner.free(0)
        started = time.perf_counter()
        run_prefill(runner, 0, prompt_ids(model.config, arguments.prompt))
        times.append(time.perf_counter() - started)
    results["prefill"] = arguments.prompt / min(times)
    results["gib"] = resident_gib()
    return results


def measure_peer(path: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Return the same figures of chatglm.cpp; it has no batches, so eight chats take turns at the speed of one."""
    from chatglm_cpp import _C

    model = _C.Pipeline(str(path)).model
    config = ChatGLMConfig(num_layers=arguments.num_layers)
    generation = _C.GenerationConfig(do_sample=False)

    def next_token(ids: list[int], num_past: int, num_prompt: int) -> float:
        started = time.perf_counter()
        model.generate_next_token(ids, None, generation, num_past, num_prompt)
        return time.perf_counter() - started

    ids = prompt_ids(config, arguments.context)
    next_token(ids, 0, arguments.context)
    times = []
    for _ in range(arguments.num_tokens + 1):
        ids.append(1234)
        times.append(next_token(ids, len(ids) - 1, arguments.context))
    results = dict.fromkeys(("decode_1", "decode_1_all", "decode_8"), 1 / statistics.median(times[1:]))
    prefill = min(next_token(prompt_ids(config, arguments.prompt), 0, arguments.prompt) for _ in range(2))
    results["prefill"] = arguments.prompt / prefill
    results["gib"] = resident_gib()
    return results


def measure_apart(arguments: argparse.Namespace, *, peer: bool) -> dict[str, float]:
    """Measure in a process of its own, so that its memory is its own."""
    command = [sys.executable, __file__, "--bits", str(arguments.bits), "--apart", "peer" if peer else "own"]
    for name in ("num_layers", "context", "prompt", "num_tokens"):
        command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    if arguments.peer:
        command += ["--peer", str(arguments.peer)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(printed.splitlines()[-1])


@contextmanager
def busy_process() -> Iterator[None]:
    """Keep one core busy, as another program on the machine would."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure."""
    return {name: statistics.median(results[name] for results in rounds) for name in rounds[0]}


def print_results(name: str, results: dict[str, float]) -> None:
    """Print one line."""
    print(
        f"{name:24} one chat {results['decode_1']:6.2f} tokens/s, with all logits {results['decode_1_all']:6.2f}   "
        f"{NUM_CHATS} chats {results['decode_8']:6.2f}   "
        f"prefill {results['prefill']:6.2f}   memory {results['gib']:5.2f} GiB",
        flush=True,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, choices=(8, 4), default=8)
    parser.add_argument("--peer", type=Path, help="a model file of chatglm.cpp")
    parser.add_argument("--write-peer", type=Path, help="write such a file with random weights, and end")
    parser.add_argument("--num-layers", type=int, default=28)
    parser.add_argument("--context", type=int, default=32, help="tokens before the first decode step")
    parser.add_argument("--prompt", type=int, default=256, help="tokens of the measured prefill")
    parser.add_argument("--num-tokens", type=int, default=16, help="decode steps; their median counts")
    parser.add_argument("--rounds", type=int, default=1, help="of both, by turns; medians count")
    parser.add_argument("--busy", action="store_true", help="measure beside a process that computes without end")
    parser.add_argument("--apart", choices=("own", "peer"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write_peer:
        write_model(arguments.write_peer, arguments.bits, ChatGLMConfig(num_layers=arguments.num_layers))
        return
    if arguments.apart:
        is_peer = arguments.apart == "peer"
        results = measure_peer(arguments.peer, arguments) if is_peer else measure_own(arguments.bits, arguments)
        print(json.dumps(results))
        return
    print(
        f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}; {arguments.num_layers} layers, "
        f"int{arguments.bits}, fp32 activations; context {arguments.context}, prompt {arguments.prompt}"
        + ("; beside one busy process" if arguments.busy else "")
    )
    owns, peers = [], []
    with busy_process() if arguments.busy else nullcontext():
        for _ in range(arguments.rounds):
            owns.append(measure_apart(arguments, peer=False))
            if arguments.peer:
                peers.append(measure_apart(arguments, peer=True))
    own = medians(owns)
    peer = medians(peers) if peers else None
    print_results(f"bianque int{arguments.bits}", own)
    if peer:
        print_results(f"chatglm.cpp {'q8_0' if arguments.bits == 8 else 'q4_0'}", peer)
        print("ratio                    " + ", ".join(f"{name} {own[name] / peer[name]:.2f}" for name in own))


if __name__ == "__main__":
    main()
