"""Triton kernels: their numbers, in Triton's interpreter, and that they compile for the cards they are meant for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from bianque.quantization.scheme import dequantize, quantize, unpack_int4

pytest.importorskip("triton", reason="Triton is not installed")

T4, A10G, H100 = (7, 5), (8, 6), (9, 0)
ROOT = Path(__file__).resolve().parents[2]
NUM_PROCESSORS = 2


class Case(NamedTuple):
    batch: int
    num_rows: int
    in_features: int
    bits: int
    dtype: torch.dtype
    bias: bool
    capability: tuple[int, int]

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.batch}x{self.in_features}x{self.num_rows}-int{self.bits}-{dtype}-sm{self.capability}"


FP16, BF16 = torch.float16, torch.bfloat16
CASES = [
    Case(batch, num_rows, in_features, bits, dtype, bias, capability)
    for bits in (8, 4)
    for batch, num_rows, in_features, dtype, bias, capability in (
        (1, 8, 64, FP16, True, A10G),
        (1, 13, 2050, FP16, True, A10G),  # no size is a multiple of a tile's
        (1, 24, 130, BF16, False, A10G),
        (1, 130, 70, FP16, True, A10G),  # so many rows that one row of x goes to the tensor cores
        (2, 17, 258, FP16, True, A10G),
        (5, 33, 130, BF16, True, A10G),
        (8, 16, 512, FP16, False, A10G),
        (31, 50, 70, FP16, True, A10G),
        (64, 96, 384, FP16, True, A10G),
        (64, 20, 66, BF16, True, A10G),
        (65, 130, 162, FP16, True, A10G),
        (3, 9, 300, FP16, True, T4),
        (8, 11, 96, FP16, False, T4),
    )
]


def arguments(case: Case) -> tuple:
    torch.manual_seed(CASES.index(case))
    weight, scale = quantize(torch.randn(case.num_rows, case.in_features) * 0.05, case.bits)
    x = torch.randn(case.batch, case.in_features)
    x[:, 3] *= 60
    x[-1] *= 100
    bias = torch.randn(case.num_rows).to(case.dtype) if case.bias else None
    return x.to(case.dtype), weight, scale, bias, case.bits, case.capability, NUM_PROCESSORS


@pytest.fixture(scope="module")
def products(tmp_path_factory) -> dict:
    """Name of the kernel and product for each case, all from one process; two more cases for one test."""
    folder = tmp_path_factory.mktemp("interpreted")
    weight, scale = quantize(torch.randn(8, 64) * 0.05, 4)
    between_words = torch.randn(65).half()[1:].view(1, 64)
    more = [(x, weight, scale, None, 4, A10G, 2) for x in (between_words, between_words.clone())]
    torch.save([arguments(case) for case in CASES] + more, folder / "cases.pt")
    command = [sys.executable, Path(__file__).with_name("interpreted.py"), folder / "cases.pt", folder / "results.pt"]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    results = torch.load(folder / "results.pt", weights_only=True)
    between, copied = (product for _, product in results[len(CASES) :])
    return dict(zip(CASES, results, strict=False)) | {"between words": between, "copied": copied}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_product_is_the_published_one_within_the_stated_bound(products, case):
    x, weight, scale, bias, bits, _, _ = arguments(case)
    kernel, product = products[case]
    integers = (unpack_int4(weight) if bits == 4 else weight).double()
    published = x.double() @ dequantize(weight, scale, bits, torch.float64).T
    exact = x.double() @ (integers * scale.double()[:, None]).T
    magnitude = x.double().abs() @ (integers.abs() * scale.double()[:, None]).T
    if bias is not None:
        published, exact = published + bias.double(), exact + bias.double()
    # The interpreter cuts bf16 off where a card rounds.
    rounding = torch.finfo(case.dtype).eps * (0.5 if case.dtype == FP16 else 1) * exact.abs()
    # fp32 sums: no more than a rounding for each doubling of the number of terms and each step of a loop.
    fp32_sums = 2**-24 * 64 * magnitude
    subnormal = 2**-25 * x.double().abs().sum(dim=1, keepdim=True)
    assert product.dtype == case.dtype
    is_vector = case.capability == T4 or (case.batch == 1 and case.num_rows < 64 * NUM_PROCESSORS)
    assert kernel == ("vector" if is_vector else "matrix")
    assert ((product.double() - exact).abs() <= rounding + fp32_sums + 1e-6).all()
    bound = 2**-11 * magnitude + subnormal + rounding + fp32_sums + 1e-6
    assert ((product.double() - published).abs() <= bound).all()


def test_a_slice_that_starts_between_words_is_taken(products):
    """At 4 bits x is read as 32-bit words; memory from an odd value on is not aligned for that."""
    assert torch.equal(products["between words"], products["copied"])


@pytest.mark.parametrize(
    ("capability", "batch", "bits", "num_rows"),
    [
        *((T4, 1, bits, 16384) for bits in (8, 4)),
        *(
            (capability, batch, bits, num_rows)
            for capability in (A10G, H100)
            for batch in (1, 8, 16, 64)
            for bits in (8, 4)
            for num_rows in (4096, 16384)
        ),
    ],
    ids=str,
)
def test_kernels_compile_without_spilling_for_real_cards(capability, batch, bits, num_rows, tmp_path, monkeypatch):
    """Compiled to machine code here, without a driver: registers and shared memory must suffice at real sizes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from bianque.quantization import triton_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    num_bytes = 4096 if bits == 8 else 2048
    plan = triton_kernels.plan_launch(batch, num_rows, num_bytes, bits, capability, 132 if capability == H100 else 72)
    kernel = triton_kernels._vector_kernel if plan.kernel == "vector" else triton_kernels._matrix_kernel
    types = {"x_ptr": "*fp16" if bits == 8 else "*i32", "weight_ptr": "*i8", "batch": "i32"}
    types |= {"num_rows": "i32", "num_bytes": "i32"}
    signature = {name: "constexpr" if name.isupper() else types.get(name, "*fp16") for name in kernel.arg_names}
    constants = {"BITS": bits, "HAS_BIAS": True, "BATCH": plan.batch, "ROWS": plan.rows, "BYTES": plan.num_bytes}
    overlaps = capability >= H100
    constants |= {"HAS_ASSEMBLY": True, "OVERLAPS": overlaps, "STAGES": plan.num_stages}
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(kernel.arg_names)
        if not name.isupper() and name != "batch"
    }
    compiled = triton.compile(
        ASTSource(kernel, signature, constexprs=constants, attrs=aligned),
        target=GPUTarget("cuda", capability[0] * 10 + capability[1], 32),
        options={"num_warps": plan.num_warps},
    )
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    usage = subprocess.run([tools / "cuobjdump", "-res-usage", cubin], capture_output=True, text=True, check=True)
    assert " STACK:0 " in usage.stdout
    assert compiled.metadata.shared <= (64 if capability == T4 else 99) * 1024
    code = subprocess.run([tools / "nvdisasm", "-c", cubin], capture_output=True, text=True, check=True).stdout
    assert ("HMMA" in code) == (plan.kernel == "matrix")
    assert ("ACQBULK" in code) == overlaps, "waits for the kernel before"
    if overlaps:
        before = code.partition("ACQBULK")[0]
        assert "PF2" in before, "asks for none of the weight while it waits"
    assert "128" in "".join(line for line in code.splitlines() if "LDG" in line)  # 16 bytes a load
