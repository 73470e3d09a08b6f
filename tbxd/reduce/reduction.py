"""The reduction of a run: records of several ranks come in, in the order of each; what is whole goes out as one point.

Every rank's records are settled in their order, as far as everything before is in the event files. What only one rank
logs is written as it is, when its turn has come. What several log is gathered by tag and place, and goes out when the
`Frontier` says that it is whole, or when it has waited long enough; a rank that comes later than that is late, and its
record is counted as refused, ``late_rank``.

Order of writing, so that a kill at any moment leaves nothing twice and nothing out: the sides, then the run with its
ledger, then the acknowledgements. Within the run: what is written as it is and marked by itself, then points, then
notes of what they settle. After a restart what is not acknowledged comes again: a point that the run holds is not made
again, and one that a side holds is left out there (`Recall`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from tbxd_client.distributed import process_identity
from tbxd_client.protocol.kinds import RESTART, ROW, kind_of
from tbxd_client.protocol.records import RunDefinition

from ..batch import Batch, Scalars, Single
from ..drop_reasons import TOO_MANY_TAGS
from ..encode import Refused
from ..tfevents.ledger import Entry, Marker
from ..tfevents.rank_notes import Restarted
from ..tfevents.rank_points import Reduced
from ..tfevents.scalar_columns import Piece
from ..transport.credit import kept
from .aggregate import Integers, grouped
from .companion_runs import Folders, Sides
from .deadlines import Patience, Read
from .emission import Emission, GoOn, MakeHistogram
from .expected_ranks import Sessions
from .gathering import Gathering
from .history import Recall
from .job_starts import generation_of, is_before
from .launched_ranks import Absent, Launched
from .pending import RECENT_MAX, Alone, Member, Passed, Restart, Shared, settle
from .purges import Restarts, Scope
from .settled_notes import SettledNotes
from .shown_rank import Speakers
from .tag_membership import SHARED, UNDECIDED, Tags
from .tag_numbers import TagNumbers, renamed
from .unread_records import Reads
from .waiting import Waiting
from .watermarks import TooManyTags

SHOWN_MAX = 16  # ranks that `tbxd status` names
AGAIN_SECONDS = 30.0  # for what comes again of a session, before it may be said how far that is

Claim = Callable[[RunDefinition, Sequence[str], Integers], dict[str, int]]
AsIs = Callable[[Batch, "Scalars | Single", list[Piece]], None]


class Reduction:
    """The ranks of one start of a job that log into a run.

    Args:
        folders: beside the run.
        reduced: what its event files hold of what ranks have logged.
        run: as its first rank defines it.
        seconds: how long a point waits for a rank.
        marker: gives the marker of the file that is being written.
        entry: gives the working ledger of a session.
        as_is: writes a record or scalars of one session; scalars may wait for ``flush``.
        flush: writes these.
        go_on: writes what has to stand before points of tags that earlier starts have logged.
        histogram: makes a summary's values of the histograms of several ranks.
        read: tells of a session up to when all that it has logged has come, and since when nothing more has; None: all
            has come always.

    Raises:
        OSError: what the folder holds cannot be read at this moment.
    """

    def __init__(
        self,
        folders: Folders,
        reduced: Reduced,
        run: RunDefinition,
        seconds: float,
        marker: Callable[[], Marker],
        entry: Callable[[bytes], Entry],
        as_is: AsIs,
        flush: Callable[[list[Piece]], None],
        go_on: GoOn,
        histogram: MakeHistogram,
        read: Read | None = None,
    ) -> None:
        self.generation = generation_of(run)
        self._seconds = seconds
        self._entry, self._as_is, self._flush = entry, as_is, flush
        self._members: dict[bytes, Member] = {}
        self._alive: dict[int, set[bytes]] = {}  # sessions by rank
        self._gone: set[bytes] = set()  # sessions of which nothing more comes
        coming = read.coming if isinstance(read, Sessions) else None
        tells = partial(coming.until, run, seconds=seconds) if coming is not None else None
        self._tags = Tags(run.world, seconds, tells)
        self._frontier = self._tags.frontier
        self._waiting = Waiting(self._frontier)
        self._patience = Patience(self._frontier, self._waiting, seconds, self._tags.join_seconds, read)
        self._speakers = Speakers(self._frontier)
        self.run = run
        self._absent = Absent(Launched.read(run.launched, bool(run.boot) and run.boot == process_identity.boot()))
        self._reads = read if isinstance(read, Reads) else None
        self.beside_others = False  # others were not over when it began: what they have logged was not known then
        self.claim: Claim | None = None  # asked before something is written; None where nobody can be in the way
        self.sides = Sides(folders, self.generation)
        self._emission = Emission(run, self.generation, self._tags, self.sides, marker, go_on, histogram)
        history = reduced.history(self.generation)
        self._recall = Recall(history, self.sides, self._tags)
        if self._recall.begun:
            self._tags.await_none()
        self._numbers = TagNumbers(self._tags, self._recall, self._emission, self._speakers)
        self._gathering = Gathering(self._frontier, self._waiting, self._recall, self._patience, self._speakers)
        self._notes = SettledNotes(self._members, self._frontier, marker, entry)
        self._restarts = Restarts(history.restarts, entry)
        self._emitted_at = 0.0
        self.scope = Scope()  # of the restart that is being written
        # It was over before the daemon began.
        self.superseded = any(is_before(self.generation, other) for other in (*reduced.past, *reduced.generations))
        if not self.superseded:
            self.sides.read()

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
        self._tags.deserted = not any(self._alive.values())

    def status(self) -> dict[str, Any]:
        """For `tbxd status`: what is quickly told."""
        return {
            "world": self._frontier.world,
            "joined": len(self._alive),
            "alive": sum(bool(sessions) for sessions in self._alive.values()),
            "missing": self.missing,
            "late": self._gathering.late,
            "waiting": len(self._waiting),
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
            member = self._members[batch.session] = Member(batch.session, batch.run.rank, came=now)
            member.outstanding = self._recall.history.outstanding(member.session, member.rank)
            sessions = self._alive.setdefault(member.rank, set())
            if batch.session not in self._gone:
                sessions.add(batch.session)
                self._tags.deserted = False
                self._frontier.come_back(member.rank)
            self._tags.begin(now)
        self._patience.come(member.rank, now)
        self._regroup_all(now)  # what came before stands before this, in the order of its rank
        last = batch.items[-1]
        member.batches.append((int(last.ends[-1]) if isinstance(last, Scalars) else last.end, batch))
        for item in batch.items:
            self._item(member, batch, item, now)

    def _item(self, member: Member, batch: Batch, item: Scalars | Single, now: float) -> None:
        if member.restart is not None:
            member.backlog.append((batch, item))
            return
        settled = self._entry(member.session).end
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
        tags = self._numbers.of_scalars(member, batch, values["tag"].astype(np.int64), ends, now)
        alone = self._tags.decided[tags] != SHARED
        edges = np.flatnonzero(alone[1:] != alone[:-1]) + 1
        for begin, end in zip([0, *edges.tolist()], [*edges.tolist(), len(tags)], strict=True):
            part = slice(begin, end)
            if alone[begin]:
                behind = tuple(member.recent)
                member.parts.append(Alone(batch, Scalars(values[part], ends[part]), tags[part], behind=behind))
            else:
                self._gathering.scalars(member, tags[part], values[part], ends[part], now)
            self._note_recent(member, tags[part], values["step"][part].tolist())

    def _note_recent(self, member: Member, tags: Integers, steps: list[int]) -> None:
        last = tags[-RECENT_MAX:]
        own = self._frontier.own[last, member.rank].tolist()
        member.recent.extend(zip(last.tolist(), own, steps[-RECENT_MAX:], strict=True))

    def _single(self, member: Member, batch: Batch, item: Single, now: float) -> None:
        record = item.record
        if record is None:  # it makes no sense, and is refused when its turn comes
            member.parts.append(Alone(batch, item, np.zeros(0, np.int64), decided=True))
            return
        if record.kind == RESTART:
            self._restart(member, batch, item, now)
            return
        if record.kind == ROW:
            ids = np.array(batch.row(record.tag).tags, np.int64)
            tags = self._numbers.of_scalars(member, batch, ids, np.full(len(ids), item.end, np.int64), now)
        else:
            number = self._numbers.of_record(member, batch, record.kind, record.tag, item.end, now)
            tags = np.array([number], np.int64)
        if len(tags) and (self._tags.decided[tags] == SHARED).any():
            self._gathering.single(member, batch, item, tags, now)
        else:
            member.parts.append(Alone(batch, item, tags, behind=tuple(member.recent)))
        self._note_recent(member, tags, [record.step] * len(tags))

    # --- restarts --------------------------------------------------------------------------------------------

    def _restart(self, member: Member, batch: Batch, item: Single, now: float) -> None:
        """A session says where it goes on; of the n-th of all ranks one is written."""
        number = self._restarts.number(member.rank, member.session, item.end)
        if number <= self._restarts.written:
            self._notes.restarted(Restarted(number, member.rank, member.session, item.end))
            member.parts.append(Passed(item.end))
            return
        member.restart = Restart(batch, item, number, now)
        member.parts.append(member.restart)
        self._frontier.paused[member.rank] = True

    def _release(self, now: float, pieces: list[Piece], everything: bool) -> bool:
        """Write the next restart, if all that stands before it is out. False where there is none to write."""
        waiting = [member for member in self._members.values() if member.restart is not None]
        number = min((member.restart.number for member in waiting if member.restart is not None), default=0)
        here = [member for member in waiting if member.restart is not None and member.restart.number == number]
        if not here or any(member.outstanding or member.parts[0] is not member.restart for member in here):
            return False
        fresh = not any(self._entry(member.session).end for member in here)
        fresh = fresh and not self._frontier.seen[:, [member.rank for member in here]].any()
        if not (everything or fresh or self._have_come(here, {member.rank for member in waiting}, now)):
            return False
        for member in here:
            assert member.restart is not None
            self._notes.restarted(Restarted(number, member.rank, member.session, member.restart.item.end))
        self._notes.write(pieces)
        self._restarts.written = number
        speaker = min(here, key=lambda member: member.rank)
        assert speaker.restart is not None
        tags = self._recall.names.union(self._emission.begun_tags() if fresh else self._tags.names)
        restart = Restarted(number, speaker.rank, speaker.session, speaker.restart.item.end)
        self.scope = Scope(tags, not fresh, restart)
        self._as_is(renamed(speaker, speaker.restart.batch), speaker.restart.item, pieces)
        self._flush(pieces)
        self.scope = Scope()
        self._frontier.paused[:] = False
        for member in here:
            assert member.restart is not None
            if member is not speaker:
                settle(self._entry(member.session), member.restart.item.end, 1, "")
                member.unmarked = True
            member.restart = None
            member.parts.popleft()
        for member in here:
            backlog, member.backlog = member.backlog, deque()
            for batch, item in backlog:
                self._item(member, batch, item, now)
        for member in self._members.values():
            self._frontier.paused[member.rank] |= member.restart is not None
        return True

    def _have_come(self, here: list[Member], ranks: set[int], now: float) -> bool:
        """Whether all others have come to a restart, or have gone back without one, or have been waited for."""
        since = min(member.restart.came for member in here if member.restart is not None)
        if float(self._patience.known(now, self._alive).min()) - self._seconds >= since:
            return True
        if not self._tags.all_here(now, len(self._alive)):
            return False
        known, frontier = slice(0, self._frontier.count), self._frontier
        return all(
            rank in ranks or not sessions or bool((frontier.own[known, rank] > frontier.stretch[known]).any())
            for rank, sessions in self._alive.items()
        )

    def restart(self, step: int, asked: float, staying: frozenset[bytes]) -> None:
        """All tags go on from a step, also beside the run.

        Args:
            asked: when that was said, in seconds since the epoch.
            staying: lives of whose tags it takes nothing.
        """
        self.sides.restart(step, asked, self.scope, staying)

    # --- what goes out ---------------------------------------------------------------------------------------

    def emit(self, now: float, pieces: list[Piece], everything: bool = False) -> list[bytes]:
        """Append what is whole, or has waited long enough, and how far that settles the sessions; returns these.

        What belongs to the sides is kept for `sides.write`, which comes before ``pieces`` are written.

        Args:
            now: seconds, by a clock that does not jump.
            pieces: for the run's event file.
            everything: wait for nobody.
        """
        self._emitted_at = now
        self._patience.look(now)
        if self._members:
            self._emission.announce(pieces)
        if self._tags.waits and any(member.size() > kept(len(self._members)) for member in self._members.values()):
            self._tags.hurry()  # or its journal would fill up for somebody who may not come at all
        if self._tags.deserted and self._tags.awaited and not self._absent.may_come(now, self._is_unread):
            self._tags.leave_but(self._alive)
        for member in self._members.values():
            if member.outstanding and now - member.came >= AGAIN_SECONDS:
                member.outstanding.clear()  # they do not come any more
        while True:
            self._regroup_all(now)
            read = self._patience.known(now, self._alive, self._tags.join_seconds)
            self._tags.decide(now, everything, len(self._alive), self._members.values(), read)
            self._speakers.listen(self._members.values())
            self._advance_all(pieces)  # and marked by itself, before points that no mark settles
            self._flush(pieces)
            if everything:
                self._frontier.expected[:] = False
            else:
                self._patience.pass_over(now, self._patience.known(now, self._alive))
            self._emit_whole(pieces)
            for member in self._members.values():
                self._advance(member, pieces, alone=False)
            self._notes.write(pieces)
            if not self._release(now, pieces, everything) and not self._advance_all(pieces):
                break
        self._flush(pieces)
        self.sides.show(self.missing, self._gathering.late, self._emission.last_step)
        return self._notes.take_settled()

    def _claim(self, tags: Integers, steps: Integers) -> None:
        """Points are about to go out.

        Raises:
            GoesBeside: others' are in the way.
        """
        assert self.claim is not None
        self.sides.meet(self.claim(self.run, [self._tags.names[tag] for tag in tags.tolist()], steps))

    def _is_unread(self) -> bool:
        """Whether something of a rank is on its way here that has not been taken."""
        return self._reads is not None and self._reads.unread(self.run, self._gone)

    def is_busy(self, gone: set[bytes]) -> bool:
        """Whether more comes than has come, but for sessions that are gone."""
        return any(sessions - gone for sessions in self._alive.values())

    def leave_off(self, pieces: list[Piece]) -> list[bytes]:
        """Append how far sessions are settled, where `emit` has ended early because something is in the way; returns
        these. What is not settled goes elsewhere: see `held`, `out`."""
        self._flush(pieces)
        self._notes.write(pieces)
        return self._notes.take_settled()

    def out(self) -> dict[bytes, Integers]:
        """The positions of records that are in points which are written, and not settled yet, by session."""
        found: dict[bytes, Integers] = {}
        for member in self._members.values():
            parts = [part for part in member.parts if isinstance(part, Shared)]
            ends = [part.ends[self._frontier.is_out(part.tags, part.stretches, part.steps)] for part in parts]
            left = [part.ends[~self._frontier.is_out(part.tags, part.stretches, part.steps)] for part in parts]
            if ends:  # of a row some tags may be out, and others not: it comes once more
                found[member.session] = np.setdiff1d(np.concatenate(ends), np.concatenate(left))
        return found

    def _emit_whole(self, pieces: list[Piece]) -> None:
        floors = self._tags.floors()
        points = self._waiting.whole(*floors)
        if points is not None:
            groups = grouped(points)
            if self.claim is not None:
                self._claim(groups.tags, groups.steps)
            self._frontier.advance(groups.tags, groups.stretches, groups.steps)
            self._emission.points(groups, pieces)
            self._notes.went_out(groups.points.ranks.tolist())
        for key, parts in self._waiting.whole_histograms(*floors):
            if self.claim is not None:
                self._claim(np.array([key[0]], np.int64), np.array([key[2]], np.int64))
            self._frontier.advance(*(np.array([number], np.int64) for number in key))
            self._notes.went_out(parts)
            try:
                self._emission.histogram(key, parts, pieces)
            except Refused as refused:
                for _, _, part in parts.values():
                    part.reason = refused.reason

    # --- settling --------------------------------------------------------------------------------------------

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
        times = [member.restart.came + self._seconds for member in self._members.values() if member.restart is not None]
        if times and len(self._alive) < self._frontier.world and self._tags.here_by > self._emitted_at:
            times.append(self._tags.here_by)
        since = self._waiting.since()
        if since is not None:
            times.append(since + self._seconds)
        if self._tags.due():
            times.append(self._tags.due())
            if self._absent.due and self._tags.deserted and self._tags.awaited:
                times.append(self._absent.due)
        return min(times, default=0.0)

    @property
    def over(self) -> bool:
        """Whether nothing more comes, as far as is known."""
        return not any(self._alive.values())

    def _advance_all(self, pieces: list[Piece]) -> bool:
        """True when something was written as it is."""
        written = [self._advance(member, pieces) for member in self._members.values()]
        return any(written)

    def _advance(self, member: Member, pieces: list[Piece], alone: bool = True) -> bool:
        """Settle what is out, and write what is a rank's own and has come to its turn, if that is to be done now.
        Returns whether something was written."""
        if member.outstanding:  # nothing can be said of it yet, so nothing is settled
            return False
        entry = self._entry(member.session)
        written = False
        while member.parts:
            part = member.parts[0]
            if isinstance(part, Shared):
                member.unmarked |= part.settle(entry, self._frontier)
                if len(part.tags):
                    break
            elif isinstance(part, Passed):
                settle(entry, part.end, 1, part.reason)
                member.unmarked = True
            elif isinstance(part, Restart) or not alone or not self._write_alone(member, part, pieces):
                break
            else:
                written = True
            member.parts.popleft()
        return written

    def _write_alone(self, member: Member, part: Alone, pieces: list[Piece]) -> bool:
        """Write what is a rank's own. False while it is not known whether it is."""
        if not part.decided and (self._tags.decided[part.tags] == UNDECIDED).any():
            return False
        item = part.item
        record = item.record if isinstance(item, Single) else None
        if part.one:
            assert record is not None
            if not self._tags.gathered[part.tags[0]]:
                return False
            if not self._speakers.speaks(member, int(part.tags[0]), part.stretch, record.step):
                assert isinstance(item, Single)
                settle(self._entry(member.session), item.end, 1, "")
                member.unmarked = True
                return True
        if self.claim is not None and len(part.tags) and (record is None or not kind_of(record.kind).is_single):
            step = record.step if record is not None else 0
            steps = item.values["step"] if isinstance(item, Scalars) else np.full(len(part.tags), step)
            given = [not self._tags.definitions[tag].numbered for tag in part.tags.tolist()]  # not by who writes them
            self._claim(part.tags[given], steps[given].astype(np.int64))
        self._as_is(renamed(member, part.batch), item, pieces)
        if isinstance(item, Scalars):
            steps = item.values["step"].astype(np.int64)
            self._went_out(member, part.tags, steps)
            self._emission.last_step = max(self._emission.last_step, int(steps.max()))
        elif record is not None and not part.one:
            self._went_out(member, part.tags, np.full(len(part.tags), record.step, np.int64))
        member.unmarked = False
        return True

    def _went_out(self, member: Member, tags: Integers, steps: Integers) -> None:
        """What was a rank's own is written: whoever comes to these tags later comes behind it."""
        self._frontier.emitted[tags] = steps  # of a tag the last one is stored last
        self._frontier.last[tags, member.rank] = steps

    def _regroup_all(self, now: float) -> None:
        if self._tags.newly_shared:
            self._tags.newly_shared = False
            for member in self._members.values():
                self._regroup(member, now)

    def _regroup(self, member: Member, now: float) -> None:
        """Put what was thought to be a rank's own to what the others log."""
        parts, member.parts = member.parts, deque()
        first = parts[0] if parts else None
        # In which stretches its records are shows only now.
        member.recent = deque(first.behind if isinstance(first, Alone) else (), RECENT_MAX)
        for part in parts:
            if isinstance(part, Alone) and not part.decided and (self._tags.decided[part.tags] == SHARED).any():
                if isinstance(part.item, Scalars):
                    self._scalars(member, part.batch, part.item, -1, now)
                else:
                    self._single(member, part.batch, part.item, now)
                continue
            if isinstance(part, Alone):
                part.behind = tuple(member.recent)
                if isinstance(part.item, Scalars):
                    self._note_recent(member, part.tags, part.item.values["step"].tolist())
                elif part.item.record is not None:
                    self._note_recent(member, part.tags, [part.item.record.step] * len(part.tags))
            elif isinstance(part, Shared):
                last = (part.tags, part.stretches, part.steps)
                member.recent.extend(zip(*(column[-RECENT_MAX:].tolist() for column in last), strict=True))
            member.parts.append(part)
