"""Scalars, one by one. The run writes many scalars without this module."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from tbxd_client.protocol.kinds import SCALAR
from tbxd_client.protocol.records import Record, TagDefinition

from .metadata import summary_value
from .rejections import Refused


def encode(record: Record, tag: TagDefinition) -> list[Any]:
    """Encode a big-endian float64 as ``simple_value``, a float32; numbers beyond its range are infinite.

    Raises:
        Refused: ``bad_record``.
    """
    if not isinstance(record.payload, bytes) or len(record.payload) != 8:
        raise Refused("bad_record", "a scalar without its 8 bytes")
    with np.errstate(over="ignore", invalid="ignore"):
        number = float(np.float32(struct.unpack(">d", record.payload)[0]))
    return [summary_value(SCALAR, tag, simple_value=number)]
