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

log = logging.getLogger(__name__)

SCAN_SECONDS = 2.0
UNFINISHED_SECONDS = 5.0  # a journal is made or removed in milliseconds; one that is at it for so long was killed
QUARANTINE = "quarantine"
QUARANTINED_MAX = 1000


class Adopter:
    """Finds journals without an owner in the spool and drains them through the hub."""

    def __init__(self, hub: Hub, spool: Path) -> None:
        self.quarantined = 0
        self.lost_bytes = 0  # records that were not on disk yet when the machine went down
        self._hub = hub
        self._spool = spool
        self._drains: dict[Path, tuple[JournalReader, Client]] = {}
        self._bad: set[Path] = set()
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
            self._scan()
            self._clean_up(now)
            self._hub.reap(now)
        for path, (reader, client) in list(self._drains.items()):
            try:
                if self._pump(reader, client):
                    self._finish(path, reader, client)
            except (JournalError, RemoteProtocolError, OSError) as error:
                self._put_aside(path, reader, client, str(error))
        return self._next_scan

    def _scan(self) -> None:
        seen = {Path(client.journal) for client in self._hub.clients.values() if client.journal}
        for path in {*journals(self._spool), *(path for path in seen if _is_journal(path))}:
            if path in self._drains or path in self._bad:
                continue
            if scarce(LEFT_BY_ADOPTION):
                break  # the others with a later scan
            try:
                reader = JournalReader(path)
            except JournalBusy:
                continue
            except JournalError as error:
                if getattr(error.__cause__, "errno", None) in (errno.EMFILE, errno.ENFILE):
                    continue  # it is looked at again with the next scan
                if path.exists():  # else its trainer has just finished with it
                    log.warning("cannot adopt: %s", error)
                    self._bad.add(path)
                continue
            if session_name(reader.state.session) != path.name:
                log.warning("cannot adopt %s: it says that it is session %s", path, reader.state.session.hex())
                self._bad.add(path)
                reader.close()
                continue
            self._drains[path] = (reader, self._adopt(path, reader))

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

    def _pump(self, reader: JournalReader, client: Client) -> bool:
        """Read on as far as the session's limit goes. True when all of it is written."""
        session = client.session
        if client.broken:
            raise RemoteProtocolError(client.broken)
        while stretch := reader.definitions(session.definitions_expected, DATA_BYTES_MAX):
            session.feed_definitions(session.definitions_expected, stretch)
        reader.release(session.written)  # if this daemon is killed, the next one begins here
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
        reader.remove()
        del self._drains[path]
        self._hub.forget(client)

    def _put_aside(self, path: Path, reader: JournalReader, client: Client, why: str) -> None:
        log.warning("%s is put aside: %s", path, why)
        reader.release(client.session.written)
        reader.close()
        del self._drains[path]
        self._hub.forget(client)
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
        for reader, client in self._drains.values():
            reader.release(client.session.written)
            reader.close()
        self._drains.clear()


def _is_journal(path: Path) -> bool:
    try:
        return path.is_absolute() and path in journals(path.parent)
    except ValueError:  # a NUL in it
        return False
