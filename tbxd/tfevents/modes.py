"""The modes of what is made for a run: those that its trainer would have given it.

The umask belongs to a process, and the daemon writes the runs of many trainers on several threads. So its own is 0
(`take_over`), each place that makes something says the mode itself, and that of a run has the trainer's umask taken
off. Where the folder has a default ACL the kernel takes no umask off, so none is taken off here.
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
    """Let the process have no umask; what is made for a trainer that says none has the one that it had. At the start
    of the daemon, before there are threads."""
    global _inherited
    _inherited = os.umask(0)


def mode_in(folder: int | str | os.PathLike[str], mode: int, umask: int | None) -> int:
    """The mode with which something is to be made in a folder.

    Args:
        folder: a descriptor of it, or its path.
        mode: `FILE_MODE`, `EVENT_FILE_MODE` or `FOLDER_MODE`.
        umask: of the trainer; None where it does not say.
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
