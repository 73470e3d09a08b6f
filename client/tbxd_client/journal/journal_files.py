"""The files of a journal: their layout, and the reader of one whose trainer is gone.

A journal is a folder named by its session, and holds

``control``      one mapped page: who owns it, up to where it is filled, acknowledged and on disk; locked by its owner
``definitions``  the definitions, appended, kept for as long as the session lives
``*.segment``    the records; each file holds the stretch of the stream that begins at the position in its header

A segment is written by one process and never read by it through the map. Numbers are in the byte order of the
host: a journal never leaves it. ``docs/PROTOCOL.md`` has the table.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
import time
from pathlib import Path
from typing import NamedTuple

from ..process.descriptors import open_file
from ..protocol.records import SESSION_BYTES

MAGIC = b"tbxdjnl1"
CONTROL_BYTES = 4096
CONTROL_HEAD = struct.Struct("=8s12sI16sId")  # magic, session, pid, boot id, uid, started
# Words of 8 bytes in the control page, by index.
WORD_COMMIT = 16  # the end of the last whole record
WORD_RELEASED = 17  # everything before this has been acknowledged
WORD_SYNCED = 18  # everything before this was on disk when the word was written
WORD_RECORDS = 19  # records appended
WORD_DROPPED = 20  # records dropped by the trainer: see DROP_REASONS, one word each
LOOK_OFFSET = 512  # zeros are stored there again and again, to see whether the disk still takes something
WORDS = struct.Struct("=12Q")
WORDS_OFFSET = WORD_COMMIT * 8

# Why a trainer drops a record, in the order of the words.
DROP_REASONS = ("journal_full", "too_large", "journal_error", "reentrant", "bad_argument", "shutdown")

SEGMENT_HEAD = struct.Struct("=8s12s12xQ")  # magic, session, position of the first byte
SEGMENT_HEAD_BYTES = 64
SEGMENT_BASE_OFFSET = 32
FREE = (1 << 64) - 1  # the base of a segment that holds nothing

NO_BOOT = bytes(16)  # where there is no /proc to tell
CONTROL_NAME = "control"
DEFINITIONS_NAME = "definitions"
SEGMENT_SUFFIX = ".segment"
# Before the session in the name of a folder that is no journal yet, and of one that is none any more.
MAKING, REMOVING = ".new-", ".old-"
DIGITS = frozenset("0123456789abcdef")  # of a session's name
DEFINITIONS_BYTES_MAX = 256 << 20


def boot_id() -> bytes:
    """Return 16 bytes that change when the operating system starts anew."""
    try:
        return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return NO_BOOT


class JournalError(Exception):
    """A journal that cannot be read: not one of ours, of another version, or damaged."""


class JournalBusy(Exception):
    """The journal's owner is alive, or another daemon has taken it."""


class JournalState(NamedTuple):
    """The contents of the control page. Positions are bytes since the session began."""

    session: bytes
    pid: int
    boot: bytes
    uid: int
    started: float
    commit: int
    released: int
    synced: int
    records: int
    dropped: dict[str, int]

    @property
    def of_this_boot(self) -> bool:
        """True if the machine has not started anew since. Without ``/proc`` on one side the clocks tell."""
        now = boot_id()
        if NO_BOOT not in (self.boot, now):
            return self.boot == now
        return self.started > time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    @property
    def readable_end(self) -> int:
        """The position up to which records can be trusted. After a restart of the machine only synced records can."""
        if not self.of_this_boot:
            return max(self.released, min(self.synced, self.commit))
        return self.commit


def read_state(path: Path) -> JournalState:
    """Return the state of the journal in folder ``path``, whoever owns it.

    Raises:
        JournalError: there is no readable control page.
    """
    try:
        fd = open_regular(path / CONTROL_NAME, os.O_RDONLY)
    except OSError as error:
        raise JournalError(f"{path}: {error.strerror}") from error
    try:
        return _state_of(path, os.pread(fd, CONTROL_BYTES, 0))
    finally:
        os.close(fd)


def _state_of(path: Path, page: bytes) -> JournalState:
    if len(page) < WORDS_OFFSET + WORDS.size:
        raise JournalError(f"{path}: the control page has {len(page)} bytes")
    magic, session, pid, boot, uid, started = CONTROL_HEAD.unpack_from(page)
    if magic != MAGIC:
        raise JournalError(f"{path}: begins with {magic!r}; a newer tbxd may have written it")
    commit, released, synced, records, *drops = WORDS.unpack_from(page, WORDS_OFFSET)
    if not released <= commit < 1 << 62:
        raise JournalError(f"{path}: positions {released} and {commit} make no sense")
    dropped = {reason: count for reason, count in zip(DROP_REASONS, drops, strict=False) if count}
    return JournalState(session, pid, boot, uid, started, commit, released, synced, records, dropped)


def open_regular(path: Path, flags: int) -> int:
    """Open a regular file of this user, following no link and waiting for no FIFO."""
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    state = os.fstat(fd)
    if not stat.S_ISREG(state.st_mode) or state.st_uid != os.getuid():
        os.close(fd)
        raise PermissionError(1, f"{path} is not a regular file of uid {os.getuid()}")
    return fd


class JournalReader:
    """The journal of a trainer that is gone, held so that nobody else drains it.

    Everything is read with ``pread``: a mapped file that somebody truncates would kill the reader.
    """

    def __init__(self, path: Path) -> None:
        """Lock and open the journal in folder ``path``.

        Raises:
            JournalBusy: its owner lives, or another process reads it.
            JournalError: it cannot be read.
        """
        self.path = path
        self._segments: list[tuple[int, int, int]] = []  # base, bytes that follow, descriptor
        try:
            self._control = open_regular(path / CONTROL_NAME, os.O_RDWR)
        except OSError as error:
            raise JournalError(f"{path}: {error.strerror or error}") from error
        self._definitions = -1
        try:
            try:
                fcntl.flock(self._control, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise JournalBusy(str(path)) from None
            self.state = _state_of(path, os.pread(self._control, CONTROL_BYTES, 0))
            self._released = self.state.released
            self._definitions = open_regular(path / DEFINITIONS_NAME, os.O_RDONLY)
            self._open_segments()
            self._pass_over_holes()
        except OSError as error:
            self.close()
            raise JournalError(f"{path}: {error.strerror or error}") from error
        except Exception:
            self.close()
            raise

    def _open_segments(self) -> None:
        for name in sorted(self.path.glob("*" + SEGMENT_SUFFIX)):
            fd = open_regular(name, os.O_RDONLY)
            try:
                head = os.pread(fd, SEGMENT_HEAD_BYTES, 0)
                if len(head) == SEGMENT_HEAD_BYTES:
                    magic, session, base = SEGMENT_HEAD.unpack_from(head)
                    if magic == MAGIC and session == self.state.session and base != FREE:
                        self._segments.append((base, os.fstat(fd).st_size - SEGMENT_HEAD_BYTES, fd))
                        fd = -1
            finally:
                if fd >= 0:
                    os.close(fd)
        self._segments.sort()

    def _pass_over_holes(self) -> None:
        """After a crash of the machine, skip what was released and used again without a note in the control page.

        Each page reaches the disk when the system likes. A file is given up only for what was released, so what is
        missing in front is written already.
        """
        if self.state.of_this_boot or not self._segments:
            return
        first = next((base for base, size, _ in self._segments if self.state.released < base + size), 0)
        if first > self.state.released:
            end = max(first, self.state.commit)
            self.state = self.state._replace(released=first, commit=end)

    @property
    def stored(self) -> float:
        """The time of its owner's last store, in seconds since the epoch, as the file system has it: of what is stored
        through a map some tell up to half a minute too early, or when the file was made; 0 where there is nothing.
        Whoever reads a journal stores nothing in these files."""
        return max((os.fstat(fd).st_mtime for _, _, fd in self._segments), default=0.0)

    def definitions(self, position: int, length: int) -> bytes:
        """Return at most ``length`` bytes of the definitions from ``position``."""
        return os.pread(self._definitions, length, position)

    def read(self, position: int, length: int) -> bytes:
        """Return at most ``length`` bytes of the records from ``position``; empty at the end.

        Raises:
            JournalError: the stretch is missing.
        """
        length = min(length, self.state.readable_end - position)
        if length <= 0:
            return b""
        for index, (base, size, fd) in enumerate(self._segments):
            end = self._segments[index + 1][0] if index + 1 < len(self._segments) else base + size
            if base <= position < min(end, base + size):
                data = os.pread(fd, min(length, end - position), SEGMENT_HEAD_BYTES + position - base)
                if data:
                    return data
        raise JournalError(f"{self.path}: no segment holds position {position:,}")

    def release(self, position: int) -> None:
        """Note that everything before ``position`` is written, so that the next reader begins there."""
        if position > self._released:
            os.pwrite(self._control, struct.pack("=Q", position), WORD_RELEASED * 8)
            self._released = position

    def remove(self) -> None:
        """Delete the journal; call it when everything in it is written."""
        remove_journal(self.path)
        self.close()

    def close(self) -> None:
        """Let go of the files and of the lock."""
        for _, _, fd in self._segments:
            os.close(fd)
        self._segments = []
        for fd in (self._definitions, self._control):
            if fd >= 0:
                os.close(fd)
        self._definitions = self._control = -1


def remove_journal(path: Path) -> None:
    """Delete a journal's folder and the files in it.

    It is renamed first: whoever is killed on the way leaves nothing that looks like a journal and cannot be read.
    """
    if not path.name.startswith((MAKING, REMOVING)):
        with contextlib.suppress(OSError):
            path = path.rename(path.with_name(REMOVING + path.name))
    with contextlib.suppress(OSError):
        for entry in path.iterdir():
            entry.unlink(missing_ok=True)
        path.rmdir()


def segment_name(number: int) -> str:
    """Return the file name of a segment; a journal never gives a number twice."""
    return f"{number:06d}{SEGMENT_SUFFIX}"


def sync_folder(folder: Path | int) -> None:
    """Bring the names in a folder onto the disk; a file system that cannot do that for a folder does it by itself.

    Raises:
        OSError: the disk cannot take them.
    """
    opened = None if isinstance(folder, int) else open_file(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder if opened is None else opened)  # type: ignore[arg-type]
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        if opened is not None:
            opened.close()


def session_name(session: bytes) -> str:
    """Return the folder name of a session."""
    return session.hex()


def journals(spool: Path) -> list[Path]:
    """Return the folders in the spool that are journals, in no order."""
    return _folders(spool, "")


def unfinished(spool: Path) -> list[Path]:
    """Return the folders in the spool that were being made or removed, perhaps by a process that was killed."""
    return _folders(spool, MAKING, REMOVING)


def is_session_name(name: str) -> bool:
    """Return True if a folder of this name in a spool may be a journal."""
    return len(name) == 2 * SESSION_BYTES and DIGITS.issuperset(name)


def _folders(spool: Path, *prefixes: str) -> list[Path]:
    try:
        with os.scandir(spool) as entries:  # which has seen whether it is a folder: thousands are looked at
            return [
                spool / entry.name
                for entry in entries
                if entry.name.startswith(prefixes)
                and is_session_name(entry.name[-2 * SESSION_BYTES :])
                and len(entry.name) - 2 * SESSION_BYTES in map(len, prefixes)
                and entry.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return []
