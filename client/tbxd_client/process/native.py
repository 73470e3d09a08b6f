"""Threads, locks, ``poll`` and the clock of the system, whatever a program has put in their places.

gevent and eventlet replace them by some that switch between coroutines of one thread: a sender made of these would
stand still with training, and a lock of theirs would hand over in the middle of a call. freezegun stops ``time``: a
wait would never end. So they are taken here, once, and kept where none of these looks for them.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _thread import LockType


def original(module: str, name: str) -> Any:
    """What a module had under a name before gevent or eventlet has put something else there."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None and gevent.is_module_patched(module):
        return gevent.get_original(module, name)
    if eventlet is not None and eventlet.is_monkey_patched(module.strip("_")):
        return getattr(eventlet.original(module), name)
    return getattr(importlib.import_module(module), name)


RLock = original("_thread", "RLock")
allocate_lock = original("_thread", "allocate_lock")
get_ident = original("_thread", "get_ident")
get_native_id = original("_thread", "get_native_id")
_start: Callable[[Callable[[], None], tuple[()]], int] = original("_thread", "start_new_thread")
poller = original("select", "poll")
posix_spawn: Callable[..., int] = original("os", "posix_spawn")
waitpid: Callable[[int, int], tuple[int, int]] = original("os", "waitpid")

# Not ``time.monotonic``, which freezegun stops in every module that has it under a name.
monotonic: Callable[[], float] = partial(time.clock_gettime, time.CLOCK_MONOTONIC)
sleep: Callable[[float], None] = partial(original("time", "sleep"))


def let_in(lock: Any) -> None:
    """In a forked child: free an `RLock` of a thread that is not there, for who waits for it already.

    A signal handler may have forked in that wait, which goes on when the handler has returned. What this thread has
    itself it frees.
    """
    if not lock._is_owned():
        with contextlib.suppress(RuntimeError):  # nobody had it
            lock._release_save()


class Thread:
    """A thread that ends with the process at the latest. It begins at once.

    Args:
        target: what it does.

    Raises:
        RuntimeError: the system has no thread to give.
    """

    __slots__ = ("_ended", "_ident", "_target")

    def __init__(self, target: Callable[[], None]) -> None:
        self._target = target
        self._ident = 0
        self._ended: LockType = allocate_lock()
        self._ended.acquire()
        _start(self._run, ())

    def _run(self) -> None:
        try:
            self._ident = get_ident()
            self._target()
        finally:
            self._ended.release()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._ended.locked()

    @property
    def is_this(self) -> bool:
        """Whether the caller is on it."""
        here: int = get_ident()
        return self._ident == here

    def join(self, seconds: float) -> bool:
        """Wait until it has ended, so long at the most; whether it has."""
        if not self._ended.acquire(True, max(0.0, seconds)):
            return False
        self._ended.release()
        return True
