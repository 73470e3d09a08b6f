"""Credit: how far each client may send ahead of the written records, the daemon's memory shared out in bytes.

All sessions together may have ``QUEUE_BYTES_MAX`` in transit; each has its part of that as a window. A record larger
than the window needs a grant until it is whole. Grants are given up to ``GRANTS_BYTES_MAX``, in the order of requests,
and at least one to each owner (this user, and each key), so that none blocks another. If there are so many sessions
that windows are small, sessions that use theirs up get a larger one, up to ``HURRY_BYTES_MAX``: few of hundreds log
much at a time. No sockets, threads or clocks.
"""

from __future__ import annotations

QUEUE_BYTES_MAX = 32 << 20
WINDOW_BYTES_MIN, WINDOW_BYTES_MAX = 128 << 10, 8 << 20
HURRY_BYTES = 512 << 10  # the window of a session that uses its own up,
HURRY_BYTES_MAX = 4 << 20  # and what all those have that go beyond their own
KEPT_BYTES_MAX = 64 << 20  # of all sessions, that wait for other ranks and for nothing else
GRANTS_BYTES_MAX = 128 << 20
BASE_BYTES = 64 << 20  # what a daemon may take beside that: Python, numpy, what its threads are about to encode
COPIES = 3  # at the most, of what is on the way: as received, as batches, as events
GRANT_SECONDS = 10.0  # a client that makes nothing of its grant for so long keeps nobody else waiting


def memory_most(sessions: int) -> int:
    """Return the most bytes of memory of a daemon with ``sessions`` sessions whose records fit their windows."""
    more = HURRY_BYTES_MAX if window(sessions) < HURRY_BYTES else 0
    return BASE_BYTES + COPIES * (sessions * window(sessions) + more)


def window(sessions: int) -> int:
    """Return the bytes that each of ``sessions`` sessions may have in transit."""
    return max(WINDOW_BYTES_MIN, min(WINDOW_BYTES_MAX, QUEUE_BYTES_MAX // max(1, sessions)))


def kept(sessions: int) -> int:
    """Return the bytes of each of ``sessions`` sessions that may wait for other ranks beside its window."""
    return KEPT_BYTES_MAX // max(1, sessions)


def presses(expected: int, announced: int, most: int) -> bool:
    """Return True if a session has used so much of its window that its records have to be written at once.

    Otherwise it would stop at its limit until the next write: with so many sessions that windows are small, each could
    log only one window in that time, even if the others do nothing.

    Args:
        expected: everything before this has arrived.
        announced: the position up to which it may send.
        most: the bytes of its window.
    """
    return announced - expected <= most // 2


class Credit:
    """Windows and grants of all sessions, by id."""

    def __init__(self) -> None:
        self.waiting: set[bytes] = set()  # those that need a grant and have none
        # Bytes, the position they were given at, when, to whom.
        self._grants: dict[bytes, tuple[int, int, float, str]] = {}
        # What was promised to sessions beyond their windows: up to which position, and how much of it is left. Nobody
        # can take it back, so it counts until it is used.
        self._hurried: dict[bytes, tuple[int, int]] = {}

    @staticmethod
    def base(written: int, held: int, sessions: int) -> int:
        """Return the start of a session's window: bytes that wait for other ranks are outside of it, up to a limit.

        Args:
            written: everything before this is in the event files.
            held: everything before this is in the event files, or waits for other ranks.
            sessions: the number of sessions.
        """
        return max(written, min(held, written + kept(sessions)))

    def limit(
        self,
        session: bytes,
        written: int,
        expected: int,
        record_end: int,
        sessions: int,
        now: float,
        owner: str = "",
    ) -> int:
        """Return the position up to which a client may send.

        Args:
            session: its id.
            written: the start of its window, see `base`.
            expected: everything before this has arrived.
            record_end: the end of the record that has begun to arrive.
            sessions: the number of sessions.
            now: seconds of a monotonic clock.
            owner: the name of its key, or "" for this user.
        """
        limit = self._in_a_hurry(session, written, expected, window(sessions))
        if record_end <= limit:
            self._grants.pop(session, None)
            self.waiting.discard(session)
            return limit
        needed = record_end - limit
        grant = self._grants.get(session)
        if grant is None:
            held = [(size, whose) for size, _, since, whose in self._grants.values() if now - since < GRANT_SECONDS]
            has_one = any(whose == owner for _, whose in held)
            if has_one and sum(size for size, _ in held) + needed > GRANTS_BYTES_MAX:
                self.waiting.add(session)
                return max(limit, expected)
        if grant is None or grant[1] != expected:
            self._grants[session] = (needed, expected, now, owner)
        self.waiting.discard(session)
        return record_end

    def _in_a_hurry(self, session: bytes, written: int, expected: int, most: int) -> int:
        """Return the limit of a session with a window of ``most`` bytes, or a larger one if it uses that up."""
        end = written + most
        promised = max(end, self._hurried.pop(session, (end, 0))[0])
        if most < HURRY_BYTES and presses(expected, end, most):
            left = HURRY_BYTES_MAX - sum(size for _, size in self._hurried.values())
            promised = max(promised, end + min(HURRY_BYTES - most, left))
        if promised > end:
            self._hurried[session] = promised, promised - end
        return promised

    def forget(self, session: bytes) -> None:
        """Forget a session that is over."""
        self._hurried.pop(session, None)
        self._grants.pop(session, None)
        self.waiting.discard(session)
