"""Events of files from Linux (inotify(7)), through the C library: the standard library has no interface to it.

Nothing here raises if the system has no inotify, or no watches left: the caller has to poll then.
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
    """An event of a watched file or folder; ``name`` is the name in the folder, or ""."""

    watch: int
    mask: int
    name: str


class Inotify:
    """A set of watches. ``fd`` is readable when events have come, and -1 if the system has no inotify."""

    def __init__(self) -> None:
        self.fd = -1
        with contextlib.suppress(OSError, AttributeError):
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._libc.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
            self.fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)

    def watch(self, path: Path, mask: int) -> int:
        """Watch a file or a folder; return the number of the watch, -1 if it is not possible."""
        if self.fd < 0:
            return -1
        return int(self._libc.inotify_add_watch(self.fd, os.fsencode(path), mask))

    def read(self) -> list[Happened]:
        """Return the events since the last call."""
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
        """Close the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
