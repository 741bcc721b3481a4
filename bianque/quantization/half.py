"""Embedding and head of a CPU model, whose weights stay in fp16 while everything around them computes in fp32.

The published scheme quantizes neither: an 8-bit head moves logits by 0.1, enough to change greedy replies. At fp16
they are what the checkpoint stores, half the bytes of fp32, and ChatGLM's two stay one tensor. On other devices
activations are fp16 or bf16 anyway and the ordinary modules do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class _HalfWeight(nn.Module):
    """A module whose `weight` keeps its dtype when the model around it is cast."""

    weight: torch.Tensor

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        def keep_dtype(tensor: torch.Tensor) -> torch.Tensor:
            result = fn(tensor)
            return result if result.dtype == tensor.dtype else tensor.to(result.device)

        return super()._apply(keep_dtype, recurse)


class HalfLinear(_HalfWeight):
    """A linear layer without bias whose weight is fp16; activations keep their dtype.

    Attributes:
        in_features: columns of the weight.
        out_features: rows of the weight.
        weight: (out, in) fp16 parameter; it may be tied to an embedding's.
    """

    def __init__(self, in_features: int, out_features: int, *, device: torch.device | str | None = None) -> None:
        """Build a layer with an uninitialised weight."""
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        values = torch.empty(out_features, in_features, dtype=torch.float16, device=device)
        self.weight = nn.Parameter(values, requires_grad=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map (..., in) to (..., out) in the dtype of `hidden_states`."""
        return functional.linear(hidden_states, self.weight.to(hidden_states.dtype))


class HalfEmbedding(_HalfWeight):
    """An embedding whose weight is fp16 and whose rows come out in another dtype.

    Attributes:
        weight: (V, C) fp16 parameter.
        dtype: of what `forward` returns.
    """

    def __init__(
        self, num_rows: int, row_size: int, *, dtype: torch.dtype, device: torch.device | str | None = None
    ) -> None:
        """Build an embedding with uninitialised rows."""
        super().__init__()
        self.dtype = dtype
        values = torch.empty(num_rows, row_size, dtype=torch.float16, device=device)
        self.weight = nn.Parameter(values, requires_grad=False)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Look up ids, any shape, and return their rows, (..., C) in `dtype`."""
        return functional.embedding(input_ids, self.weight).to(self.dtype)


def keep_embeddings_half(model: Any, *, dtype: torch.dtype) -> None:
    """Replace a transformers model's head, and the embedding tied to it, by the modules above, in place.

    An embedding that is not tied (BianQue-1.0's) stays as it is: a few rows are read of it, so only its memory would
    change. Weights in memory are converted; those on the meta device stay there, as empty fp16 parameters to fill.

    Args:
        model: a ChatGLM or T5 with a head.
        dtype: of the hidden states that the embedding hands on.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    half_head = HalfLinear(head.in_features, head.out_features, device="meta")
    half_head.weight = _half(head.weight)
    if model.config.tie_word_embeddings:
        half_embedding = HalfEmbedding(head.out_features, head.in_features, dtype=dtype, device="meta")
        half_embedding.weight = half_head.weight if head.weight is embedding.weight else _half(embedding.weight)
        model.set_input_embeddings(half_embedding)
    model.set_output_embeddings(half_head)


def _half(weight: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach().half(), requires_grad=False)
