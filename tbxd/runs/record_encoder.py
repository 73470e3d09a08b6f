"""The records of one run become events, and its ledger goes along: how far each session is in what has been encoded.

What is in the event files is the run writer's to know (`run_ledger`). This is always as far or further, and begins anew
from there when a file is lost.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tbxd_client.protocol.kinds import RESTART, ROW
from tbxd_client.protocol.records import STEP_MAX, Record, RunDefinition

from ..batch import Batch, Scalars, Single
from ..encode import Refused
from ..encode.scalar_batcher import ScalarWriter
from ..process import incident_log
from ..reduce.aggregate import Integers
from ..reduce.displaced_jobs import GoesBeside
from ..reduce.displaced_jobs import name_of as moved_name
from ..reduce.job_starts import is_reduced
from ..reduce.rank_jobs import Ranks
from ..tfevents import schema
from ..tfevents.auto_steps import Steps
from ..tfevents.checkpoint import Checkpoints
from ..tfevents.contents import Contents
from ..tfevents.event_builder import event_record, note
from ..tfevents.ledger import Entry, Ledger, Marker, notes
from ..tfevents.lineage import life_of
from ..tfevents.scalar_columns import Piece
from .accounting import add_counts
from .batch_plan import Plan
from .record_event import what_happened
from .resume import Alive, Lives, Restart
from .run_files import RunFiles
from .run_ledger import RunLedger
from .runs_beside import Besides

log = logging.getLogger(__name__)

DROPPED_TAG = "tbxd/dropped/"  # beginning of the tags that show how many records of a run are missing, by reason


class RecordEncoder:
    """Encodes for one run. For one thread at a time.

    Args:
        directory: the run's folder.
        files: its files.
        ledger: how far its sessions are in them.
        besides: the runs beside it.
        checkpoints: of what folders hold, for what is beside the run of ranks.
        alive: as for `resume.Lives`.
    """

    ranks: Ranks  # of the run; they need this to encode what they let go out, so they come after it

    def __init__(
        self,
        directory: Path,
        files: RunFiles,
        ledger: RunLedger,
        besides: Besides,
        checkpoints: Checkpoints,
        alive: Alive,
    ) -> None:
        self.directory = directory
        self.checkpoints = checkpoints
        self.marker = Marker()  # of the event file
        self.entries: Ledger = {}  # the ledger behind what has been encoded
        self.lives = Lives(files.read, (DROPPED_TAG,), alive)
        self.settling: set[bytes] = set()  # sessions of ranks that what is encoded takes further
        self._alive = alive
        self._files = files
        self._ledger = ledger
        self._besides = besides
        self._scalars = ScalarWriter(self.marker)
        self._steps: Steps | None = None  # of a run with numbered tags: behind what has been encoded
        self._noting = False  # a note is encoded, but the file may not hold all of it
        self._shown: dict[str, int] = {}  # drops by reason as the run's own scalars have them
        self._last_step, self._note_step = 0, -1

    def begin_file(self) -> None:
        """What is encoded from here on goes to another file, from what the files hold on."""
        self.entries = {session: entry.copy() for session, entry in self._ledger.entries.items()}
        self.marker = Marker()
        self._scalars = ScalarWriter(self.marker)

    def shows(self, ledger: Ledger) -> None:
        """The run's own scalars say already what is missing by this ledger."""
        self._shown = drops_of(ledger)

    def start_over(self) -> None:
        """What is encoded is lost, and the files have to be read again."""
        self._steps = None
        self.lives = Lives(self._files.read, (DROPPED_TAG,), self._alive)  # all that it knows is in the files
        self.settling.clear()
        self._noting = False

    def settle(self, sessions: Iterable[bytes]) -> None:
        """The file holds what was encoded.

        Args:
            sessions: that it takes further, besides those of ranks.
        """
        self._ledger.settle(self.entries, {*self.settling, *sessions}, whole=self._noting)
        self.settling.clear()
        self._noting = False

    def forget(self) -> None:
        """It is let go of: leave no circle that waits for the garbage collector."""
        del self.ranks, self.lives, self._besides

    # --- steps that the daemon counts ------------------------------------------------------------------------

    @property
    def counts_steps(self) -> bool:
        """Whether the run has numbered tags."""
        return self._steps is not None

    def count_steps(self) -> None:
        """Give numbered tags their steps from here on.

        Raises:
            OSError: what the files hold cannot be read at this moment.
        """
        self._steps = Steps(self.contents)

    # --- for ranks, and for what is beside the run -----------------------------------------------------------

    def join(self, batch: Batch, pieces: list[Piece]) -> None:
        """Append what has to be said of a session before anything of it."""
        pieces += [note(text) for text in self.lives.join(batch.session, batch.run)]

    def settle_moved(self, entries: dict[bytes, Entry], pieces: list[Piece]) -> None:
        """Append how far sessions are, whose records are beside the run."""
        self._scalars.flush(pieces)
        pieces += [note(text) for text in self.marker.settle(entries)]

    @property
    def contents(self) -> Contents:
        """What the folder's files hold at this moment.

        Raises:
            OSError: one of them cannot be read at this moment.
        """
        return self._files.contents

    def entry(self, session: bytes) -> Entry:
        """How far a session is in the event files."""
        return self._ledger.entry(session)

    def working(self, session: bytes) -> Entry:
        """How far a session is in what has been encoded; to be moved on with what is encoded next."""
        return self.entries.setdefault(session, Entry())

    def claims(self, run: RunDefinition, busy: set[str]) -> bool:
        """Whether others' points may be in the way of those of ranks: see `resume`."""
        self.lives.busy = {life_of(generation) for generation in busy}
        return self.lives.has_strangers(run)

    def claim(self, run: RunDefinition, names: Sequence[str], steps: Integers) -> dict[str, int]:
        """Take note of points that ranks are about to write: see `resume`.

        Raises:
            GoesBeside: others' points are in the way.
        """
        why, met = self.lives.claim(run, names, steps)
        if why:
            raise GoesBeside(why)
        return met

    def move(self, run: RunDefinition, why: str, pieces: list[Piece]) -> None:
        """Append that the points of a start of a job are beside the run from here on."""
        pieces.append(note(self.lives.move(run)))
        log.warning(
            "%s: what the ranks of %s log goes to %s below it, from %s on: another process logs there, or is further, "
            "and is not their predecessor",
            *(self.directory, run.job or "a job", moved_name(run), why),
        )

    def encode_as_is(self, batch: Batch, item: Scalars | Single, pieces: list[Piece]) -> None:
        """Append the events of a record or of scalars of one rank; scalars may wait for `flush_scalars`."""
        entry = self.working(batch.session)
        self.join(batch, pieces)
        if isinstance(item, Scalars):
            self._gather(batch, item, entry, pieces)
            if self._scalars.full:
                self._scalars.flush(pieces)
        else:
            self._scalars.flush(pieces)
            self._encode_single(batch, item, entry, pieces)
        self.settling.add(batch.session)

    def go_on(self, run: RunDefinition, firsts: dict[str, int], pieces: list[Piece]) -> None:
        """Append what has to stand before points of several ranks: tags, and the first steps that come of them."""
        again = self.lives.points(run, firsts)
        if again:
            pieces.append(again)

    def flush_scalars(self, pieces: list[Piece]) -> None:
        """Append the events of scalars that were gathered."""
        self._scalars.flush(pieces)

    def encode(self, batch: Batch, pieces: list[Piece], plan: Plan | None = None) -> int:
        """Append the records of a batch as events to ``pieces``; scalars are gathered. Returns the bytes of both."""
        entry = self.entries.setdefault(batch.session, Entry())
        before, gathered, apart = len(pieces), 0, False
        for index, item, away in plan.parts(batch) if plan is not None else ((0, item, False) for item in batch.items):
            if away:
                apart = self._pass_over(item, entry) or apart
                continue
            if apart or (plan is not None and index in plan.before):
                self._scalars.flush(pieces)
                gathered = 0
                pieces += self._settle_apart(batch, entry) if apart else ()
                apart = False
                pieces.append(plan.before.pop(index, b"") if plan is not None else b"")
            if isinstance(item, Scalars):
                gathered += self._gather(batch, item, entry, pieces)
                if self._scalars.full:
                    self._scalars.flush(pieces)
                    gathered = 0
            elif item.end > entry.end:
                self._scalars.flush(pieces)
                gathered = 0
                self._encode_single(batch, item, entry, pieces, plan.restarts.get(index) if plan is not None else None)
        if apart:
            self._scalars.flush(pieces)
            gathered = 0
            pieces += self._settle_apart(batch, entry)
        return sum(len(piece) for piece in pieces[before:]) + gathered

    @staticmethod
    def _pass_over(item: Scalars | Single, entry: Entry) -> bool:
        """Count records that are beside the run. False where that was done before."""
        ends = np.array([item.end], np.int64) if isinstance(item, Single) else item.ends
        count = int(np.count_nonzero(ends > entry.end))
        entry.count += count
        entry.end = max(entry.end, int(ends[-1]))
        return count > 0

    def _settle_apart(self, batch: Batch, entry: Entry) -> list[bytes]:
        """The notes that say how far a session is of which the last records are beside the run."""
        refused = dict(entry.refused)
        add_counts(refused, self._besides.refused(self.directory, batch.run, batch.session))
        entry.refused = refused
        return [note(text) for text in self.marker.settle({batch.session: entry})]

    def _gather(self, batch: Batch, item: Scalars, entry: Entry, pieces: list[Piece]) -> int:
        """Take scalars; returns the bytes of their records."""
        values, ends = item.values, item.ends
        if int(ends[0]) <= entry.end:  # some of it is written already
            first = int(np.searchsorted(ends, entry.end, side="right"))
            values, ends = values[first:], ends[first:]
            if not len(values):
                return 0
        steps = values["step"].astype(np.int64)
        self._last_step = max(self._last_step, int(steps.max()))
        if self._steps is not None:
            tags = [batch.tag(number) for number in values["tag"].tolist()]
            for index, (tag, step) in enumerate(zip(tags, steps.tolist(), strict=True)):
                steps[index] = _step(self._steps, tag.numbered, [tag.tag], step)
        again = self.lives.scalars(batch.session, batch.tags, values["tag"], steps)
        if again:
            self._scalars.flush(pieces)
            pieces.append(again)
        self._scalars.add(batch, values, ends, steps, entry)
        return int(values.nbytes)

    def _encode_single(
        self, batch: Batch, item: Single, entry: Entry, pieces: list[Piece], restart: Restart | None = None
    ) -> None:
        record = item.record
        event: dict[str, Any] = {}
        reason = item.reason
        if record is not None:
            try:
                event = what_happened(batch, record, self._files.folder)
            except Refused as refused:
                reason = refused.reason
            except Exception:
                log.exception("%s: a record of kind %d", self.directory, record.kind)
                reason = "internal_error"
        entry.end = item.end
        entry.count += 1
        if record is None or reason:
            entry.refused = {**entry.refused, reason: entry.refused.get(reason, 0) + 1}
            mark = self.marker.mark(batch.session, entry, item.size, refused=True)
            pieces.append(note(mark))
            return
        self._last_step = max(self._last_step, record.step)
        step = self._step(batch, record, event)
        again = self._again(batch, record, step, event, pieces, restart)
        if again:
            pieces.append(again)
        mark = self.marker.mark(batch.session, entry, item.size)
        wall_time = record.wall_time if math.isfinite(record.wall_time) else time.time()
        pieces.append(event_record(step, wall_time, mark, **event))

    def _again(
        self,
        batch: Batch,
        record: Record,
        step: int,
        event: dict[str, Any],
        pieces: list[Piece],
        restart: Restart | None,
    ) -> bytes:
        """What has to stand before an event where the run goes on from an earlier step."""
        if record.kind == RESTART:
            scope = self.ranks.scope if is_reduced(batch.run) else None
            if restart is None:
                own = self._files.folder.name
                restart = self.lives.restart(batch.session, step, record.wall_time, own, pieces, scope)
            if self._steps is not None:
                self._steps.restart(step, None if restart.all else restart.tags)
            self.ranks.restart(step, record.wall_time, self.lives.staying)
            if not restart.all:
                event.clear()  # START would take the others with it, so that the event is nothing but a record's
            return restart.events + (note(restart.note) if restart.note else b"")
        if "summary" not in event:
            return b""
        return self.lives.others(batch.session, [value.tag for value in event["summary"].value], step)

    def _step(self, batch: Batch, record: Record, event: dict[str, Any]) -> int:
        """The step of an event: its record's, or the next one of its tags."""
        if self._steps is None:
            return record.step
        tags = batch.row(record.tag).tags if record.kind == ROW else (record.tag,)
        if "summary" not in event or not tags:
            return record.step
        names = [value.tag for value in event["summary"].value]
        return _step(self._steps, batch.tag(tags[0]).numbered, names, record.step)

    def note_drops(self, pieces: list[Piece]) -> None:
        """Let the run itself say what is missing in it, when that has changed: in the ledger, and as scalars."""
        news = self._ledger.news(self.entries)
        for session, dropped in news.items():
            self.entries.setdefault(session, Entry()).dropped = dropped
        drops = drops_of(self.entries)
        if not news and drops == self._shown:
            return
        incident_log.dropped(self.directory, drops, self._shown)
        # A step of its own for each: TensorBoard's fast loader keeps one point for a step.
        self._note_step = min(max(self._last_step, self._note_step + 1), STEP_MAX)
        values = [
            schema.Summary.Value(tag=DROPPED_TAG + reason, simple_value=count)
            for reason, count in drops.items()
            if count != self._shown.get(reason)
        ]
        *more, last = notes(news)
        pieces += [note(text) for text in more]
        pieces.append(event_record(self._note_step, time.time(), last, summary=schema.Summary(value=values)))
        self._shown = drops
        self._noting = True


def drops_of(ledger: Ledger) -> dict[str, int]:
    """How many records of a run are missing, by reason: refused here, or not kept by their trainers."""
    drops: dict[str, int] = {}
    for entry in ledger.values():
        for counts in (entry.refused, entry.dropped):
            for reason, count in counts.items():
                drops[reason] = drops.get(reason, 0) + count
    return drops


def _step(steps: Steps, numbered: bool, tags: list[str], step: int) -> int:
    if numbered:
        return steps.next(tags)
    for tag in tags:
        steps.note(tag, step)
    return step
