"""Recent files and names in a folder that may not be on its disk yet.

A daemon that is killed between a write and its sync leaves bytes that only the page cache has, and so does one that
leaves a file for another. A daemon that reads these records and takes them for written has to sync them as its own:
otherwise records that it acknowledges because of them are lost with the next power cut. The same holds for the folders
above: a recent name may not be on disk, and everything below it would be lost.

By default the system writes back by itself what is older than half a minute.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from tbxd_client.journal.journal_files import sync_folder

from .event_file import NOT_OURS, FileLost, open_to_read, store_again, sync_data
from .trust import Trust

LATELY_SECONDS = 900.0
# What a sync of a file that is open for reading says where it has to be open for writing, as for servers of SMB.
_TO_WRITE = frozenset((errno.EACCES, errno.EPERM, errno.EBADF))


class Inherited:
    """The data of a folder that this process has not written itself, and has to sync. For one thread at a time."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[int, int]] = {}  # device and inode
        self._failed: set[str] = set()
        self._named = True  # their names are on the disk
        self._above: list[Path] = []

    @property
    def dirty(self) -> bool:
        """True if something may not be on disk."""
        return bool(self._files or not self._named or self._above)

    def note(self, directory: Path, folder: int, names: Iterable[str], believed: Trust) -> None:
        """Note recent files and names.

        Args:
            directory: the folder's path.
            folder: a descriptor of it.
            names: the event files in it.
            believed: decides which of them count.
        """
        since = time.time() - LATELY_SECONDS  # what has a time to come counts, too
        for name in names:
            with contextlib.suppress(OSError):
                state = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if believed.holds(state) and state.st_mtime >= since:
                    self._files[name] = state.st_dev, state.st_ino
                    self._named = False
        device = os.fstat(folder).st_dev
        for above in directory.parents:
            try:
                state = above.stat()
            except OSError:  # not for us to look at, so that nothing was made there for us
                break
            if state.st_dev != device:  # where something is mounted
                break
            if state.st_mtime >= since and above not in self._above:
                self._above.append(above)

    def sync_files(self, folder: int) -> None:
        """Sync the files and their names; before another file refers to their contents, which may be on disk at any
        time.

        Args:
            folder: a descriptor of the folder.

        Raises:
            OSError: the sync fails; the next call continues.
        """
        for name, identity in list(self._files.items()):
            self._sync_file(folder, name, identity)
            del self._files[name]
        if not self._named:  # else the other file's name may be there, and not theirs
            sync_folder(folder)
            self._named = True

    def sync(self, folder: int) -> None:
        """Sync everything.

        Args, raises: as for `sync_files`.
        """
        self.sync_files(folder)
        while self._above:
            try:
                sync_folder(self._above[-1])
            except OSError as error:  # it was removed meanwhile, or may only be passed through: nothing was made for us
                if error.errno not in NOT_OURS:
                    raise
            self._above.pop()

    def _sync_file(self, folder: int, name: str, identity: tuple[int, int]) -> None:
        fd = open_to_read(Path(name), folder)
        if fd < 0:  # it is gone
            return
        try:
            state = os.fstat(fd)
            if (state.st_dev, state.st_ino) != identity or not stat.S_ISREG(state.st_mode):
                return
            if name in self._failed:
                store_again(Path(name), folder, identity, 0, state.st_size)
            _sync(fd, name, folder)
            self._failed.discard(name)
        except FileLost:  # it is not the one that was read
            return
        except OSError:
            self._failed.add(name)
            raise
        finally:
            os.close(fd)


def _sync(fd: int, name: str, folder: int) -> None:
    """Sync a file that is open for reading."""
    try:
        sync_data(fd)
    except OSError as error:
        if error.errno not in _TO_WRITE:
            raise
        try:
            own = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError as refused:  # nobody may write it any more, so nobody can have it synced
            if refused.errno not in NOT_OURS:
                raise
            return
        try:
            sync_data(own)
        finally:
            os.close(own)
