"""The node's curves beside one run: a folder below it with event files of its own, which only this daemon writes.

They are not part of the run itself. Their steps are seconds, and in a run that continues from an earlier step
(``purge_step``) TensorBoard's slow loader would delete points at larger steps. They are notes of the daemon
(``docs/EVENT_FILE.md``), not records: no ledger contains them, and a sample that cannot be written is left out.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tbxd_client.logdir.event_names import event_files, first_second
from tbxd_client.logdir.folder_lock import FolderHeld
from tbxd_client.protocol.records import STEP_MAX

from ..tfevents import schema
from ..tfevents.event_builder import event_record, opening
from ..tfevents.event_file import FileLost, open_to_read
from ..tfevents.event_folder import EventFolder
from ..tfevents.event_sink import EventSink
from ..tfevents.ledger import CARRY_END, notes
from ..tfevents.scan import WHOLE, scan
from ..tfevents.trust import Trust

FOLDER = "system"  # below the run's; in it one for each node
TAGS = "system/"  # what the tags begin with, so that TensorBoard has all of them in one group
TAIL_BYTES = 1 << 20  # of the last file, in which its last event is looked for


class Curves:
    """Writes the samples of one run on this node. For one thread at a time; it never raises for disk errors.

    Args:
        run: the run's folder, absolute and without links.
        node: this machine's name.
        umask: the trainer's umask, see `modes.mode_in`.
        durable: sync each sample to disk at once; else with `sync`.

    ``error`` is the error of the last sample, ``left_out`` the number of samples that were not written.
    """

    def __init__(self, run: Path, node: str, umask: int | None = None, durable: bool = False) -> None:
        self.directory = run / FOLDER / (re.sub(r"[^\w.-]", "_", node)[:255].strip(".") or "localhost")
        self.error = ""
        self.left_out = 0
        self._run = run
        self._node = node
        self._durable = durable
        self._unsynced = ""  # what keeps what is written from the disk
        self._folder = EventFolder(self.directory, umask)
        self._origin = 0  # seconds since the epoch at which the steps begin
        self._last = -1  # step

    def write(self, values: Mapping[str, float], seconds: float) -> None:
        """Write a sample.

        Args:
            values: name to value.
            seconds: its wall time, seconds since the epoch.
        """
        owed = False
        try:
            file = self._open(seconds)
            if file.pending:  # of the last sample, which the disk took in part
                file.write(b"")
            disk = os.fstatvfs(self._folder.descriptor)
            if disk.f_blocks:  # as df does: of what this user may have
                used = disk.f_blocks - disk.f_bfree
                values = {**values, "disk_used_percent": 100 * used / max(1, used + disk.f_bavail)}
            self._last = min(max(self._last + 1, int(seconds) - self._origin), STEP_MAX)
            event = _event(values, self._last, seconds)
            owed = True
            file.write(event)
            self.error = self._unsynced
            if self._durable:
                self.sync()
        except FileLost as error:  # somebody has removed it; a new one with the next sample
            self._let_go()
            self.error = str(error)
            self.left_out += 1
        except OSError as error:
            self.error = f"{error.strerror or error}"
            self.left_out += not owed

    def _open(self, seconds: float) -> EventSink:
        folder = self._folder
        if folder.file is not None and folder.held:
            return folder.file
        above = event_files(self._run)  # a folder that is gone is not made again for this
        try:
            names = folder.lock()
        except FolderHeld:
            raise FolderHeld(0, "another tbxd daemon is writing this node's curves") from None
        if folder.file is not None and folder.name == max(names, default=""):
            folder.take()
            return folder.file  # it goes on in it, if nobody has changed it: see `EventFile`
        try:
            if folder.file is not None:
                folder.inherit(names)
            begun = [first_second(listed) for listed in (above, names)]
            self._origin = min([int(seconds), *(second for second in begun if second is not None)])
            self._last = max(self._last, _last_step(names, folder.descriptor, folder.believed))
            return folder.open_next(_opening(seconds), self._node, os.getpid(), now=seconds)
        except OSError:
            if folder.file is None:  # else it is made, and owes its first events
                folder.unlock()
            raise

    @property
    def dirty(self) -> bool:
        """True if written data may not be on disk yet. Any thread may ask."""
        return self._folder.dirty

    def sync(self) -> None:
        """Sync written data to disk, while the file is open; after an error the next call tries again."""
        if self._folder.file is None or not self._folder.held:
            return
        try:
            self._folder.sync()
            unsynced = ""
        except FileLost as error:
            self._let_go()
            unsynced = str(error)
        except OSError as error:
            unsynced = f"fsync: {error.strerror or error}"
        if unsynced or self.error == self._unsynced:
            self.error = unsynced
        self._unsynced = unsynced if self._folder.file is not None else ""

    def _let_go(self) -> None:
        file, self._folder.file = self._folder.file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:  # as NFS does where it could not take everything
                self.error = f"{error.strerror or error}"
        self._folder.unlock()

    def close(self) -> None:
        """Sync and close the file until the next sample, which continues the same file."""
        file = self._folder.file
        if file is not None and self._folder.held:
            self.sync()
            if self._folder.file is None:
                return
            if file.pending:
                self._let_go()
                return
            try:
                file.park()
            except OSError as error:  # as NFS does where it could not take everything
                self.error = f"{error.strerror or error}"
        self._folder.unlock()


def _opening(seconds: float) -> bytes:
    return opening(seconds) + event_record(0, seconds, CARRY_END)


def _event(values: Mapping[str, float], step: int, seconds: float) -> bytes:
    points = [schema.Summary.Value(tag=TAGS + name, simple_value=value) for name, value in values.items()]
    return event_record(step, seconds, notes({})[0], summary=schema.Summary(value=points))


def _pread(fd: int, position: int, length: int) -> bytes:
    return os.pread(fd, length, position)


def _last_step(names: list[str], folder: int, believed: Trust) -> int:
    """Return the last step in the event files of a folder, from their ends alone; -1 if there is none."""
    for name in reversed(names):
        fd = open_to_read(Path(name), folder, believed)
        if fd < 0:
            continue
        try:
            size = os.fstat(fd).st_size
            steps = [-1]
            for what, _, _, data in scan(partial(_pread, fd), size, max(0, size - TAIL_BYTES)):
                with contextlib.suppress(schema.DecodeError):
                    if what == WHOLE:
                        event = schema.Event()
                        event.ParseFromString(data)
                        if event.HasField("summary"):
                            steps.append(event.step)
            if len(steps) > 1:
                return max(steps)
        finally:
            os.close(fd)
    return -1
