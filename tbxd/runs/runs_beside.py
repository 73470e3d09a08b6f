"""Runs beside a run: what a process has logged that goes back behind another one, and is no restart of it.

TensorBoard's loaders forget what a tag has at or behind a step that comes again, so it can be shown in a run of its own
only: a folder below the run, named after the process. A run beside is written as any other is, with a ledger of its
own, and before the run itself settles the same records; so a kill leaves none out and none twice.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from tbxd_client.protocol.records import RunDefinition

from ..batch import Batch, Scalars
from ..tfevents.ledger import Entry
from .batch_plan import Plan

NAME_CHARS_MAX = 60  # of the program, and of the host


def name_of(run: RunDefinition) -> str:
    """The folder of a process below a run: program, host, process and when it began, in UTC."""
    script, host = (re.sub(r"[^\w.-]", "_", text)[:NAME_CHARS_MAX] for text in (run.script or "process", run.host))
    began = time.strftime("%b%d_%H-%M-%S", time.gmtime(min(run.created, 1e10)))
    return f"{script}-{host or 'localhost'}-{run.pid}-{began}"


class Writer(Protocol):
    """What writes a folder: see `tbxd.runs.run_writer.RunWriter`."""

    directory: Path
    error: str

    @property
    def dirty(self) -> bool:
        """Whether something is written that the disk may not have."""

    def offer(self, batch: Batch) -> int:
        """Queue a batch."""

    def entry(self, session: bytes) -> Entry:
        """How far a session is."""

    def write(self) -> None:
        """Write what is queued."""

    def sync(self) -> None:
        """Bring it onto the disk."""

    def park(self) -> None:
        """Give back descriptors."""

    def close(self) -> None:
        """Close for good."""

    def forget(self) -> None:
        """It is let go of, closed as it is."""


class Besides:
    """Those of one run.

    Args:
        make: makes the writer of a folder.
    """

    def __init__(self, make: Callable[[Path], Writer]) -> None:
        self._make = make
        self._writers: dict[Path, Writer] = {}
        self._refused: dict[bytes, dict[str, int]] = {}  # that the run has counted, by session

    def add(self, writer: Writer) -> None:
        """Take care of one more, which others write."""
        self._writers[writer.directory] = writer

    def write(self, directory: Path, batch: Batch, plan: Plan) -> None:
        """Write what of a batch goes beside its run.

        Args:
            directory: of the run.
            batch: the whole of it.
            plan: says what that is.

        Raises:
            OSError: it cannot be written at this moment; the next call with the same plan goes on.
        """
        folder = directory / name_of(batch.run)
        writer = self._writers.get(folder)
        if writer is None:
            writer = self._writers[folder] = self._make(folder)
        if not plan.offered:
            writer.offer(_part(folder, batch, plan))
            plan.offered = True
        writer.write()
        if writer.error:
            raise OSError(0, f"{folder.name}: {writer.error}")

    def refused(self, directory: Path, run: RunDefinition, session: bytes) -> dict[str, int]:
        """What was not written of a session, by reason, since it was last asked."""
        writer = self._writers.get(directory / name_of(run))
        if writer is None:
            return {}
        found, before = writer.entry(session).refused, self._refused.get(session, {})
        self._refused[session] = found
        news = {reason: count - before.get(reason, 0) for reason, count in found.items()}
        return {reason: count for reason, count in news.items() if count > 0}

    @property
    def names(self) -> list[str]:
        """Their folders."""
        return sorted(folder.name for folder in list(self._writers))

    @property
    def dirty(self) -> bool:
        """Whether something is written that the disk may not have."""
        return any(writer.dirty for writer in list(self._writers.values()))

    def sync(self) -> None:
        """Bring it onto the disk.

        Raises:
            OSError: it cannot be.
        """
        for writer in self._writers.values():
            writer.sync()
            if writer.error:
                raise OSError(0, writer.error)

    def park(self) -> None:
        """Give back descriptors."""
        for writer in self._writers.values():
            writer.park()

    def forget(self) -> None:
        """They are let go of with their run, closed as they are."""
        for writer in self._writers.values():
            writer.forget()
        self._writers.clear()

    def close(self) -> None:
        """Close the files; what is not written is forgotten, and comes again."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
        self._refused.clear()


def _part(folder: Path, batch: Batch, plan: Plan) -> Batch:
    """The records of a batch that go beside its run."""
    run = batch.run._replace(directory=str(folder))
    part = Batch(batch.session, run, batch.tags, batch.rows, batch.token, numbered=batch.numbered)
    for index, item in enumerate(batch.items):
        away = plan.away.get(index)
        if away is None:
            continue
        if isinstance(item, Scalars):
            values = item.values[away]
            part.items.append(Scalars(values, item.ends[away]))
            part.size += values.nbytes
            part.records += int(np.count_nonzero(away))
        else:
            part.items.append(item)
            part.size += item.size
            part.records += 1
    part.arrived = batch.arrived
    return part
