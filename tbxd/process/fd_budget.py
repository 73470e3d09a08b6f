"""The budget of file descriptors: work that can wait leaves the last ones to work that cannot."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

# Which part of all descriptors is left free by whom. Connections leave most: see `server_socket.SPARE_SHARE`. Journals
# of dead trainers leave more than runs, because nothing of them can be written, and none of them closed, without a run.
LEFT_BY_ADOPTION = 3 / 16
LEFT_BY_RUNS = 2 / 16
RESERVED = 32  # of this process, for what is no run and no connection
RUNS_SHARE = 6  # one run in so many descriptors is kept open: it takes two, and clients need theirs


def runs_open(wanted: int) -> int:
    """Return the number of runs to keep open: the wanted number, limited by descriptors."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if most == resource.RLIM_INFINITY else max(1, min(wanted, (most - RESERVED) // RUNS_SHARE))


def in_use() -> int:
    """Return the number of open descriptors of this process; the limit if none is left for the query."""
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir()) - 1  # without that of the folder itself
    except FileNotFoundError:  # no /proc: the lowest number that is free, which is right where it counts, at the limit
        with contextlib.suppress(OSError):
            fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
            os.close(fd)
            return fd
    except OSError:
        pass
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def scarce(left: float) -> bool:
    """Return True if no more than this share of descriptors is left, so that work that can wait must not open any.

    A new descriptor gets the lowest free number, so a high number shows how many are in use.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return True
    os.close(fd)
    return most != resource.RLIM_INFINITY and fd >= most - int(most * left)
