"""Puts stored tensors into a model that has no memory for its weights yet, and lists what it then holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from bianque.errors import SnapshotError
from bianque.manager.registry import Precision
from bianque.manager.weights.matching import LOW_SUFFIX, SCALE_SUFFIX, is_quantized
from bianque.manager.weights.quantized_cache import KeptTensor
from bianque.manager.weights.shards import Shard, StoredTensor, open_shard
from bianque.quantization.digit_layers import DigitTable
from bianque.quantization.digits import Digits, encode
from bianque.quantization.embedding import StoredEmbedding
from bianque.quantization.half import HalfLinear
from bianque.quantization.linear import QuantizedLinear
from bianque.quantization.scheme import Bits, dequantize

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BITS: dict[str, Bits] = {"int8": 8, "int4": 4}


@dataclass(frozen=True)
class Placement:
    """Where and how weights are to be held.

    Attributes:
        device: of the model.
        dtype: of activations, and of weights that are not quantized.
        bits: of the quantized linears; None if there are none.
    """

    device: torch.device
    dtype: torch.dtype
    bits: Bits | None

    @classmethod
    def choose(cls, device: str, precision: Precision) -> Placement:
        """Return the placement; beside int8 and int4, everything else is fp32 on a CPU and fp16 elsewhere."""
        where = torch.device(device)
        otherwise = torch.float32 if where.type == "cpu" else torch.float16
        return cls(where, DTYPES.get(precision, otherwise), BITS.get(precision))


class ModelFiller:
    """Fills one model, one stored tensor at a time."""

    def __init__(
        self,
        model: PreTrainedModel,
        placement: Placement,
        stored: Mapping[str, StoredTensor],
        check: Callable[[str, torch.Tensor], None] | None = None,
    ) -> None:
        """Store what is needed.

        Args:
            model: on the meta device; changed in place.
            placement: of its weights.
            stored: what all shards hold.
            check: sees every tensor before it is used, and raises to refuse it.
        """
        self._model = model
        self._placement = placement
        self._stored = stored
        self._check = check

    def fill(self, shard: Shard, name: str, targets: Iterable[str]) -> None:
        """Read one tensor, copy, cast or quantize it into the weights named in `targets`, and give its pages back.

        Weights that share a tensor and a dtype share memory.

        Raises:
            SnapshotError: if the shard cannot give the tensor, or its values cannot be quantized.
        """
        tensor = shard.read(name)
        if self._check is not None:
            self._check(name, tensor)
        values = self._values(shard, name, tensor) if targets else _Values(tensor)
        tied: dict[torch.dtype, nn.Parameter] = {}
        digits: Digits | None = None
        for target in targets:
            module_name, _, attribute = target.rpartition(".")
            module = self._model.get_submodule(module_name)
            if isinstance(module, QuantizedLinear | DigitTable) and attribute == "weight":
                try:
                    if isinstance(module, QuantizedLinear):
                        values.fill_linear(module)
                    else:
                        digits = digits or values.digits(module.high.shape[1], self._placement.device)
                        module.load_digits(digits)
                except ValueError as error:
                    raise SnapshotError("snapshot_tensor_invalid", file=shard.path, name=name) from error
                continue
            weight = getattr(module, attribute)
            table = module if isinstance(module, StoredEmbedding | HalfLinear) else None
            dtype = weight.dtype if table is not None else self._dtype_of(target)
            if dtype not in tied:
                copy = values.copy(weight.shape, dtype, self._placement.device)
                tied[dtype] = nn.Parameter(copy, requires_grad=False)
            if table is not None:
                table.load_weight(tied[dtype].data)
            else:
                setattr(module, attribute, tied[dtype])
        shard.release(tensor)

    def _values(self, shard: Shard, name: str, tensor: torch.Tensor) -> _Values:
        """Return a tensor with what is stored beside it, which may be in another shard."""
        scale, low = f"{name}{SCALE_SUFFIX}", f"{name}{LOW_SUFFIX}"
        if not is_quantized(self._stored[name]):
            return _Values(tensor)
        low_digits = self._read_beside(shard, low) if low in self._stored else None
        return _Values(tensor, self._read_beside(shard, scale).half(), low_digits)

    def _read_beside(self, shard: Shard, name: str) -> torch.Tensor:
        path = self._stored[name].shard
        if path == shard.path:
            return shard.read(name)
        with open_shard(path) as other:
            return other.read(name).clone()

    def _dtype_of(self, name: str) -> torch.dtype:
        """Return the dtype of a weight: beside fp16, transformers keeps those that overflow in fp32 (T5's `wo`)."""
        keeps = self._model._keep_in_fp32_modules or ()
        if self._placement.dtype == torch.float16 and any(part in keeps for part in name.split(".")):
            return torch.float32
        return self._placement.dtype


@dataclass(frozen=True)
class _Values:
    """One stored tensor: floats, or integers with their scales, and second digits if it has two."""

    tensor: torch.Tensor
    scale: torch.Tensor | None = None
    low: torch.Tensor | None = None

    def fill_linear(self, layer: QuantizedLinear) -> None:
        """Quantize into a layer, or hand over integers that have the layer's bits already."""
        if self.scale is None:
            layer.load_weight(self.tensor)
        elif self._bits(layer.in_features) == layer.bits:
            # Copies: the pages of the file are given back, and on a CPU a layer keeps what it is given.
            layer.load_quantized(self.tensor.clone(), self.scale.clone())
        else:
            layer.load_weight(dequantize(self.tensor, self.scale, self._bits(layer.in_features), torch.float16))

    def digits(self, columns: int, device: torch.device) -> Digits:
        """Return two digits: those that are stored, or of whatever else the tensor is.

        Raises:
            ValueError: if its values cannot be encoded.
        """
        if self.scale is None:
            return encode(self.tensor.to(device))
        if self.low is None:
            return encode(dequantize(self.tensor, self.scale, self._bits(columns), torch.float16).to(device))
        return Digits.of(*(each.to(device, copy=True) for each in (self.tensor, self.low, self.scale)))

    def copy(self, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Return a copy of this shape on the device; the cast is done there, so that fewer bytes may travel."""
        if self.scale is None and device.type == "cpu":
            return self.tensor.to(dtype, copy=True)
        if self.scale is None:
            return self.tensor.to(device).to(dtype)
        return dequantize(self.tensor.to(device), self.scale.to(device), self._bits(shape[-1]), dtype)

    def _bits(self, columns: int) -> Bits:
        return 8 if self.tensor.shape[-1] == columns else 4


def kept_tensors(model: nn.Module) -> list[KeptTensor]:
    """Return what a quantized model holds, under stored names: integers, scales, and everything else once."""
    kept = [
        KeptTensor(name, parameter.dtype, tuple(parameter.shape), parameter.detach)
        for name, parameter in model.named_parameters()
    ]
    seen = set()
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear):
            columns = module.in_features if module.bits == 8 else module.in_features // 2
            scale_name = f"{name}.weight{SCALE_SUFFIX}"
            kept.append(KeptTensor(scale_name, torch.float16, (module.out_features,), partial(_quantized, module, 1)))
            shape = (module.out_features, columns)
            kept.append(KeptTensor(f"{name}.weight", torch.int8, shape, partial(_quantized, module, 0)))
        elif isinstance(module, DigitTable) and module.high.data_ptr() not in seen:
            seen.add(module.high.data_ptr())
            for suffix, array in (("", module.high), (LOW_SUFFIX, module.low), (SCALE_SUFFIX, module.scale)):
                kept.append(KeptTensor(f"{name}.weight{suffix}", array.dtype, tuple(array.shape), array.detach))
        elif isinstance(module, StoredEmbedding | HalfLinear) and module.weight.data_ptr() not in seen:
            seen.add(module.weight.data_ptr())
            weight = module.weight
            kept.append(KeptTensor(f"{name}.weight", weight.dtype, tuple(weight.shape), weight.detach))
    return kept


def _quantized(layer: QuantizedLinear, index: int) -> torch.Tensor:
    return layer.quantized()[index]
