"""Other daemons of this user in a folder: excluded by the lock of the event file, or detected by their files.

A daemon first takes the lock of its event file, and then looks for others, in a fresh list of the folder: of two that
start at once on two hosts at least one sees the other, and tries again.

If locks do not work, or may not hold between hosts (`mounts.doubt`), files decide: one that another daemon of this user
has made, and that grows, is being written. A new daemon waits until it has not grown for a while. A daemon that is
there already and finds a newer file leaves the folder to its daemon, because readers follow the newest file. On a disk
of this host, where the lock of the folder (`flock`) is enough, files are not looked at.

Whatever a file system does between hosts, its locks hold between the processes of one system that see it through one
superblock: the kernel keeps them (fs/locks.c), also if it asks a server as well (9p, fs/9p/vfs_file.c) or stacks on
another file system without asking it (ecryptfs, whose file operations have no lock). So a file there names the system
and the superblock that wrote it (`mark_of`). A file written through the daemon's own superblock and not locked belongs
to a daemon that has ended or released it: no daemon waits for it, as after a restart.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from pathlib import Path

from tbxd_client.journal.journal_files import NO_BOOT, boot_id
from tbxd_client.logdir.event_names import event_files
from tbxd_client.logdir.folder_lock import HELD, FolderHeld, is_file_locked

from . import mounts
from .event_file import EventFile, FileLost, open_to_read
from .ledger import OPENING
from .trust import Trust, state_of

log = logging.getLogger(__name__)

QUIET_SECONDS = (
    10.0  # without a change before a file is one that nobody writes; a run is closed after 5 without records
)
LOOK_SECONDS = 4.0  # between two looks while the folder is written
LOOKED_AT = 16  # files at a time, the last by name
OPENING_BYTES = 128  # of a file, in which it says whose it is
_told: set[int] = set()  # devices of which it has been said that locks do not hold there


def mark_of(device: int) -> str:
    """Return the mark of files written through a superblock of this system, given by its device; "" if the system is
    unknown. It is unique, and reveals nothing else of either."""
    boot = boot_id()
    if boot == NO_BOOT:
        return ""
    return f" at {hashlib.sha256(boot + device.to_bytes(8, 'big')).hexdigest()[:16]}"


def check_alone(file: EventFile) -> None:
    """Check that no other daemon writes a folder, after locking the own file.

    Raises:
        FolderHeld: another daemon writes it.
        OSError: no descriptor is left.
    """
    assert file.folder is not None
    mounts.refresh(file.folder)
    # What this user's files look like there: on a server that takes root for nobody, say.
    if is_file_locked(file.folder, file.path.name, os.fstat(file.number).st_uid):
        raise FolderHeld(0, HELD)


class Rivals:
    """The other daemons in one folder.

    Args:
        directory: the folder.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.doubt = ""  # why locks may keep nobody out; "" where they do
        self.mark = ""  # what a new file says of who writes it
        self._device, self._local = -1, True  # of the folder; that no other host writes there
        self._locks = True  # there are some
        self._near: set[str] = set()  # files that were written through this system's superblock
        self._files: dict[str, tuple[int, int]] = {}  # size and time of change of files of other daemons
        self._changed: dict[str, float] = {}  # when they were seen to change, by the monotonic clock
        self._before: dict[str, tuple[int, int]] = {}  # the files when the folder was opened
        self._next_look = 0.0

    def wait(self, folder: int, believed: Trust, own: str) -> None:
        """Look for other daemons in a folder that has just been opened, before anything in it is read.

        Args:
            folder: a descriptor of it.
            believed: decides which files count.
            own: the name of the event file that this process continues; empty if it has none.

        Raises:
            FolderHeld: locks may exclude nobody, and another daemon's file has changed a moment ago.
            OSError: no descriptor is left.
        """
        device = os.fstat(folder).st_dev
        if device != self._device:
            self._device, self.doubt = device, ""
            self._local, self._locks = mounts.is_here(folder), True
            self.mark = "" if self._local else mark_of(device)
        if self._local:
            return
        names = self._others(folder, believed, own)
        self._before = dict(self._files)
        self._wait(names)

    def hold(self, file: EventFile, believed: Trust) -> None:
        """Check that the folder is this daemon's own, with its event file open and locked.

        Raises:
            FolderHeld: another daemon writes it, or has since `wait`: the contents read are old.
            OSError: no descriptor is left.
        """
        check_alone(file)
        if self._local:
            return
        assert file.folder is not None
        self._judge(file)
        names = self._others(file.folder, believed, file.path.name)
        for name in names:
            if self._files[name] != self._before.get(name):
                raise FolderHeld(0, f"{HELD}: {name} has just been written")
        self._wait(names)

    def look(self, folder: int, believed: Trust, own: str) -> None:
        """Check now and then, while the folder is written, for a newer daemon.

        Raises:
            FileLost: another daemon has a newer file; leave the folder to it.
            OSError: no descriptor is left.
        """
        if not self.doubt or time.monotonic() < self._next_look:
            return
        for name in self._others(folder, believed, own):
            if name > own and self._is_written(name):
                raise FileLost(0, self._text(name))

    def _judge(self, file: EventFile) -> None:
        self._locks = not file.unlocked
        if file.unlocked:
            self.doubt = f"locks do not work there ({os.strerror(file.unlocked)})"
        else:
            self.doubt = mounts.doubt(file.number)
        if self.doubt and self._device not in _told:
            _told.add(self._device)
            log.warning(
                "%s: %s. A daemon on another host that writes the same folder is noticed by its event file alone, "
                "within %.0f s, and one that begins waits until another's file has not changed for %.0f s. To do: log "
                "from one host to a folder, or mount it with locks",
                self._directory,
                self.doubt,
                LOOK_SECONDS,
                QUIET_SECONDS,
            )

    def _wait(self, names: list[str]) -> None:
        for name in names:
            if self.doubt and self._is_written(name):
                raise FolderHeld(0, self._text(name))

    def _is_written(self, name: str) -> bool:
        if self._locks and name in self._near:
            return False  # its lock would have told
        return time.monotonic() - self._changed[name] < QUIET_SECONDS

    def _text(self, name: str) -> str:
        return f"{HELD}: {name} grows, and {self.doubt}"

    def _others(self, folder: int, believed: Trust, own: str) -> list[str]:
        """Return the last files of other daemons of this user, and note their times of change."""
        now = time.monotonic()
        self._next_look = now + LOOK_SECONDS
        mounts.refresh(folder)
        found = []
        for name in event_files(folder)[-LOOKED_AT:]:
            state = state_of(folder, name)
            if name == own or state is None or not believed.holds(state):
                continue
            seen, known = (state.st_size, state.st_mtime_ns), self._files.get(name)
            if known != seen:
                first = known is None
                if (known is None or not known[0]) and not self._is_ours(folder, name):
                    continue
                self._files[name] = seen
                # One that has been there is new when it has just been written; clocks of hosts differ.
                old = first and abs(time.time() - state.st_mtime) > QUIET_SECONDS
                self._changed[name] = now - QUIET_SECONDS if old else now
            found.append(name)
        return found

    def _is_ours(self, folder: int, name: str) -> bool:
        """Return True if a daemon of tbxd has made a file, or may have: it is still empty."""
        fd = open_to_read(self._directory / name, folder)
        if fd < 0:
            return False
        try:
            head = os.pread(fd, OPENING_BYTES, 0)
            if self.mark and self.mark.encode() in head:
                self._near.add(name)
            return not head or OPENING.encode() in head
        finally:
            os.close(fd)
