"""Finds the runtime folder among the possible ones: where a daemon runs, or can run."""

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
# Reasons to skip a default place silently: it is not there.
NOT_THERE = frozenset((errno.ENOENT, errno.EROFS, errno.EACCES))
TRIED_BYTES = 16 << 10  # what a daemon writes there at the least: its number, its log


def find_runtime(wanted: Path | None = None) -> Path:
    """Return the runtime folder of a running daemon, or else the first usable one. Nothing is made.

    Args:
        wanted: the configured folder; None takes it from the environment.
    """
    candidates = runtimes(runtime_dir() if wanted is None else wanted)
    for some in _nearest_first(candidates):
        living = (folder for folder in some if _has_daemon(folder))
        usable = (folder for folder in some if may_be_used(folder) and not lock_trouble(folder))
        if found := next(living, None) or next(usable, None):
            return found
    return candidates[0]


def make_runtime(wanted: Path | None = None) -> Path:
    """As `find_runtime`, but make the folder and test that a daemon can be started in it.

    Raises:
        OSError: no folder can be used; the message has the reason for each.
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
    """Yield the folders on this host, then those that may be on the network, where access may hang."""
    here = near(folders)
    yield here
    yield [folder for folder in folders if folder not in here]


def why(folder: Path, error: Exception) -> str:
    """Return an error as text, with its folder."""
    text = (getattr(error, "strerror", None) or str(error)) or type(error).__name__
    return text if str(folder) in text else f"{folder}: {text}"


def leave_spool(spool: Path, wanted: Path) -> None:
    """Remove a spool that replaced the wanted one, if it is empty."""
    if spool != wanted and spool.name.startswith("spool-") and spool in spools(wanted):
        with contextlib.suppress(OSError):
            spool.rmdir()


def _has_daemon(folder: Path) -> bool:
    """Return True if a daemon holds the lock of a folder of this user."""
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
    """Test what a daemon needs of a folder: a lock and room for its files.

    Raises:
        OSError: the folder cannot be used.
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
    """Return an error of ``flock``, other than that the lock is held, with advice."""
    advice = (
        f"its file system has no locks (flock), and a daemon needs one; set {RUNTIME_VARIABLE} to a folder on a local "
        "disk"
        if error.errno in NO_LOCKS
        else f"it cannot be locked; set {RUNTIME_VARIABLE} to another folder"
    )
    return OSError(f"{path}: {error.strerror}: {advice}")


def runtime_trouble(wanted: Path, configured: bool) -> str:
    """Return why no daemon can run in the wanted runtime folder, without a full stop; "" if one can, or if a default
    folder is merely missing.

    Args:
        wanted: the folder.
        configured: the user has configured the folder, so that every reason is reported.
    """
    if trouble := lock_trouble(wanted):
        return trouble
    try:
        _try(private_dir(wanted))
    except OSError as error:
        return why(wanted, error) if configured or error.errno not in NOT_THERE else ""
    return ""


def lock_trouble(folder: Path) -> str:
    """Return why files in a runtime folder cannot be locked; "" if they can, or if it does not exist."""
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
