"""File descriptors, when they run out: who can wait leaves the last ones to who cannot."""

from __future__ import annotations

import os
import resource

RESERVED_SHARE = 8  # one in so many is left to connections, which libzmq has to be able to accept


def scarce() -> bool:
    """Whether so few descriptors are left that nothing is to be opened which can wait.

    A new descriptor gets the lowest number that is free, so that a high one tells how many are in use.
    """
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return True
    os.close(fd)
    return most != resource.RLIM_INFINITY and fd >= most - most // RESERVED_SHARE
