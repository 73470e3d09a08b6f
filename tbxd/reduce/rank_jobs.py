"""The jobs of ranks in a run: none, until a session announces that it is a rank to reduce.

Of each job one start is reduced at a time. The next one, of a job that was started again, waits until nothing more
comes of the one before, or long enough; what comes of that later is late. Other jobs are reduced beside it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from tbxd_client.protocol.records import RANKS_MAX, RunDefinition

from ..batch import Batch, Scalars, Single
from ..drop_reasons import LATE_RANK
from ..encode.histogram import encode_together
from ..tfevents import schema
from ..tfevents.checkpoint import Checkpoints
from ..tfevents.contents import Contents
from ..tfevents.event_builder import note
from ..tfevents.ledger import Entry, Marker
from ..tfevents.scalar_columns import Piece
from .aggregate import Integers
from .companion_runs import Folders
from .deadlines import Read
from .displaced_jobs import GoesBeside, Moved
from .job_starts import generation_of, is_before, is_reduced, job_of
from .purges import Scope
from .reduction import SHOWN_MAX, Reduction

JOBS_MAX = 16  # that are known at a time, as long as the oldest of them are over


class Home(Protocol):
    """The run that the ranks log into, as it is on its strand: see `tbxd.runs.record_encoder.RecordEncoder`."""

    directory: Path
    checkpoints: Checkpoints

    @property
    def contents(self) -> Contents:
        """The contents of the folder's event files."""

    @property
    def marker(self) -> Marker:
        """The marker of the event file."""

    def working(self, session: bytes) -> Entry:
        """Return a session's entry, including encoded records."""

    def claims(self, run: RunDefinition, busy: set[str]) -> bool:
        """Return True if `claim` must be called; the starts of jobs in ``busy`` have more to come."""

    def claim(self, run: RunDefinition, names: Sequence[str], steps: Integers) -> dict[str, int]:
        """Take points; returns the tags with which they go on with others' work, and the last steps of these. Raises
        GoesBeside where others' are in the way."""

    def move(self, run: RunDefinition, why: str, pieces: list[Piece]) -> None:
        """Append a note that the points of a start of a job are beside the run from here on."""

    def entry(self, session: bytes) -> Entry:
        """Return a session's entry in the event file."""

    def go_on(self, run: RunDefinition, firsts: dict[str, int], pieces: list[Piece]) -> None:
        """Append the marks that must precede points if the run continues from an earlier step."""

    def encode_as_is(self, batch: Batch, item: Scalars | Single, pieces: list[Piece]) -> None:
        """Append the records of one rank."""

    def flush_scalars(self, pieces: list[Piece]) -> None:
        """Append the events of gathered scalars."""


class Ranks:
    """The ranks of one run.

    Args:
        writer: of the run.
        seconds: how long a point waits for a rank.
        read: see `Reduction`.
    """

    def __init__(self, writer: Home, seconds: float, moved: Moved, read: Read | None = None) -> None:
        self._writer = writer
        self.moved = moved
        self._handed_over = False  # something to `displaced_jobs`, which is to be written
        self._moving: list[Reduction] = []  # ended; they move when what they have written is in the event file
        self._seconds = seconds
        self._read = read
        self._folders: Folders | None = None  # beside the run
        self._reductions: dict[str, Reduction] = {}  # by job; who has come last comes last
        self._next: deque[tuple[Batch, float]] = deque()  # of later starts of these jobs, and when they came
        self._past: set[str] = set()  # starts that were over before the daemon began
        self._superseded: list[Batch] = []  # of an earlier start: late
        self._refused = 0  # so many of these are so in what has been encoded
        self._ending: set[str] = set()  # jobs of whose start all is encoded
        self._gone: deque[tuple[bytes, RunDefinition]] = deque(maxlen=RANKS_MAX)
        self._early: deque[tuple[bytes, RunDefinition]] = deque(maxlen=RANKS_MAX)  # of starts that have not begun
        self._left: deque[tuple[bytes, RunDefinition]] = deque(maxlen=RANKS_MAX)  # those that the reductions know of
        self._news = False  # some of them have gone since the last look
        # What other threads may see, replaced as a whole at the end of each write.
        self._shown: list[tuple[Reduction, dict[str, Any]]] = []
        self._shown_due = 0.0

    # --- from any thread -------------------------------------------------------------------------------------

    def leave(self, session: bytes, run: RunDefinition) -> None:
        """Note that a session has ended."""
        self._gone.append((session, run))
        self._news = True

    @property
    def news(self) -> bool:
        """True if sessions have ended, and the points that this completes are not written yet."""
        return self._news

    def status(self) -> dict[str, Any] | None:
        """For `tbxd status`, as the last write has left it; None for a run without ranks. Of several jobs, of those
        that are not over, it is the sum, and the ranks that are behind in any of them."""
        shown: list[tuple[Reduction | None, dict[str, Any]]] = [*self._shown]
        shown += [(None, status) for status in self.moved.status()]
        shown = [known for known in shown if known[1]["alive"]] or shown[-1:]
        if not shown:
            return None
        behind = {rank for reduction, _ in shown if reduction is not None for rank in reduction.behind()}
        behind |= {rank for _, status in shown for rank in status.get("behind", ())}
        sums = {key: sum(status[key] for _, status in shown) for key in shown[0][1] if key != "behind"}
        return {**sums, "behind": sorted(behind)[:SHOWN_MAX]}

    @property
    def due(self) -> float:
        """The time of the next write without new records, by the monotonic clock; 0 for never."""
        return self._shown_due

    @property
    def dirty(self) -> bool:
        """True if data written beside the run may not be on disk."""
        folders = self._folders
        return folders is not None and folders.dirty

    # --- on the strand ---------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Publish the state to other threads. Call it after every write, also a failed one."""
        self._shown = [(reduction, reduction.status()) for reduction in self._reductions.values()]
        self._shown_due = self._due()

    def _due(self) -> float:
        times = [due for reduction in self._reductions.values() if (due := reduction.due())]
        times += [came + self._seconds for came in self._followed().values()]
        times += self.moved.due()
        return min(times, default=0.0)

    def _followed(self) -> dict[str, float]:
        """Return the jobs with a later start, and its arrival."""
        found: dict[str, float] = {}
        for batch, came in self._next:
            found.setdefault(job_of(generation_of(batch.run)), came)
        return found

    @property
    def over(self) -> bool:
        """True if a start of a job is over, and the next one has come: see `waiting`; or one has just been moved."""
        return self._handed_over or any(job not in self._reductions for job in self._followed())

    def waiting(self) -> list[Batch]:
        """Return batches that have waited for starts of jobs that are over, to be taken again."""
        self._handed_over = False
        known, self._next = self._next, deque()
        batches = []
        for batch, came in known:
            if job_of(generation_of(batch.run)) in self._reductions:
                self._next.append((batch, came))
            else:
                batches.append(batch)
        return batches

    def is_due(self, now: float) -> bool:
        """Return True if there is something to do without queued batches."""
        return self.over or self._news or 0.0 < self._due() <= now or self.moved.is_due(now)

    def begins_with(self, batch: Batch) -> bool:
        """Return True if a batch is the first of a start of a job: call `begin` before `take`."""
        if not is_reduced(batch.run):
            return False
        generation = generation_of(batch.run)
        return job_of(generation) not in self._reductions and generation not in self._past

    def begin(self, run: RunDefinition) -> None:
        """Begin to reduce one start of a job.

        Args:
            run: as its first rank defines it. All that was encoded before has to be in the event file.

        Raises:
            OSError: what the folder holds cannot be read at this moment.
        """
        writer = self._writer
        folders = self._folders or Folders(writer.directory, run, writer.checkpoints)
        try:
            reduction = Reduction(
                folders,
                writer.contents.reduced,
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
        except OSError:
            if self._folders is None:
                folders.close()  # nothing is held then
            raise
        self._folders = folders
        if reduction.superseded:
            self._past.add(reduction.generation)
        else:
            reduction.beside_others = not all(other.over for other in self._reductions.values())
            self._reductions[job_of(reduction.generation)] = reduction

    def take(self, batch: Batch) -> bool:
        """Take a batch of a rank. Return False if it is not one."""
        if not is_reduced(batch.run):
            return False
        generation = generation_of(batch.run)
        reduction = self._reductions.get(job_of(generation))
        now = time.monotonic()
        if reduction is None or is_before(generation, reduction.generation):
            self._superseded.append(batch)
        elif generation == reduction.generation:
            reduction.take(batch, now)
        else:
            self._next.append((batch, now))
        return True

    def look_for_others(self) -> bool:
        """Return True if other jobs may be in the way: encoded events must be in the file and read then."""
        gone = {session for session, _ in [*self._gone, *self._early]}
        busy = {known.generation for known in self._reductions.values() if known.is_busy(gone)}
        found = False
        for reduction in self._reductions.values():
            claims = self._writer.claims(reduction.run, busy) or reduction.beside_others
            reduction.claim = self._writer.claim if claims else None
            found = found or claims
        return found

    @property
    def gone(self) -> int:
        """Return the number of sessions ended since the last `emit`. All their records are queued before."""
        return len(self._gone)

    def emit(self, pieces: list[Piece], gone: int) -> list[bytes]:
        """Append complete points; return the sessions that this settles further in the ledger.

        Args:
            pieces: added to.
            gone: so many of those that have gone have nothing queued any more; the others are waited for.
        """
        sessions = self._refuse(pieces)
        now = time.monotonic()
        self._news = False
        early, self._early = self._early, deque(maxlen=RANKS_MAX)
        early += [self._gone.popleft() for _ in range(min(gone, len(self._gone)))]
        if self._gone:
            self._news = True
        for session, run in early:
            if run in self.moved:
                self.moved.leave(session, run)
                continue
            generation = generation_of(run)
            reduction = self._reductions.get(job_of(generation))
            if reduction is not None and reduction.generation == generation:
                reduction.leave(session, run.rank)
                self._left.append((session, run))
            elif generation not in self._past and (reduction is None or is_before(reduction.generation, generation)):
                self._early.append((session, run))
        followed = self._followed()
        self._ending = {
            job
            for job, reduction in self._reductions.items()
            if job in followed and (reduction.over or now - followed[job] >= self._seconds)
        }
        over = [job for job, reduction in self._reductions.items() if reduction.over]
        self._ending.update(over[: max(0, len(self._reductions) - JOBS_MAX)])
        for job, reduction in self._reductions.items():
            try:
                sessions += reduction.emit(now, pieces, everything=job in self._ending)
            except GoesBeside as error:
                sessions += reduction.leave_off(pieces)
                self._writer.move(reduction.run, str(error), pieces)
                self._moving.append(reduction)
        return sessions

    def _refuse(self, pieces: list[Piece]) -> list[bytes]:
        """Refuse late records of a start of the job that another has followed."""
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
        """Yield the batches that are settled in the event file."""
        yield from self._superseded
        self._superseded.clear()
        self._refused = 0
        for reduction in self._reductions.values():
            yield from reduction.done(lambda session: self._writer.entry(session).end)
        for reduction in self._moving:
            self._move(reduction)
        self._moving.clear()
        for job in self._ending:
            self._reductions.pop(job, None)
            self._left = deque(
                (known for known in self._left if job_of(generation_of(known[1])) != job), maxlen=RANKS_MAX
            )
        self._ending = set()

    def _move(self, reduction: Reduction) -> None:
        """Hand over unsettled batches, once all written points are in the event file."""
        self._handed_over = True
        self.moved.begin(reduction.run)
        outs = reduction.out()
        for batch in reduction.held():
            self.moved.take(batch, self._writer.entry(batch.session).end, outs.get(batch.session))
        del self._reductions[job_of(reduction.generation)]
        for session, run in [known for known in self._left if known[1] in self.moved]:
            self._left.remove((session, run))
            self.moved.leave(session, run)

    def start_over(self) -> list[Batch]:
        """Forget everything; return unsettled batches, to be taken again."""
        held = [*self._superseded]
        for reduction in self._reductions.values():
            held += reduction.held()
        held += [batch for batch, _ in self._next]
        held += self.moved.start_over()
        self._moving.clear()
        self._next.clear()
        self.close()
        self._folders = None
        self._reductions.clear()
        self._past.clear()
        self._superseded.clear()
        self._refused = 0
        self._gone.extend(self._left)  # who has left will be news to the next reductions
        self._left.clear()
        self._ending = set()
        return held

    @property
    def scope(self) -> Scope:
        """The scope of the restart that ranks have reached."""
        return next((known.scope for known in self._reductions.values() if known.scope.restart is not None), Scope())

    def restart(self, step: int, asked: float, staying: frozenset[bytes] = frozenset()) -> None:
        """Continue all tags from a step, also beside the run, except those of lives in ``staying``."""
        reductions = list(self._reductions.values())
        for reduction in [known for known in reductions if known.scope.restart is not None] or reductions:
            reduction.restart(step, asked, staying)

    # --- the sides -------------------------------------------------------------------------------------------

    def write_sides(self) -> None:
        """Write the companions, before the run itself.

        Raises:
            FileLost, OSError: it cannot be; the next call goes on.
        """
        if self._folders is not None:
            self._folders.write()

    def sync(self) -> None:
        """Sync the companions to disk.

        Raises:
            OSError: it cannot be.
        """
        if self._folders is not None:
            self._folders.sync()

    def park(self) -> None:
        """Close the descriptors."""
        if self._folders is not None:
            self._folders.park()

    def close(self) -> None:
        """Close the files, at the end of the daemon."""
        if self._folders is not None:
            self._folders.close()


def _histogram(parts: list[tuple[Batch, Single]]) -> Any:
    records = [item.record for _, item in parts if item.record is not None]
    batch, first = parts[0]
    assert first.record is not None
    return schema.Summary(value=encode_together(records, batch.tag(first.record.tag)))
