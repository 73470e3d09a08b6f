"""What this process gives the files that it makes, and which files it sees.

What only Linux has: ``/proc``. Where it is not mounted nothing is said, and the daemon does as for a client of before.
"""

from __future__ import annotations

import fcntl
import os
import sys
from typing import Any

_NS_GET_MNTNS_ID = 0x8008B705  # ioctl_nsfs(2), from Linux 6.11 on; numbers of inodes are used again, this one is not


def umask() -> int | None:
    """The umask of this process; None where it cannot be known.

    Read, not set and set back: meanwhile another thread would make its files without one.
    """
    try:
        with open("/proc/thread-self/status", encoding="ascii", errors="replace") as lines:
            return next((int(line.split()[1], 8) for line in lines if line.startswith("Umask:")), None)
    except (OSError, ValueError, IndexError):
        return None


def view() -> str:
    """Which files this process sees. Two processes of one boot with the same text see the same under every path.

    The mount namespace, and the folder that is "/" here (chroot).
    """
    number = unique = 0
    try:
        fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            number = os.fstat(fd).st_ino
            unique = int.from_bytes(fcntl.ioctl(fd, _NS_GET_MNTNS_ID, bytes(8)), sys.byteorder)
        finally:
            os.close(fd)
    except OSError:  # no /proc, or an older kernel
        pass
    root = os.stat("/")  # noqa: PTH116 - pathlib takes 20 us more, of the time that a writer takes
    return f"{number:x}-{unique:x}-{root.st_dev:x}-{root.st_ino:x}"


def seen(directory: str) -> dict[str, Any]:
    """What a folder is, seen from here, as fields of a `records.RunDefinition`; none where it is not there."""
    try:
        state = os.stat(directory)  # noqa: PTH116
        return {"view": view(), "folder": (state.st_dev, state.st_ino)}
    except OSError:
        return {}
