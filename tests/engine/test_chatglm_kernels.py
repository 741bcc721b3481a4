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
@pytest.mark.parametrize("name", ["_add_norm_kernel", "_attend_kernel"])
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
    signature, constexprs = {}, {}
    for argument in kernel.arg_names:
        if argument.isupper():
            signature[argument], constexprs[argument] = "constexpr", constants[argument]
        else:
            signature[argument] = types.get(argument, "*fp16" if argument.endswith("_ptr") else "i32")
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, argument in enumerate(kernel.arg_names)
        if argument.endswith("_ptr") or argument in ("num_columns", "num_places")
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
    assert compiled.metadata.shared <= 48 * 1024


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
