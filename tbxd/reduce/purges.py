"""Restarts that ranks request (``purge_step``): their points from the step on are forgotten, once for all of them.

The n-th restart of one rank goes with the n-th of another, as the processes of a job run one program. It is written
when every rank has come to it and all that they have logged before is out, so that it takes just that: neither clocks
nor how far a rank is behind decide what is forgotten. Where the notes of an event file say which restart is which, a
daemon that comes next knows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..tfevents.ledger import Entry
from ..tfevents.rank_notes import Restarted


@dataclass(slots=True, frozen=True)
class Scope:
    """What a restart takes: of ``tags``, those of this start of the job, everything from its step on (``forget``) or,
    where it comes before all that its ranks have logged, nothing. Of other tags what was logged before it was asked
    for. ``restart`` is which one it is; None where it is not one of these ranks."""

    tags: frozenset[str] = frozenset()
    forget: bool = False
    restart: Restarted | None = None


class Restarts:
    """The restarts of one start of a job.

    Args:
        known: what the run's event files say of them.
        entry: gives how far a session is settled.
    """

    def __init__(self, known: Iterable[Restarted], entry: Callable[[bytes], Entry]) -> None:
        self.written = 0  # so many are in the event file
        self._said: dict[int, int] = {}  # by each rank
        self._numbers: dict[tuple[bytes, int], int] = {}
        for restart in known:
            self._numbers[restart.session, restart.position] = restart.number
            self._said[restart.rank] = max(restart.number, self._said.get(restart.rank, 0))
            if entry(restart.session).end >= restart.position:
                self.written = max(restart.number, self.written)

    def number(self, rank: int, session: bytes, position: int) -> int:
        """Return the number of a restart among those of its rank, from 1 on."""
        number = self._numbers.get((session, position))
        if number is None:
            number = self._said[rank] = self._said.get(rank, 0) + 1
            self._numbers[session, position] = number
        return number
