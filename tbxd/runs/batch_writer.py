"""Batches go from the backlog of a run into its event file, and into what is beside it.

A write that the disk breaks off is gone on with by the next: what is encoded and not in the file is kept here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..batch import Batch
from ..metrics.histograms import Meters
from ..reduce.displaced_jobs import Moved
from ..reduce.job_starts import is_reduced
from ..reduce.rank_jobs import Ranks
from ..tfevents.event_builder import note
from ..tfevents.ledger import Entry
from ..tfevents.scalar_columns import Piece
from .backlog import Backlog
from .batch_plan import Plan, Planner
from .lost_files import Losses
from .record_encoder import RecordEncoder
from .run_files import RunFiles, syncing
from .runs_beside import Besides, name_of

log = logging.getLogger(__name__)

WRITE_BYTES = 1 << 20  # events are handed to the disk in pieces of about this size
RANKS_SHARE = 64  # of what ranks log, so little is written: as many batches as there are go into one write


class BatchWriter:
    """Of one run; its folder is owned while anything is written.

    Args:
        backlog: what is to be written.
        encoder: makes events of it.
        files: where they go.
        ranks, moved, besides: what is beside the run.
        losses: are told what is written.
        meters: where it is counted how long writes take.
        durable: what is written is brought onto the disk at once.
        done: called with each batch that is in the event file.
        held: called with each batch that waits for other ranks, and for nothing else.
    """

    def __init__(
        self,
        backlog: Backlog,
        encoder: RecordEncoder,
        files: RunFiles,
        ranks: Ranks,
        moved: Moved,
        besides: Besides,
        losses: Losses,
        meters: Meters,
        durable: bool,
        done: Callable[[Batch], None],
        held: Callable[[Batch], None] | None,
    ) -> None:
        self.finishing = False  # something is encoded, but the file may not hold all of it
        self.encoding = False  # something is being encoded, of which nothing is owed yet
        self._directory = encoder.directory
        self._backlog = backlog
        self._encoder = encoder
        self._files = files
        self._ranks = ranks
        self._moved = moved
        self._besides = besides
        self._losses = losses
        self._meters = meters
        self._durable = durable
        self._done = done
        self._held = held
        self._owed = b""  # encoded, and to be written when the sides are
        self._taken: list[Batch] = []  # by the ranks, and not looked at yet what of them can go out
        self._kept: list[Batch] = []  # by them, as far as what is encoded does not settle them
        self._planner = Planner(encoder.lives)
        self._planned: tuple[Batch, Plan | None] | None = None  # of the batch that is first in the queue

    def start_over(self) -> None:
        """What is encoded is lost, and comes again."""
        self._planner = Planner(self._encoder.lives)
        self._planned = None
        self._taken.clear()
        self._kept.clear()
        self._owed = b""
        self.finishing = self.encoding = False

    def write(self) -> None:
        """Write what is queued, or a part of it.

        Raises:
            FileLost: the file cannot be gone on with.
            OSError: the disk does not take it; `finish` goes on, if ``finishing``.
        """
        pieces: list[Piece] = []
        size = 0
        if self._ranks.over:
            self._backlog.again(self._ranks.waiting())
        begun = time.perf_counter()
        gone = self._ranks.gone
        while (first := self._backlog.first) is not None and size < WRITE_BYTES:
            self._prepare(first, pieces)
            self.encoding = True
            batch = self._backlog.begin()
            if is_reduced(batch.run):
                if batch.run in self._moved:
                    self._encoder.join(batch, pieces)
                    self._moved.take(batch, self._encoder.working(batch.session).end)
                else:
                    self._ranks.take(batch)
                    self._taken.append(batch)
                self._backlog.hand_over()
                size += batch.size // RANKS_SHARE
            else:
                plan = self._planned[1] if self._planned is not None and self._planned[0] is batch else None
                self._planned = None
                size += self._encoder.encode(batch, pieces, plan)
        self._encoder.flush_scalars(pieces)
        if self._ranks.look_for_others():
            self._flush(pieces)
            self._encoder.lives.read(self._files.folder.name)
        self.encoding = True
        # What a session has logged comes before its end, so where the queue has been empty all of it was taken.
        self._encoder.settling.update(self._ranks.emit(pieces, gone if size < WRITE_BYTES else 0))
        self._kept += self._taken
        self._taken.clear()
        self._write_moved(pieces)
        self._encoder.note_drops(pieces)
        data = b"".join(pieces)
        self._meters.encode.observe(time.perf_counter() - begun)
        self.finish(data)

    def _prepare(self, batch: Batch, pieces: list[Piece]) -> None:
        """Read what the folder holds where a batch needs to know it; it is still queued, and nothing else is half done.

        Raises:
            OSError: it cannot be read at this moment.
        """
        run = batch.run
        numbered = batch.numbered and not self._encoder.counts_steps
        ranks = batch.run not in self._moved and self._ranks.begins_with(batch)
        plain = not is_reduced(run)
        new = ranks or (plain and not self._encoder.lives.knows(batch.session))
        texts: list[str] = []
        if numbered or new:
            self._flush(pieces)  # the file has to hold all that counts
            if new:
                texts = self._encoder.lives.begin(batch.session, run, self._files.folder.made, self._files.folder.name)
            if ranks and self._encoder.lives.is_moved(run):
                pieces += [note(text) for text in (*texts, self._encoder.lives.move(run))]
                texts = []
                self._flush(pieces)
                self._moved.begin(run)
            elif ranks:
                self._ranks.begin(run)
            if numbered:
                self._encoder.count_steps()
        pieces += [note(text) for text in texts]
        if plain and (self._planned is None or self._planned[0] is not batch):
            self._planned = batch, self._plan(batch, pieces)
        plan = self._planned[1] if plain and self._planned is not None else None
        if plan is not None and plan.away:
            self._flush(pieces)
            self._besides.write(self._directory, batch, plan)

    def _flush(self, pieces: list[Piece]) -> None:
        """Have all in the file that is encoded."""
        self._encoder.flush_scalars(pieces)
        self.finish(b"".join(pieces))
        pieces.clear()

    def _plan(self, batch: Batch, pieces: list[Piece]) -> Plan | None:
        """What becomes of a batch where others have logged here: None where that is none of their business.

        Raises:
            OSError: what the folder holds cannot be read at this moment.
        """
        whole = self._planner.whole(batch)
        settled = self._encoder.entries.get(batch.session, Entry()).end
        if whole is not None or self._planner.is_quiet(batch, settled):
            return whole
        self._flush(pieces)
        self._encoder.lives.read(self._files.folder.name)
        plan = self._planner.plan(batch, settled)
        pieces += [note(text) for text in plan.notes]
        if plan.why:
            log.warning(
                "%s: what %s logs goes to %s below it, from %s on: another process is further, and not its predecessor",
                self._directory,
                f"{batch.run.script or 'a process'} (pid {batch.run.pid} on {batch.run.host})",
                name_of(batch.run),
                plan.why,
            )
        return plan

    def _write_moved(self, pieces: list[Piece]) -> None:
        """Write what is beside the run of ranks, and append how far that settles their sessions."""
        batches, entries = self._moved.write(self._encoder.working)
        if batches:
            self._encoder.settle_moved(entries, pieces)
            self._backlog.take_back(batches)

    def finish(self, data: bytes = b"") -> None:
        """Have in the file what is encoded: ``data``, behind what is owed of before.

        Raises:
            FileLost: the file cannot be gone on with.
            OSError: the disk does not take it; the next call goes on.
        """
        file = self._files.folder.file
        assert file is not None
        self.finishing = True
        self._owed += data
        self.encoding = False
        begun = time.perf_counter()
        self._ranks.write_sides()
        if self._durable:  # before the run says that a point is written, which it may do on the disk at any time
            with syncing():
                self._ranks.sync()
        data, self._owed = self._owed, b""
        file.write(data)
        meters = self._meters
        meters.write.observe(time.perf_counter() - begun)
        meters.batch_bytes.observe(len(data))
        if self._durable:
            self.sync()
        self._encoder.settle(batch.session for batch in self._backlog.unwritten)
        records = 0
        if self._held is not None:
            for batch in self._kept:
                self._held(batch)
        self._kept.clear()
        while self._backlog.unwritten:
            batch = self._backlog.unwritten[0]
            records += batch.records
            self._losses.wrote(batch)
            self._done(batch)
            self._backlog.end()
        for batch in self._ranks.done():
            records += batch.records
            self._losses.wrote(batch)
            self._done(batch)
        self.finishing = False
        if records:
            meters.batch_records.observe(records)

    def sync(self) -> None:
        """Bring what is written, here and beside the run, onto the disk.

        Raises:
            FileLost: the file cannot be gone on with.
            OSError: the disk cannot take it.
        """
        file = self._files.folder.file
        if file is None:
            return
        with syncing():
            self._ranks.sync()
            self._besides.sync()
            self._files.folder.inherited.sync(self._files.folder.descriptor)
            begun, dirty = time.perf_counter(), file.dirty
            file.sync()
            if dirty:
                self._meters.fsync.observe(time.perf_counter() - begun)
