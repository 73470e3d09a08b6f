"""Starts of jobs whose ranks log beside the run, because another job's points are in their way.

Such a start has a folder below the run, which is written as if it had been given that: with a reduction, extremes and a
ledger of its own. The run only says that it is so, before anything is there, and how far its sessions are, after it is;
so a kill leaves nothing out and nothing twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tbxd_client.protocol.records import RunDefinition

from ..batch import Batch, Scalars
from ..tfevents.ledger import Entry
from .job_starts import generation_of

NAME_CHARS_MAX = 60  # of the program, and of the job


class GoesBeside(Exception):
    """A point of a start of a job would go back behind another job's, or come between its points."""


def name_of(run: RunDefinition) -> str:
    """Return the folder of a job below a run: program and job. All starts of a job share it."""
    script, job = (re.sub(r"[^\w.-]", "_", text)[:NAME_CHARS_MAX] for text in (run.script or "process", run.job))
    return f"{script}-{job or 'job'}"


class Ranked(Protocol):
    """See `rank_jobs.Ranks`."""

    def leave(self, session: bytes, run: RunDefinition) -> None: ...
    def status(self) -> dict[str, Any] | None: ...
    def is_due(self, now: float) -> bool: ...
    @property
    def due(self) -> float: ...


class Writer(Protocol):
    """The writer of a folder: see `tbxd.runs.run_writer.RunWriter`."""

    error: str

    @property
    def ranks(self) -> Ranked: ...
    @property
    def waiting(self) -> bool: ...
    def offer(self, batch: Batch) -> int: ...
    def entry(self, session: bytes) -> Entry: ...
    def write(self) -> None: ...


Make = Callable[[Path, Callable[[Batch], None], Callable[[Batch], None]], Writer]


@dataclass(slots=True)
class _Job:
    """All starts of one, which follow each other in one folder. ``under_way``: what is written there, and what has come
    of which, by the ids of the former."""

    writer: Writer
    under_way: dict[int, tuple[Batch, Batch]] = field(default_factory=dict)


class Moved:
    """The displaced jobs of one run. Any thread may read them; all else is for the strand of the run.

    Args:
        directory: of the run.
        make: makes the writer of a folder; told what to call with each batch that is in its event file, and with each
            that waits for other ranks alone.
        held: called with a batch that waits for other ranks alone.
    """

    def __init__(self, directory: Path, make: Make, held: Callable[[Batch], None] | None = None) -> None:
        self._directory = directory
        self._make = make
        self._held = held
        self._starts: dict[str, _Job] = {}
        self._jobs: dict[str, _Job] = {}  # by their folders
        self._done: list[Batch] = []
        self._before: dict[bytes, dict[str, int]] = {}  # refusals of sessions, as they were counted in the run

    def __contains__(self, run: RunDefinition) -> bool:
        return bool(self._starts) and generation_of(run) in self._starts

    def begin(self, run: RunDefinition) -> None:
        """Write a start of a job beside the run from here on."""
        name = name_of(run)
        job = self._jobs.get(name)
        if job is None:
            job = self._jobs[name] = _Job(self._make(self._directory / name, self._is_done, self._is_held))
        self._starts[generation_of(run)] = job

    def take(self, batch: Batch, settled: int, out: npt.NDArray[np.int64] | None = None) -> None:
        """Take a batch of such a start.

        Args:
            settled: how far the run itself has its session.
            out: the positions of further records that it has.
        """
        job = self._starts[generation_of(batch.run)]
        part = _part(batch, self._directory / name_of(batch.run), settled, out)
        job.under_way[id(part)] = part, batch
        if part.items:
            job.writer.offer(part)
        else:
            self._is_done(part)

    def leave(self, session: bytes, run: RunDefinition) -> None:
        """Note that no more records of a session come."""
        self._starts[generation_of(run)].writer.ranks.leave(session, run)

    def write(self, working: Callable[[bytes], Entry]) -> tuple[list[Batch], dict[bytes, Entry]]:
        """Write taken and overdue points. Points that cannot be written stay, and `error` has the reason.

        Args:
            working: gives how far a session is in what the run has encoded; moved on.

        Returns:
            What is settled by that, as it was taken, and how far its sessions are then.
        """
        for job in self._jobs.values():
            job.writer.write()
        done, self._done = self._done, []
        entries: dict[bytes, Entry] = {}
        for batch in done:
            entry = entries[batch.session] = working(batch.session)
            for item in batch.items:
                ends = item.ends if isinstance(item, Scalars) else np.array([item.end], np.int64)
                entry.count += int(np.count_nonzero(ends > entry.end))
                entry.end = max(entry.end, int(ends[-1]))
            refused = dict(entry.refused)
            for reason, count in self._refused(batch).items():
                refused[reason] = refused.get(reason, 0) + count
            entry.refused = refused
        return done, entries

    def _refused(self, batch: Batch) -> dict[str, int]:
        """Return the refused records of a batch's session, by reason, since the last call."""
        entry = self._starts[generation_of(batch.run)].writer.entry(batch.session)
        before, self._before[batch.session] = self._before.get(batch.session, {}), entry.refused
        news = {reason: count - before.get(reason, 0) for reason, count in entry.refused.items()}
        return {reason: count for reason, count in news.items() if count > 0}

    @property
    def error(self) -> str:
        """The error of one that cannot be written, or ""."""
        return next((job.writer.error for job in list(self._jobs.values()) if job.writer.error), "")

    @property
    def waiting(self) -> bool:
        """True if something is queued for one of them."""
        return any(job.writer.waiting for job in list(self._jobs.values()))

    def due(self) -> list[float]:
        """The times of the next writes without new records, by the monotonic clock."""
        return [due for job in list(self._jobs.values()) if (due := job.writer.ranks.due)]

    def is_due(self, now: float) -> bool:
        """Return True if one of them has something to do."""
        return any(job.writer.waiting or job.writer.ranks.is_due(now) for job in list(self._jobs.values()))

    def status(self) -> list[dict[str, Any]]:
        """Return the status of each that has begun to log, for `tbxd status`."""
        return [status for job in list(self._jobs.values()) if (status := job.writer.ranks.status()) is not None]

    def start_over(self) -> list[Batch]:
        """Forget everything; returns what is not settled in the run, to be taken again. The writers are closed by whom
        they belong to."""
        held = [*self._done]
        for job in self._jobs.values():
            held += [batch for _, batch in job.under_way.values()]
        self._starts.clear()
        self._jobs.clear()
        self._done.clear()
        self._before.clear()
        return held

    def _is_done(self, part: Batch) -> None:
        _, batch = self._starts[generation_of(part.run)].under_way.pop(id(part))
        self._done.append(batch)

    def _is_held(self, part: Batch) -> None:
        if self._held is not None:
            self._held(self._starts[generation_of(part.run)].under_way[id(part)][1])


def _part(batch: Batch, folder: Path, settled: int, out: npt.NDArray[np.int64] | None) -> Batch:
    """Return the records of a batch that the run does not have."""
    part = Batch(batch.session, batch.run._replace(directory=str(folder)), batch.tags, batch.rows, batch.token)
    part.numbered, part.arrived = batch.numbered, batch.arrived
    for item in batch.items:
        if isinstance(item, Scalars):
            fresh = item.ends > settled
            if out is not None:
                fresh &= ~np.isin(item.ends, out)
            if not fresh.any():
                continue
            one = item if fresh.all() else Scalars(item.values[fresh], item.ends[fresh])
            part.items.append(one)
            part.size += one.values.nbytes
            part.records += len(one.values)
        elif item.end > settled and (out is None or item.end not in out):
            part.items.append(item)
            part.size += item.size
            part.records += 1
    return part
