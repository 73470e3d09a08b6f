"""The lives of a run: who goes on where an earlier process, or an earlier attempt of the same job, has ended, and who
is something else.

A life is a session, or all ranks of one start of a job that are reduced. What it logs at a step that an earlier one has
passed under the same tag takes the place of what that has logged from there on, tag by tag (`events.resume`), where it
is a restart of it (`Lives.goes_on`); else it is written beside the run (`runs_beside`), so that each point is shown.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.config import settings
from tbxd_client.distributed import process_identity
from tbxd_client.protocol.records import RunDefinition, TagDefinition

from ..reduce.job_starts import generation_of, is_reduced
from ..reduce.purges import Scope
from ..tfevents.contents import Contents
from ..tfevents.lineage import ALL, UNKNOWN, Lineage, beside_text, introduced, is_after, life_of, purge_text, rank_text
from ..tfevents.lineage import Life as Who
from ..tfevents.resume_marks import Life, Resume

log = logging.getLogger(__name__)

FIRST_STEP_MAX = 1  # up to here a training is taken to begin, from 0 or from 1
MEMBERS_MAX = 256  # sessions that are remembered where they may be over

Alive = Callable[[bytes, int], bool]
Integers = npt.NDArray[np.int64]


@dataclass(slots=True)
class Restart:
    """What a restart comes to: the tags that end, what is written for that, and whether none was passed over."""

    tags: Sequence[str]
    events: bytes
    all: bool
    note: str = ""  # that says so, for those that come later


@dataclass(slots=True)
class Member:
    """A session of a run whose records are written as they are."""

    who: Who
    place: int  # in the lineage
    word: str  # of `TBXD_RESUME`
    tags: npt.NDArray[np.int32] = field(default_factory=lambda: np.full(64, -1, np.int32))  # numbers to places of tags
    later: npt.NDArray[np.bool_] | None = None  # which lives, by place, have begun after it; None: not looked yet
    followed: bool = False  # there is one of them
    purged: int | None = None  # from this step on a later life has said that it goes on
    beside: dict[str, int] = field(default_factory=dict)  # as `Lineage.beside`


class Known:
    """What has been logged under each tag, and by whom, as far as it has been encoded: see `events.tags`."""

    def __init__(self, contents: Contents) -> None:
        tags = contents.tags
        self.names = list(tags.names)
        self.places = {name: place for place, name in enumerate(self.names)}
        self.last = np.array(tags.last, np.int64)
        self.most = np.array(tags.most, np.int64)
        self.owner = np.array(tags.owners, np.int32)
        self.era = np.array(tags.eras, np.int32)

    def is_said_once(self, place: int) -> bool:
        """Whether a tag is not of the kind that goes on, by its place: whoever was the last to log it has come further
        with others. Settings of a program, which each process of it says as it begins, are no beginning of its work."""
        count = len(self.names)
        others = self.most[:count][self.owner[:count] == self.owner[place]]
        return int(self.most[place]) <= FIRST_STEP_MAX < int(others.max(initial=0))

    def place(self, name: str) -> int:
        """The place of a tag."""
        place = self.places.get(name)
        if place is None:
            place = self.places[name] = len(self.names)
            self.names.append(name)
            if place >= len(self.last):
                more = max(64, place)
                least = np.iinfo(np.int64).min
                self.last = np.concatenate([self.last, np.full(more, least)])
                self.most = np.concatenate([self.most, np.full(more, least)])
                self.owner = np.concatenate([self.owner, np.full(more, -1, np.int32)])
                self.era = np.concatenate([self.era, np.zeros(more, np.int32)])
        return place


class Lives:
    """Knows for each session of a folder which tags it has yet to log again.

    Args:
        contents: what the folder's files hold; it is read on where that has to be known.
        keep: beginnings of tags that are nobody's: a restart passes over them.
        alive: whether the process of a session may still log, or still could when another began, which is told in
            milliseconds since the start of this system.
    """

    def __init__(self, contents: Contents, keep: tuple[str, ...], alive: Alive = lambda session, began: False) -> None:
        self.contents = contents
        self.keep = keep
        self.resume = Resume(contents)
        self.known: Known | None = None  # None where one session alone has logged here
        self.members: dict[bytes, Member] = {}  # by session
        self.lineage = Lineage()
        self._alive = alive
        self._begun = False  # one of them
        self._told: set[bytes] = set()  # lives that the files name, or what is encoded does
        self._moved: set[bytes] = set()  # lives of ranks that are beside the run, of which the files may not tell yet
        # Of ranks that are reduced:
        self._lives: dict[bytes, Life] = {}  # by life
        self._ranked: dict[bytes, Member] = {}  # the same as members
        self._held: dict[int, bool] = {}  # which of them log now, by their places, as it was when the files were read
        self.staying: frozenset[bytes] = frozenset()  # lives of whose tags the last restart of ranks has taken nothing
        self.busy: set[bytes] = set()  # lives of which there is something that has not gone out, or more may come
        self._strangers: dict[bytes, bool] = {}  # whether one has others beside it with whose work it does not go on
        self._attempts: dict[bytes, int] = {}
        self._sessions: dict[bytes, bytes] = {}  # to their lives
        self._of_life: dict[bytes, set[bytes]] = {}
        self._seen: dict[bytes, npt.NDArray[np.bool_]] = {}  # tags, by number, that a session has logged

    @property
    def reduces(self) -> bool:
        """Whether points of several ranks are written here, of which only the files tell."""
        return bool(self._lives)

    def knows(self, session: bytes) -> bool:
        """Whether a session has been told of."""
        return session in self.members or session in self._sessions

    def begin(self, session: bytes, run: RunDefinition, made: set[str], own: str) -> list[str]:
        """A session logs here for the first time, and its life may begin with that.

        Args:
            run: the folder as the session defines it. All that was logged before has to be in its files.
            made: the names of event files that were made for the sessions that are known.
            own: the one that is being written.

        Returns:
            The notes that say who it is, where the files do not.

        Raises:
            OSError: a file cannot be read at this moment.
        """
        others = self._begun or not made.issuperset(self.contents.names())
        if others:
            over = len(self.members) >= MEMBERS_MAX
            for known in [known for known in self.members if over and not self._alive(known, 0)]:
                del self.members[known]  # what may still come of it is of somebody whom the files name
            self.read(own)
        notes: list[str]
        if is_reduced(run):
            key = life_of(generation_of(run))
            if key not in self._lives:
                mine = self.lineage.place(key)
                owners = self.contents.tags.owners
                earlier = self.resume.earlier() if others else {}
                own_tags = (name for name, owner in zip(self.contents.tags.names, owners, strict=True) if owner == mine)
                for name in own_tags:
                    earlier.pop(name, None)
                self._lives[key] = Life(earlier)
            notes = self._enter_rank(session, key, run)
            self._ranked[key] = Member(introduced(key, run), self.lineage.place(key), run.resume)
        else:
            who = introduced(session, run)
            place = self.lineage.enter(who)
            first = self.lineage.lives[place].key
            if first != session:  # the process has begun another session: it is one life
                self._of_life.setdefault(first, {first}).add(session)
            member = Member(self.lineage.lives[place], place, run.resume)
            member.beside = dict(self.lineage.beside.get(session, {}))
            self.members[session] = member
            notes = self._introduce(session, who)
        self._begun = True
        self._strangers.clear()
        for member in self.members.values():
            member.later = None
        return notes

    def _introduce(self, key: bytes, who: Who) -> list[str]:
        if key in self._told:
            return []
        self._told.add(key)
        return [who.text()]

    def _enter_rank(self, session: bytes, key: bytes, run: RunDefinition) -> list[str]:
        who = introduced(key, run)
        self.lineage.enter(who)
        notes = self._introduce(key, who)
        self._sessions[session] = key
        self._of_life.setdefault(key, set()).add(session)
        self.lineage.join(session, key)
        if session not in self._told:
            self._told.add(session)
            notes.append(rank_text(session, key))
        return notes

    def read(self, own: str, pending: Iterable[bytes | memoryview] = ()) -> None:
        """Know what the files hold now; all that is encoded has to be in them, or in ``pending``.

        Raises:
            OSError: a file cannot be read at this moment.
        """
        self.resume.read(own, pending)
        self.known = Known(self.contents)
        lineage = self.contents.lineage.copy()
        self._told |= {life.key for life in lineage.lives if life.known}
        self._told |= {session for session in self._sessions if lineage.knows(session)}
        for key in self._of_life:
            lineage.place(key)
        for session, key in self._sessions.items():
            lineage.join(session, key)
        for session, member in self.members.items():
            member.place = lineage.enter(member.who)
            member.tags = np.full(64, -1, np.int32)
            member.later = None
            for tag, position in lineage.beside.get(session, {}).items():
                member.beside.setdefault(tag, position)
        for key, member in self._ranked.items():
            member.place = lineage.place(key)
        for key in self._moved:
            lineage.beside.setdefault(key, {ALL: 0})
        self.lineage = lineage
        self._held.clear()

    def later(self, member: Member) -> npt.NDArray[np.bool_]:
        """Which lives, by their places, have begun after a session."""
        if member.later is None:
            lives = self.lineage.lives
            mine = (UNKNOWN, member.place)
            after = [place not in mine and self.is_after(place, member) for place in range(len(lives))]
            member.later = np.array(after, np.bool_)
            member.followed = any(after)
            purges = [step for place, step in self.lineage.purges if member.later[place]]
            member.purged = min(purges, default=None)
        return member.later

    # --- who is whose successor ------------------------------------------------------------------------------

    def is_after(self, place: int, member: Member) -> bool:
        """Whether a life has begun after a session: see `lineage.is_after`."""
        return is_after(self.lineage.lives[place], place, member.who, member.place)

    def precedes(self, member: Member, place: int) -> bool:
        """Whether a life is an earlier attempt of a session's job, which ends before the next one begins."""
        other, who = self.lineage.lives[place], member.who
        return bool(who.job) and who.job == other.job and other.attempt < who.attempt

    def is_alive(self, place: int, member: Member) -> bool:
        """Whether more may come of a life, or could when a session began."""
        key, who = self.lineage.lives[place].key, member.who
        if key in self.busy:
            return True
        began = who.began if who.boot == process_identity.boot() else 0
        return any(self._alive(session, began) for session in self._of_life.get(key, (key,)))

    def goes_on(self, member: Member, place: int, step: int) -> bool:
        """Whether a session goes on with the work of a life, so that what it logs takes the place of that life's.

        Args:
            step: of what it logs there: the same program with other arguments goes on where it does not begin anew.
        """
        other, who = self.lineage.lives[place], member.who
        if self.precedes(member, place) or member.word == settings.ALWAYS_RESUME:
            return True
        lives = place != UNKNOWN and (self.is_alive(place, member) or self.is_after(place, member))
        if lives or member.word == settings.NEVER_RESUME:
            return False
        # Where nobody knows, it is as TensorBoard's default loader has it.
        if self.has_purged(member) or not (who.kin and other.kin):
            return True
        if who.parent and who.parent == other.parent:
            return False
        same = who.kin[: process_identity.PROGRAM_CHARS] == other.kin[: process_identity.PROGRAM_CHARS]
        return who.kin == other.kin or (same and step > FIRST_STEP_MAX)

    def has_purged(self, member: Member) -> bool:
        """Whether a session has said itself from where on the run goes."""
        return any(place == member.place for place, _ in self.lineage.purges)

    def has_predecessor(self, member: Member, step: int) -> bool:
        """Whether a session goes on with anybody's work here, or did; ``step`` as for `goes_on`."""
        known = self.known
        if known is not None and bool((known.era[: len(known.names)] == member.place).any()):
            return True
        return any(
            place != member.place and self.lineage.lives[place].known and self.goes_on(member, place, step)
            for place in range(1, len(self.lineage.lives))
        )

    # --- ranks that are reduced ------------------------------------------------------------------------------

    def is_moved(self, run: RunDefinition) -> bool:
        """Whether the points of a start of a job are beside the run, or those of an earlier start of the job."""
        who = introduced(life_of(generation_of(run)), run)
        moved = (life for life in self.lineage.lives if ALL in self.lineage.beside.get(life.key, ()))
        return any(life.key == who.key or (bool(who.job) and life.job == who.job) for life in moved)

    def move(self, run: RunDefinition) -> str:
        """The points of a start of a job go beside the run from here on; returns the note that says so."""
        key = life_of(generation_of(run))
        self._moved.add(key)
        self.lineage.beside.setdefault(key, {ALL: 0})
        return beside_text(key, 0, ALL)

    def has_strangers(self, run: RunDefinition) -> bool:
        """Whether others have logged here with whose work a start of a job does not go on: `claim` is needed then."""
        key = life_of(generation_of(run))
        found = self._strangers.get(key)
        if found is None:
            member = self._ranked.get(key)
            found = self._strangers[key] = member is not None and any(
                life.known
                and place not in (UNKNOWN, member.place)
                and ALL not in self.lineage.beside.get(life.key, ())
                and not self.goes_on(member, place, 0)
                for place, life in enumerate(self.lineage.lives)
            )
        return found

    def claim(self, run: RunDefinition, names: Sequence[str], steps: Integers) -> tuple[str, dict[str, int]]:
        """Find out whether points of ranks would go back behind a stranger's, or between those of other ranks; what was
        read has to be what the files hold but for what was claimed since.

        Args:
            names: the tags of the points.
            steps: (N,) of them, in the order in which they are written.

        Returns:
            What is in the way; "" where nothing is, and the points are taken note of. And the tags with which they go
            on with others' work, with the last steps of these.
        """
        known, member = self.known, self._ranked.get(life_of(generation_of(run)))
        met: dict[str, int] = {}
        if known is None or member is None:
            return "", met
        firsts: dict[str, int] = {}
        for name, step in zip(names, steps.tolist(), strict=True):
            firsts.setdefault(name, step)
        for name, step in firsts.items():
            place = known.places.get(name)
            owner = -1 if place is None else int(known.owner[place])
            if place is None or owner in (-1, member.place):
                continue
            back = step <= known.last[place]
            # What a program says of itself as it begins is no beginning of its work.
            at = FIRST_STEP_MAX + 1 if known.is_said_once(place) else step
            if (back or self._is_before(owner, member)) and not self.goes_on(member, owner, at):
                return f"{name!r} at step {step}", {}
            if back:
                met[name] = int(known.last[place])
        for name, step in zip(names, steps.tolist(), strict=True):
            place = known.place(name)
            known.owner[place], known.last[place] = member.place, step
            known.most[place] = max(known.most[place], step)
        for name, last in met.items():
            self._lives[member.who.key].meet(name, last)
        return "", met

    def _is_before(self, place: int, member: Member) -> bool:
        """Whether a life is one of ranks that log now, and began before another."""
        return self.is_held(place) and not self.is_after(place, member)

    def is_held(self, place: int) -> bool:
        """Whether a life is one of ranks that are reduced, of which more may come."""
        held = self._held.get(place)
        if held is None:
            key = self.lineage.lives[place].key
            sessions = self._of_life.get(key, ()) if key in self._lives else ()
            held = self._held[place] = key in self.busy or any(self._alive(session, 0) for session in sessions)
        return held

    def forget(self, session: bytes) -> None:
        """Nothing comes of a session any more."""
        self.members.pop(session, None)
        self._sessions.pop(session, None)
        self._seen.pop(session, None)

    def join(self, session: bytes, run: RunDefinition) -> list[str]:
        """A rank of a life that has begun; returns the notes that say so, where the files do not."""
        if session in self._sessions:
            return []
        return self._enter_rank(session, life_of(generation_of(run)), run)

    def scalars(
        self, session: bytes, tags: list[TagDefinition | None], numbers: npt.NDArray[Any], steps: Integers
    ) -> bytes:
        """What is to be written before scalars of a rank, mostly nothing.

        Args:
            tags: of the session, by their numbers.
            numbers: (N,) of the scalars' tags.
            steps: (N,) of the scalars.
        """
        key = self._sessions.get(session, b"")
        life = self._lives.get(key)
        if not life:
            self._seen.pop(session, None)
            return b""
        seen = self._seen.get(session)
        if seen is None or len(seen) < len(tags):
            grown = np.zeros(max(64, 2 * len(tags)), np.bool_)
            if seen is not None:
                grown[: len(seen)] = seen
            seen = self._seen[session] = grown
        fresh = np.flatnonzero(~seen[numbers])
        if not len(fresh):
            return b""
        ids, firsts = np.unique(numbers[fresh], return_index=True)
        seen[ids] = True
        first = steps[fresh[firsts]].tolist()
        named = [tag.tag for number in ids.tolist() if (tag := tags[number]) is not None]
        return self.resume.end(life.cuts(zip(named, first, strict=True)), key)

    def others(self, session: bytes, tags: Iterable[str], step: int) -> bytes:
        """The same of any other values of a rank that share a step."""
        key = self._sessions.get(session, b"")
        life = self._lives.get(key)
        return self.resume.end(life.cuts((tag, step) for tag in tags), key) if life else b""

    def points(self, run: RunDefinition, firsts: dict[str, int]) -> bytes:
        """The same of what several ranks have logged: tags to the first steps that are written of them."""
        key = life_of(generation_of(run))
        life = self._lives.get(key)
        return self.resume.end(life.cuts(firsts.items()), key) if life else b""

    def restart(
        self,
        session: bytes,
        step: int,
        asked: float,
        own: str,
        pending: Iterable[bytes | memoryview],
        scope: Scope | None = None,
    ) -> Restart:
        """A rank says itself from where on its job goes.

        Args:
            step: what stands at or behind it is to be forgotten.
            asked: when it said so, in seconds since the epoch. What the job itself has logged later stays: another rank
                has begun anew already. ``scope`` says more of that.
            own: the event file that is being written.
            pending: the records that the newest file does not have yet.
            scope: of a rank, whose restart takes what its job has logged, whenever that was.
        """
        key = self._sessions[session]
        try:
            self.resume.read(own, pending)
        except OSError as error:
            log.warning("%s: what it has behind step %d cannot be read: %s", self.contents.directory, step, error)
        found = self.resume.beyond(step)
        mine = self.resume.of(key)
        own_life = self._lives.get(key)
        self.staying = self._living(key)
        stay = self.resume.of(*self.staying)

        def falls(tag: str, logged: float) -> bool:
            if tag in stay:
                return False
            if scope is not None and tag in scope.tags:
                return scope.forget
            return tag not in mine or logged <= asked or (own_life is not None and own_life.has_yet_to_log(tag))

        tags = [tag for tag, logged in found.items() if falls(tag, logged) and not tag.startswith(self.keep)]
        for life in self._lives.values():
            life.restart(step)
        self.lineage.purges.append((self.lineage.place(key), step))
        self._strangers.clear()
        events = self.resume.end(dict.fromkeys(tags, step), key)
        return Restart(tags, events, all=len(tags) == len(found), note=purge_text(key, step))

    def _living(self, key: bytes) -> frozenset[bytes]:
        """Other lives that log at this moment, and are no earlier starts of the job."""
        member = self._ranked.get(key)
        job = member.who.job if member is not None else ""
        return frozenset(
            life.key
            for life in self.resume.lives
            if life.key not in (b"", key)
            and not (job and job == life.job)
            and any(self._alive(session, 0) for session in self._of_life.get(life.key, (life.key,)))
        )
