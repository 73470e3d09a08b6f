"""Threads for jobs that wait for disks.

A fixed number works at a time. A thread whose job has hung on a disk for a while is not counted any more and another
replaces it, so that slow disks only delay the runs on them. All are daemon threads: one that hangs in the kernel does
not keep the process from exiting. A job that raises costs no thread, and a thread that is gone all the same is
replaced.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

STUCK_SECONDS = 0.5  # a job that runs longer, and has used next to no processor, waits for something
STUCK_CPU_SHARE = 0.05
THREADS_MAX = 256

Job = Callable[[], None]


class Pool:
    """Runs jobs on at most ``threads`` threads that make progress.

    Args:
        threads: their number.
        broke: called, on the job's thread, with any exception of a job; None logs it.
    """

    def __init__(self, threads: int, broke: Callable[[BaseException], object] | None = None) -> None:
        self._size = threads
        self._broke = broke or (lambda error: log.error("a job", exc_info=error))
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._idle = 0
        self._threads: dict[int, threading.Thread] = {}
        # Thread to when its job began and the processor time it had used by then; None while it has no job.
        self._started: dict[int, tuple[float, float] | None] = {}
        self._closing = False

    def submit(self, job: Job) -> None:
        """Run ``job`` as soon as a thread is free."""
        with self._changed:
            self._jobs.append(job)
            if len(self._jobs) <= self._idle:
                self._changed.notify()
            else:
                self._grow()

    def relieve(self) -> bool:
        """Replace threads that hang or are gone; call it now and then.

        Returns:
            True if the pool makes progress. False if jobs wait while every thread hangs, and no more can be started. A
            thread that computes makes progress, however long it takes: for example reading a ledger of millions of
                events.
        """
        with self._changed:
            self._bury()
            if len(self._jobs) > self._idle:
                self._grow()
                return self._active() > 0
            return True

    def status(self) -> dict[str, int]:
        """Return the waiting jobs, the threads, and the number of hanging ones."""
        with self._changed:
            self._bury()
            return {
                "queued_jobs": len(self._jobs),
                "threads": len(self._started),
                "threads_hanging": len(self._started) - self._active(),
            }

    def _bury(self) -> None:
        """Remove threads that are gone without notice."""
        for ident in [ident for ident, thread in self._threads.items() if not thread.is_alive()]:
            del self._threads[ident], self._started[ident]

    def _grow(self) -> None:
        if self._active() < self._size and len(self._started) < THREADS_MAX:
            thread = threading.Thread(target=self._work, name="tbxd-run", daemon=True)
            try:
                thread.start()
            except (RuntimeError, MemoryError) as error:  # as many as the system allows; the next tick tries again
                log.warning("no more threads to write with: %s", error)
                return
            assert thread.ident is not None
            self._threads[thread.ident] = thread
            self._started.setdefault(thread.ident, None)

    def _active(self) -> int:
        """Return the number of threads that make progress or are idle."""
        now = time.monotonic()
        return sum(not self._hangs(thread, now) for thread in self._started)

    def _hangs(self, thread: int, now: float) -> bool:
        started = self._started[thread]
        if started is None or now - started[0] < STUCK_SECONDS:
            return False
        if not self._threads[thread].is_alive():  # glibc may not be asked for the clock of one that is gone
            return True
        used = time.clock_gettime(time.pthread_getcpuclockid(thread)) - started[1]
        return used < STUCK_CPU_SHARE * (now - started[0])

    def _work(self) -> None:
        me = threading.get_ident()
        try:
            while (job := self._next(me)) is not None:
                try:
                    job()
                except BaseException as error:
                    self._broke(error)
                del job  # or a run would be kept until this thread has another
        finally:
            with self._changed:
                self._threads.pop(me, None)
                if self._started.pop(me, None) is not None and self._jobs:  # it was in the midst of a job
                    self._grow()
                self._changed.notify_all()

    def _next(self, me: int) -> Job | None:
        """Return the next job; None if the thread has to end."""
        with self._changed:
            self._started[me] = None
            while not self._jobs and not self._closing:
                self._idle += 1
                try:
                    self._changed.wait()
                finally:
                    self._idle -= 1
            if not self._jobs or self._active() > self._size:
                return None
            job = self._jobs.popleft()
            self._started[me] = time.monotonic(), time.thread_time()
            return job

    def close(self, seconds: float) -> bool:
        """Run queued jobs and end the threads. Return False if that took longer than ``seconds``."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._closing = True
            if self._jobs:
                self._grow()
            self._changed.notify_all()
            while self._started:
                remaining = deadline - time.monotonic()
                if remaining <= 0 or not self._changed.wait(min(remaining, STUCK_SECONDS)):
                    if remaining <= 0:
                        return False
                    self._bury()
                    if self._jobs:
                        self._grow()
            return True
