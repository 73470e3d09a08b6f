"""Where the bytes of one event file go.

A file of a local folder (`event_file.EventFile`) is one sink. Closed segments in an object store would be another.
Sinks are made in one place, `event_folder.EventFolder`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class EventSink(Protocol):
    """One event file, which this process alone writes. For one thread at a time; any thread may ask for ``dirty``.

    Each method that stores may raise `event_file.FileLost`: the file cannot be gone on with, and what it holds has to
    be looked up. Any other OSError passes: the next call goes on where this one stopped.
    """

    path: Path  # which file it is, for messages and for readers
    size: int  # the position up to which it holds whole and part records: where the next byte goes
    dirty: bool  # something was appended since the last sync

    @property
    def pending(self) -> bool:
        """Whether a part of what was given to `write` is not stored yet."""
        ...

    def write(self, data: bytes) -> None:
        """Append whole records. What cannot be stored now is stored first by the next call."""
        ...

    def settle(self) -> None:
        """Store again what the other side has thrown away after a failed sync; nothing may come behind it before."""
        ...

    def sync(self) -> None:
        """Have on the disk, or wherever it lasts, what was appended."""
        ...

    def park(self) -> None:
        """Give back descriptors or connections, until the next call that needs them. What is pending keeps them."""
        ...

    def take(self) -> None:
        """Own it again where it is parked."""
        ...

    def moved_to(self) -> Path | None:
        """Where it is, whole, if somebody has moved it; None where it is not, or that is not known."""
        ...

    def remove(self) -> None:
        """Close it for good, and let it not have been there, if nothing was appended."""
        ...

    def close(self) -> None:
        """Close it for good. It is closed also where that says only now that not all is stored."""
        ...
