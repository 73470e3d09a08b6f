"""A run: the one owner of a log folder. Batches of records come in, an event file grows.

`RunWriter` lives on its strand: everything but `offer` and the public counters is called by one thread at a time. It
never raises for trouble with the disk: what is not written stays queued, the reason is in `error`, and the next
attempt goes on where this one stopped.

What it holds is in five parts: `backlog`, `run_ledger`, `run_files`, `record_encoder` and `batch_writer`.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Container
from functools import partial
from pathlib import Path
from typing import Any

from tbxd_client.protocol.records import RunDefinition

from ..batch import Batch
from ..metrics.histograms import Meters
from ..reduce.deadlines import Read
from ..reduce.displaced_jobs import Moved
from ..reduce.rank_jobs import Ranks
from ..tfevents.checkpoint import Checkpoints
from ..tfevents.event_file import FileLost
from ..tfevents.event_sink import EventSink
from ..tfevents.folder import NameRefused
from ..tfevents.ledger import Entry, Ledger
from . import unwritable
from .backlog import Backlog
from .batch_writer import BatchWriter
from .lost_files import Losses
from .record_encoder import RecordEncoder
from .resume import Alive
from .run_files import SYNC_ERROR, RunFiles
from .run_ledger import RunLedger
from .runs_beside import Besides

log = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0  # before another lost file is made anew without a pause
WRITE_BYTES = 1 << 20  # events are handed to the disk in pieces of about this size
RANKS_SHARE = 64  # of what ranks log, so little is written: as many batches as there are go into one write


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
        self.error = ""  # what keeps it from writing, for `tbxd status`
        self.comes_back = False  # the daemon had let go of it before
        self.sync_due = False  # what is written is to be on the disk soon; any thread may say so
        self._untidy = ""  # that of its errors which the last sync or park has found, and the next may find gone
        self._run: RunDefinition | None = None  # as whoever logged last defines it
        self._durable = durable
        self._done = done
        self._ended = ended
        self._meters = meters or Meters()
        self._checkpoints = checkpoints or Checkpoints()
        self.losses = Losses(directory, alive)
        self.files = RunFiles(directory, self._checkpoints)
        self._backlog = Backlog()
        self._ledger = RunLedger(ended)
        self.besides = Besides(partial(self._make_below, done=lambda batch: None))
        self._moved = Moved(directory, partial(self._make_below, ranks_seconds=ranks_seconds, read=read), held)
        self.encoder = RecordEncoder(directory, self.files, self._ledger, self.besides, self._checkpoints, alive)
        self.ranks = self.encoder.ranks = Ranks(self.encoder, ranks_seconds, self._moved, read)
        self._batches = BatchWriter(
            self._backlog,
            self.encoder,
            self.files,
            self.ranks,
            self._moved,
            self.besides,
            self.losses,
            self._meters,
            durable,
            done,
            held,
        )

    def _make_below(
        self,
        directory: Path,
        done: Callable[[Batch], None],
        held: Callable[[Batch], None] | None = None,
        ranks_seconds: float = 30.0,
        read: Read | None = None,
    ) -> RunWriter:
        """The writer of a folder below this one."""
        writer = RunWriter(
            directory,
            done,
            self._durable,
            ranks_seconds,
            meters=self._meters,
            checkpoints=self._checkpoints,
            held=held,
            ended=self._ended,
            read=read,
            alive=self.losses.alive,
        )
        self.besides.add(writer)
        return writer

    # --- from any thread -------------------------------------------------------------------------------------

    def offer(self, batch: Batch) -> int:
        """Queue a batch; returns the bytes that are queued."""
        return self._backlog.offer(batch)

    def tell(self, run: RunDefinition, session: bytes, dropped: dict[str, int]) -> bool:
        """Take note of what a trainer could not keep, by reason, since its session began. True when it is news."""
        return self._ledger.tell(run, session, dropped)

    def read_for(self, run: RunDefinition) -> bool:
        """Have the folder's ledger read with the next write, if it is not known yet. True when that is so."""
        return self._ledger.read_for(run)

    @property
    def ledger(self) -> Ledger:
        """What the event files hold."""
        return self._ledger.entries

    def settled(self) -> dict[bytes, Entry]:
        """How far each session is in the event files, and what its trainer could not keep."""
        return self.known()[0]

    def known(self) -> tuple[dict[bytes, Entry], Ledger]:
        """The same, and what of it was in the files when a run came back that had been let go of."""
        return self._ledger.known()

    def entry(self, session: bytes) -> Entry:
        """How far one session is in the event files."""
        return self._ledger.entry(session)

    def queued(self) -> tuple[int, int, float]:
        """Batches and bytes that are queued or only half written, and when the oldest came, 0 where there is none."""
        return self._backlog.queued()

    @property
    def waiting(self) -> bool:
        """Whether something is queued or only half written."""
        return bool(self._backlog or self._ledger.teller or self._batches.finishing or self._moved.waiting)

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
        self.encoder.forget()
        del self.ranks, self.besides, self._moved, self._batches, self.files.read

    # --- on the strand ---------------------------------------------------------------------------------------

    def write(self) -> None:
        """Write what is queued."""
        if not self._try() and time.monotonic() >= self.losses.next_try:
            self.losses.next_try = time.monotonic() + AGAIN_SECONDS
            self._try()  # a file that is lost holds nobody up: a new one can be made at once

    def _try(self) -> bool:
        """Write what is queued. False where the event file is lost, and all is ready to go on in a new one."""
        try:
            if self._batches.finishing:
                self._batches.finish()
            due, trouble = self.ranks.is_due(time.monotonic()), ""  # what is beside the run, too
            while self._backlog or self._ledger.teller or due:
                first = self._backlog.first
                self._open(first.run if first is not None else self._ledger.teller or self._run)
                self._batches.write()
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
            if self._batches.encoding:  # no disk was to be asked for anything there: what is encoded is lost
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
            self.encoder.begin_file()
            self.files.open_next(run, self.ledger)

    def _forget_ended(self, other: Ledger) -> Ledger:
        """Of sessions that are over it need not be known one by one how far they were, nor in ``other``: returns it."""
        rest, over = self._ledger.forget_ended(other)
        for session in over:
            self.encoder.lives.forget(session)
            self.losses.forget(session)
        return rest

    def _take_up(self) -> None:
        """See how far the sessions are in the folder's files, which have to be read again.

        Raises:
            OSError: they cannot be read at this moment.
        """
        ledger = self._forget_ended(self.files.contents.ledger())
        self.encoder.shows(ledger)
        made = self.files.folder.made
        anew = bool(made) and made.isdisjoint(self.files.read.names())
        opened = self.losses.opened(self._backlog.waiting) if anew else set()
        past = self.losses.note(self.ledger, ledger, anew, opened)
        if opened:
            self.encoder.shows({session: ledger[session] for session in opened if session in ledger})
        self._ledger.take_up(ledger, past, self.comes_back)

    def _start_over(self, why: str) -> None:
        """Leave a file that is lost; what the folder's files do not hold is written again, to a new one."""
        self.error = why
        if (path := self.files.leave()) is not None:
            self.losses.moved(path)
        self.encoder.start_over()
        again = self.ranks.start_over()
        self.besides.close()
        self._batches.start_over()
        self._backlog.start_over(again)
        self._ledger.start_over(self._run)
        self.files.folder.unlock()
        if not self.waiting:  # nothing is held up
            self.error = ""

    def _give_up(self, error: NameRefused) -> None:
        """Count as dropped what is queued: it can never be written."""
        batches = self._backlog.waiting
        self._ledger.refuse(batches)
        self._backlog.drop(batches)
        if not self.error:
            log.warning("%s: %s; its records are dropped and counted", self.directory, error.strerror)
        self.error = f"{error.strerror}; records are dropped ({unwritable.BAD_NAME})"
        for batch in batches:
            self._done(batch)

    def sync(self) -> None:
        """Bring what is written onto the disk, also where it is parked: what the disk has refused is still owed."""
        self.sync_due = False
        if self.file is None:
            return
        parked = not self.files.folder.held
        try:
            if self.dirty:
                self.files.own(None, self._take_up)
                self._batches.sync()
            if self.files.folder.held and self.files.others.is_due:
                self.files.see_others()
            if self.untidy:
                self.error = self._untidy = ""
        except OSError as error:
            self.error = self._untidy = f"{error.strerror or error}"
        if parked:
            self._park_files()

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
