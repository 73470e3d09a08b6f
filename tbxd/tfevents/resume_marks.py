"""Resume marks: events for a run that continues from an earlier step, so that each step is shown once.

TensorBoard's loaders discard points by different rules (``docs/EVENT_FILE.md``, "Resume"). The fast one discards a
tag's points at or after a step when a value comes for that tag and step. The slow one, and `EventAccumulator`, keep
them, with two exceptions. A `SessionLog` START discards points of all tags, and the slow loader ignores the first one.
And if the file declares ``brain.Event:1`` for a moment, a summary with a smaller step than the summary before discards
the points of its own tags at or after that step. So this module writes an *end* of tags: for a moment of
``brain.Event:1``, summaries with values of a kind that no loader takes for a point. Each loader discards the points of
these tags from their step on, nothing of other tags, and shows nothing in their place.

Sources: ``tensorboard/backend/event_processing/plugin_event_accumulator.py`` and ``event_accumulator.py``
(``_MaybePurgeOrphanedData``, ``_Purge``), ``tensorboard/data/server/`` ``run.rs`` (``read_event``), ``reservoir.rs``
(``offer``), ``data_compat.rs`` (``DataLoss``: what comes in a kind that a tag's class does not have is left out when
it is shown).

All of it follows from what is in the files, so that whatever a kill has cut off is done again, with the same result.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from tbxd_client.protocol.records import STEP_MAX

from . import schema
from .contents import Contents
from .lineage import Life as Who
from .lineage import end_text
from .tag_steps import KINDS
from .tfrecord import frame

BY_STEP = "brain.Event:1"  # from here on the slow loader looks at steps
BY_START = "brain.Event:2"  # and from here on at START alone

# Plugin and class of what has no metadata of its own: who reads nothing but the newest file learns here of a tag.
_CLASSES = {
    "simple_value": ("scalars", schema.SCALAR),
    "histo": ("histograms", schema.TENSOR),
    "image": ("images", schema.BLOB_SEQUENCE),
    "audio": ("audio", schema.BLOB_SEQUENCE),
}


class Resume:
    """The steps of each tag in the event files of a folder, and the events that let tags continue from an earlier step.

    Args:
        contents: the contents of the folder; may be replaced before each call.
    """

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self._tags = contents.tags
        self._lineage = contents.lineage

    def read(self, own: str = "", pending: Iterable[bytes | memoryview] = ()) -> None:
        """Read additions since the last time.

        Args:
            own: the file that this process writes.
            pending: whole records that will be in the newest file, but are not yet.

        Raises:
            OSError: a file cannot be read at this moment.
        """
        contents = self.contents
        contents.update(own)
        data = b"".join(pending)
        if data:
            contents = contents.view()
            contents.feed(data)
        self._tags, self._lineage = contents.tags, contents.lineage

    @property
    def lives(self) -> list[Who]:
        """The lives that have logged, by place."""
        return self._lineage.lives

    def last(self, tag: str) -> int | None:
        """Return the last shown step of a tag, as far as `read` has come; None if it never had a point."""
        place = self._tags.get(tag)
        return None if place is None else self._tags.last[place]

    def earlier(self, before: float | None = None) -> dict[str, int]:
        """Return `last` of each tag, or of those last logged before a time (seconds since the epoch)."""
        tags = self._tags
        if before is None:
            return dict(zip(tags.names, tags.last, strict=True))
        found = zip(tags.names, tags.last, tags.wall_times, strict=True)
        return {name: last for name, last, wall_time in found if wall_time < before}

    def of(self, *keys: bytes) -> set[str]:
        """Return the tags that these lives were the last to log."""
        places = {self._lineage.find(key) for key in keys}
        return {name for name, owner in zip(self._tags.names, self._tags.owners, strict=True) if owner in places}

    def beyond(self, step: int) -> dict[str, float]:
        """Return the tags with points at or after a step in some loader, and their last wall times."""
        tags = self._tags
        found = zip(tags.names, tags.last, tags.most, tags.wall_times, strict=True)
        return {name: wall_time for name, last, most, wall_time in found if max(last, most) >= step}

    def end(self, cuts: Mapping[str, int], life: bytes = b"") -> bytes:
        """Return events that make all loaders discard the points of these tags from a step on. None are records.

        Args:
            cuts: tag to step. No points are left from there on, until the tag is logged again.
            life: the life that begins them again, as in `lineage`.
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
                self._end(event.summary.value.add(tag=tag))
            events.append(event)
        events.append(schema.Event(file_version=BY_START))
        now, mark = time.time(), end_text(life)
        for event in events:
            event.wall_time = now
            event.source_metadata.writer = mark
        return b"".join(frame(event.SerializeToString()) for event in events)

    def _end(self, value: Any) -> None:
        """Turn a value into the end of its tag."""
        value.obsolete_old_style_histogram = b""
        tags = self._tags
        place = tags.get(value.tag)
        if place is None:
            return
        if place in tags.metadata:
            value.metadata.ParseFromString(tags.metadata[place])
        elif KINDS[tags.kinds[place]] in _CLASSES:
            value.metadata.plugin_data.plugin_name, value.metadata.data_class = _CLASSES[KINDS[tags.kinds[place]]]


class Life:
    """The tags of earlier lives that a life of a job has yet to log again.

    Args:
        earlier: tags to the last steps of earlier lives, from `Resume.earlier`.
    """

    def __init__(self, earlier: dict[str, int]) -> None:
        self._earlier = earlier

    def __bool__(self) -> bool:
        return bool(self._earlier)

    def cuts(self, firsts: Iterable[tuple[str, int]]) -> dict[str, int]:
        """Return those of the logged tags and steps that go back behind an earlier life, for `Resume.end`.

        Each tag counts once: later points are this life's own.
        """
        cuts = {}
        for tag, step in firsts:
            last = self._earlier.pop(tag, None)
            if last is not None and step <= last:
                cuts[tag] = step
        return cuts

    def meet(self, tag: str, last: int) -> None:
        """Note that an earlier life has reached a step of a tag only now."""
        self._earlier[tag] = last

    def has_yet_to_log(self, tag: str) -> bool:
        """Return True if an earlier life has logged a tag, and this one not yet."""
        return tag in self._earlier

    def restart(self, step: int) -> None:
        """Continue all tags from a step."""
        for tag, last in self._earlier.items():
            self._earlier[tag] = min(last, step - 1)
