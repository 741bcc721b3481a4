"""A linear layer whose weight is stored in 8 or 4 bits, and the replacement of a model's layers by it.

    y = x · W'ᵀ + bias,   W' the weight that the stored integers and scales stand for

The module holds the published arrays and nothing else: `quantized()` returns them as they came. The product is the
device's: `bianque.quantization.cpu` and `bianque.quantization.cuda`, else the plain one of this module. Whichever it
is, a row of the result depends on its row of `x` alone, not on other rows of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from bianque.quantization.cpu import linear as cpu_linear
from bianque.quantization.scheme import Bits, dequantize, largest_integer, quantize

ModelFamily = Literal["chatglm", "t5"]

# Last parts of the names of the linears that are quantized. ChatGLM's four are the published choice.
QUANTIZED_LINEARS: dict[ModelFamily, frozenset[str]] = {
    "chatglm": frozenset({"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}),
    "t5": frozenset({"q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo"}),
}


def selects_linear(family: ModelFamily) -> Callable[[str], bool]:
    """Return which linears of a model family are quantized, by their full names.

    They are the published four of ChatGLM's blocks, and all of T5's blocks. Embeddings and heads are not; see
    `bianque.quantization.half` and `bianque.quantization.digit_layers`.
    """
    names = QUANTIZED_LINEARS[family]
    return lambda name: name.rpartition(".")[2] in names


class QuantizedLinear(nn.Module):
    """A linear layer with an int8 or packed int4 weight.

    Buffers `weight` (int8) and `weight_scale` (fp16) carry the names of published quantized checkpoints. They are on
    the meta device, without memory, until `load_weight` or `load_quantized` fills them.

    Attributes:
        in_features: of the weight before packing.
        out_features: of the weight.
        bits: 8 or 4.
        bias: (out,) or None; a parameter for its owner to load, zeros until then.
    """

    weight: torch.Tensor
    weight_scale: torch.Tensor
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bits: Bits,
        bias: bool,
        device: torch.device | str,
        dtype: torch.dtype,
    ) -> None:
        """Build an empty layer.

        Args:
            in_features: even at 4 bits.
            out_features: rows of the weight.
            bits: 8 or 4.
            bias: whether there is one.
            device: where the weight goes when it is loaded; for `meta`, where the loaded arrays are.
            dtype: of the bias, and of activations if they have none of their own to follow.

        Raises:
            ValueError: for other bits, or an odd `in_features` at 4 bits.
        """
        super().__init__()
        largest_integer(bits)
        if bits == 4 and in_features % 2:
            raise ValueError(f"4-bit weights need an even number of input features, but there are {in_features}")
        self.in_features = in_features
        self.out_features = out_features
        self.bits: Bits = bits
        self._device = torch.device(device)
        columns = in_features if bits == 8 else in_features // 2
        self.register_buffer("weight", torch.empty(out_features, columns, dtype=torch.int8, device="meta"))
        self.register_buffer("weight_scale", torch.empty(out_features, dtype=torch.float16, device="meta"))
        values = torch.zeros(out_features, device=self._device, dtype=dtype) if bias else None
        self.register_parameter("bias", None if values is None else nn.Parameter(values, requires_grad=False))

    def load_weight(self, weight: torch.Tensor) -> None:
        """Quantize a weight by the published scheme and keep the result on the layer's device.

        Args:
            weight: (out, in) in any float dtype; not kept.

        Raises:
            ValueError: if it has another shape or values that cannot be quantized.
        """
        if tuple(weight.shape) != (self.out_features, self.in_features):
            raise ValueError(
                f"weight must be {(self.out_features, self.in_features)}, but it is {tuple(weight.shape)}"
            )
        self._keep(*quantize(weight, self.bits))

    def load_quantized(self, weight: torch.Tensor, scale: torch.Tensor) -> None:
        """Take arrays as `quantized` returns them and published quantized checkpoints store them.

        Args:
            weight: int8, (out, in) at 8 bits and (out, in / 2) at 4. Kept without a copy if it is on the layer's
                device and contiguous, so that mapped files stay mapped.
            scale: (out,) fp16.

        Raises:
            ValueError: if a shape or dtype differs.
        """
        for name, given, wanted in (("weight", weight, self.weight), ("scale", scale, self.weight_scale)):
            if given.shape != wanted.shape or given.dtype != wanted.dtype:
                came, must = (f"{array.dtype} {tuple(array.shape)}" for array in (given, wanted))
                raise ValueError(f"{name} must be {must}, but it is {came}")
        self._keep(weight, scale)

    def quantized(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return integers and scales on the CPU, bit for bit as loaded; the layer's own memory if it is there."""
        return self.weight.cpu(), self.weight_scale.cpu()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map (..., in) to (..., out) in the dtype of `hidden_states`.

        With gradients asked for, the plain product is taken, which passes them on to `hidden_states`.
        """
        if torch.is_grad_enabled() and hidden_states.requires_grad:
            result = _DifferentiableLinear.apply(hidden_states, self.weight, self.weight_scale, self.bias, self.bits)
            assert isinstance(result, torch.Tensor)
            return result
        product = _product_on(hidden_states.device.type)
        return product(hidden_states, self.weight, self.weight_scale, self.bias, self.bits)

    def extra_repr(self) -> str:
        """Describe the layer in a printed model."""
        return f"{self.in_features}, {self.out_features}, bits={self.bits}, bias={self.bias is not None}"

    def _keep(self, weight: torch.Tensor, scale: torch.Tensor) -> None:
        device = weight.device if self._device.type == "meta" else self._device
        self.weight = weight.to(device).contiguous()
        self.weight_scale = scale.to(device).contiguous()

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        # `model.to(dtype)` would round the scales to bf16, or double them to fp32 for nothing.
        scale = self.weight_scale
        super()._apply(fn, recurse)
        if self.weight_scale.dtype != scale.dtype:
            self.weight_scale = scale.to(self.weight_scale.device)
        self._device = self.weight.device if self.weight.device.type != "meta" else self._device
        return self


def _product_on(device_type: str) -> Callable[..., torch.Tensor]:
    """Return the product for a kind of device; kernels are imported when they are first needed."""
    if device_type == "cuda":
        from bianque.quantization.cuda import linear

        return linear
    if device_type == "cpu":
        return cpu_linear
    return _reference_linear


def _reference_linear(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    bits: Bits,
) -> torch.Tensor:
    """Dequantize, then multiply: exact by definition, slow, and with the whole weight in memory for a moment."""
    return functional.linear(hidden_states, dequantize(weight, scale, bits, hidden_states.dtype), bias)


class _DifferentiableLinear(torch.autograd.Function):
    """The plain product and its gradient for the input.

    The weight is dequantized again in the backward pass: kept from the forward pass, the weights of all layers would
    together take what quantization saves.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_states: torch.Tensor,
        weight: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor | None,
        bits: Bits,
    ) -> torch.Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.bits, ctx.dtype = bits, hidden_states.dtype
        return _reference_linear(hidden_states, weight, scale, bias, bits)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        weight, scale = ctx.saved_tensors
        product = gradient @ dequantize(weight, scale, ctx.bits, gradient.dtype)
        return product.to(ctx.dtype), None, None, None, None


def replace_linears(
    model: nn.Module,
    bits: Bits,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    select: Callable[[str], bool],
) -> list[str]:
    """Replace linears of a model by quantized ones, in place.

    A linear with a weight in memory is quantized at once and freed; one on the meta device gives an empty layer for
    `load_weight`. A bias is taken over, and stays on the meta device if it is there. Nothing else is touched.

    Args:
        model: any module.
        bits: 8 or 4.
        device: where the quantized weights go.
        dtype: of biases that are in memory.
        select: full name of a linear to whether it is replaced, for example from `selects_linear`.

    Returns:
        The full names of what was replaced, in the model's order.
    """
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and select(name)]
    for name in names:
        parent_name, _, child_name = name.rpartition(".")
        parent = model.get_submodule(parent_name)
        linear = getattr(parent, child_name)
        setattr(parent, child_name, _quantized_from(linear, bits, device, dtype))
    return names


def _quantized_from(linear: nn.Linear, bits: Bits, device: torch.device | str, dtype: torch.dtype) -> QuantizedLinear:
    layer = QuantizedLinear(linear.in_features, linear.out_features, bits=bits, bias=False, device=device, dtype=dtype)
    if linear.bias is not None:
        values = linear.bias.detach()
        layer.bias = nn.Parameter(values if values.is_meta else values.to(device, dtype), requires_grad=False)
    if not linear.weight.is_meta:
        layer.load_weight(linear.weight)
    return layer
