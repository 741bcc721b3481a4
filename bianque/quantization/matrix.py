"""The weights of linear layers as they are stored, as the compiled kernels take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from bianque.cpu_kernels.program import LowDigits, Matrix
from bianque.quantization.cpu import FLOAT_BITS, HALF_BITS
from bianque.quantization.digit_layers import DigitLinear
from bianque.quantization.half import HalfLinear
from bianque.quantization.linear import ModelFamily, QuantizedLinear, selects_linear

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def stored_matrix(layer: nn.Module) -> Matrix | None:
    """Return the weight of a quantized, two-digit, fp16 or fp32 layer on the CPU; None for any other layer."""
    # Not their subclasses, which may compute something else.
    if type(layer) is QuantizedLinear and layer.weight.device.type == "cpu":
        bias = None if layer.bias is None else layer.bias.detach().float().contiguous()
        return Matrix(layer.weight, layer.weight_scale, bias, layer.bits)
    if type(layer) is DigitLinear and layer.high.device.type == "cpu":
        return Matrix(layer.high, layer.scale, None, 8, LowDigits(layer.low, layer.bound))
    if type(layer) is HalfLinear and layer.weight.device.type == "cpu":
        return Matrix(layer.weight, None, None, HALF_BITS)
    if type(layer) is nn.Linear and layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32:
        bias = None if layer.bias is None else layer.bias.detach().contiguous()
        return Matrix(layer.weight.detach().contiguous(), None, bias, FLOAT_BITS)
    return None


def stored_matrices(model: PreTrainedModel, family: ModelFamily) -> dict[nn.Module, Matrix] | None:
    """Return the weights of the linear layers of a model's blocks and head; None if one has none for the kernels."""
    is_selected = selects_linear(family)
    layers = [module for name, module in model.named_modules() if is_selected(name)]
    layers.append(cast(nn.Module, model.get_output_embeddings()))
    matrices = {layer: matrix for layer in layers if (matrix := stored_matrix(layer)) is not None}
    return matrices if len(matrices) == len(layers) else None
