"""Syncs the records of a journal, so that they outlive a crash of the machine as well.

The files are synced through descriptors of their own, without the journal's lock: calls that log go on meanwhile.
"""

from __future__ import annotations

import errno
import os
import struct
from typing import Any, Protocol

from ..process import descriptors
from ..process.descriptors import Descriptor
from ..process.native import RLock, monotonic
from .journal_files import DEFINITIONS_NAME, SEGMENT_HEAD_BYTES, WORD_SYNCED, sync_folder
from .own_files import OwnFiles
from .segment import Segment
from .segments import RETRY_SECONDS, Segments

SYNCED_SEGMENTS_MAX = 8  # at a time, with a descriptor each
LOCK_SECONDS = 0.01  # how long a journal's lock is waited for by who can do something else
COPY_BYTES = 1 << 20  # stored again at a time


class Held(Protocol):
    """The journal whose records are brought onto the disk."""

    lock: Any
    closed: bool
    sealed: str
    definitions_end: int

    @property
    def committed(self) -> int:
        """The end of the last whole record."""

    def note_synced(self) -> None:
        """Take note that pages may have been written back."""


class _Unsynced:
    """The end of the records that the disk may not have yet, and the files that hold them."""

    __slots__ = ("committed", "definitions_end", "files", "names")

    def __init__(self, committed: int, definitions_end: int, names: int) -> None:
        self.committed = committed
        self.definitions_end = definitions_end
        self.names = names
        self.files: list[Descriptor] = []  # the last is the control page

    def close(self) -> None:
        """Give the descriptors back."""
        for file in self.files:
            file.close()


class Durability:
    """Knows which records of a journal are on the disk, and syncs the others.

    Args:
        files: the journal's.
        segments: those of its files that hold records.
    """

    def __init__(self, files: OwnFiles, segments: Segments) -> None:
        self._files = files
        self._segments = segments
        self.syncing = RLock()  # taken while the journal's lock is held or without it; that is not waited for in it
        self.synced = 0  # what is before this position is on the disk
        self._synced_definitions = 0
        self._named = 0  # of the files made here, how many the disk knows by their names
        self.failed = False  # the last fdatasync
        self._refused_until = 0.0

    def sync(self, journal: Held, wait: float) -> None:
        """Sync the records that wait in a journal: see `Journal.sync`."""
        end = journal.committed
        while not self._sync_some(journal, wait, end):
            pass

    def _sync_some(self, journal: Held, wait: float, end: int) -> bool:
        """Sync as much as may be at a time. Return True if nothing more is to be done before ``end``."""
        if not journal.lock.acquire(timeout=wait):
            return True
        try:
            if journal.closed or journal.sealed:
                return True
            unsynced = self._unsynced(journal)
            done = unsynced.committed >= end
        finally:
            journal.lock.release()
        try:
            with self.syncing:
                return self._sync(journal, unsynced) or done
        finally:
            unsynced.close()
            journal.note_synced()

    def _unsynced(self, journal: Held) -> _Unsynced:
        """Return what the disk may not have yet, with descriptors of its own. The journal's lock is held."""
        committed, synced = journal.committed, self.synced
        result = _Unsynced(committed, journal.definitions_end, self._files.numbers)
        try:
            if committed > synced:
                live = self._segments.live
                last = live[-1]
                for segment in live:
                    if segment.base < committed and (segment is last or segment.end > synced):
                        if len(result.files) == SYNCED_SEGMENTS_MAX:
                            result.committed = segment.base
                            break
                        result.files.append(descriptors.another(segment.file))
            result.files.append(descriptors.duplicate(self._files.definitions_file))
            result.files.append(descriptors.duplicate(self._files.control_file))
        except OSError:
            result.close()
            raise
        return result

    def _sync(self, journal: Held, unsynced: _Unsynced) -> bool:
        """Sync the files. Return True if there was nothing to do."""
        if unsynced.committed <= self.synced or monotonic() < self._refused_until:
            return True
        try:
            if self.failed:
                self._store_again(journal, unsynced)
            *files, control = unsynced.files
            for file in files:
                os.fdatasync(file.number)
            if unsynced.names > self._named:
                for folder in (self._files.path, self._files.path.parent):
                    sync_folder(folder)
            end = 0
            while end < max(self.synced, unsynced.committed):  # again where a signal handler got further meanwhile
                end = max(self.synced, unsynced.committed)
                # Not through the map, which another thread may be closing.
                os.pwrite(control.number, struct.pack("=Q", end), 8 * WORD_SYNCED)
                os.fdatasync(control.number)
        except OSError:
            self.failed, self._refused_until = True, monotonic() + RETRY_SECONDS
            raise
        self.failed = False
        self.synced = max(self.synced, end)
        self._synced_definitions = max(self._synced_definitions, unsynced.definitions_end)
        self._named = max(self._named, unsynced.names)
        return False

    def _store_again(self, journal: Held, unsynced: _Unsynced) -> None:
        """Store the records again that a failed fdatasync may have left behind.

        Linux marks their pages clean, so the next fdatasync would succeed without doing anything.
        """
        file = descriptors.open_file(self._files.path / DEFINITIONS_NAME, os.O_RDWR | os.O_NOFOLLOW)
        try:
            for start in range(self._synced_definitions, unsynced.definitions_end, COPY_BYTES):
                _store_again(file.number, start, min(start + COPY_BYTES, unsynced.definitions_end))
        finally:
            file.close()
        position = self.synced
        while position < unsynced.committed:
            if not journal.lock.acquire(timeout=LOCK_SECONDS):
                raise BlockingIOError(errno.EAGAIN, "the journal is in use")
            try:
                live = () if journal.closed else self._segments.live
                position = _store_stretch_again(live, position, unsynced.committed)
            finally:
                journal.lock.release()


def _store_stretch_again(live: tuple[Segment, ...], position: int, end: int) -> int:
    """Store the records from ``position`` on again; return the position behind them. The journal's lock is held."""
    for segment in live:
        stop = min(position + COPY_BYTES, end if segment is live[-1] else segment.end)
        start = max(position, segment.base)
        if start < stop:
            head = SEGMENT_HEAD_BYTES if start == segment.base else 0
            offset = SEGMENT_HEAD_BYTES - segment.base
            file = descriptors.another(segment.file)
            try:
                _store_again(file.number, offset + start - head, offset + stop)
            finally:
                file.close()
            return stop
    return end


def _store_again(fd: int, start: int, end: int) -> None:
    """Store the bytes of a file again where they are."""
    while start < end:
        data = os.pread(fd, end - start, start)
        if not data:
            raise OSError(errno.EIO, "a file of the journal was cut")
        start += os.pwrite(fd, data, start)
