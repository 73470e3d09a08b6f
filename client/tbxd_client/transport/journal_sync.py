"""Syncs a journal that no daemon empties."""

from __future__ import annotations

from ..config.settings import warn
from ..journal.journal import Journal
from ..process.native import monotonic

SYNC_SECONDS = 1.0  # between fdatasyncs of a journal that nobody empties


class JournalSync:
    """Brings onto the disk, once a second, what nobody has acknowledged for a second.

    Args:
        journal: which.
    """

    __slots__ = ("_journal", "_mark", "_next")

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._next = 0.0  # by the monotonic clock
        self._mark = 0  # how far the journal was at the last look

    def look(self, now: float, acknowledged: int) -> None:
        """Sync what waits, where it is time; to be called again and again.

        Args:
            now: by the monotonic clock.
            acknowledged: the position before which everything is in the event files.
        """
        if now < self._next:
            return
        if acknowledged < self._mark:
            try:
                self._journal.sync()
            except OSError as error:
                warn(
                    f"{self._journal.place}: {error}; a crash of the machine would lose the records that wait",
                    once="sync",
                )
        self._mark = self._journal.committed
        self._next = monotonic() + SYNC_SECONDS
