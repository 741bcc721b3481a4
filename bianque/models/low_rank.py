"""A linear layer with a low-rank adapter beside it, as it runs in the engine.

    y = base(x) + (x · Aᵀ) · Bᵀ,   A (r, in) and B (out, r), the adapter's scale already in B

The base stays as it is, in whatever precision, so that one set of quantized weights can carry an adapter that was
trained beside it. Source: LoRA, arXiv 2106.09685, equation 3.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class LowRankLinear(nn.Module):
    """A frozen linear layer and its adapter.

    Attributes:
        base: any module that maps (..., in) to (..., out) and has `weight`, `in_features` and `out_features`.
        down: A, (r, in), in the dtype of activations.
        up: B times the adapter's scale, (out, r).
    """

    down: torch.Tensor
    up: torch.Tensor

    def __init__(self, base: nn.Module, down: torch.Tensor, up: torch.Tensor) -> None:
        """Put an adapter beside `base`; the tensors are kept without a copy."""
        super().__init__()
        self.base = base
        # Buffers: nothing here is trained, and the first parameter of a model stands for its dtype.
        self.register_buffer("down", down, persistent=False)
        self.register_buffer("up", up, persistent=False)

    @property
    def weight(self) -> torch.Tensor:
        """The base's weight: T5 looks at the dtype of one of its linears."""
        weight = self.base.weight
        assert isinstance(weight, torch.Tensor)
        return weight

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map (..., in) to (..., out)."""
        low = functional.linear(hidden_states.to(self.down.dtype), self.down)
        added = functional.linear(low, self.up)
        base: torch.Tensor = self.base(hidden_states)
        return base + added.to(base.dtype)
