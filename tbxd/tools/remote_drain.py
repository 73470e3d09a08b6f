"""Sends the journals of ended trainers of this host to a daemon on another one (``tbxd drain`` with its address).

A daemon adopts the journals of ended trainers that it can see. It cannot see those on another host: there a process
sends the journals, each as its session, over the trainer's own route. So no record arrives twice, and acknowledged
records are deleted as the trainer would have done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tbxd_client.config.paths import remote_spool, spools
from tbxd_client.journal.journal_files import JournalBusy, JournalError, JournalReader
from tbxd_client.process.doorbell import Doorbell
from tbxd_client.protocol.records import RemoteProtocolError
from tbxd_client.protocol.wire import DATA_BYTES_MAX
from tbxd_client.transport.sender import Sender

from ..config.settings import Settings
from ..ingest.session import Session
from ..transport import control_client
from . import leftovers
from .drain import HOLDERS_SECONDS, STALL_SECONDS, Progress

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
TELL_SECONDS = 2.0  # without an acknowledgement before it is asked why
STOP_SECONDS = 2.0  # for the goodbye
REFUSED = "refused"


class Left:
    """A journal without a trainer, with the interface that a sender needs."""

    def __init__(self, reader: JournalReader) -> None:
        self._reader = reader
        self.path = self.folder = reader.path
        self.place = str(reader.path)
        self.session = reader.state.session
        self.committed = self.position = reader.state.readable_end
        self.released = reader.state.released
        self._definitions = b""
        while stretch := reader.definitions(len(self._definitions), DATA_BYTES_MAX):
            self._definitions += stretch
        self.definitions_end = len(self._definitions)

    def read(self, position: int, length: int) -> bytes:
        """Return records from a position."""
        return self._reader.read(position, length)

    def read_definitions(self, position: int, length: int) -> bytes:
        """Return definitions from a position."""
        return self._definitions[position : position + length]

    def release(self, position: int) -> None:
        """Release the records before a position, which are acknowledged."""
        self._reader.release(position)
        self.released = max(self.released, position)

    def sync(self) -> None:
        """Do nothing: the journal does not change any more."""

    def arm(self, position: int) -> bool:
        """Return False: no writer rings the doorbell."""
        return False

    def reports(self) -> dict[int, Any]:
        """Return what its trainer has dropped, if the session has only one run."""
        state = self._reader.state
        session = Session(self.session, 0)
        try:
            session.feed_definitions(0, self._definitions)
        except RemoteProtocolError:
            return {}
        runs = [run for run in session.runs if run is not None]
        if state.dropped and len(runs) != 1:
            log.warning("%s: its trainer had to drop records: %s", self.path, state.dropped)
        if not state.records or len(runs) != 1:
            return {}
        return {runs[0].id: [state.records, dict(state.dropped)]}


def forward(settings: Settings, show: Callable[[Progress], None], stall_seconds: float = STALL_SECONDS) -> Progress:
    """Send the journals one by one; return when none is left, or when there is no progress.

    Args:
        settings: the daemon's address, and the spool of this host.
        show: called with the progress, several times a second.
        stall_seconds: the longest time without an acknowledgement.
    """
    folders = [remote_spool(spool, settings.address) for spool in spools(settings.spool)]
    progress = Progress()
    given_up: dict[Path, str] = {}
    moved, last = time.monotonic(), -1
    while True:
        left = leftovers.look(folders)
        todo = [path for path in left.places.values() if path not in given_up]
        if todo:
            why = _take(todo[0], folders, settings, stall_seconds, progress, show)
            if why is not None:
                given_up[todo[0]] = why
            if why and not why.startswith(REFUSED):
                break  # the others would wait for the same
            continue
        if left.size < last or last < 0:  # somebody else sends what is held
            moved = time.monotonic()
        last = left.size
        _count(folders, progress)
        progress.reasons |= left.reasons
        show(progress)
        if not left.held or time.monotonic() - moved > stall_seconds:
            break
        time.sleep(HOLDERS_SECONDS)
    progress.reasons = {str(path): why for path, why in given_up.items() if why and path.exists()}
    progress.reasons |= leftovers.look(folders).reasons
    _count(folders, progress)
    show(progress)
    return progress


def _take(
    path: Path,
    folders: list[Path],
    settings: Settings,
    stall_seconds: float,
    progress: Progress,
    show: Callable[[Progress], None],
) -> str | None:
    """Send a journal and delete it; return why not all of it is written, None if it is."""
    try:
        reader = JournalReader(path)
    except JournalBusy:  # somebody else sends it
        return None
    except JournalError as error:
        return str(error).removeprefix(f"{path}: ") if path.exists() else ""
    try:
        why = _send(Left(reader), folders, settings, stall_seconds, progress, show)
        if not why:
            reader.remove()
            return None
        return why
    finally:
        reader.close()


def _send(
    left: Left,
    folders: list[Path],
    settings: Settings,
    stall_seconds: float,
    progress: Progress,
    show: Callable[[Progress], None],
) -> str:
    """Send one journal; return why not all of it is written, "" if it is."""
    doorbell = Doorbell()
    address = settings.address
    sender = Sender(left, doorbell, address, None, left.reports, lambda runs: None, aloud=False)  # type: ignore[arg-type]
    before, begin = progress.written, left.released
    sender.acknowledged = last = begin
    moved = time.monotonic()
    sender.start()
    try:
        while not (sender.flush(left.committed, LOOK_SECONDS, last=True, written=True) and sender.greeted):
            if sender.acknowledged > last:
                moved, last = time.monotonic(), sender.acknowledged
            progress.written = before + last - begin
            _count(folders, progress, left.path)
            waited = time.monotonic() - moved
            held_up = _held_up(settings, sender) if waited > TELL_SECONDS else ""
            progress.reasons = {str(left.path): held_up} if held_up else {}
            show(progress)
            if sender.refused:
                return f"{REFUSED}: {sender.refused}"
            if sender.trouble:
                return sender.trouble
            if not sender.alive or time.monotonic() - moved > stall_seconds:
                return held_up or f"the daemon at {address} acknowledges nothing"
            if sender.acknowledged >= left.committed:  # only counts are to be told
                time.sleep(LOOK_SECONDS)
        return ""
    finally:
        progress.written = before + sender.acknowledged - begin
        sender.stop(STOP_SECONDS)
        doorbell.close()


def _held_up(settings: Settings, sender: Sender) -> str:
    """Return why there is no progress."""
    if not sender.connected:
        return f"no daemon answers at {settings.address}: {sender.how}"
    try:
        status = control_client.ask(settings, "status", timeout=TELL_SECONDS)
    except control_client.NotRunning as error:
        return str(error)
    for name, share in status.get("keys", {}).items():
        if share["waits_seconds"]:
            return f"key {name}: quota used up; continues in {share['waits_seconds']:,.0f} s"
    errors = sorted(f"{run}: {counts['error']}" for run, counts in status["runs"].items() if counts["error"])
    return f"the daemon at {settings.address} cannot write: {errors[0]}" if errors else ""


def _count(folders: list[Path], progress: Progress, mine: Path | None = None) -> None:
    """Count the journals without a trainer and their waiting bytes; ``mine`` is the one that is being sent."""
    left = leftovers.look(folders, {mine.name} if mine is not None else set())
    progress.journals, progress.bytes, progress.living = left.count, left.size, left.living
