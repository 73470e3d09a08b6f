"""Gathers the records of several ranks by tag and place, until a point is whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.protocol.kinds import HISTOGRAM, ROW

from ..batch import Batch, Single
from ..encode.scalar_batcher import finite_times
from .aggregate import Floats, Integers, Points
from .deadlines import Patience
from .history import Recall
from .pending import Alone, Member, Passed, Shared
from .shown_rank import Speakers
from .waiting import Waiting
from .watermarks import Frontier

PART_RECORDS = 4096  # of several batches that are settled as one part


class Gathering:
    """Takes records of ranks for points to come.

    Args:
        frontier: how far each rank is with each tag, and what is out.
        waiting: keeps the values until a point is whole.
        recall: what the event files hold.
        patience: knows what went out without a rank.
        speakers: who speaks for a tag whose records cannot be put together.
    """

    def __init__(
        self, frontier: Frontier, waiting: Waiting, recall: Recall, patience: Patience, speakers: Speakers
    ) -> None:
        self.late = 0  # records whose points were out
        self._frontier, self._waiting, self._recall = frontier, waiting, recall
        self._patience, self._speakers = patience, speakers

    def scalars(self, member: Member, tags: Integers, values: npt.NDArray[Any], ends: Integers, now: float) -> None:
        """Take scalars of a rank.

        Args:
            member: the session.
            tags: our numbers, (N,).
            values: as they came, (N,).
            ends: of the records, (N,).
            now: seconds, by a clock that does not jump.
        """
        steps = values["step"].astype(np.int64)
        wall_times = finite_times(values["wall_time"].astype(np.float64))
        self._add(member, tags, steps, ends, values["value"].astype(np.float64), wall_times, now)

    def single(self, member: Member, batch: Batch, item: Single, tags: Integers, now: float) -> None:
        """Take another record of a rank.

        Args:
            member: the session.
            batch, item: the record.
            tags: our numbers: those of a row, or one.
            now: seconds, by a clock that does not jump.
        """
        record = item.record
        assert record is not None
        count = len(tags)
        steps, ends = np.full(count, record.step, np.int64), np.full(count, item.end, np.int64)
        if record.kind == ROW:
            payload = record.payload
            if not isinstance(payload, bytes) or len(payload) != 8 * count:
                member.parts.append(Passed(item.end, "bad_record"))
                return
            wall_times = finite_times(np.full(count, record.wall_time))
            values = np.frombuffer(payload, ">f8").astype(np.float64)
            self._add(member, tags, steps, ends, values, wall_times, now)
        elif record.kind == HISTOGRAM:
            part = self._follow(member, tags, steps, ends)
            member.parts.append(part)
            if self._judge(member, part)[0]:
                key = (int(tags[0]), int(part.stretches[0]), record.step)
                self._waiting.add_histogram(key, member.rank, batch, item, part, now)
        else:
            stretch = self._speakers.follow(int(tags[0]), member.rank, record.step)
            member.parts.append(Alone(batch, item, tags, decided=True, one=True, stretch=stretch))

    def _add(
        self,
        member: Member,
        tags: Integers,
        steps: Integers,
        ends: Integers,
        values: Floats,
        wall_times: Floats,
        now: float,
    ) -> None:
        """Take numbers for points."""
        part = self._follow(member, tags, steps, ends)
        fresh = self._judge(member, part)
        count = int(fresh.sum())
        if count:
            ranks, arrivals = np.full(count, member.rank, np.int64), np.full(count, now)
            stretches = part.stretches[fresh]
            points = Points(tags[fresh], stretches, steps[fresh], ranks, values[fresh], wall_times[fresh], arrivals)
            self._waiting.add(points)
        before = member.parts[-1] if member.parts else None
        if isinstance(before, Shared) and before.joins and len(before.tags) < PART_RECORDS:
            before.join(part)
        else:
            part.joins = True
            member.parts.append(part)

    def _follow(self, member: Member, tags: Integers, steps: Integers, ends: Integers) -> Shared:
        """Find the stretches of their tags for a rank's next records."""
        frontier, rank = self._frontier, member.rank
        repeated = frontier.repeats[tags, rank].any()
        part = Shared(tags, frontier.follow(tags, rank, steps), steps, ends)
        if repeated:
            self._take_back(member)
        return part

    def _take_back(self, member: Member) -> None:
        """Undo stretches that have turned out to be a step that one rank has logged twice."""
        frontier = self._frontier
        self._waiting.take_back(member.rank)
        for part in member.parts:
            if isinstance(part, Shared):
                own = frontier.own[part.tags, member.rank]
                back = part.stretches > own
                if back.any():
                    part.stretches[back] = own[back]
                    out = back & frontier.is_out(part.tags, part.stretches, part.steps)
                    if out.any():  # its point has gone out with the value before
                        part.late = out if part.late is None else part.late | out
                        self.late += int(out.sum())

    def _judge(self, member: Member, part: Shared) -> npt.NDArray[np.bool_]:
        """Return a mask of the records that are parts of future points, (N,); mark late ones among the others."""
        frontier, rank = self._frontier, member.rank
        if member.outstanding:
            self._recall.come_again(member, part)
        out = frontier.is_out(part.tags, part.stretches, part.steps)
        fresh: npt.NDArray[np.bool_] = ~out
        late = self._recall.late(rank, part, fresh)
        there = fresh
        if late is not None:
            # A rank that has come so far is expected to go on, also when it was late but would have been in time had
            # anybody waited for it.
            there = fresh | out & ~(late & self._patience.were_out(part.tags, part.stretches, part.steps))
            if late.any():
                part.late = late
                self.late += int(late.sum())
        frontier.note(part.tags[there], rank)
        return fresh
