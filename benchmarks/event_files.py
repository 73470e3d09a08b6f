"""Counting points in event files without protobuf, TensorFlow or tbxd: quick, and the same for whoever wrote them."""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

LENGTH = struct.Struct("<Q")
BEFORE, AFTER = 12, 4  # bytes around each event: length and checksum, and another checksum


def points(folder: Path) -> Counter[str]:
    """Values by tag in the event files below a folder; a torn event at the end counts for nothing."""
    found: Counter[str] = Counter()
    for path in sorted(folder.rglob("*tfevents*")):
        if path.stat().st_size:
            with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                for start, end in events(data):
                    found.update(_tags(data[start:end]))
    return found


def events(data: bytes | mmap.mmap, start: int = 0) -> Iterator[tuple[int, int]]:
    """Where each whole event of a file begins and ends, from the one that is framed at ``start``."""
    size = len(data)
    while start + BEFORE <= size:
        (length,) = LENGTH.unpack_from(data, start)
        begin = start + BEFORE
        start = begin + length + AFTER
        if not length or start > size:
            return
        yield begin, begin + length


def _tags(event: bytes) -> Iterator[str]:
    """The tags of the summary of an event."""
    for number, summary in _messages(event):
        if number == 5:
            for field, value in _messages(summary):
                if field == 1:
                    yield from (text.decode() for inner, text in _messages(value) if inner == 1)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message that hold bytes, in the wire format of protocol buffers."""
    position, size = 0, len(data)
    while position < size:
        key, position = _varint(data, position)
        if key & 7 == 2:
            length, position = _varint(data, position)
            yield key >> 3, data[position : position + length]
            position += length
        elif key & 7 == 0:
            _, position = _varint(data, position)
        else:
            position += {1: 8, 5: 4}[key & 7]


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
