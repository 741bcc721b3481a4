"""A model's head on the CPU: its weight stays in fp16 while activations are fp32.

The published scheme does not quantize the head, and an 8-bit one moves logits by 0.1, enough to change greedy replies.
In fp16 it is what the checkpoint stores at half the bytes of fp32. T5 has such a head; for ChatGLM's, which is far
larger, see `bianque.quantization.digit_layers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bianque.quantization.cpu import half_linear


class HalfLinear(nn.Module):
    """A linear layer without bias whose weight is fp16.

    The weight is a buffer, since a model's `dtype` is that of its first parameter, and keeps its dtype when the model
    is cast. It is on the meta device until `load_weight`.

    Attributes:
        in_features: columns of the weight.
        out_features: rows of the weight.
        weight: (out, in) fp16.
    """

    weight: torch.Tensor

    def __init__(self, in_features: int, out_features: int) -> None:
        """Build a layer without memory."""
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.register_buffer("weight", torch.empty(out_features, in_features, dtype=torch.float16, device="meta"))

    def load_weight(self, weight: torch.Tensor) -> None:
        """Take a weight, (out, in) in any float dtype; a contiguous fp16 tensor is kept as it is, and so shared.

        Raises:
            ValueError: if it has another shape.
        """
        if weight.shape != self.weight.shape:
            raise ValueError(f"weight must be {tuple(self.weight.shape)}, but it is {tuple(weight.shape)}")
        self.weight = weight.detach().half().contiguous()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map (..., in) to (..., out) in the dtype of `hidden_states`."""
        if hidden_states.device.type == "cpu" and not (torch.is_grad_enabled() and hidden_states.requires_grad):
            return half_linear(hidden_states, self.weight)
        return nn.functional.linear(hidden_states, self.weight.to(hidden_states.dtype))

    def extra_repr(self) -> str:
        """Describe the layer in a printed model."""
        return f"{self.in_features}, {self.out_features}"

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        weight = self.weight
        super()._apply(fn, recurse)
        if self.weight.dtype != weight.dtype:
            self.weight = weight.to(self.weight.device)
        return self


def replace_head(model: Any) -> HalfLinear:
    """Replace a transformers model's head by a `HalfLinear`, in place, and return it.

    A weight in memory is converted; one on the meta device gives an empty head for `load_weight`.
    """
    head = model.get_output_embeddings()
    half = HalfLinear(head.in_features, head.out_features)
    if not head.weight.is_meta:
        half.load_weight(head.weight)
    model.set_output_embeddings(half)
    return half
