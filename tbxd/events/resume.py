"""A run that goes on from an earlier step: what has to be in the event file so that each step is shown once.

TensorBoard's loaders forget by different rules (``docs/EVENT_FILE.md``, "Resume"). The fast one forgets a tag's points
at or behind a step when something comes for that tag and step. The slow one, and `EventAccumulator`, keep them, unless
a `SessionLog` START comes, which takes all tags and which the slow loader ignores the first time; or unless the file
says for a moment that it is of ``brain.Event:1``: then a summary whose step is smaller than that of the summary before
takes what its own tags have at or behind it. So what is written here is an *end* of tags: for a moment of
``brain.Event:1``, summaries with values of a kind that none of them takes for a point. Each loader forgets what these
tags have from their step on, nothing of other tags, and shows nothing in its place.

Sources: ``tensorboard/backend/event_processing/plugin_event_accumulator.py`` and ``event_accumulator.py``
(``_MaybePurgeOrphanedData``, ``_Purge``), ``tensorboard/data/server/`` ``run.rs`` (``read_event``), ``reservoir.rs``
(``offer``), ``data_compat.rs`` (``DataLoss``: what comes in a kind that a tag's class does not have is left out when
it is shown).

All of it follows from what is in the files, so that whatever a kill has cut off is done again, with the same result.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tbxd_client.event_names import event_files
from tbxd_client.records import STEP_MAX

from . import schema
from .file import open_to_read
from .ledger import NOTE
from .peek import Peek
from .record import DamagedFile, frame, read_records

BY_STEP = "brain.Event:1"  # from here on the slow loader looks at steps
BY_START = "brain.Event:2"  # and from here on at START alone

# Plugin and class of what has no metadata of its own: who reads nothing but the newest file learns here of a tag.
_CLASSES = {
    "simple_value": ("scalars", schema.SCALAR),
    "histo": ("histograms", schema.TENSOR),
    "image": ("images", schema.BLOB_SEQUENCE),
    "audio": ("audio", schema.BLOB_SEQUENCE),
}


class _Tag:
    """What is known of one tag."""

    __slots__ = ("kind", "last", "metadata", "most", "wall_time")

    def __init__(self) -> None:
        self.last = 0  # the step that came last: the fast loader has none beyond it
        self.most = -STEP_MAX - 1  # the slow loader has none beyond it
        self.wall_time = 0.0  # of the last
        self.kind = "simple_value"
        self.metadata: Any = None  # the first


class Resume:
    """What the event files of a folder hold of each tag, and the events with which tags go on from an earlier step.

    Takes some 200 bytes of memory for each tag, and the time of reading each file once.

    Args:
        directory: the folder.
        folder: a descriptor of it, which is used instead where it is given; may be replaced before each call.
    """

    def __init__(self, directory: Path, folder: int | None = None) -> None:
        self.directory = directory
        self.folder = folder
        self._tags: dict[str, _Tag] = {}
        self._read: dict[str, int] = {}  # how far each file has been
        self._peek = Peek()

    def read(self, pending: Iterable[bytes | memoryview] = ()) -> None:
        """Read what has been added since the last time.

        Args:
            pending: whole records that will be in the newest file, but are not yet. They may be read once more when
                they are.

        Raises:
            OSError: a file cannot be read at this moment.
        """
        for name in event_files(self.directory if self.folder is None else self.folder):
            for end, data in self._records(name, self._read.get(name, 0)):
                self._note(data)
                self._read[name] = end
        pieces = iter(pending)
        for _, data in read_records(lambda size: next((bytes(piece) for piece in pieces if len(piece)), b"")):
            self._note(data)

    def last(self, tag: str) -> int | None:
        """No point of a tag is shown beyond this step, so far as `read` has come; None where it never had one."""
        known = self._tags.get(tag)
        return None if known is None else known.last

    def earlier(self, before: float | None = None) -> dict[str, int]:
        """`last` of each tag, or of those that were last logged before a time (seconds since the epoch)."""
        return {tag: known.last for tag, known in self._tags.items() if before is None or known.wall_time < before}

    def beyond(self, step: int) -> dict[str, float]:
        """The tags of which some loader may show points at or behind a step, and when they were logged last."""
        return {tag: known.wall_time for tag, known in self._tags.items() if max(known.last, known.most) >= step}

    def end(self, cuts: Mapping[str, int]) -> bytes:
        """The events that let all loaders forget what these tags have, each from its step on. None are records.

        Args:
            cuts: tag to step. Nothing is there for it afterwards, before the tag is logged again.
        """
        tags_at: dict[int, list[str]] = {}
        for tag, step in cuts.items():
            if tag:  # an empty one would mean all of them to `EventAccumulator`
                tags_at.setdefault(step, []).append(tag)
        if not tags_at:
            return b""
        # Each step has to be smaller than that of the summary before: one with nothing in it, to begin with.
        above = schema.Event(step=min(max(tags_at) + 1, STEP_MAX), summary=schema.Summary())
        events = [schema.Event(file_version=BY_STEP), above]
        for step in sorted(tags_at, reverse=True):
            event = schema.Event(step=step)
            for tag in tags_at[step]:
                self._end(event.summary.value.add(tag=tag), step)
            events.append(event)
        events.append(schema.Event(file_version=BY_START))
        now = time.time()
        for event in events:
            event.wall_time = now
            event.source_metadata.writer = NOTE
        return b"".join(frame(event.SerializeToString()) for event in events)

    def _end(self, value: Any, step: int) -> None:
        """Make a value the end of its tag."""
        value.obsolete_old_style_histogram = b""
        known = self._tags.get(value.tag)
        if known is None:
            return
        if known.metadata is not None:
            value.metadata.CopyFrom(known.metadata)
        elif known.kind in _CLASSES:
            value.metadata.plugin_data.plugin_name, value.metadata.data_class = _CLASSES[known.kind]
        self._cut(known, step)

    # --- following the files ---------------------------------------------------------------------------------

    def _note(self, data: bytes) -> None:
        scalar = self._peek.scalar(data)
        if scalar is not None:
            self._point(scalar[0], scalar[1], scalar[2])
            return
        event = self._peek.event(data)
        if event is None:
            return
        step, wall_time = event.step, event.wall_time
        for value in event.summary.value:
            kind = value.WhichOneof("value")
            if kind == schema.END_KIND:
                if value.tag in self._tags:
                    self._cut(self._tags[value.tag], step)
            elif kind is not None:
                known = self._point(value.tag, step, wall_time)
                if kind != known.kind:
                    known.kind = kind
                if known.metadata is None and value.HasField("metadata"):
                    known.metadata = schema.SummaryMetadata()  # not the event's own, which would keep all of it
                    known.metadata.CopyFrom(value.metadata)

    def _point(self, tag: str, step: int, wall_time: float) -> _Tag:
        known = self._tags.get(tag)
        if known is None:
            known = self._tags[tag] = _Tag()
        known.last = step
        known.wall_time = wall_time
        if step > known.most:  # noqa: PLR1730 - max() takes four times as long
            known.most = step
        return known

    @staticmethod
    def _cut(known: _Tag, step: int) -> None:
        known.last = min(known.last, step - 1)
        known.most = min(known.most, step - 1)

    def _records(self, name: str, begin: int) -> Iterator[tuple[int, bytes]]:
        """The whole records of a file from a position on, each with the position behind it."""
        fd = open_to_read(self.directory / name, self.folder)
        if fd < 0:
            return
        try:
            os.lseek(fd, begin, os.SEEK_SET)
            for end, data in read_records(lambda size: os.read(fd, size)):
                yield begin + end, data
        except DamagedFile:
            pass  # what stands before the damage stands
        finally:
            os.close(fd)


class Life:
    """What one life of a job has yet to log again of what earlier ones have logged.

    Args:
        earlier: tags to the last steps of earlier lives, as `Resume.earlier` has them.
    """

    def __init__(self, earlier: dict[str, int]) -> None:
        self._earlier = earlier

    def __bool__(self) -> bool:
        return bool(self._earlier)

    def cuts(self, firsts: Iterable[tuple[str, int]]) -> dict[str, int]:
        """Of tags and steps that it logs, those with which it goes back behind an earlier life, for `Resume.end`.

        Each tag counts once: what follows is this life's own.
        """
        cuts = {}
        for tag, step in firsts:
            last = self._earlier.pop(tag, None)
            if last is not None and step <= last:
                cuts[tag] = step
        return cuts

    def restart(self, step: int) -> None:
        """All tags go on from a step."""
        for tag, last in self._earlier.items():
            self._earlier[tag] = min(last, step - 1)
