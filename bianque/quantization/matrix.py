"""The weights of linear layers as they are stored, as the compiled kernels take them."""

from __future__ import annotations

import torch
from torch import nn

from bianque.cpu_kernels.program import Matrix
from bianque.quantization.cpu import FLOAT_BITS, HALF_BITS
from bianque.quantization.half import HalfLinear
from bianque.quantization.linear import QuantizedLinear


def stored_matrix(layer: nn.Module) -> Matrix | None:
    """Return the weight of a quantized, fp16 or fp32 layer on the CPU; None for any other layer."""
    # Not their subclasses, which may compute something else.
    if type(layer) is QuantizedLinear and layer.weight.device.type == "cpu":
        bias = None if layer.bias is None else layer.bias.detach().float().contiguous()
        return Matrix(layer.weight, layer.weight_scale, bias, layer.bits)
    if type(layer) is HalfLinear and layer.weight.device.type == "cpu":
        return Matrix(layer.weight, None, None, HALF_BITS)
    if type(layer) is nn.Linear and layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32:
        bias = None if layer.bias is None else layer.bias.detach().contiguous()
        return Matrix(layer.weight.detach().contiguous(), None, bias, FLOAT_BITS)
    return None


def stored_matrices(*modules: nn.Module) -> dict[nn.Module, Matrix] | None:
    """Return the weights of all linear layers in these modules; None if one has none that the kernels take.

    What has `in_features` counts as a linear layer, so that adapters do as well.
    """
    matrices: dict[nn.Module, Matrix] = {}
    for layer in (layer for module in modules for layer in module.modules() if hasattr(layer, "in_features")):
        matrix = stored_matrix(layer)
        if matrix is None:
            return None
        matrices[layer] = matrix
    return matrices
