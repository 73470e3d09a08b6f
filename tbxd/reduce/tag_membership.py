"""The tags of a run of several ranks: the ranks that log each tag; a tag is one rank's own, or shared.

Nobody says so; it shows. A tag is shared as soon as a second rank logs it. Which ranks log it is *gathered* when all
have come or ended, when all others have passed it by, or when none has come for `JOIN_SECONDS`. Until then nothing of
it goes out. While ranks of the job have never been seen, which may be on their way, no time tells that a tag is
gathered, for `START_SECONDS` from the first that came, or `ENDED_SECONDS` where all that came have ended, no longer
than there are processes that may be one of them, where that can be seen (`launched`); and while somebody who came in
the first `START_SECONDS` has not been seen yet (`coming`), which may be one. No I/O or clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.distributed.rank_policy import MEAN
from tbxd_client.protocol.records import STEP_MIN, TagDefinition

from .aggregate import WORDS, Floats, Integers
from .pending import Alone, Member, Shared
from .watermarks import Frontier

START_SECONDS = 30.0  # from the first rank on, in which one that has never been seen may be on its way
ENDED_SECONDS = 10.0  # the same where all that came have ended
COMING_SECONDS = 0.5  # between two looks for who is on the way
JOIN_SECONDS = 5.0  # without another rank that logs a tag before it is taken that those are all who do
ALL = "all"  # word for a tag: each rank's is shown by itself

UNDECIDED, SOLO, SHARED = 0, 1, 2


class Tags:
    """The tags by number. ``names``, ``words`` and ``definitions``: as they are in the event file, what becomes of
    several ranks' values, and what its first rank says of it. ``decided`` and ``gathered``: (tags,) and more.

    Args:
        world: the number of ranks.
        seconds: how long a rank is waited for at the most.
        coming: tells up to when somebody may be seen who came before a time; None: nobody is on the way.
    """

    def __init__(self, world: int, seconds: float, coming: Callable[[float], float] | None = None) -> None:
        self.frontier = Frontier(world)
        self.names: list[str] = []
        self.words: list[str] = []
        self.definitions: list[TagDefinition] = []
        self.decided = np.zeros(0, np.int8)
        self.gathered = np.zeros(0, np.bool_)
        self.newly_shared = False  # one has turned out to be, and records of it wait
        self._seconds, self.join_seconds = seconds, min(JOIN_SECONDS, seconds)
        self._start_seconds = min(START_SECONDS, seconds)
        self._coming = coming
        self._held_until = 0.0  # for who is on the way; 0: nobody is waited for
        self._known: dict[tuple[int, str], int] = {}
        self._first_seen = np.zeros(0)
        self._last_joined = np.zeros(0)
        self._began: float | None = None
        self.awaited = True  # ranks that have never been seen may be on their way
        self.deserted = False  # those that have come have ended: ranks of one job end together, so none is

    def begin(self, now: float) -> None:
        """Note the arrival of a rank."""
        if self._began is None:
            self._began = now

    def all_here(self, now: float, joined: int) -> bool:
        """Return True if all expected ranks have come, also to a daemon that has just begun."""
        return joined >= self.frontier.world or (self._time_tells(now, joined) and now >= self.here_by)

    @property
    def here_by(self) -> float:
        """The time from which missing ranks are not expected any more."""
        began = self._began if self._began is not None else 0.0
        here_by = began + (max(self._window, self.join_seconds) if self.awaited else self.join_seconds)
        return max(here_by, self._held_until)

    @property
    def _window(self) -> float:
        """The seconds after the first rank in which an unseen one may come."""
        return min(ENDED_SECONDS, self._start_seconds) if self.deserted else self._start_seconds

    @property
    def waits(self) -> bool:
        """True if unseen ranks are waited for, or may be."""
        return self.awaited or self._coming is not None

    def await_none(self) -> None:
        """Stop waiting for unseen ranks, except those of sessions that have come."""
        self.awaited = False

    def hurry(self) -> None:
        """Stop waiting for any unseen rank."""
        self.awaited, self._coming = False, None

    def _time_tells(self, now: float, joined: int) -> bool:
        """Return True if a tag counts as gathered because no rank has joined it for long."""
        if self.awaited and self._began is not None:
            self.awaited = joined < self.frontier.world and now - self._began < self._window
        return not self.awaited and not self._is_somebody_coming(now, joined)

    def _is_somebody_coming(self, now: float, joined: int) -> bool:
        self._held_until = 0.0
        if self._coming is None or self._began is None:
            return False
        last = self._began + self._start_seconds
        if joined >= self.frontier.world or now >= last + self._seconds:  # whoever came in time has had its time
            self._coming = None
            return False
        until = self._coming(last)
        if until > now:
            self._held_until = min(until, now + COMING_SECONDS)
        return until > now

    def find(self, kind: int, name: str) -> int | None:
        """Return the number of a tag of a kind of record."""
        return self._known.get((kind, name))

    def add(self, kind: int, tag: TagDefinition, shown: str, now: float) -> int:
        """Return a number for a new tag, which is ``shown`` in the event file.

        Raises:
            TooManyTags: there are too many.
        """
        number = self._known[kind, tag.tag] = self.frontier.add()
        self.names.append(shown)
        self.words.append(tag.reduce if tag.reduce in WORDS else MEAN)
        self.definitions.append(tag)
        if number >= len(self.decided):
            more = max(16, number)
            self.decided = _longer(self.decided, more)
            self.gathered = _longer(self.gathered, more)
            self._first_seen, self._last_joined = _longer(self._first_seen, more), _longer(self._last_joined, more)
        self._first_seen[number] = now
        if tag.reduce == ALL:
            self.decided[number] = SOLO
        return number

    def join(self, number: int, rank: int, now: float) -> None:
        """Note that a rank logs a tag."""
        ranks = self.frontier.join(number, rank)
        self._last_joined[number] = now
        self.gathered[number] |= self.frontier.is_whole(number)
        if self.definitions[number].reduce != ALL and ranks > 1:
            self.newly_shared |= bool(self.decided[number] != SHARED)
            self.decided[number] = SHARED

    def leave(self, rank: int) -> None:
        """Note the end of a rank."""
        self.frontier.leave(rank)
        for number in range(self.frontier.count):
            self.gathered[number] |= self.frontier.is_whole(number)

    def leave_but(self, ranks: Collection[int]) -> None:
        """Expect only these ranks: all other processes that might be one have ended."""
        self.await_none()
        for rank in range(self.frontier.world):
            if rank not in ranks:
                self.frontier.leave(rank)
        for number in range(self.frontier.count):
            self.gathered[number] |= self.frontier.is_whole(number)

    def floors(self) -> tuple[Integers, Integers]:
        """Return the place up to which each tag may be written: stretches and steps, (tags,) both."""
        stretches, steps = self.frontier.floors()
        young = ~self.gathered[: len(steps)]
        stretches[young] = steps[young] = STEP_MIN
        return stretches, steps

    def due(self) -> float:
        """The time when the next tag has waited long enough for ranks; 0 if none waits."""
        young = np.flatnonzero(~self.gathered[: self.frontier.count])
        if not len(young):
            return 0.0
        due = float(self._last_joined[young].min()) + self.join_seconds
        due = max(due, self._began + self._window) if self.awaited and self._began is not None else due
        return max(due, self._held_until)

    def decide(
        self, now: float, everything: bool, joined: int, members: Iterable[Member], read: Floats | None = None
    ) -> None:
        """Decide which tags are gathered.

        Args:
            now: seconds, by a clock that does not jump.
            read: (world,) up to when what each rank has logged is known here, by that clock; None: up to now.
            everything: all of them are.
            joined: how many ranks have come at all.
            members: the sessions, with what of them is not settled.
        """
        known = slice(0, self.frontier.count)
        gathered = self.gathered[known]
        begun = self._began is not None and now - self._began >= self.join_seconds
        tells = self._time_tells(now, joined)
        if everything or (begun and tells and joined < 2):
            gathered[:] = True
        elif tells and not gathered.all():
            then = self._read_by_all(now, read)
            gathered |= then - self._last_joined[known] >= self.join_seconds
            gathered |= then - self._first_seen[known] >= self._seconds
        if not gathered.all():
            for member in members:
                self._pass_by(member)
        self.decided[known][gathered & (self.decided[known] == UNDECIDED)] = SOLO

    def _read_by_all(self, now: float, read: Floats | None) -> Floats:
        """Return up to when the records of all ranks that do not log a tag yet are known, (tags,)."""
        known = slice(0, self.frontier.count)
        if read is None or bool((read >= now).all()):
            return np.full(self.frontier.count, now)
        then: Floats = np.where(self.frontier.seen[known] | self.frontier.left, now, read).min(axis=1)
        return then

    def _pass_by(self, member: Member) -> None:
        """A tag is a rank's own when every other rank has come to a later step that this one has logged behind it, or
        beyond one that it has logged before it.

        The processes of a job run one program, so they log in one order; and where one does not, it is counted as late.
        """
        others = self.frontier.left | self.frontier.paused
        others[member.rank] = True
        passed: dict[int, tuple[int, npt.NDArray[np.bool_]]] = {}  # of a tag: its first step, and who is behind it
        for part in member.parts:
            if isinstance(part, Alone):
                for tag in sorted(set(part.tags.tolist())) if part.one or not part.decided else ():
                    if not self.gathered[tag] and tag not in passed:
                        if self._are_beyond(part.behind, tag, others):
                            self.gathered[tag] = True
                        else:
                            passed[tag] = (part.first_step, others.copy())
            elif isinstance(part, Shared) and passed and len(part.tags):
                place = int(part.steps.argmax())
                last = int(part.steps[place])
                come = self.frontier.reached(int(part.tags[place]), int(part.stretches[place]), last)
                for tag, (step, ranks) in list(passed.items()):
                    if last > step:
                        np.logical_or(ranks, come, out=ranks)
                        if ranks.all():
                            self.gathered[tag] = True
                            del passed[tag]

    def _are_beyond(self, behind: Iterable[tuple[int, int, int]], tag: int, others: npt.NDArray[np.bool_]) -> bool:
        """Whether all have gone on from what a rank has logged just before a tag: what comes next in the program is not
        waited for, as it may not be read before this is written."""
        last = {before: (stretch, step) for before, stretch, step in behind}
        for before, (stretch, step) in last.items():
            if before != tag and self.decided[before] == SHARED:
                come = self.frontier.reached(before, stretch, step + 1)
                if bool((come | others).all()):
                    return True
        return False


def _longer(array: npt.NDArray[Any], more: int) -> npt.NDArray[Any]:
    return np.concatenate([array, np.zeros(more, array.dtype)])
