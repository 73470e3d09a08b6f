"""CRC-32C as event files store it: rotated and with a constant added.

Source: ``masked_crc32c`` of TensorFlow's ``tensorflow/core/lib/hash/crc32c.h``, a scheme of LevelDB's log format, which
keeps the checksum of data that contains checksums from being weak.
"""

from __future__ import annotations

from typing import NewType

from crc32c import crc32c

MaskedCrc = NewType("MaskedCrc", int)
"""A masked checksum: a type of its own, so that it is never compared with a plain one."""

_DELTA = 0xA282EAD8


def masked_crc(data: bytes | bytearray | memoryview) -> MaskedCrc:
    """The checksum of ``data`` as it stands in an event file."""
    crc = crc32c(data)
    return MaskedCrc((((crc >> 15) | (crc << 17)) + _DELTA) & 0xFFFFFFFF)
