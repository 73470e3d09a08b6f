"""The array in a record, and its attributes: checked before any memory is allocated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.protocol.limits import ARRAYS_MAX, BFLOAT16, DIMENSIONS_MAX, DTYPES
from tbxd_client.protocol.records import Record

from .rejections import Refused

AnyArray = npt.NDArray[Any]

_ITEM_BYTES = {BFLOAT16: 2} | {name: int(name[2:]) for name in DTYPES}


def array_of(record: Record) -> AnyArray:
    """Return a record's array: attributes ``dtype`` (numpy's name, or ``bfloat16``) and ``shape``, and the payload.

    Returns:
        An array of that shape, which may share the payload's memory and is then read-only; bfloat16 as float32. All
        axes of an empty array that numpy cannot hold, such as ``(0, 2**40, 2**40)``, are empty.

    Raises:
        Refused: ``bad_record``.
    """
    payload = _bytes(record)
    array, size = _array(record.attrs.get("dtype"), record.attrs.get("shape"), payload)
    if size != len(payload):
        raise Refused("bad_record", f"an array of {size:,} bytes in {len(payload):,}")
    return array


def arrays_of(record: Record) -> dict[str, AnyArray]:
    """Return the arrays of a record: attribute ``arrays``, a list of name, dtype and shape, and the payload.

    Returns:
        As `array_of`, by name.

    Raises:
        Refused: ``bad_record``.
    """
    payload, described = memoryview(_bytes(record)), record.attrs.get("arrays")
    if not isinstance(described, list) or len(described) > ARRAYS_MAX:
        raise Refused("bad_record", f"arrays that are {described!r:.80}")
    found: dict[str, AnyArray] = {}
    for entry in described:
        if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[0], str):
            raise Refused("bad_record", f"an array that is {entry!r:.80}")
        found[entry[0]], size = _array(entry[1], entry[2], payload)
        payload = payload[size:]
    if payload:
        raise Refused("bad_record", f"{len(payload):,} bytes beyond the arrays")
    return found


def _bytes(record: Record) -> bytes | memoryview:
    if not isinstance(record.payload, bytes | memoryview):
        raise Refused("bad_record", f"an array in {type(record.payload).__name__}")
    return record.payload


def _array(dtype: object, shape: object, payload: bytes | memoryview) -> tuple[AnyArray, int]:
    """Return the array at the beginning of ``payload``, and its size in bytes."""
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise Refused("bad_record", f"an array of dtype {dtype!r:.40}")
    if not isinstance(shape, list | tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise Refused("bad_record", f"an array of shape {shape!r:.80}")
    if len(shape) > DIMENSIONS_MAX:
        raise Refused("bad_record", f"an array of {len(shape)} dimensions; at most {DIMENSIONS_MAX} are allowed")
    size = math.prod(shape) * _ITEM_BYTES[dtype]
    if size > len(payload):
        raise Refused("bad_record", f"an array of shape {shape!r:.80} and dtype {dtype} in {len(payload):,} bytes")
    if not size:
        kind = np.float32 if dtype == BFLOAT16 else dtype
        try:
            return np.empty(shape, kind), 0
        except ValueError:
            return np.empty([0] * len(shape), kind), 0
    payload = memoryview(payload)[:size]
    if dtype == BFLOAT16:  # float32 without its lower half
        flat = (np.frombuffer(payload, "<u2").astype("<u4") << 16).view("<f4")
    elif dtype == "|b1":  # any byte but 0 is true; numpy would take a 2 for a bool of value 2
        flat = np.frombuffer(payload, np.uint8) != 0
    else:
        flat = np.frombuffer(payload, dtype)
        if not flat.flags.aligned:  # it came through the socket; everything would be slower than this one copy
            flat = flat.copy()
    return flat.reshape(shape), size


def check_real(array: AnyArray) -> None:
    """Refuse complex numbers."""
    if array.dtype.kind == "c":
        raise Refused("bad_record", "complex numbers")


def number_attr(record: Record, name: str) -> float | None:
    """Return a finite number among the attributes, or None.

    Raises:
        Refused: the attribute is not a finite number.
    """
    value = record.attrs.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not -1.8e308 < value < 1.8e308:  # false for NaN; int beyond float64 too
        raise Refused("bad_record", f"{name} is {value!r:.40}; a finite number is expected")
    return float(value)


def shown(text: str) -> str:
    """Return text that UTF-8 can hold, with lone surrogates escaped."""
    return text.encode("utf-8", "backslashreplace").decode()
