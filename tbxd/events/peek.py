"""Tag, step and wall time of a scalar's event, without protobuf where its bytes are as all writers make them.

The layout is that of `scalar`. What stands between step and value is the same for each event of a tag: it is taken
apart by protobuf once, and recognised from then on.
"""

from __future__ import annotations

import struct
from typing import Any

from tbxd_client.protowire import field

TAGS_MAX = 100_000  # remembered; events of others are parsed
_TIME = struct.Struct("<d").unpack_from
_FLOAT = struct.Struct("<f").unpack
_FIELDS_AT = 9  # behind the wall time
_SIGN = 1 << 63


class Peek:
    """Recognises the scalars of tags that it has been shown."""

    def __init__(self) -> None:
        self._tags: dict[bytes, str] = {}

    def scalar(self, data: bytes) -> tuple[str, int, float] | None:
        """Tag, step and wall time of an event that is one scalar and no more; None where protobuf has to look.

        Its value are the last four bytes: `value_of`.
        """
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
        tag = self._tags.get(data[offset:-4])
        return None if tag is None else (tag, step, _TIME(data, 1)[0])

    def learn(self, data: bytes, event: Any) -> None:
        """Remember the tag of an event that protobuf has parsed, if the next one of it can do without."""
        if len(self._tags) < TAGS_MAX and len(event.summary.value) == 1:
            tag = event.summary.value[0].tag
            summary = field(5, field(1, field(1, tag.encode()) + b"\x15" + data[-4:]))
            head = data[: len(data) - len(summary)]
            if data.endswith(summary) and head[:1] == b"\x09" and (len(head) == _FIELDS_AT or head[_FIELDS_AT] == 0x10):
                self._tags[summary[:-4]] = tag


def value_of(data: bytes) -> float:
    """The value of an event that `Peek.scalar` has recognised."""
    return float(_FLOAT(data[-4:])[0])
