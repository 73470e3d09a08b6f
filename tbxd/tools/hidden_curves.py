"""Writes the hidden points of a run as runs of their own: points that a restart has replaced, and repeated steps.

A point that TensorBoard discards is still in its file (`events.resume`). This module reads a run's files again and
writes the points that are not shown any more to further folders. In each folder the steps of each tag only grow:

``replaced-<n>``
    points replaced by the n-th restart. A restart is a process, or a start of a job, that begins tags again; if it
    replaces the same points of a tag twice, there is one more folder.
``repeated-<n>``
    points at or after a step that was repeated without a restart, in the folder with the lowest possible number.

It is meant for copies (``tbxd check --repair-into``): no daemon writes such folders, and their events have no marks.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ..tfevents import schema
from ..tfevents.lineage import UNKNOWN, Lineage
from ..tfevents.resume_marks import BY_STEP
from ..tfevents.scalar_parser import Peek
from ..tfevents.tfrecord import HEAD, TAIL, frame, read_records

REPLACED, REPEATED = "replaced", "repeated"
REPEATED_MAX = 100  # folders of one run: a tag without steps would have one for each of its points
_POSITION_BITS = 40  # of a place; above them the number of the file
_POSITION = (1 << _POSITION_BITS) - 1
_NONE = -(1 << 63)


@dataclass(slots=True)
class Found:
    """The contents of a written folder."""

    name: str
    points: int
    tags: int


@dataclass(slots=True)
class _Tag:
    """The points of a tag that a run shows at some moment, by steps, and the folders of its hidden points."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    places: array[int] = field(default_factory=lambda: array("q"))
    indexes: array[int] = field(default_factory=lambda: array("i"))  # of the value in its event
    metadata: Any = None
    ended: dict[Hashable, int] = field(default_factory=dict)  # how often each restart has taken something
    repeated: list[int] = field(default_factory=list)  # last steps in the folders of what went back
    start: int = 0  # the last START that it has gone back for


@dataclass(slots=True)
class _Folder:
    """The points for one folder."""

    places: array[int] = field(default_factory=lambda: array("q"))
    indexes: array[int] = field(default_factory=lambda: array("i"))

    def sorted(self) -> Iterator[tuple[int, list[int]]]:
        """Yield the places in the order of the files, each with its values."""
        last, indexes = -1, list[int]()
        for place, index in sorted(zip(self.places, self.indexes, strict=True)):
            if place != last and indexes:
                yield last, indexes
                indexes = []
            last = place
            indexes.append(index)
        if indexes:
            yield last, indexes


class Hidden:
    """The hidden points of the files of one run. It takes 20 bytes of memory for each shown point, more for others.

    Args:
        files: the whole files of its folder, in TensorBoard's order.

    Raises:
        OSError: a file cannot be read.
        DamagedFile: a file is damaged.
    """

    def __init__(self, files: list[Path]) -> None:
        self.left_out = 0  # points for which there is no folder
        self._files = files
        self._tags: dict[str, _Tag] = {}
        self._replaced: dict[Hashable, _Folder] = {}
        self._repeated: list[_Folder] = []
        self._lineage = Lineage()
        self._ends = self._starts = 0
        for number, path in enumerate(files):
            with path.open("rb") as file:
                self._read(number << _POSITION_BITS, file)

    # --- reading ---------------------------------------------------------------------------------------------

    def _read(self, base: int, file: BinaryIO) -> None:
        peek = Peek()
        for end, data in read_records(file.read):
            place = base + end - TAIL.size - len(data) - HEAD.size
            scalar = peek.scalar(data)
            if scalar is not None:
                self._value(scalar[0], scalar[1], place, 0)
                continue
            event = peek.event(data)
            if event is not None:
                self._event(event, place)

    def _event(self, event: Any, place: int) -> None:
        if event.file_version == BY_STEP:
            self._ends += 1
        life = self._lineage.follow(event.source_metadata.writer)
        if event.WhichOneof("what") == "session_log" and event.session_log.status == schema.SESSION_START:
            self._starts += 1
        for index, value in enumerate(event.summary.value):
            kind = value.WhichOneof("value")
            if kind == schema.END_KIND:
                self._end(value.tag, event.step, ("life", life) if life != UNKNOWN else ("end", self._ends))
            elif kind is not None:
                tag = self._value(value.tag, event.step, place, index)
                if tag.metadata is None and value.HasField("metadata"):
                    tag.metadata = value.metadata

    def _value(self, name: str, step: int, place: int, index: int) -> _Tag:
        tag = self._tags.get(name)
        if tag is None:
            tag = self._tags[name] = _Tag(start=self._starts)
        if tag.steps and step <= tag.steps[-1]:
            if tag.start < self._starts:
                tag.start = self._starts
                self._hide(tag, step, self._replacing(tag, ("start", self._starts)))
            else:
                self._hide(tag, step, self._repeating(tag, step))
        tag.steps.append(step)
        tag.places.append(place)
        tag.indexes.append(index)
        return tag

    def _end(self, name: str, step: int, who: Hashable) -> None:
        tag = self._tags.get(name)
        if tag is not None and tag.steps and step <= tag.steps[-1]:
            self._hide(tag, step, self._replacing(tag, who))

    def _replacing(self, tag: _Tag, who: Hashable) -> _Folder:
        nth = tag.ended.get(who, 0)
        tag.ended[who] = nth + 1
        return self._replaced.setdefault((who, nth), _Folder())

    def _repeating(self, tag: _Tag, step: int) -> _Folder | None:
        first = tag.steps[bisect_left(tag.steps, step)]
        nth = next((nth for nth, last in enumerate(tag.repeated) if last < first), len(tag.repeated))
        if nth >= REPEATED_MAX:
            return None
        tag.repeated[nth : nth + 1] = [tag.steps[-1]]
        while len(self._repeated) <= nth:
            self._repeated.append(_Folder())
        return self._repeated[nth]

    def _hide(self, tag: _Tag, step: int, folder: _Folder | None) -> None:
        """Move the points of a tag at or after a step to a folder."""
        first = bisect_left(tag.steps, step)
        if folder is None:
            self.left_out += len(tag.steps) - first
        else:
            folder.places += tag.places[first:]
            folder.indexes += tag.indexes[first:]
        for column in (tag.steps, tag.places, tag.indexes):
            del column[first:]

    # --- writing ---------------------------------------------------------------------------------------------

    def write(self, beside: Path) -> Iterator[Found]:
        """Write the folders.

        Args:
            beside: the folder in which they are made; existing names are skipped.

        Raises:
            OSError: a file cannot be read or written.
        """
        for word, folders in ((REPLACED, list(self._replaced.values())), (REPEATED, self._repeated)):
            number = 0
            for folder in folders:
                number += 1
                while (beside / f"{word}-{number}").exists():
                    number += 1
                yield self._write(beside / f"{word}-{number}", folder)

    def _write(self, path: Path, folder: _Folder) -> Found:
        told: set[str] = set()
        path.mkdir(parents=True)
        name = self._files[min(folder.places) >> _POSITION_BITS].name
        open_file, source = -1, None
        with (path / name).open("xb") as target:
            try:
                for place, indexes in folder.sorted():
                    number = place >> _POSITION_BITS
                    if number != open_file:
                        if source is not None:
                            source.close()
                        open_file, source = number, self._files[number].open("rb")
                    assert source is not None
                    event = _event_at(source, place & _POSITION)
                    if not told:
                        version = schema.Event(wall_time=event.wall_time, file_version="brain.Event:2")
                        target.write(frame(version.SerializeToString()))
                    target.write(frame(self._part(event, indexes, told).SerializeToString()))
            finally:
                if source is not None:
                    source.close()
            target.flush()
            os.fsync(target.fileno())
        return Found(path.name, len(folder.places), len(told))

    def _part(self, event: Any, indexes: list[int], told: set[str]) -> Any:
        """Return some values of an event as one without a mark. The first value of a tag has its metadata."""
        part = schema.Event(wall_time=event.wall_time, step=event.step)
        for index in indexes:
            value = event.summary.value[index]
            metadata = self._tags[value.tag].metadata
            if value.tag not in told and metadata is not None and not value.HasField("metadata"):
                value.metadata.CopyFrom(metadata)
            told.add(value.tag)
            part.summary.value.append(value)
        return part


def _event_at(file: BinaryIO, position: int) -> Any:
    file.seek(position)
    length, _ = HEAD.unpack(file.read(HEAD.size))
    event = schema.Event()
    event.ParseFromString(file.read(length))
    return event
