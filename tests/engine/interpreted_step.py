"""Run ChatGLM's fused decode step on the CPU and print what came out as JSON, with TRITON_INTERPRET=1.

A process of its own, since Triton decides when it is imported whether it interprets.
"""

from __future__ import annotations

import json

import torch

from bianque.engine import chatglm_kernels
from bianque.engine.chatglm_runner import ChatGLMRunner
from bianque.models.chatglm import ChatGLMForConditionalGeneration
from tests.engine.conftest import prefill, tiny_chatglm

DTYPES = (torch.float32, torch.float16)


def make_model() -> ChatGLMForConditionalGeneration:
    """Return a model with unequal weights, norms and biases included."""
    # 96 is no power of two.
    model = tiny_chatglm(hidden_size=96, num_attention_heads=3, max_sequence_length=96)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4.0) if weight.dim() == 2 else weight.add_(0.3 * torch.randn_like(weight))
    return model


def logits_of_steps(runner: ChatGLMRunner) -> list[torch.Tensor]:
    """Fill slots with prompts of different lengths, one longer than a block of places, and run some steps."""
    results = []
    for slot, length in ((0, 4), (1, 80), (3, 65)):
        prefill(runner, slot, [*(5 + (7 * place + slot) % 90 for place in range(length - 2)), 101, 104])
    for slots in ([0, 1, 3], [3, 0], [1], [0, 1, 3]):
        results.append(runner.decode(slots, [7 + slot for slot in slots]))
    return results


def main() -> None:
    """Compare."""
    with torch.inference_mode():
        errors = {
            f"{dtype} {head_size}": chatglm_kernels.largest_error(torch.device("cpu"), dtype, head_size)
            for dtype in DTYPES
            for head_size in (16, 128)
        }
    model = make_model()
    plain = logits_of_steps(ChatGLMRunner(model, num_slots=4, is_batched=False))
    runner = ChatGLMRunner(model, num_slots=4, is_batched=True)
    runner._fuse()
    fused = logits_of_steps(runner)
    differences = [float((one - other).abs().max()) for one, other in zip(plain, fused, strict=True)]
    print(json.dumps({"errors": errors, "differences": differences, "size": float(plain[0].abs().max())}))


if __name__ == "__main__":
    main()
