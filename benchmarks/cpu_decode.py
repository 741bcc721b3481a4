"""Measure a full-size BianQue-2.0 on the CPU, end to end: prefill, one chat, eight chats, memory; beside chatglm.cpp.

The model has the published sizes and random weights, built layer by layer at 8 or 4 bits, so that no checkpoint and
only its own memory is needed. It runs as in the Space, through `ChatGLMRunner`. With `--peer FILE` (a model file of
chatglm.cpp, see `--write-peer`) the same lengths are measured with the package chatglm-cpp, and ratios printed: one
after the other, each in its own memory, or with `--together` step by step in turns, which is fair on a machine whose
speed changes from minute to minute.

    python benchmarks/cpu_decode.py --bits 8
    python benchmarks/cpu_decode.py --bits 8 --write-peer q8_0.bin      needs chatglm-cpp and as much free disk
    python benchmarks/cpu_decode.py --bits 8 --peer q8_0.bin
    python benchmarks/cpu_decode.py --bits 8 --peer q8_0.bin --together
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


class Own:
    """BianQue's engine with a random model: a prompt of `context` tokens in each of eight slots."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Build the model and fill the slots."""
        torch.manual_seed(0)
        model = build_model(arguments.bits, arguments.num_layers)
        self._config = model.config
        self._runner = ChatGLMRunner(model, num_slots=NUM_CHATS, max_len=512)
        # What sampling needs by default, and all logits.
        few = num_exact(Sampler(SamplingParams()))
        self.steps = {"decode_1": (1, few), "decode_1_all": (1, 0), "decode_8": (NUM_CHATS, few)}
        for slot in range(NUM_CHATS):
            run_prefill(self._runner, slot, prompt_ids(self._config, arguments.context))

    def step(self, name: str) -> float:
        """Return the seconds of a decode step, for each of its tokens."""
        num_chats, count = self.steps[name]
        slots = list(range(num_chats))
        started = time.perf_counter()
        self._runner.decode(slots, [1234 + slot for slot in slots], [count] * num_chats)
        return (time.perf_counter() - started) / num_chats

    def prefill(self, length: int) -> float:
        """Return the seconds of a prompt of so many tokens, in place of the first slot's."""
        self._runner.free(0)
        started = time.perf_counter()
        run_prefill(self._runner, 0, prompt_ids(self._config, length))
        return time.perf_counter() - started


class Peer:
    """chatglm.cpp; it has no batches, so that eight chats take turns at the speed of one."""

    steps = ("decode_1",)

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Load the file and read the prompt."""
        from chatglm_cpp import _C

        self._model = _C.Pipeline(str(arguments.peer)).model
        self._generation = _C.GenerationConfig(do_sample=False)
        self._config = ChatGLMConfig(num_layers=arguments.num_layers)
        self._ids = prompt_ids(self._config, arguments.context)
        self._num_prompt = arguments.context
        self._next_token(self._ids, 0, self._num_prompt)

    def step(self, name: str) -> float:
        """Return the seconds of a decode step."""
        self._ids.append(1234)
        return self._next_token(self._ids, len(self._ids) - 1, self._num_prompt)

    def prefill(self, length: int) -> float:
        """Return the seconds of a prompt of so many tokens."""
        return self._next_token(prompt_ids(self._config, length), 0, length)

    def _next_token(self, ids: list[int], num_past: int, num_prompt: int) -> float:
        started = time.perf_counter()
        self._model.generate_next_token(ids, None, self._generation, num_past, num_prompt)
        return time.perf_counter() - started


SIDES = {"own": Own, "peer": Peer}


def measure(sides: list[str], arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return tokens a second of decoding and prefill for each side, step by step in turns, and the memory of one."""
    models = {side: SIDES[side](arguments) for side in sides}
    times: dict[tuple[str, str], list[float]] = {}
    for turn in range(arguments.num_tokens + 1):
        for side, model in models.items():
            for name in model.steps:
                seconds = model.step(name)
                if turn:
                    times.setdefault((side, name), []).append(seconds)
    results: dict[str, dict[str, float]] = {side: {} for side in sides}
    for (side, name), seconds in times.items():
        results[side][name] = 1 / statistics.median(seconds)
    prefills = [{side: model.prefill(arguments.prompt) for side, model in models.items()} for _ in range(2)]
    for side, figures in results.items():
        figures["prefill"] = arguments.prompt / min(each[side] for each in prefills)
        if len(sides) == 1:
            figures["gib"] = resident_gib()
    if "peer" in results:
        results["peer"] |= dict.fromkeys(("decode_1_all", "decode_8"), results["peer"]["decode_1"])
    return results


def measure_apart(sides: list[str], arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure in a process of its own, so that its memory is its own."""
    command = [sys.executable, __file__, "--bits", str(arguments.bits), "--apart", *sides]
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


def print_results(name: str, results: dict[str, float]) -> None:
    """Print one line."""
    print(
        f"{name:24} one chat {results['decode_1']:6.2f} tokens/s, with all logits {results['decode_1_all']:6.2f}   "
        f"{NUM_CHATS} chats {results['decode_8']:6.2f}   prefill {results['prefill']:6.2f}"
        + (f"   memory {results['gib']:5.2f} GiB" if "gib" in results else ""),
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
    parser.add_argument("--together", action="store_true", help="both in one process; needs the memory of both")
    parser.add_argument("--busy", action="store_true", help="measure beside a process that computes without end")
    parser.add_argument("--apart", choices=SIDES, nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.write_peer:
        write_model(arguments.write_peer, arguments.bits, ChatGLMConfig(num_layers=arguments.num_layers))
        return
    if arguments.apart:
        print(json.dumps(measure(arguments.apart, arguments)))
        return
    print(
        f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}; {arguments.num_layers} layers, "
        f"int{arguments.bits}, fp32 activations; context {arguments.context}, prompt {arguments.prompt}"
        + ("; beside one busy process" if arguments.busy else "")
    )
    sides = ["own", "peer"] if arguments.peer else ["own"]
    with busy_process() if arguments.busy else nullcontext():
        if arguments.together:
            results = measure_apart(sides, arguments)
        else:
            results = {side: measure_apart([side], arguments)[side] for side in sides}
    print_results(f"bianque int{arguments.bits}", results["own"])
    if "peer" in results:
        print_results(f"chatglm.cpp {'q8_0' if arguments.bits == 8 else 'q4_0'}", results["peer"])
        ratios = {name: figure / results["peer"][name] for name, figure in results["own"].items()}
        print("ratio                    " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))


if __name__ == "__main__":
    main()
