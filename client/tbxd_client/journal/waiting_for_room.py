"""Room in a journal, and who waits for it: he holds nothing meanwhile, so whatever has room goes on."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ..process.native import allocate_lock, monotonic

if TYPE_CHECKING:
    from _thread import LockType


class Room:
    """How often there has been new room, and who waits for the next time.

    No `threading.Condition`: what a signal handler raises in the middle of one leaves its lock not held.
    """

    __slots__ = ("_waiters", "made")

    def __init__(self) -> None:
        self.made = 0
        self._waiters: list[LockType] = []  # one each, that is let go when there is room

    def tell(self) -> None:
        """There is new room, or there will never be any; called by one thread at a time."""
        self.made += 1
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.release()

    def leave(self) -> None:
        """In a forked child: let go whoever waits there, because a signal handler has forked in the midst of it."""
        for waiter in self._waiters:
            with contextlib.suppress(RuntimeError):  # the parent was letting it go
                waiter.release()
        self.made += 1

    def wait(self, made: int, seconds: float) -> None:
        """Wait until there has been room more often than ``made``, so long at the most."""
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
    """How long one record still waits for room.

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
        """Whether there is anything to wait for at all."""
        return self._seconds > 0

    def lasts(self) -> bool:
        """Whether to `wait` and look again. Called where no room was found, before anybody can make some."""
        now = monotonic()
        self._deadline = self._deadline or now + self._seconds
        self._made = self._room.made
        return now < self._deadline

    def wait(self) -> None:
        """Wait until there may be room, or that has taken too long. Nothing may be held meanwhile."""
        self._room.wait(self._made, self._deadline - monotonic())
