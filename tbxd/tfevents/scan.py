"""Reads all records of an event file that may be damaged: whole ones, damaged stretches, and whole ones after them.

`read_records` ends at damage, as TensorBoard does. This module looks for the next whole record after it: the checksum
of a length shows where a record may begin, and that of the data confirms it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from .crc import masked_crc
from .tfrecord import HEAD, READ_BYTES, RECORD_BYTES_MAX, TAIL

WHOLE = 0  # a record, both checksums right
DAMAGED = 1  # the length is right, and what follows begins where it says; the checksum of the data is wrong
TORN = 2  # a record whose writer was cut off, and others follow where the rest of it should be
GAP = 3  # no record begins here; the next whole one does at its end, or none
CUT = 4  # the last record, whose end is not there

Found = tuple[int, int, int, bytes]
"""What it is, where it begins and ends, and its data: for a TORN those that a reader takes which checks no data, where
the file has as many; for a GAP or a CUT none."""

HEADS_MAX = 4096  # lengths whose checksums are remembered: nearly all records of a file share a few
_ZEROS = re.compile(rb"\0{4,}")  # no length below 2^32 is without them


class _Window:
    """The bytes around the reading position; at most one record, or `READ_BYTES`, of them in memory."""

    def __init__(self, read: Callable[[int, int], bytes], size: int) -> None:
        self._read = read
        self.size = size
        self.start = 0
        self.bytes = b""

    def at(self, position: int, length: int) -> int:
        """Load ``length`` bytes from ``position`` on into `bytes`, as far as the file has them; return their index."""
        offset = position - self.start
        if offset < 0 or offset > len(self.bytes):
            self.start, self.bytes, offset = position, b"", 0
        missing = min(length, self.size - position) - (len(self.bytes) - offset)
        if missing > 0:
            pieces = [self.bytes[offset:]]
            where = self.start + len(self.bytes)
            self.start = position
            while missing > 0:
                piece = self._read(where, min(max(missing, READ_BYTES), self.size - where))
                if not piece:  # somebody has cut the file meanwhile
                    self.size = where
                    break
                pieces.append(piece)
                where += len(piece)
                missing -= len(piece)
            self.bytes = b"".join(pieces)
            offset = 0
        return offset


def scan(read: Callable[[int, int], bytes], size: int, start: int = 0) -> Iterator[Found]:
    """Yield the parts of a file, from its record at ``start`` to ``size``, without gaps.

    Args:
        read: gives bytes of the file from a position on, at most as many as asked for; empty after its end.
        size: the size of the file in bytes. No memory is allocated for a record with a length beyond it.
    """
    window = _Window(read, size)
    heads: dict[bytes, int] = {}
    buffer, offset, base = b"", 0, start  # what is read as long as records are whole and in the window
    crc, tail, head_bytes = masked_crc, TAIL.unpack_from, HEAD.size
    while True:
        head = buffer[offset : offset + head_bytes]
        length = heads.get(head)
        if length is not None:
            end = offset + head_bytes + length + 4
            if end <= len(buffer):
                data = buffer[offset + head_bytes : end - 4]
                if crc(data) == tail(buffer, end - 4)[0]:
                    yield WHOLE, base + offset, base + end, data
                    offset = end
                    continue
        position = base + offset
        if position >= window.size:
            return
        found = _look(window, position, heads)
        yield found
        position = found[2]
        offset = window.at(position, head_bytes)
        buffer, base = window.bytes, window.start


def _look(window: _Window, position: int, heads: dict[bytes, int]) -> Found:
    """Return the part at a position."""
    length = _length(window, position)
    if length is None:
        if window.size - position < HEAD.size:
            return CUT, position, window.size, b""
        return GAP, position, _next_whole(window, position + 1), b""
    end = position + HEAD.size + length + TAIL.size
    offset = window.at(position, end - position) if end <= window.size else 0
    if end > window.size:  # also where somebody has cut the file meanwhile
        after = _next_whole(window, position + 1)
        return (CUT if after == window.size else TORN), position, after, b""
    data = window.bytes[offset + HEAD.size : offset + HEAD.size + length]
    state = WHOLE
    if masked_crc(data) != TAIL.unpack_from(window.bytes, offset + HEAD.size + length)[0]:
        state = DAMAGED
        if window.size - end >= HEAD.size and _length(window, end) is None:
            after = _next_whole(window, position + 1)
            state, end = (TORN, after) if after < end else (DAMAGED, end)
    elif len(heads) < HEADS_MAX:
        heads[window.bytes[offset : offset + HEAD.size]] = length
    return state, position, end, data


def _length(window: _Window, position: int) -> int | None:
    """Return the length of the record that begins at a position; None if none does."""
    offset = window.at(position, HEAD.size)
    if len(window.bytes) - offset < HEAD.size:
        return None
    length, checksum = HEAD.unpack_from(window.bytes, offset)
    if length > RECORD_BYTES_MAX or masked_crc(window.bytes[offset : offset + 8]) != checksum:
        return None
    return int(length)


def _next_whole(window: _Window, position: int) -> int:
    """Return the beginning of the next whole record, from a position on; the end of the file if there is none."""
    while window.size - position >= HEAD.size + TAIL.size:
        offset = window.at(position, READ_BYTES)
        stretch = window.bytes[offset : offset + READ_BYTES]
        if len(stretch) < HEAD.size:
            break
        for index in _candidates(stretch):
            length = _length(window, position + index)
            if length is None:
                continue
            end = position + index + HEAD.size + length + TAIL.size
            if end > window.size:
                continue
            at = window.at(position + index, end - position - index)
            record = window.bytes[at : at + HEAD.size + length + TAIL.size]
            if len(record) == HEAD.size + length + TAIL.size and (
                masked_crc(record[HEAD.size : -TAIL.size]) == TAIL.unpack(record[-TAIL.size :])[0]
            ):
                return position + index
        if len(stretch) < READ_BYTES:
            break
        position += len(stretch) - HEAD.size + 1
    return window.size


def _candidates(stretch: bytes) -> Iterator[int]:
    """Yield the places in a stretch where the head of a record may begin: before a length's four upper bytes, zeros.

    Amid more than twelve zeros none begins, as the checksum of a length of zero is not zero: a hole left by a crash
    takes no time.
    """
    last = len(stretch) - HEAD.size
    for run in _ZEROS.finditer(stretch):
        first, end = run.span()
        for index in range(max(0, first - 4), min(first, end - 7, last + 1)):
            yield index
        for index in range(max(0, first, end - HEAD.size + 1), min(end - 7, last + 1)):
            yield index
