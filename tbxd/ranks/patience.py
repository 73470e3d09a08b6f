"""For whom it is waited, and how long: what has waited long enough goes out without those who have not come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt

from tbxd_client.records import STEP_MIN

from .frontier import Frontier
from .points import Floats, Integers, Points, joined

Read = Callable[[bytes], tuple[float, float]]
LOOKS = 8  # in the time for which a rank is waited for, at how far the tags have gone out
PENDING_STEPS_MAX = 1000  # of a tag that wait for a rank: the oldest of more go out without it


class Patience:
    """With the ranks of one start of a job.

    Args:
        frontier: who has logged how far.
        seconds: how long a point waits for a rank.
        read: tells of a session up to when all that it has logged has come, and since when nothing more has; None: all
            has come always.
    """

    def __init__(self, frontier: Frontier, seconds: float, read: Read | None) -> None:
        self._frontier, self._seconds, self._read = frontier, seconds, read
        self._looks: deque[tuple[float, Integers]] = deque()  # how far the tags had gone out, at what times

    def look(self, now: float) -> None:
        """Remember how far the tags have gone out."""
        count = self._frontier.count
        if count and (not self._looks or now - self._looks[-1][0] >= self._seconds / LOOKS):
            self._looks.append((now, self._frontier.emitted[:count].copy()))
            while len(self._looks) > 1 and now - self._looks[1][0] >= self._seconds:
                self._looks.popleft()

    def forget(self) -> None:
        """Tags go back: how far they were says nothing any more."""
        self._looks.clear()

    def old(self, tags: Integers) -> Integers:
        """How far tags had gone out when it was about as long ago as a rank is waited for."""
        if not self._looks:
            return np.full(len(tags), STEP_MIN, np.int64)
        _, emitted = self._looks[0]
        steps: Integers = np.where(tags < len(emitted), emitted[np.minimum(tags, len(emitted) - 1)], STEP_MIN)
        return steps

    def known(self, now: float, alive: Mapping[int, Iterable[bytes]], patience: float | None = None) -> Floats:
        """Up to when it is known of each rank what it has logged, (world,), by the clock of ``now``.

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

    def leave_behind(self, known: Floats, later: Iterable[Points]) -> None:
        """Wait no more for ranks that do not come to a stretch in which others have been for long."""
        for points in later:
            for tag in set(points.tags[points.arrivals <= float(known.min()) - self._seconds].tolist()):
                behind = self._frontier.own[tag] <= self._frontier.stretch[tag]
                self._frontier.expected[tag] &= ~behind

    def pass_over(
        self, now: float, known: Floats, pending: list[Points], histograms: Mapping[tuple[int, int], float]
    ) -> None:
        """Wait no more for ranks that have not logged what others had long ago.

        Args:
            now: seconds, by a clock that does not jump.
            known: (world,) see `known`.
            pending: what waits, of scalars,
            histograms: and since when, by tag and step, of histograms.
        """
        for then in sorted(set(known.tolist())):
            self._pass_over(then, known == then, then >= now, pending, histograms)

    def _pass_over(
        self,
        now: float,
        ranks: npt.NDArray[np.bool_],
        all_read: bool,
        pending: list[Points],
        histograms: Mapping[tuple[int, int], float],
    ) -> None:
        """
        Args:
            now: up to when it is known what they have logged.
            ranks: (world,) which they are.
            all_read: that is all of it, so that too many steps do not wait for them either.
            pending, histograms: what waits.
        """
        overdue: dict[int, int] = {}
        for points in pending:
            old = points.arrivals <= now - self._seconds
            if old.any():
                for tag in np.unique(points.tags[old]).tolist():
                    step = int(points.steps[old & (points.tags == tag)].max())
                    overdue[tag] = max(step, overdue.get(tag, step))
        for (tag, step), arrival in histograms.items():
            if arrival <= now - self._seconds:
                overdue[tag] = max(step, overdue.get(tag, step))
        if all_read and sum(len(points) for points in pending) > PENDING_STEPS_MAX:
            self._too_many(overdue, pending)
        if overdue:
            tags, steps = np.array(list(overdue), np.int64), np.array(list(overdue.values()), np.int64)
            self._frontier.pass_over(tags, steps, ranks)

    def _too_many(self, overdue: dict[int, int], pending: list[Points]) -> None:
        """Of a tag of which too many steps wait the oldest do no more."""
        points = pending[0] if len(pending) == 1 else joined(pending)
        floors = self._frontier.floors()
        waiting = points.steps > floors[points.tags]
        tags, steps = points.tags[waiting], points.steps[waiting]
        for tag in np.flatnonzero(np.bincount(tags) > PENDING_STEPS_MAX).tolist():
            known = np.unique(steps[tags == tag])
            if len(known) > PENDING_STEPS_MAX:
                step = int(known[-PENDING_STEPS_MAX - 1])
                overdue[tag] = max(step, overdue.get(tag, step))
