"""The original threads, locks, ``poll`` and clock of the system, even if a program has replaced them.

gevent and eventlet replace them by versions that switch between coroutines of one thread: such a sender would stall
with training, and such a lock would switch in the middle of a call. freezegun stops ``time``, so that a wait would
never end. So this module takes the originals once, and keeps them where these packages do not look for them.
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
    """Return the object that a module had under a name before gevent or eventlet replaced it."""
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
    """In a forked child, release an `RLock` of a thread that is gone, for a wait that has begun already.

    A signal handler may have forked during that wait, which continues when the handler has returned. This thread
    releases its own locks itself.
    """
    if not lock._is_owned():
        with contextlib.suppress(RuntimeError):  # nobody had it
            lock._release_save()


class Thread:
    """A thread that starts at once and ends with the process at the latest.

    Args:
        target: the function to run.

    Raises:
        RuntimeError: the system cannot start a thread.
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
        """True while the thread runs."""
        return self._ended.locked()

    @property
    def is_this(self) -> bool:
        """True if the caller runs on this thread."""
        here: int = get_ident()
        return self._ident == here

    def join(self, seconds: float) -> bool:
        """Wait for the end of the thread, for ``seconds`` at most; return True if it has ended."""
        if not self._ended.acquire(True, max(0.0, seconds)):
            return False
        self._ended.release()
        return True
