"""A head and an embedding that keep their weight in two digits on the CPU, where activations are fp32.

The published scheme quantizes neither, and an 8-bit head moves logits by 0.1, enough to change greedy replies. In two
digits (`bianque.quantization.digits`) it is as fine as the checkpoint's fp16, and a decode step that needs only its
largest logits reads half of it (`bianque.engine.chatglm_program`). ChatGLM's embedding is the same memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from bianque.quantization.cpu import digit_linear
from bianque.quantization.digits import Digits, encode


class DigitTable(nn.Module):
    """What `DigitLinear` and `DigitEmbedding` share: the weight.

    Its arrays are buffers, since a model's `dtype` is that of its first parameter; they keep their dtypes when the
    model is cast, and are on the meta device until `load_weight` or `load_digits`.

    Attributes:
        high: (rows, columns) int8; see `Digits` for this and the others.
        low: (rows, columns) int8.
        scale: (rows,) fp16.
        bound: (rows,) fp32.
    """

    high: torch.Tensor
    low: torch.Tensor
    scale: torch.Tensor
    bound: torch.Tensor

    def __init__(self, rows: int, columns: int) -> None:
        """Build a layer without memory."""
        super().__init__()
        for name, shape, dtype in (
            ("high", (rows, columns), torch.int8),
            ("low", (rows, columns), torch.int8),
            ("scale", (rows,), torch.float16),
            ("bound", (rows,), torch.float32),
        ):
            self.register_buffer(name, torch.empty(shape, dtype=dtype, device="meta"))

    @property
    def digits(self) -> Digits:
        """The weight."""
        return Digits(self.high, self.low, self.scale, self.bound)

    def load_weight(self, weight: torch.Tensor) -> None:
        """Encode a weight, (rows, columns) in any float dtype; not kept.

        Raises:
            ValueError: if it has another shape, or values that cannot be encoded.
        """
        if weight.shape != self.high.shape:
            raise ValueError(f"weight must be {tuple(self.high.shape)}, but it is {tuple(weight.shape)}")
        self.load_digits(encode(weight))

    def load_digits(self, digits: Digits) -> None:
        """Take a weight in digits, contiguous; the arrays are kept as they are, and so shared.

        Raises:
            ValueError: if a shape or dtype differs.
        """
        for name, given in vars(digits).items():
            wanted = getattr(self, name)
            if given.shape != wanted.shape or given.dtype != wanted.dtype:
                came, must = (f"{array.dtype} {tuple(array.shape)}" for array in (given, wanted))
                raise ValueError(f"{name} must be {must}, but it is {came}")
        self.high, self.low, self.scale, self.bound = digits.high, digits.low, digits.scale, digits.bound

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        scale, bound = self.scale, self.bound
        super()._apply(fn, recurse)
        if self.scale.dtype != scale.dtype or self.bound.dtype != bound.dtype:
            self.scale, self.bound = scale.to(self.scale.device), bound.to(self.bound.device)
        return self


class DigitLinear(DigitTable):
    """A linear layer without bias, (..., in) to (..., out).

    Attributes:
        in_features: columns of the weight.
        out_features: rows of the weight.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        """Build a layer without memory."""
        super().__init__(out_features, in_features)
        self.in_features = in_features
        self.out_features = out_features

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map (..., in) to (..., out) in the dtype of `hidden_states`, with both digits of every weight."""
        if hidden_states.device.type == "cpu" and not (torch.is_grad_enabled() and hidden_states.requires_grad):
            return digit_linear(hidden_states, self.digits)
        chunks = [functional.linear(hidden_states, rows.to(hidden_states.dtype)) for rows in self.digits.floats()]
        return torch.cat(chunks, dim=-1)

    def extra_repr(self) -> str:
        """Describe the layer in a printed model."""
        return f"{self.in_features}, {self.out_features}"


class DigitEmbedding(DigitTable):
    """Looks up rows of a table and returns them in fp32."""

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Map ids of any shape to (..., columns)."""
        return self.digits.rows(input_ids)


def replace_tied_head(model: Any) -> tuple[DigitEmbedding, DigitLinear]:
    """Replace a transformers model's embedding and the head that is tied to it, in place, and return both.

    A weight in memory is encoded, once for both; one on the meta device gives empty layers for `load_digits`.
    """
    head = model.get_output_embeddings()
    embedding, linear = DigitEmbedding(*head.weight.shape), DigitLinear(head.in_features, head.out_features)
    if not head.weight.is_meta:
        digits = encode(head.weight)
        embedding.load_digits(digits)
        linear.load_digits(digits)
    model.set_input_embeddings(embedding)
    model.set_output_embeddings(linear)
    return embedding, linear
