"""One at a time, even when a signal handler logs in the middle of a call that logs.

A lock alone would let the handler wait for the very thread it has interrupted; a re-entrant lock alone would let it in
while things are half done. Here it leaves its job, and the call it interrupted does that next.
"""

from __future__ import annotations

from collections.abc import Callable

from .native import RLock

DEFERRED_MAX = 1024


class Turns:
    """Runs jobs one at a time, over all threads."""

    def __init__(self) -> None:
        self._lock = RLock()
        self._busy = False
        self._deferred: list[Callable[[], None]] = []

    @property
    def interrupted(self) -> bool:
        """Whether this is a signal handler that has interrupted a job on this thread."""
        if not self._busy or not self._lock.acquire(blocking=False):
            return False  # nobody's, or another thread's
        try:
            return self._busy
        finally:
            self._lock.release()

    def run(self, job: Callable[[], None]) -> bool:
        """Run ``job`` now, or right after the job that the calling signal handler has interrupted.

        False: neither, because too many are put off already.
        """
        with self._lock:
            if self._busy:
                if len(self._deferred) >= DEFERRED_MAX:
                    return False
                self._deferred.append(job)
                return True
            self._busy = True
            try:
                job()
            finally:  # an interrupted job may end with what the handler raised: KeyboardInterrupt, SystemExit
                self._busy = False
                while self._deferred:
                    self.run(self._deferred.pop(0))
            return True
