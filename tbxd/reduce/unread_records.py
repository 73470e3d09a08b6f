"""Finds unread records of a rank: in a journal, or in the hub."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from tbxd_client.journal.journal_files import journals
from tbxd_client.protocol.records import RunDefinition

from .expected_ranks import Coming, Sessions
from .job_starts import generation_of, is_reduced


class _Session(Protocol):
    runs: list[RunDefinition | None]


class _Client(Protocol):
    broken: str
    again: float
    complete: bool

    @property
    def session(self) -> _Session: ...


class Reads(Sessions):
    """The state of sessions for a reduction, and their unread records. Any thread may ask.

    Args:
        read, coming: as for `Sessions`.
        clients: the hub's, by session.
        spools: where journals are.
    """

    def __init__(
        self,
        read: Callable[[bytes], tuple[float, float]],
        coming: Coming,
        clients: Mapping[bytes, _Client],
        spools: Sequence[Path],
    ) -> None:
        super().__init__(read, coming)
        self._clients, self._spools = clients, spools

    def unread(self, run: RunDefinition, known: Container[bytes]) -> bool:
        """Return True if there is a session that may be a rank of a start of a job, and is not in ``known``.

        To be asked when all that may be ranks have ended: what they have left is in a journal then, or here.
        """
        waiting = {path.name for spool in self._spools for path in journals(spool)}  # before the clients are looked at
        clients = list(self._clients.items())
        if waiting.difference(session.hex() for session, _ in clients):
            return True
        return any(session not in known and _may_be(client, run) for session, client in clients)


def _may_be(client: _Client, run: RunDefinition) -> bool:
    """Return True if a session may be a rank of a start of a job."""
    runs = list(client.session.runs)
    if client.broken and not client.again:
        return False
    if not runs:
        return True
    # What has not been read of it may define others.
    return any(
        other is not None
        and (other.directory == run.directory or not client.complete)
        and is_reduced(other)
        and generation_of(other) == generation_of(run)
        for other in runs
    )
