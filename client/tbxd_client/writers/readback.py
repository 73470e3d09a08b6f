"""Scalars read back from event files, so that the trainer does not have to keep them.

The files give the session and the end position of each record (``docs/EVENT_FILE.md``), so records of other writers
and of an earlier life of the run are left out.
"""

from __future__ import annotations

import base64
import contextlib
import math
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..protocol.protowire import FIXED32, FIXED64, VARINT, WireError, fields

Point = list[float]  # wall time, step, value

_HEAD_BYTES, _TAIL_BYTES = 12, 4  # around each record of a file: length and checksum, and another checksum
_MARK = re.compile(r"([MV])([0-9a-f]+)(?:=([\w-]{16}))?,([0-9a-f]+),([0-9a-f]+),", re.ASCII)
_DIGITS = range(6, 10)  # of a float32: six can always be told, nine always tell


def points(directory: str, tag: str, session: bytes, after: int) -> tuple[list[Point], int]:
    """Read the points of a session and a tag from the event files of a folder.

    Args:
        directory: the folder.
        tag: a tag of scalars.
        session: the id of the session.
        after: a position in its records; records that end at or before it are left out.

    Returns:
        [wall time, step, value] of each point, in the order of the files, and the position after the last.
    """
    found: list[Point] = []
    end = after
    names: list[Path] = []
    for folder in (Path(directory), *_beside(Path(directory))):
        with contextlib.suppress(OSError):
            names += sorted(path for path in folder.iterdir() if "tfevents" in path.name)
    for path in names:
        try:
            with path.open("rb") as file:
                for event, position in _of_session(file, base64.urlsafe_b64encode(session).decode()):
                    value = _scalar(event, tag)
                    if position > after and value is not None:
                        found.append(value)
                        end = max(end, position)
        except (OSError, WireError, struct.error):
            continue  # what stands before the damage stands
    return found, end


def _beside(directory: Path) -> list[Path]:
    """Return the folders below a run where the daemon writes this process's records apart from another's."""
    try:
        return sorted(path for path in directory.iterdir() if f"-{os.getpid()}-" in path.name and path.is_dir())
    except OSError:
        return []


def _of_session(file: BinaryIO, session: str) -> Iterator[tuple[bytes, int]]:
    """Yield the events of a file that are records of a session, with their end positions."""
    ours: str | None = None  # the number under which the file knows the session
    current, by_value, end, delta = "", False, 0, 0
    while len(head := file.read(_HEAD_BYTES)) == _HEAD_BYTES:
        length = int.from_bytes(head[:8], "little")
        if length > os.fstat(file.fileno()).st_size - file.tell():  # being written, or damaged: takes no memory
            return
        event = file.read(length)
        if len(event) + len(file.read(_TAIL_BYTES)) < length + _TAIL_BYTES:
            return  # being written
        writer = _writer(event)
        mark = _MARK.match(writer)
        if mark is not None:
            letter, current, name, position, step = mark.groups()
            by_value, end, delta = letter == "V", int(position, 16), int(step, 16)
            ours = current if name == session else ours
        elif writer:
            continue  # the file's own: no record
        else:
            end += delta * (sum(1 for _ in _values(event)) if by_value else 1)
        if current and current == ours:
            yield event, end


def _writer(event: bytes) -> str:
    for number, _, value in fields(event):
        if number == 10 and isinstance(value, memoryview):  # Event.source_metadata
            for inner, _, text in fields(value):
                if inner == 1 and isinstance(text, memoryview):  # SourceMetadata.writer
                    return bytes(text).decode("ascii", "replace")
    return ""


def _values(event: bytes) -> Iterator[memoryview]:
    """Yield the values of an event's summary."""
    for number, _, data in fields(event):
        if number == 5 and isinstance(data, memoryview):  # Event.summary
            for inner, _, value in fields(data):
                if inner == 1 and isinstance(value, memoryview):
                    yield value


def _scalar(event: bytes, tag: str) -> Point | None:
    wall_time, step, value = 0.0, 0, None
    for number, kind, data in fields(event):
        if number == 1 and kind == FIXED64 and isinstance(data, memoryview):
            (wall_time,) = struct.unpack("<d", data)
        elif number == 2 and kind == VARINT and isinstance(data, int):
            step = data - (1 << 64) if data >> 63 else data
    for summary in _values(event):
        value = _value(summary, tag) if value is None else value
    return None if value is None else [wall_time, step, value]


def _value(summary: memoryview, tag: str) -> float | None:
    name, value = "", None
    for number, kind, data in fields(summary):
        if number == 1 and isinstance(data, memoryview):
            name = bytes(data).decode("utf-8", "replace")
        elif number == 2 and kind == FIXED32 and isinstance(data, memoryview):
            value = bytes(data)
    return shortest(value) if value is not None and name == tag else None


def shortest(data: bytes) -> float:
    """Return the float64 with the fewest digits that rounds to this float32 (4 bytes, little endian).

    For example 0.1, not 0.10000000149011612.
    """
    (value,) = struct.unpack("<f", data)
    if not math.isfinite(value):
        return float(value)
    for digits in _DIGITS:
        short = float(f"{value:.{digits}g}")
        try:
            if struct.pack("<f", short) == data:
                return short
        except OverflowError:  # rounded up, beyond the largest
            continue
    return float(value)
