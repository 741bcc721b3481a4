"""Measure single linear layers of BianQue-2.0 on the CPU: speed, share of the memory bandwidth, error.

Prints one line for each number of rows and each way to multiply: the project's kernel at 8 and 4 bits and fp16,
PyTorch's fp32, bf16 and dynamic int8, and onnxruntime's MatMulNBits where it is installed. Weights are used in turn
and exceed the caches together, as in a model. Tokens a second are for a whole 2.0: the block's weights times 28, and
nothing else. The bandwidth is that of reading memory with the same number of threads, measured here.

    python benchmarks/cpu_linear.py [--rows 1 8 256] [--seconds 1]
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import bianque  # noqa: E402, F401, I001 - sets how torch's threads wait, before it is loaded
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from bianque.cpu_kernels.build import load_kernels  # noqa: E402
from bianque.quantization import cpu  # noqa: E402
from bianque.quantization.scheme import Bits, quantize  # noqa: E402

# The four linears of a block of BianQue-2.0, (out, in).
SHAPES = [(12288, 4096), (4096, 4096), (16384, 4096), (4096, 16384)]
NUM_BLOCKS = 28
ONNX_BLOCK = 32
NUM_VALUES = sum(out_features * in_features for out_features, in_features in SHAPES)

Product = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Way:
    """One way to multiply: its products, one for each shape, and the bytes of a weight."""

    name: str
    bytes_per_weight: float
    products: list[Product]


def cpu_name() -> str:
    """Return the processor's name from /proc/cpuinfo."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def read_bandwidth() -> float:
    """Return the bytes a second of summing 1 GB, best of five."""
    values = torch.ones(1 << 27, dtype=torch.int64)
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        values.sum()
        best = max(best, values.nbytes / (time.perf_counter() - started))
    return best


def make_ways(weights: list[torch.Tensor], only: list[str]) -> Iterator[Way]:
    """Prepare the ways named, or every one, for the same weights, fp32; one at a time."""

    def quantized(weight: torch.Tensor, bits: Bits) -> Product:
        integers, scale = quantize(weight, bits)
        return lambda rows: cpu.linear(rows, integers, scale, None, bits)

    def half(weight: torch.Tensor) -> Product:
        stored = weight.half()
        return lambda rows: cpu.half_linear(rows, stored)

    def bf16(weight: torch.Tensor) -> Product:
        stored = weight.bfloat16()
        return lambda rows: functional.linear(rows.bfloat16(), stored).float()

    makers: list[tuple[str, float, Callable[[torch.Tensor], Product]]] = [
        ("kernel int8", 1, partial(quantized, bits=8)),
        ("kernel int4", 0.5, partial(quantized, bits=4)),
        ("kernel fp16", 2, half),
        ("torch fp32", 4, lambda weight: lambda rows: functional.linear(rows, weight)),
        ("torch bf16", 2, bf16),
    ]
    if "fbgemm" in torch.backends.quantized.supported_engines:
        makers.append(("torch dynamic int8", 1, dynamic_int8))
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        makers += [
            (f"onnxruntime int{bits}", bits / 8 + 4 / ONNX_BLOCK, partial(onnx_nbits, bits=bits)) for bits in (8, 4)
        ]
    for name, bytes_per_weight, make in makers:
        if not only or name in only:
            yield Way(name, bytes_per_weight, [make(weight) for weight in weights])


def onnx_nbits(weight: torch.Tensor, bits: int) -> Product:
    """Return onnxruntime's product with int8 activations: blocks of 32 weights, each with an fp32 scale."""
    import onnx
    import onnxruntime

    num_out, num_in = weight.shape
    blocks = weight.view(num_out, num_in // ONNX_BLOCK, ONNX_BLOCK)
    middle = 1 << (bits - 1)
    scale = (blocks.abs().amax(2) / (middle - 1)).clamp_min(1e-12)
    integers = ((blocks / scale[:, :, None]).round() + middle).to(torch.uint8)
    if bits == 4:
        integers = integers[:, :, ::2] | integers[:, :, 1::2] << 4
    constants = [
        onnx.numpy_helper.from_array(integers.contiguous().numpy(), "weight"),
        onnx.numpy_helper.from_array(scale.flatten().numpy(), "scale"),
    ]
    node = onnx.helper.make_node(
        "MatMulNBits",
        ["x", "weight", "scale"],
        ["y"],
        domain="com.microsoft",
        K=num_in,
        N=num_out,
        bits=bits,
        block_size=ONNX_BLOCK,
        accuracy_level=4,
    )
    number = onnx.TensorProto.FLOAT
    ends = [onnx.helper.make_tensor_value_info(*end) for end in (("x", number, [None, num_in]), ("y", number, None))]
    graph = onnx.helper.make_graph([node], "linear", ends[:1], ends[1:], constants)
    versions = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=versions, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda rows: torch.from_numpy(session.run(None, {"x": rows.numpy()})[0])


def dynamic_int8(weight: torch.Tensor) -> Product:
    """Return PyTorch's dynamically quantized linear (fbgemm), which has one scale for all rows of a batch."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(linear), {nn.Linear}, dtype=torch.qint8)


def worst_error(way: Way, weights: list[torch.Tensor], num_rows: int) -> float:
    """Return the largest relative error of a normal row beside one 100 times as large, with channels 60 times."""
    worst = 0.0
    for product, weight in zip(way.products, weights, strict=True):
        rows = torch.randn(num_rows, weight.shape[1])
        rows[:, ::97] *= 60
        rows[-1] *= 100
        expected, got = rows @ weight.T, product(rows)
        worst = max(worst, ((got - expected).norm(dim=1) / expected.norm(dim=1)).max().item())
    return worst


def seconds_per_block(way: Way, weights: list[torch.Tensor], num_rows: int, seconds: float) -> float:
    """Return the median seconds of the four products, measured for at least `seconds` and three times."""
    inputs = [torch.randn(num_rows, weight.shape[1]) for weight in weights]
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        started = time.perf_counter()
        for product, rows in zip(way.products, inputs, strict=True):
            product(rows)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 4, 8, 16, 64, 256])
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement, at least")
    parser.add_argument("--only", nargs="+", default=[], help="names of ways, for example 'kernel int8'")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    bandwidth = read_bandwidth()
    print(
        f"{cpu_name()}, {torch.get_num_threads()} threads, reads {bandwidth / 1e9:.1f} GB/s, torch {torch.__version__}"
    )
    print(f"kernel: {'compiled' if load_kernels() else 'absent'}; block of 2.0: {NUM_VALUES / 1e6:.0f} M weights")
    weights = [torch.randn(shape) * 0.02 for shape in SHAPES]
    with torch.inference_mode():
        for way in make_ways(weights, arguments.only):
            error = worst_error(way, weights, 8)
            for num_rows in arguments.rows:
                taken = seconds_per_block(way, weights, num_rows, arguments.seconds)
                read = NUM_VALUES * way.bytes_per_weight / taken
                speed = num_rows * NUM_VALUES / taken
                print(
                    f"{way.name:18} rows {num_rows:4}  {num_rows / taken / NUM_BLOCKS:7.2f} tokens/s  "
                    f"{read / 1e9:5.1f} GB/s ({read / bandwidth:4.0%})  {speed / 1e9:6.1f} GMAC/s  "
                    f"error {error:.2%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
