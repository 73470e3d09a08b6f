"""What of a rank's records is not settled yet: they are settled in their order, each kind of part in its own way."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tbxd_client.records import STEP_MIN, TagDefinition

from ..events.ledger import Entry
from ..session import Batch, Scalars, Single
from ..summaries.errors import LATE_RANK
from .points import Integers

RECENT_MAX = 4  # records of a session before one, of which it is known where the others are with their tags


@dataclass(slots=True)
class Shared:
    """Records of a session that are parts of points. ``late`` says which of them no point holds; of a row all tags have
    one end, and it is one record. ``reason`` is why its point could not be made. ``stretches``: of their tags that they
    are in."""

    tags: Integers
    steps: Integers
    ends: Integers
    late: npt.NDArray[np.bool_] | None = None
    reason: str = ""
    stretches: Integers | None = None

    def settle(self, entry: Entry, emitted: Integers, current: Integers) -> bool:
        """Settle what points that are out hold, or hold no more.

        Args:
            entry: of the session; moved on.
            emitted: (tags,) the last step of each that is out,
            current: (tags,) and of which stretch.
        """
        out = self.steps <= emitted[self.tags]
        if self.stretches is not None:
            out = (self.stretches < current[self.tags]) | (out & (self.stretches == current[self.tags]))
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
        if self.stretches is not None:
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
    behind: tuple[tuple[int, int], ...] = ()  # tags and steps that the session has logged just before

    @property
    def first_step(self) -> int:
        """The step of the first of them."""
        if isinstance(self.item, Scalars):
            return int(self.item.values["step"][0])
        return self.item.record.step if self.item.record is not None else STEP_MIN


@dataclass(slots=True)
class Passed:
    """A record that is settled without being written: what it says, another rank's says."""

    end: int
    reason: str = ""


@dataclass(slots=True)
class Member:
    """A session of a rank."""

    session: bytes
    rank: int
    parts: deque[Shared | Alone | Passed] = field(default_factory=deque)
    batches: deque[tuple[int, Batch]] = field(default_factory=deque)  # that are not settled, by their ends
    numbers: npt.NDArray[np.int64] = field(default_factory=lambda: np.full(64, -1, np.int64))  # of scalars' tags, ours
    others: dict[tuple[int, int], int] = field(default_factory=dict)  # the same of other kinds of record
    tags: list[TagDefinition | None] = field(default_factory=list)  # as they are written
    # Tags and steps of the last of its records that may be parts of points.
    recent: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=RECENT_MAX))
    unmarked: bool = False  # settled further than the run's ledger says


def settle(entry: Entry, end: int, records: int, reason: str) -> None:
    """Move an entry on by some records, all of them refused where there is a reason."""
    entry.end = max(entry.end, end)
    entry.count += records
    if reason and records:
        entry.refused = {**entry.refused, reason: entry.refused.get(reason, 0) + records}
