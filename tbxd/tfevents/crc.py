"""CRC-32C as event files store it: rotated and with a constant added.

Source: ``masked_crc32c`` of TensorFlow's ``tensorflow/core/lib/hash/crc32c.h``, a scheme of LevelDB's log format, which
keeps the checksum of data that contains checksums from being weak.
"""

from __future__ import annotations

import threading
from typing import Any, NewType

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

MaskedCrc = NewType("MaskedCrc", int)
"""A masked checksum: a type of its own, so that it is never compared with a plain one."""

_DELTA = 0xA282EAD8

Crcs = npt.NDArray[np.uint32]


def masked_crc(data: bytes | bytearray | memoryview) -> MaskedCrc:
    """Return the checksum of ``data`` in the form of event files."""
    crc = crc32c(data)
    return MaskedCrc((((crc >> 15) | (crc << 17)) + _DELTA) & 0xFFFFFFFF)


def plain_crc(data: bytes | bytearray | memoryview) -> int:
    """Return the checksum of ``data`` in the form of `Contributions`."""
    return int(crc32c(data))


def masked(crcs: Crcs) -> Crcs:
    """Convert plain checksums to the form of event files."""
    result: Crcs = ((crcs >> np.uint32(15)) | (crcs << np.uint32(17))) + np.uint32(_DELTA)
    return result


class Contributions:
    """A table of the contribution of each byte to the checksum of its data.

    CRC-32C is linear over XOR. So a checksum is that of the same data with zeros for some bytes, XORed with the
    contribution of each of these bytes, which depends only on its value and on its distance from the end. So a few
    table look-ups yield the checksums of many events of one form together.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._table = np.zeros((0, 256), np.uint32)  # by the bytes that follow, then by the byte
        self._flat = self._table.ravel()

    def reach(self, distance: int) -> None:
        """Extend the table to bytes at this distance from the end. Any thread may call it at any time."""
        if distance >= len(self._table):
            with self._lock:
                self._grow(distance)

    def _grow(self, distance: int) -> None:
        have = len(self._table)
        if distance < have:
            return
        table = np.empty((max(64, 2 * distance), 256), np.uint32)
        table[:have] = self._table
        if not have:
            nothing = crc32c(bytes(1))
            table[0] = [crc32c(bytes([byte])) ^ nothing for byte in range(256)]
        for after in range(max(1, have), len(table)):  # one more byte, a zero, behind it
            before = table[after - 1]
            table[after] = (before >> np.uint32(8)) ^ table[0][before & np.uint32(0xFF)]
        self._flat = table.ravel()
        self._table = table

    def of(self, values: npt.NDArray[np.uint8], behind: int | npt.NDArray[Any]) -> Crcs:
        """Return the contributions of bytes with ``behind`` bytes after them, one number for all or one for each."""
        if isinstance(behind, int):
            result: Crcs = self._table[behind].take(values)
        else:
            result = self._flat.take((behind << 8) + values)
        return result

    def followed(self, crcs: Crcs, lengths: int | npt.NDArray[Any]) -> Crcs:
        """Return the contribution of checksums if ``lengths`` bytes, at least 4, follow the data."""
        octets = crcs.astype("<u4", copy=False).view(np.uint8).reshape(-1, 4)
        result = self.of(octets[:, 0], lengths - 1)
        for place in range(1, 4):
            result ^= self.of(octets[:, place], lengths - 1 - place)
        return result


CONTRIBUTIONS = Contributions()
"""One for all: it only grows."""
