"""Strands: jobs that run on a pool of threads, those of one strand one after the other.

Each run has a strand, so one thread at a time owns its file, and a run whose disk is slow keeps nobody waiting but
itself.
"""

from __future__ import annotations

import threading
from collections import deque

from .pool import Job, Pool


class Strand:
    """An order of jobs. The jobs must not raise."""

    __slots__ = ("_jobs", "_lock", "_pool", "_running")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._jobs: deque[Job] = deque()
        self._running = False

    def submit(self, job: Job) -> None:
        """Run ``job`` after all that was submitted before it."""
        with self._lock:
            self._jobs.append(job)
            if self._running:
                return
            self._running = True
        self._pool.submit(self._drain)

    def _drain(self) -> None:
        while True:
            with self._lock:
                if not self._jobs:
                    self._running = False
                    return
                job = self._jobs.popleft()
            job()
