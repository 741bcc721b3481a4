"""The fused decode step: its numbers in Triton's interpreter, and that it compiles for the cards it is meant for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

ROOT = Path(__file__).resolve().parents[2]
T4, A10G, H100 = (7, 5), (8, 6), (9, 0)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def interpreted() -> dict:
    command = [sys.executable, "-m", "tests.engine.interpreted_step"]
    environment = {"PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_kernels_agree_with_the_plain_path(interpreted):
    for kind, error in interpreted["errors"].items():
        # fp32 sums in another order; in fp16 the plain path rounds after every operation.
        assert error < (1e-5 if "float32" in kind else 2e-3), kind


def test_a_fused_step_gives_the_logits_of_the_plain_one(interpreted):
    assert interpreted["size"] > 1  # of the logits, so that the bound below means something
    assert len(interpreted["differences"]) == 4
    assert max(interpreted["differences"]) < 2e-4


@pytest.mark.parametrize("capability", [T4, A10G, H100], ids=str)
@pytest.mark.parametrize("name", ["_add_norm_kernel", "_attend_kernel", "_gelu_kernel"])
def test_kernels_compile_without_spilling_for_real_cards(name, capability, tmp_path, monkeypatch):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from bianque.engine import chatglm_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    kernel = getattr(chatglm_kernels, name)
    types = {"position_ptr": "*i64", "length_ptr": "*i64", "residual_scale": "fp32", "epsilon": "fp32"}
    types["score_scale"] = "fp32"
    constants = {"HAS_RESIDUAL": True, "COLUMNS": 4096, "HEAD": 128, "PLACES": chatglm_kernels._PLACES}
    constants |= {"STAGES": chatglm_kernels._STAGES, "BLOCK": chatglm_kernels._VALUES, "OVERLAPS": capability >= H100}
    signature, constexprs = {}, {}
    for argument in kernel.arg_names:
        if argument.isupper():
            signature[argument], constexprs[argument] = "constexpr", constants[argument]
        else:
            signature[argument] = types.get(argument, "*fp16" if argument.endswith("_ptr") else "i32")
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, argument in enumerate(kernel.arg_names)
        if argument.endswith("_ptr") or argument in ("num_columns", "num_places", "num_values")
    }
    compiled = triton.compile(
        ASTSource(kernel, signature, constexprs=constexprs, attrs=aligned),
        target=GPUTarget("cuda", capability[0] * 10 + capability[1], 32),
        options={"num_warps": 8 if name == "_add_norm_kernel" else 4},
    )
    cubin = tmp_path / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    usage = subprocess.run([tools / "cuobjdump", "-res-usage", cubin], capture_output=True, text=True, check=True)
    assert " STACK:0 " in usage.stdout
    assert compiled.metadata.shared <= (64 if capability == T4 else 99) * 1024
    code = subprocess.run([tools / "nvdisasm", "-c", cubin], capture_output=True, text=True, check=True).stdout
    assert ("ACQBULK" in code) == (capability >= H100), "waits for the kernel before"


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("head_size", [16, 64, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_kernels_come_up_on_the_device(dtype, head_size):
    from bianque.engine import chatglm_kernels

    chatglm_kernels.works_on.cache_clear()
    assert chatglm_kernels.works_on(torch.device("cuda", 0), dtype, head_size)


@pytest.mark.gpu
@needs_cuda
def test_a_runner_on_the_device_is_fused_and_gives_the_logits_of_the_cpu():
    from bianque.engine.chatglm_runner import ChatGLMRunner
    from tests.engine.interpreted_step import logits_of_steps, make_model

    model = make_model()
    plain = logits_of_steps(ChatGLMRunner(model, num_slots=4))
    runner = ChatGLMRunner(model.to("cuda"), num_slots=4)
    assert not runner._has_common_length, "the decode step is not fused"
    for one, other in zip(plain, logits_of_steps(runner), strict=True):
        torch.testing.assert_close(other.cpu(), one, atol=2e-3, rtol=0)


@pytest.mark.gpu
@needs_cuda
@torch.inference_mode()
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("num_rows", [1, 8])
def test_kernels_that_begin_early_wait_for_what_they_need(num_rows, bits, monkeypatch):
    """A chain gives bit for bit what it gives when every kernel ends before the next one begins."""
    from bianque.engine import chatglm_kernels
    from bianque.quantization import cuda, dependent_launch, triton_kernels
    from bianque.quantization.linear import QuantizedLinear

    if not dependent_launch.is_supported(torch.device("cuda", 0)):
        pytest.skip("kernels do not overlap on this card")
    monkeypatch.setattr(cuda, "_chooser", cuda._Chooser())
    cuda.prefer("triton")
    torch.manual_seed(0)
    size = 2048
    norm = torch.nn.LayerNorm(size, device="cuda", dtype=torch.float16)
    layers = [QuantizedLinear(size, size, bits=bits, bias=True, device="cuda", dtype=torch.float16) for _ in range(12)]
    for layer in layers:
        layer.load_weight(torch.randn(size, size, device="cuda") * 0.05)
        torch.nn.init.normal_(layer.bias)

    def run(x: torch.Tensor) -> torch.Tensor:
        for layer in layers:
            x = chatglm_kernels.add_norm(layer(chatglm_kernels.gelu(layer(x))), x, norm)
        return x

    inputs = [torch.randn(num_rows, size, device="cuda", dtype=torch.float16) for _ in range(2)]
    with monkeypatch.context() as apart:
        for module in (chatglm_kernels, triton_kernels):
            apart.setattr(module, "is_supported", lambda device: False)
        expected = [run(x) for x in inputs]
    assert not torch.equal(*expected)
    run(inputs[0])
    x = inputs[0].clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run(x)
    for turn in range(50):
        x.copy_(inputs[turn % 2])
        graph.replay()
        assert torch.equal(result, expected[turn % 2]), turn
        assert torch.equal(run(x), expected[turn % 2]), turn
