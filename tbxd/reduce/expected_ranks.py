"""Sessions that have said hello but have no records in a run yet: one may be a rank that a run waits for.

A process says hello once it has logged something, so its records are on their way, however long a busy machine takes
to read them; which run they are for its definitions say, a moment later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tbxd_client.protocol.records import RunDefinition

Runs = Sequence[RunDefinition | None]


class Coming:
    """Sessions that no run has seen yet. Any thread may call `until`; all else is for one."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, tuple[float, Runs]] = {}

    def come(self, session: bytes, runs: Runs, now: float) -> None:
        """Note the begin of a session.

        Args:
            session: which.
            runs: those that it defines; may grow.
            now: seconds, by a clock that does not jump.
        """
        self._sessions[session] = now, runs

    def gone(self, session: bytes) -> None:
        """Note that a run has records of a session, or that none will come."""
        self._sessions.pop(session, None)

    def until(self, run: RunDefinition, before: float, seconds: float) -> float:
        """Return up to when another rank of a run's start of a job may still come.

        Args:
            run: of one of its ranks.
            before: who has come later than this does not count.
            seconds: how long one counts.

        Returns:
            Seconds, by the clock of `come`; 0 where there is nobody.
        """
        start = _start(run)
        found = 0.0
        for came, runs in list(self._sessions.values()):
            if came < before and came + seconds > found:
                known = [_start(other) for other in list(runs) if other is not None]
                if not known or start in known:
                    found = came + seconds
        return found


class Sessions:
    """The state of sessions for a reduction: called with one, it is a `patience.Read`.

    Args:
        read: tells of a session up to when all that it has logged has come, and since when nothing more has.
        coming: who has come and is not seen yet.
    """

    def __init__(self, read: Callable[[bytes], tuple[float, float]], coming: Coming) -> None:
        self._read = read
        self.coming = coming

    def __call__(self, session: bytes) -> tuple[float, float]:
        return self._read(session)


def _start(run: RunDefinition) -> tuple[str, int, int, bool]:
    return run.job, run.attempt, run.world, run.reduce
