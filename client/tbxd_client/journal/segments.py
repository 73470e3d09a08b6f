"""The segments of a journal: which hold records and which are free, how many there may be, and how they are used again.

Everything here is called with the journal's lock held, but for `Segments.locate`.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Protocol

from ..process.native import monotonic
from .journal_files import FREE
from .segment import Segment

SEGMENT_BYTES_MIN = 1 << 20
SEGMENT_BYTES_MAX = 16 << 20
SEGMENTS_MIN = 16  # of a full journal, unless there is something large in it
FREE_SEGMENTS_MAX = 4
OPEN_SEGMENTS_MAX = 8  # that hold records: each has a map and up to two descriptors. Further ones have none
RETRY_SECONDS = 1.0  # how long a disk that refused a segment is left alone


def first_capacity(bytes_max: int) -> int:
    """Return the capacity of a journal's first segment, in bytes."""
    return min(SEGMENT_BYTES_MIN, bytes_max)


class Maker(Protocol):
    """Makes and deletes the files of segments."""

    def make_segment(self, base: int, capacity: int) -> Segment:
        """Make a segment; raises OSError where there is no room for it."""

    def delete(self, segment: Segment) -> None:
        """Delete a segment and close it."""

    def sync_control(self) -> None:
        """Bring onto the disk how far records are released; raises OSError where it cannot be."""


class Segments:
    """The segments of one journal.

    Args:
        files: makes and deletes them.
        first: the one that is there.
        bytes_max: of all that hold records or are free.
        durable: a file is used again only when the disk knows that what it held is released.
    """

    __slots__ = ("_bytes_max", "_durable", "_files", "_refused", "_refused_until", "free", "live")

    def __init__(self, files: Maker, first: Segment, bytes_max: int, durable: bool) -> None:
        self._files = files
        self._bytes_max = bytes_max
        self._durable = durable
        # Oldest first; the last one is being filled. Replaced, never changed: the sender reads it without the lock,
        # which a thread that a signal handler interrupted may be holding for as long as the handler waits.
        self.live: tuple[Segment, ...] = (first,)
        self.free: list[Segment] = []
        self._refused = 0  # the error number of the disk's refusal of the last new segment, and until when that stands
        self._refused_until = 0.0

    def locate(self, position: int, committed: int) -> tuple[Segment, int]:
        """Return the segment that holds ``position``, and how many bytes of records it has from there. Needs no lock.

        Args:
            position: of a record that is not released.
            committed: the end of the last whole record, read before this is called.
        """
        live = self.live
        for segment in reversed(live):
            if segment.base <= position:
                return segment, (committed if segment is live[-1] else segment.end) - position
        raise ValueError(f"position {position} has been released")

    def leave_room(self, end: int, quota: int) -> bool:
        """Return True if records up to ``end``, in the segment in use, keep the journal within ``quota`` bytes.

        Bytes are counted as whole segments, because what pictures leave unused at the ends of theirs is no room
        either. A first segment is shared by its own bytes, or a small journal would take no picture at all.
        """
        live = self.live
        if len(live) > 1:
            return sum(segment.capacity for segment in live) <= quota
        return live[0].capacity <= quota or (end - live[0].base) * self._bytes_max <= quota * live[0].capacity

    def find(self, size: int, quota: int, position: int, released: int) -> Segment | None:
        """Find or make a segment that begins at ``position`` and takes ``size`` bytes; `use` it next.

        Args:
            quota: bytes that may be filled.
            released: everything before this position has been acknowledged.

        Raises:
            OSError: the disk has no room for it, or had none a moment ago.
        """
        current = self.live[-1]
        older = sum(segment.capacity for segment in self.live[:-1])
        waiting = position - max(released, current.base)
        # What is acknowledged to its end goes as soon as there is another, and what is being acknowledged soon after.
        # That counts by what waits in it: else what is large would wait for as long as scalars come, as one of them
        # always waits.
        counts = current.capacity if released <= current.base and waiting else waiting
        room = min(quota - counts, self._bytes_max - (current.capacity if waiting else 0)) - older
        return self._find_free(size, room, position) or self._make(size, current.capacity, room, position)

    def use(self, segment: Segment, position: int) -> None:
        """Store what comes after ``position`` in a segment that was found."""
        self.live[-1].end = position
        self.live = (*self.live, segment)

    def leave(self, segment: Segment, released: bool) -> None:
        """Take note that nothing is stored any more in the segment before the last.

        Args:
            segment: it.
            released: all in it has been acknowledged.
        """
        if sum(not item.rests for item in self.live) > OPEN_SEGMENTS_MAX + 1:
            segment.rest()
        if released:
            self.live = tuple(item for item in self.live if item is not segment)
            self._retire(segment)

    def release(self, position: int) -> None:
        """Take note that everything before ``position`` has been acknowledged: files that held it can be used again."""
        done = [segment for segment in self.live[:-1] if segment.end <= position]
        self.live = self.live[len(done) :]
        for segment in done:
            self._retire(segment)

    def use_again(self, segment: Segment, position: int) -> None:
        """Let a segment of which all is released begin anew at ``position``.

        Raises:
            OSError: the disk does not take that.
        """
        if self._durable:
            # That all in it is released has to be on the disk before anything else is: a crash might leave the head
            # of what it held above some of what it holds now.
            with contextlib.suppress(OSError):  # the sync of the next record says so
                self._files.sync_control()
        segment.rebase(position)

    def close(self) -> None:
        """Close all files."""
        for segment in (*self.live, *self.free):
            segment.close()

    def _find_free(self, size: int, room: int, position: int) -> Segment | None:
        fitting = [segment for segment in self.free if size <= segment.capacity <= room]
        if not fitting:
            return None
        segment = min(fitting, key=lambda segment: segment.capacity)
        self.free.remove(segment)
        self.use_again(segment, position)
        return segment

    def _make(self, size: int, previous: int, room: int, position: int) -> Segment | None:
        if size > room:
            return None
        # Small in a small journal: what is large has to fit beside the one that scalars are stored into.
        most = min(SEGMENT_BYTES_MAX, max(SEGMENT_BYTES_MIN, self._bytes_max // SEGMENTS_MIN))
        capacity = max(size, min(2 * previous, most, room))
        used = sum(segment.capacity for segment in self.live)
        while self.free and used + capacity + sum(item.capacity for item in self.free) > self._bytes_max:
            self._files.delete(self.free.pop(0))
        # A full disk may cost a call milliseconds to find out, so not every call does.
        if self._refused and monotonic() < self._refused_until:
            # A new one: an error that is kept and raised again keeps the frames of each call that it came out of, and
            # so what each of them wanted to log.
            raise OSError(self._refused, os.strerror(self._refused))
        smallest = max(size, min(SEGMENT_BYTES_MIN, capacity))
        try:
            segment = self._make_either(position, capacity, smallest)
        except OSError as error:
            self._refused, self._refused_until = error.errno or errno.EIO, monotonic() + RETRY_SECONDS
            raise
        self._refused = 0
        return segment

    def _make_either(self, position: int, capacity: int, smallest: int) -> Segment:
        try:
            return self._files.make_segment(position, capacity)
        except OSError:
            if smallest == capacity:
                raise
        return self._files.make_segment(position, smallest)

    def _retire(self, segment: Segment) -> None:
        if segment.rests:
            self._files.delete(segment)
            return
        try:
            segment.rebase(FREE)
        except OSError:  # it says what it held, which is released
            self._files.delete(segment)
            return
        self.free.append(segment)
        while len(self.free) > FREE_SEGMENTS_MAX:
            smallest = min(self.free, key=lambda item: item.capacity)
            self.free.remove(smallest)
            self._files.delete(smallest)
