"""Texts, which TensorBoard renders as Markdown."""

from __future__ import annotations

from typing import Any

from tbxd_client.protocol.kinds import KINDS, TEXT
from tbxd_client.protocol.records import Record, TagDefinition

from ..tfevents import schema
from .arrays import shown
from .metadata import summary_value
from .rejections import Refused


def encode(record: Record, tag: TagDefinition) -> list[Any]:
    """Encode a tensor of shape (1,) with the payload, a string.

    Raises:
        Refused: ``bad_record``.
    """
    if not isinstance(record.payload, str):
        raise Refused("bad_record", "a text without a string")
    tensor = schema.TensorProto(
        dtype=schema.DT_STRING,
        string_val=[shown(record.payload).encode()],
        tensor_shape=schema.TensorShapeProto(dim=[schema.TensorShapeProto.Dim(size=1)]),
    )
    (suffix,) = KINDS[TEXT].suffixes
    return [summary_value(TEXT, tag, suffix, tensor=tensor)]
