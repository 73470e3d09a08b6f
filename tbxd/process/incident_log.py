"""Log lines about dropped records and stalls: logged once, with advice, and once when the problem is over."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from ..drop_reasons import HINTS

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # between two looks at the runs; what is over sooner is not told
STALL_SECONDS = 30.0  # a write that has not come back for so long stands still

Look = tuple[str, str, float]
"""Of a run: its folder, its error or "", and since when it is being written by the monotonic clock (0: it is not)."""

# What an error says, or a part of it, and what can be done. The first that fits is told.
ADVICE = (
    ("No space left", "make room on that disk"),
    ("Disk quota", "make room below your quota"),
    ("Read-only file", "mount it for writing, or log elsewhere"),
    ("Permission denied", "let the daemon's user write there"),
    ("another tbxd daemon", "`tbxd status` of its owner shows it; stop one of the two, or log to another folder"),
    ("another process has written", "leave the folder to one writer"),
    ("Not a directory", "something other than a folder is in the way: move it"),
    ("Too many levels of symbolic links", "the folder has become a link: make it a folder again"),
    ("Too many open files", "raise the limit of file descriptors (ulimit -n), or lower TBXD_OPEN_FILES"),
    ("fsync", "the disk refuses written data: look at the kernel's log (dmesg)"),
    ("Input/output error", "the disk fails: look at the kernel's log (dmesg)"),
    ("internal error", "a fault of tbxd: please report it with the lines above"),
)
ELSE = "`tbxd doctor` looks at the folder and its disk"


def advice(error: str) -> str:
    """Return the advice for a run that cannot be written."""
    return next((what for text, what in ADVICE if text in error), ELSE)


def dropped(directory: Path, counts: dict[str, int], told: dict[str, int]) -> None:
    """Log dropped records, once for each reason and run.

    Args:
        directory: the run's folder.
        counts: the dropped records by reason.
        told: the counts of the last call, or those in the run's event files.
    """
    for reason in counts.keys() - told.keys():
        number, hint = counts[reason], HINTS.get(reason, "")
        log.warning(
            "%s: %d record%s dropped so far: %s%s; `tbxd status` counts what follows",
            directory,
            number,
            "" if number == 1 else "s",
            reason,
            f" ({hint})" if hint else "",
        )


class Troubles:
    """Keeps track of what has been logged about each run, and about the threads that write."""

    def __init__(self) -> None:
        self._told: dict[str, set[str]] = {}  # run to its errors, since it was well
        self._standing: set[str] = set()
        self._hang = False
        self._next_look = 0.0

    def look(self, now: float, gets_on: bool, runs: Iterable[Look]) -> None:
        """Log new problems; call it with each turn of the loop."""
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        if gets_on == self._hang:
            self._hang = not gets_on
            if self._hang:
                log.error(
                    "every thread that writes hangs on a disk, and no more can be started: nothing is written. Records "
                    "wait in their journals. To do: bring the disks back, or raise TBXD_THREADS"
                )
            else:
                log.warning("the threads that write make progress again")
        for directory, error, since in runs:
            if error or directory in self._told:
                self._error(directory, error)
            if (since and now - since > STALL_SECONDS) or directory in self._standing:
                self._stall(directory, since, now)

    def _error(self, directory: str, error: str) -> None:
        if not error:
            del self._told[directory]
            log.warning("%s: it is written again", directory)
            return
        told = self._told.setdefault(directory, set())
        if error not in told:
            told.add(error)
            log.warning(
                "%s: it cannot be written: %s. Its records wait, and tbxd tries again. To do: %s",
                directory,
                error,
                advice(error),
            )

    def _stall(self, directory: str, since: float, now: float) -> None:
        stands = bool(since) and now - since > STALL_SECONDS
        if stands and directory not in self._standing:
            self._standing.add(directory)
            log.warning(
                "%s: a write has not returned for %.0f s. Its records wait. To do: check that its disk answers "
                "(`ls` there); a run of many millions of events takes so long to read when it is continued",
                directory,
                now - since,
            )
        elif not stands:
            self._standing.discard(directory)
            log.warning("%s: the write has returned", directory)
