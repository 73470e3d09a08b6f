"""Encodes the scalars of a run: groups them into events, with their marks and bytes.

They are gathered over a whole write, from all sessions, because numpy's calls cost as much for ten as for a thousand. A
few scalars are encoded one by one, to the same bytes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.protocol.kinds import SCALAR
from tbxd_client.protocol.records import SCALAR_BYTES, TagDefinition

from ..batch import SCALAR_DTYPE, Batch
from ..tfevents import schema
from ..tfevents.grouping import starts_of, walk
from ..tfevents.ledger import DELTA_MAX, Entry, Marker
from ..tfevents.scalar_columns import Piece, RowEncoder
from ..tfevents.scalar_encoder import ScalarEncoder
from ..tfevents.tfrecord import frame
from . import metadata_for

GATHERED_MAX = 1 << 14  # scalars, before events are made of them
SMALL = 48  # so many are made one by one: measured, it is where both ways take the same time
TAGS_MAX = 100_000  # of a file that are remembered at a time; with more it begins anew
TAG_TABLE_BYTES_MAX = 8 << 20  # of what is remembered of them
PLACES_MAX = 1 << 20  # for the numbers of all sessions' tags
UNKNOWN = -1
UNEVEN = 0
_PLAIN = np.dtype((np.void, SCALAR_BYTES))

Integers = npt.NDArray[np.int64]


@dataclass(slots=True)
class Part:
    """Consecutive scalars of one session. ``count`` and ``refused`` are those of its ledger before them."""

    session: bytes
    tags: list[TagDefinition | None]
    values: npt.NDArray[Any]  # of `SCALAR_DTYPE`
    ends: Integers
    steps: Integers
    count: int
    refused: dict[str, int]

    def definition(self, index: int) -> TagDefinition:
        """Return the tag of a scalar."""
        tag = self.tags[int(self.values["tag"][index])]
        assert tag is not None
        return tag


@dataclass(slots=True)
class Stretch:
    """Scalars of a part, from ``begin`` on, and the numbers of their tags if known."""

    part: Part
    begin: int
    end: int
    numbers: npt.NDArray[np.int32] | None

    @property
    def slice(self) -> slice:
        return slice(self.begin, self.end)


@dataclass(slots=True)
class Numbers:
    """A map from a session's tags to those of the file; `UNKNOWN` for new ones."""

    first: int = 0
    numbers: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))

    def reach(self, low: int, high: int) -> None:
        """Extend the map to the tags from ``low`` to ``high``."""
        count = len(self.numbers)
        if not count:
            self.first, self.numbers = low, np.full(high - low + 64, UNKNOWN, np.int32)
        elif low < self.first or high >= self.first + count:
            first, end = min(low, self.first), max(high + 1, self.first + count)
            grown = np.full(end - first + count, UNKNOWN, np.int32)  # as much again, for those that come next
            grown[self.first - first : self.first - first + count] = self.numbers
            self.first, self.numbers = first, grown


class ScalarWriter:
    """Makes the events of scalars for one event file.

    Args:
        marker: the marker of that file.
    """

    def __init__(self, marker: Marker) -> None:
        self._marker = marker
        self._described: set[TagDefinition] = set()
        self._encoder = ScalarEncoder()
        self._rows = RowEncoder()
        self._numbers: dict[bytes, Numbers] = {}  # by session
        self._parts: list[Part] = []
        self._waiting = 0

    @property
    def full(self) -> bool:
        """True if enough scalars are gathered to make events of them."""
        return self._waiting >= GATHERED_MAX

    def add(self, batch: Batch, values: npt.NDArray[Any], ends: Integers, steps: Integers, entry: Entry) -> None:
        """Gather scalars of a batch, at least one, and settle them in ``entry``.

        Args:
            batch: the batch, with its session and tags.
            values: (N,) of `SCALAR_DTYPE`.
            ends: (N,) the positions after them.
            steps: (N,) their steps, which may differ from those of ``values``.
            entry: the session's entry in the ledger.
        """
        self._parts.append(Part(batch.session, batch.tags, values, ends, steps, entry.count, entry.refused))
        self._waiting += len(values)
        entry.end = int(ends[-1])
        entry.count += len(values)

    def flush(self, pieces: list[Piece]) -> None:
        """Append the events of the gathered scalars."""
        parts, self._parts = self._parts, []
        small, self._waiting = self._waiting <= SMALL, 0
        stretches: list[Stretch] = []
        for part in parts:
            numbers, alone = (None, self._undescribed(part)) if small else self._look_up(part)
            begin = 0
            for place in alone:
                stretches.append(Stretch(part, begin, place, numbers))
                self._make(stretches, pieces)
                stretches = []
                pieces.append(self._with_metadata(part, place))
                begin = place + 1
            stretches.append(Stretch(part, begin, len(part.values), numbers))
        self._make(stretches, pieces)
        tags = self._rows.tags
        places = sum(len(known.numbers) for known in self._numbers.values())
        if len(tags) > TAGS_MAX or tags.rows.nbytes > TAG_TABLE_BYTES_MAX or places > PLACES_MAX:
            self._rows = RowEncoder()
            self._numbers.clear()

    # --- tags ------------------------------------------------------------------------------------------------

    def _undescribed(self, part: Part) -> list[int]:
        """Return the scalars that are the first of a tag with metadata."""
        found = []
        for index, number in enumerate(part.values["tag"].tolist()):
            tag = part.tags[number]
            assert tag is not None
            if (tag.color or tag.display_name or tag.description) and tag not in self._described:
                self._described.add(tag)
                found.append(index)
        return found

    def _look_up(self, part: Part) -> tuple[npt.NDArray[np.int32], list[int]]:
        """Return the numbers of the tags in the file, and the scalars that are the first of a tag with metadata."""
        ids = part.values["tag"].astype(np.int64)
        known = self._numbers.get(part.session)
        if known is None:
            known = self._numbers[part.session] = Numbers()
        known.reach(int(ids.min()), int(ids.max()))
        places = ids - known.first
        numbers = known.numbers.take(places)
        missing = numbers == UNKNOWN
        if not missing.any():
            return numbers, []
        where = np.flatnonzero(missing)
        _, firsts = np.unique(ids[where], return_index=True)
        alone = []
        for first in np.sort(firsts).tolist():  # those that a step logs one after the other get growing numbers
            index = int(where[first])
            tag = part.definition(index)
            known.numbers[places[index]] = self._rows.tags.number(tag.tag)
            if (tag.color or tag.display_name or tag.description) and tag not in self._described:
                self._described.add(tag)
                alone.append(index)
        return known.numbers.take(places), alone

    # --- events ----------------------------------------------------------------------------------------------

    def _with_metadata(self, part: Part, index: int) -> bytes:
        tag = part.definition(index)
        entry = Entry(int(part.ends[index]), part.count + index + 1, part.refused)
        mark = self._marker.mark_values(part.session, entry, SCALAR_BYTES, 1)
        number = float(float32(part.values["value"][index : index + 1])[0])
        value = schema.Summary.Value(tag=tag.tag, simple_value=number, metadata=metadata_for(SCALAR, tag))
        wall_time = float(finite_times(part.values["wall_time"][index : index + 1])[0])
        event = schema.Event(wall_time=wall_time, step=int(part.steps[index]), summary=schema.Summary(value=[value]))
        if mark:
            event.source_metadata.writer = mark
        return frame(event.SerializeToString())

    def _make(self, stretches: list[Stretch], pieces: list[Piece]) -> None:
        stretches = [stretch for stretch in stretches if stretch.end > stretch.begin]
        if sum(stretch.end - stretch.begin for stretch in stretches) > SMALL:
            self._all_at_once(stretches, pieces)
        else:
            for stretch in stretches:
                self._one_by_one(stretch, pieces)

    def _one_by_one(self, stretch: Stretch, pieces: list[Piece]) -> None:
        part, begin = stretch.part, stretch.begin
        values = part.values[stretch.slice]
        steps = part.steps[stretch.slice].tolist()
        wall_times = finite_times(values["wall_time"]).tolist()
        ends = part.ends[stretch.slice].tolist()
        numbers = float32(values["value"]).tobytes()
        tags = [tag.tag for number in values["tag"].tolist() if (tag := part.tags[number]) is not None]
        starts = walk(steps, wall_times, tags)
        stops = [*starts[1:], len(tags)]
        for place, (start, end) in enumerate(zip(starts, stops, strict=True)):
            entry = Entry(ends[end - 1], part.count + begin + end, part.refused)
            delta = SCALAR_BYTES
            if place + 1 < len(stops):
                far, odd = divmod(ends[stops[place + 1] - 1] - entry.end, stops[place + 1] - end)
                delta = SCALAR_BYTES if odd or far > DELTA_MAX else far
            mark = self._marker.mark_values(part.session, entry, delta, end - start)
            pieces.append(
                self._encoder.event(
                    tags[start:end], steps[start], wall_times[start], numbers[4 * start : 4 * end], mark
                )
            )

    def _all_at_once(self, stretches: list[Stretch], pieces: list[Piece]) -> None:
        sizes = [stretch.end - stretch.begin for stretch in stretches]
        offsets = np.cumsum([0, *sizes])
        # As plain bytes: numpy compares the fields of structured arrays, for longer than it copies them.
        values = _joined([stretch.part.values[stretch.slice].view(_PLAIN) for stretch in stretches]).view(SCALAR_DTYPE)
        ends = _joined([stretch.part.ends[stretch.slice] for stretch in stretches])
        steps = _joined([stretch.part.steps[stretch.slice] for stretch in stretches])
        tags = _joined([stretch.numbers[stretch.slice] for stretch in stretches if stretch.numbers is not None])
        wall_times = finite_times(values["wall_time"].astype("<f8"))
        begins = np.zeros(len(tags), np.bool_)
        begins[offsets[:-1]] = True
        starts = starts_of(begins, steps, wall_times, tags)
        lasts = np.append(starts[1:], len(tags)) - 1
        marks = self._marks(stretches, offsets, starts, lasts, ends[lasts])
        pieces += self._rows.events(starts, tags, steps, wall_times, float32(values["value"]), marks)

    def _marks(
        self, stretches: list[Stretch], offsets: Integers, starts: Integers, lasts: Integers, ends: Integers
    ) -> dict[int, str]:
        """Return the marks of events, by their places; few events may need one.

        If runs of one session take turns, the records of each are further apart than they are long, but evenly: a mark
        has the distance of its followers, and the next mark is due when that changes.
        """
        records = lasts - starts + 1
        spacings = spacings_of(ends, records)
        due = np.zeros(len(starts), np.bool_)
        due[np.searchsorted(starts, offsets[:-1])] = True  # the first of each stretch
        due[1:] |= due[:-1] | (spacings[1:] != spacings[:-1]) | (spacings[1:] == UNEVEN)
        places = np.flatnonzero(due)
        whose = np.searchsorted(offsets, starts[places], side="right") - 1
        marks = {}
        for place, number in zip(places.tolist(), whose.tolist(), strict=True):
            stretch = stretches[number]
            if place:
                self._marker.pass_over(int(ends[place - 1]))
            last = int(lasts[place])
            settled = stretch.part.count + stretch.begin + last - int(offsets[number]) + 1
            entry = Entry(int(ends[place]), settled, stretch.part.refused)
            following = place + 1 < len(starts) and int(starts[place + 1]) < int(offsets[number + 1])
            delta = int(spacings[place + 1]) if following else UNEVEN
            mark = self._marker.mark_values(
                stretch.part.session, entry, SCALAR_BYTES if delta == UNEVEN else delta, int(records[place])
            )
            if mark:
                marks[place] = mark
        self._marker.pass_over(int(ends[-1]))
        return marks


def spacings_of(ends: Integers, records: Integers) -> Integers:
    """Return the even distance of each event's records: from the end of the event before to its own, by record.

    Args:
        ends: (N,) the positions after events.
        records: (N,) the number of records of each.

    Returns:
        (N,) bytes, `UNEVEN` if it is not a whole number, and for the first.
    """
    spacings = np.full(len(ends), UNEVEN, np.int64)
    far = ends[1:] - ends[:-1]
    spacings[1:] = far // records[1:]
    spacings[1:][(far % records[1:] != 0) | (far <= 0) | (spacings[1:] > DELTA_MAX)] = UNEVEN
    return spacings


def _joined(arrays: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def float32(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Convert to float32, as TensorBoard shows it; infinite beyond its range."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype("<f4")


def finite_times(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Replace wall times that would make the file unreadable for TensorBoard's fast loader by the current time."""
    good = np.isfinite(values)
    return values if good.all() else np.where(good, values, time.time())
