"""Parses tag, step and wall time of a scalar's event, without protobuf if its bytes have the usual layout.

The layout is that of `scalar_encoder`, with or without fields after the summary. The bytes between step and value are
the same for each event of a tag, and their lengths show that nothing else is in the summary.
"""

from __future__ import annotations

import struct
from typing import Any

from tbxd_client.protocol.protowire import field

from . import schema

TAGS_MAX = 100_000  # remembered; events of others are parsed
_TIME = struct.Struct("<d").unpack_from
_FLOAT = struct.Struct("<f").unpack_from
_FIELDS_AT = 9  # behind the wall time
_SIGN = 1 << 63

Peeked = tuple[str, int, float, int]
"""Tag, step, wall time, and where in the data the four bytes of the value end."""


class Peek:
    """Recognises the scalars of tags that it has learnt."""

    def __init__(self) -> None:
        self._tags: dict[bytes, str] = {}
        self._learnt: set[str] = set()

    def scalar(self, data: bytes) -> Peeked | None:
        """Return the fields of an event with one scalar and possibly a mark; None if protobuf has to parse it."""
        if len(data) < 16 or data[0] != 9:
            return None
        offset, step = _FIELDS_AT, 0
        if data[offset] == 0x10:  # a step of zero is left out
            byte = data[10]
            offset = 11
            step = byte & 0x7F
            shift = 7
            while byte > 0x7F:
                if shift > 63 or offset >= len(data):
                    return None
                byte = data[offset]
                offset += 1
                step |= (byte & 0x7F) << shift
                shift += 7
            if shift > 63:  # ten bytes: a negative number
                step = (step & _SIGN - 1) - (step & _SIGN)
        end = len(data)
        tag = self._tags.get(data[offset:-4])
        if tag is None:
            end = _end_before_mark(data, offset)
            tag = self._tags.get(data[offset : end - 4]) if end else None
        return None if tag is None else (tag, step, _TIME(data, 1)[0], end)

    def event(self, data: bytes) -> Any:
        """Parse an event by protobuf, from which `scalar` learns; return None if it is not an event."""
        event = schema.Event()
        try:
            event.ParseFromString(data)
        except schema.DecodeError:
            return None
        self.learn(event)
        return event

    def learn(self, event: Any) -> None:
        """Remember the tag of an event that protobuf has parsed, if it is one scalar."""
        if len(event.summary.value) != 1 or len(self._tags) >= TAGS_MAX:
            return
        value = event.summary.value[0]
        tag = value.tag
        if tag not in self._learnt and value.WhichOneof("value") == "simple_value":
            self._learnt.add(tag)
            self._tags[field(5, field(1, field(1, tag.encode()) + b"\x15" + bytes(4)))[:-4]] = tag


def _end_before_mark(data: bytes, offset: int) -> int:
    """Return the end of a summary that is followed only by a short `source_metadata` with its writer; 0 otherwise."""
    if offset + 2 > len(data) or data[offset] != 0x2A or data[offset + 1] > 0x7F:
        return 0
    end = offset + 2 + data[offset + 1]
    size = len(data) - end
    if not 4 <= size < 0x80 + 2 or data[end] != 0x52 or data[end + 1] != size - 2:
        return 0
    return end if data[end + 2] == 0x0A and data[end + 3] == size - 4 and data[end + 4 :].isascii() else 0


def value_of(data: bytes, end: int) -> float:
    """Return the value of an event that `Peek.scalar` has recognised."""
    return float(_FLOAT(data, end - 4)[0])
