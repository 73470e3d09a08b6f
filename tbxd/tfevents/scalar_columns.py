"""Encodes many scalar events at a time: the bytes of `ScalarEncoder`, many times faster.

Each scalar is a row of a byte array that is filled column by column. The beginning and the end of an event have columns
in every row, and fields of different lengths have room for the longest; a mask selects the bytes of a row that are
used, and these, row by row, are the event file::

    length  crc  09  wall time  10  step  2a  size | 0a <n> 0a <n> tag 15  value | crc
    of the first scalar of an event                | every scalar                | of the last of an event

If each event has one scalar, most of a row comes from a table, by its tag, and if all rows have one length, as with one
tag in a burst, there is no mask. The checksums come from `Contributions`, all together; those of longer events, and of
the few events with a mark, are computed one by one over the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from crc32c import crc32c

from .crc import CONTRIBUTIONS, masked
from .scalar_encoder import mark_field, value_prefix, varint
from .tfrecord import HEAD, TAIL, frame

ROWS_BYTES = 1 << 18  # of the array at a time: what a processor keeps near
ROWS_MIN = 256
FORMS_MAX = 2  # tables of whole rows that are kept
NUMBER_BYTES = 4
VARINT_MAX = 10
_TIME_AT = HEAD.size  # columns: 09 and the wall time, 10 and the step
_STEP_AT = _TIME_AT + 10
_LENGTH_BYTES = 4  # of the 8 of a length: the others are zero

Piece = bytes | memoryview
Bytes = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]


class Tags:
    """The tags of a file by number, with the fixed bytes of their events.

    A row of ``rows`` has, flush right, the summary of an event with one scalar of this tag, without its number. Its end
    is the beginning of a value in an event of several.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self.width = 32
        self.rows = np.zeros((64, self.width), np.uint8)
        self.lengths = np.zeros(64, np.int64)  # of the rows
        self.value_lengths = np.zeros(64, np.int64)  # of what a value begins with
        self.crcs = np.zeros(64, np.uint32)  # of the summary, whose number is zero

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, tag: str) -> int:
        """Return the number of a tag, a new one if needed."""
        number = self._numbers.get(tag)
        if number is None:
            number = self._numbers[tag] = len(self._numbers)
            prefix = value_prefix(tag)
            summary = b"\x2a" + varint(len(prefix) + NUMBER_BYTES) + prefix
            self._make_place(number, len(summary))
            self.rows[number, self.width - len(summary) :] = np.frombuffer(summary, np.uint8)
            self.lengths[number] = len(summary)
            self.value_lengths[number] = len(prefix)
            self.crcs[number] = crc32c(summary + bytes(NUMBER_BYTES))
        return number

    def _make_place(self, number: int, length: int) -> None:
        old, width = self.rows, max(self.width, (length + 15) & ~15)
        if number >= len(old):
            self.lengths, self.value_lengths, self.crcs = (
                np.concatenate([array, np.zeros_like(array)]) for array in (self.lengths, self.value_lengths, self.crcs)
            )
        if number >= len(old) or width > self.width:
            self.rows = np.zeros((len(self.lengths), width), np.uint8)
            self.rows[: len(old), width - self.width :] = old
            self.width = width


class RowEncoder:
    """Makes the framed events of many scalars."""

    def __init__(self) -> None:
        self.tags = Tags()
        self._crcs = CONTRIBUTIONS
        self._crcs.reach(_LENGTH_BYTES + HEAD.size)
        zeros = bytes(8)
        # Checksums of what is always there: a length, and the beginning of an event by the length of its step.
        self._length_crc = np.uint32(crc32c(zeros))
        self._begin_crcs = np.array(
            [crc32c(b"\x09" + zeros + b"\x10" + bytes(step)) for step in range(VARINT_MAX + 1)], np.uint32
        )
        self._forms: dict[tuple[int, int, int], Bytes] = {}
        self._masks = np.zeros((0, 0), np.bool_)  # which of the columns of a tag are there, by how many are

    def events(
        self,
        starts: Integers,
        tags: Integers,
        steps: Integers,
        wall_times: npt.NDArray[Any],
        numbers: npt.NDArray[np.float32],
        marks: Mapping[int, str],
    ) -> list[Piece]:
        """Return the bytes of events, in pieces.

        Args:
            starts: (E,) the first scalar of each event.
            tags: (N,) the tag of each scalar, from `Tags.number`.
            steps: (N,) int64; that of the first scalar of an event applies.
            wall_times: (N,) seconds; the same.
            numbers: (N,) the values.
            marks: the marks of some events, by place in ``starts``.
        """
        pieces: list[Piece] = []
        count = len(tags)
        most = max(ROWS_MIN, ROWS_BYTES // (_STEP_AT + 2 * NUMBER_BYTES + self.tags.width))
        marked = sorted(marks)
        begin = 0  # events
        while begin < len(starts):
            first = int(starts[begin])
            end = len(starts)
            if count - first > most:  # as many whole events as there is room for, and one at least
                end = max(begin + 1, int(np.searchsorted(starts, first + most, side="right")) - 1)
            last = int(starts[end]) if end < len(starts) else count
            part = slice(first, last)
            make = self._singles if end - begin == last - first else self._events
            pieces += make(
                starts[begin:end] - first,
                tags[part],
                steps[part],
                wall_times[part],
                numbers[part],
                {index - begin: mark_field(marks[index]) for index in marked if begin <= index < end},
            )
            begin = end
        return pieces

    # --- events of one scalar --------------------------------------------------------------------------------

    def _singles(
        self,
        starts: Integers,
        tags: Integers,
        steps: Integers,
        wall_times: npt.NDArray[Any],
        numbers: npt.NDArray[np.float32],
        fields: dict[int, bytes],
    ) -> list[Piece]:
        step_bytes, step_lengths = _varints(steps.view(np.uint64))
        lengths = self.tags.lengths.take(tags)
        step_length, length = _one_of(step_lengths), _one_of(lengths)
        uniform = isinstance(step_length, int) and isinstance(length, int)
        size_at = _STEP_AT + step_bytes.shape[1]
        form = self._form(step_bytes.shape[1], length if uniform and isinstance(length, int) else 0)
        rows = form.take(tags, axis=0)
        number_at = rows.shape[1] - NUMBER_BYTES - TAIL.size
        times = _octets(np.ascontiguousarray(wall_times, "<f8"))
        octets = _octets(np.ascontiguousarray(numbers, "<f4"))
        rows[:, _TIME_AT + 1 : _STEP_AT - 1] = times
        rows[:, _STEP_AT:size_at] = step_bytes
        rows[:, number_at : number_at + NUMBER_BYTES] = octets

        behind = length + NUMBER_BYTES
        self._crcs.reach(int(np.max(behind)))
        crcs = self._begin_crcs.take(step_lengths)
        for place in range(8):
            crcs ^= self._crcs.of(times[:, place], step_length + (8 - place))
        for place in range(step_bytes.shape[1]):  # of a byte that is not there nothing comes, wherever it is
            distance = step_length - 1 - place
            crcs ^= self._crcs.of(step_bytes[:, place], distance if isinstance(distance, int) else distance.clip(0))
        crcs = self._crcs.followed(crcs, behind) ^ self.tags.crcs.take(tags)
        for place in range(NUMBER_BYTES):
            crcs ^= self._crcs.of(octets[:, place], NUMBER_BYTES - 1 - place)
        rows[:, number_at + NUMBER_BYTES :] = _octets(masked(crcs))
        if uniform:
            sizes = np.full(len(tags), rows.shape[1])
            return _with_marks(rows.reshape(-1), sizes, fields)
        data = 10 + step_lengths + behind
        rows[:, : HEAD.size] = self._heads(data)
        there = np.ones(rows.shape, np.bool_)
        there[:, size_at:number_at] = self._there(lengths)
        if not isinstance(step_length, int):
            there[:, _STEP_AT:size_at] = np.arange(step_bytes.shape[1]) < step_lengths[:, None]
        return _with_marks(rows[there], data + HEAD.size + TAIL.size, fields)

    def _form(self, step_length: int, length: int) -> Bytes:
        """Return rows by tag with the fixed bytes of its events.

        Args:
            step_length: columns for the step.
            length: the length of the summaries, if all asked for have the same, and steps too; otherwise 0.
        """
        known, count = self.tags, len(self.tags)
        form = self._forms.get((step_length, length, count))
        if form is None:
            width = length or known.width
            size_at = _STEP_AT + step_length
            form = np.zeros((count, size_at + width + NUMBER_BYTES + TAIL.size), np.uint8)
            form[:, _TIME_AT], form[:, _STEP_AT - 1] = 0x09, 0x10
            form[:, size_at : size_at + width] = known.rows[:count, known.width - width :]
            if length:
                form[:, : HEAD.size] = self._heads(np.array([10 + step_length + length + NUMBER_BYTES]))
            while len(self._forms) >= FORMS_MAX:
                del self._forms[next(iter(self._forms))]
            self._forms[step_length, length, count] = form
        return form

    def _there(self, lengths: Integers) -> Mask:
        """Return a mask of the used columns of the tags' rows, for these lengths: (N, the width)."""
        width = self.tags.width
        if self._masks.shape[1] != width:
            self._masks = np.arange(width) >= width - np.arange(width + 1)[:, None]
        return self._masks.take(lengths, axis=0)

    # --- events of several -----------------------------------------------------------------------------------

    def _events(
        self,
        starts: Integers,
        tags: Integers,
        steps: Integers,
        wall_times: npt.NDArray[Any],
        numbers: npt.NDArray[np.float32],
        fields: dict[int, bytes],
    ) -> list[Piece]:
        count, known = len(tags), self.tags
        value_lengths = known.value_lengths.take(tags)
        step_bytes, step_lengths = _varints(steps[starts].view(np.uint64))
        sizes = np.add.reduceat(value_lengths + NUMBER_BYTES, starts)
        size_bytes, size_lengths = _varints(sizes.view(np.uint64))
        data = 11 + step_lengths + size_lengths + sizes

        size_at = _STEP_AT + step_bytes.shape[1] + 1
        prefix_at = size_at + size_bytes.shape[1]
        number_at = prefix_at + known.width
        crc_at = number_at + NUMBER_BYTES
        rows = np.empty((count, crc_at + TAIL.size), np.uint8)
        there = np.zeros(rows.shape, np.bool_)
        rows[:, prefix_at:number_at] = known.rows.take(tags, axis=0)
        there[:, prefix_at:number_at] = self._there(value_lengths)
        rows[:, number_at:crc_at] = _octets(np.ascontiguousarray(numbers, "<f4"))
        there[:, number_at:crc_at] = True

        rows[starts, : HEAD.size] = self._heads(data)
        rows[starts, _TIME_AT] = 0x09
        rows[starts, _TIME_AT + 1 : _STEP_AT - 1] = _octets(wall_times[starts].astype("<f8", copy=False))
        rows[starts, _STEP_AT - 1] = 0x10
        rows[starts, _STEP_AT : size_at - 1] = step_bytes
        rows[starts, size_at - 1] = 0x2A
        rows[starts, size_at:prefix_at] = size_bytes
        there[starts, :_STEP_AT] = True
        there[starts, _STEP_AT : size_at - 1] = np.arange(step_bytes.shape[1]) < step_lengths[:, None]
        there[starts, size_at - 1] = True
        there[starts, size_at:prefix_at] = np.arange(size_bytes.shape[1]) < size_lengths[:, None]
        there[np.append(starts[1:], count) - 1, crc_at:] = True

        out = rows[there]
        sizes = data + HEAD.size + TAIL.size
        view = out.data
        places = np.cumsum(sizes) - TAIL.size
        begins = places - data
        crcs = [crc32c(view[begin:end]) for begin, end in zip(begins.tolist(), places.tolist(), strict=True)]
        out[places[:, None] + np.arange(TAIL.size)] = _octets(masked(np.array(crcs, np.uint32)))
        return _with_marks(out, sizes, fields)

    def _heads(self, lengths: Integers) -> Bytes:
        """Return the frame heads of data of these lengths: (N, 12)."""
        octets = _octets(lengths.astype("<u4"))
        crcs = self._crcs.of(octets[:, 0], 7) ^ self._length_crc
        for place in range(1, _LENGTH_BYTES):
            crcs ^= self._crcs.of(octets[:, place], 7 - place)
        result = np.zeros((len(lengths), HEAD.size), np.uint8)
        result[:, :_LENGTH_BYTES] = octets
        result[:, 8:] = _octets(masked(crcs))
        return result


def _with_marks(out: Bytes, sizes: Integers, fields: dict[int, bytes]) -> list[Piece]:
    """Return events in pieces, some of them with one more field; ``sizes`` are those of all events in ``out``."""
    if not fields:
        return [out.data]
    ends = np.cumsum(sizes)
    data = out.data
    pieces: list[Piece] = []
    done = 0
    for index, source in sorted(fields.items()):
        end = int(ends[index])
        begin = end - int(sizes[index])
        pieces += [data[done:begin], frame(bytes(data[begin + HEAD.size : end - TAIL.size]) + source)]
        done = end
    return [*pieces, data[done:]]


def _octets(numbers: npt.NDArray[Any]) -> Bytes:
    """Return the bytes of little-endian numbers, (N, bytes of one)."""
    return numbers.view(np.uint8).reshape(len(numbers), -1)


def _one_of(values: Integers) -> int | Integers:
    """Return the single number if all are equal, else all of them."""
    first = int(values[0])
    return first if (values == first).all() else values


def _varints(numbers: npt.NDArray[np.uint64]) -> tuple[Bytes, Integers]:
    """Return protobuf varints, (N, the longest), and their lengths; bytes after the end of one are zero."""
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
