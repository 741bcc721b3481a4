"""Measure decoding of a full-size BianQue-2.0 with random weights on a CUDA device, at fp16, int8 and int4.

    python benchmarks/gpu_decode.py [--num-layers 28] [--context 128] [--batches 1 8] [--steps 20]

Each model is built on the device layer by layer, so that the host needs no memory for it. Printed for each precision,
way of multiplying and batch: milliseconds of the engine's decode step and tokens per second, launched from Python
(eager), as the engine runs it (engine: inputs to the device, a CUDA graph, logits) and the graph alone (graph); the
share of the memory bandwidth that the graph reaches, which is the bytes that a step has to read (weights and KV cache
once) against what copying reaches on this card; the speed against fp16 and against unpacking the weights first, as the
published code does (torch); memory; and how far the logits are from fp16. `plain` is the step without the kernels of
`bianque.engine.chatglm_kernels`.
"""

from __future__ import annotations

import argparse
import gc
import platform
import statistics
import sys
import time
import zlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn

from bianque.engine.chatglm_runner import ChatGLMRunner
from bianque.models.chatglm import ChatGLMConfig, ChatGLMForConditionalGeneration
from bianque.quantization import cpm_backend, cuda
from bianque.quantization.linear import QuantizedLinear, replace_linears, selects_linear

DEVICE = torch.device("cuda")
PROMPT_TOKENS = 64


def build(config: ChatGLMConfig, bits: int | None, device: torch.device = DEVICE) -> ChatGLMForConditionalGeneration:
    """Return a model with the same random weights at every precision; `bits` None is fp16."""
    with torch.device("meta"):
        model = ChatGLMForConditionalGeneration(config).half().eval()
    if bits is not None:
        replace_linears(model, bits, device=device, dtype=torch.float16, select=selects_linear("chatglm"))
    for name, module in model.named_modules():
        generator = torch.Generator(device).manual_seed(zlib.crc32(name.encode()))
        if isinstance(module, QuantizedLinear):
            shape = (module.out_features, module.in_features)
            module.load_weight(torch.randn(shape, generator=generator, device=device, dtype=torch.float16) * 0.02)
        for key, parameter in list(module.named_parameters(recurse=False)):
            if key == "bias":
                values = torch.zeros(parameter.shape, device=device, dtype=torch.float16)
            elif isinstance(module, nn.LayerNorm):
                values = torch.ones(parameter.shape, device=device, dtype=torch.float16)
            elif name == "lm_head":
                continue
            else:
                values = torch.randn(parameter.shape, generator=generator, device=device, dtype=torch.float16) * 0.02
            setattr(module, key, nn.Parameter(values, requires_grad=False))
    model.lm_head.weight = model.transformer.word_embeddings.weight
    return model


def bytes_of_step(model: nn.Module, config: ChatGLMConfig, batch: int, context: int) -> int:
    """Return the bytes that one decode step cannot avoid to read: every weight, and the KV cache."""
    tensors = [*model.parameters(), *model.buffers()]
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return weights + batch * context * 2 * config.num_layers * config.hidden_size * 2


def prompt(config: ChatGLMConfig, batch: int, length: int, device: torch.device = DEVICE) -> torch.Tensor:
    """Return (batch, length) ids of words, closed by [gMASK] and <sop>."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(100, min(10_000, config.mask_token_id), (batch, length), generator=generator)
    ids[:, -2], ids[:, -1] = config.gmask_token_id, config.bos_token_id
    return ids.to(device)


def filled_runner(
    model: ChatGLMForConditionalGeneration, config: ChatGLMConfig, batch: int, context: int, steps: int
) -> ChatGLMRunner:
    """Return a runner with a prompt of `context` tokens in each slot and room for some steps more."""
    runner = ChatGLMRunner(model, num_slots=batch, max_len=context + 4 * steps + 8)
    for slot, ids in enumerate(prompt(config, batch, context).tolist()):
        for _ in runner.prefill(slot, ids):
            pass
    return runner


def measure_steps(runner: ChatGLMRunner, batch: int, steps: int) -> tuple[float, float, float]:
    """Return the median seconds of a decode step: launched from Python, as the engine runs it, its graph alone."""
    slots, token_ids = list(range(batch)), [5] * batch
    runner.decode(slots, token_ids)  # tries what computes the products, and records
    graphs = runner._graphs
    assert graphs is not None
    (recorded,) = graphs._recorded.values()
    (num_places,) = (places for _, places in graphs._recorded)
    eager = seconds_of(lambda: runner._batched_step(recorded.inputs, num_places), steps)
    engine = seconds_of(lambda: runner.decode(slots, token_ids), steps)
    graph = seconds_of(recorded.graph.replay, steps)
    return eager, engine, graph


def seconds_of(run: Callable[[], object], steps: int) -> float:
    """Return the median seconds of a run, the device waited for."""
    times = []
    for _ in range(steps):
        torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def has_cpm(bits: int) -> bool:
    """Return whether cpm_kernels has machine code for this card and precision."""
    return cpm_backend.supports(1, 4096, 4096, bits, torch.float16, torch.cuda.get_device_capability())


def copy_bandwidth(steps: int) -> float:
    """Return the bytes per second that are read and written when a gigabyte is copied on the device."""
    source = torch.empty(2**30, dtype=torch.int8, device=DEVICE)
    target = torch.empty_like(source)
    return 2 * 2**30 / seconds_of(lambda: target.copy_(source), steps)


def describe_machine(bandwidth: float) -> None:
    """Print card, versions and measured bandwidth."""
    card = torch.cuda.get_device_properties(DEVICE)
    versions = []
    for package in ("triton", "cpm_kernels", "transformers"):
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    print(
        f"{card.name}, compute capability {card.major}.{card.minor}, {card.multi_processor_count} multiprocessors, "
        f"{card.total_memory / 2**30:.1f} GiB, CUDA {torch.version.cuda}; torch {torch.__version__}, "
        f"{', '.join(versions)}, Python {platform.python_version()}; copying reaches {bandwidth / 1e9:.0f} GB/s"
    )


def distance(logits: torch.Tensor, reference: torch.Tensor) -> str:
    """Say how far logits (T, V) are from those of fp16."""
    error = (logits - reference).norm() / reference.norm()
    same = (logits.argmax(-1) == reference.argmax(-1)).float().mean()
    return f"logits: relative difference {error:.4f}, same best token at {same:.0%} of {len(logits)} positions"


def measure(arguments: argparse.Namespace) -> None:
    """Build each precision in turn and print its figures."""
    config = ChatGLMConfig(num_layers=arguments.num_layers)
    bandwidth = copy_bandwidth(arguments.steps)
    describe_machine(bandwidth)
    print(f"{config.num_layers} layers, {arguments.context} tokens in the KV cache, median of {arguments.steps} steps")
    reference = torch.empty(0)
    seconds: dict[tuple[int, str, int], float] = {}
    for bits in arguments.bits:
        torch.cuda.empty_cache()
        model = build(config, bits or None)
        precision = f"int{bits}" if bits else "fp16"
        logits = model(prompt(config, 1, PROMPT_TOKENS)).logits[0].float().cpu()
        reference = logits if not len(reference) else reference
        memory = torch.cuda.memory_allocated() / 2**30
        print(f"{precision}: {memory:.2f} GiB of weights; {distance(logits, reference)}")
        for choice in (*(("auto", "triton", "cpm", "torch") if bits else ("auto",)), "plain"):
            if choice == "cpm" and not has_cpm(bits):
                continue
            cuda.prefer(choice if choice != "plain" else "auto")
            for batch in arguments.batches:
                torch.cuda.reset_peak_memory_stats()
                runner = filled_runner(model, config, batch, arguments.context, arguments.steps)
                if choice == "plain":
                    runner._has_common_length = True
                eager, engine, graph = measure_steps(runner, batch, arguments.steps)
                seconds[bits, choice, batch] = graph
                share = bytes_of_step(model, config, batch, arguments.context) / graph / bandwidth
                print(
                    f"{precision} {choice:6} batch {batch}: eager {1e3 * eager:.2f} ms; engine {1e3 * engine:.2f} ms, "
                    f"{batch / engine:.1f} tokens/s; graph {1e3 * graph:.2f} ms, {batch / graph:.1f} tokens/s, "
                    f"{share:.0%} of the bandwidth; peak {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB",
                    flush=True,
                )
        del model, runner
        gc.collect()  # a runner and its graphs know each other
    print("\nspeed of auto in graphs, against fp16, against unpacking first (torch), and against plain:")
    for bits in filter(None, arguments.bits):
        for batch in arguments.batches:
            auto = seconds[bits, "auto", batch]
            ratios = [f"{seconds[bits, name, batch] / auto:.2f} x {name}" for name in ("torch", "plain")]
            if 0 in arguments.bits:
                ratios.insert(0, f"{seconds[0, 'auto', batch] / auto:.2f} x fp16")
            print(f"int{bits} batch {batch}: {', '.join(ratios)}")


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description="Decoding speed on a CUDA device.")
    parser.add_argument("--num-layers", type=int, default=28, help="fewer for a card without room for fp16")
    parser.add_argument("--context", type=int, default=128, help="tokens in the KV cache")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--bits", type=int, nargs="+", choices=(0, 8, 4), default=[0, 8, 4], help="0 is fp16")
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no CUDA device here")
    with torch.inference_mode():
        measure(arguments)


if __name__ == "__main__":
    main()
