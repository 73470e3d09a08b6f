"""Folders by their descriptors, so that files are made in the intended folder even if its path changes.

A trainer names the folder of a run with all links followed. If it has become a link since, or a link leads to it now,
it is another folder, which no trainer has asked for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

from .modes import FOLDER_MODE, mode_in

_LOOK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_USE = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


NEVER = frozenset((errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG))  # of making a folder: its name is refused


class NameRefused(OSError):
    """The file system never accepts a folder of this name."""


def open_folder(path: Path, umask: int | None = None) -> int:
    """Open a folder and return its descriptor; missing folders are made.

    Args:
        path: absolute, and without links.
        umask: the trainer's umask, see `modes.mode_in`.

    Raises:
        OSError: the folder cannot be made or opened, or there is a link on the way to it (ELOOP).
    """
    # Mostly it is there, and one descriptor will do, where each may be the last.
    with contextlib.suppress(OSError):
        fd = os.open(path, _USE)
        try:
            if Path(f"/proc/self/fd/{fd}").readlink() == path:
                return fd
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
    held = os.open("/", _LOOK)
    try:
        *above, last = path.parts[1:] or ["."]
        for name in above:
            held, before = open_below(held, name, umask, _LOOK), held
            os.close(before)
        return open_below(held, last, umask)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(
                errno.ELOOP, f"{path} is not the folder it was: {error.filename!r} in it is a link now; put it back"
            ) from error
        raise
    finally:
        os.close(held)


def refuses(error: OSError, folder: int) -> bool:
    """Return True if an error means that the file system refuses the name itself, for ever.

    The exFAT of FUSE reports ENOENT; a folder that was removed meanwhile has no links.
    """
    return error.errno in NEVER or (error.errno == errno.ENOENT and os.fstat(folder).st_nlink > 0)


def open_below(folder: int, name: str, umask: int | None = None, flags: int = _USE) -> int:
    """Open a folder in another and return its descriptor; make it if missing.

    Raises:
        NameRefused: the file system refuses its name.
        OSError: the folder cannot be made or opened, or is a link (ELOOP).
    """
    try:
        return os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        try:
            os.mkdir(name, mode_in(folder, FOLDER_MODE, umask), dir_fd=folder)
        except FileExistsError:  # made by somebody else meanwhile
            pass
        except OSError as error:
            if refuses(error, folder):
                raise NameRefused(error.errno, f"its file system takes no folder {name!r}") from error
            raise
        return os.open(name, flags, dir_fd=folder)
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name) from None
        raise
