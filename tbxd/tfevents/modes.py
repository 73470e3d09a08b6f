"""The modes of files and folders of a run: those that its trainer would have given them.

The umask belongs to a process, and the daemon writes the runs of many trainers on several threads. So its own is 0
(`take_over`), each place that makes something sets the mode itself, and for a run the trainer's umask is subtracted. In
a folder with a default ACL the kernel subtracts no umask, so none is subtracted here.
"""

from __future__ import annotations

import os

FILE_MODE, FOLDER_MODE = 0o666, 0o777
# An event file says what of a session is written. So nobody writes into one whom its owner has not let in: umask 002
# says that the group may; that all may is never taken to be meant.
EVENT_FILE_MODE = 0o664
_DEFAULT_ACL = "system.posix_acl_default"

_inherited: int | None = None  # of the process, before `take_over`


def take_over() -> None:
    """Set the umask of the process to 0; files for a trainer without a known umask use the previous one. Call it at the
    start of the daemon, before there are threads."""
    global _inherited
    _inherited = os.umask(0)


def mode_in(folder: int | str | os.PathLike[str], mode: int, umask: int | None) -> int:
    """Return the mode for a new file or folder in a folder.

    Args:
        folder: a descriptor of it, or its path.
        mode: `FILE_MODE`, `EVENT_FILE_MODE` or `FOLDER_MODE`.
        umask: the trainer's umask; None if unknown.
    """
    umask = _inherited if umask is None else umask
    if not umask or _has_default_acl(folder):
        return mode
    return mode & ~umask


def _has_default_acl(folder: int | str | os.PathLike[str]) -> bool:
    try:
        os.getxattr(f"/proc/self/fd/{folder}" if isinstance(folder, int) else folder, _DEFAULT_ACL)
    except OSError:  # there is none, or the file system has none
        return False
    return True
