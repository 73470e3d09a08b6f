"""What was written and is not there any more: somebody has removed, renamed or cut event files, or the whole folder.

A process that goes on logging has lost something, which is counted with it and shown in the run. Who removes a folder
between two runs has lost nothing, and whoever logs there next has nothing to do with it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from ..batch import Batch
from ..tfevents.ledger import Entry, Ledger

log = logging.getLogger(__name__)

FILE_LOST = "file_lost"  # why a record counts as dropped that was in a file which somebody has removed or cut


class Losses:
    """Of one folder.

    Args:
        directory: the folder.
        alive: as for `resume.Lives`.
    """

    def __init__(self, directory: Path, alive: Callable[[bytes, int], bool]) -> None:
        self.removed = 0  # records of processes that are over, in files of folders that somebody has removed since
        self.alive = alive
        self.next_try = 0.0  # before this, by the monotonic clock, a lost file waits until it is tried again
        self._directory = directory
        self._moved = False  # its files are elsewhere now, whole
        self._left: dict[bytes, int] = {}  # records of sessions that have begun anew, in files that were removed before
        self._runs: dict[bytes, int] = {}  # which of its definitions of this folder each session has logged with

    def moved(self, path: Path) -> None:
        """Somebody has moved the file that was being written: nothing in it is lost."""
        self._moved = True
        log.warning("%s: its event file is %s now; new records go to a new file", self._directory, path)

    def wrote(self, batch: Batch) -> None:
        """A batch is in the event files."""
        self._runs[batch.session] = batch.definition

    def forget(self, session: bytes) -> None:
        """Nothing comes of a session any more."""
        self._runs.pop(session, None)
        self._left.pop(session, None)

    def opened(self, batches: Iterable[Batch]) -> set[bytes]:
        """The sessions that have begun anew in a folder whose files are gone: a writer that finds none defines its run
        once more. What comes of a session under the definition that it had is of a writer that goes on.

        Args:
            batches: that are to be written next.
        """
        last = self._runs
        return {batch.session for batch in batches if last.get(batch.session, batch.definition) != batch.definition}

    def note(self, before: Ledger, found: Ledger, anew: bool, opened: set[bytes]) -> set[bytes]:
        """Take note of what is missing in ``found``, the ledger of a folder that was read again.

        Args:
            before: what the files held when they were known last.
            anew: no file of then is there: it is another folder of the same name.
            opened: the sessions that have begun anew in it. What they had logged before was written.

        Returns:
            Sessions of which nothing is to be known any more.
        """
        lost, past = 0, set()
        if anew and self._moved:
            opened |= {session for session in before if self.alive(session, 0)}
        self._moved = False
        for session, entry in before.items():
            there = found.get(session, Entry())
            missing = entry.written - there.written - self._left.get(session, 0)
            if entry.end < there.end:
                continue
            if anew and session in opened:
                found[session] = entry  # it was written, and removed by who begins anew
                self._left[session] = entry.written
            elif missing <= 0:
                if anew and session not in found and self.alive(session, 0):
                    found[session] = entry
                elif anew and session not in found:
                    past.add(session)
            elif anew and not self.alive(session, 0):
                self.removed += missing
                past.add(session)
            else:
                lost += missing
                refused = {**entry.refused, FILE_LOST: entry.refused.get(FILE_LOST, 0) + missing}
                found[session] = Entry(entry.end, entry.count, refused, entry.dropped)
        if past:
            log.info("%s was removed and made anew; %d records were in it", self._directory, self.removed)
        if lost:
            log.warning("%s: %d records that were written are gone with their file", self._directory, lost)
        return past
