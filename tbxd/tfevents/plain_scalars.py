"""Parses events that contain only scalars, without protobuf if their bytes have the usual layout.

The layout is that of `scalar_encoder`, with or without a mark. If many events of one form follow each other, as a
training loop logs them, they are compared with the first of them all at once, by their bytes: only time, step and
numbers may differ.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .crc import CONTRIBUTIONS, masked, plain_crc
from .tape import Tape
from .tfrecord import HEAD, TAIL

WALL_TIME = slice(HEAD.size + 1, HEAD.size + 9)  # where it stands in a framed event
STEP_AT = HEAD.size + 10  # and the step's first byte
FRAME_BYTES = HEAD.size + TAIL.size
_TIME = struct.Struct("<d").unpack_from
_FLOAT = struct.Struct("<f").unpack_from
_SIGN = 1 << 63
MANY_BYTES = 512  # of values that are looked for on a tape
MIN_BYTES = 16  # of an event with a value


@dataclass(slots=True)
class Plain:
    """An event of scalars. ``tags``: their names, as bytes; ``ends``: the ends of the four bytes of each number.

    ``places``: the places of the tags, if found on a tape; there are no names and ends then.
    """

    step: int
    step_bytes: int  # of it; 0 where it is left out, as a step of zero may be
    wall_time: float
    tags: list[bytes]
    ends: list[int]
    mark: bytes
    begin: int = 0  # of the first value
    places: npt.NDArray[np.int64] | None = None


class _Other(Exception):
    """The event is something else."""


def read_plain(data: bytes, begin: int, end: int, tape: Tape | None = None) -> Plain | None:
    """Return the event in ``data[begin:end]`` if it has only scalars, with or without a mark; else None.

    Both ways give the same result. With a ``tape``, values that are on it are not parsed.
    """
    try:
        if data[begin] != 0x09 or end - begin < MIN_BYTES:
            return None
        at = begin + 9
        step, size = 0, 0
        if data[at] == 0x10:
            step, after = _varint(data, at + 1)
            size, at = after - at - 1, after
            step = (step & _SIGN - 1) - (step & _SIGN)
        if data[at] != 0x2A or size > 10:
            return None
        length, at = _varint(data, at + 1)
        stop = at + length
        if stop > end:
            return None
        places = tape.find(data, at, stop) if tape is not None and stop - at >= MANY_BYTES else None
        tags, ends = _values(data, at, stop) if places is None else ([], [])
        mark = _mark(data, stop, end) if stop < end else b""
    except (IndexError, _Other):
        return None
    if not tags and places is None:
        return None
    return Plain(step, size, _TIME(data, begin + 1)[0], tags, ends, mark, at, places)


def _values(data: bytes, at: int, stop: int) -> tuple[list[bytes], list[int]]:
    """Return the tags of a summary, and the ends of their numbers.

    Raises:
        _Other: the summary has other values than scalars.
    """
    tags: list[bytes] = []
    ends: list[int] = []
    while at < stop:
        length = data[at + 1]
        if length < 0x80:
            inner, name = at + 2, at + 4
            end = inner + length
            number = name + data[at + 3]  # of fewer than 128 bytes, as all of it is
        else:
            length, inner = _varint(data, at + 1)
            end = inner + length
            length, name = _varint(data, inner + 1)
            number = name + length
        if number + 5 != end or end > stop or data[at] != 0x0A or data[inner] != 0x0A or data[number] != 0x15:
            raise _Other
        tags.append(data[name:number])
        ends.append(end)
        at = end
    return tags, ends


def _mark(data: bytes, at: int, end: int) -> bytes:
    """Return the mark of an event, if only the mark follows.

    Raises:
        _Other: something else follows.
    """
    length, inner = _varint(data, at + 1)
    if data[at] != 0x52 or data[inner] != 0x0A or inner + length != end:
        raise _Other
    length, begin = _varint(data, inner + 1)
    mark = data[begin:end]
    if begin + length != end or not mark.isascii():
        raise _Other
    return mark


def number_at(data: bytes, end: int) -> float:
    """Return the value whose four bytes end at ``end``."""
    return float(_FLOAT(data, end - 4)[0])


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a varint, and the position after it."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    number, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = data[at]
        number |= (byte & 0x7F) << shift
        if byte < 0x80 or shift > 63:
            return number, at + 1
        shift += 7


def following(data: bytes, at: int, size: int) -> int:
    """Return the number of framed events of ``size`` bytes from a position on, at least one, by their lengths."""
    count = (len(data) - at) // size
    lengths: npt.NDArray[Any] = np.ndarray((count,), "<u4", data, at, (size,))
    other = lengths != size - FRAME_BYTES
    return int(other.argmax()) if other.any() else count


def alike(data: bytes, at: int, size: int, count: int, first: Plain) -> npt.NDArray[np.uint8]:
    """Return the framed events, from the first on, that have the same tags and no mark.

    Args:
        data: their bytes, from ``at`` on.
        size: the bytes of each.
        count: their most possible number.
        first: the first event; it has no mark.

    Returns:
        (N, size) their bytes.
    """
    rows: npt.NDArray[np.uint8] = np.frombuffer(data, np.uint8, count * size, at).reshape(count, size)
    same = np.full(size, 0xFF, np.uint8)
    same[WALL_TIME] = 0
    same[STEP_AT : STEP_AT + first.step_bytes] = 0x80
    for end in first.ends:
        same[end - at - 4 : end - at] = 0
    same[-TAIL.size :] = 0
    differs = rows ^ rows[0]
    differs &= same
    if not np.count_nonzero(differs):
        return rows
    return rows[: int(differs.any(axis=1).argmax())]


def steps_of(rows: npt.NDArray[np.uint8], first: Plain) -> npt.NDArray[np.int64]:
    """Return the steps, (N,), of events that are `alike`."""
    steps = np.zeros(len(rows), np.uint64)
    for place in range(first.step_bytes):
        steps |= (rows[:, STEP_AT + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    return steps.view(np.int64)


def intact(rows: npt.NDArray[np.uint8], at: int, first: Plain) -> int:
    """Return the number of events that are `alike`, from the first on, with the right checksum.

    Only the bytes that differ are looked at: the others contribute the same to each.
    """
    differ = np.zeros(rows.shape[1], np.bool_)
    differ[WALL_TIME] = differ[STEP_AT : STEP_AT + first.step_bytes] = True
    for end in first.ends:
        differ[end - at - 4 : end - at] = True
    begin, end = HEAD.size, rows.shape[1] - TAIL.size
    same = np.where(differ, np.uint8(0), rows[0])[begin:end].tobytes()
    crcs = np.full(len(rows), plain_crc(same), np.uint32)
    CONTRIBUTIONS.reach(end - begin)
    for column in np.flatnonzero(differ).tolist():
        crcs ^= CONTRIBUTIONS.of(rows[:, column], end - 1 - column)
    wrong = masked(crcs) != rows[:, end:].copy().view("<u4")[:, 0]
    return int(wrong.argmax()) if wrong.any() else len(rows)


def wall_time_of(row: npt.NDArray[np.uint8]) -> float:
    """Return the wall time of a framed event."""
    return float(row[WALL_TIME].copy().view("<f8")[0])
