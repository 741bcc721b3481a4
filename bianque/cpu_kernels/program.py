"""A part of a model as a list of operations that run in one call.

Between two calls from Python the kernels' helper threads fall asleep, and waking them takes as long as a small layer
does. A program is recorded once over arrays that stay in place and then run as often as need be, on as many rows of
them as a step has, much as a CUDA graph is replayed. Python is away meanwhile: the interpreter's lock is free.

Everything is fp32 but the stored weights.

Dimension letters: n rows that a step has, N rows that there is room for.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from bianque.cpu_kernels.build import Kernels
from bianque.cpu_kernels.operations import Attend, Gelu, Multiply, Norm, Operation, Pack, Refine, Rotate


@dataclass(frozen=True)
class LowDigits:
    """The second digits of an int8 weight, which then stands for (weight + values / 256) · scale.

    Attributes:
        values: (out, in) int8, contiguous.
        bound: (out,) fp32; times the norm of a row of inputs, at least as large as what they add to its product.
    """

    values: torch.Tensor
    bound: torch.Tensor


@dataclass(frozen=True)
class Matrix:
    """A stored weight and what belongs to it.

    Attributes:
        weight: int8 (out, in), packed int4 (out, in / 2), or fp16 or fp32 (out, in); contiguous.
        scale: (out,) fp16, or None for a float weight.
        bias: (out,) fp32 or None.
        bits: 8, 4, 16 or 32.
        low: at 8 bits, its second digits, or None for a weight of one.
    """

    weight: torch.Tensor
    scale: torch.Tensor | None
    bias: torch.Tensor | None
    bits: int
    low: LowDigits | None = None

    @property
    def num_inputs(self) -> int:
        """Values of a row that it is multiplied with."""
        return self.weight.shape[1] * (2 if self.bits == 4 else 1)


@dataclass(frozen=True)
class Packed:
    """Rows and what `Program.pack` makes of them, for weights of so many bits."""

    rows: torch.Tensor
    values: torch.Tensor
    num_inputs: int
    bits: int


@dataclass
class Program:
    """Operations in their order; arrays are (N, size), fp32 and contiguous.

    Each method adds one operation and returns the array that it writes, a new one unless `out` is given.

    Attributes:
        kernels: compiled.
        max_rows: N.
    """

    kernels: Kernels
    max_rows: int
    _functions: list[int] = field(default_factory=list)
    _arguments: list[ctypes.Structure] = field(default_factory=list)
    # Everything that the arguments hold addresses of.
    _arrays: list[Any] = field(default_factory=list)
    _packed: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)
    _operations: Any = None

    def new_rows(self, size: int) -> torch.Tensor:
        """Return an array of rows, (N, size); contents are arbitrary."""
        return torch.empty(self.max_rows, size)

    def norm(
        self,
        rows: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        epsilon: float,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """LayerNorm, or RMSNorm where `bias` is None."""
        out = torch.empty_like(rows) if out is None else out
        self._add(
            self.kernels.norm,
            Norm(
                x=self._address(rows),
                weight=self._address(weight),
                bias=self._address(bias),
                y=self._address(out),
                size=_size(rows, weight.shape[0]),
                epsilon=epsilon,
            ),
        )
        return out

    def pack(self, rows: torch.Tensor, bits: int) -> Packed:
        """Prepare rows for one or several products with weights of `bits`.

        What is returned holds until other rows of the same size are packed.
        """
        size = rows.shape[1]
        if (size, bits) not in self._packed:
            num_bytes = self.kernels.packed_bytes(self.max_rows, size, bits)
            self._packed[size, bits] = torch.empty(num_bytes, dtype=torch.uint8)
        values = self._packed[size, bits]
        self._add(self.kernels.pack, Pack(x=self._address(rows), packed=self._address(values), in_=size, bits=bits))
        return Packed(rows, values, size, bits)

    def multiply(
        self,
        packed: Packed,
        matrix: Matrix,
        *,
        residual: torch.Tensor | None = None,
        residual_scale: float = 1.0,
        out: torch.Tensor | None = None,
        num_exact: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return rows · Wᵀ + bias + residual · residual_scale; `residual` may be `out`.

        Args:
            packed: the rows.
            matrix: W and its bias.
            residual: (N, out) or None.
            residual_scale: its factor.
            out: where the result goes.
            num_exact: (N,) int64, read when the program runs: of a weight of two digits, how many of the largest
                values of each row must be of both, see `Refine` in `operations.h`; 0 for all, as None.
        """
        if (packed.num_inputs, packed.bits) != (matrix.num_inputs, matrix.bits):
            raise ValueError(
                f"rows of {packed.num_inputs} values packed for {packed.bits} bits do not fit a {matrix.bits}-bit "
                f"weight for {matrix.num_inputs}"
            )
        num_outputs = matrix.weight.shape[0]
        out = self.new_rows(num_outputs) if out is None else out
        self._add(
            self.kernels.multiply,
            Multiply(
                packed=self._address(packed.values),
                weight=self._address(matrix.weight),
                scale=self._address(matrix.scale),
                bias=self._address(matrix.bias),
                residual=self._address(residual),
                y=self._address(out),
                in_=packed.num_inputs,
                out=_size(out, num_outputs),
                bits=packed.bits,
                residual_scale=residual_scale,
            ),
        )
        if matrix.low is not None:
            counts = torch.zeros(self.max_rows, dtype=torch.int64) if num_exact is None else num_exact
            self._refine(packed, matrix, matrix.low, counts, out)
        return out

    def _refine(
        self, packed: Packed, matrix: Matrix, low: LowDigits, counts: torch.Tensor, product: torch.Tensor
    ) -> None:
        self._add(
            self.kernels.refine,
            Refine(
                x=self._address(packed.rows),
                low=self._address(low.values),
                scale=self._address(matrix.scale),
                bound=self._address(low.bound),
                counts=self._address(counts),
                y=self._address(product),
                in_=packed.num_inputs,
                out=product.shape[1],
            ),
        )

    def gelu(self, rows: torch.Tensor, gate: torch.Tensor | None = None) -> torch.Tensor:
        """Apply GELU in place, and multiply by `gate` where there is one."""
        address = self._address(rows)
        self._add(self.kernels.gelu, Gelu(x=address, gate=self._address(gate), y=address, size=rows.shape[1]))
        return rows

    def rotate(self, mixed: torch.Tensor, positions: torch.Tensor, table: torch.Tensor, num_heads: int) -> None:
        """Rotate queries and keys in place.

        Args:
            mixed: (N, H · 3 · D), query, key and value of every head.
            positions: (N, 2) int64, read when the program runs.
            table: (P, 3, D / 4), see `bianque.models.chatglm.build_rotary_table`.
            num_heads: H.
        """
        self._add(
            self.kernels.rotate,
            Rotate(
                mixed=self._address(mixed),
                positions=self._address(positions),
                table=self._address(table),
                heads=num_heads,
                size=4 * table.shape[2],
            ),
        )

    def attend(
        self,
        new: Sequence[torch.Tensor | None],
        keys: torch.Tensor,
        values: torch.Tensor,
        slots: torch.Tensor,
        lengths: torch.Tensor,
        *,
        scale: float,
        bias: torch.Tensor | None = None,
        out: torch.Tensor,
    ) -> torch.Tensor:
        """Attend to slots of the KV cache, see `Attend.over`; `slots` and `lengths` are read when the program runs."""
        self._arrays += [*new, keys, values, slots, lengths, bias, out]
        self._add(self.kernels.attend, Attend.over(new, keys, values, slots, lengths, out, scale=scale, bias=bias))
        return out

    def run(self, num_rows: int) -> None:
        """Run everything on the first `num_rows` rows, on `torch.get_num_threads()` threads.

        Raises:
            MemoryError: if memory ran out on the way.
            ValueError: if there are more rows than there is room for.
        """
        if num_rows > self.max_rows:
            raise ValueError(f"there is room for {self.max_rows} rows, but {num_rows} came")
        if self._operations is None:
            addresses = map(ctypes.addressof, self._arguments)
            operations = [Operation(*pair) for pair in zip(self._functions, addresses, strict=True)]
            self._operations = (Operation * len(operations))(*operations)
        if self.kernels.run(self._operations, len(self._operations), num_rows, torch.get_num_threads()):
            raise MemoryError("no memory for the activations of a layer")

    def _add(self, function: Any, arguments: ctypes.Structure) -> None:
        self._functions.append(ctypes.cast(function, ctypes.c_void_p).value or 0)
        self._arguments.append(arguments)
        self._operations = None

    def _address(self, array: torch.Tensor | None) -> int | None:
        """Return where an array is, and keep it alive. The kernels get addresses and cannot look."""
        if array is None:
            return None
        if array.device.type != "cpu" or not array.is_contiguous():
            raise ValueError(
                f"arrays must be contiguous and on the CPU, but one on {array.device} has the strides {array.stride()}"
            )
        self._arrays.append(array)
        return array.data_ptr()


def _size(rows: torch.Tensor, expected: int) -> int:
    if rows.shape[1] != expected:
        raise ValueError(f"rows must have {expected} values, but they have {rows.shape[1]}")
    return expected
