"""The last steps of the tags of a run, in columns, so that many tags take little memory."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.protocol.records import STEP_MAX

KINDS = ("simple_value", "histo", "image", "audio", "tensor", "")  # of a value; the last is any other
NONE = -STEP_MAX - 1
COUNTED_FROM = -1  # a numbered tag's first step is the one behind it
MANY = 32  # tags of an event: with more of them numpy is faster
COLUMNS = "qqqdBii"  # of `Tags.columns`


class Tags:
    """A row for each tag, in the order of arrival: some 40 bytes of memory, and the name."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.metadata: dict[int, bytes] = {}  # the first that a tag has come with, by its place
        self.last = array("q")  # the step that came last: the fast loader has none beyond it
        self.most = array("q")  # the slow loader has none beyond it
        self.counted = array("q")  # a numbered tag goes on behind it
        self.wall_times = array("d")  # of the last
        self.kinds = array("B")  # by their place in `KINDS`
        self.owners = array("i")  # who has logged the last, by its place in `lineage.Lineage`; 0 where nobody tells
        self.eras = array("i")  # who was the last to begin the tag anew, the same
        self._places: dict[str, int] = {}
        self._by_bytes: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self.names)

    def get(self, name: str) -> int | None:
        """Return the place of a known tag, or None."""
        return self._places.get(name)

    def place(self, name: str) -> int:
        """Return the place of a tag, a new one if needed."""
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = len(self.names)
            self.names.append(name)
            self.last.append(0)
            self.most.append(NONE)
            self.counted.append(COUNTED_FROM)
            self.wall_times.append(0.0)
            self.kinds.append(0)
            self.owners.append(0)
            self.eras.append(0)
        return place

    def places(self, names: Sequence[bytes]) -> list[int]:
        """Return the places of tags by their names in UTF-8.

        Raises:
            UnicodeDecodeError: a name is not UTF-8.
        """
        known = self._by_bytes
        try:
            return [known[name] for name in names]
        except KeyError:
            for name in names:
                if name not in known:
                    known[name] = self.place(name.decode())
            return [known[name] for name in names]

    def note(
        self,
        places: Sequence[int] | npt.NDArray[np.int64],
        last: int,
        most: int,
        wall_time: float,
        kind: int = 0,
        owner: int = 0,
    ) -> None:
        """Note events with values of these tags.

        Args:
            places: the places of the tags.
            last: the step of the last event.
            most: the largest step.
            wall_time: the wall time of the last event, in seconds since the epoch.
            kind: the kind of the values.
            owner: the life that has logged them.
        """
        if len(places) > MANY:
            self._note_many(np.array(places), last, most, wall_time, kind, owner)
            return
        lasts, mosts, counted, wall_times, kinds = self.last, self.most, self.counted, self.wall_times, self.kinds
        owners = self.owners
        for place in places:
            owners[place] = owner
            lasts[place] = last
            wall_times[place] = wall_time
            kinds[place] = kind
            mosts[place] = max(mosts[place], most)
            counted[place] = max(counted[place], most)

    def _note_many(
        self, places: npt.NDArray[Any], last: int, most: int, wall_time: float, kind: int, owner: int
    ) -> None:
        # Views of the columns, which cannot grow while there are any.
        np.frombuffer(self.last, np.int64)[places] = last
        np.frombuffer(self.wall_times, np.float64)[places] = wall_time
        np.frombuffer(self.kinds, np.uint8)[places] = kind
        np.frombuffer(self.owners, np.int32)[places] = owner
        for column in (self.most, self.counted):
            numbers = np.frombuffer(column, np.int64)
            numbers[places] = np.maximum(numbers[places], most)

    def cut(self, place: int, step: int, era: int = 0) -> None:
        """Forget the points of a tag at or after a step; ``era`` is the life that begins it again, 0 if unknown."""
        self.eras[place] = era or self.eras[place]
        for column in (self.last, self.most, self.counted):
            column[place] = min(column[place], max(step - 1, NONE))

    def start(self, step: int) -> None:
        """Continue all counted steps from a step: a START, which applies to all tags."""
        self.counted = array("q", [min(counted, max(step - 1, NONE)) for counted in self.counted])

    def copy(self) -> Tags:
        """Return an independent copy."""
        return Tags.of(self.names, [column[:] for column in self.columns()], dict(self.metadata))

    def columns(self) -> list[array[int] | array[float]]:
        """Return the columns, each of its type in `COLUMNS`."""
        return [self.last, self.most, self.counted, self.wall_times, self.kinds, self.owners, self.eras]

    @classmethod
    def of(cls, names: Sequence[str], columns: Sequence[array[int] | array[float]], metadata: dict[int, bytes]) -> Tags:
        """The inverse of `columns`, which it takes over.

        Raises:
            ValueError: the columns do not belong together.
        """
        tags = cls()
        tags.names = list(names)
        tags._places = {name: place for place, name in enumerate(names)}
        if len(tags._places) != len(names) or any(len(column) != len(names) for column in columns):
            raise ValueError("columns of different lengths")
        tags.metadata = metadata
        tags.last, tags.most, tags.counted, tags.wall_times, tags.kinds, *more = columns  # type: ignore[assignment]
        tags.owners, tags.eras = more  # type: ignore[assignment]
        return tags
