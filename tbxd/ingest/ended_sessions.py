"""Sessions that are over for good: nothing of them can come again, so no event file has to know how far they are.

What proves it: everything of the session is in the event files and acknowledged, its journal was seen on this host and
is not there any more, because its trainer has said goodbye and deleted it or because a daemon has adopted and deleted
it, and the deletion is on the disk. A session on another host gives no such proof, nor does one whose journal has
vanished without a word: they stay in the ledger.

They are kept in a file of the spool for daemons that come next, 16 bytes each (the session, and the CRC-32 of it), the
latest of them: of one that is not known to be over no more is lost than room.
"""

from __future__ import annotations

import logging
import os
import stat
import zlib
from collections.abc import Iterable
from pathlib import Path

from tbxd_client.config.paths import private_dir
from tbxd_client.journal.journal_files import sync_folder
from tbxd_client.protocol.records import SESSION_BYTES

log = logging.getLogger(__name__)

COUNT_MAX = 1 << 16  # in the file, and of each daemon
RECORD_BYTES = SESSION_BYTES + 4
NAME = "ended"


class Ended:
    """The sessions that are over.

    Args:
        place: the folder of the file that they are in; None keeps them for as long as this is here.
    """

    def __init__(self, place: Path | None = None) -> None:
        self._place = place
        self._sessions: dict[bytes, None] = {}  # in their order
        if place is not None:
            self._read(place / NAME)

    def __contains__(self, session: object) -> bool:
        return session in self._sessions

    def _read(self, path: Path) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return
        with open(fd, "rb") as file:
            state = os.fstat(fd)
            if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid():
                return
            data = file.read(2 * COUNT_MAX * RECORD_BYTES)
        for begin in range(0, len(data) - RECORD_BYTES + 1, RECORD_BYTES):
            session = data[begin : begin + SESSION_BYTES]
            if _record(session) == data[begin : begin + RECORD_BYTES]:
                self._sessions[session] = None
        self._shorten()

    def add(self, sessions: Iterable[bytes], journals: Iterable[Path]) -> None:
        """Sessions are over whose journals have been deleted; on a thread that may wait for the disk.

        Args:
            sessions: theirs.
            journals: where they were. Before it counts, the disk has to know that they are not there any more: else
                they might be there again after a crash.
        """
        new = [session for session in sessions if session not in self._sessions]
        try:
            for folder in {path.parent for path in journals}:
                sync_folder(folder)
        except OSError as error:
            log.info("sessions that are over stay in the ledgers: %s", error)
            return
        self._sessions.update(dict.fromkeys(new))
        try:
            self._write(new)
        except OSError as error:  # the next daemon does not know of them
            log.info("%s: %s", self._place, error)

    def _write(self, new: list[bytes]) -> None:
        if self._place is None:
            return
        path = private_dir(self._place) / NAME
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        if len(self._sessions) > COUNT_MAX:
            self._shorten()
            making = path.with_name(f".new-{NAME}-{os.getpid()}")
            with open(os.open(making, flags | os.O_TRUNC, 0o600), "wb") as file:
                file.write(b"".join(map(_record, self._sessions)))
            making.rename(path)
            return
        fd = os.open(path, flags | os.O_APPEND, 0o600)
        try:
            torn = os.fstat(fd).st_size % RECORD_BYTES  # by a kill, or a full disk
            os.write(fd, bytes(-torn % RECORD_BYTES) + b"".join(map(_record, new)))
        finally:
            os.close(fd)

    def _shorten(self) -> None:
        """Forget the older half of too many."""
        if len(self._sessions) > COUNT_MAX:
            self._sessions = dict.fromkeys(list(self._sessions)[-COUNT_MAX // 2 :])


def _record(session: bytes) -> bytes:
    return session + zlib.crc32(session).to_bytes(4, "little")
