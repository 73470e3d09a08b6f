"""A folder in which this daemon writes event files, one at a time: its lock, and which file is the next.

A run, the extremes beside it and the curves of the node all open their files here. This is the one place that makes a
sink (`event_sink.EventSink`): files that are not local would be made by another class with these methods.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tbxd_client.logdir.event_names import event_files, file_name
from tbxd_client.logdir.folder_lock import FolderHeld, lock_folder

from ..process.fd_budget import LEFT_BY_RUNS, scarce
from . import trust
from .event_file import EventFile
from .folder import NameRefused, open_folder, refuses
from .inherited import Inherited
from .rivals import Rivals, check_alone

log = logging.getLogger(__name__)


class EventFolder:
    """One folder. For one thread at a time; any thread may ask for the properties.

    Args:
        directory: the folder, absolute and without links; made when it is locked first.
        umask: of the trainer for whom files are made, see `modes.mode_in`.
        rivals: what is known of other daemons, where locks may not keep them out; None: locks are trusted.
        can_wait: it leaves the last descriptors of the process to others.
    """

    def __init__(
        self, directory: Path, umask: int | None = None, rivals: Rivals | None = None, can_wait: bool = True
    ) -> None:
        self.directory = directory
        self.umask = umask
        self.descriptor = -1  # of the folder, while it is locked
        self.believed = trust.own()  # whose files count there
        self.inherited = Inherited()  # what others have stored there, and is to be on the disk
        self.file: EventFile | None = None  # that is written, open or parked
        self.made: set[str] = set()  # names of the files made here; one that somebody has removed is not made again
        self.place = (0, 0)  # device and inode of the folder that was locked last,
        self.kept_out: tuple[int, int] | None = None  # and of one that another daemon keeps locked
        self._rivals = rivals
        self._can_wait = can_wait

    @property
    def held(self) -> bool:
        """Whether it is locked."""
        return self.descriptor >= 0

    @property
    def name(self) -> str:
        """The name of the file that is written, or ""."""
        file = self.file
        return file.path.name if file is not None else ""

    @property
    def dirty(self) -> bool:
        """Whether something is written that the disk may not have."""
        file = self.file
        return file is not None and (file.dirty or self.inherited.dirty)

    # --- the lock --------------------------------------------------------------------------------------------

    def lock(self) -> list[str]:
        """Open the folder and lock it; returns the names of the event files in it.

        Raises:
            FolderHeld: another daemon of this user writes it.
            OSError: it cannot be made, opened or listed at this moment.
        """
        if self._can_wait and scarce(LEFT_BY_RUNS):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        fd = open_folder(self.directory, self.umask)
        state = os.fstat(fd)
        place, self.kept_out = (state.st_dev, state.st_ino), None
        try:
            lock_folder(fd, self.name)
            names = event_files(fd)
            self.believed = trust.found(fd, names)
            if self._rivals is not None:
                self._rivals.wait(fd, self.believed, self.name)
                names = event_files(fd)  # a server's list was old before that, maybe
            if self.file is None:
                self.inherited.note(self.directory, fd, names, self.believed)
        except OSError as error:
            os.close(fd)
            self.kept_out = place if isinstance(error, FolderHeld) else None
            raise
        self.descriptor, self.place = fd, place
        return names

    def unlock(self) -> None:
        """Give back the folder's descriptor, and its lock with it."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    # --- its files -------------------------------------------------------------------------------------------

    def take(self) -> list[str]:
        """Go on with the file, which is parked, in the folder that has just been locked. Where that fails all
        descriptors are given back.

        Returns:
            The names of the event files as they are with the file locked; what `lock` has seen may be older.

        Raises:
            FileLost: it is gone, or somebody else keeps it locked.
            FolderHeld: another daemon writes the folder.
            OSError: no descriptor is left.
        """
        assert self.file is not None
        self.file.folder = self.descriptor
        try:
            self.file.take()
            self._see_alone(self.file)
            return event_files(self.descriptor)
        except OSError:
            self.close_file()
            self.unlock()
            raise

    def open_next(
        self, opening: bytes, host: str, pid: int, suffix: str = "", wanted: str = "", now: float | None = None
    ) -> EventFile:
        """Make the next file, which is locked before anybody can see it.

        Args:
            opening: its first events.
            host, pid, suffix: go into its name; the file system may refuse the suffix, and then the host.
            wanted: the name that it has if the file system takes it: a wish of the trainer's, who cannot ask the file
                system where he is on another host. "" for one behind all others.
            now: in seconds since the epoch.

        Raises:
            NameRefused: the file system takes no such name.
            FolderHeld: another daemon writes the folder, which is unlocked then.
            OSError: it cannot be made at this moment.
        """
        now = time.time() if now is None else now
        names = [*event_files(self.descriptor), *self.made]
        file = self._make(wanted or file_name(names, now, host, pid, suffix), _plainer(names, now, host, pid))
        try:
            self._see_alone(file)
        except OSError:
            file.remove()
            self.unlock()
            raise
        self.file = file
        self.made.add(file.path.name)
        file.write(opening)
        return file

    def _make(self, wanted: str, others: Iterator[str]) -> EventFile:
        """A file under the name that is wanted, or the first of the others that the file system takes."""
        name, refused = wanted, None
        while True:
            try:
                file = EventFile(self.directory / name, self.descriptor, self.umask)
            except OSError as error:
                if not refuses(error, self.descriptor):
                    raise
                refused, name = error, next(others, "")
                if not name:
                    raise NameRefused(error.errno, f"its file system takes no file {wanted!r}") from error
                continue
            if refused is not None:
                log.warning("%s: its file system takes no file %r; it is %s", self.directory, wanted, name)
            return file

    def _see_alone(self, file: EventFile) -> None:
        if self._rivals is not None:
            self._rivals.hold(file, self.believed)
        else:
            check_alone(file)

    def is_overtaken(self, names: list[str]) -> bool:
        """Whether a file that counts has come behind the own one, or that is gone.

        Args:
            names: of the event files, as they have just been listed.
        """
        if self.name not in names:
            return True
        states = [trust.state_of(self.descriptor, name) for name in names[names.index(self.name) + 1 :]]
        return any(state is not None and self.believed.holds(state) for state in states)

    def inherit(self, names: list[str]) -> None:
        """The own file is left for another: bring onto the disk what the folder's files hold that count there."""
        self.file = None
        self.inherited.note(self.directory, self.descriptor, names, self.believed)

    def sync(self) -> None:
        """Bring what is written, here and before, onto the disk; the folder is locked.

        Raises:
            FileLost: the file is not there any more.
            OSError: the disk cannot take it; the next call goes on.
        """
        assert self.file is not None
        self.inherited.sync(self.descriptor)
        self.file.sync()

    def park(self) -> None:
        """Give back all descriptors; the next `lock` and `take` go on.

        Raises:
            OSError: as for `EventFile.park`; they are given back all the same.
        """
        assert self.file is not None
        try:
            self.file.park()
        finally:
            self.unlock()

    def close_file(self) -> None:
        """Close the file for good, if there is one; a network disk may say only then that it has not taken all."""
        file = self.file
        if file is None:
            return
        try:
            file.close()
        except OSError as error:
            log.warning("%s: closed with an error: %s", file.path, error.strerror or error)


def _plainer(names: list[str], now: float, host: str, pid: int) -> Iterator[str]:
    """Names without what a file system may refuse, one after the other."""
    yield file_name(names, now, host, pid)
    yield file_name(names, now, "", pid)
