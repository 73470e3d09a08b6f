"""A rank's records that are not settled yet: they are settled in order, each kind of part in its own way."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tbxd_client.protocol.records import STEP_MIN, TagDefinition

from ..batch import Batch, Scalars, Single
from ..drop_reasons import LATE_RANK
from ..tfevents.ledger import Entry
from ..tfevents.rank_points import Curve, Place
from .aggregate import Integers
from .watermarks import Frontier

RECENT_MAX = 4  # records of a session before one, of which it is known where the others are with their tags


@dataclass(slots=True)
class Shared:
    """Records of a session that are parts of points, in the ``stretches`` of their tags. ``late`` says which of them no
    point holds; of a row all tags have one end, and it is one record. ``reason`` is why its point could not be made."""

    tags: Integers
    stretches: Integers
    steps: Integers
    ends: Integers
    late: npt.NDArray[np.bool_] | None = None
    reason: str = ""
    joins: bool = False  # others may be put behind them

    def join(self, other: Shared) -> None:
        """Append other records."""
        if self.late is not None or other.late is not None:
            late = (np.zeros(len(part.tags), np.bool_) if part.late is None else part.late for part in (self, other))
            self.late = np.concatenate(list(late))
        self.tags, self.ends = np.concatenate([self.tags, other.tags]), np.concatenate([self.ends, other.ends])
        self.steps = np.concatenate([self.steps, other.steps])
        self.stretches = np.concatenate([self.stretches, other.stretches])

    def settle(self, entry: Entry, frontier: Frontier) -> bool:
        """Settle records whose points are written, or closed for them.

        Args:
            entry: of the session; moved on.
            frontier: what is out.
        """
        out = frontier.is_out(self.tags, self.stretches, self.steps)
        count = len(out) if out.all() else int(np.argmin(out))
        if count < len(out):  # a row is settled with its last tag
            while count and self.ends[count] == self.ends[count - 1]:
                count -= 1
        if not count:
            return False
        ends = self.ends[:count]
        records = 1 + int((ends[1:] != ends[:-1]).sum())
        refused = 0
        if self.late is not None:
            late = self.late[:count]
            refused = len(np.unique(ends)) - len(np.unique(ends[~late]))
            self.late = self.late[count:]
        settle(entry, int(ends[-1]), records - refused, self.reason)
        settle(entry, int(ends[-1]), refused, LATE_RANK)
        self.tags, self.steps, self.ends = self.tags[count:], self.steps[count:], self.ends[count:]
        self.stretches = self.stretches[count:]
        return True


@dataclass(slots=True)
class Alone:
    """A record, or scalars, of which it is not decided whether other ranks log them too, or which none does. ``one``:
    several ranks log it, and one's is shown."""

    batch: Batch
    item: Scalars | Single
    tags: Integers
    decided: bool = False
    one: bool = False
    stretch: int = 0  # of the tag, where it is one
    behind: tuple[tuple[int, int, int], ...] = ()  # tags and places that the session has logged just before

    @property
    def first_step(self) -> int:
        """Return the step of the first record."""
        if isinstance(self.item, Scalars):
            return int(self.item.values["step"][0])
        return self.item.record.step if self.item.record is not None else STEP_MIN


@dataclass(slots=True)
class Passed:
    """A record that is settled without being written: another rank's has its content."""

    end: int
    reason: str = ""


@dataclass(slots=True)
class Restart:
    """A session says where it goes on. What it logs behind that is looked at when the others have come as far, or have
    been waited for."""

    batch: Batch
    item: Single
    number: int  # so many-th of its rank
    came: float


@dataclass(slots=True)
class Member:
    """A session of a rank."""

    session: bytes
    rank: int
    parts: deque[Shared | Alone | Passed | Restart] = field(default_factory=deque)
    batches: deque[tuple[int, Batch]] = field(default_factory=deque)  # that are not settled, by their ends
    numbers: npt.NDArray[np.int64] = field(default_factory=lambda: np.full(64, -1, np.int64))  # of scalars' tags, ours
    others: dict[tuple[int, int], int] = field(default_factory=dict)  # the same of other kinds of record
    ids: dict[int, int] = field(default_factory=dict)  # and the session's own of ours
    tags: list[TagDefinition | None] = field(default_factory=list)  # as they are written
    # Tags and places of the last of its records that may be parts of points.
    recent: deque[tuple[int, int, int]] = field(default_factory=lambda: deque(maxlen=RECENT_MAX))
    named: bool = False  # the ledger says whose it is
    unmarked: bool = False  # settled further than the run's ledger says
    restart: Restart | None = None  # what it waits at, and what has come behind that
    backlog: deque[tuple[Batch, Scalars | Single]] = field(default_factory=deque)
    came: float = 0.0
    # Places in points that the files hold, while its records of them have not come again.
    outstanding: dict[Curve, Place] = field(default_factory=dict)
    # Stretches of tags of which the ledger says where they begin.
    said: set[tuple[int, int]] = field(default_factory=set)
    listed: set[int] = field(default_factory=set)  # tags of which it says all that are not settled

    def size(self) -> int:
        """Return the bytes of unsettled records."""
        return sum(batch.size for _, batch in self.batches)

    def taken(self) -> int:
        """Return the position up to which its records have been read, without those after a waiting restart."""
        if self.restart is not None:
            return self.restart.item.end
        return self.batches[-1][0] if self.batches else 0


def settle(entry: Entry, end: int, records: int, reason: str) -> None:
    """Advance an entry by some records, all of them refused if there is a reason."""
    entry.end = max(entry.end, end)
    entry.count += records
    if reason and records:
        entry.refused = {**entry.refused, reason: entry.refused.get(reason, 0) + records}
