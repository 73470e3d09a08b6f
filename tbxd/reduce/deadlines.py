"""Deadlines for ranks: points that have waited long enough are written without the missing ranks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from tbxd_client.protocol.records import STEP_MIN

from .aggregate import Floats, Integers
from .waiting import Overdue, Waiting
from .watermarks import Frontier, not_beyond

Read = Callable[[bytes], tuple[float, float]]
LOOKS = 8  # in the time for which a rank is waited for, at how far the tags have gone out


class Patience:
    """The waiting times for the ranks of one start of a job.

    Args:
        frontier: who has logged how far.
        waiting: what waits.
        seconds: how long it does for a rank.
        quiet: after so many seconds without anything of a rank it is not waited for where too much waits.
        read: tells of a session up to when all that it has logged has come, and since when nothing more has; None: all
            has come always.
    """

    def __init__(self, frontier: Frontier, waiting: Waiting, seconds: float, quiet: float, read: Read | None) -> None:
        self._frontier, self._waiting, self._seconds, self._read = frontier, waiting, seconds, read
        self._quiet = quiet
        self._came = np.full(frontier.world, -np.inf)  # when something last did of each rank
        # How far the tags had gone out, at what times.
        self._looks: deque[tuple[float, Integers, Integers]] = deque()

    def come(self, rank: int, now: float) -> None:
        """Note the arrival of a rank's records."""
        self._came[rank] = now

    def look(self, now: float) -> None:
        """Record the last written places of the tags."""
        frontier = self._frontier
        count = frontier.count
        if count and (not self._looks or now - self._looks[-1][0] >= self._seconds / LOOKS):
            self._looks.append((now, frontier.stretch[:count].copy(), frontier.emitted[:count].copy()))
            while len(self._looks) > 1 and now - self._looks[1][0] >= self._seconds:
                self._looks.popleft()

    def were_out(self, tags: Integers, stretches: Integers, steps: Integers) -> npt.NDArray[np.bool_]:
        """Return a mask of the places, (N,), that were written about one waiting time ago."""
        if not self._looks:
            return np.zeros(len(tags), np.bool_)
        _, stretch, emitted = self._looks[0]
        known = np.minimum(tags, len(emitted) - 1)
        stretch, emitted = (np.where(tags < len(emitted), old[known], STEP_MIN) for old in (stretch, emitted))
        return not_beyond(stretches, steps, stretch, emitted)

    def known(self, now: float, alive: Mapping[int, Iterable[bytes]], patience: float | None = None) -> Floats:
        """Return up to when the records of each rank are known, (world,), by the clock of ``now``.

        A rank that has more than has been read is on its way; one of which nothing could be read for ``patience``
        seconds is not, whatever keeps it.
        """
        patience = self._seconds if patience is None else patience
        known = np.full(self._frontier.world, now)
        if self._read is None:
            return known
        for rank, sessions in alive.items():
            for session in sessions:
                read, moved = self._read(session)
                if read < now and now - moved < patience:
                    known[rank] = min(known[rank], read)
        return known

    def pass_over(self, now: float, known: Floats) -> None:
        """Stop waiting for ranks that are behind others by more than the waiting time.

        Args:
            now: seconds, by a clock that does not jump.
            known: (world,) see `known`.
        """
        for then in sorted(set(known.tolist())):
            self._pass(self._waiting.overdue(then - self._seconds), known == then)
        # One that logs is on its way, however far it is behind: it may just be read later than the others.
        quiet = (known >= now) & (now - self._came >= self._quiet)
        if quiet.any():
            self._pass(self._waiting.too_many(), quiet)

    def _pass(self, overdue: Overdue, ranks: npt.NDArray[np.bool_]) -> None:
        if overdue:
            tags = np.array(list(overdue), np.int64)
            stretches, steps = np.array(list(overdue.values()), np.int64).T
            self._frontier.pass_over(tags, stretches, steps, ranks)
