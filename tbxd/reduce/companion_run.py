"""The runs beside a run whose points several ranks have logged: its extremes, and what else is known of the ranks.

A side is a folder with an event file, as a run is, for all jobs that log into the run. It holds nothing that a session
has to be acknowledged for: it is written before the run itself, so what a kill leaves out here is left out there too,
and is reduced again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path

from tbxd_client.logdir.event_names import event_files, file_name
from tbxd_client.logdir.folder_lock import FolderHeld, lock_folder

from ..tfevents import trust
from ..tfevents.checkpoint import Checkpoints
from ..tfevents.contents import Contents
from ..tfevents.event_builder import note, opening
from ..tfevents.event_file import EventFile, FileLost
from ..tfevents.folder import open_folder
from ..tfevents.inherited import Inherited
from ..tfevents.rank_points import History
from ..tfevents.resume_marks import Life, Resume
from ..tfevents.rivals import check_alone
from .encoder import Curves, PointEncoder
from .purges import Scope

log = logging.getLogger(__name__)


class Side:
    """One folder, and what is to be written there.

    Args:
        directory: it, absolute and without links; made when there is something to write.
        host, pid: go into the event file's name.
        checkpoints: of what folders hold.
        umask: of the trainer, see `modes.mode_in`.
    """

    def __init__(
        self, directory: Path, host: str, pid: int, checkpoints: Checkpoints, umask: int | None = None
    ) -> None:
        self.directory = directory
        self._origin = (host, pid)
        self._checkpoints = checkpoints
        self._file: EventFile | None = None
        self._umask = umask
        self._folder = -1
        self._pieces: list[bytes | memoryview] = []
        self._contents = Contents(directory)
        self._inherited = Inherited()
        self.resume = Resume(self._contents)
        self._generation = ""  # whose points come, as the file says

    def read(self, generation: str) -> History:
        """See what the folder holds of one start of a job, and own it; before anything of it is added.

        Raises:
            OSError: it cannot be read at this moment, or somebody else writes it.
        """
        if not self.directory.is_dir():
            return History()
        self._lock()
        if not self._contents.files:
            self._checkpoints.load(self._contents)
        self.resume.read(self._own)
        return self._contents.reduced.history(generation, ordered=False)

    def add(self, generation: str, pieces: list[bytes | memoryview]) -> None:
        """Take what a start of a job has there."""
        if generation != self._generation:
            self._generation = generation
            self._pieces.append(note("G" + generation))
        self._pieces += pieces

    def look(self) -> bool:
        """See what the folder holds with what was taken; False where there is nothing, or it cannot be seen.

        Raises:
            FileLost: the file is not there any more.
        """
        if not self._pieces and not self.directory.is_dir():
            return False
        try:
            self._lock()
            self.resume.read(self._own, self._pieces)
        except FileLost:
            raise
        except OSError as error:
            log.warning("%s does not go on from an earlier step: %s", self.directory, error)
            return False
        return True

    def write(self) -> None:
        """Write what was taken.

        Raises:
            FileLost: the file is not there any more.
            OSError: the disk does not take it; the next call goes on.
        """
        if not self._pieces and not (self._file is not None and self._file.pending):
            return
        self._open()
        assert self._file is not None
        data = b"".join(self._pieces)
        self._pieces.clear()  # the file owes them from here on
        self._file.write(data)
        self._keep()

    def _keep(self, idle: bool = False) -> None:
        if self._file is not None and self._folder >= 0:
            self._checkpoints.keep(self._contents, self._own, self._file.size, idle)

    def _open(self) -> None:
        self._lock()
        if self._file is None:
            name = file_name(event_files(self._folder), time.time(), *self._origin, "")
            self._file = EventFile(self.directory / name, self._folder, self._umask)
            try:
                check_alone(self._file)
            except OSError:
                self._file.remove()
                self._file = None
                self._unlock()
                raise
            self._file.write(opening(time.time()))

    def _lock(self) -> None:
        if self._folder >= 0:
            return
        fd = open_folder(self.directory, self._umask)
        try:
            lock_folder(fd, self._own)
            names = event_files(fd)
            believed = self._contents.believed = trust.found(fd, names)
            if self._file is None:
                self._inherited.note(self.directory, fd, names, believed)
        except OSError as error:
            os.close(fd)
            if isinstance(error, FolderHeld):
                raise FolderHeld(0, f"{self.directory} is being written by somebody else") from None
            raise
        self._folder = self._contents.folder = fd
        if self._file is not None:
            self._file.folder = fd
            try:
                self._file.take()
                check_alone(self._file)
            except OSError:
                with contextlib.suppress(OSError):
                    self._file.close()
                self._unlock()
                raise
            if self._is_overtaken(event_files(fd), self._file.path.name):
                raise FileLost(0, f"{self.directory}: another process has written here meanwhile")

    @property
    def dirty(self) -> bool:
        """Whether something is written that the disk may not have."""
        file = self._file
        return file is not None and (file.dirty or self._inherited.dirty)

    @property
    def _own(self) -> str:
        return self._file.path.name if self._file is not None else ""

    def _is_overtaken(self, names: list[str], mine: str) -> bool:
        """Whether a file of this user has come behind the side's own; those of others hold nothing that counts."""
        later = names[names.index(mine) + 1 :] if mine in names else [mine]
        for name in later:
            with contextlib.suppress(OSError):
                if not self._contents.believed.holds(os.stat(name, dir_fd=self._folder, follow_symlinks=False)):
                    continue
            return True
        return False

    def sync(self) -> None:
        """Bring what is written onto the disk.

        Raises:
            FileLost: the file is not there any more.
            OSError: the disk cannot take it.
        """
        if self._file is not None and self.dirty:
            self._lock()
            self._inherited.sync(self._folder)
            self._file.sync()

    def park(self) -> None:
        """Give back the descriptors until there is something to write.

        Raises:
            OSError: as for `EventFile.park`; they are given back all the same.
        """
        if self._file is not None and not self._file.pending and not self._pieces:
            self._keep(idle=True)
            try:
                self._file.park()
            finally:
                self._unlock()

    def close(self) -> None:
        """Close for good; a disk that says only now what it has not taken is left to the log."""
        self._keep(idle=True)
        file, self._file = self._file, None
        try:
            if file is not None:
                file.close()
        except OSError as error:
            log.warning("%s: closed with an error: %s", self.directory, error.strerror or error)
        self._unlock()

    def _unlock(self) -> None:
        folder, self._folder = self._folder, -1
        if folder >= 0:
            os.close(folder)


class SideStart:
    """What one start of a job has in a folder.

    Args:
        side: the folder.
        generation: whose points are written, as `starts.generation_of` names it.
    """

    def __init__(self, side: Side, generation: str) -> None:
        self._side, self._generation = side, generation
        self.history = History()  # what the folder holds, as it has been read
        self._encoder = PointEncoder()
        self._life = Life({})  # what earlier starts of the job have here
        self._restarted = 0  # so many restarts of ranks are here
        self._logged: set[str] = set()  # tags that this one has here

    def read(self) -> None:
        """See what the folder holds, and own it; before anything is added.

        Raises:
            OSError: it cannot be read at this moment, or somebody else writes it.
        """
        self.history = self._side.read(self._generation)
        self._restarted = max((restart.number for restart in self.history.restarts), default=0)
        self._logged = {tag for tag, _ in self.history.last}
        earlier = self._side.resume.earlier().items()
        self._life = Life({tag: last for tag, last in earlier if tag not in self._logged})

    def add(self, curves: Curves) -> None:
        """Take points to write; those that the folder holds are passed over."""
        last = self.history.last
        keep = [
            index
            for index, (tag, *place) in enumerate(
                zip(curves.tags, curves.stretches.tolist(), curves.steps.tolist(), strict=True)
            )
            if (known := last.get((tag, False))) is None or tuple(place) > known
        ]
        if len(keep) < len(curves.tags):
            curves = curves.where(keep)
        pieces = self._begin_tags(curves)
        self._logged.update(curves.tags)
        pieces += self._encoder.events(curves)
        if pieces:
            self._side.add(self._generation, pieces)

    def _begin_tags(self, curves: Curves) -> list[bytes | memoryview]:
        """Points of tags come: where an earlier start of the job has gone further in one, it goes on from here."""
        if not self._life:
            return []
        firsts: dict[str, int] = {}
        for tag, step in zip(curves.tags, curves.steps.tolist(), strict=True):
            firsts[tag] = min(step, firsts.get(tag, step))
        end = self._side.resume.end(self._life.cuts(firsts.items()))
        return [end] if end else []

    def meet(self, tag: str, last: int) -> None:
        """Another start of a job with whose work this one goes on has come to a step of a tag."""
        if tag not in self._logged:
            self._life.meet(tag, last)

    def restart(self, step: int, asked: float, scope: Scope, staying: frozenset[bytes] = frozenset()) -> None:
        """All tags go on from a step, if the folder does not have it that they do.

        Args:
            asked: when that was said.
            scope: what it takes.
            staying: lives of whose tags it takes nothing.

        Raises:
            FileLost: the file is not there any more.
        """
        known = scope.restart is not None and scope.restart.number <= self._restarted
        if known or not self._side.look():
            return

        stay = self._side.resume.of(*staying)

        def falls(tag: str, logged: float) -> bool:
            if tag in stay:
                return False
            if tag in self._logged and scope.restart is not None:
                return scope.forget
            return logged <= asked or self._life.has_yet_to_log(tag)

        tags = [tag for tag, logged in self._side.resume.beyond(step).items() if falls(tag, logged)]
        pieces: list[bytes | memoryview] = [self._side.resume.end(dict.fromkeys(tags, step))]
        if scope.restart is not None:
            self._restarted = scope.restart.number
            pieces.append(note(scope.restart.encode()))
        self._side.add(self._generation, pieces)
        self._life.restart(step)
