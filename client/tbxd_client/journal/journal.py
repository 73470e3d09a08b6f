"""The journal of this process: where a record is safe when the call that logged it returns.

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

import contextlib
import errno
import fcntl
import mmap
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from ..config.settings import warn
from ..process import descriptors
from ..process.descriptors import Descriptor
from ..process.native import RLock, let_in, monotonic
from ..protocol.records import FILL_BYTES_MAX, SESSION_BYTES
from .journal_files import (
    CONTROL_BYTES,
    CONTROL_HEAD,
    CONTROL_NAME,
    DEFINITIONS_BYTES_MAX,
    DEFINITIONS_NAME,
    DROP_REASONS,
    FREE,
    MAGIC,
    MAKING,
    SEGMENT_HEAD_BYTES,
    WORD_COMMIT,
    WORD_DROPPED,
    WORD_RECORDS,
    WORD_RELEASED,
    WORD_SYNCED,
    boot_id,
    remove_journal,
    session_name,
    sync_folder,
)
from .reach import GONE, is_found, root, trouble
from .segment import Segment, remove
from .storing import READY_BYTES, FileWords, Ready, hardly_any_room, is_in_place
from .waiting_for_room import Patience, Room

JOURNAL_BYTES = 256 << 20  # the default bound of what waits in a journal
BLOCK_SECONDS = 0.05  # the longest that a call waits for room
SEGMENT_BYTES_MIN = 1 << 20
SEGMENT_BYTES_MAX = 16 << 20
SEGMENTS_MIN = 16  # of a full journal, unless there is something large in it
FREE_SEGMENTS_MAX = 4
OPEN_SEGMENTS_MAX = 8  # that hold records: each has a map and up to two descriptors. Further ones have none
SYNCED_SEGMENTS_MAX = 8  # at a time, with a descriptor each
MAPPED_RECORD_BYTES_MAX = 64 << 10  # larger records go through pwrite
FRESH_RECORD_BYTES_MAX = 16 << 10  # also those larger than this, where nothing has been stored yet
DEFERRED_RECORDS_MAX = 256
RETRY_SECONDS = 1.0  # how long a disk that refused a segment is left alone
LOCK_SECONDS = 0.01  # how long the sender waits for the lock before it does something else
COPY_BYTES = 1 << 20  # stored again at a time
DEFINITIONS_KEPT_MAX = 1 << 20  # bytes that are kept in memory, too, for when their disk cannot be read any more
CLOSED = -1  # a `limit` that no record fits
STORING = -2  # one while the hot path stores a scalar: what comes on the same thread has interrupted it
FULL = "journal_full"
NO_ROOM = "no_room"  # instead of it, while it is worth waiting: nothing was counted


class JournalClosed(Exception):
    """The journal has been closed, belongs to the process this one was forked from, or cannot be gone on with."""


class Words(Protocol):
    """What the hot path commits with."""

    def __setitem__(self, word: int, value: int, /) -> None:
        """Store a word of the control page."""


class _Deferred(NamedTuple):
    """A record that is put off, and who counts it as dropped if it finds no room then."""

    record: bytes
    dropped: Callable[[str], object] | None


class _CommitAll:
    """In the place of the control page's words while records wait for the scalar that they have interrupted.

    Who commits that scalar has them appended, which so costs nothing where there are none.
    """

    __slots__ = ("_commit",)

    def __init__(self, commit: Callable[[], None]) -> None:
        self._commit = commit

    def __setitem__(self, word: int, value: int) -> None:
        self._commit()


class _AllClosed:
    """The same where who has interrupted the hot path has closed the journal: whether the scalar was still taken."""

    __slots__ = ("_taken",)

    def __init__(self, taken: bool) -> None:
        self._taken = taken

    def __setitem__(self, word: int, value: int) -> None:
        if not self._taken:
            raise JournalClosed


class Unsynced:
    """What the disk may not have yet: up to where, and the files that hold it."""

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
        self._closed = False
        self.sealed = ""  # why it takes no more records: its files are out of reach. It is read to its end
        self.torn = False  # and not all of it can be read
        self._refused = 0  # the error number of the disk's refusal of the last new segment, and until when that stands
        self._refused_until = 0.0
        self._stalled = False  # a call has waited in vain; nobody waits again until something is released
        self._armed = False  # the sender sleeps, and is to be woken by the next record
        self._stale = False  # pages that were made ready may have been written back since
        self._writing = False  # a record is on its way into its place
        self._deferred: list[_Deferred] = []
        self._free: list[Segment] = []
        # Oldest first; the last one is being filled. Replaced, never changed: the sender reads it without the lock,
        # which a thread that a signal handler interrupted may be holding for as long as the handler waits.
        self._live: tuple[Segment, ...] = ()
        self._numbers = self._named = 0  # files made here, and how many of them the disk knows by their names
        self._syncing = RLock()  # taken while `lock` is held or without it; `lock` is not waited for in it
        self._synced = self._synced_definitions = 0  # what is before them is on the disk
        self._sync_failed = False
        self._sync_refused_until = 0.0
        self._ready = Ready()
        self._mapped = True  # small records are stored through maps
        self._make(spool)
        self.limit = self._open_limit

    def _make(self, spool: Path) -> None:
        """Make the files under another name and rename them: who finds them under their own finds them locked."""
        self.path = spool / session_name(self.session)
        staging = spool / (MAKING + self.path.name)
        staging.mkdir(mode=0o700)
        if not os.access(staging, os.X_OK, effective_ids=True):
            staging.chmod(0o700)  # the umask is 0777
        self._made_under = root()
        self._files: list[Descriptor] = []
        self._maps: list[descriptors.Map] = []
        self._words: memoryview | FileWords = memoryview(b"")
        try:
            self._make_files(staging)
            staging.rename(self.path)
        except (OSError, MemoryError):
            self._leave_files()
            remove_journal(staging)
            raise
        self._move_files()

    def _make_files(self, folder: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        # By it files are made and deleted, also when another folder is "/", or something is mounted over the spool.
        self._folder_file = descriptors.open_file(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._files.append(self._folder_file)
        path = folder / CONTROL_NAME
        self._control_file = descriptors.open_file(path, flags)
        self._files.append(self._control_file)
        fcntl.flock(self._control_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A page that is synced after each record is stored into for the first time again with the next.
        in_place = is_in_place(self._control_file)
        self._mapped = in_place and not self.durable
        if not in_place and (full := hardly_any_room(self._control_file)) is not None:
            raise full
        self._in_place = in_place
        os.posix_fallocate(self._control_file.number, 0, CONTROL_BYTES)
        # The lock belongs to the open file, which lasts as long as a descriptor or a map of it. With a map of its own a
        # program that closes all descriptors keeps it; children do not have that one.
        self._lock_map = descriptors.map_file(self._control_file, CONTROL_BYTES, inherited=False)
        self._maps.append(self._lock_map)
        # They do have this one, so it is of another open file, which is not locked.
        unlocked = descriptors.open_file(path, os.O_RDWR)
        try:
            self._maps.append(descriptors.map_file(unlocked, CONTROL_BYTES))
            self._use_control(self._maps[-1])
        finally:
            unlocked.close()
        self._definitions_file = descriptors.open_file(folder / DEFINITIONS_NAME, flags | os.O_APPEND)
        self._files.append(self._definitions_file)
        capacity = min(SEGMENT_BYTES_MIN, self.bytes_max)
        self._live = (Segment(self._folder_file, self._number(), self.session, 0, capacity, self._mapped),)
        self._enter(self._live[0])

    def _use_control(self, page: descriptors.Map) -> None:
        self._control = page
        head = CONTROL_HEAD.pack(MAGIC, self.session, os.getpid(), boot_id(), os.getuid(), time.time())
        if self._mapped:
            page[: len(head)] = head
            self._words = memoryview(page).cast("Q")
        else:
            os.pwrite(self._control_file.number, head, 0)
            self._words = FileWords(self._control_file, head.ljust(CONTROL_BYTES, b"\0"))
        self.words: Words = self._words  # to commit with, for the hot path

    def _leave_files(self) -> None:
        """Give back what an attempt that failed has opened and mapped, at once: the next attempt needs it."""
        for segment in self._live:
            segment.close()
        self._live, self.buffer = (), memoryview(b"")
        self._words.release()
        for page in self._maps:
            page.close()
        for file in self._files:
            file.close()

    def _move_files(self) -> None:
        """Take note of where they are now."""
        for file in self._files:
            file.path = self.path / file.path.name if file.path is not None else None
        self._folder_file.path = self.path
        for segment in self._live:
            segment.move(self.path)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _enter(self, segment: Segment) -> None:
        self.buffer = segment.view
        # The hot path computes `position - base` for its offset; the header is part of that sum.
        self.base = segment.base - SEGMENT_HEAD_BYTES
        self._segment_end = segment.base + segment.capacity
        self._ready_end = segment.base if segment.mapped else self._segment_end  # before it a store finds its page

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return str(self.path)

    @property
    def folder(self) -> Path | None:
        """Where its files are; None where it has none."""
        return self.path

    @property
    def _open_limit(self) -> int:
        """The `limit` while nothing unusual is to be done."""
        if self._closed or self.sealed or not self._mapped or self.durable or self._armed or self._deferred:
            return CLOSED
        return CLOSED if self._stale else min(self._segment_end, self._ready_end)

    # --- appending -------------------------------------------------------------------------------------------

    def define(self, definition: bytes) -> None:
        """Append a definition. It is there before any record that is appended later.

        Raises:
            JournalClosed: the journal is closed.
            OSError: it cannot be written.
        """
        with self.lock:
            if self._closed or self.sealed:
                raise JournalClosed
            if self.definitions_end + len(definition) > DEFINITIONS_BYTES_MAX:
                raise OSError(f"over {DEFINITIONS_BYTES_MAX:,} bytes of runs and tags in one session")
            try:
                fd = self._definitions_file.valid()
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
        """Append one record, given as its pieces. Returns why it was dropped (and counted): "" says it is safe.

        In a durable journal it is on the disk then. Where the disk refuses it is in the journal all the same and gets
        to the daemon; that a crash of the machine would lose it is told once, and it is tried again.

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
                warn(f"{self.path}: {error}; a crash of the machine would lose what waits", once="sync")
        return reason

    def patience(self, waits: bool = True) -> Patience:
        """How long a record that the caller begins to append may wait for room.

        Not at all where this thread has the lock already: it is in the midst of a call, which would not end meanwhile.
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
                return self._defer(_Deferred(b"".join(parts), dropped), interrupts)
            if self._closed:
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
                self._enter(self._live[-1])
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
        """Store a record and commit it; `_writing` is set. Returns why there is no place for it."""
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
        segment = self._live[-1]
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
        """Have the pages before a position made ready, and some more.

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
        if self._mapped and not self.sealed and not self._closed:
            try:
                self._ready.make(self._control, 0, CONTROL_BYTES)
            except OSError as error:
                self._seal(error)

    def _make_ready_again(self) -> None:
        """Have the pages that are stored into next made ready once more.

        After a sync, or some seconds in which nobody has looked at the disk, they are clean; where the disk has ended
        since, the first store would end this process.

        Raises:
            JournalClosed: so it is.
        """
        self._stale = False
        segment, offset = self._live[-1], self.position - self.base
        if segment.map is None or self.position >= self._segment_end:
            return
        try:
            self._ready.make(self._control, 0, CONTROL_BYTES)
            self._ready.make(segment.map, offset, offset + 1)
        except OSError as error:
            self._seal_for(error)
        self._ready_end = min(self._ready_end, self.position - offset % mmap.PAGESIZE + mmap.PAGESIZE)

    def _rewind(self) -> bool:
        """Begin the file again where all of it is acknowledged: its first pages are there, and in the caches."""
        segment = self._live[-1]
        if not self.released >= self.position > segment.base:
            return False
        segment.touched = max(segment.touched, self.position - self.base)
        try:
            self._use_again(segment)
        except OSError as error:
            self._seal_for(error)
            return False
        self._enter(segment)
        return True

    @property
    def interrupts(self) -> bool:
        """Whether the caller has interrupted the hot path on its own thread."""
        return self.limit == STORING and self.lock._is_owned()

    def _commit_all(self) -> None:
        """Commit the scalar that has just been stored, and what was put off for it; the lock is held."""
        self.words = self._words
        self._words[WORD_COMMIT] = self.position
        self._append_deferred()

    def _append_deferred(self) -> None:
        """Append what was put off; the lock is held. It waits for no room: whose call it was has returned."""
        while self._deferred and not self._closed and not self.interrupts:
            reason, dropped = "", None
            try:
                self._writing, self.limit = True, CLOSED  # before it is taken, or a handler in between would come first
                if self._deferred:
                    record, dropped = self._deferred.pop(0)
                    reason = self._place((record,), None, 1.0, self.patience(waits=False))
            except JournalClosed:  # it is sealed, and what belongs to it can be nowhere else
                reason = "journal_error"
            except BaseException:
                self._enter(self._live[-1])  # as above
                raise
            finally:
                self._writing = False
                self.limit = self._open_limit
            if reason:
                self.count_drop(reason)
                if dropped is not None:
                    dropped(reason)

    def _defer(self, deferred: _Deferred, interrupts: bool) -> str:
        if len(self._deferred) >= DEFERRED_RECORDS_MAX:
            return self.count_drop("reentrant")
        self._deferred.append(deferred)
        if interrupts:
            self.words = _CommitAll(self._commit_all)
        return ""

    def count_drop(self, reason: str) -> str:
        """Count a record that is not kept, for one of `DROP_REASONS`; returns the reason."""
        with self.lock:
            if not self._closed:
                self._make_control_ready()
                self._words[WORD_DROPPED + DROP_REASONS.index(reason)] += 1
        return reason

    def _make_room(self, size: int, share: float, patience: Patience) -> str:
        """Find a place for ``size`` bytes behind ``position``; the lock is held. Returns why there is none.

        Nobody waits in here: with the lock, or in the middle of a record, he would keep others from room that they
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
        """Whether the segment in use takes it, and the files in use leave room for what may fill more than ``quota``.

        Bytes are counted as whole segments, because what pictures leave unused at the ends of theirs is no room
        either. A first segment is shared by its own bytes, or a small journal would take no picture at all.
        """
        if self.position + size > self._segment_end:
            return False
        if quota >= self.bytes_max:
            return True
        live = self._live
        if len(live) > 1:
            return sum(segment.capacity for segment in live) <= quota
        end = self.position + size - live[0].base
        return live[0].capacity <= quota or end * self.bytes_max <= quota * live[0].capacity

    def _next_segment(self, size: int, quota: int) -> bool:
        current = self._live[-1]
        if self._rewind() and self._has_room(size, quota):
            return True
        older = sum(segment.capacity for segment in self._live[:-1])
        waiting = self.position - max(self.released, current.base)
        # What is acknowledged to its end goes as soon as there is another, and what is being acknowledged soon after.
        # That counts by what waits in it: else what is large would wait for as long as scalars come, as one of them
        # always waits.
        counts = current.capacity if self.released <= current.base and waiting else waiting
        room = min(quota - counts, self.bytes_max - (current.capacity if waiting else 0)) - older
        segment = self._free_segment(size, room) or self._new_segment(size, current.capacity, room)
        if segment is None:
            return False
        current.end = self.position
        self._live = (*self._live, segment)
        self._enter(segment)
        if sum(not item.rests for item in self._live) > OPEN_SEGMENTS_MAX + 1:
            current.rest()
        if self.released >= self.position:
            self._live = tuple(item for item in self._live if item is not current)
            self._retire(current)
        return True

    def _free_segment(self, size: int, room: int) -> Segment | None:
        fitting = [segment for segment in self._free if size <= segment.capacity <= room]
        if not fitting:
            return None
        segment = min(fitting, key=lambda segment: segment.capacity)
        self._free.remove(segment)
        self._use_again(segment)
        return segment

    def _use_again(self, segment: Segment) -> None:
        if self.durable:
            # That all in it is released has to be on the disk before anything else is: a crash might leave the head
            # of what it held above some of what it holds now.
            with contextlib.suppress(OSError):  # the sync of the next record says so
                os.fdatasync(self._control_file.valid())
        segment.rebase(self.position)

    def _new_segment(self, size: int, previous: int, room: int) -> Segment | None:
        if size > room:
            return None
        # Small in a small journal: what is large has to fit beside the one that scalars are stored into.
        most = min(SEGMENT_BYTES_MAX, max(SEGMENT_BYTES_MIN, self.bytes_max // SEGMENTS_MIN))
        capacity = max(size, min(2 * previous, most, room))
        used = sum(segment.capacity for segment in self._live)
        while self._free and used + capacity + sum(item.capacity for item in self._free) > self.bytes_max:
            self._delete(self._free.pop(0))
        # A full disk may cost a call milliseconds to find out, so not every call does.
        if self._refused and monotonic() < self._refused_until:
            # A new one: an error that is kept and raised again keeps the frames of each call that it came out of, and
            # so what each of them wanted to log.
            raise OSError(self._refused, os.strerror(self._refused))
        smallest = max(size, min(SEGMENT_BYTES_MIN, capacity))
        try:
            segment = self._make_segment(capacity, smallest)
        except OSError as error:
            self._refused, self._refused_until = error.errno or errno.EIO, monotonic() + RETRY_SECONDS
            raise
        self._refused = 0
        return segment

    def _make_segment(self, capacity: int, smallest: int) -> Segment:
        try:
            return Segment(self._folder_file, self._number(), self.session, self.position, capacity, self._mapped)
        except OSError:
            if smallest == capacity:
                raise
        return Segment(self._folder_file, self._number(), self.session, self.position, smallest, self._mapped)

    # --- for the sender --------------------------------------------------------------------------------------

    @property
    def committed(self) -> int:
        """The end of the last whole record."""
        return int(self._words[WORD_COMMIT])

    def note_records(self, count: int) -> None:
        """Leave word in the journal of how many records were logged, for whoever finds it without its trainer."""
        if self.lock.acquire(timeout=LOCK_SECONDS):  # at the end of a script nobody waits for a lock that is left held
            try:
                self._make_control_ready()
                self._words[WORD_RECORDS] = count
            finally:
                self.lock.release()

    def dropped(self) -> dict[str, int]:
        """How many records were dropped here, by reason."""
        counts = self._words[WORD_DROPPED : WORD_DROPPED + len(DROP_REASONS)]
        return {reason: count for reason, count in zip(DROP_REASONS, counts, strict=True) if count}

    def arm(self, seen: int) -> bool:
        """Ask to be woken by the next record. False when there is one already behind position ``seen``."""
        if not self.lock.acquire(timeout=LOCK_SECONDS):
            return False
        try:
            if self.position != seen or self._writing or self._closed or self.sealed:
                return False
            self._armed, self.limit = True, CLOSED
            return True
        finally:
            self.lock.release()

    def read(self, position: int, length: int) -> bytes:
        """At most ``length`` bytes of the records from ``position``, up to the end of a segment or of the stream.

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
        """The file that holds ``position``, and how many bytes of records are there from it on. As `read`."""
        committed = self.committed
        live = self._live
        for segment in reversed(live):
            if segment.base <= position:
                return segment, (committed if segment is live[-1] else segment.end) - position
        raise ValueError(f"position {position} has been released")

    def read_definitions(self, position: int, length: int) -> bytes:
        """At most ``length`` bytes of the definitions from ``position``."""
        length = min(length, self.definitions_end - position)
        try:
            return os.pread(self._definitions_file.valid(), length, position)
        except OSError:
            if not self.sealed or len(self._kept) != self.definitions_end:
                raise
        return bytes(self._kept[position : position + length])

    def release(self, position: int) -> bool:
        """Everything before ``position`` has been acknowledged: its space can be used again.

        False when the journal is in use at this moment; call again.
        """
        if not self.lock.acquire(timeout=LOCK_SECONDS):
            return False
        try:
            if self._closed or position <= self.released:
                return True
            self.released = position
            self._make_control_ready()
            self._words[WORD_RELEASED] = position
            if self.sealed:
                return True  # no file of it is used again
            done = [segment for segment in self._live[:-1] if segment.end <= position]
            self._live = self._live[len(done) :]
            for segment in done:
                self._retire(segment)
            self._stalled = False
            self._room.tell()
            return True
        finally:
            self.lock.release()

    def _retire(self, segment: Segment) -> None:
        if segment.rests:
            self._delete(segment)
            return
        try:
            segment.rebase(FREE)
        except OSError:  # it says what it held, which is released
            self._delete(segment)
            return
        self._free.append(segment)
        while len(self._free) > FREE_SEGMENTS_MAX:
            smallest = min(self._free, key=lambda item: item.capacity)
            self._free.remove(smallest)
            self._delete(smallest)

    def _delete(self, segment: Segment) -> None:
        remove(segment.path, self._folder_file)
        segment.close()

    # --- onto the disk ---------------------------------------------------------------------------------------

    def sync(self, wait: float = LOCK_SECONDS) -> None:
        """Bring what waits here onto the disk, so that it outlives a crash of the machine as well.

        A thread that finds that another has done it meanwhile returns at once. After a disk has refused it is left
        alone for ``RETRY_SECONDS``.

        Args:
            wait: seconds for the lock, -1 for as long as it takes; without it nothing is done.

        Raises:
            OSError: the disk cannot take it.
        """
        end = self.committed
        while not self._sync_some(wait, end):
            pass

    def _sync_some(self, wait: float, end: int) -> bool:
        """Sync as much as may be at a time; whether there is nothing more to do before ``end``."""
        if not self.lock.acquire(timeout=wait):
            return True
        try:
            if self._closed or self.sealed:
                return True
            unsynced = self._unsynced()
            done = unsynced.committed >= end
        finally:
            self.lock.release()
        try:
            with self._syncing:
                return self._sync(unsynced) or done
        finally:
            unsynced.close()
            self._note_stale()

    def _note_stale(self) -> None:
        """Have the next record make its pages ready again: they may have been written back, and the disk may end."""
        if self._mapped and self.lock.acquire(timeout=LOCK_SECONDS):
            try:
                self._stale, self.limit = True, CLOSED
            finally:
                self.lock.release()

    def _unsynced(self) -> Unsynced:
        """What the disk may not have yet, with descriptors of its own; the lock is held."""
        committed, synced = self.committed, self._synced
        result = Unsynced(committed, self.definitions_end, self._numbers)
        try:
            if committed > synced:
                last = self._live[-1]
                for segment in self._live:
                    if segment.base < committed and (segment is last or segment.end > synced):
                        if len(result.files) == SYNCED_SEGMENTS_MAX:
                            result.committed = segment.base
                            break
                        result.files.append(descriptors.another(segment.file))
            result.files.append(descriptors.duplicate(self._definitions_file))
            result.files.append(descriptors.duplicate(self._control_file))
        except OSError:
            result.close()
            raise
        return result

    def _sync(self, unsynced: Unsynced) -> bool:
        """Sync that; whether nothing was to be done."""
        if unsynced.committed <= self._synced or monotonic() < self._sync_refused_until:
            return True
        try:
            if self._sync_failed:
                self._store_again(unsynced)
            *files, control = unsynced.files
            for file in files:
                os.fdatasync(file.number)
            if unsynced.names > self._named:
                for folder in (self.path, self.path.parent):
                    sync_folder(folder)
            end = 0
            while end < max(self._synced, unsynced.committed):  # again where a signal handler got further meanwhile
                end = max(self._synced, unsynced.committed)
                # Not through the map, which another thread may be closing.
                os.pwrite(control.number, struct.pack("=Q", end), 8 * WORD_SYNCED)
                os.fdatasync(control.number)
        except OSError:
            self._sync_failed, self._sync_refused_until = True, monotonic() + RETRY_SECONDS
            raise
        self._sync_failed = False
        self._synced = max(self._synced, end)
        self._synced_definitions = max(self._synced_definitions, unsynced.definitions_end)
        self._named = max(self._named, unsynced.names)
        return False

    def _store_again(self, unsynced: Unsynced) -> None:
        """Store once more what an fdatasync that failed may have left behind.

        Linux takes the pages for clean then, and the next one would succeed with nothing done.
        """
        file = descriptors.open_file(self.path / DEFINITIONS_NAME, os.O_RDWR | os.O_NOFOLLOW)
        try:
            for start in range(self._synced_definitions, unsynced.definitions_end, COPY_BYTES):
                _store_again(file.number, start, min(start + COPY_BYTES, unsynced.definitions_end))
        finally:
            file.close()
        position = self._synced
        while position < unsynced.committed:
            if not self.lock.acquire(timeout=LOCK_SECONDS):
                raise BlockingIOError(errno.EAGAIN, "the journal is in use")
            try:
                position = self._store_stretch_again(position, unsynced.committed)
            finally:
                self.lock.release()

    def _store_stretch_again(self, position: int, end: int) -> int:
        """The same for what begins at ``position``; returns where it goes on. The lock is held."""
        live = () if self._closed else self._live
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

    # --- out of reach ----------------------------------------------------------------------------------------

    def _seal_for(self, error: OSError) -> None:
        """Take no more where the disk's answer is that there is no place any more; the lock is held.

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
        if not isinstance(self.words, _CommitAll):
            self.words = words
        self._room.tell()

    def _own_words(self) -> memoryview:
        """Go on with a copy of the control page that is this process's own; the lock is held."""
        page, self._words = self._words, memoryview(bytearray(self._words.cast("B"))).cast("Q")
        page.release()
        return self._words

    def look(self) -> bool:
        """See whether the files are still within reach, and take no more records where they are not.

        For the sender, again and again while records come. True when nothing more comes.
        """
        live = self._live
        if not self.sealed and not self._closed and live:
            last = live[-1]
            files = (
                (self._control_file, CONTROL_BYTES),
                (self._definitions_file, self.definitions_end),
                (last.file, last.file_bytes),
            )
            error = trouble(self._control_file, files, self._made_under)
            if error is None and not self._in_place:
                error = hardly_any_room(self._control_file)
            if error is not None and self.lock.acquire(timeout=LOCK_SECONDS):
                try:
                    if not self._closed and self._live[-1] is last:  # else it may have been deleted since the look
                        self._seal(error)
                finally:
                    self.lock.release()
        return bool(self.sealed)

    @property
    def is_found(self) -> bool:
        """Whether a daemon finds it where it was made, when this process has let go of it."""
        return is_found(self._control_file, self._made_under)

    # --- the end ---------------------------------------------------------------------------------------------

    def commit(self, wait: float = -1) -> int:
        """The position behind every record whose call has begun to return.

        A signal handler may have interrupted `add_scalar` between its store and its commit; what it then flushes or
        closes includes that record.

        Args:
            wait: seconds for the lock, -1 for as long as it takes; without it the result is -1.
        """
        nested = self.lock._is_owned()
        try:  # before it is taken: a signal handler may raise between both
            if not self.lock.acquire(timeout=wait):
                return -1
            if not self._writing and not self._closed:
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
        """Close the files. True when all was acknowledged, and the journal is deleted; else it waits for a daemon."""
        if self.interrupts:
            self.words = _AllClosed(self.position > self.committed)
            self.limit = CLOSED
        with self.lock:
            if self._closed:
                return False
            finished = self.released >= self.commit()
            self._closed = True
            self.limit = CLOSED
            self._room.tell()
            if finished:
                self._remove()
            for segment in (*self._live, *self._free):
                segment.close()
            words = self._own_words()
            if not isinstance(self.words, _AllClosed):
                self.words = words
            self._control.close()
            self._close_files()  # and with them the lock: a daemon may take over from here
            return finished

    def _remove(self) -> None:
        remove_journal(self.path)

    def _close_files(self) -> None:
        self._folder_file.close()
        self._definitions_file.close()
        self._lock_map.close()
        self._control_file.close()

    def abandon(self) -> None:
        """In a forked child: let go of the parent's journal without touching it."""
        held = self.lock, self._syncing
        self.lock, self._syncing = RLock(), RLock()
        self._room.leave()
        self._room = Room()
        self._closed = True
        self.sealed = ""
        self.limit = CLOSED  # its descriptors are closed, as all of the parent's (`descriptors`)
        for lock in held:  # behind that: who waits finds it closed
            let_in(lock)


def _store_again(fd: int, start: int, end: int) -> None:
    """Store the bytes of a file once more where they stand."""
    while start < end:
        data = os.pread(fd, end - start, start)
        if not data:
            raise OSError(errno.EIO, "a file of the journal was cut")
        start += os.pwrite(fd, data, start)
