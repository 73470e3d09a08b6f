"""Event files on disk: their names, writing them whole record by whole record, and what is in a folder already.

Three rules, from how TensorBoard reads (``docs/EVENT_FILE.md``): one file of a folder is written at a time; a new
file's name sorts behind every other; a file that another process left behind is never touched again, because a reader
may have buffered its cut tail.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from pathlib import Path

from tbxd_client.journal.journal_files import sync_folder
from tbxd_client.logdir.folder_lock import lock_file

from . import mounts
from .modes import EVENT_FILE_MODE, mode_in
from .trust import Trust

log = logging.getLogger(__name__)

# What opening a file says that is gone, or is none that this user has written: a link, a socket, somebody else's.
NOT_OURS = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENODEV))

COPY_BYTES = 1 << 20  # stored again at a time
# What a server does not take the system throws away: so much that was written and not synced is kept in memory for each
# file on one, to be stored again; more is synced first.
KEPT_BYTES = 4 << 20
# What a sync says where a file system has none; else nothing would be written there, or no more than the first records.
NO_SYNC = frozenset((errno.EINVAL, errno.ENOTSUP, errno.ENOSYS))
_told: set[int] = set()  # devices of which it has been said that they have none
WORTH_BYTES = 64 << 10  # a file that may grow no further is left for the next from here on; below, files would be many


class FileLost(OSError):
    """The file cannot be gone on with: removed, replaced or cut by somebody else, or as large as one may be."""


def open_to_read(path: Path, folder: int | None = None, believed: Trust | None = None) -> int:
    """A descriptor of a file; -1 where it is no file, may not be read, or is not believed.

    Args:
        path: the file.
        folder: a descriptor of the folder it is in.
        believed: what it has to be; None: whoever's it is.

    Raises:
        OSError: it cannot be opened at this moment.
    """
    try:
        fd = _open(path, folder, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno not in NOT_OURS:
            raise  # no descriptor left, say: what is in it would be written again
        return -1
    state = os.fstat(fd)
    if not stat.S_ISREG(state.st_mode) or not (believed is None or believed.holds(state)):
        os.close(fd)
        return -1
    return fd


def _open(path: Path, folder: int | None, flags: int, mode: int = 0) -> int:
    """Open a file of a folder, following no link."""
    return os.open(path if folder is None else path.name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode, dir_fd=folder)


def sync_data(fd: int) -> None:
    """Bring what is in a file onto the disk; a file system that has no sync does that by itself, or not at all.

    Raises:
        OSError: the disk cannot take it.
    """
    try:
        os.fdatasync(fd)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
        device = os.fstat(fd).st_dev
        if device not in _told:
            _told.add(device)
            log.warning(
                "%s: its file system cannot sync files (%s); it stores records on the disk when it likes",
                Path(f"/proc/self/fd/{fd}").readlink(),
                error.strerror,
            )


def store_again(
    path: Path, folder: int | None, identity: tuple[int, int], begin: int, end: int, kept: bytearray | None = None
) -> None:
    """Store the same bytes where they stand, which no reader can notice: after a sync that failed.

    Args:
        path: of the file.
        folder: a descriptor of the folder it is in.
        identity: its device and inode.
        begin, end: of the bytes.
        kept: they, where the file may have them no more.

    Raises:
        FileLost: it is another file, or was cut.
        OSError: the disk cannot take them.
    """
    fd = _open(path, folder, os.O_RDWR)  # O_APPEND would move every pwrite to the end
    try:
        state = os.fstat(fd)
        if (state.st_dev, state.st_ino) != identity:
            raise FileLost(0, f"{path} was replaced by somebody else")
        first = begin
        while begin < end:
            if kept is None:
                stretch = os.pread(fd, min(COPY_BYTES, end - begin), begin)
            else:
                stretch = bytes(kept[begin - first : begin - first + COPY_BYTES])
            if not stretch:
                raise FileLost(0, f"{path} was cut by somebody else")
            begin += os.pwrite(fd, stretch, begin)
        if kept is not None:
            sync_data(fd)
    finally:
        os.close(fd)


class EventFile:
    """One event file, open for writing by this process alone.

    A write that the disk takes only in part is gone on with by the next: the bytes that are missing are kept here, so
    that a reader never sees anything but a file that grows.
    """

    def __init__(self, path: Path, folder: int | None = None, umask: int | None = None) -> None:
        """Create the file.

        Args:
            path: where it is.
            folder: a descriptor of the folder it is in, in which it is made and opened; see `folder`.
            umask: of the trainer whose run it is, see `modes.mode_in`.

        Raises:
            FileLost: somebody else has locked it in the very moment in which it was made.
            OSError: it exists, or cannot be made.
        """
        self.path = path
        self.folder = folder  # whoever gives it closes it, and gives another before the next call
        self.size = 0
        self._rest = b""
        self.dirty = False  # written since the last sync
        self._synced = 0  # bytes that are on the disk for certain
        self._sync_failed = False
        self._kept: bytearray | None = None  # what is behind `_synced`, where the disk is a server's
        self._named = False  # its name is on the disk
        mode = mode_in(path.parent if folder is None else folder, EVENT_FILE_MODE, umask)
        self._fd = _open(path, folder, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, mode)
        state = os.fstat(self._fd)
        self._identity = (state.st_dev, state.st_ino)
        self._home = (path.parent.stat() if folder is None else os.fstat(folder)).st_ino
        if not mounts.is_here(self._fd):
            self._kept = bytearray()
        self.unlocked = 0  # what its file system says that has no locks; 0: it is locked
        try:
            self._lock()  # whoever opens it from now on comes too late to keep this process from that
        except FileLost:
            self.remove()
            raise

    def _lock(self) -> None:
        refused = lock_file(self._fd)
        if refused == errno.EAGAIN:
            raise FileLost(refused, f"{self.path} is locked by somebody else")
        self.unlocked = refused

    @property
    def number(self) -> int:
        """Its descriptor; -1 while it is parked."""
        return self._fd

    @property
    def pending(self) -> bool:
        """Whether the disk still owes a part of an earlier write."""
        return bool(self._rest)

    def settle(self) -> None:
        """Store again what a server has not taken: until it has, the file is shorter than it is said to be.

        Raises:
            FileLost: the file is not there any more.
            OSError: the server takes nothing yet.
        """
        if self._kept is not None and (self._sync_failed or len(self._kept) >= KEPT_BYTES):
            self.sync()

    def write(self, data: bytes) -> None:
        """Append whole records.

        Raises:
            FileLost: the file is not there any more, and nothing was written; or it is as large as a file may be
                (`ulimit -f`, vfat), and what was written of ``data`` is there.
            OSError: the disk takes no more. What is missing is written first by the next call; until then the
                records count as not written.
        """
        rest = self._rest = self._rest + data if self._rest else data  # first: whatever fails, they are owed
        self.settle()
        self._check()
        view = memoryview(rest)
        try:
            while view:
                written = os.write(self._fd, view)
                self.size += written
                self.dirty = True
                if self._kept is not None:
                    self._kept += view[:written]
                view = view[written:]
        except OSError as error:
            if error.errno != errno.EFBIG or self.size < WORTH_BYTES:
                raise
            with contextlib.suppress(OSError):
                self.sync()
            raise FileLost(error.errno, f"{self.path} may not grow any more, another file goes on") from error
        finally:
            self._rest = bytes(view)

    def take(self) -> None:
        """Open and lock it again, where it is parked.

        Raises:
            FileLost: it is gone, or somebody else keeps it locked.
            OSError: no descriptor is left.
        """
        if self._fd >= 0:
            return
        try:
            self._fd = _open(self.path, self.folder, os.O_WRONLY | os.O_APPEND)
        except OSError as error:
            if error.errno not in NOT_OURS:
                raise  # no descriptor left, say: it is there, and to be gone on with
            raise FileLost(error.errno, f"{self.path} is gone") from error
        self._lock()

    def _check(self) -> None:
        self.take()
        try:
            state = self.path.lstat()
        except OSError as error:
            raise FileLost(error.errno, f"{self.path} is gone") from error
        thrown_away = self._kept is not None and self._sync_failed and self._synced <= state.st_size <= self.size
        if (state.st_dev, state.st_ino) != self._identity or (state.st_size != self.size and not thrown_away):
            raise FileLost(0, f"{self.path} was replaced or changed by somebody else")

    def moved_to(self) -> Path | None:
        """Where it is, whole, if somebody has moved it, or its folder to another name; None where it is not, or that is
        not known: of a file that is parked the folder is looked for beside where it was."""
        try:
            if self._fd >= 0:
                found = [Path(f"/proc/self/fd/{self._fd}").readlink()]
            else:
                above = self.path.parent.parent
                with os.scandir(above) as entries:
                    found = [above / entry.name / self.path.name for entry in entries if entry.inode() == self._home]
            for path in found:
                state = path.lstat()
                if path != self.path and (state.st_dev, state.st_ino, state.st_size) == (*self._identity, self.size):
                    return path
        except OSError:
            pass
        return None

    def sync(self) -> None:
        """Bring what was written onto the disk.

        After an fdatasync that failed Linux takes the pages for clean, and the next one would succeed with nothing
        done. So the same bytes are first stored once more where they stand, which no reader can notice. Where the disk
        is a server's they are not there any more, but here.

        Raises:
            OSError: the disk cannot take it.
        """
        if not self.dirty:
            return
        try:
            if self._fd < 0:  # parked before the disk had it
                self._check()
            if self._sync_failed:
                self._store_again()
            sync_data(self._fd)
            if not self._named:
                sync_folder(self.path.parent if self.folder is None else self.folder)
        except OSError:
            self._sync_failed = True
            raise
        self._sync_failed = self.dirty = False
        self._named = True
        self._synced = self.size
        if self._kept:
            self._kept = bytearray()

    def _store_again(self) -> None:
        self._check()
        store_again(self.path, self.folder, self._identity, self._synced, self.size, self._kept)

    def park(self) -> None:
        """Give back the descriptor; the next write or sync opens the file again.

        Raises:
            OSError: the disk says only now that it has not taken everything, as NFS does; the next sync stores it
                again.
        """
        if not self._rest:
            self.close()

    def remove(self) -> None:
        """Close for good, and let it not have been there."""
        with contextlib.suppress(OSError):
            if self._fd >= 0 and not self.size:
                os.unlink(self.path if self.folder is None else self.path.name, dir_fd=self.folder)
        self.close()

    def close(self) -> None:
        """Close for good.

        Raises:
            OSError: as for `park`. It is closed all the same.
        """
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            os.close(fd)
        except OSError:
            # Of what was written since which sync it does not say.
            self._sync_failed = self.dirty = True
            raise
