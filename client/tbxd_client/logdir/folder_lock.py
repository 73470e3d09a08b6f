"""The lock of a log folder: one daemon of this user writes it. The lock leaves nothing in the folder.

A daemon locks the folder itself (``flock``), as daemons and trainers have always done. But every process that may read
the folder can hold that lock. So it keeps a daemon away only if another process of this user holds it. A daemon also
locks the event file that it writes (`lock_file`), with a lock that requires the right to write the file (``fcntl``, a
write lock). NFS shares that lock between hosts, and ``flock`` not.

The locked byte is far after the end of the file, because some file systems keep others from reading locked bytes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import time
from pathlib import Path

from ..process.descriptors import open_file, uncut

HELD = "another tbxd daemon is writing this folder"
FLOCK_TRIES, FLOCK_SECONDS = 5, 0.002  # a trainer that asks whether the folder is held holds it for a moment
# So many event files are asked for a lock, of the last by name and of those that were changed last: who writes a folder
# writes one of them, whatever others have put there.
LOOKED_AT = 4
_FLOCK = struct.Struct("hhqqi4x")  # struct flock: type, whence, start, length, pid (fcntl(2))
_BYTE = 1 << 62


class FolderHeld(OSError):
    """Another daemon of this user writes the folder."""


def lock_folder(folder: int, own: str = "") -> None:
    """Lock a folder, given by a descriptor, until that is closed.

    If a process of another user holds that lock, only `lock_file` keeps daemons apart.

    Args:
        folder: the descriptor.
        own: the name of the event file that this process continues and no other writes.

    Raises:
        FolderHeld: another daemon of this user writes the folder.
        OSError: no descriptor is left.
    """
    if _is_flocked(folder):
        raise FolderHeld(0, HELD)
    if is_file_locked(folder, own):
        fcntl.flock(folder, fcntl.LOCK_UN)
        raise FolderHeld(0, HELD)


def _is_flocked(folder: int) -> bool:
    """Try to take the lock of the folder itself; return True if another process of this user holds it."""
    for attempt in range(FLOCK_TRIES):
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            if attempt < FLOCK_TRIES - 1:
                time.sleep(FLOCK_SECONDS)
        except OSError:  # a file system without locks: go on as the only one we know of
            return False
    return _is_held_by_user(folder)


def lock_file(fd: int) -> int:
    """Lock an event file, open for writing, until its descriptor is closed.

    Returns:
        0 if it is locked. EAGAIN if another process holds a lock, which every reader of the file can do: the caller
        then writes another file, and locks it before others can open it. Otherwise the error of a file system without
        locks.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, _BYTE, 1, 0))
    except OSError as error:
        return errno.EAGAIN if error.errno == errno.EACCES else error.errno or errno.ENOLCK
    return 0


def is_file_locked(folder: int, but: str = "", owner: int | None = None) -> bool:
    """Return True if a daemon of this user has locked an event file in a folder. The query takes no lock.

    Args:
        folder: a descriptor of the folder.
        but: the name of the caller's own file.
        owner: the uid of this user's files there; None is that of this process.
    """
    for name in _newest(folder, but, os.geteuid() if owner is None else owner):
        try:
            if _is_locked(folder, name):
                return True
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
    return False


def _newest(folder: int, but: str, owner: int) -> list[str]:
    """Return the event files of a user that a daemon may be writing: the last by name and by time of change."""
    changed = {}
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if "tfevents" in entry.name]
    for name in names:
        try:
            state = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            continue
        if name != but and stat.S_ISREG(state.st_mode) and state.st_uid == owner:
            changed[name] = state.st_mtime_ns
    by_name = sorted(changed, reverse=True)
    return list(dict.fromkeys((*by_name[:LOOKED_AT], *sorted(by_name, key=changed.__getitem__)[-LOOKED_AT:])))


def _is_locked(folder: int, name: str) -> bool:
    with uncut:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        try:
            # Whether a read lock could be had: who has one, as every reader may, is not in its way.
            asked = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, _BYTE, 1, 0))
            return bool(_FLOCK.unpack(asked)[0] != fcntl.F_UNLCK)
        finally:
            os.close(fd)


def is_held(directory: str | os.PathLike[str]) -> bool:
    """Return True if a daemon of this user writes a folder at this moment."""
    try:
        file = open_file(Path(directory), os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_UN)
        return is_file_locked(file.number)
    except BlockingIOError:
        return _is_held_by_user(file.number) or is_file_locked(file.number)
    except OSError:  # a file system without locks
        return False
    finally:
        file.close()


def _is_held_by_user(folder: int) -> bool:
    """Return True if ``/proc`` shows a process of this user that holds the flock of the folder."""
    return any(_uid_of(pid) == os.geteuid() for pid in flock_holders(os.fstat(folder).st_ino))


def flock_holders(inode: int) -> list[int]:
    """Return the processes that hold an flock on a file with this inode, as far as /proc shows them."""
    found = []
    try:
        with open("/proc/locks", encoding="ascii", errors="replace") as lines:
            for line in lines:
                # 1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF, and with "->" behind the number who waits for it
                fields = line.split()
                # Without the device: some file systems have another one here than stat() tells.
                if len(fields) > 5 and fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(inode):
                    found.append(int(fields[4]))
    except (OSError, ValueError):
        return found
    return found


def _uid_of(pid: int) -> int:
    """Return the effective uid of a process; -1 if unknown."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as lines:
            return next((int(line.split()[2]) for line in lines if line.startswith("Uid:")), -1)
    except (OSError, ValueError, IndexError):
        return -1
