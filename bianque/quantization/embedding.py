"""An embedding that keeps the two-byte weights of its checkpoint while activations are fp32.

On a CPU everything is computed in fp32, but nothing is computed with an embedding: its rows are only copied. Widening
them on the way out gives the same numbers as widening the table, in half the memory. T5's are such; ChatGLM's is one
with its head, see `bianque.quantization.digit_layers`.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class StoredEmbedding(nn.Module):
    """Looks up rows of a table and returns them in another dtype.

    The table is a buffer, not a parameter: a model's `dtype` is that of its first parameter, and this is not it.

    Attributes:
        weight: (rows, columns), on the meta device until `load_weight`.
        dtype: of what is returned.
    """

    weight: torch.Tensor

    def __init__(self, rows: int, columns: int, *, stored_dtype: torch.dtype, dtype: torch.dtype) -> None:
        """Build an embedding without memory."""
        super().__init__()
        self.dtype = dtype
        self.register_buffer("weight", torch.empty(rows, columns, dtype=stored_dtype, device="meta"))

    def load_weight(self, weight: torch.Tensor) -> None:
        """Take the table, (rows, columns); the caller gives it away.

        Raises:
            ValueError: if it has another shape or dtype.
        """
        if weight.shape != self.weight.shape or weight.dtype != self.weight.dtype:
            raise ValueError(
                f"weight must be {self.weight.dtype} {tuple(self.weight.shape)}, "
                f"but it is {weight.dtype} {tuple(weight.shape)}"
            )
        self.weight = weight

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Map (B, T) ids to (B, T, columns)."""
        return functional.embedding(input_ids, self.weight).to(self.dtype)
