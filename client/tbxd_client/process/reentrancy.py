"""Runs jobs one at a time, even if a signal handler logs in the middle of a call that logs.

With a lock, the handler would wait for the thread that it has interrupted; with a re-entrant lock, it would enter
while a job is half done. Here it leaves its job, and the interrupted call runs that next.

A job that has to wait for something returns, and runs again after the wait: other jobs run meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable

from .native import RLock, let_in

DEFERRED_MAX = 1024

Wait = Callable[[], None]
# Called with whether it may wait. Returns what to wait with, before it is called again; None when it is done.
Job = Callable[[bool], Wait | None]


class Turns:
    """Runs jobs one at a time, over all threads."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._busy = False
        self._deferred: list[Job] = []

    @property
    def interrupted(self) -> bool:
        """True in a signal handler that has interrupted a job on this thread."""
        if not self._busy or not self._lock.acquire(blocking=False):
            return False  # nobody's, or another thread's
        try:
            return self._busy
        finally:
            self._lock.release()

    @property
    def mine(self) -> bool:
        """True if the caller has interrupted a turn of this thread, which ends only after the caller returns."""
        return bool(self._lock._is_owned())

    def leave(self) -> None:
        """In a forked child, end the turn of any other thread of the parent.

        A call that waits for room, or for a turn, while a signal handler forks continues here.
        """
        if not self.mine:  # else it has interrupted one, which ends here, too
            held, self._lock, self._busy, self._deferred = self._lock, RLock(), False, []
            let_in(held)

    def run(self, job: Job) -> bool:
        """Run ``job`` now, or right after the job that the calling signal handler has interrupted.

        Return False if too many jobs are deferred already; the job does not run then.
        """
        waiting: list[tuple[Job, Wait]] = []
        patient = not self.mine
        try:
            taken = self._take(job, patient, waiting)
            while waiting:
                again, wait = waiting.pop(0)
                try:
                    wait()  # with nothing held
                except BaseException:  # of a signal handler: this call is given up, which its caller sees,
                    if again is not job:  # but who was put off has been told that it is done
                        waiting.append((again, wait))
                    raise
                self._take(again, True, waiting)
        finally:  # the others wait no more
            for again, _ in waiting:
                self._take(again, False, [])
        return taken

    def _take(self, job: Job, patient: bool, waiting: list[tuple[Job, Wait]]) -> bool:
        """Run ``job`` after the deferred jobs; a job that has to run again goes to ``waiting``."""
        with self._lock:
            if len(self._deferred) >= DEFERRED_MAX:
                return False
            self._deferred.append(job)
            if not self._busy:
                self._run_all(patient, waiting)
            return True

    def _run_all(self, patient: bool, waiting: list[tuple[Job, Wait]]) -> None:
        try:
            while self._deferred:
                wait = None
                try:
                    self._busy = True  # before it is taken, or a handler in between would come first
                    job = self._deferred.pop(0)
                    wait = job(patient)
                finally:
                    self._busy = False
                if wait is not None:
                    waiting.append((job, wait))
        except BaseException:  # an interrupted job may end with what the handler raised: KeyboardInterrupt, SystemExit
            self._run_all(False, waiting)
            raise
