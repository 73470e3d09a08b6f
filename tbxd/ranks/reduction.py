"""The reduction of a run: records of several ranks come in, in the order of each; what is whole goes out as one point.

Every rank's records are settled in their order, as far as everything before is in the event files. What only one rank
logs is written as it is, when its turn has come. What several log is gathered by tag and step, and goes out when the
`Frontier` says that it is whole, or when it has waited long enough; a rank that comes later than that is late, and its
record is counted as refused, ``late_rank``.

Order of writing, so that a kill at any moment leaves nothing twice and nothing out: the sides, then the run with its
ledger, then the acknowledgements. After a restart what is not acknowledged comes again: a point that the run holds is
not made again, and one that a side holds is left out there (`History`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.records import (
    HISTOGRAM,
    HPARAMS,
    MESH,
    RESTART,
    ROW,
    SCALAR,
    STEP_MAX,
    STEP_MIN,
    TEXT,
    RunDefinition,
    TagDefinition,
)

from ..events.checkpoint import Checkpoints
from ..events.ledger import Entry, Marker
from ..events.reduced import Curve, Reduced
from ..events.rows import Piece
from ..scalars import finite_times
from ..session import Batch, Scalars, Single
from ..summaries import Refused, text
from ..summaries.errors import TOO_MANY_TAGS
from .emission import Emission, GoOn, MakeHistogram, note
from .frontier import TooManyTags
from .parts import RECENT_MAX, Alone, Member, Passed, Shared, settle
from .patience import Patience, Read
from .points import Floats, Integers, Points, grouped, joined
from .sides import Sides
from .speakers import Speakers
from .starts import generation_of, is_before
from .tags import ALL, SHARED, UNDECIDED, Tags

SUFFIXES = {TEXT: text.SUFFIX, MESH: "_VERTEX", HPARAMS: "/experiment"}  # of tags, as they are in an event file
SHOWN_MAX = 16  # ranks that `tbxd status` names

AsIs = Callable[[Batch, "Scalars | Single", list[Piece]], None]


class Reduction:
    """The ranks of one start of a job that log into a run.

    Args:
        directory: of the run.
        reduced: what its event files hold of what ranks have logged.
        checkpoints: of what folders hold.
        run: as its first rank defines it.
        seconds: how long a point waits for a rank.
        marker: gives the marker of the file that is being written.
        entry: gives the working ledger of a session.
        as_is: writes a record or scalars of one session.
        go_on: writes what has to stand before points of tags that earlier starts have logged.
        histogram: makes a summary's values of the histograms of several ranks.
        read: tells of a session up to when all that it has logged has come, and since when nothing more has; None: all
            has come always.

    Raises:
        OSError: what the folder holds cannot be read at this moment.
    """

    def __init__(
        self,
        directory: Path,
        reduced: Reduced,
        checkpoints: Checkpoints,
        run: RunDefinition,
        seconds: float,
        marker: Callable[[], Marker],
        entry: Callable[[bytes], Entry],
        as_is: AsIs,
        go_on: GoOn,
        histogram: MakeHistogram,
        read: Read | None = None,
    ) -> None:
        self.generation = generation_of(run)
        self.late = 0
        self._seconds = seconds
        self._marker, self._entry, self._as_is = marker, entry, as_is
        self._members: dict[bytes, Member] = {}
        self._alive: dict[int, set[bytes]] = {}  # sessions by rank
        self._tags = Tags(run.world, seconds)
        self._frontier = self._tags.frontier
        # The last step of each tag that the run held at the beginning, and the sides.
        self._held: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._held_beside: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._pending: list[Points] = []
        # Of stretches that are not gone out yet: points, each of one rank, and which.
        self._later: list[tuple[Points, Integers]] = []
        self._histograms: dict[tuple[int, int], dict[int, tuple[Batch, Single, Shared]]] = {}
        self._histogram_arrivals: dict[tuple[int, int], float] = {}
        self._gone: set[bytes] = set()  # sessions of which nothing more comes
        self.sides = Sides(directory, self.generation, run, checkpoints)
        self._emission = Emission(run, self.generation, self._tags, self.sides, marker, go_on, histogram)
        self._speakers = Speakers(self._frontier)
        self._patience = Patience(self._frontier, seconds, read)
        self._history = reduced.history(self.generation)
        # It was over before the daemon began.
        self.superseded = any(is_before(self.generation, other) for other in (*reduced.past, reduced.generation))
        if not self.superseded:
            self.sides.read()
        self._restarts: dict[int, int] = {}  # of each rank, how often it has said where it goes on
        self._restarted = 0  # the most

    @property
    def missing(self) -> int:
        """Values that points went out without."""
        return self._emission.missing

    def leave(self, session: bytes, rank: int) -> None:
        """Nothing more comes of a session than what has come or is on the way here."""
        self._gone.add(session)
        sessions = self._alive.setdefault(rank, set())
        sessions.discard(session)
        if not sessions:
            self._tags.leave(rank)

    def status(self) -> dict[str, Any]:
        """For `tbxd status`: what is quickly told."""
        return {
            "world": self._frontier.world,
            "joined": len(self._alive),
            "alive": sum(bool(sessions) for sessions in self._alive.values()),
            "missing": self.missing,
            "late": self.late,
            "waiting": sum(len(points) for points in self._pending)
            + sum(len(points) for points, _ in self._later)
            + len(self._histograms),
        }

    def behind(self) -> list[int]:
        """The ranks that are not waited for, as far as they are shown.

        Any thread may ask, also while records come in: arrays are replaced by longer ones, and are never shorter than
        the number of tags was before.
        """
        frontier = self._frontier
        known = slice(0, frontier.count)
        shared = frontier.ranks[known, None] > 1  # nobody waits for a tag of one rank alone
        behind = (shared & frontier.seen[known] & ~frontier.expected[known]).any(axis=0) & ~frontier.left
        return [int(rank) for rank in np.flatnonzero(behind)[:SHOWN_MAX]]

    # --- records come in -------------------------------------------------------------------------------------

    def take(self, batch: Batch, now: float) -> None:
        """Take a batch of a rank."""
        member = self._members.get(batch.session)
        if member is None:
            member = self._members[batch.session] = Member(batch.session, batch.run.rank)
            sessions = self._alive.setdefault(member.rank, set())
            if batch.session not in self._gone:
                sessions.add(batch.session)
                self._frontier.come_back(member.rank)
            self._tags.begin(now)
        self._regroup_all(now)  # what came before stands before this, in the order of its rank
        last = batch.items[-1]
        member.batches.append((int(last.ends[-1]) if isinstance(last, Scalars) else last.end, batch))
        settled = self._entry(batch.session).end
        for item in batch.items:
            try:
                if isinstance(item, Scalars):
                    self._scalars(member, batch, item, settled, now)
                elif item.end > settled:
                    self._single(member, batch, item, now)
            except TooManyTags:
                ends = item.ends.tolist() if isinstance(item, Scalars) else [item.end]
                member.parts += [Passed(end, TOO_MANY_TAGS) for end in ends if end > settled]

    def _scalars(self, member: Member, batch: Batch, item: Scalars, settled: int, now: float) -> None:
        values, ends = item.values, item.ends
        if int(ends[0]) <= settled:
            first = int(np.searchsorted(ends, settled, side="right"))
            values, ends = values[first:], ends[first:]
            if not len(values):
                return
        tags = self._numbered(member, batch, values["tag"].astype(np.int64), now)
        alone = self._tags.decided[tags] != SHARED
        if not alone.any():
            self._share(member, tags, values, ends, now)
            self._note_recent(member, tags, values)
            return
        edges = np.flatnonzero(alone[1:] != alone[:-1]) + 1
        for begin, end in zip([0, *edges.tolist()], [*edges.tolist(), len(tags)], strict=True):
            part = slice(begin, end)
            if alone[begin]:
                behind = tuple(member.recent)
                member.parts.append(Alone(batch, Scalars(values[part], ends[part]), tags[part], behind=behind))
            else:
                self._share(member, tags[part], values[part], ends[part], now)
            self._note_recent(member, tags[part], values[part])

    @staticmethod
    def _note_recent(member: Member, tags: Integers, values: npt.NDArray[Any]) -> None:
        member.recent.extend(zip(tags[-RECENT_MAX:].tolist(), values["step"][-RECENT_MAX:].tolist(), strict=True))

    def _single(self, member: Member, batch: Batch, item: Single, now: float) -> None:
        record = item.record
        if record is None:  # it makes no sense, and is refused when its turn comes
            member.parts.append(Alone(batch, item, np.zeros(0, np.int64), decided=True))
            return
        if record.kind == RESTART:  # of the n-th of all ranks, the first that comes
            said = self._restarts[member.rank] = self._restarts.get(member.rank, 0) + 1
            first = said > self._restarted
            self._restarted = max(said, self._restarted)
            member.parts.append(Alone(batch, item, np.zeros(0, np.int64), decided=True) if first else Passed(item.end))
            return
        if record.kind == ROW:
            tags = self._numbered(member, batch, np.array(batch.row(record.tag).tags, np.int64), now)
        else:
            number = member.others.get((record.kind, record.tag))
            if number is None:
                number = self._number(member, record.kind, batch.tag(record.tag), record.tag, now)
                member.others[record.kind, record.tag] = number
            tags = np.array([number], np.int64)
        if len(tags) and (self._tags.decided[tags] == SHARED).any():
            self._share_single(member, batch, item, tags, now)
        else:
            member.parts.append(Alone(batch, item, tags, behind=tuple(member.recent)))

    def _numbered(self, member: Member, batch: Batch, ids: Integers, now: float) -> Integers:
        """Our numbers of a session's tags, of which it is noted that this rank logs them."""
        highest = int(ids.max()) if len(ids) else -1
        if highest >= len(member.numbers):
            grown = np.full(2 * highest, -1, np.int64)
            grown[: len(member.numbers)] = member.numbers
            member.numbers = grown
        numbers = member.numbers.take(ids)
        missing = numbers < 0
        if missing.any():
            for index in sorted(set(ids[missing].tolist())):  # np.unique imports numpy.ma: 20 ms of a first flush
                member.numbers[index] = self._number(member, SCALAR, batch.tag(index), index, now)
            numbers = member.numbers.take(ids)
        return numbers

    def _number(self, member: Member, kind: int, tag: TagDefinition, index: int, now: float) -> int:
        rank = member.rank
        if tag.reduce == ALL:
            width = len(str(self._frontier.world - 1))
            tag = TagDefinition(
                tag.id,
                tag.run,
                f"{tag.tag}/rank{rank:0{width}}",
                tag.color,
                f"{tag.display_name} (rank {rank})" if tag.display_name else "",
                tag.description,
                tag.numbered,
                tag.reduce,
            )
        number = self._tags.find(kind, tag.tag)
        if number is None:
            curve = (tag.tag + SUFFIXES.get(kind, ""), kind == HISTOGRAM)
            number = self._tags.add(kind, tag, curve[0], now)
            self._recall(number, member.session, curve, tag.reduce)
        member.tags += [None] * (index + 1 - len(member.tags))
        member.tags[index] = tag
        self._tags.join(number, rank, now)
        return number

    def _recall(self, number: int, session: bytes, curve: Curve, word: str) -> None:
        """What the files hold of a tag already, from before the daemon began."""
        if number >= len(self._held):
            more = np.full(max(16, number), STEP_MIN, np.int64)
            self._held = np.concatenate([self._held, more])
            self._held_beside = np.concatenate([self._held_beside, more])
        last = self._history.last.get(curve)
        owner, alone = self._history.alone.get(curve, (session, STEP_MIN))
        self._frontier.emitted[number] = max(last if last is not None else STEP_MIN, alone)
        if owner != session or alone > STEP_MIN:
            self._speakers.recall(number, owner)
        self._emission.recall(number, last is not None or alone > STEP_MIN)
        if last is not None:
            self._held[number] = last
        beside = self.sides.last(curve)
        self._held_beside[number] = beside
        if last is not None or beside > STEP_MIN or (owner != session and word != ALL):
            self._tags.decided[number] = SHARED

    # --- what several ranks log ------------------------------------------------------------------------------

    def _share(self, member: Member, tags: Integers, values: npt.NDArray[Any], ends: Integers, now: float) -> None:
        steps = values["step"].astype(np.int64)
        wall_times = finite_times(values["wall_time"].astype(np.float64))
        self._add(member, Shared(tags, steps, ends), values["value"].astype(np.float64), wall_times, now)

    def _add(self, member: Member, part: Shared, values: Floats, wall_times: Floats, now: float) -> None:
        """Take numbers for points."""
        member.parts.append(part)
        frontier = self._frontier
        part.stretches = frontier.follow(part.tags, member.rank, part.steps)
        if self._later:
            self._take_back(member)
        now_out = frontier.stretch[part.tags]
        if (part.stretches > now_out).any():
            self._put_off(member, part, values, wall_times, now)
        # What belongs to an earlier stretch, which is out, is behind all that there can be of this one: late.
        fresh = (part.steps > frontier.emitted[part.tags]) & (part.stretches == now_out)
        self._judge(member, part, fresh, part.stretches == now_out)
        if not fresh.any():
            return
        tags, steps = part.tags, part.steps
        if not fresh.all():
            tags, steps, values, wall_times = tags[fresh], steps[fresh], values[fresh], wall_times[fresh]
        self._frontier.note(tags, member.rank, steps)
        count = len(tags)
        ranks = np.full(count, member.rank, np.int64)
        self._pending.append(Points(tags, steps, ranks, values, wall_times, np.full(count, now)))

    def _put_off(self, member: Member, part: Shared, values: Floats, wall_times: Floats, now: float) -> None:
        """Keep what is of a later stretch until the one before has gone out: until all have gone back."""
        assert part.stretches is not None
        ahead = part.stretches > self._frontier.stretch[part.tags]
        tags = part.tags[ahead]
        count = len(tags)
        ranks = np.full(count, member.rank, np.int64)
        points = Points(tags, part.steps[ahead], ranks, values[ahead], wall_times[ahead], np.full(count, now))
        self._later.append((points, part.stretches[ahead]))

    def _take_back(self, member: Member) -> None:
        """What was taken for a stretch, and has turned out to be a step that one rank has logged twice, is so."""
        frontier, rank = self._frontier, member.rank
        for number, (points, stretches) in enumerate(self._later):
            if int(points.ranks[0]) != rank:
                continue
            own = frontier.own[points.tags, rank]
            back = stretches > own
            if not back.any():
                continue
            tags, current = points.tags[back], own[back] == frontier.stretch[points.tags[back]]
            fresh = current & (points.steps[back] > frontier.emitted[tags])
            for part in member.parts:
                if isinstance(part, Shared) and part.stretches is not None:
                    again = np.isin(part.tags, tags) & (part.stretches > frontier.own[part.tags, rank])
                    part.stretches[again] = frontier.own[part.tags[again], rank]
                    out = again & (part.stretches == frontier.stretch[part.tags])
                    out &= part.steps <= frontier.emitted[part.tags]
                    if out.any():
                        part.late = out if part.late is None else part.late | out
                        self.late += int(out.sum())
            if fresh.any():
                come = points.where(np.flatnonzero(back)[fresh])
                self._pending.append(come)
            stretches[back] = own[back]
            keep = stretches > frontier.stretch[points.tags]
            self._later[number] = (points.where(keep), stretches[keep])
        self._later = [later for later in self._later if len(later[1])]

    def _put_off_tags(self) -> list[int]:
        return sorted({tag for points, _ in self._later for tag in set(points.tags.tolist())})

    def _behind_restarts(self) -> set[int]:
        """Tags whose next stretch a rank begins behind a restart that is not written yet."""
        held: set[int] = set()
        for member in self._members.values():
            before: set[int] = set()
            restarts = False
            for part in member.parts:
                if isinstance(part, Alone):
                    record = part.item.record if isinstance(part.item, Single) else None
                    restarts = restarts or (record is not None and record.kind == RESTART)
                elif isinstance(part, Shared) and part.stretches is not None:
                    following = part.stretches == self._frontier.stretch[part.tags] + 1
                    tags = set(part.tags[following].tolist())
                    if restarts:
                        held |= tags - before
                    before |= tags
        return held

    def _advance_tags(self, floors: Integers) -> bool:
        """Begin the next stretch of tags whose last one is out. True when there are some."""
        if not self._later:
            return False
        held = self._behind_restarts()
        ready = [tag for tag in self._put_off_tags() if floors[tag] == STEP_MAX and tag not in held]
        if not ready:
            return False
        frontier = self._frontier
        for tag in ready:
            frontier.advance(tag)
            self._held[tag] = self._held_beside[tag] = STEP_MIN
            self.sides.forget(self._tags.names[tag])
        self._patience.forget()
        later, self._later = self._later, []
        for points, stretches in later:
            due = (stretches <= frontier.stretch[points.tags]) & np.isin(points.tags, ready)
            if due.any():
                come = points.where(due)
                self._pending.append(come)
                rank = int(come.ranks[0])
                there = frontier.latest[come.tags, rank] < STEP_MAX
                frontier.note(come.tags[there], rank, come.steps[there])
            if not due.all():
                self._later.append((points.where(~due), stretches[~due]))
        return True

    def _judge(
        self, member: Member, part: Shared, fresh: npt.NDArray[np.bool_], current: npt.NDArray[np.bool_]
    ) -> None:
        """Which records are late, and which are in a point already, that was made before a restart.

        Args:
            member: whose.
            part: the records.
            fresh: (N,) which are of points that are not out; those that a side shows otherwise are taken from it.
            current: (N,) which are of the stretches that go out.
        """
        again = fresh & (part.steps <= self._held_beside[part.tags])
        if (fresh | ~current).all() and not again.any():
            return
        late = np.zeros(len(fresh), np.bool_)
        for index in np.flatnonzero((~fresh & current) | again).tolist():
            tag, step = int(part.tags[index]), int(part.steps[index])
            curve = (self._tags.names[tag], False)
            if again[index]:  # in the sides, but not in the run: with the same ranks here as there
                late[index] = self.sides.excludes(curve, step, member.rank)
            else:
                late[index] = step > self._held[tag] or not self._history.holds(curve, step, member.rank)
        # A rank that has come so far is expected to go on, also when it was late but would have been in time had
        # anybody waited for it.
        there = ~fresh & current & (~late | (part.steps > self._patience.old(part.tags)))
        self._frontier.note(part.tags[there], member.rank, part.steps[there])
        fresh &= ~late
        if late.any():
            part.late = late
            self.late += int(late.sum())

    def _share_single(self, member: Member, batch: Batch, item: Single, tags: Integers, now: float) -> None:
        record = item.record
        assert record is not None
        count = len(tags)
        steps = np.full(count, record.step, np.int64)
        if record.kind == ROW:
            payload = record.payload
            if not isinstance(payload, bytes) or len(payload) != 8 * count:
                member.parts.append(Passed(item.end, "bad_record"))
                return
            part = Shared(tags, steps, np.full(count, item.end, np.int64))
            wall_times = finite_times(np.full(count, record.wall_time))
            self._add(member, part, np.frombuffer(payload, ">f8").astype(np.float64), wall_times, now)
        elif record.kind == HISTOGRAM:
            part = Shared(tags, steps, np.full(count, item.end, np.int64))
            member.parts.append(part)
            step, last = record.step, int(self._frontier.emitted[tags[0]])
            if step <= last:
                curve = (self._tags.names[int(tags[0])], True)
                late = step > int(self._held[tags[0]]) or not self._history.holds(curve, step, member.rank)
                part.late = np.array([late])
                self.late += late
                if not late or step > int(self._patience.old(tags)[0]):
                    self._frontier.note(tags, member.rank, steps)
                return
            self._frontier.note(tags, member.rank, steps)
            key = (int(tags[0]), record.step)
            self._histogram_arrivals.setdefault(key, now)
            self._histograms.setdefault(key, {})[member.rank] = (batch, item, part)
        else:
            member.parts.append(Alone(batch, item, tags, decided=True, one=True))

    # --- what goes out ---------------------------------------------------------------------------------------

    def emit(self, now: float, pieces: list[Piece], everything: bool = False) -> None:
        """Append what is whole, or has waited long enough, and how far that settles the sessions.

        What belongs to the sides is kept for `sides.write`, which comes before ``pieces`` are written.

        Args:
            now: seconds, by a clock that does not jump.
            pieces: for the run's event file.
            everything: wait for nobody.
        """
        self._patience.look(now)
        if self._members:
            self._emission.announce(pieces)
        self._regroup_all(now)
        read = self._patience.known(now, self._alive, self._tags.join_seconds)
        self._tags.decide(now, everything, len(self._alive), self._members.values(), read)
        self._speakers.listen(self._members.values())
        for member in self._members.values():  # a restart comes before what is logged after it
            self._advance(member, pieces)
        if everything:
            self._frontier.expected[:] = False
        else:
            known = self._patience.known(now, self._alive)
            self._patience.leave_behind(known, (points for points, _ in self._later))
            self._patience.pass_over(now, known, self._pending, self._histogram_arrivals)
        self._frontier.go_beyond(self._put_off_tags())
        floors = self._tags.floors()
        self._emit_points(floors, pieces)
        self._emit_histograms(floors, pieces)
        while self._later:
            for member in self._members.values():  # a restart comes before the points that follow it
                self._advance(member, pieces)
            if not self._advance_tags(floors):
                break
            self._frontier.go_beyond(self._put_off_tags())
            floors = self._tags.floors()
            self._emit_points(floors, pieces)
        self.sides.show(self.missing, self.late, self._emission.last_step)
        for member in self._members.values():
            self._advance(member, pieces)

    def settle(self, pieces: list[Piece]) -> list[bytes]:
        """Append notes of how far sessions are whose points are in what was emitted; returns these."""
        moved = [member for member in self._members.values() if member.unmarked]
        if moved:
            entries = {member.session: self._entry(member.session) for member in moved}
            pieces += [note(mark) for mark in self._marker().settle(entries)]
            for member in moved:
                member.unmarked = False
        return [member.session for member in moved]

    def done(self, ledger: Callable[[bytes], int]) -> Iterator[Batch]:
        """Batches that are settled.

        Args:
            ledger: how far a session is in the run's event file.
        """
        for member in list(self._members.values()):
            end = ledger(member.session)
            while member.batches and member.batches[0][0] <= end:
                yield member.batches.popleft()[1]
            if member.session in self._gone and not member.batches:
                del self._members[member.session]

    def held(self) -> list[Batch]:
        """Batches that are not settled, those of each session in its order."""
        return [batch for member in self._members.values() for _, batch in member.batches]

    def due(self) -> float:
        """When something has waited long enough; 0 when nothing waits."""
        later = [float(points.arrivals.min()) + self._seconds for points, _ in self._later]
        times = [float(points.arrivals.min()) + self._seconds for points in self._pending if len(points)]
        times += later
        times += [arrival + self._seconds for arrival in self._histogram_arrivals.values()]
        if self._tags.due():
            times.append(self._tags.due())
        return min(times, default=0.0)

    @property
    def over(self) -> bool:
        """Whether nothing more comes, as far as is known."""
        return not any(self._alive.values())

    def _emit_points(self, floors: Integers, pieces: list[Piece]) -> None:
        if not self._pending:
            return
        points = joined(self._pending)
        whole = points.steps <= floors[points.tags]
        self._pending = [points]
        if not whole.any():
            return
        rest = points.where(~whole)
        self._pending = [rest] if len(rest) else []
        groups = grouped(points.where(whole))
        np.maximum.at(self._frontier.emitted, groups.tags, groups.steps)
        self._emission.points(groups, pieces)

    def restart(self, step: int, asked: float) -> None:
        """All tags go on from a step, also beside the run.

        Args:
            asked: when that was said, in seconds since the epoch.
        """
        self.sides.restart(step, asked)

    def _emit_histograms(self, floors: Integers, pieces: list[Piece]) -> None:
        whole = sorted(key for key in self._histograms if key[1] <= floors[key[0]])
        for tag, step in whole:
            parts = self._histograms.pop((tag, step))
            del self._histogram_arrivals[tag, step]
            self._frontier.emitted[tag] = max(int(self._frontier.emitted[tag]), step)
            try:
                self._emission.histogram(tag, step, parts, pieces)
            except Refused as refused:
                for _, _, part in parts.values():
                    part.reason = refused.reason

    # --- settling --------------------------------------------------------------------------------------------

    def _advance(self, member: Member, pieces: list[Piece]) -> None:
        """Settle what is out, and write what is a rank's own and has come to its turn."""
        entry = self._entry(member.session)
        while member.parts:
            part = member.parts[0]
            if isinstance(part, Shared):
                member.unmarked |= part.settle(entry, self._frontier.emitted, self._frontier.stretch)
                if len(part.tags):
                    return
            elif isinstance(part, Passed):
                settle(entry, part.end, 1, part.reason)
                member.unmarked = True
            elif not self._write_alone(member, part, pieces):
                return
            member.parts.popleft()

    def _write_alone(self, member: Member, part: Alone, pieces: list[Piece]) -> bool:
        """Write what is a rank's own. False while it is not known whether it is."""
        if not part.decided and (self._tags.decided[part.tags] == UNDECIDED).any():
            return False
        item = part.item
        if part.one:
            assert isinstance(item, Single)
            if not self._tags.gathered[part.tags[0]]:
                return False
            assert item.record is not None
            if not self._speakers.speaks(member, int(part.tags[0]), item.record.step):
                settle(self._entry(member.session), item.end, 1, "")
                member.unmarked = True
                return True
        self._as_is(self._renamed(member, part.batch), item, pieces)
        steps = item.values["step"].astype(np.int64) if isinstance(item, Scalars) else None
        if steps is not None:
            np.maximum.at(self._frontier.emitted, part.tags, steps)
            self._emission.last_step = max(self._emission.last_step, int(steps.max()))
        elif isinstance(item, Single) and item.record is not None and item.record.kind != RESTART and len(part.tags):
            self._frontier.emitted[part.tags] = np.maximum(self._frontier.emitted[part.tags], item.record.step)
        member.unmarked = False
        return True

    def _regroup_all(self, now: float) -> None:
        if self._tags.newly_shared:
            self._tags.newly_shared = False
            for member in self._members.values():
                self._regroup(member, now)

    def _regroup(self, member: Member, now: float) -> None:
        """Put what was thought to be a rank's own to what the others log."""
        parts, member.parts = member.parts, deque()
        for part in parts:
            if not isinstance(part, Alone) or part.decided or not (self._tags.decided[part.tags] == SHARED).any():
                member.parts.append(part)
                continue
            if not isinstance(part.item, Scalars):
                self._single(member, part.batch, part.item, now)
                continue
            recent, member.recent = member.recent, deque(part.behind, RECENT_MAX)
            self._scalars(member, part.batch, part.item, -1, now)
            member.recent = recent

    def _renamed(self, member: Member, batch: Batch) -> Batch:
        """A batch whose tags are called what this rank's are."""
        if all(tag is None or tag.reduce != ALL for tag in member.tags):
            return batch
        # A restart names a tag that need not have been logged.
        tags = [mine or theirs for mine, theirs in zip_longest(member.tags, batch.tags)]
        return Batch(batch.session, batch.run, tags, batch.rows, batch.token, numbered=batch.numbered)
