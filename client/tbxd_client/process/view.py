"""The umask of this process, and its view of the file system.

This needs Linux's ``/proc``. If it is not mounted, nothing is sent, and the daemon acts as for an older client.
"""

from __future__ import annotations

import fcntl
import os
import sys
from typing import Any

from .descriptors import uncut

STATUS_BYTES_MAX = 1 << 14  # of a file of /proc; they have a tenth of it
_NS_GET_MNTNS_ID = 0x8008B705  # ioctl_nsfs(2), from Linux 6.11 on; numbers of inodes are used again, this one is not


def umask() -> int | None:
    """Return the umask of this process; None if unknown.

    It is read from ``/proc``: if it were set and set back, another thread could make files without one meanwhile.
    """
    return _number("/proc/thread-self/status", b"Umask:", 8)


def view() -> str:
    """Return an id of this process's view: two processes of one boot with the same id see the same files at every path.

    It consists of the mount namespace, and the folder that is "/" here (chroot).
    """
    number = unique = mount = 0
    with uncut:
        try:
            fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            try:
                number = os.fstat(fd).st_ino
                unique = int.from_bytes(fcntl.ioctl(fd, _NS_GET_MNTNS_ID, bytes(8)), sys.byteorder)
            finally:
                os.close(fd)
        except OSError:  # no /proc, or an older kernel
            pass
        fd = os.open("/", os.O_PATH | os.O_CLOEXEC)
        try:
            root = os.fstat(fd)
            mount = mount_number(fd)  # "/" may be mounted at a second place, with other file systems below it
        finally:
            os.close(fd)
    return f"{number:x}-{unique:x}-{mount:x}-{root.st_dev:x}-{root.st_ino:x}"


def mount_number(fd: int) -> int:
    """Return the number of the mount of an open file in its namespace; 0 if unknown."""
    return _number(f"/proc/self/fdinfo/{fd}", b"mnt_id:", 10) or 0


def _number(path: str, name: bytes, base: int) -> int | None:
    """Return the number after a name in a file of ``/proc``; None if it is missing.

    It does not use ``open``, which is gone if a ``__del__`` logs at the interpreter's end.
    """
    try:
        with uncut:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                text = os.read(fd, STATUS_BYTES_MAX)
            finally:
                os.close(fd)
        return next((int(line.split()[1], base) for line in text.splitlines() if line.startswith(name)), None)
    except (OSError, ValueError, IndexError):
        return None


def seen(directory: str) -> dict[str, Any]:
    """Return the view and identity of a folder, as fields of a `records.RunDefinition`; none if it is missing."""
    try:
        state = os.stat(directory)  # noqa: PTH116
        return {"view": view(), "folder": (state.st_dev, state.st_ino)}
    except OSError:  # it is not there, or no descriptor is left
        return {}
