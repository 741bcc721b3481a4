"""The product of a quantized layer on a CUDA device, and which of three ways computes it.

- `triton`: our kernels (`bianque.quantization.triton_kernels`), int8 and int4.
- `cpm`: the compiled kernels of cpm_kernels (`bianque.quantization.cpm_backend`), int8.
- `torch`: the weight is unpacked, then multiplied; what the published code does, always there, slow.

The first product of a kind (device, dtype, bits, shape of the weight, class of the number of rows) tries those that
can compute it: one that does not come up on this machine, or whose result is not that of the unpacked weight, is left
out with a line in the log, and the fastest of the others is kept. The trial waits for the device, so a product has to
be run once before it is captured in a CUDA graph; a kind first met during a capture is unpacked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
from torch.nn import functional

from bianque.quantization.scheme import Bits, dequantize

logger = logging.getLogger(__name__)

Backend = Literal["triton", "cpm", "torch"]
BackendChoice = Literal["auto", "triton", "cpm", "torch"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

# Classes of the number of rows; a class is tried with its largest number, and what is above with the last.
_ROW_CLASSES = (1, 8, 64, 512)
# Of a product's row against that of the unpacked weight: kernels that work have 0.002 in fp16 and 0.004 in bf16.
_LARGEST_ERROR = 0.01
_TRIAL_RUNS = 10

_Product = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, "torch.Tensor | None", Bits], torch.Tensor]


@dataclass(frozen=True)
class Kind:
    """What products have in common that one backend computes."""

    device: torch.device
    dtype: torch.dtype
    bits: Bits
    num_rows: int
    in_features: int
    out_features: int

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"int{self.bits} products of up to {self.num_rows} {dtype} rows, {self.in_features} to "
            f"{self.out_features}, on {self.device}"
        )


def linear(
    hidden_states: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    bits: Bits,
) -> torch.Tensor:
    """Return `hidden_states · W'ᵀ + bias`, (..., out) in the dtype of `hidden_states`.

    Args:
        hidden_states: (..., in), floating, on a CUDA device.
        weight: int8, contiguous, (out, in) at 8 bits and (out, in / 2) at 4, on the same device, as are the others.
        scale: (out,) fp16.
        bias: (out,) or None.
        bits: 8 or 4.
    """
    out_features, in_features = weight.shape[0], weight.shape[1] * (8 // bits)
    rows = hidden_states.reshape(-1, in_features)
    if not rows.shape[0]:
        return hidden_states.new_empty(*hidden_states.shape[:-1], out_features)
    product = _PRODUCTS[_chooser.choose(rows, weight, scale, bits)]
    return product(rows, weight, scale, bias, bits).view(*hidden_states.shape[:-1], out_features)


def prefer(choice: BackendChoice) -> None:
    """Use one backend wherever it can compute the product, or let the fastest be found (`auto`, the default).

    For the whole process, from the next product on; the choice in force changes nothing, and finds nothing anew.
    """
    _chooser.prefer(choice)


def _by_torch(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, bits: Bits
) -> torch.Tensor:
    return functional.linear(x, dequantize(weight, scale, bits, x.dtype), bias)


def _by_triton(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, bits: Bits
) -> torch.Tensor:
    from bianque.quantization import triton_kernels

    return triton_kernels.linear(x, weight, scale, bias, bits)


def _by_cpm(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, bits: Bits
) -> torch.Tensor:
    from bianque.quantization import cpm_backend

    return cpm_backend.linear(x, weight, scale, bias)


_PRODUCTS: dict[Backend, _Product] = {"triton": _by_triton, "cpm": _by_cpm, "torch": _by_torch}


class _Chooser:
    """Remembers which backend computes each kind of product. Thread-safe."""

    def __init__(self) -> None:
        self._preferred: BackendChoice = "auto"
        self._chosen: dict[Kind, Backend] = {}
        self._lock = threading.Lock()

    def prefer(self, choice: BackendChoice) -> None:
        with self._lock:
            if choice != self._preferred:
                self._preferred = choice
                self._chosen.clear()

    def choose(self, rows: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bits: Bits) -> Backend:
        batch, in_features = rows.shape
        class_size = next((size for size in _ROW_CLASSES if batch <= size), _ROW_CLASSES[-1])
        kind = Kind(rows.device, rows.dtype, bits, class_size, in_features, weight.shape[0])
        chosen = self._chosen.get(kind)
        if chosen is None:
            if torch.cuda.is_current_stream_capturing():
                return "torch"
            with self._lock:
                chosen = self._chosen.get(kind) or self._decide(kind, weight, scale)
                self._chosen[kind] = chosen
        return chosen

    def _decide(self, kind: Kind, weight: torch.Tensor, scale: torch.Tensor) -> Backend:
        candidates = [name for name in BACKENDS if can_compute(name, kind)]
        preferred: Backend | None = None if self._preferred == "auto" else self._preferred
        if preferred is not None:
            candidates = [name for name in candidates if name in (preferred, "torch")]
        seconds = try_backends(candidates, kind, weight, scale)
        chosen = preferred if preferred in seconds else min(seconds, key=lambda name: seconds[name])
        times = ", ".join(f"{name} {1e3 * value:.3f} ms" for name, value in seconds.items())
        logger.info("%s: computed by %s (%s)", kind, chosen, times)
        return chosen


def can_compute(name: Backend, kind: Kind) -> bool:
    """Return whether a backend is made for a kind of product, whether it comes up here or not."""
    if name == "torch":
        return True
    capability = torch.cuda.get_device_capability(kind.device)
    if name == "cpm":
        from bianque.quantization import cpm_backend

        return cpm_backend.supports(
            kind.num_rows, kind.in_features, kind.out_features, kind.bits, kind.dtype, capability
        )
    try:
        from bianque.quantization import triton_kernels
    except ImportError as error:
        logger.warning("triton is not used: %s", error)
        return False
    return triton_kernels.supports(kind.num_rows, kind.dtype, capability)


def try_backends(
    candidates: list[Backend], kind: Kind, weight: torch.Tensor, scale: torch.Tensor
) -> dict[Backend, float]:
    """Return the seconds that each backend takes for a product; those that fail or are wrong are left out.

    Args:
        candidates: `torch`, which the others are measured against, among them.
        kind: of the product; as many rows of made-up numbers are multiplied.
        weight: of the layer, in memory anyway.
        scale: of the weight.

    Raises:
        torch.OutOfMemoryError: if the device has no memory for the unpacked weight.
    """
    if candidates == ["torch"]:
        return {"torch": 0.0}
    generator = torch.Generator(device=kind.device).manual_seed(0)
    x = torch.randn(kind.num_rows, kind.in_features, generator=generator, device=kind.device).to(kind.dtype)
    expected = _by_torch(x, weight, scale, None, kind.bits).float()
    seconds: dict[Backend, float] = {}
    for name in candidates:
        product = _PRODUCTS[name]
        try:
            error = float(_relative_error(product(x, weight, scale, None, kind.bits).float(), expected))
            if not error <= _LARGEST_ERROR:
                raise ArithmeticError(f"its result is off by {error:.1%}")
            seconds[name] = _seconds_of(partial(product, x, weight, scale, None, kind.bits))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # Compilers, loaders and drivers fail in many ways; none may stop the model.
            logger.warning("%s is not used for %s: %s", name, kind, str(error).strip().split("\n")[0][:200])
    return seconds


def _relative_error(product: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    size = expected.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    return ((product - expected).norm(dim=1) / size).max()


def _seconds_of(run: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    run()
    start.record()
    for _ in range(_TRIAL_RUNS):
        run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / _TRIAL_RUNS


_chooser = _Chooser()
