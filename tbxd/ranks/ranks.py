"""What a run has to do with ranks: none of it, until a session says that it is one of several which are reduced.

One start of a job is reduced at a time. The next one, of a job that was started again, waits until nothing more comes
of the one before, or long enough; what comes of that later is late. Another job waits until the one before is over.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from tbxd_client.records import RANKS_MAX, RunDefinition

from ..events import schema
from ..events.checkpoint import Checkpoints
from ..events.contents import Contents
from ..events.ledger import Entry, Marker
from ..events.rows import Piece
from ..session import Batch, Scalars, Single
from ..summaries.errors import LATE_RANK
from ..summaries.histogram import encode_together
from .emission import note
from .patience import Read
from .reduction import Reduction
from .restarts import Scope
from .starts import generation_of, is_before, is_reduced


class Home(Protocol):
    """The run that the ranks log into, as it is on its strand: see `tbxd.run.RunWriter`."""

    directory: Path
    checkpoints: Checkpoints

    @property
    def contents(self) -> Contents:
        """What the folder's event files hold."""

    @property
    def marker(self) -> Marker:
        """That of the event file."""

    def working(self, session: bytes) -> Entry:
        """How far a session is in what has been encoded."""

    def entry(self, session: bytes) -> Entry:
        """How far it is in the event file."""

    def go_on(self, run: RunDefinition, firsts: dict[str, int], pieces: list[Piece]) -> None:
        """Append what has to stand before points where the run goes on from an earlier step."""

    def encode_as_is(self, batch: Batch, item: Scalars | Single, pieces: list[Piece]) -> None:
        """Append what one rank has logged."""

    def flush_scalars(self, pieces: list[Piece]) -> None:
        """Append the events of scalars that were gathered."""


class Ranks:
    """The ranks of one run.

    Args:
        writer: of the run.
        seconds: how long a point waits for a rank.
        read: see `Reduction`.
    """

    def __init__(self, writer: Home, seconds: float, read: Read | None = None) -> None:
        self._writer = writer
        self._seconds = seconds
        self._read = read
        self._reduction: Reduction | None = None
        self._next: deque[tuple[Batch, float]] = deque()  # of a later start or another job, and when they came
        self._past: set[str] = set()  # starts that were over before the daemon began
        self._superseded: list[Batch] = []  # of an earlier start: late
        self._refused = 0  # so many of these are so in what has been encoded
        self._ending = False  # all of the reduction is encoded
        self._gone: deque[tuple[bytes, RunDefinition]] = deque(maxlen=RANKS_MAX)
        self._left: deque[tuple[bytes, RunDefinition]] = deque(maxlen=RANKS_MAX)  # those that the reduction knows of
        self._news = False  # some of them have gone since the last look
        # What other threads may see, replaced as a whole at the end of each write.
        self._shown: tuple[Reduction, dict[str, Any]] | None = None
        self._shown_due = 0.0

    # --- from any thread -------------------------------------------------------------------------------------

    def leave(self, session: bytes, run: RunDefinition) -> None:
        """Nothing more comes of a session."""
        self._gone.append((session, run))
        self._news = True

    @property
    def news(self) -> bool:
        """Whether sessions have gone, and it is not written yet what that lets go out."""
        return self._news

    def status(self) -> dict[str, Any] | None:
        """For `tbxd status`, as the last write has left it; None for a run without ranks."""
        shown = self._shown
        return {**shown[1], "behind": shown[0].behind()} if shown is not None else None

    @property
    def due(self) -> float:
        """When the run has to be written although nothing comes, by the monotonic clock; 0 for never."""
        return self._shown_due

    @property
    def dirty(self) -> bool:
        """Whether something is written beside the run that the disk may not have."""
        reduction = self._reduction
        return reduction is not None and reduction.sides.dirty

    # --- on the strand ---------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Let other threads see how it is now. To be called when a write is over, whatever has become of it."""
        reduction = self._reduction
        self._shown = (reduction, reduction.status()) if reduction is not None else None
        self._shown_due = self._due()

    def _due(self) -> float:
        reduction = self._reduction
        if reduction is None:
            return 0.0
        times = [reduction.due()] if reduction.due() else []
        times += [came + self._seconds for came in self._followed()]
        return min(times, default=0.0)

    def _followed(self) -> list[float]:
        """When the first batch of a later start of the same job came: at most one."""
        assert self._reduction is not None
        generation = self._reduction.generation
        times = (came for batch, came in self._next if is_before(generation, generation_of(batch.run)))
        return [came for came in [next(times, None)] if came is not None]

    @property
    def over(self) -> bool:
        """Whether a start of the job is over, and the next one has come: see `waiting`."""
        return self._reduction is None and bool(self._next)

    def waiting(self) -> list[Batch]:
        """Give back what has waited for a start of the job to be over, to be taken again."""
        waiting = [batch for batch, _ in self._next]
        self._next.clear()
        return waiting

    def is_due(self, now: float) -> bool:
        """Whether there is something to do that nobody has queued."""
        return self.over or self._news or 0.0 < self._due() <= now

    def begins_with(self, batch: Batch) -> bool:
        """Whether a batch is the first of a start of a job: `begin` has to be called before `take`."""
        return self._reduction is None and is_reduced(batch.run) and generation_of(batch.run) not in self._past

    def begin(self, run: RunDefinition) -> None:
        """Begin to reduce one start of a job.

        Args:
            run: as its first rank defines it. All that was encoded before has to be in the event file.

        Raises:
            OSError: what the folder holds cannot be read at this moment.
        """
        writer = self._writer
        reduction = Reduction(
            writer.directory,
            writer.contents.reduced,
            writer.checkpoints,
            run,
            self._seconds,
            lambda: writer.marker,
            writer.working,
            writer.encode_as_is,
            writer.flush_scalars,
            writer.go_on,
            _histogram,
            self._read,
        )
        if reduction.superseded:
            self._past.add(reduction.generation)
        else:
            self._reduction = reduction

    def take(self, batch: Batch) -> bool:
        """Take a batch that is a rank's. False when it is none."""
        run, reduction = batch.run, self._reduction
        if not is_reduced(run):
            return False
        now = time.monotonic()
        if reduction is not None and generation_of(run) == reduction.generation:
            reduction.take(batch, now)
        elif reduction is not None and not is_before(generation_of(run), reduction.generation):
            self._next.append((batch, now))
        else:
            self._superseded.append(batch)
        return True

    def emit(self, pieces: list[Piece]) -> list[bytes]:
        """Append what can go out; returns the sessions that it takes further in the ledger."""
        sessions = self._refuse(pieces)
        reduction = self._reduction
        if reduction is None:
            self._news = False
            return sessions
        now = time.monotonic()
        self._news = False
        early = []  # of a start that has not begun to be reduced
        while self._gone:
            session, run = self._gone.popleft()
            if generation_of(run) == reduction.generation:
                reduction.leave(session, run.rank)
                self._left.append((session, run))
            else:
                early.append((session, run))
        self._gone += early
        waited = any(now - came >= self._seconds for came in self._followed())
        self._ending = bool(self._next) and (reduction.over or waited)
        return sessions + reduction.emit(now, pieces, everything=self._ending)

    def _refuse(self, pieces: list[Piece]) -> list[bytes]:
        """Settle what comes of a start of the job that another has followed."""
        entries: dict[bytes, Entry] = {}
        for batch in self._superseded[self._refused :]:
            entry = entries[batch.session] = self._writer.working(batch.session)
            for item in batch.items:
                ends = item.ends.tolist() if isinstance(item, Scalars) else [item.end]
                late = sum(end > entry.end for end in ends)
                entry.end = max(entry.end, ends[-1])
                entry.count += late
                entry.refused = {**entry.refused, LATE_RANK: entry.refused.get(LATE_RANK, 0) + late}
        self._refused = len(self._superseded)
        if entries:
            self._writer.flush_scalars(pieces)
            pieces += [note(text) for text in self._writer.marker.settle(entries)]
        return list(entries)

    def done(self) -> Iterator[Batch]:
        """Batches that are settled in the event file."""
        yield from self._superseded
        self._superseded.clear()
        self._refused = 0
        if self._reduction is not None:
            yield from self._reduction.done(lambda session: self._writer.entry(session).end)
            if self._ending:
                self._reduction.sides.close()
                self._reduction = None
                self._left.clear()
                self._ending = False

    def start_over(self) -> list[Batch]:
        """Forget everything; returns what is not settled, to be taken again."""
        held = [*self._superseded]
        if self._reduction is not None:
            held += self._reduction.held()
            self._reduction.sides.close()
        held += self.waiting()
        self._reduction = None
        self._past.clear()
        self._superseded.clear()
        self._refused = 0
        self._gone.extend(self._left)  # who has left will be news to the next reduction
        self._left.clear()
        self._ending = False
        return held

    @property
    def scope(self) -> Scope:
        """What a restart takes that ranks come to."""
        return self._reduction.scope if self._reduction is not None else Scope()

    def restart(self, step: int, asked: float) -> None:
        """All tags of the run go on from a step: those beside it, too."""
        if self._reduction is not None:
            self._reduction.restart(step, asked)

    # --- the sides -------------------------------------------------------------------------------------------

    def write_sides(self) -> None:
        """Write what belongs beside the run; comes before the run itself.

        Raises:
            FileLost, OSError: it cannot be; the next call goes on.
        """
        if self._reduction is not None:
            self._reduction.sides.write()

    def sync(self) -> None:
        """Bring it onto the disk.

        Raises:
            OSError: it cannot be.
        """
        if self._reduction is not None:
            self._reduction.sides.sync()

    def park(self) -> None:
        """Give back descriptors."""
        if self._reduction is not None:
            self._reduction.sides.park()

    def close(self) -> None:
        """For the end of the daemon."""
        if self._reduction is not None:
            self._reduction.sides.close()


def _histogram(parts: list[tuple[Batch, Single]]) -> Any:
    records = [item.record for _, item in parts if item.record is not None]
    batch, first = parts[0]
    assert first.record is not None
    return schema.Summary(value=encode_together(records, batch.tag(first.record.tag)))
