"""A thread that runs one job at a time, and may hang without blocking the caller."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

HANG_SECONDS = 10.0  # without an answer until it is said in the log

T = TypeVar("T")


class Probe(Generic[T]):
    """Runs one job at a time, in the background; jobs must not raise.

    A job that hangs keeps its thread, and no other job starts: there is one thread at most.

    Args:
        name: the name in messages about a hang.
        answered: called on the thread when a job is done.
    """

    def __init__(self, name: str, answered: Callable[[], None]) -> None:
        self.name = name
        self._answered = answered
        self._asked = threading.Semaphore(0)
        self._job: Callable[[], T] | None = None
        self._since = 0.0
        self._answer: T | None = None
        self._thread: threading.Thread | None = None
        self._said = False

    @property
    def busy(self) -> bool:
        """True while the last job runs."""
        return self._job is not None

    def ask(self, job: Callable[[], T]) -> bool:
        """Start a job. Return False if the last one still runs, or no thread can be started."""
        if self.busy:
            self._say(time.monotonic() - self._since)
            return False
        if self._said:
            self._said = False
            log.info("%s answers again", self.name)
        if self._thread is None:
            thread = threading.Thread(target=self._work, name=f"tbxd-{self.name}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # as many as the system allows
                log.warning("no thread for %s: %s", self.name, error)
                return False
            self._thread = thread
        self._answer, self._since, self._job = None, time.monotonic(), job
        self._asked.release()
        return True

    def take(self) -> T | None:
        """Return the answer of the last job; None while there is none."""
        return None if self.busy else self._answer

    @property
    def hangs(self) -> bool:
        """True if a job has run for so long that a hang was reported."""
        return self._said and self.busy

    def _say(self, seconds: float) -> None:
        if seconds > HANG_SECONDS and not self._said:
            self._said = True
            log.warning("%s has not answered for %.0f s; its values are left out until it does", self.name, seconds)

    def _work(self) -> None:
        while True:
            self._asked.acquire()
            job = self._job
            assert job is not None
            self._answer = job()
            self._job = None  # after the answer: whoever sees that it is done sees the answer, too
            self._answered()
