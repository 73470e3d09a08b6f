"""Waiting for room in a journal. A call that waits holds nothing, so calls whose records have room go on."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ..process.native import allocate_lock, monotonic

if TYPE_CHECKING:
    from _thread import LockType


class Room:
    """Counts how often there has been new room, and wakes the calls that wait for it.

    No `threading.Condition`: what a signal handler raises in the middle of one leaves its lock not held.
    """

    __slots__ = ("_waiters", "made")

    def __init__(self) -> None:
        self.made = 0
        self._waiters: list[LockType] = []  # one each, that is let go when there is room

    def tell(self) -> None:
        """Wake those who wait: there is new room, or there will never be any. Called by one thread at a time."""
        self.made += 1
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.release()

    def leave(self) -> None:
        """In a forked child: wake a call in whose wait a signal handler has forked."""
        for waiter in self._waiters:
            with contextlib.suppress(RuntimeError):  # the parent was letting it go
                waiter.release()
        self.made += 1

    def wait(self, made: int, seconds: float) -> None:
        """Wait until there has been room more often than ``made``, for at most ``seconds``."""
        waiter = allocate_lock()
        waiter.acquire()
        self._waiters.append(waiter)
        try:
            if self.made == made:  # behind the append: who tells counts first, and then takes the list
                waiter.acquire(True, max(0.0, seconds))
        finally:
            with contextlib.suppress(ValueError):  # it was told
                self._waiters.remove(waiter)


class Patience:
    """The time that one record may still wait for room.

    Args:
        room: that of its journal.
        seconds: from the first look that finds none.
    """

    __slots__ = ("_deadline", "_made", "_room", "_seconds")

    def __init__(self, room: Room, seconds: float) -> None:
        self._room = room
        self._seconds = seconds
        self._deadline = 0.0
        self._made = 0

    @property
    def waits(self) -> bool:
        """True if the record may wait at all."""
        return self._seconds > 0

    def lasts(self) -> bool:
        """Return True if the caller is to `wait` and look again. Called after a look in vain, with the lock held."""
        now = monotonic()
        self._deadline = self._deadline or now + self._seconds
        self._made = self._room.made
        return now < self._deadline

    def wait(self) -> None:
        """Wait until there may be room, or the time is over. The caller holds nothing meanwhile."""
        self._room.wait(self._made, self._deadline - monotonic())
