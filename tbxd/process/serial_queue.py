"""Strands: jobs that run on a pool of threads, those of one strand one after the other.

Each run has a strand, so one thread at a time owns its file, and a run on a slow disk only delays itself. An exception
of a job is reported to the maker of the strand, on the same thread and before the next job.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from .io_pool import Job, Pool


class Strand:
    """A sequence of jobs.

    Args:
        pool: the pool whose threads run them.
        broke: called with any exception of a job; the strand continues with the next one.
    """

    __slots__ = ("_broke", "_jobs", "_lock", "_pool", "_running")

    def __init__(self, pool: Pool, broke: Callable[[BaseException], object]) -> None:
        self._pool = pool
        self._broke = broke
        self._lock = threading.Lock()
        self._jobs: deque[Job] = deque()
        self._running = False

    def submit(self, job: Job) -> None:
        """Run ``job`` after all jobs submitted before it."""
        with self._lock:
            self._jobs.append(job)
            if self._running:
                return
            self._running = True
        self._hand_over()

    def _hand_over(self) -> None:
        try:
            self._pool.submit(self._drain)
        except BaseException:  # no memory: the next job that comes takes those that wait along
            self._running = False
            raise

    def _drain(self) -> None:
        over = False
        try:
            while True:
                with self._lock:
                    if not self._jobs:
                        self._running = False
                        over = True
                        return
                    job = self._jobs.popleft()
                try:
                    job()
                except BaseException as error:
                    self._broke(error)
        finally:  # what was told has raised itself: another thread goes on
            if not over:
                self._hand_over()
