"""What Linux tells of files as it happens (inotify(7)), through the C library: the standard library has no door to it.

Nothing here raises where the system has none of it, or no more: whoever watches has to look for himself then.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from pathlib import Path
from typing import NamedTuple

CLOSE_WRITE = 0x8  # somebody has closed a file that was open for writing
MOVED_TO = 0x80  # a name has come into a folder
Q_OVERFLOW = 0x4000  # more has happened than the kernel keeps
IGNORED = 0x8000  # the file is gone, and its watch with it
ONLYDIR = 0x1000000
_EVENT = struct.Struct("=iIII")  # watch, mask, cookie, bytes of the name that follows
READ_BYTES = 64 << 10


class Happened(NamedTuple):
    """What has happened to the file of a watch, or in the folder; ``name`` is whose there, or ""."""

    watch: int
    mask: int
    name: str


class Inotify:
    """A row of watches. ``fd`` is readable when something has happened, and -1 where the system has no inotify."""

    def __init__(self) -> None:
        self.fd = -1
        with contextlib.suppress(OSError, AttributeError):
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._libc.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
            self.fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)

    def watch(self, path: Path, mask: int) -> int:
        """Watch a file or a folder; returns the number of the watch, -1 where it cannot be."""
        if self.fd < 0:
            return -1
        return int(self._libc.inotify_add_watch(self.fd, os.fsencode(path), mask))

    def read(self) -> list[Happened]:
        """What has happened since the last call."""
        found: list[Happened] = []
        while self.fd >= 0:
            try:
                data = os.read(self.fd, READ_BYTES)
            except OSError:  # nothing
                break
            offset = 0
            while offset < len(data):
                watch, mask, _, length = _EVENT.unpack_from(data, offset)
                offset += _EVENT.size + length
                found.append(Happened(watch, mask, os.fsdecode(data[offset - length : offset].rstrip(b"\0"))))
        return found

    def close(self) -> None:
        """Give the descriptor back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
