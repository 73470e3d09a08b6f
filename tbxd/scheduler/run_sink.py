"""What the scheduler and the sessions need of whoever writes a run.

The local `runs.run_writer.RunWriter` is one sink. Another process or engine between the sessions and the event files
would be another: it takes batches, says per session how far they are written, and says what it has to do.
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
    place: tuple[int, int]  # device and inode of the folder that it has locked last,
    kept_out: tuple[int, int] | None  # and of the one that it needs and somebody else has locked; None: there is none

    # --- records in ------------------------------------------------------------------------------------------

    def offer(self, batch: Batch) -> int:
        """Take a batch; returns the bytes that wait. What becomes of it is told to those who made the sink."""
        ...

    def tell(self, run: RunDefinition, session: bytes, dropped: dict[str, int]) -> bool:
        """Take what a client could not keep, by reason; whether that is news."""
        ...

    def read_for(self, run: RunDefinition) -> bool:
        """Have what the files hold read with the next write, if it is not known yet. True when that is so."""
        ...

    def leave(self, session: bytes, run: RunDefinition) -> None:
        """A session logs nothing more to the run."""
        ...

    # --- how far it is ---------------------------------------------------------------------------------------

    def entry(self, session: bytes) -> Entry:
        """Up to which position the records of a session are written, and what became of them."""
        ...

    def known(self) -> tuple[dict[bytes, Entry], Ledger]:
        """The same of all sessions, and what of it the files held when the run was opened."""
        ...

    def queued(self) -> tuple[int, int, float]:
        """Batches that wait, their bytes, and when the oldest arrived (monotonic clock; 0: none)."""
        ...

    def told(self) -> dict[str, Any]:
        """What the status says of the run besides counts."""
        ...

    @property
    def defined(self) -> RunDefinition | None:
        """A definition of the run, once a batch has named it."""
        ...

    @property
    def waiting(self) -> bool:
        """Whether batches wait."""
        ...

    @property
    def has_to_do(self) -> bool:
        """Whether a write would do something now."""
        ...

    @property
    def due(self) -> float:
        """When a write is to be tried again without new batches (monotonic clock; 0: it need not be)."""
        ...

    @property
    def opened(self) -> bool:
        """Whether it has a file, open or parked."""
        ...

    @property
    def open(self) -> bool:
        """Whether it holds descriptors."""
        ...

    @property
    def owes(self) -> bool:
        """Whether a sync is owed."""
        ...

    @property
    def dirty(self) -> bool:
        """Whether something that was written is not on the disk yet."""
        ...

    # --- jobs ------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """Write what waits."""
        ...

    def recover(self, why: str) -> None:
        """A job has raised: begin anew from what the files hold, with what waits."""
        ...

    def sync(self) -> None:
        """Have all that is written on the disk."""
        ...

    def park(self) -> None:
        """Sync, and give back the descriptors."""
        ...

    def close(self) -> None:
        """End it: sync and close."""
        ...

    def forget(self) -> None:
        """The run is let go of; nothing is under way or owed."""
        ...
