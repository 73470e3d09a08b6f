"""Whose event files are believed where they say what is written: this user's own, which not everybody may write into.

In a folder that several users may write, anybody can put a file that names a session of somebody else and says that all
of it is written. TensorBoard shows such a file, but nothing in it counts.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterable
from typing import NamedTuple


class Trust(NamedTuple):
    """What an event file has to be to be believed.

    ``owner``: the uid that it belongs to; ``modes``: whether the file system keeps modes, so that one that everybody
    may write is not believed. (Where it does not, all files have the same mode.)
    """

    owner: int
    modes: bool = True

    def holds(self, state: os.stat_result) -> bool:
        """Whether a file with this state is believed."""
        return (
            stat.S_ISREG(state.st_mode)
            and state.st_uid == self.owner
            and not (self.modes and state.st_mode & stat.S_IWOTH)
        )


def own() -> Trust:
    """That of this user's files, where nothing else is known of the file system."""
    return Trust(os.geteuid())


def found(folder: int, names: Iterable[str]) -> Trust:
    """That of the files with these names in a folder, given by a descriptor.

    Where one of them is not as this user's files should be, the file system may have owners or modes of its own (vfat,
    CIFS, NFS for root): a file is made for a moment to see what this user's files are like there.
    """
    usual = own()
    if all(state is None or usual.holds(state) for state in (state_of(folder, name) for name in names)):
        return usual
    probe = f".tbxd-{secrets.token_hex(8)}"
    try:
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    except OSError:
        return usual
    try:
        state = os.fstat(fd)
    finally:
        os.close(fd)
        with contextlib.suppress(OSError):
            os.unlink(probe, dir_fd=folder)
    return Trust(state.st_uid, not state.st_mode & stat.S_IWOTH)


def state_of(folder: int, name: str) -> os.stat_result | None:
    """What a name in a folder is, without following links; None where it is not to be had."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None
