"""Schedules the writes, syncs, parks and closes of runs: on the threads of a pool, one job of a run at a time.

It lives on the daemon's main thread. It knows no sessions: batches are offered to a run's sink, and the sink reports
their result by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ..config.settings import Settings
from ..process import heap
from ..process.fd_budget import runs_open
from ..process.io_pool import Pool
from ..process.serial_queue import Strand
from ..process.walls import PAUSE_SECONDS, Walls
from .run_registry import Keeping, RunState
from .run_sink import RunSink

BATCH_BYTES = 512 << 10  # a run with so much queued is written at once
TICK_SECONDS = 0.5  # between looks at threads that may hang
TRIM_SECONDS = 10.0  # between two times that memory is given back
RETRY_SECONDS = 1.0  # before a run that could not be written is tried again
WAY_SECONDS = 0.005  # the same where another run has just been asked to let go of its folder
IDLE_SECONDS = 5.0  # without records before a run's descriptors are given back


class RunScheduler:
    """All runs of a daemon, and the threads that write them.

    Args:
        settings: the daemon's settings.
        make: makes the sink of a folder.
        done: called, on a thread of the pool, after a write or a failed one; the main thread then calls `come_back`.
        walls: takes internal errors.
    """

    def __init__(
        self, settings: Settings, make: Callable[[str], RunSink], done: Callable[[RunState], object], walls: Walls
    ) -> None:
        self.runs: dict[str, RunState] = {}
        self.registry = Keeping(self.runs)
        self.gets_on = True  # False while no thread of the pool does, though there is something to write
        self._settings = settings
        self._make = make
        self._done = done
        self._walls = walls
        self._pool = Pool(settings.threads, partial(walls.broke, "a job"))
        self.housekeeping = self.strand(partial(walls.broke, "a job"))  # small jobs that are of no run
        self._open_files = runs_open(settings.open_files)
        self._next_sync = 0.0
        self._freed, self._next_trim = False, 0.0

    def configure(self, settings: Settings) -> None:
        """Apply settings that have changed while the daemon runs."""
        self._settings = settings
        self._open_files = runs_open(settings.open_files)
        self._next_sync = 0.0
        soon = time.monotonic() + settings.batch_ms / 1000
        for state in self.registry.warm.values():
            if state.due > soon and not state.writer.error:
                state.due = soon

    def strand(self, broke: Callable[[BaseException], object]) -> Strand:
        """Make a strand on the threads that write; ``broke`` is called there with exceptions of its jobs."""
        return Strand(self._pool, broke)

    def run(self, directory: str) -> RunState | None:
        """Return the run of a folder, made if unknown; None if too many are known."""
        return self.registry.state(directory, partial(self._begin, directory))

    def _begin(self, directory: str) -> RunState:
        writer = self._make(directory)
        return RunState(directory, writer, self.strand(partial(self._broke, writer)))

    def _broke(self, writer: RunSink, error: BaseException) -> None:  # on a thread of the pool
        """Handle an exception of a run's job: the run waits a moment, and is opened again from its files."""
        why = self._walls.broke("a job of a run", error, str(writer.directory))
        try:
            writer.recover(why)
        except BaseException as again:
            self._walls.broke("a run that is begun anew", again, str(writer.directory))

    # --- writes ----------------------------------------------------------------------------------------------

    def soon(self, state: RunState) -> None:
        """Write a run after the batch interval, even if it waits for a rank, but not if it waits after an error."""
        self.registry.rouse(state)
        soon = time.monotonic() + self._settings.batch_ms / 1000
        if not state.due or (state.due > soon and not state.writer.error):
            state.due = soon

    def write(self, state: RunState) -> None:
        """Write a run now, or after the write in progress."""
        self.registry.rouse(state)
        state.due = 0.0
        if state.submitted:
            return
        state.submitted = True
        state.since = time.monotonic()

        def job() -> None:
            try:
                state.writer.write()
                if len(self.registry.warm) > self._open_most and self._open_runs() > self._open_most:
                    state.writer.park()
            except BaseException as error:  # here, so that the run is in order before anybody hears of it
                self._broke(state.writer, error)
            finally:
                self._done(state)

        state.strand.submit(job)

    def come_back(self, state: RunState) -> bool:
        """Finish a write or a failed one. Return True if the run cannot be written."""
        state.submitted, state.since = False, 0.0
        state.rounds += 1
        held_up = bool(state.writer.error)
        if held_up and self._makes_way(state):
            state.due, held_up = time.monotonic() + WAY_SECONDS, False
        if state.has_to_do and not state.due:
            delay = RETRY_SECONDS if held_up else 0.0
            state.due = time.monotonic() + delay
        elif state.writer.due and not state.due:
            state.due = max(state.writer.due, time.monotonic() + self._settings.batch_ms / 1000)
        return held_up

    def _makes_way(self, state: RunState) -> bool:
        """Let another run release the folder of a run, its own until the folder was moved. Return False if there is
        none, or if it was asked already and cannot."""
        place = state.writer.kept_out
        if place is None:
            return False
        for other in self.registry.warm.values():
            writer = other.writer
            if other is not state and writer.open and writer.place == place and not (other.tidied or writer.error):
                self._tidy(other, writer.park)
                return True
        return False

    def tick(self, now: float) -> float:
        """Write the runs that are due, sync, and park; return the time of the next call."""
        soonest = now + self._settings.sync_seconds
        for state in self.registry.warm.values():
            if state.submitted:
                soonest = min(soonest, now + TICK_SECONDS)
            if state.due > now:
                soonest = min(soonest, state.due)
            elif state.due:
                try:
                    self.write(state)
                except Exception as error:
                    state.due, state.submitted = now + PAUSE_SECONDS, False
                    self._walls.broke("the start of a write", error, str(state.writer.directory))
        self.gets_on = self._pool.relieve()
        if now >= self._next_sync:
            self._next_sync = now + self._settings.sync_seconds
            self._sync_and_park(now)
        return min(soonest, self._next_sync)

    def _sync_and_park(self, now: float) -> None:
        warm = self.registry.warm.values()
        for state in warm:
            if state.writer.waiting and not state.due and not state.submitted:
                state.due = now  # another job than a write has had to begin anew
        opened = [state for state in warm if state.writer.opened]
        held = sorted((state for state in opened if state.writer.open), key=lambda state: state.used)
        too_many = max(0, len(held) - self._open_files)
        for place, state in enumerate(held):
            if place < too_many or now - state.used > IDLE_SECONDS:
                self._tidy(state, state.writer.park)
        for state in opened:
            if state.writer.owes:
                state.writer.sync_due = True  # in the midst of a write that goes on and on
                self._tidy(state, state.writer.sync)
        self._freed = self.registry.cool(now) or self._freed
        if self._freed and now > self._next_trim:
            self._freed, self._next_trim = False, now + TRIM_SECONDS
            self.housekeeping.submit(heap.give_back)

    @staticmethod
    def _tidy(state: RunState, what: Callable[[], None]) -> None:
        """Sync or park a run after the write in progress. Only one job waits, however long a disk hangs."""
        if state.tidied:
            return
        state.tidies()

        def job() -> None:
            try:
                what()
            finally:
                state.tidied = False

        state.strand.submit(job)

    @property
    def _open_most(self) -> int:
        """The most runs open between two rounds of `_sync_and_park`; one more is closed after its write."""
        return 2 * self._open_files + self._settings.threads

    def _open_runs(self) -> int:  # on a thread of the pool
        return sum(state.writer.open for state in list(self.registry.warm.values()))

    # --- the end ---------------------------------------------------------------------------------------------

    @property
    def busy(self) -> list[RunState]:
        """The runs that are being written, or have queued batches."""
        return [state for state in self.registry.warm.values() if state.submitted or state.writer.waiting]

    def hurry(self) -> bool:
        """Write all queued batches, at the end. Return False if all remaining runs have errors."""
        busy = self.busy
        for state in busy:
            if state.writer.waiting and not state.writer.error:
                self.write(state)
        return not all(state.writer.error and not state.submitted for state in busy)

    def close(self, seconds: float) -> bool:
        """Sync and close all files. Return False if a disk took longer than ``seconds``."""
        for state in self.registry.warm.values():
            with self._walls.around("the end of a run", str(state.writer.directory)):
                state.strand.submit(state.writer.close)
        return self._pool.close(seconds)

    # --- status ----------------------------------------------------------------------------------------------

    def held_up(self) -> list[str]:
        """Return the errors of the runs that cannot be written at the moment."""
        return [state.writer.error for state in self.registry.held_up()]

    def looks(self) -> Iterator[tuple[str, str, float]]:
        """Yield folder, error, and start of the write in progress, for each warm run."""
        for directory, state in self.registry.warm.items():
            yield directory, state.writer.error, state.since

    def metrics(self) -> dict[str, Any]:
        """Return the metrics of its runs and threads."""
        now = time.monotonic()
        states = list(self.registry.warm.values())
        queued = [state.writer.queued() for state in states]
        oldest = min((arrived for _, _, arrived in queued if arrived), default=now)
        return {
            "lag_seconds": now - oldest,
            "runs": len(self.runs),
            "runs_held_up": sum(bool(state.writer.error) for state in states),
            "event_files_open": sum(state.writer.open for state in states),
            "queued_batches": sum(batches for batches, _, _ in queued),
            "queued_bytes": sum(size for _, size, _ in queued),
            **self._pool.status(),
        }
