"""A run: the one owner of a log folder. Batches of records come in, an event file grows.

`RunWriter` lives on its strand: everything but `offer` and the public counters is called by one thread at a time. It
never raises for trouble with the disk: what is not written stays queued, the reason is in `error`, and the next
attempt goes on where this one stopped.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tbxd_client.protocol.kinds import EMBEDDING, EVENT, GRAPH, ONNX_GRAPH, OPENVINO_GRAPH, RESTART, ROW
from tbxd_client.protocol.records import STEP_MAX, Record, RunDefinition

from ..batch import Batch, Scalars, Single
from ..encode import Refused, encode
from ..encode.embedding import embedding_of
from ..encode.graph import graph_of
from ..encode.onnx_graph import graph_of as onnx_graph_of
from ..encode.openvino_graph import graph_of as openvino_graph_of
from ..encode.raw_event import what_of
from ..encode.scalar_batcher import ScalarWriter, float32
from ..metrics.histograms import Meters
from ..process import incident_log
from ..reduce.aggregate import Integers
from ..reduce.deadlines import Read
from ..reduce.displaced_jobs import GoesBeside, Moved
from ..reduce.displaced_jobs import name_of as moved_name
from ..reduce.job_starts import is_reduced
from ..reduce.rank_jobs import Ranks
from ..tfevents import schema
from ..tfevents.auto_steps import Steps
from ..tfevents.checkpoint import Checkpoints
from ..tfevents.contents import Contents
from ..tfevents.event_builder import event_record, note
from ..tfevents.event_file import FileLost
from ..tfevents.event_sink import EventSink
from ..tfevents.folder import NameRefused
from ..tfevents.ledger import Entry, Ledger, Marker, forgotten, notes
from ..tfevents.lineage import life_of
from ..tfevents.scalar_columns import Piece
from . import projector, unwritable
from .accounting import add_counts
from .batch_plan import Plan, Planner
from .lost_files import Losses
from .resume import Alive, Lives, Restart
from .run_files import SYNC_ERROR, RunFiles, syncing
from .runs_beside import Besides, name_of

log = logging.getLogger(__name__)

SESSION_LOG_START = 1  # SessionLog.SessionStatus.START of event.proto
AGAIN_SECONDS = 1.0  # before another lost file is made anew without a pause
WRITE_BYTES = 1 << 20  # events are handed to the disk in pieces of about this size
RANKS_SHARE = 64  # of what ranks log, so little is written: as many batches as there are go into one write
DROPPED_TAG = "tbxd/dropped/"  # beginning of the tags that show how many records of a run are missing, by reason


# Records that are large take several times their size in memory while they are encoded: as many at a time, over all
# runs, as there are processors to do it.
LARGE_BYTES = 256 << 10
_large = threading.BoundedSemaphore(len(os.sched_getaffinity(0)))

GRAPHS = {GRAPH: graph_of, ONNX_GRAPH: onnx_graph_of, OPENVINO_GRAPH: openvino_graph_of}


class RunWriter:
    """Writes one folder.

    Args:
        directory: the folder, absolute and without links.
        done: called on the strand's thread with each batch that is in the event file.
        durable: and on the disk.
        ranks_seconds: how long what several ranks log waits for one of them.
        meters: where it is counted how long writes take; those of the daemon.
        checkpoints: of what folders hold; those of the daemon.
        held: called with each batch that is not written because it waits for other ranks, and for nothing else.
        ended: the sessions that are over for good.
        read: up to when what a session has logged has come, and when something last did, by the monotonic clock.
        alive: as for `resume.Lives`.
    """

    def __init__(
        self,
        directory: Path,
        done: Callable[[Batch], None],
        durable: bool = False,
        ranks_seconds: float = 30.0,
        meters: Meters | None = None,
        checkpoints: Checkpoints | None = None,
        held: Callable[[Batch], None] | None = None,
        ended: Container[bytes] = (),
        read: Read | None = None,
        alive: Alive = lambda session, began: False,
    ) -> None:
        self.directory = directory
        self.losses = Losses(directory, alive)
        self._meters = meters or Meters()
        self.checkpoints = checkpoints or Checkpoints()
        self._ended = ended
        self._moved = Moved(directory, partial(self._make_moved, ranks_seconds, read), held)
        self.ranks = Ranks(self, ranks_seconds, self._moved, read)
        self._durable = durable
        self.error = ""  # what keeps it from writing, for `tbxd status`
        self._untidy = ""  # that of them which the last sync or park has found, and the next may find gone
        self.ledger: Ledger = {}  # what the files hold; changed under the lock
        self.comes_back = False  # the daemon had let go of it before,
        self.found: Ledger = {}  # and this is what its files held then: see `known`
        self.sync_due = False  # what is written is to be on the disk soon; any thread may say so
        self._known = False  # the ledger has been read
        self._done = done
        self._held = held
        self._taken: list[Batch] = []  # by the ranks, and not looked at yet what of them can go out
        self._kept: list[Batch] = []  # by them, as far as what is encoded does not settle them
        self._queue: deque[Batch] = deque()
        self._queued_bytes = 0
        self._lock = threading.Lock()
        self.files = RunFiles(directory, self.checkpoints)
        self._working: dict[bytes, Entry] = {}  # the ledger behind what has been encoded
        self._marker = Marker()
        self._scalars = ScalarWriter(self._marker)
        self._lives = Lives(self.files.read, (DROPPED_TAG,), alive)
        self._planner = Planner(self._lives)
        self._planned: tuple[Batch, Plan | None] | None = None  # of the batch that is first in the queue
        self.besides = Besides(self._make_beside)
        self._steps: Steps | None = None  # of a run with numbered tags: behind what has been encoded
        self._unwritten: deque[Batch] = deque()  # encoded, but the file does not hold all of it
        self._told: dict[bytes, dict[str, int]] = {}  # what trainers could not keep, as they say; under the lock
        self._teller: RunDefinition | None = None  # the run as the last of them defines it, while that is news
        self._noting = False  # a note is encoded, but the file may not hold all of it
        self._finishing = False  # something is encoded, but the file may not hold all of it
        self._encoding = False  # something is being encoded, of which nothing is owed yet
        self._owed = b""  # encoded, and to be written when the sides are
        self._settling: set[bytes] = set()  # sessions of ranks that what is encoded takes further
        self._shown: dict[str, int] = {}  # drops by reason as the run's own scalars have them
        self._last_step, self._note_step = 0, -1
        self._run: RunDefinition | None = None  # as whoever logged last defines it

    # --- from any thread -------------------------------------------------------------------------------------

    def offer(self, batch: Batch) -> int:
        """Queue a batch; returns the bytes that are queued."""
        with self._lock:
            self._queue.append(batch)
            self._queued_bytes += batch.size
            return self._queued_bytes

    def tell(self, run: RunDefinition, session: bytes, dropped: dict[str, int]) -> bool:
        """Take note of what a trainer could not keep, by reason, since its session began. True when it is news."""
        with self._lock:
            known = self._told.get(session)
            if known is None:
                entry = self.ledger.get(session)
                known = entry.dropped if entry is not None else {}
            merged = {reason: max(known.get(reason, 0), dropped.get(reason, 0)) for reason in {**known, **dropped}}
            if merged == known:
                return False
            self._told[session] = merged
            self._teller = run
            return True

    def read_for(self, run: RunDefinition) -> bool:
        """Have the folder's ledger read with the next write, if it is not known yet. True when that is so."""
        with self._lock:
            if not self._known:
                self._teller = run
            return not self._known

    def settled(self) -> dict[bytes, Entry]:
        """How far each session is in the event files, and what its trainer could not keep."""
        return self.known()[0]

    def known(self) -> tuple[dict[bytes, Entry], Ledger]:
        """The same, and what of it was in the files when a run came back that had been let go of."""
        with self._lock:
            result = dict(self.ledger)
            for session, dropped in self._told.items():
                entry = result[session] = result[session].copy() if session in result else Entry()
                entry.dropped = dropped
            return result, self.found

    def entry(self, session: bytes) -> Entry:
        """How far one session is in the event files."""
        with self._lock:
            return self.ledger.get(session) or Entry()

    def queued(self) -> tuple[int, int, float]:
        """Batches and bytes that are queued or only half written, and when the oldest came, 0 where there is none."""
        with self._lock:
            unwritten = list(self._unwritten)
            first = unwritten[0] if unwritten else self._queue[0] if self._queue else None
            return (
                len(unwritten) + len(self._queue),
                self._queued_bytes + sum(batch.size for batch in unwritten),
                first.arrived if first is not None else 0.0,
            )

    @property
    def waiting(self) -> bool:
        """Whether something is queued or only half written."""
        return bool(self._queue or self._teller or self._finishing or self._moved.waiting)

    @property
    def has_to_do(self) -> bool:
        """Whether a write would do something now."""
        return self.waiting or self.ranks.news

    @property
    def due(self) -> float:
        """When what waits for ranks is to be looked at again, by the monotonic clock; 0 where nothing does."""
        return self.ranks.due

    def leave(self, session: bytes, run: RunDefinition) -> None:
        """A session logs nothing more to the run."""
        self.ranks.leave(session, run)

    @property
    def opened(self) -> bool:
        """Whether it has an event file, open or parked."""
        return self.file is not None

    @property
    def owes(self) -> bool:
        """Whether a sync is owed."""
        return self.dirty or self.untidy

    def told(self) -> dict[str, Any]:
        """What the status says of the run besides counts."""
        return {
            "file": self.name,
            "error": self.error,
            "notice": self.files.others.notice,
            "ranks": self.ranks.status(),
            "removed": self.losses.removed,
            "beside": self.besides.names,
        }

    @property
    def open(self) -> bool:
        """Whether descriptors are held for it."""
        return self.files.folder.held

    @property
    def name(self) -> str:
        """The event file's name, or ""."""
        return self.files.folder.name

    @property
    def file(self) -> EventSink | None:
        """The event file, open or parked."""
        return self.files.folder.file

    @property
    def place(self) -> tuple[int, int]:
        """Device and inode of the folder that was locked last."""
        return self.files.folder.place

    @property
    def kept_out(self) -> tuple[int, int] | None:
        """Those of a folder that another keeps locked."""
        return self.files.folder.kept_out

    @property
    def dirty(self) -> bool:
        """Whether something is written that the disk may not have."""
        return self.files.folder.dirty or self.ranks.dirty or self.besides.dirty

    @property
    def untidy(self) -> bool:
        """Whether what is wrong with it was found by a sync or a park: the next sync is to see whether it still is."""
        return bool(self._untidy) and self.error == self._untidy

    @property
    def defined(self) -> RunDefinition | None:
        """The run as whoever logged last has defined it."""
        return self._run

    def forget(self) -> None:
        """It is let go of, closed as it is: nothing may be called any more. Its memory is free at once, with no circle
        in it that waits for the garbage collector."""
        self.besides.forget()
        self._moved.start_over()
        del self.ranks, self.besides, self._moved, self.files.read, self._lives

    # --- on the strand ---------------------------------------------------------------------------------------

    def write(self) -> None:
        """Write what is queued."""
        if not self._try() and time.monotonic() >= self.losses.next_try:
            self.losses.next_try = time.monotonic() + AGAIN_SECONDS
            self._try()  # a file that is lost holds nobody up: a new one can be made at once

    def _try(self) -> bool:
        """Write what is queued. False where the event file is lost, and all is ready to go on in a new one."""
        try:
            if self._finishing:
                self._finish()
            due, trouble = self.ranks.is_due(time.monotonic()), ""  # what is beside the run, too
            while self._queue or self._teller or due:
                self._open(self._queue[0].run if self._queue else self._teller or self._run)
                self._write_queued()
                self.files.keep()
                if self.sync_due:
                    self.error = ""
                    self.sync()
                    trouble = self.error
                due = self.ranks.over
            self.error = trouble or self._moved.error
        except FileLost as error:
            self._start_over(str(error))
            return False
        except NameRefused as error:
            self._give_up(error)
        except OSError as error:
            if self._encoding:  # no disk was to be asked for anything there: what is encoded is lost
                self._start_over(f"{error.strerror or error}")
            self.error = f"{error.strerror or error}"
        except Exception as error:  # a fault of ours must not take other runs with it, nor go unseen
            log.exception("%s", self.directory)
            self._start_over(f"internal error: {type(error).__name__}: {error}")
        finally:
            self.ranks.publish()
        return True

    def recover(self, why: str) -> None:
        """A job of this run has raised, at any place in it: go on from what the files hold.

        Args:
            why: what `error` says until it is written again; where there is nothing to write, nothing is held up.
        """
        self._start_over(why)
        self.ranks.publish()

    def _write_queued(self) -> None:
        pieces: list[Piece] = []
        size = 0
        if self.ranks.over:
            self._queue_again(self.ranks.waiting())
        begun = time.perf_counter()
        gone = self.ranks.gone
        while self._queue and size < WRITE_BYTES:
            self._prepare(self._queue[0], pieces)
            self._encoding = True
            with self._lock:  # it is in one of both, whoever counts
                batch = self._queue.popleft()
                self._queued_bytes -= batch.size
                self._unwritten.append(batch)
            if is_reduced(batch.run):
                if batch.run in self._moved:
                    pieces += [note(text) for text in self._lives.join(batch.session, batch.run)]
                    self._moved.take(batch, self.working(batch.session).end)
                else:
                    self.ranks.take(batch)
                    self._taken.append(batch)
                with self._lock:
                    self._unwritten.pop()
                size += batch.size // RANKS_SHARE
            else:
                plan = self._planned[1] if self._planned is not None and self._planned[0] is batch else None
                self._planned = None
                size += self._encode(batch, pieces, plan)
        self._scalars.flush(pieces)
        if self.ranks.look_for_others():
            self._flush(pieces)
            self._lives.read(self.name)
        self._encoding = True
        # What a session has logged comes before its end, so where the queue has been empty all of it was taken.
        self._settling.update(self.ranks.emit(pieces, gone if size < WRITE_BYTES else 0))
        self._kept += self._taken
        self._taken.clear()
        self._write_moved(pieces)
        self._note_drops(pieces)
        data = b"".join(pieces)
        self._meters.encode.observe(time.perf_counter() - begun)
        self._finish(data)

    def _prepare(self, batch: Batch, pieces: list[Piece]) -> None:
        """Read what the folder holds where a batch needs to know it; it is still queued, and nothing else is half done.

        Raises:
            OSError: it cannot be read at this moment.
        """
        run = batch.run
        numbered = batch.numbered and self._steps is None
        ranks = batch.run not in self._moved and self.ranks.begins_with(batch)
        plain = not is_reduced(run)
        new = ranks or (plain and not self._lives.knows(batch.session))
        texts: list[str] = []
        if numbered or new:
            self._flush(pieces)  # the file has to hold all that counts
            if new:
                texts = self._lives.begin(batch.session, run, self.files.folder.made, self.name)
            if ranks and self._lives.is_moved(run):
                pieces += [note(text) for text in (*texts, self._lives.move(run))]
                texts = []
                self._flush(pieces)
                self._moved.begin(run)
            elif ranks:
                self.ranks.begin(run)
            if numbered:
                self._steps = Steps(self.contents)
        pieces += [note(text) for text in texts]
        if plain and (self._planned is None or self._planned[0] is not batch):
            self._planned = batch, self._plan(batch, pieces)
        plan = self._planned[1] if plain and self._planned is not None else None
        if plan is not None and plan.away:
            self._flush(pieces)
            self.besides.write(self.directory, batch, plan)

    def _flush(self, pieces: list[Piece]) -> None:
        """Have all in the file that is encoded."""
        self._scalars.flush(pieces)
        self._finish(b"".join(pieces))
        pieces.clear()

    def _plan(self, batch: Batch, pieces: list[Piece]) -> Plan | None:
        """What becomes of a batch where others have logged here: None where that is none of their business.

        Raises:
            OSError: what the folder holds cannot be read at this moment.
        """
        whole = self._planner.whole(batch)
        settled = self._working.get(batch.session, Entry()).end
        if whole is not None or self._planner.is_quiet(batch, settled):
            return whole
        self._flush(pieces)
        self._lives.read(self.name)
        plan = self._planner.plan(batch, settled)
        pieces += [note(text) for text in plan.notes]
        if plan.why:
            log.warning(
                "%s: what %s logs goes to %s below it, from %s on: another process is further, and not its predecessor",
                self.directory,
                f"{batch.run.script or 'a process'} (pid {batch.run.pid} on {batch.run.host})",
                name_of(batch.run),
                plan.why,
            )
        return plan

    def _make_beside(self, directory: Path) -> RunWriter:
        return RunWriter(
            directory,
            lambda batch: None,
            self._durable,
            meters=self._meters,
            checkpoints=self.checkpoints,
            ended=self._ended,
            alive=self.losses.alive,
        )

    def _make_moved(
        self,
        seconds: float,
        read: Read | None,
        directory: Path,
        done: Callable[[Batch], None],
        held: Callable[[Batch], None],
    ) -> RunWriter:
        writer = RunWriter(
            directory,
            done,
            self._durable,
            seconds,
            meters=self._meters,
            checkpoints=self.checkpoints,
            held=held,
            ended=self._ended,
            read=read,
            alive=self.losses.alive,
        )
        self.besides.add(writer)
        return writer

    def _write_moved(self, pieces: list[Piece]) -> None:
        """Write what is beside the run of ranks, and append how far that settles their sessions."""
        batches, entries = self._moved.write(self.working)
        if batches:
            self._scalars.flush(pieces)
            pieces += [note(text) for text in self._marker.settle(entries)]
            with self._lock:
                self._unwritten += batches

    def _finish(self, data: bytes = b"") -> None:
        assert self.file is not None
        self._finishing = True
        self._owed += data
        self._encoding = False
        begun = time.perf_counter()
        self.ranks.write_sides()
        if self._durable:  # before the run says that a point is written, which it may do on the disk at any time
            with syncing():
                self.ranks.sync()
        data, self._owed = self._owed, b""
        self.file.write(data)
        meters = self._meters
        meters.write.observe(time.perf_counter() - begun)
        meters.batch_bytes.observe(len(data))
        if self._durable:
            self._sync_file()
        with self._lock:
            for session in self._settling:
                self.ledger[session] = self._working[session].copy()
            self._settling.clear()
            if self._noting:
                self.ledger = {session: entry.copy() for session, entry in self._working.items()}
                self._noting = False
            for batch in self._unwritten:
                self.ledger[batch.session] = self._working[batch.session].copy()
        records = 0
        if self._held is not None:
            for batch in self._kept:
                self._held(batch)
        self._kept.clear()
        while self._unwritten:
            records += self._unwritten[0].records
            self.losses.wrote(self._unwritten[0])
            self._done(self._unwritten[0])
            with self._lock:
                self._unwritten.popleft()
        for batch in self.ranks.done():
            records += batch.records
            self.losses.wrote(batch)
            self._done(batch)
        self._finishing = False
        if records:
            meters.batch_records.observe(records)

    def _open(self, run: RunDefinition | None) -> None:
        """Own the folder, know what is in it, and have a file to write to."""
        self._run = run
        if self.files.folder.umask is None and run is not None:
            self.files.folder.umask = run.umask
        self.files.own(run, self._take_up)
        if self.file is not None:
            self.file.settle()
        else:
            assert run is not None
            self.files.sync_inherited()
            self._forget_ended(self.ledger)
            self._working = {session: entry.copy() for session, entry in self.ledger.items()}
            self._marker = Marker()
            self._scalars = ScalarWriter(self._marker)
            self.files.open_next(run, self.ledger)

    def _forget_ended(self, other: Ledger) -> Ledger:
        """Of sessions that are over it need not be known one by one how far they were, nor in ``other``; returns that.

        Which they are is asked once: more may be at any moment. One whose trainer could not keep more than the files
        say stays until that is noted.
        """
        with self._lock:
            over = frozenset(
                session
                for session in {*self.ledger, *other}
                if session in self._ended
                and self._told.get(session, {}) in ({}, other[session].dropped if session in other else {})
            )
            self.ledger = forgotten(self.ledger, over)
            for session in over:
                self._told.pop(session, None)
                self._lives.forget(session)
                self.losses.forget(session)
        return forgotten(other, over)

    def _take_up(self) -> None:
        """See how far the sessions are in the folder's files, which have to be read again.

        Raises:
            OSError: they cannot be read at this moment.
        """
        ledger = self._forget_ended(self.files.contents.ledger())
        self._shown = _drops(ledger)
        made = self.files.folder.made
        anew = bool(made) and made.isdisjoint(self.files.read.names())
        opened = self.losses.opened(list(self._queue)) if anew else set()
        past = self.losses.note(self.ledger, ledger, anew, opened)
        if opened:
            self._shown = _drops({session: ledger[session] for session in opened if session in ledger})
        with self._lock:
            self.ledger = ledger
            if self.comes_back and not self._known:
                self.found = dict(ledger)
            self._known = True
            for session in past:
                self._told.pop(session, None)

    def _start_over(self, why: str) -> None:
        """Leave a file that is lost; what the folder's files do not hold is written again, to a new one."""
        self.error = why
        if (path := self.files.leave()) is not None:
            self.losses.moved(path)
        self._steps = None
        self._lives = Lives(self.files.read, (DROPPED_TAG,), self.losses.alive)  # all that it knows is in the files
        self._planner = Planner(self._lives)
        self._planned = None
        again = self.ranks.start_over()
        self.besides.close()
        with self._lock:
            known = {id(batch) for batch in again}  # one that was just being taken may be in both
            again += [batch for batch in self._unwritten if id(batch) not in known]
            self._unwritten.clear()
            self._queue.extendleft(reversed(again))
            self._queued_bytes += sum(batch.size for batch in again)
            self._teller = self._run if self._told else None  # a note may be lost with the file
        self._taken.clear()
        self._kept.clear()
        self._settling.clear()
        self._owed = b""
        self._noting = self._finishing = self._encoding = False
        self.files.folder.unlock()
        if not self.waiting:  # nothing is held up
            self.error = ""

    def _give_up(self, error: NameRefused) -> None:
        """Count as dropped what is queued: it can never be written."""
        with self._lock:
            batches = list(self._queue)
            self._queue.clear()
            self._queued_bytes, self._teller, self._known = 0, None, True
            self.ledger = unwritable.refused(self.ledger, batches)
        if not self.error:
            log.warning("%s: %s; its records are dropped and counted", self.directory, error.strerror)
        self.error = f"{error.strerror}; records are dropped ({unwritable.BAD_NAME})"
        for batch in batches:
            self._done(batch)

    def _queue_again(self, batches: list[Batch]) -> None:
        with self._lock:
            self._queue.extendleft(reversed(batches))
            self._queued_bytes += sum(batch.size for batch in batches)

    def sync(self) -> None:
        """Bring what is written onto the disk, also where it is parked: what the disk has refused is still owed."""
        self.sync_due = False
        if self.file is None:
            return
        parked = not self.files.folder.held
        try:
            if self.dirty:
                self.files.own(None, self._take_up)
                self._sync_file()
            if self.files.folder.held and self.files.others.is_due:
                self.files.see_others()
            if self.untidy:
                self.error = self._untidy = ""
        except OSError as error:
            self.error = self._untidy = f"{error.strerror or error}"
        if parked:
            self._park_files()

    def _sync_file(self) -> None:
        if self.file is None:
            return
        with syncing():
            self.ranks.sync()
            self.besides.sync()
            self.files.folder.inherited.sync(self.files.folder.descriptor)
            begun, dirty = time.perf_counter(), self.file.dirty
            self.file.sync()
            if dirty:
                self._meters.fsync.observe(time.perf_counter() - begun)

    def park(self) -> None:
        """Give back the descriptors and the folder's lock until there is something to write."""
        if self.file is not None and not self.waiting and not self.file.pending:
            self.sync()
            self._park_files()

    def _park_files(self) -> None:
        if self.file is None or self.file.pending or self.waiting:
            return
        self.files.keep(idle=True)
        try:
            self.file.park()
            self.ranks.park()
            self.besides.park()
        except OSError as error:  # a network disk says with close what it could not take; the next sync stores it again
            self.error = self._untidy = f"{SYNC_ERROR}{error.strerror or error}"
            with contextlib.suppress(OSError):
                self.file.close()  # whatever it was: a file that stays open keeps its lock
            # If it is not closed yet: a descriptor that is left keeps this process from its own file.
            self.files.folder.close_file()
        self.files.folder.unlock()

    def close(self) -> None:
        """Sync and close; for the end of the daemon."""
        self.sync()
        if self.error.startswith(SYNC_ERROR):
            log.warning("%s: the last records may not be on the disk: %s", self.directory, self.error)
        self.files.keep(idle=True)
        try:
            self.ranks.close()
        except OSError as error:
            log.warning("%s: closed with an error: %s", self.directory, error.strerror or error)
        self.besides.close()
        self.files.close()

    # --- for ranks, on the strand ----------------------------------------------------------------------------

    @property
    def contents(self) -> Contents:
        """What the folder's files hold at this moment.

        Raises:
            OSError: one of them cannot be read at this moment.
        """
        return self.files.contents

    @property
    def marker(self) -> Marker:
        """That of the event file."""
        return self._marker

    def working(self, session: bytes) -> Entry:
        """How far a session is in what has been encoded; to be moved on with what is encoded next."""
        return self._working.setdefault(session, Entry())

    def claims(self, run: RunDefinition, busy: set[str]) -> bool:
        """Whether others' points may be in the way of those of ranks: see `resume`."""
        self._lives.busy = {life_of(generation) for generation in busy}
        return self._lives.has_strangers(run)

    def claim(self, run: RunDefinition, names: Sequence[str], steps: Integers) -> dict[str, int]:
        """Take note of points that ranks are about to write: see `resume`.

        Raises:
            GoesBeside: others' points are in the way.
        """
        why, met = self._lives.claim(run, names, steps)
        if why:
            raise GoesBeside(why)
        return met

    def move(self, run: RunDefinition, why: str, pieces: list[Piece]) -> None:
        """Append that the points of a start of a job are beside the run from here on."""
        pieces.append(note(self._lives.move(run)))
        log.warning(
            "%s: what the ranks of %s log goes to %s below it, from %s on: another process logs there, or is further, "
            "and is not their predecessor",
            *(self.directory, run.job or "a job", moved_name(run), why),
        )

    def encode_as_is(self, batch: Batch, item: Scalars | Single, pieces: list[Piece]) -> None:
        """Append the events of a record or of scalars of one rank; scalars may wait for `flush_scalars`."""
        entry = self.working(batch.session)
        pieces += [note(text) for text in self._lives.join(batch.session, batch.run)]
        if isinstance(item, Scalars):
            self._gather(batch, item, entry, pieces)
            if self._scalars.full:
                self._scalars.flush(pieces)
        else:
            self._scalars.flush(pieces)
            self._encode_single(batch, item, entry, pieces)
        self._settling.add(batch.session)

    def go_on(self, run: RunDefinition, firsts: dict[str, int], pieces: list[Piece]) -> None:
        """Append what has to stand before points of several ranks: tags, and the first steps that come of them."""
        again = self._lives.points(run, firsts)
        if again:
            pieces.append(again)

    def flush_scalars(self, pieces: list[Piece]) -> None:
        """Append the events of scalars that were gathered."""
        self._scalars.flush(pieces)

    # --- encoding --------------------------------------------------------------------------------------------

    def _encode(self, batch: Batch, pieces: list[Piece], plan: Plan | None = None) -> int:
        """Append the records of a batch as events to ``pieces``; scalars are gathered. Returns the bytes of both."""
        entry = self._working.setdefault(batch.session, Entry())
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
        add_counts(refused, self.besides.refused(self.directory, batch.run, batch.session))
        entry.refused = refused
        return [note(text) for text in self._marker.settle({batch.session: entry})]

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
        again = self._lives.scalars(batch.session, batch.tags, values["tag"], steps)
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
                event = self._what(batch, record)
            except Refused as refused:
                reason = refused.reason
            except Exception:
                log.exception("%s: a record of kind %d", self.directory, record.kind)
                reason = "internal_error"
        entry.end = item.end
        entry.count += 1
        if record is None or reason:
            entry.refused = {**entry.refused, reason: entry.refused.get(reason, 0) + 1}
            mark = self._marker.mark(batch.session, entry, item.size, refused=True)
            pieces.append(note(mark))
            return
        self._last_step = max(self._last_step, record.step)
        step = self._step(batch, record, event)
        again = self._again(batch, record, step, event, pieces, restart)
        if again:
            pieces.append(again)
        mark = self._marker.mark(batch.session, entry, item.size)
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
                restart = self._lives.restart(batch.session, step, record.wall_time, self.name, pieces, scope)
            if self._steps is not None:
                self._steps.restart(step, None if restart.all else restart.tags)
            self.ranks.restart(step, record.wall_time, self._lives.staying)
            if not restart.all:
                event.clear()  # START would take the others with it, so that the event is nothing but a record's
            return restart.events + (note(restart.note) if restart.note else b"")
        if "summary" not in event:
            return b""
        return self._lives.others(batch.session, [value.tag for value in event["summary"].value], step)

    def _step(self, batch: Batch, record: Record, event: dict[str, Any]) -> int:
        """The step of an event: its record's, or the next one of its tags."""
        if self._steps is None:
            return record.step
        tags = batch.row(record.tag).tags if record.kind == ROW else (record.tag,)
        if "summary" not in event or not tags:
            return record.step
        names = [value.tag for value in event["summary"].value]
        return _step(self._steps, batch.tag(tags[0]).numbered, names, record.step)

    def _note_drops(self, pieces: list[Piece]) -> None:
        """Let the run itself say what is missing in it, when that has changed: in the ledger, and as scalars."""
        with self._lock:
            self._teller = None
            news = {
                session: dropped
                for session, dropped in self._told.items()
                if session not in self._working or self._working[session].dropped != dropped
            }
        for session, dropped in news.items():
            self._working.setdefault(session, Entry()).dropped = dropped
        drops = _drops(self._working)
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

    def _what(self, batch: Batch, record: Record) -> dict[str, Any]:
        """The part of an event that says what happened."""
        if record.kind == ROW:
            return {"summary": schema.Summary(value=self._row_values(batch, record))}
        tag = batch.tag(record.tag)
        if record.kind == EMBEDDING:
            try:
                projector.write(self.files.folder.descriptor, embedding_of(record, tag), self.files.folder.umask)
            except OSError as error:
                raise Refused("file_error", f"{error}") from error
            return {}
        if record.kind == EVENT:
            return what_of(record)
        if record.kind in GRAPHS:
            return {"graph_def": GRAPHS[record.kind](record)}
        if record.kind == RESTART:
            return {"session_log": schema.SessionLog(status=SESSION_LOG_START)}
        with _large if len(record.payload or b"") >= LARGE_BYTES else nullcontext():
            return {"summary": schema.Summary(value=encode(record, tag))}

    def _row_values(self, batch: Batch, record: Record) -> list[Any]:
        tags = batch.row(record.tag).tags
        payload = record.payload
        if not isinstance(payload, bytes) or len(payload) != 8 * len(tags):
            raise Refused("bad_record", f"a row of {len(tags)} tags with another number of values")
        result = []
        for number, tag_id in zip(float32(np.frombuffer(payload, ">f8")).tolist(), tags, strict=True):
            result.append(schema.Summary.Value(tag=batch.tag(tag_id).tag, simple_value=number))
        return result


def _drops(ledger: Ledger) -> dict[str, int]:
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
