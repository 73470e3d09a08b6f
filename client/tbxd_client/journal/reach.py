"""Checks that a journal is still where it was made: somebody may empty or rename the spool, mount something over it, or
its disk may end, while the trainer lives.

What was logged before stays readable through what is open. What comes later goes into another journal: one that no
daemon finds would be lost with its trainer.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable

from ..process.descriptors import Descriptor
from .journal_files import LOOK_OFFSET

# What a disk says that has no place for this process any more, in which waiting would not help. A disk that is full is
# none of them: it has room again when records are written.
GONE = frozenset(
    (
        errno.EACCES,  # another user's now: setuid, seteuid
        errno.EPERM,
        errno.EIO,  # the disk has failed, or the file system has shut down
        errno.ENODEV,
        errno.ENXIO,
        errno.ENOENT,  # removed, renamed
        errno.ENOTDIR,
        errno.ELOOP,
        errno.ENOTCONN,  # of FUSE, whose process has ended
        errno.EREMOTEIO,
        errno.EROFS,
        errno.ESHUTDOWN,
        errno.ESTALE,  # of NFS: removed on another host
        errno.EUCLEAN,  # the file system finds itself damaged
    )
)


def root() -> tuple[int, int]:
    """Return the identity of this process's "/": after a chroot, earlier paths say nothing."""
    state = os.stat("/")  # noqa: PTH116 - without objects: it is asked ten times a second
    return state.st_dev, state.st_ino


def trouble(
    control: Descriptor, sizes: Iterable[tuple[Descriptor, int]], made_under: tuple[int, int]
) -> OSError | None:
    """Return why a journal cannot be used any more; None if it can. About 10 µs, without the interpreter's lock.

    Args:
        control: its control page.
        sizes: its files, and how many bytes each has to have.
        made_under: the `root` under which it was made.
    """
    try:
        for file, size in sizes:
            state = os.fstat(file.number)
            if not file.is_of(state):
                return None  # the program has closed it; it is opened again when it is used
            if not state.st_nlink:
                return OSError(errno.ENOENT, "its files were removed")
            if state.st_size < size:
                return OSError(errno.ESTALE, f"one of its files was cut to {state.st_size:,} bytes")
        if control.path is not None and root() == made_under:
            state = os.stat(control.path, follow_symlinks=False)  # noqa: PTH116
            if not stat.S_ISREG(state.st_mode) or not control.is_of(state):
                return OSError(errno.ESTALE, "another folder is in its place")
        # A file system that has shut down, or became read-only, takes no store any more: a store through a map would
        # end this process. So it is asked in another way, again and again.
        os.pwrite(control.valid(), bytes(8), LOOK_OFFSET)
    except OSError as error:
        # With another effective user the path may be closed to this process for a while, and the files are still open.
        return error if error.errno in GONE and error.errno not in (errno.EACCES, errno.EPERM) else None
    return None


def is_found(control: Descriptor, made_under: tuple[int, int]) -> bool:
    """Return True if others find a journal under its path, as far as this process can know."""
    try:
        return root() != made_under or (control.path is not None and control.is_of(os.stat(control.path)))  # noqa: PTH116
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EPERM)  # it is another user's than this one, and there
