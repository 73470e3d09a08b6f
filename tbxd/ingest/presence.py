"""Whether the processes behind sessions are there, when they have ended, and which sessions are over for good.

A process on this host shows by its journal that it is there, one on another host by what it says. Two processes that
log to one run and were there at the same time are two jobs; one that began after the other's end goes on with it: so
it is remembered when processes have ended.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from tbxd_client.distributed import process_identity
from tbxd_client.journal.journal_files import CONTROL_NAME, session_name
from tbxd_client.protocol import wire
from tbxd_client.transport.launcher import is_locked

from ..process.serial_queue import Strand
from .client import SESSIONS_MAX, Client, Send
from .ended_sessions import Ended

LIVES_SECONDS = 60.0  # a client that has said something since, and whose process is there, goes on without its journal
REMOTE_SILENCE_SECONDS = 120.0  # a client on another host that says nothing for so long is gone,
QUIET_SECONDS = 20.0  # and for so long it is taken to have ended, where another logs to its run: it speaks every 15 s
# So long two processes have to have been there at once for this to count: what one has said may be read a moment later.
OVERLAP_MS = 2000
ENDS_MAX = 10_000  # of processes, that are remembered


class Presence:
    """Who is there of the processes behind sessions.

    Args:
        clients: by session.
        spools: where the journals of this host are.
        ended: is told which sessions are over for good.
        housekeeping: takes jobs that wait for the disk.
        send: sends a message to a peer.
    """

    def __init__(
        self,
        clients: Mapping[bytes, Client],
        spools: Sequence[Path],
        ended: Ended,
        housekeeping: Strand,
        send: Send,
    ) -> None:
        self._clients = clients
        self._spools = spools
        self._ended = ended
        self._housekeeping = housekeeping
        self._send = send
        self._host = os.uname().nodename
        self._ends: dict[bytes, int] = {}  # when processes were seen to have ended, by session
        self._leaving: dict[bytes, Path] = {}  # sessions of which all is written, until their journals are gone

    # --- what any thread may ask -----------------------------------------------------------------------------

    def read(self, id: bytes) -> tuple[float, float]:
        """Up to when all that a session has logged has come, and when something of it last did, by the monotonic clock.

        A client sends as far as it may, so one that has stopped before that has no more.
        """
        client, now = self._clients.get(id), time.monotonic()
        if client is None or client.complete or client.broken or not client.has_more:
            return now, now
        return client.read, client.moved

    def alive(self, id: bytes, began: int) -> bool:
        """Whether the process of a session may still log, or could when another began.

        Args:
            id: the session.
            began: milliseconds since the start of this system; 0: it is about this moment.
        """
        if began and self._ends.get(id, 0) > began + OVERLAP_MS:
            return True
        client = self._clients.get(id)
        if client is None:  # one that has not found this daemon yet, perhaps
            return any(is_locked(spool / session_name(id) / CONTROL_NAME) for spool in self._spools)
        if client.peer is None or client.complete or client.gone:
            return False
        return not client.key or time.monotonic() - client.heard < QUIET_SECONDS

    # --- begins and ends -------------------------------------------------------------------------------------

    def place_in_time(self, client: Client, known: int) -> None:
        """Say in this host's time when a process on another one began, and see who of its runs is gone.

        Args:
            known: so many of its runs were there before.
        """
        runs = client.session.runs
        for number, run in enumerate(runs[known:], known):
            if run is None:
                continue
            same = bool(client.boot) and run.boot == client.boot
            runs[number] = run._replace(
                boot=process_identity.boot() if same else "", began=max(1, run.began + client.ahead) if same else 0
            )
            for other in self._clients.values():
                if other.key and other.peer is not None and other is not client and not other.gone:
                    shared = any(one is not None and one.directory == run.directory for one in other.session.runs)
                    if shared and not self._reaches(other):
                        other.gone = True

    def _reaches(self, client: Client) -> bool:
        """Whether a message comes to a client, which is told nothing new."""
        session = client.session
        assert client.peer is not None
        ack = wire.Ack(session.id, session.written, client.announced, {}, session.held, client.leftovers_written)
        return self._send(client.peer, ack) is not False

    def note_end(self, client: Client, stored: float = 0.0) -> None:
        """The process of a client is seen to have ended: not before it was last heard, or has last stored something,
        in milliseconds since the start of this system."""
        if client.session.id not in self._ends and (client.peer is not None or stored):
            heard = (
                process_identity.clock() - 1000 * (time.monotonic() - client.heard) if client.peer is not None else 0.0
            )
            self._ends[client.session.id] = round(max(heard, stored))
            if len(self._ends) > ENDS_MAX:
                del self._ends[next(iter(self._ends))]

    def is_gone(self, client: Client, now: float) -> bool:
        """Whether a client has gone without a word and left nothing behind."""
        if client.peer is None or client.under_way or (client.session.outstanding and not client.again):
            return False
        if client.host == self._host and client.journal and _exists(client.journal):
            client.journal_seen = True
            return False
        gone = client.journal_seen and client.host == self._host and not _lives(client, now)
        return gone or now - client.heard > REMOTE_SILENCE_SECONDS

    # --- sessions that are over for good ---------------------------------------------------------------------

    def leave(self, client: Client) -> None:
        """All of a session is written, and its journal is being deleted: when it is gone, the session is over."""
        session = client.session
        seen = client.journal_seen or client.readable is not None or client.peer is None
        here = seen and not client.key and client.journal and client.host in ("", self._host)
        if len(self._leaving) >= SESSIONS_MAX:
            return
        if here and not client.broken and not session.outstanding and session.written == session.expected:
            self._leaving[session.id] = Path(client.journal)

    def note_over(self) -> None:
        """Note which sessions are over: those whose journals have gone."""
        gone = {
            session: path
            for session, path in self._leaving.items()
            if session not in self._clients and not _exists(path)
        }
        if gone:
            for session in gone:
                del self._leaving[session]
            self._housekeeping.submit(partial(self._ended.add, list(gone), list(gone.values())))


def _lives(client: Client, now: float) -> bool:
    """Whether somebody has removed the journal of a trainer that goes on, as far as can be seen from here."""
    if client.peer is None or not client.peer.pid or now - client.heard > LIVES_SECONDS:
        return False
    try:
        os.kill(client.peer.pid, 0)
    except PermissionError:  # it has become another user
        return True
    except OSError:
        return False
    return True


def _exists(path: Path | str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - False for whatever cannot be looked at, and a third of the time
