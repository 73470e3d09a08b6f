"""What the status tells of all sessions; see `session_status` for one of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ..process.walls import Walls
from ..runs.accounting import add_counts
from ..scheduler.run_registry import Account
from .client import Client
from .session_status import row_of


class SessionRows:
    """The rows of all sessions in the status.

    Args:
        clients: by session.
        walls: is told what breaks.
    """

    def __init__(self, clients: Mapping[bytes, Client], walls: Walls) -> None:
        self._clients = clients
        self._walls = walls

    def tell(self, accounts: Mapping[str, Account]) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """What is told of each session; and of each run, by folder, how many of its records are on their way.

        Args:
            accounts: of all runs, by folder.
        """
        pending: dict[str, int] = {}
        sessions = []
        for client in self._clients.values():
            session = client.session
            key = (client.heard, client.moved, session.written, client.readable, client.unreadable, client.broken)
            row = client.row
            if row is None or not row.holds(key, accounts):
                row = client.row = None
                with self._walls.around("the status of a session", f"session {session.id.hex()}"):
                    row = client.row = row_of(session.id, key, _expected(client), accounts, partial(_describe, client))
            if row is None:
                continue
            sessions.append(row.told)
            add_counts(pending, row.pending)
        return sessions, pending


def _expected(client: Client) -> dict[str, tuple[int, int]]:
    """For each folder of a session: records accepted, as its trainer says, and records received."""
    result: dict[str, tuple[int, int]] = {}
    for run in client.session.runs:
        if run is not None:
            told, received = result.get(run.directory, (0, 0))
            told += client.reported.accepted(run.id)
            result[run.directory] = (told, received + client.received.get(run.id, 0))
    return result


def _describe(client: Client) -> dict[str, Any]:
    session = client.session
    return {
        "session": session.id.hex(),
        "pid": client.pid,
        "host": client.host,
        "key": client.key,
        "program": client.program,
        "journal": client.journal,
        "runs": len(session.runs),
        "received_bytes": session.expected,
        "written_bytes": session.written,
        "homeless_records": session.homeless,
        "broken": client.broken,
        "adopted": client.peer is None,
        "reads_journal": client.readable is not None,
        "unreadable": client.unreadable,
    }
