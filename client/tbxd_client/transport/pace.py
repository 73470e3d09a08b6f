"""Decides how long the sender looks at a journal by itself before it sleeps until the journal rings.

While records come, it looks every ``TICK_SECONDS``; when none have come for a while, or now and then only, it asks the
journal to ring: a script that logs five scalars a second then costs half as many wake-ups.
"""

from __future__ import annotations

TICK_SECONDS = 0.05  # between two looks at a journal that is being filled
QUIET_SECONDS = 2.0  # without records before the sender sleeps until it is rung,
BUSY_SECONDS = 0.25  # where they have come at every look for so long; else it does when a look finds none


class Pace:
    """Knows when the last records came, and if they come at every look. Times are by the monotonic clock."""

    __slots__ = ("_growing_since", "_last_growth")

    def __init__(self) -> None:
        self._last_growth = 0.0
        self._growing_since = 0.0  # since when each look has found records

    def begin(self, now: float) -> None:
        """Stay awake for a while, as the looks begin."""
        self._last_growth = now

    def has_grown(self, now: float) -> None:
        """Take note that a look has found records."""
        if now - self._last_growth > 2 * TICK_SECONDS:
            self._growing_since = now
        self._last_growth = now

    def stays_awake(self, now: float) -> bool:
        """Return True if more records may come soon."""
        quiet = QUIET_SECONDS if self._last_growth - self._growing_since > BUSY_SECONDS else TICK_SECONDS
        return now - self._last_growth < quiet
