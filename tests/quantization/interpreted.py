"""Run products of `triton_kernels` in Triton's interpreter, on the CPU: `python interpreted.py CASES RESULTS`.

A process of its own, since Triton decides when it is imported whether it interprets. CASES holds a list of arguments
for `plan_launch` and `launch`, RESULTS gets the list of products.
"""

from __future__ import annotations

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch
import triton.language as tl
from triton.runtime import interpreter

from bianque.quantization.triton_kernels import launch, plan_launch


def multiply_bf16_as_fp32() -> None:
    """Mend the interpreter's dot, which multiplies the bit patterns of bf16; products are exact in fp32."""
    published = interpreter.InterpreterBuilder.create_dot

    def create_dot(self, left, right, *rest):
        if left.dtype.scalar == tl.bfloat16:
            left, right = (self.cast_impl(operand, tl.float32) for operand in (left, right))
        return published(self, left, right, *rest)

    interpreter.InterpreterBuilder.create_dot = create_dot


def main(cases_path: str, results_path: str) -> None:
    """Run all cases."""
    multiply_bf16_as_fp32()
    results = []
    for x, weight, scale, bias, bits, capability, num_processors in torch.load(cases_path, weights_only=True):
        plan = plan_launch(x.shape[0], *weight.shape, bits, capability, num_processors)
        results.append((plan.kernel, launch(plan, x, weight, scale, bias, bits)))
    torch.save(results, results_path)


if __name__ == "__main__":
    main(*sys.argv[1:])
