"""Walls: an internal error behind one is counted and logged, and everything else continues.

A fault of ours in one message, one job or one part of the main loop must not end the daemon, nor be swallowed. The code
at a wall catches the exception, reports it here, and restores or ends its subject: the session ends, the run is opened
again from its ledger, the part of the loop runs again after a pause.

Everything is caught but KeyboardInterrupt: MemoryError and RecursionError are temporary, and a message or a job must
not end the daemon by SystemExit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0  # before what broke is tried again
TEXT_CHARACTERS_MAX = 300  # of an error that is told
TRACEBACKS_MAX = 100  # different ones that the log gets; each of them once


@dataclass(slots=True)
class Broken:
    """The errors of one place: their number, and the last one with its subject and time (since 1970)."""

    count: int = 0
    error: str = ""
    whose: str = ""
    seconds: float = 0.0


def text_of(error: BaseException) -> str:
    """Return an error as a line."""
    try:
        said = str(error)
    except Exception:  # whatever an error's own method may do
        said = ""
    return f"{type(error).__name__}: {said}"[:TEXT_CHARACTERS_MAX].rstrip(": ")


class Walls:
    """The internal errors of a daemon, by place. Any thread may report one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: dict[str, Broken] = {}
        self._shown: set[tuple[str, str, str, int]] = set()  # whose traceback the log has

    def broke(self, where: str, error: BaseException, whose: str = "") -> str:
        """Count and log an error; never raises.

        Args:
            where: the place, one of few names.
            error: the exception.
            whose: the session, run or journal concerned.

        Returns:
            A line for messages.
        """
        said = text_of(error)
        with self._lock:
            place = self._places.setdefault(where, Broken())
            place.count += 1
            place.error, place.whose, place.seconds = said, whose, time.time()
            key = (where, type(error).__name__, *_origin(error))
            first = key not in self._shown and len(self._shown) < TRACEBACKS_MAX
            if first:
                self._shown.add(key)
        with suppress(Exception):  # a log that cannot be written, no memory for a traceback: it is counted
            log.error(
                "internal error in %s%s: %s. The daemon continues; please report it",
                where,
                f" of {whose}" if whose else "",
                said,
                exc_info=(type(error), error, error.__traceback__) if first else None,
            )
        return f"internal error: {said}"

    @contextmanager
    def around(self, where: str, whose: str = "") -> Iterator[None]:
        """A wall around a part of the main loop."""
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self.broke(where, error, whose)

    @property
    def count(self) -> int:
        """The number of errors."""
        with self._lock:
            return sum(place.count for place in self._places.values())

    def status(self) -> dict[str, dict[str, Any]]:
        """Return the state for `tbxd status --json`, by place."""
        with self._lock:
            return {
                where: {"count": place.count, "error": place.error, "whose": place.whose, "seconds": place.seconds}
                for where, place in self._places.items()
            }


def _origin(error: BaseException) -> tuple[str, int]:
    """Return the file and line where an error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return (trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace is not None else ("", 0)
