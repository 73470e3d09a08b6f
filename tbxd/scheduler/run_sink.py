"""The interface of run writers for the scheduler and the sessions.

The local `runs.run_writer.RunWriter` is one sink. Another process or engine between the sessions and the event files
would be another: it takes batches, reports for each session how far they are written, and what it has to do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from tbxd_client.protocol.records import RunDefinition

from ..batch import Batch
from ..tfevents.ledger import Entry, Ledger


class RunSink(Protocol):
    """Writes one run. `offer`, `tell`, `leave`, `entry`, `known`, `queued` and the properties are for any thread; the
    jobs run one at a time on the run's queue of jobs (`process.serial_queue.Strand`)."""

    directory: Path
    error: str  # what keeps the run from being written; "" for nothing
    comes_back: bool  # an earlier sink of this process has had the run: its counts are known already
    sync_due: bool  # in the middle of a long write: sync before it ends

    # --- records in ------------------------------------------------------------------------------------------

    def offer(self, batch: Batch) -> int:
        """Take a batch; return the waiting bytes. Its result is reported to the maker of the sink."""
        ...

    def tell(self, run: RunDefinition, session: bytes, dropped: dict[str, int]) -> bool:
        """Take a client's dropped records, by reason; return True if the counts are new."""
        ...

    def read_for(self, run: RunDefinition) -> bool:
        """Let the next write read the contents of the files, if still unknown. Return True if so."""
        ...

    def leave(self, session: bytes, run: RunDefinition) -> None:
        """Note that a session logs nothing more to the run."""
        ...

    # --- how far it is ---------------------------------------------------------------------------------------

    def entry(self, session: bytes) -> Entry:
        """Return the written position of a session, and the counts of its records."""
        ...

    def known(self) -> tuple[dict[bytes, Entry], Ledger]:
        """Return the entries of all sessions, and the part that the files held when the run was opened."""
        ...

    def queued(self) -> tuple[int, int, float]:
        """Return the waiting batches, their bytes, and the arrival of the oldest (monotonic clock; 0: none)."""
        ...

    def told(self) -> dict[str, Any]:
        """Return the status of the run besides counts."""
        ...

    @property
    def defined(self) -> RunDefinition | None:
        """A definition of the run, once a batch has named it."""
        ...

    @property
    def waiting(self) -> bool:
        """True if batches wait."""
        ...

    @property
    def has_to_do(self) -> bool:
        """True if a write would do something now."""
        ...

    @property
    def due(self) -> float:
        """The time of the next write without new batches (monotonic clock; 0: none)."""
        ...

    @property
    def place(self) -> tuple[int, int]:
        """Device and inode of the folder that it has locked last."""
        ...

    @property
    def kept_out(self) -> tuple[int, int] | None:
        """Device and inode of the folder that it needs and somebody else has locked; None: there is none."""
        ...

    @property
    def opened(self) -> bool:
        """True if it has a file, open or parked."""
        ...

    @property
    def open(self) -> bool:
        """True if it holds descriptors."""
        ...

    @property
    def owes(self) -> bool:
        """True if a sync is due."""
        ...

    @property
    def dirty(self) -> bool:
        """True if written data is not on disk yet."""
        ...

    # --- jobs ------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Write waiting batches."""
        ...

    def recover(self, why: str) -> None:
        """Start again from the contents of the files, with the waiting batches, after a job has raised."""
        ...

    def sync(self) -> None:
        """Sync all written data to disk."""
        ...

    def park(self) -> None:
        """Sync, and close the descriptors."""
        ...

    def close(self) -> None:
        """Sync and close, at the end."""
        ...

    def forget(self) -> None:
        """Forget the run; nothing is in progress or due."""
        ...
