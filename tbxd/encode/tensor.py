"""Arrays as TensorFlow's tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from tbxd_client.protocol.kinds import TENSOR
from tbxd_client.protocol.records import Record, TagDefinition

from ..tfevents import schema
from .arrays import AnyArray, array_of
from .metadata import summary_value

# DataType of types.proto
_TYPES = {"f4": 1, "f8": 2, "i4": 3, "u1": 4, "i2": 5, "i1": 6, "c8": 8, "i8": 9, "b1": 10}
_TYPES |= {"u2": 17, "c16": 18, "f2": 19, "u4": 22, "u8": 23}


def encode(record: Record, tag: TagDefinition) -> list[Any]:
    """Encode a tensor of any shape and type of number: attributes ``dtype`` and ``shape``; bfloat16 becomes float32.

    Raises:
        Refused: ``bad_record``.
    """
    return [summary_value(TENSOR, tag, tensor=tensor_of(array_of(record)))]


def tensor_of(array: AnyArray) -> Any:
    """Return the ``TensorProto`` of an array."""
    if not array.size and array.dtype.str[1:] in ("u4", "u8"):  # of which TensorBoard reads none that are empty
        array = array.astype(np.int64)
    return schema.TensorProto(
        dtype=_TYPES[array.dtype.str[1:]],
        tensor_shape=schema.TensorShapeProto(dim=[schema.TensorShapeProto.Dim(size=size) for size in array.shape]),
        tensor_content=array.tobytes(),
    )
