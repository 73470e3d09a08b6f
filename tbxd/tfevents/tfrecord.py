"""TFRecord framing: bytes to records and back.

========  =========================================
bytes     what
========  =========================================
8         length of the data, little endian
4         masked CRC-32C of those 8 bytes
length    data
4         masked CRC-32C of the data
========  =========================================

Source: TensorFlow, ``tensorflow/core/lib/io/record_writer.h``. A file whose last record is cut is normal: its writer
was killed, or is in the middle of a write.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from .crc import masked_crc

HEAD = struct.Struct("<QI")
TAIL = struct.Struct("<I")
RECORD_BYTES_MAX = (1 << 31) - 1  # protobuf takes no message beyond it
READ_BYTES = 1 << 20


class DamagedFile(Exception):
    """The bytes at ``position`` are not a whole record, though more bytes follow than a cut record explains."""

    def __init__(self, position: int, why: str) -> None:
        super().__init__(f"at byte {position:,}: {why}")
        self.position = position


def frame(data: bytes) -> bytes:
    """Return a record that holds ``data``."""
    length = len(data).to_bytes(8, "little")
    return b"".join((length, TAIL.pack(masked_crc(length)), data, TAIL.pack(masked_crc(data))))


def read_records(read: Callable[[int], bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the records of a file, each with the position after it; end at a cut record.

    Args:
        read: gives the next bytes of the file, at most as many as asked for; empty at the end.

    Raises:
        DamagedFile: a checksum is wrong. Records yielded before are valid.
    """
    buffer = bytearray()
    offset = 0  # into the buffer
    start = 0  # position of the buffer in the file
    at_end = False
    while True:
        available = len(buffer) - offset
        wanted = HEAD.size
        if available >= HEAD.size:
            length, length_crc = HEAD.unpack_from(buffer, offset)
            if masked_crc(buffer[offset : offset + 8]) != length_crc:
                raise DamagedFile(start + offset, "the checksum of a length is wrong")
            if length > RECORD_BYTES_MAX:
                raise DamagedFile(start + offset, f"a record of {length:,} bytes")
            wanted = HEAD.size + length + TAIL.size
            if available >= wanted:
                end = offset + wanted
                data = bytes(buffer[offset + HEAD.size : end - TAIL.size])
                if masked_crc(data) != TAIL.unpack_from(buffer, end - TAIL.size)[0]:
                    raise DamagedFile(start + offset, "the checksum of a record is wrong")
                offset = end
                yield start + offset, data
                continue
        if at_end:
            return
        del buffer[:offset]
        start += offset
        offset = 0
        while len(buffer) < wanted:
            more = read(READ_BYTES)  # a length that is damage takes no memory
            if not more:
                at_end = True
                break
            buffer += more
