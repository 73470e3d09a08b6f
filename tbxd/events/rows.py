"""Scalar events many at a time: the bytes that `ScalarEncoder` would make of them, some fifty times faster.

Each scalar is a row of a byte array that is filled column by column. What an event begins and ends with has its columns in
every row, and a place for the longest that there is; a mask says which bytes of a row are there, and what it leaves,
row by row, is the event file::

    length  crc  09  wall time  10  step  2a  size | 0a <n> 0a <n> tag 15  value | crc
    of the first scalar of an event                | every scalar                | of the last of an event

The checksums of events of one scalar come from `Contributions`, all together; those of longer events, and of the few
events with a mark, are computed one by one over the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from .crc import Contributions, Crcs, masked, masked_crc
from .record import HEAD, TAIL
from .scalar import mark_field, value_prefix, varint

ROWS_BYTES = 1 << 18  # of the array at a time: what a processor keeps near
ROWS_MIN = 256
NUMBER_BYTES = 4
VARINT_MAX = 10
_TIME_AT = HEAD.size  # columns: 09 and the wall time, 10 and the step
_STEP_AT = _TIME_AT + 10
_LENGTH_BYTES = 4  # of the 8 of a length: the others are zero

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]


class Prefixes:
    """What the values of each tag begin with, as rows of a table by the tag's number."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.width = 32
        self.lengths = np.zeros(64, np.int64)
        self.crcs = np.zeros(64, np.uint32)  # of the summary with this one value, which is zero
        self.rows = np.zeros((64, self.width), np.uint8)  # flush right
        self.masks = np.zeros((64, self.width), np.bool_)

    @property
    def nbytes(self) -> int:
        """What the tables take."""
        return self.rows.nbytes + self.masks.nbytes

    def number(self, tag: str) -> int:
        """The number of a tag, which is given one if it has none."""
        number = self.numbers.get(tag)
        if number is not None:
            return number
        number = len(self.numbers)
        prefix = value_prefix(tag)
        length = len(prefix)
        if number == len(self.lengths) or length > self.width:
            self._grow(max(number + 1, len(self.lengths)), length)
        self.numbers[tag] = number
        self.lengths[number] = length
        self.crcs[number] = crc32c(b"\x2a" + varint(length + NUMBER_BYTES) + prefix + bytes(NUMBER_BYTES))
        self.rows[number, self.width - length :] = np.frombuffer(prefix, np.uint8)
        self.masks[number, self.width - length :] = True
        return number

    def _grow(self, count: int, width: int) -> None:
        old, space = len(self.lengths), 2 * len(self.lengths) if count > len(self.lengths) else len(self.lengths)
        new_width = max(self.width, (width + 15) & ~15)
        rows, masks = np.zeros((space, new_width), np.uint8), np.zeros((space, new_width), np.bool_)
        rows[:old, new_width - self.width :] = self.rows
        masks[:old, new_width - self.width :] = self.masks
        self.rows, self.masks, self.width = rows, masks, new_width
        self.lengths = np.concatenate([self.lengths, np.zeros(space - old, np.int64)])
        self.crcs = np.concatenate([self.crcs, np.zeros(space - old, np.uint32)])


class RowEncoder:
    """Makes the framed events of many scalars."""

    def __init__(self) -> None:
        self.prefixes = Prefixes()
        self._crcs = Contributions()
        self._crcs.reach(64)
        zeros = bytes(8)
        # Checksums of what is always there: a length, and the beginning of an event by the length of its step.
        self._length_crc = np.uint32(crc32c(zeros))
        self._begin_crcs = np.array(
            [crc32c(b"\x09" + zeros + b"\x10" + bytes(step)) for step in range(VARINT_MAX + 1)], np.uint32
        )

    def events(
        self,
        starts: Integers,
        tags: Integers,
        steps: Integers,
        wall_times: npt.NDArray[Any],
        numbers: npt.NDArray[np.float32],
        marks: Mapping[int, str],
    ) -> list[bytes]:
        """The bytes of events, in pieces.

        Args:
            starts: (E,) the scalar that each event begins with.
            tags: (N,) of each scalar, as `Prefixes.number` gives them.
            steps: (N,) int64; those that events begin with count.
            wall_times: (N,) seconds; the same.
            numbers: (N,) the values.
            marks: of some events, by their place in ``starts``.
        """
        pieces: list[bytes] = []
        count = len(tags)
        most = max(ROWS_MIN, ROWS_BYTES // (_STEP_AT + VARINT_MAX + 2 * NUMBER_BYTES + self.prefixes.width))
        marked = sorted(marks)
        begin = 0  # events
        while begin < len(starts):
            first = int(starts[begin])
            end = int(np.searchsorted(starts, first + most, side="right")) - 1  # the event that row is in comes later
            end = len(starts) if count - first <= most else max(begin + 1, end)
            last = int(starts[end]) if end < len(starts) else count
            part = slice(first, last)
            pieces += self._events(
                starts[begin:end] - first,
                tags[part],
                steps[part],
                wall_times[part],
                numbers[part],
                {index - begin: marks[index] for index in marked if begin <= index < end},
            )
            begin = end
        return pieces

    def _events(
        self,
        starts: Integers,
        tags: Integers,
        steps: Integers,
        wall_times: npt.NDArray[Any],
        numbers: npt.NDArray[np.float32],
        marks: dict[int, str],
    ) -> list[bytes]:
        count, prefixes = len(tags), self.prefixes
        single = len(starts) == count
        times = np.ascontiguousarray(wall_times if single else wall_times[starts], "<f8").view(np.uint8).reshape(-1, 8)
        step_bytes, step_lengths = _varints((steps if single else steps[starts]).view(np.uint64))
        value_lengths = prefixes.lengths.take(tags) + NUMBER_BYTES
        sizes = value_lengths if single else np.add.reduceat(value_lengths, starts)
        size_bytes, size_lengths = _varints(sizes.view(np.uint64))
        fields = {index: mark_field(mark) for index, mark in marks.items()}
        lengths = 11 + step_lengths + size_lengths + sizes  # of the events' data
        for index, source in fields.items():
            lengths[index] += len(source)

        size_at = _STEP_AT + step_bytes.shape[1] + 1
        prefix_at = size_at + size_bytes.shape[1]
        number_at = prefix_at + prefixes.width
        crc_at = number_at + NUMBER_BYTES
        rows = np.empty((count, crc_at + TAIL.size), np.uint8)
        there = np.zeros(rows.shape, np.bool_)
        rows[:, prefix_at:number_at] = prefixes.rows.take(tags, axis=0)
        there[:, prefix_at:number_at] = prefixes.masks.take(tags, axis=0)
        octets = np.ascontiguousarray(numbers, "<f4").view(np.uint8).reshape(-1, NUMBER_BYTES)
        rows[:, number_at:crc_at] = octets
        there[:, number_at:crc_at] = True

        at: Any = slice(None) if single else starts
        length_octets = lengths.astype("<u4").view(np.uint8).reshape(-1, _LENGTH_BYTES)
        rows[at, :_LENGTH_BYTES] = length_octets
        rows[at, _LENGTH_BYTES:8] = 0
        rows[at, 8 : HEAD.size] = _octets(masked(self._length_crcs(length_octets)))
        rows[at, _TIME_AT] = 0x09
        rows[at, _TIME_AT + 1 : _STEP_AT - 1] = times
        rows[at, _STEP_AT - 1] = 0x10
        rows[at, _STEP_AT : size_at - 1] = step_bytes
        rows[at, size_at - 1] = 0x2A
        rows[at, size_at:prefix_at] = size_bytes
        there[at, :_STEP_AT] = True
        there[at, _STEP_AT : size_at - 1] = np.arange(step_bytes.shape[1]) < step_lengths[:, None]
        there[at, size_at - 1] = True
        there[at, size_at:prefix_at] = np.arange(size_bytes.shape[1]) < size_lengths[:, None]
        ends = np.append(starts[1:], count) - 1
        there[slice(None) if single else ends, crc_at:] = True
        if fields:
            there[ends[list(fields)], crc_at:] = False  # behind the mark

        if single:
            crcs = self._crcs_of(times, step_bytes, step_lengths, 1 + size_lengths + sizes)
            crcs ^= prefixes.crcs.take(tags)
            for place in range(NUMBER_BYTES):
                crcs ^= self._crcs.of(octets[:, place], NUMBER_BYTES - 1 - place)
            rows[:, crc_at:] = _octets(masked(crcs))
        return self._finish(rows[there], single, lengths + HEAD.size + TAIL.size, fields)

    def _length_crcs(self, octets: Bytes) -> Crcs:
        """Checksums of lengths, of which ``octets`` (E, 4) are the lower bytes."""
        crcs = self._crcs.of(octets[:, 0], 7) ^ self._length_crc
        for place in range(1, _LENGTH_BYTES):
            if octets[:, place].any():
                crcs ^= self._crcs.of(octets[:, place], 7 - place)
        return crcs

    def _crcs_of(self, times: Bytes, steps: Bytes, step_lengths: Integers, behind: Integers) -> Crcs:
        """What wall times (E, 8) and steps add to the checksums of events with ``behind`` bytes behind the step."""
        self._crcs.reach(int(behind.max()))
        lengths = _one_of(step_lengths)
        crcs = self._begin_crcs.take(step_lengths)
        for place in range(8):
            crcs ^= self._crcs.of(times[:, place], lengths + (8 - place))
        for place in range(steps.shape[1]):  # of a byte that is not there nothing comes, wherever it is
            distance = lengths - 1 - place
            crcs ^= self._crcs.of(steps[:, place], distance if isinstance(distance, int) else np.maximum(distance, 0))
        return self._crcs.followed(crcs, _one_of(behind))

    def _finish(self, out: Bytes, single: bool, sizes: Integers, fields: dict[int, bytes]) -> list[bytes]:
        """Put in the checksums of events that are no rows, and the marks, which are not in ``out``."""
        for index, source in fields.items():
            sizes[index] -= len(source) + TAIL.size
        ends = np.cumsum(sizes)
        data = memoryview(out).cast("B")
        if not single:
            whole = np.ones(len(ends), np.bool_)
            whole[list(fields)] = False
            places = ends[whole] - TAIL.size
            begins = ends[whole] - sizes[whole] + HEAD.size
            crcs = [crc32c(data[begin:end]) for begin, end in zip(begins.tolist(), places.tolist(), strict=True)]
            out[places[:, None] + np.arange(TAIL.size)] = _octets(masked(np.array(crcs, np.uint32)))
        if not fields:
            return [out.tobytes()]
        pieces = []
        done = 0
        for index, source in sorted(fields.items()):
            end = int(ends[index])
            begin = end - int(sizes[index]) + HEAD.size
            pieces += [bytes(data[done:end]), source, TAIL.pack(masked_crc(bytes(data[begin:end]) + source))]
            done = end
        pieces.append(bytes(data[done:]))
        return pieces


def _octets(crcs: Crcs) -> Bytes:
    return crcs.astype("<u4", copy=False).view(np.uint8).reshape(-1, 4)


def _one_of(values: Integers) -> int | Integers:
    """The one number that all are, or all of them."""
    first = int(values[0])
    return first if (values == first).all() else values


def _varints(numbers: npt.NDArray[np.uint64]) -> tuple[Bytes, Integers]:
    """Protobuf varints, (N, the longest), and their lengths; what is behind the end of one is zero."""
    width = max(1, (int(numbers.max()).bit_length() + 6) // 7)
    lengths = np.ones(len(numbers), np.int64)
    result = np.empty((len(numbers), width), np.uint8)
    result[:, 0] = numbers & np.uint64(0x7F)
    for place in range(1, width):
        rest = numbers >> np.uint64(7 * place)
        more = rest > 0
        result[:, place - 1] |= more.view(np.uint8) << np.uint8(7)
        result[:, place] = rest & np.uint64(0x7F)
        lengths += more
    return result, lengths
