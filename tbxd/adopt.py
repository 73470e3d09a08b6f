"""Adoption: what dead trainers have left in their journals is fed to the hub as if they had sent it.

A journal's lock tells whether its trainer lives. One that is free is taken, read with ``pread`` from where the daemon
has got to, and deleted when everything in it is in the event files. One that makes no sense is put aside, for a
person to look at.
"""

from __future__ import annotations

import errno
import logging
import time
from pathlib import Path

from tbxd_client.journal_files import (
    CONTROL_NAME,
    JournalBusy,
    JournalError,
    JournalReader,
    journals,
    remove_journal,
    session_name,
    unfinished,
)
from tbxd_client.launch import is_locked
from tbxd_client.records import RemoteProtocolError
from tbxd_client.wire import DATA_BYTES_MAX

from .descriptors import LEFT_BY_ADOPTION, scarce
from .hub import Client, Hub
from .session import Session
from .walls import text_of

log = logging.getLogger(__name__)

SCAN_SECONDS = 2.0
UNFINISHED_SECONDS = 5.0  # a journal is made or removed in milliseconds; one that is at it for so long was killed
QUARANTINE = "quarantine"
QUARANTINED_MAX = 1000
TRIES_MAX = 3  # for a journal with which something went wrong here, before it is put aside
TRY_SECONDS = 10.0  # between two of them


class Adopter:
    """Finds journals without an owner in the spool and drains them through the hub."""

    def __init__(self, hub: Hub, spool: Path) -> None:
        self.quarantined = 0
        self.lost_bytes = 0  # records that were not on disk yet when the machine went down
        self._hub = hub
        self._spool = spool
        self._drains: dict[Path, tuple[JournalReader, Client]] = {}
        self._bad: set[Path] = set()
        self._later: dict[Path, tuple[int, float]] = {}  # those that broke: how often, and when they are tried again
        self._unreleased: set[Path] = set()  # where it cannot be noted how much is written, which was told
        self._unfinished: dict[Path, float] = {}  # and when it was first seen
        self._next_scan = 0.0

    @property
    def busy(self) -> bool:
        """Whether a journal is being drained."""
        return bool(self._drains)

    @property
    def draining(self) -> int:
        """How many journals are being drained."""
        return len(self._drains)

    def step(self, now: float) -> float:
        """Look for journals when it is time, and read on in those that are open; returns when to come again."""
        if now >= self._next_scan:
            self._next_scan = now + SCAN_SECONDS
            walls = self._hub.walls
            with walls.around("the look for journals"):
                self._scan(now)
            with walls.around("the look for unfinished journals"):
                self._clean_up(now)
            with walls.around("the look for sessions that are gone"):
                self._hub.reap(now)
        for path, (reader, client) in list(self._drains.items()):
            try:
                self._step(path, reader, client)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                self._hub.walls.broke("the adoption of a journal", error, str(path))
                self._try_later(path, now, text_of(error))
        return self._next_scan

    def _step(self, path: Path, reader: JournalReader, client: Client) -> None:
        try:
            if self._pump(path, reader, client):
                self._finish(path, reader, client)
        except (JournalError, RemoteProtocolError, OSError) as error:
            self._put_aside(path, reader, client, str(error))

    def _try_later(self, path: Path, now: float, why: str) -> None:
        """Let go of a journal with which something went wrong here; it is adopted anew, or put aside at last."""
        drain = self._drains.pop(path, None)
        if drain is None:
            return
        reader, client = drain
        tries, _ = self._later.get(path, (0, 0.0))
        self._later[path] = (tries + 1, now + TRY_SECONDS)
        if tries + 1 < TRIES_MAX:
            client.broken, client.again = why, now  # forgotten when nothing of it is under way
            with self._hub.walls.around("the end of an adoption", str(path)):
                reader.close()
        else:
            with self._hub.walls.around("the end of an adoption", str(path)):
                self._put_aside(path, reader, client, f"internal error: {why}")

    def _scan(self, now: float) -> None:
        seen = {Path(client.journal) for client in self._hub.clients.values() if client.journal}
        for path in {*journals(self._spool), *(path for path in seen if _is_journal(path))}:
            if path in self._drains or path in self._bad or self._later.get(path, (0, 0.0))[1] > now:
                continue
            if scarce(LEFT_BY_ADOPTION):
                break  # the others with a later scan
            with self._hub.walls.around("the adoption of a journal", str(path)):
                self._take(path, now)

    def _take(self, path: Path, now: float) -> None:
        """Adopt a journal, if nobody has it."""
        try:
            reader = JournalReader(path)
        except JournalBusy:
            return
        except JournalError as error:
            if getattr(error.__cause__, "errno", None) in (errno.EMFILE, errno.ENFILE):
                return  # it is looked at again with the next scan
            if path.exists():  # else its trainer has just finished with it
                log.warning("cannot adopt: %s", error)
                self._bad.add(path)
            return
        if session_name(reader.state.session) != path.name:
            log.warning("cannot adopt %s: it says that it is session %s", path, reader.state.session.hex())
            self._bad.add(path)
            reader.close()
            return
        known = self._hub.clients.get(reader.state.session)
        if known is not None and known.again and not self._hub.forgiven(known, now):
            reader.close()  # its session broke here, and begins anew when nothing of it is under way
            return
        try:
            self._drains[path] = (reader, self._adopt(path, reader))
        except BaseException:
            reader.close()
            raise

    def _clean_up(self, now: float) -> None:
        """Delete what a kill has left of a journal that was being made, and so held nothing yet, or being removed."""
        self._unfinished = {path: self._unfinished.get(path, now) for path in unfinished(self._spool)}
        for path, seen in self._unfinished.items():
            if now - seen > UNFINISHED_SECONDS and not is_locked(path / CONTROL_NAME):
                remove_journal(path)

    def _adopt(self, path: Path, reader: JournalReader) -> Client:
        state = reader.state
        client = self._hub.clients.get(state.session)
        if client is None:
            session = Session(state.session, state.released)
            client = Client(session, None, state.pid, "", str(path), "", time.monotonic())
            self._hub.clients[state.session] = client
        client.peer = None
        lost = state.commit - state.readable_end
        if lost:
            self.lost_bytes += lost
            log.warning("%s: the last %d bytes were not on disk when the machine went down", path, lost)
        if state.dropped:
            log.warning("%s: its trainer had to drop records: %s", path, state.dropped)
        log.info("adopting %s of pid %d: %d bytes", path, state.pid, state.readable_end - client.session.expected)
        return client

    def _pump(self, path: Path, reader: JournalReader, client: Client) -> bool:
        """Read on as far as the session's limit goes. True when all of it is written."""
        session = client.session
        if client.broken:
            raise RemoteProtocolError(client.broken)
        while stretch := reader.definitions(session.definitions_expected, DATA_BYTES_MAX):
            session.feed_definitions(session.definitions_expected, stretch)
        self._release(path, reader, session.written)  # if this daemon is killed, the next one begins here
        end = reader.state.readable_end
        while session.expected < min(end, self._hub.limit(client)):
            stretch = reader.read(session.expected, min(DATA_BYTES_MAX, end - session.expected))
            self._hub.feed(client, session.expected, stretch)
        if session.expected >= end:
            self._hub.complete(client)
        if session.expected < end or session.written < end or session.outstanding:
            return False
        return self._hub.tell_rest(client, reader.state.dropped)

    def _finish(self, path: Path, reader: JournalReader, client: Client) -> None:
        log.info("%s: all %d bytes are written", path, client.session.written)
        del self._drains[path]
        self._unreleased.discard(path)
        self._later.pop(path, None)
        self._hub.forget(client)
        reader.remove()
        if path.exists():
            log.warning("%s: all of it is written, and it cannot be deleted", path)
            self._bad.add(path)

    def _release(self, path: Path, reader: JournalReader, position: int) -> None:
        """Note in a journal how much of it is written. Where its disk does not take that, the ledger knows it, too."""
        try:
            reader.release(position)
        except OSError as error:
            if path not in self._unreleased:
                self._unreleased.add(path)
                log.warning("%s: it cannot be noted how much of it is written: %s", path, error.strerror or error)

    def _put_aside(self, path: Path, reader: JournalReader, client: Client, why: str) -> None:
        log.warning("%s is put aside: %s", path, why)
        self._drains.pop(path, None)
        self._later.pop(path, None)
        self._hub.forget(client)
        self._release(path, reader, client.session.written)
        reader.close()
        self.quarantined += 1
        self._bad.add(path)
        try:
            folder = self._spool / QUARANTINE
            folder.mkdir(mode=0o700, exist_ok=True)
            if sum(1 for _ in folder.iterdir()) < QUARANTINED_MAX:
                path.rename(folder / path.name)
        except OSError as error:
            log.warning("%s stays where it is: %s", path, error)

    def close(self) -> None:
        """Let go of what is not drained; the next daemon goes on."""
        for path, (reader, client) in self._drains.items():
            with self._hub.walls.around("the end of an adoption", str(path)):
                self._release(path, reader, client.session.written)
                reader.close()
        self._drains.clear()


def _is_journal(path: Path) -> bool:
    try:
        return path.is_absolute() and path in journals(path.parent)
    except ValueError:  # a NUL in it
        return False
