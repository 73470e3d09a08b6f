"""Which of the folders where a daemon may be is the one: where it runs, or where it can."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ..process.descriptors import open_file
from .paths import RUNTIME_VARIABLE, lock_path, may_be_used, near, private_dir, runtime_dir, runtimes, spools

LAUNCH_LOCK = "launch.lock"
# Of flock: where a file system has none (NFS or Lustre mounted so, some of FUSE, some containers).
NO_LOCKS = frozenset((errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL))
# Why one of several places that nobody has configured is passed over without a word: it is not there.
NOT_THERE = frozenset((errno.ENOENT, errno.EROFS, errno.EACCES))
TRIED_BYTES = 16 << 10  # what a daemon writes there at the least: its number, its log


def find_runtime(wanted: Path | None = None) -> Path:
    """The runtime folder: that of a daemon that lives, or else the first that can be used. Nothing is made.

    Args:
        wanted: the folder that is configured; None as it is in the environment.
    """
    candidates = runtimes(runtime_dir() if wanted is None else wanted)
    for some in _nearest_first(candidates):
        living = (folder for folder in some if _has_daemon(folder))
        usable = (folder for folder in some if may_be_used(folder) and not lock_trouble(folder))
        if found := next(living, None) or next(usable, None):
            return found
    return candidates[0]


def make_runtime(wanted: Path | None = None) -> Path:
    """As `find_runtime`, made and tried: a daemon can be started in it.

    Raises:
        OSError: in none of them; the message says of each why.
    """
    reasons = []
    for some in _nearest_first(runtimes(runtime_dir() if wanted is None else wanted)):
        for folder in some:
            if _has_daemon(folder):
                return folder
        for folder in some:
            try:
                _try(private_dir(folder))
            except OSError as error:
                reasons.append(why(folder, error))
            else:
                return folder
    raise OSError(f"no folder for the daemon's socket and lock: {'; '.join(reasons)}")


def _nearest_first(folders: list[Path]) -> Iterator[list[Path]]:
    """Those on this host, and then those that may be on the network, where a look may take for ever."""
    here = near(folders)
    yield here
    yield [folder for folder in folders if folder not in here]


def why(folder: Path, error: Exception) -> str:
    """An error with the folder that it is about."""
    text = (getattr(error, "strerror", None) or str(error)) or type(error).__name__
    return text if str(folder) in text else f"{folder}: {text}"


def leave_spool(spool: Path, wanted: Path) -> None:
    """Remove a spool that stood in for the one that was wanted, if there is nothing in it."""
    if spool != wanted and spool.name.startswith("spool-") and spool in spools(wanted):
        with contextlib.suppress(OSError):
            spool.rmdir()


def _has_daemon(folder: Path) -> bool:
    """Whether somebody holds the lock of a folder of this user's."""
    try:
        if folder.lstat().st_uid != os.getuid():
            return False
        file = open_file(lock_path(folder), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a child closes it
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there are no locks here, and so no daemon
        return False
    finally:
        file.close()
    return False


def _try(folder: Path) -> None:
    """Do what a daemon needs.

    Raises:
        OSError: it cannot be done.
    """
    file = open_file(folder / LAUNCH_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_UN)
    except BlockingIOError:
        return  # somebody starts a daemon there
    finally:
        file.close()
    path = folder / f".try-{os.urandom(6).hex()}"
    file = open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
    try:
        os.posix_fallocate(file.number, 0, TRIED_BYTES)
    finally:
        file.close()
        path.unlink(missing_ok=True)


def lock_error(path: Path, error: OSError) -> OSError:
    """An error of ``flock`` other than that somebody else has the lock, as one that says what to do."""
    advice = (
        f"its file system has no locks (flock), and a daemon needs one; set {RUNTIME_VARIABLE} to a folder on a local "
        "disk"
        if error.errno in NO_LOCKS
        else f"it cannot be locked; set {RUNTIME_VARIABLE} to another folder"
    )
    return OSError(f"{path}: {error.strerror}: {advice}")


def runtime_trouble(wanted: Path, configured: bool) -> str:
    """Why no daemon can run in the runtime folder that was wanted, as a sentence without its end; "" where one can, or
    where nobody has to know.

    Args:
        wanted: the folder.
        configured: somebody has named it, and so wants to know.
    """
    if trouble := lock_trouble(wanted):
        return trouble
    try:
        _try(private_dir(wanted))
    except OSError as error:
        return why(wanted, error) if configured or error.errno not in NOT_THERE else ""
    return ""


def lock_trouble(folder: Path) -> str:
    """Why no daemon can run in a runtime folder that is there, because nothing in it can be locked; "" where it can."""
    try:
        file = open_file(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return ""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return ""
    except OSError as error:
        return str(lock_error(folder, error))
    finally:
        file.close()
    return ""
