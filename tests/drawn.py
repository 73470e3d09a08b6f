"""What users give as values, drawn by hypothesis: any type of number, any layout in memory, any carrier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

INTEGERS = ("|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8")
FLOATS = ("<f2", "<f4", "<f8")
DTYPES = ("|b1", *INTEGERS, *FLOATS)
LAYOUTS = ("as it is", "reversed", "strided", "fortran", "big endian", "read-only")
CARRIERS = ("array", "tensor", "grad", "bfloat16", "float8", "sparse", "list")
_TORCH = frozenset(("bool", "int8", "int16", "int32", "int64", "uint8", "float16", "float32", "float64"))


@dataclass(slots=True)
class Given:
    """A value for tbxd, the same numbers in an array that every original takes, and how they were wrapped.

    ``shared``: the originals are to have the value as it is, if they take it.
    """

    value: Any
    plain: Any
    how: str
    shared: bool = True

    def __repr__(self) -> str:
        kind = f"{self.plain.dtype.str}{list(self.plain.shape)}" if isinstance(self.plain, np.ndarray) else "number"
        text = " ".join(repr(self.plain).split())
        return f"<{self.how} {kind} {text[:300]}>"


def numbers(dtype: str, odd: bool = True, low: float = -1e6, high: float = 1e6) -> st.SearchStrategy[Any]:
    """Elements of an array. ``odd``: also NaN, infinities and the ends of the type; else from ``low`` to ``high``."""
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return st.booleans()
    if kind.kind in "iu":
        ends = np.iinfo(kind)
        return st.integers(
            int(ends.min) if odd else max(int(ends.min), math.ceil(low)),
            int(ends.max) if odd else min(int(ends.max), math.floor(high)),
        )
    width: Any = 8 * kind.itemsize
    if odd:
        return st.floats(width=width)
    ends_ = float(np.finfo(kind).max)
    return st.floats(max(low, -ends_), min(high, ends_), width=width, allow_nan=False)


def laid_out(array: Any, layout: str) -> Any:
    """The same array, otherwise in memory."""
    match layout:
        case "reversed" if array.ndim:
            return np.ascontiguousarray(array[..., ::-1])[..., ::-1]
        case "strided" if array.ndim:
            wide = np.repeat(array, 2, axis=-1)
            return wide[..., ::2]
        case "fortran":
            return np.asfortranarray(array)
        case "big endian":
            return array.astype(array.dtype.newbyteorder(">"))
        case "read-only":
            array = array.copy()
            array.flags.writeable = False
    return array


def carried(array: Any, carrier: str) -> Given:
    """The array, or its numbers in something else that holds numbers."""
    native = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).reshape(array.shape)
    if carrier == "list":
        return Given(array.tolist(), np.asarray(array.tolist()), "list", shared=False)
    if carrier == "array" or native.dtype.name not in _TORCH:
        return Given(array, native, "array")
    tensor = torch.from_numpy(native.copy())
    if array.ndim > 1 and not array.flags.c_contiguous:  # a tensor has no negative strides, but others
        tensor = tensor.transpose(0, 1).contiguous().transpose(0, 1)
    floating = tensor.is_floating_point()
    if carrier == "grad" and floating:
        return Given(tensor.requires_grad_() * 1, native, "a tensor that requires grad")
    if carrier in ("bfloat16", "float8") and floating:
        narrow = tensor.to(torch.bfloat16 if carrier == "bfloat16" else torch.float8_e4m3fn)
        return Given(narrow, narrow.to(torch.float32).numpy(), carrier, shared=False)
    if carrier == "sparse" and array.ndim:
        return Given(tensor.to_sparse(), native, "a sparse tensor", shared=False)
    return Given(tensor, native, "a tensor")


@st.composite
def given_arrays(
    draw: st.DrawFn,
    shape: Any = None,
    dtypes: Sequence[str] = DTYPES,
    odd: bool = True,
    low: float = -1e6,
    high: float = 1e6,
    carriers: Sequence[str] = CARRIERS,
) -> Given:
    """An array of any of the types, in any layout, in any carrier."""
    if shape is None:
        shape = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
    dtype = draw(st.sampled_from(dtypes))
    array = draw(hnp.arrays(dtype, shape, elements=numbers(dtype, odd, low, high)))
    return carried(laid_out(array, draw(st.sampled_from(LAYOUTS))), draw(st.sampled_from(carriers)))


STEPS = st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(0, 10**6)


def given_steps() -> st.SearchStrategy[Any]:
    """Steps as users give them: integers of Python, numpy or torch, whole floats, None."""

    def wrapped(step: int) -> st.SearchStrategy[Any]:
        return st.sampled_from([step, np.int64(step), torch.tensor(step), np.array(step), float(step)])

    return STEPS | st.integers(-(10**6), 10**6).flatmap(wrapped)


WALL_TIMES = st.floats(0, 4e9, allow_nan=False) | st.integers(0, 4 * 10**9)

# Tags that tensorboardX keeps as they are: it replaces most characters, as docs/COMPATIBILITY.md says.
TAGS = st.text("abcXYZ019_-./", min_size=1, max_size=12).filter(lambda tag: not tag.startswith("/"))
