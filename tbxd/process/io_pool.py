"""Threads for jobs that wait for disks.

A number of them works at a time. One whose job has hung on a disk for a while is not counted any more and another
takes its place, so that some slow disks hold up nobody but the runs on them. All are daemon threads: what hangs in the
kernel does not keep the process from leaving. A job that raises costs no thread, and a thread that is gone all the same
is replaced.
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
    """Runs jobs on at most ``threads`` threads that get on.

    Args:
        threads: how many.
        broke: called, on the job's thread, with what a job has raised, whatever that is; nothing: it is logged.
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
        """Put others in the place of threads that hang or are gone; to be called now and then.

        Returns:
            Whether the pool gets on. False when jobs wait while every thread hangs, and no more threads can be had. A
            thread that computes gets on, however long it takes: a ledger of millions of events is read like that.
        """
        with self._changed:
            self._bury()
            if len(self._jobs) > self._idle:
                self._grow()
                return self._active() > 0
            return True

    def status(self) -> dict[str, int]:
        """Jobs that wait, threads, and how many of these hang."""
        with self._changed:
            self._bury()
            return {
                "queued_jobs": len(self._jobs),
                "threads": len(self._started),
                "threads_hanging": len(self._started) - self._active(),
            }

    def _bury(self) -> None:
        """Take those off the list that are not there any more, though none of them has said so."""
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
        """Threads that get on, or have nothing to do."""
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
        """The next job; None when the thread is to end."""
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
        """Do what is queued and end the threads. False when that took longer than ``seconds``."""
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
