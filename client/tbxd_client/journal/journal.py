"""The journal of this process. A record in it is safe when the call that logged it returns.

A journal is a row of preallocated files filled from left to right; the page cache keeps what is in them when the
process is killed. Small records are stored through a map, in the order of the program, and become visible with
one store of 8 bytes (the commit word). Large ones go through ``pwrite``, which on a disk is 2 to 50 times faster than
a store into mapped pages for the first time, or for the first time after the system has written them back, and gives up
the interpreter's lock meanwhile. What has been acknowledged is released, and its files are used again.

The hot path, ``SummaryWriter.add_scalar``, uses ``lock``, ``position``, ``limit``, ``base``, ``buffer`` and
``words`` directly. Everything unusual (a full segment, a sleeping sender, a fork, a close) lowers ``limit``, which
sends the next call to `Journal.append`; so the common case pays for none of it. Where a record has to be on the disk
when its call returns, ``limit`` stays that low.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from pathlib import Path

from ..config.settings import warn
from ..process.native import RLock, let_in
from ..protocol.records import FILL_BYTES_MAX, SESSION_BYTES
from .deferred import DEFERRED_RECORDS_MAX, CommitAll, Deferred, Words
from .durability import LOCK_SECONDS, Durability
from .journal_files import (
    CONTROL_BYTES,
    DEFINITIONS_BYTES_MAX,
    DROP_REASONS,
    SEGMENT_HEAD_BYTES,
    WORD_COMMIT,
    WORD_DROPPED,
    WORD_RECORDS,
    WORD_RELEASED,
)
from .own_files import OwnFiles
from .reach import GONE
from .segment import Segment
from .segments import Segments
from .storing import READY_BYTES, Ready
from .waiting_for_room import Patience, Room

JOURNAL_BYTES = 256 << 20  # the default bound of what waits in a journal
BLOCK_SECONDS = 0.05  # the longest that a call waits for room
MAPPED_RECORD_BYTES_MAX = 64 << 10  # larger records go through pwrite
FRESH_RECORD_BYTES_MAX = 16 << 10  # also those larger than this, where nothing has been stored yet
DEFINITIONS_KEPT_MAX = 1 << 20  # bytes that are kept in memory, too, for when their disk cannot be read any more
CLOSED = -1  # a `limit` that no record fits
STORING = -2  # one while the hot path stores a scalar: what comes on the same thread has interrupted it
FULL = "journal_full"
NO_ROOM = "no_room"  # instead of it, while it is worth waiting: nothing was counted


class JournalClosed(Exception):
    """The journal is closed, belongs to the process this one was forked from, or its files are out of reach."""


class _AllClosed:
    """Stands in for the control page's words after a signal handler in the hot path has closed the journal.

    Args:
        taken: the scalar that was interrupted was still taken.
    """

    __slots__ = ("_taken",)

    def __init__(self, taken: bool) -> None:
        self._taken = taken

    def __setitem__(self, word: int, value: int) -> None:
        if not self._taken:
            raise JournalClosed


class Journal:
    """The journal of one session, owned by this process.

    Args:
        spool: the folder that holds journals; it has to exist.
        wake: called when the sender may be asleep and there is something to send. It must not block. True: it is to
            be called with the next record, too.
        bytes_max: the most that may wait, in bytes of segment files.
        block_seconds: the longest that an `append` waits for room before it drops its record.
        durable: an `append` returns when its record is on the disk.

    Raises:
        OSError: the files cannot be made.
    """

    # What the hot path uses has places of its own, which are found in less time than those of a dictionary.
    __slots__ = ("__dict__", "__weakref__", "base", "buffer", "limit", "lock", "position", "words")

    def __init__(
        self,
        spool: Path,
        wake: Callable[[], bool],
        bytes_max: int = JOURNAL_BYTES,
        block_seconds: float = BLOCK_SECONDS,
        durable: bool = False,
    ) -> None:
        # Re-entrant, because a signal handler may log while the thread it interrupted is logging.
        self.lock = RLock()
        self.position = 0  # the end of the last record that has its place
        self.limit = CLOSED  # how far the hot path may go without asking
        self.base = 0  # position of buffer[SEGMENT_HEAD_BYTES]
        self.session = os.urandom(SESSION_BYTES)
        self.definitions_end = 0
        self._kept = bytearray()  # all definitions, while these are few
        self.released = 0
        self.bytes_max = bytes_max
        self.block_seconds = block_seconds
        self.durable = durable
        self._wake = wake
        self._room = Room()
        self.closed = False  # or it belongs to the process that this one was forked from
        self.sealed = ""  # why it takes no more records: its files are out of reach. It is read to its end
        self.torn = False  # and not all of it can be read
        self._stalled = False  # a call has waited in vain; nobody waits again until something is released
        self._armed = False  # the sender sleeps, and is to be woken by the next record
        self._stale = False  # pages that were made ready may have been written back since
        self._writing = False  # a record is on its way into its place
        self._deferred: list[Deferred] = []
        self._ready = Ready()
        self.files = files = self._make_files(spool)
        self.path = files.path
        self.place, self.folder = files.place, files.folder  # for people, and for a daemon that reads the files
        self._mapped = files.mapped  # small records are stored through maps
        self._words = files.words
        self.words: Words = self._words  # to commit with, for the hot path
        self._segments = Segments(files, files.first, bytes_max, durable)
        self._durability = Durability(files, self._segments)
        self._enter(files.first)
        self.limit = self._open_limit

    def _make_files(self, spool: Path) -> OwnFiles:
        return OwnFiles(spool, self.session, self.bytes_max, self.durable)

    def _enter(self, segment: Segment) -> None:
        self._segment = segment
        self.buffer = segment.view
        # The hot path computes `position - base` for its offset; the header is part of that sum.
        self.base = segment.base - SEGMENT_HEAD_BYTES
        self._segment_end = segment.base + segment.capacity
        self._ready_end = segment.base if segment.mapped else self._segment_end  # before it a store finds its page

    @property
    def _open_limit(self) -> int:
        """The `limit` while nothing unusual is to be done."""
        if self.closed or self.sealed or not self._mapped or self.durable or self._armed or self._deferred:
            return CLOSED
        return CLOSED if self._stale else min(self._segment_end, self._ready_end)

    # --- appending -------------------------------------------------------------------------------------------

    def define(self, definition: bytes) -> None:
        """Append a definition, before any record that is appended later.

        Raises:
            JournalClosed: the journal is closed.
            OSError: it cannot be written.
        """
        with self.lock:
            if self.closed or self.sealed:
                raise JournalClosed
            if self.definitions_end + len(definition) > DEFINITIONS_BYTES_MAX:
                raise OSError(f"over {DEFINITIONS_BYTES_MAX:,} bytes of runs and tags in one session")
            try:
                fd = self.files.definitions_file.valid()
                written = os.write(fd, definition)
            except OSError as error:
                self._seal_for(error)
                raise
            if written != len(definition):  # a full disk: take back what is there, so that the stream stays whole
                os.ftruncate(fd, os.fstat(fd).st_size - written)
                raise OSError(28, "No space left for a definition")
            self.definitions_end = os.fstat(fd).st_size
            if self.definitions_end <= DEFINITIONS_KEPT_MAX:
                self._kept += definition

    def append(
        self,
        *parts: bytes | memoryview,
        aligned: Callable[[int], bytes] | None = None,
        share: float = 1.0,
        patience: Patience | None = None,
        dropped: Callable[[str], object] | None = None,
    ) -> str:
        """Append one record, given as its pieces. Return the reason if it was dropped and counted, "" if it is safe.

        In a durable journal it is on the disk then. If the disk refuses, the record is in the journal all the same and
        reaches the daemon; the user is told once that a crash of the machine would lose it, and tbxd tries again.

        Args:
            parts: the record.
            share: how much of the journal may be full for it to be taken, from 0 to 1.
            aligned: called with the offset in its file at which the second piece would begin; returns what to
                store instead of the first, at most `FILL_BYTES_MAX` bytes longer.
            patience: of a caller who waits for room himself, because he holds something: as long as that is worth it,
                `NO_ROOM` is returned and nothing counted. Without it the call waits.
            dropped: is told why, where the record was put off and found no room then; this call has returned "".

        Raises:
            JournalClosed: the journal is closed, or this is a forked child: nothing was counted.
        """
        waits = patience is None
        if patience is None:
            patience = self.patience()
        while (reason := self._append(parts, aligned, share, patience, dropped)) == NO_ROOM and waits:
            patience.wait()
        if self.durable and not reason:
            try:
                self.sync(wait=-1)
            except OSError as error:
                warn(f"{self.path}: {error}; a crash of the machine would lose the records that wait", once="sync")
        return reason

    def patience(self, waits: bool = True) -> Patience:
        """Return how long a record that the caller begins to append may wait for room.

        A thread that has the lock already may not wait: it is in the middle of a call, which would not end meanwhile.
        """
        return Patience(self._room, self.block_seconds if waits and not self.lock._is_owned() else 0.0)

    def _append(
        self,
        parts: tuple[bytes | memoryview, ...],
        aligned: Callable[[int], bytes] | None,
        share: float,
        patience: Patience,
        dropped: Callable[[str], object] | None,
    ) -> str:
        # A signal handler, a finalizer or a trace function that has interrupted the hot path on this thread. (One that
        # has left it with an exception does not hold the lock any more, and what it has left is mended below.)
        interrupts = self.interrupts
        with self.lock:
            if self._writing or interrupts:
                return self._defer(Deferred(b"".join(parts), dropped), interrupts)
            if self.closed:
                raise JournalClosed
            self._append_deferred()  # by a call that has ended with an exception
            if self.sealed:
                raise JournalClosed
            try:
                # From here on a signal handler that logs on this thread is put off until this record has its place.
                self._writing, self.limit = True, CLOSED
                reason = self._place(parts, aligned, share, patience)
            except BaseException:
                # Of a signal handler, in the midst of going on in another segment, say: what is stored next has to
                # come where it is read.
                self._enter(self._segments.live[-1])
                raise
            finally:
                self._writing = False
                self.limit = self._open_limit
            self._append_deferred()
        return reason if reason in ("", NO_ROOM) else self.count_drop(reason)

    def _place(
        self,
        parts: tuple[bytes | memoryview, ...],
        aligned: Callable[[int], bytes] | None,
        share: float,
        patience: Patience,
    ) -> str:
        """Store a record and commit it; `_writing` is set. Return the reason if there is no place for it."""
        size = sum(map(len, parts))
        if size > FRESH_RECORD_BYTES_MAX:
            self._rewind()
        reason = self._make_room(size if aligned is None else size + FILL_BYTES_MAX, share, patience)
        if not reason and aligned is not None:
            parts = (aligned(self.position - self.base + len(parts[0])), *parts[1:])
            size = sum(map(len, parts))
        start = self.position
        reason = reason or self._write(size, parts)
        if not reason:
            try:
                self._words[WORD_COMMIT] = self.position
            except OSError as error:
                self.position = start
                self._seal_for(error)
                return "journal_error"
        return reason

    def _write(self, size: int, parts: tuple[bytes | memoryview, ...]) -> str:
        start = self.position
        offset = start - self.base
        segment = self._segment
        small = size <= FRESH_RECORD_BYTES_MAX or (size <= MAPPED_RECORD_BYTES_MAX and offset + size <= segment.touched)
        if small and segment.mapped:
            self._make_ready(segment, start + size)
            for part in parts:
                self.buffer[offset : offset + len(part)] = part
                offset += len(part)
        else:
            rest = list(parts)
            segment.touched = max(segment.touched, offset + size)
            try:
                fd = segment.file.valid()
                while rest:
                    written = os.pwritev(fd, rest, offset)
                    offset += written
                    while rest and written >= len(rest[0]):
                        written -= len(rest.pop(0))
                    if written:
                        rest[0] = memoryview(rest[0])[written:]
            except OSError as error:
                self._seal_for(error)
                return "journal_error"
        self.position = start + size
        return ""

    def _make_ready(self, segment: Segment, end: int) -> None:
        """Prepare the pages before a position, and some more.

        Raises:
            JournalClosed: a store into them would end this process.
        """
        if end <= self._ready_end or segment.map is None:
            return
        ready = min(self._segment_end, max(end, self._ready_end + READY_BYTES))
        try:
            self._ready.make(segment.map, self._ready_end - self.base, ready - self.base)
        except OSError as error:
            self._seal_for(error)
        self._ready_end = ready

    def _make_control_ready(self) -> None:
        """Go on with a copy of the control page where a store into it would end this process; the lock is held."""
        if self._mapped and not self.sealed and not self.closed:
            try:
                self._ready.make(self.files.page, 0, CONTROL_BYTES)
            except OSError as error:
                self._seal(error)

    def _make_ready_again(self) -> None:
        """Prepare the pages of the next stores again.

        After a sync, or some seconds in which nobody has looked at the disk, they are clean; where the disk has ended
        since, the first store would end this process.

        Raises:
            JournalClosed: so it is.
        """
        self._stale = False
        segment, offset = self._segment, self.position - self.base
        if segment.map is None or self.position >= self._segment_end:
            return
        try:
            self._ready.make(self.files.page, 0, CONTROL_BYTES)
            self._ready.make(segment.map, offset, offset + 1)
        except OSError as error:
            self._seal_for(error)
        self._ready_end = min(self._ready_end, self.position - offset % mmap.PAGESIZE + mmap.PAGESIZE)

    def _rewind(self) -> bool:
        """Begin the file again where all of it is acknowledged: its first pages are there, and in the caches."""
        segment = self._segment
        if not self.released >= self.position > segment.base:
            return False
        segment.touched = max(segment.touched, self.position - self.base)
        try:
            self._segments.use_again(segment, self.position)
        except OSError as error:
            self._seal_for(error)
            return False
        self._enter(segment)
        return True

    @property
    def interrupts(self) -> bool:
        """True if the caller has interrupted the hot path on its own thread."""
        return self.limit == STORING and self.lock._is_owned()

    def _commit_all(self) -> None:
        """Commit the scalar that has just been stored, and append the records that were put off. The lock is held."""
        self.words = self._words
        self._words[WORD_COMMIT] = self.position
        self._append_deferred()

    def _append_deferred(self) -> None:
        """Append the records that were put off. The lock is held. Nothing waits for room: their calls have returned."""
        while self._deferred and not self.closed and not self.interrupts:
            reason, dropped = "", None
            try:
                self._writing, self.limit = True, CLOSED  # before it is taken, or a handler in between would come first
                if self._deferred:
                    record, dropped = self._deferred.pop(0)
                    reason = self._place((record,), None, 1.0, self.patience(waits=False))
            except JournalClosed:  # it is sealed, and what belongs to it can be nowhere else
                reason = "journal_error"
            except BaseException:
                self._enter(self._segments.live[-1])  # as above
                raise
            finally:
                self._writing = False
                self.limit = self._open_limit
            if reason:
                self.count_drop(reason)
                if dropped is not None:
                    dropped(reason)

    def _defer(self, deferred: Deferred, interrupts: bool) -> str:
        if len(self._deferred) >= DEFERRED_RECORDS_MAX:
            return self.count_drop("reentrant")
        self._deferred.append(deferred)
        if interrupts:
            self.words = CommitAll(self._commit_all)
        return ""

    def count_drop(self, reason: str) -> str:
        """Count a record that is dropped for one of `DROP_REASONS`; return the reason."""
        with self.lock:
            if not self.closed:
                self._make_control_ready()
                self._words[WORD_DROPPED + DROP_REASONS.index(reason)] += 1
        return reason

    def _make_room(self, size: int, share: float, patience: Patience) -> str:
        """Find a place for ``size`` bytes behind ``position``; the lock is held. Return the reason if there is none.

        No call waits in here: with the lock, or in the middle of a record, it would keep others from room that they
        have.
        """
        if self._armed or self._stale:
            self._make_ready_again()
        if self._armed:
            self._armed = self._wake()
        quota = int(self.bytes_max * share)
        if self._has_room(size, quota):
            return ""
        if size > quota:
            return "too_large"
        try:
            if self._has_room(size, quota) or self._next_segment(size, quota):
                return ""
        except OSError as error:
            self._seal_for(error)
            return "journal_error"
        if not self._stalled and patience.lasts():
            self._wake()
            return NO_ROOM
        self._stalled = self._stalled or patience.waits
        return FULL

    def _has_room(self, size: int, quota: int) -> bool:
        """Return True if ``size`` bytes fit into the segment in use and keep the journal within ``quota`` bytes."""
        end = self.position + size
        if end > self._segment_end:
            return False
        return quota >= self.bytes_max or self._segments.leave_room(end, quota)

    def _next_segment(self, size: int, quota: int) -> bool:
        current = self._segment
        if self._rewind() and self._has_room(size, quota):
            return True
        segment = self._segments.find(size, quota, self.position, self.released)
        if segment is None:
            return False
        self._segments.use(segment, self.position)
        self._enter(segment)  # before the other gives back its map
        self._segments.leave(current, self.released >= self.position)
        return True

    # --- for the sender --------------------------------------------------------------------------------------

    @property
    def committed(self) -> int:
        """The end of the last whole record."""
        return int(self._words[WORD_COMMIT])

    def note_records(self, count: int) -> None:
        """Store the number of records logged in the control page, for a daemon that adopts the journal."""
        if self.lock.acquire(timeout=LOCK_SECONDS):  # at the end of a script nobody waits for a lock that is left held
            try:
                self._make_control_ready()
                self._words[WORD_RECORDS] = count
            finally:
                self.lock.release()

    def dropped(self) -> dict[str, int]:
        """Return how many records were dropped here, by reason."""
        counts = self._words[WORD_DROPPED : WORD_DROPPED + len(DROP_REASONS)]
        return {reason: count for reason, count in zip(DROP_REASONS, counts, strict=True) if count}

    def arm(self, seen: int) -> bool:
        """Ask to be woken by the next record. False when there is one already behind position ``seen``."""
        if not self.lock.acquire(timeout=LOCK_SECONDS):
            return False
        try:
            if self.position != seen or self._writing or self.closed or self.sealed:
                return False
            self._armed, self.limit = True, CLOSED
            return True
        finally:
            self.lock.release()

    def read(self, position: int, length: int) -> bytes:
        """Return at most ``length`` bytes of records from ``position``, up to the end of a segment or of the stream.

        For the thread that also calls `release`: nothing between two releases goes away.
        """
        segment, there = self.locate(position)
        offset = SEGMENT_HEAD_BYTES + position - segment.base
        if there <= 0:
            return b""
        try:
            data = segment.read(offset, min(length, there))
        except OSError:
            if not self.sealed:
                raise
            data = segment.rescued(offset, min(length, there))
        if not data:
            if not self.sealed:
                raise OSError(errno.ENODATA, f"{segment.path} was cut")
            self._words[WORD_COMMIT], self.torn = position, True  # it is this process's own word
        return data

    def locate(self, position: int) -> tuple[Segment, int]:
        """Return the segment that holds ``position``, and how many bytes of records it has from there on. As `read`."""
        return self._segments.locate(position, self.committed)

    def read_definitions(self, position: int, length: int) -> bytes:
        """Return at most ``length`` bytes of the definitions from ``position``."""
        length = min(length, self.definitions_end - position)
        try:
            return os.pread(self.files.definitions_file.valid(), length, position)
        except OSError:
            if not self.sealed or len(self._kept) != self.definitions_end:
                raise
        return bytes(self._kept[position : position + length])

    def release(self, position: int) -> bool:
        """Release what was acknowledged, everything before ``position``: its space can be used again.

        False if the journal is in use at this moment; call again.
        """
        if not self.lock.acquire(timeout=LOCK_SECONDS):
            return False
        try:
            if self.closed or position <= self.released:
                return True
            self.released = position
            self._make_control_ready()
            self._words[WORD_RELEASED] = position
            if self.sealed:
                return True  # no file of it is used again
            self._segments.release(position)
            self._stalled = False
            self._room.tell()
            return True
        finally:
            self.lock.release()

    # --- onto the disk ---------------------------------------------------------------------------------------

    def sync(self, wait: float = LOCK_SECONDS) -> None:
        """Sync the records that wait here, so that they outlive a crash of the machine as well.

        A thread returns at once if another has done it meanwhile. A disk that has refused is left alone for
        ``RETRY_SECONDS`` (`Durability`).

        Args:
            wait: seconds for the lock, -1 for as long as it takes; without it nothing is done.

        Raises:
            OSError: the disk cannot take it.
        """
        self._durability.sync(self, wait)

    def note_synced(self) -> None:
        """Have the next record prepare its pages again: they may have been written back, and the disk may end."""
        if self._mapped and self.lock.acquire(timeout=LOCK_SECONDS):
            try:
                self._stale, self.limit = True, CLOSED
            finally:
                self.lock.release()

    # --- out of reach ----------------------------------------------------------------------------------------

    def _seal_for(self, error: OSError) -> None:
        """Take no more records if the error says that the files are out of reach. The lock is held.

        Raises:
            JournalClosed: that is so.
        """
        if error.errno in GONE:
            self._seal(error)
            raise JournalClosed from None

    def _seal(self, error: OSError) -> None:
        self.sealed = error.strerror or str(error)
        self.limit = CLOSED
        # Nothing is stored any more through the map: that would end this process where the file system has shut down.
        words = self._own_words()
        if not isinstance(self.words, CommitAll):
            self.words = words
        self._room.tell()

    def _own_words(self) -> memoryview:
        """Go on with a copy of the control page that is this process's own; the lock is held."""
        page, self._words = self._words, memoryview(bytearray(self._words.cast("B"))).cast("Q")
        page.release()
        return self._words

    def look(self) -> bool:
        """Check that the files are still within reach; take no more records if they are not.

        The sender calls this again and again while records come. Return True if no more records come.
        """
        last = self._segments.live[-1]
        if not self.sealed and not self.closed:
            error = self.files.trouble(last, self.definitions_end)
            if error is not None and self.lock.acquire(timeout=LOCK_SECONDS):
                try:
                    # Else it may have been deleted since the look.
                    if not self.closed and self._segments.live[-1] is last:
                        self._seal(error)
                finally:
                    self.lock.release()
        return bool(self.sealed)

    # --- the end ---------------------------------------------------------------------------------------------

    def commit(self, wait: float = -1) -> int:
        """Commit what was stored; return the position behind every record whose call has begun to return.

        A signal handler may have interrupted `add_scalar` between its store and its commit; what it then flushes or
        closes includes that record.

        Args:
            wait: seconds for the lock, -1 for as long as it takes; without it the result is -1.
        """
        nested = self.lock._is_owned()
        try:  # before it is taken: a signal handler may raise between both
            if not self.lock.acquire(timeout=wait):
                return -1
            if not self._writing and not self.closed:
                if self.position != self.committed:  # never where the system stores
                    self._words[WORD_COMMIT] = self.position
                self._append_deferred()
            committed = self.committed
        except BaseException:
            if not nested and self.lock._is_owned():
                self.lock.release()
            raise
        self.lock.release()
        return committed

    def close(self) -> bool:
        """Close the files. Return True if all was acknowledged and the journal deleted; else it waits for a daemon."""
        if self.interrupts:
            self.words = _AllClosed(self.position > self.committed)
            self.limit = CLOSED
        with self.lock:
            if self.closed:
                return False
            finished = self.released >= self.commit()
            self.closed = True
            self.limit = CLOSED
            self._room.tell()
            if finished:
                self.files.remove()
            self._segments.close()
            words = self._own_words()
            if not isinstance(self.words, _AllClosed):
                self.words = words
            self.files.close()  # and with them the lock: a daemon may take over from here
            return finished

    def abandon(self) -> None:
        """In a forked child: leave the parent's journal without touching it."""
        held = self.lock, self._durability.syncing
        self.lock, self._durability.syncing = RLock(), RLock()
        self._room.leave()
        self._room = Room()
        self.closed = True
        self.sealed = ""
        self.limit = CLOSED  # its descriptors are closed, as all of the parent's (`descriptors`)
        for lock in held:  # behind that: who waits finds it closed
            let_in(lock)
