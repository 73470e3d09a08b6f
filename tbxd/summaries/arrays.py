"""The array in a record, and its attributes: checked before any memory is taken."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.records import RANK_MAX, Record
from tbxd_client.snapshot import BFLOAT16

from .errors import Refused

AnyArray = npt.NDArray[Any]

# What a client may send, with the bytes of one element. No other name reaches numpy, which would take "O" and "V9".
_DTYPES = ("|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16")
_ITEM_BYTES = {BFLOAT16: 2} | {name: int(name[2:]) for name in _DTYPES}


def array_of(record: Record) -> AnyArray:
    """The array of a record: attributes ``dtype`` (numpy's name, or ``bfloat16``) and ``shape``, and the payload.

    Returns:
        An array of that shape that may share the payload's memory and is then read-only; bfloat16 as float32. Where
        an axis is empty all of them are: numpy cannot hold the shape ``(0, 2**40, 2**40)``, and nobody needs it.

    Raises:
        Refused: ``bad_record``.
    """
    dtype, shape, payload = record.attrs.get("dtype"), record.attrs.get("shape"), record.payload
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise Refused("bad_record", f"an array of dtype {dtype!r:.40}")
    if not isinstance(shape, list | tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise Refused("bad_record", f"an array of shape {shape!r:.80}")
    if len(shape) > RANK_MAX:
        raise Refused("bad_record", f"an array of {len(shape)} dimensions; at most {RANK_MAX} are allowed")
    expected = math.prod(shape) * _ITEM_BYTES[dtype]
    if not isinstance(payload, bytes) or len(payload) != expected:
        size = f"{len(payload):,} bytes" if isinstance(payload, bytes) else type(payload).__name__
        raise Refused("bad_record", f"an array of shape {shape!r:.80} and dtype {dtype} in {size}")
    if not payload:
        return np.empty([0] * len(shape), np.float32 if dtype == BFLOAT16 else dtype)
    if dtype == BFLOAT16:  # float32 without its lower half
        flat = (np.frombuffer(payload, "<u2").astype("<u4") << 16).view("<f4")
    elif dtype == "|b1":  # any byte but 0 is true; numpy would take a 2 for a bool of value 2
        flat = np.frombuffer(payload, np.uint8) != 0
    else:
        flat = np.frombuffer(payload, dtype)
    return flat.reshape(shape)


def check_real(array: AnyArray) -> None:
    """Refuse complex numbers."""
    if array.dtype.kind == "c":
        raise Refused("bad_record", "complex numbers")


def number_attr(record: Record, name: str) -> float | None:
    """A finite number among the attributes, or None.

    Raises:
        Refused: it is something else.
    """
    value = record.attrs.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not -1.8e308 < value < 1.8e308:  # false for NaN; int beyond float64 too
        raise Refused("bad_record", f"{name} is {value!r:.40}; a finite number is expected")
    return float(value)


def shown(text: str) -> str:
    """Text that UTF-8 can hold: lone surrogates as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
