"""Event files whose ledger counts: this user's own, which not everybody may write.

In a folder that several users may write, anybody can put a file that names another user's session as written.
TensorBoard shows such a file, but its ledger does not count.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterable
from typing import NamedTuple


class Trust(NamedTuple):
    """The conditions for the ledger of an event file to count.

    ``owner``: its uid; ``modes``: the file system keeps modes, so that a file that everybody may write does not count.
    (On other file systems, all files have the same mode.)
    """

    owner: int
    modes: bool = True

    def holds(self, state: os.stat_result) -> bool:
        """Return True if the ledger of a file with this state counts."""
        return (
            stat.S_ISREG(state.st_mode)
            and state.st_uid == self.owner
            and not (self.modes and state.st_mode & stat.S_IWOTH)
        )


def own() -> Trust:
    """Return the conditions for this user's files, without knowledge of the file system."""
    return Trust(os.geteuid())


def found(folder: int, names: Iterable[str]) -> Trust:
    """Return the conditions for files with these names in a folder, given by a descriptor.

    If one of them is not as this user's files should be, the file system may have owners or modes of its own (vfat,
    CIFS, NFS for root): a temporary file shows the owner and mode of this user's files there.
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
    """Return the stat of a name in a folder, without following links; None if it fails."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None
