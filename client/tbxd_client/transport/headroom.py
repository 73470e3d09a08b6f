"""Checks that this process may have what a link takes. libzmq, which reaches a daemon over tcp, calls ``abort()``
where it gets no descriptor, thread or memory, in the middle of training. What it needs is taken for a moment, and given
back.

And how many share the processors with it.
"""

from __future__ import annotations

import errno
import mmap
import os
import resource
from pathlib import Path

from ..process.descriptors import Descriptor, open_file
from ..process.native import Thread, allocate_lock, get_native_id, monotonic, sleep

ROOT = Path("/")  # what is always there to be opened: there may be no /dev (chroot)
DESCRIPTORS = 24  # that a context and its socket may need (src/epoll.cpp, src/signaler.cpp)
DESCRIPTORS_LOCAL = 8  # a connection, and what starting a daemon takes
THREADS = 4  # it makes two, the reaper and the one for its sockets (src/thread.cpp); the others are a reserve
STACK_BYTES = 8 << 20  # of a thread, where the limit does not say it
BYTES = 64 << 20  # of address space, over the stacks: what buffers and heaps of two threads may grow to
BYTES_SENDING = 16 << 20  # that have to be free for as long as it sends
BYTES_LOADING = 16 << 20  # and before it is loaded: with its libraries it takes about 6
NO_MEMORY = "has hardly any memory left (ulimit -v)"
GONE_SECONDS = 1.0  # for threads that have ended, to be gone


def shortage(libzmq: bool) -> str:
    """Return what this process has too little of for a link to begin; "" if there is enough of everything.

    Args:
        libzmq: whether the link is one of libzmq's.
    """
    if not _descriptors(DESCRIPTORS if libzmq else DESCRIPTORS_LOCAL):
        return "has hardly any file descriptors left (ulimit -n)"
    if libzmq:
        return _threads_and_memory()
    return "" if memory(BYTES_SENDING) else NO_MEMORY


def memory(size: int) -> bool:
    """Return True if so many bytes of address space are to be had."""
    try:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ).close()
    except (OSError, MemoryError, OverflowError):
        return False
    return True


def crowding() -> float:
    """Return how many processes want each processor of this machine; at least 1, and 1 if it is not known."""
    try:
        return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    except OSError:
        return 1.0


def _descriptors(number: int) -> bool:
    try:
        root = os.stat(ROOT)  # noqa: PTH116
        while len(_held) < number:
            one = open_file(ROOT, os.O_PATH)
            if not one.is_of(root):  # the program has closed it before it was looked at, and has its number
                one.forget()
                return True
            _held.append(one)
        return True
    except OSError as error:
        return error.errno == errno.EBADF  # the program closes all at this moment: there are enough
    finally:
        _give_back()


def _give_back() -> None:
    while _held:
        _held.pop().close()


_held: list[Descriptor] = []


def _threads_and_memory() -> str:
    """The threads are real ones, held until all are there, and gone when this returns."""
    gate = allocate_lock()
    gate.acquire()
    there: list[int] = []

    def wait() -> None:
        there.append(get_native_id())
        with gate:
            pass

    threads: list[Thread] = []
    wanting = ""
    try:
        try:
            while len(threads) < THREADS:
                threads.append(Thread(wait))
        except (RuntimeError, MemoryError):
            wanting = "can have no further threads (ulimit -u, pids.max, ulimit -v)"
        if not wanting and not memory(BYTES + _stacks()):
            wanting = NO_MEMORY
    finally:
        gate.release()
    deadline = monotonic() + GONE_SECONDS
    for thread in threads:
        thread.join(deadline - monotonic())
    while any(map(_exists, there)) and monotonic() < deadline:
        sleep(0.0002)
    return wanting


def _stacks() -> int:
    """Bytes of the stacks of what libzmq makes; Python's own threads may have been given smaller ones."""
    soft, _ = resource.getrlimit(resource.RLIMIT_STACK)
    return 2 * (STACK_BYTES if soft == resource.RLIM_INFINITY else soft)


def _exists(thread: int) -> bool:
    """Return True if the kernel still has a thread, and so counts it."""
    try:
        os.sched_getscheduler(thread)
    except OSError:  # ESRCH; ENOSYS where a sandbox has no such call
        return False
    return True
