"""The points of ranks in the event files before the daemon began, to recognise repeated records."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tbxd_client.protocol.records import STEP_MIN

from ..tfevents.rank_points import Curve, History, Place
from .aggregate import Integers
from .companion_runs import Sides
from .pending import Member, Shared
from .tag_membership import ALL, SHARED, Tags
from .watermarks import not_beyond

_NOTHING: Place = (0, STEP_MIN)


class Recall:
    """The earlier points of one start of a job.

    Args:
        history: what the run's files hold.
        sides: the runs beside it.
        tags: those of the run.
    """

    def __init__(self, history: History, sides: Sides, tags: Tags) -> None:
        self.history = history
        self._sides, self._tags, self._frontier = sides, tags, tags.frontier
        self._curves: list[Curve] = []
        self._held: list[Place] = []
        # The last place of each tag that the sides held.
        self._beside_stretches: Integers = np.zeros(0, np.int64)
        self._beside_steps: Integers = np.zeros(0, np.int64)
        self._placed: set[tuple[int, int]] = set()  # tags and ranks

    @property
    def names(self) -> frozenset[str]:
        """Return the tags that the run had."""
        return frozenset(tag for tag, _ in (*self.history.last, *self.history.alone))

    @property
    def begun(self) -> bool:
        """True if there were any points."""
        return bool(self.history.last or self.history.alone)

    def author(self, curve: Curve, session: bytes) -> tuple[bytes, int]:
        """Return the session that has written a curve as it is, and its last step; `STEP_MIN` if none has."""
        return self.history.alone.get(curve, (session, STEP_MIN))

    def tag(self, number: int, curve: Curve, session: bytes, word: str) -> bool:
        """Add a new tag, first from a session. Return True if the run had points of it."""
        if number >= len(self._beside_steps):
            more = max(16, number)
            self._beside_stretches = np.concatenate([self._beside_stretches, np.zeros(more, np.int64)])
            self._beside_steps = np.concatenate([self._beside_steps, np.full(more, STEP_MIN, np.int64)])
        last = self.history.last.get(curve)
        owner, alone = self.author(curve, session)
        held = _NOTHING if last is None else last
        self._curves.append(curve)
        self._held.append(held)
        stretch, step = held if held[0] else (0, max(held[1], alone))
        self._frontier.stretch[number], self._frontier.emitted[number] = stretch, step
        beside = self._sides.last(curve)
        self._beside_stretches[number], self._beside_steps[number] = beside
        if last is not None or beside > _NOTHING or (owner != session and word != ALL):
            self._tags.decided[number] = SHARED
        return last is not None or alone > STEP_MIN

    def place(self, member: Member, number: int, tag: int, position: int) -> None:
        """Set the place of a session in a tag, before its first record.

        Args:
            number: of the tag,
            tag: the session's own.
            position: the end of the record.
        """
        if tag in self.history.begins.get(member.session, {}):
            member.listed.add(number)
        if (number, member.rank) not in self._placed:
            self._placed.add((number, member.rank))
            own, last = self.history.place(self._curves[number], member.session, member.rank, tag, position)
            self._frontier.own[number, member.rank], self._frontier.last[number, member.rank] = own, last

    def come_again(self, member: Member, part: Shared) -> None:
        """Note which of a session's repeated records have arrived."""
        for number in set(part.tags.tolist()):
            place = member.outstanding.get(self._curves[number])
            if place is not None:
                last = int(np.flatnonzero(part.tags == number)[-1])
                if (int(part.stretches[last]), int(part.steps[last])) >= place:
                    del member.outstanding[self._curves[number]]

    def late(self, rank: int, part: Shared, fresh: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
        """Return a mask of late records; None if none is late, nor in a point made before the daemon began.

        Args:
            rank: whose.
            part: the records.
            fresh: (N,) which are of points that are not out; those that a side shows otherwise are taken from it.
        """
        tags, stretches, steps = part.tags, part.stretches, part.steps
        again = fresh & not_beyond(stretches, steps, self._beside_stretches[tags], self._beside_steps[tags])
        if fresh.all() and not again.any():
            return None
        late = np.zeros(len(fresh), np.bool_)
        for index in np.flatnonzero(~fresh | again).tolist():
            number, place = int(tags[index]), (int(stretches[index]), int(steps[index]))
            curve = self._curves[number]
            if again[index]:  # in the sides, but not in the run: with the same ranks here as there
                late[index] = self._sides.excludes(curve, *place, rank)
            else:
                late[index] = place > self._held[number] or not self.history.holds(curve, *place, rank)
        fresh &= ~late
        return late
