"""Reports to a daemon how many records each run has logged: the changes, in messages of a size that it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..process.native import monotonic
from ..protocol import wire

REPORT_SECONDS = 1.0  # between reports of counts that have changed
HEARTBEAT_SECONDS = 15.0  # between reports that have not
SHARE = 20  # to look at the counts of very many runs may take one part in so many of the time


class Reports:
    """The reports of a session, to one daemon after the other.

    Args:
        session: whose.
        counts: gives those of all runs, as in `wire.Report`.
    """

    def __init__(self, session: bytes, counts: Callable[[], dict[int, Any]]) -> None:
        self._session = session
        self._counts = counts
        self._told: dict[int, Any] = {}  # the daemon
        self._keeps = False
        self._sent = 0.0
        self._seconds = 0.0  # that the last look has taken
        self.due = 0.0  # by the monotonic clock

    def begin(self, keeps: bool) -> None:
        """Begin anew with a daemon that has been told nothing.

        Args:
            keeps: it keeps what it was told of runs that a report does not name; an older one takes each as all.
        """
        self._told = {}
        self._keeps = keeps
        self.due = 0.0

    @property
    def settled(self) -> bool:
        """True if the daemon has been told everything."""
        return not self._news()

    def _news(self) -> dict[int, Any]:
        begun = monotonic()
        counts, told = self._counts(), self._told
        news = {number: count for number, count in counts.items() if told.get(number) != count}
        self._seconds = monotonic() - begun
        return news

    def messages(self, now: float, last: bool = False) -> list[wire.Report]:
        """Return the messages to send now. A caller that cannot send them calls `begin` when there is a daemon again.

        Args:
            now: by the monotonic clock.
            last: all that is news, whenever something was sent; an empty one where there is none.
        """
        if now < self.due and not last:
            return []
        news = self._news()
        self.due = now + max(REPORT_SECONDS, SHARE * self._seconds)
        if not news and not last and now - self._sent <= HEARTBEAT_SECONDS:
            return []
        if not self._keeps:
            news = self._counts()
        self._sent = now
        self._told.update(news)
        return [wire.Report(self._session, part) for part in wire.parts(news)]
