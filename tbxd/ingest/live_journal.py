"""Records that a trainer has stored in its journal, read from there while it lives: none goes through a socket.

What is not acknowledged stays in the journal where it is, so a daemon on the same machine may read it at any time.
Everything is read with ``pread``, never through a map: a file that is cut meanwhile gives fewer bytes, not SIGBUS. A
trainer that does not keep its word is not believed, and harms nobody but its own session.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

from tbxd_client.journal.journal_files import (
    MAGIC,
    NO_BOOT,
    SEGMENT_BASE_OFFSET,
    SEGMENT_HEAD,
    SEGMENT_HEAD_BYTES,
    JournalError,
    boot_id,
    open_regular,
    read_state,
    segment_name,
    session_name,
)


class Unreadable(Exception):
    """The records are not where they are said to be."""


def readable_journal(folder: str, session: bytes) -> Path | None:
    """The journal of a session in ``folder``, if this process sees the same files there as its trainer does.

    That takes a folder of that session, of this user, made under the same kernel: on a network's disk another host
    sees late what was stored through a map. In another container the folder is not there.
    """
    path = Path(folder)
    if not path.is_absolute() or path.name != session_name(session):
        return None
    try:
        state = read_state(path)
    except (JournalError, ValueError):  # ValueError: a NUL in the path
        return None
    own = state.session == session and state.uid == os.getuid()
    return path if own and state.boot == boot_id() != NO_BOOT else None


class StoredSegment:
    """One file of a live journal.

    Raises:
        Unreadable: it is not there, or is not of this session.
    """

    def __init__(self, journal: Path, session: bytes, number: int) -> None:
        self._path = journal / segment_name(number)
        try:
            self._fd = open_regular(self._path, os.O_RDONLY)
        except (OSError, ValueError) as error:
            raise Unreadable(f"{self._path}: {error}") from error
        try:
            head = os.pread(self._fd, SEGMENT_HEAD_BYTES, 0)
            if len(head) < SEGMENT_HEAD_BYTES:
                raise Unreadable(f"{self._path} has {len(head)} bytes")
            magic, owner, base = SEGMENT_HEAD.unpack_from(head)
            self._base = int(base)
            if (magic, owner) != (MAGIC, session):
                raise Unreadable(f"{self._path} is no segment of session {session.hex()}")
        except Exception as error:
            os.close(self._fd)
            if isinstance(error, OSError):
                raise Unreadable(f"{self._path}: {error}") from error
            raise

    def offset(self, position: int) -> int:
        """Where a position is in the file."""
        return SEGMENT_HEAD_BYTES + position - self._base

    def read_into(self, room: memoryview, position: int) -> None:
        """Fill ``room`` with the records from ``position``.

        Raises:
            Unreadable: the file does not hold them, or is used for others meanwhile.
        """
        base, done = self._base, 0
        if not base <= position:
            raise Unreadable(f"{self._path} begins at position {base:,}, behind {position:,}")
        try:
            while done < len(room):
                count = os.preadv(self._fd, [room[done:]], self.offset(position) + done)
                if not count:
                    raise Unreadable(f"{self._path} ends at position {position + done:,}")
                done += count
            # A file is used again only after all in it was acknowledged, so with one that keeps its word this holds.
            if os.pread(self._fd, 8, SEGMENT_BASE_OFFSET) != base.to_bytes(8, sys.byteorder):
                raise Unreadable(f"{self._path} was used again while it was read")
        except (OSError, OverflowError) as error:
            raise Unreadable(f"{self._path}: {error}") from error

    def __enter__(self) -> StoredSegment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
