"""The arguments of the compiled operations: the structures of `operations.h`, field by field, under the same names.

They hold addresses. Whoever fills one keeps the arrays alive, contiguous and in place for as long as it is used.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_float, c_int64, c_void_p
from typing import ClassVar

import torch

FLOATS = 8
"""Sizes of heads, and of rows that are normed or activated, are multiples of this."""


class Pack(ctypes.Structure):
    """Rows in the form in which they are multiplied."""

    _fields_: ClassVar = [("x", c_void_p), ("packed", c_void_p), ("in_", c_int64), ("bits", c_int64)]


class Multiply(ctypes.Structure):
    """Packed rows times a stored weight, plus bias and residual."""

    _fields_: ClassVar = [
        ("packed", c_void_p),
        ("weight", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("residual", c_void_p),
        ("y", c_void_p),
        ("in_", c_int64),
        ("out", c_int64),
        ("bits", c_int64),
        ("residual_scale", c_float),
    ]


class Norm(ctypes.Structure):
    """LayerNorm, or RMSNorm without bias."""

    _fields_: ClassVar = [
        ("x", c_void_p),
        ("weight", c_void_p),
        ("bias", c_void_p),
        ("y", c_void_p),
        ("size", c_int64),
        ("epsilon", c_float),
    ]


class Gelu(ctypes.Structure):
    """GELU by tanh, times a gate or not."""

    _fields_: ClassVar = [("x", c_void_p), ("gate", c_void_p), ("y", c_void_p), ("size", c_int64)]


class Rotate(ctypes.Structure):
    """Rotary positions of ChatGLM's queries and keys."""

    _fields_: ClassVar = [
        ("mixed", c_void_p),
        ("positions", c_void_p),
        ("table", c_void_p),
        ("heads", c_int64),
        ("size", c_int64),
    ]


class Attend(ctypes.Structure):
    """One new token of each row attends to its slot of the KV cache."""

    _fields_: ClassVar = [
        ("query", c_void_p),
        ("key", c_void_p),
        ("value", c_void_p),
        ("strides", c_int64 * 6),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("slots", c_void_p),
        ("lengths", c_void_p),
        ("bias", c_void_p),
        ("y", c_void_p),
        ("bias_len", c_int64),
        ("heads", c_int64),
        ("places", c_int64),
        ("size", c_int64),
        ("scale", c_float),
    ]

    @classmethod
    def over(
        cls,
        new: Sequence[torch.Tensor | None],
        keys: torch.Tensor,
        values: torch.Tensor,
        slots: torch.Tensor,
        lengths: torch.Tensor,
        result: torch.Tensor,
        *,
        scale: float,
        bias: torch.Tensor | None = None,
    ) -> Attend:
        """Return the arguments for these arrays.

        Args:
            new: query, key and value, (n, H, D) or (n, H, 1, D) with any strides but the last; key and value may be
                None, and nothing is stored then.
            keys: (slots, H, places, D), contiguous like everything that follows.
            values: likewise.
            slots: (n,) int64, the slot of each row.
            lengths: (n,) int64, places each row looks at, the new one included.
            result: (n, H · D).
            scale: factor of the scores.
            bias: (H, places or more), added to the scores: a row takes the last of it.
        """
        addresses = [None if one is None else one.data_ptr() for one in new]
        strides = [stride for one in new for stride in ((0, 0) if one is None else one.stride()[:2])]
        _, num_heads, num_places, size = keys.shape
        return cls(
            *addresses,
            (c_int64 * 6)(*strides),
            keys.data_ptr(),
            values.data_ptr(),
            slots.data_ptr(),
            lengths.data_ptr(),
            None if bias is None else bias.data_ptr(),
            result.data_ptr(),
            0 if bias is None else bias.shape[1],
            num_heads,
            num_places,
            size,
            scale,
        )


class Largest(ctypes.Structure):
    """The largest values of each row, and its sum."""

    _fields_: ClassVar = [
        ("x", c_void_p),
        ("raw", c_void_p),
        ("values", c_void_p),
        ("ids", c_void_p),
        ("sums", c_void_p),
        ("size", c_int64),
        ("count", c_int64),
    ]


class Refine(ctypes.Structure):
    """Low digits of a weight, added to the product of the high ones where they matter."""

    _fields_: ClassVar = [
        ("x", c_void_p),
        ("low", c_void_p),
        ("scale", c_void_p),
        ("bound", c_void_p),
        ("counts", c_void_p),
        ("y", c_void_p),
        ("in_", c_int64),
        ("out", c_int64),
    ]


class Operation(ctypes.Structure):
    """A step of a program: a function and its arguments."""

    _fields_: ClassVar = [("run", c_void_p), ("arguments", c_void_p)]


OPERATIONS: dict[str, type[ctypes.Structure]] = {
    "pack": Pack,
    "multiply": Multiply,
    "norm": Norm,
    "gelu": Gelu,
    "rotate": Rotate,
    "attend": Attend,
    "largest": Largest,
    "refine": Refine,
}
"""By name; the compiled function has the prefix `bianque_`."""
