"""Decides how small records are stored in a journal's files: through a map, or by the system.

A store through a map takes no call into the system, and a store that the disk cannot take ends the process (SIGBUS).
So it has to be known beforehand that the disk can: it is where a file has been given its blocks and is written in
place, and as long as the file system lives. Elsewhere every record is stored by the system, which says what is wrong.
"""

from __future__ import annotations

import array
import errno
import fcntl
import mmap
import os
import struct
from typing import Any

from ..process.descriptors import Descriptor
from ..process.mounts import mount_of
from .journal_files import WORD_COMMIT

# File systems that keep what `posix_fallocate` has got, for stores through a map, too. Others write what changes to
# another place, for which there may be no room (btrfs, bcachefs, ZFS), or ask somebody else (NFS, SMB, FUSE), or nobody
# has tried them. An overlay is as what is below it.
IN_PLACE = frozenset(("ext2", "ext3", "ext4", "xfs", "tmpfs", "ramfs", "overlay"))
# What has to be free elsewhere. With less a file system that writes what changes to another place takes milliseconds
# for each store, also for one into what a file has got.
FREE_BYTES = 32 << 20
READY_BYTES = (
    256 << 10
)  # of a file that are made ready at a time: 80 µs on ext4, which their first stores would take, too
_PAGE = mmap.PAGESIZE
_POPULATE_WRITE = 23  # MADV_POPULATE_WRITE of Linux 5.14: says what would end the process, where the pages are touched
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602  # ioctl_iflags(2)
_NO_COW = 0x00800000  # written in place, of a file system that does not do so by itself


def is_in_place(file: Descriptor) -> bool:
    """Return True if a file, which is still empty, can be stored into through a map. 0.1 ms.

    One on a file system that writes elsewhere is asked to be written in place, so that what it has got is not too
    little later, when the disk is full.
    """
    asked = _ask_for_place(file)
    return not asked and mount_of(file.number)[0] in IN_PLACE


def _ask_for_place(file: Descriptor) -> bool:
    """Ask for a file to be written in place. Return True if its file system, also below an overlay, knows this."""
    flags = array.array("l", [0])
    try:
        fcntl.ioctl(file.number, _GET_FLAGS, flags)
        flags[0] |= _NO_COW
        fcntl.ioctl(file.number, _SET_FLAGS, flags)
    except OSError:
        return False
    return True


def hardly_any_room(file: Descriptor) -> OSError | None:
    """Return an error if the file system of a file that is not written in place is nearly full; else None."""
    try:
        state = os.fstatvfs(file.valid())
    except OSError as error:
        return error
    free = state.f_bavail * state.f_frsize
    return OSError(errno.ENOSPC, f"{free:,} bytes are free on its disk") if free < FREE_BYTES else None


class Ready:
    """Prepares the next pages of a map: a disk that refuses them is an error here, not SIGBUS at the first store."""

    __slots__ = ("can",)

    def __init__(self) -> None:
        self.can = True  # the kernel does it

    def make(self, page_map: mmap.mmap, offset: int, end: int) -> None:
        """Prepare the pages from ``offset`` to ``end``.

        Raises:
            OSError: a store into them would end this process.
        """
        if not self.can:
            return
        begin = offset // _PAGE * _PAGE
        try:
            page_map.madvise(_POPULATE_WRITE, begin, min(end, len(page_map)) - begin)
        except OSError as error:
            if error.errno in (errno.EFAULT, errno.EIO):
                raise OSError(errno.EIO, "its disk takes nothing more") from None
            self.can = False  # an older kernel, or no memory at the moment, without which a store waits


class FileWords:
    """The words of a control page that are stored by the system, one by one."""

    __slots__ = ("_file", "_words")

    def __init__(self, file: Descriptor, page: bytes) -> None:
        self._file = file
        self._words = memoryview(bytearray(page)).cast("Q")

    def __getitem__(self, word: Any) -> Any:
        return self._words[word]

    def __setitem__(self, word: int, value: int) -> None:
        """Store a word.

        Raises:
            OSError: the disk does not take it, and it says how far records go. The others can be missed.
        """
        try:
            os.pwrite(self._file.valid(), struct.pack("=Q", value), 8 * word)
        except OSError:
            if word == WORD_COMMIT:
                raise
        self._words[word] = value

    def cast(self, format: str) -> memoryview:
        """As of a memoryview."""
        return self._words.cast(format)  # type: ignore[call-overload, no-any-return]

    def release(self) -> None:
        """As of a memoryview."""
        self._words.release()
