"""The runs beside a run of several ranks: its extremes, and further statistics of the ranks.

A side is a folder with an event file, as a run is, for all jobs that log into the run. It holds nothing that a session
has to be acknowledged for: it is written before the run itself, so what a kill leaves out here is left out there too,
and is reduced again.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from tbxd_client.logdir.folder_lock import FolderHeld

from ..tfevents.checkpoint import Checkpoints
from ..tfevents.contents import Contents
from ..tfevents.event_builder import note, opening
from ..tfevents.event_file import FileLost
from ..tfevents.event_folder import EventFolder
from ..tfevents.rank_points import History
from ..tfevents.resume_marks import Life, Resume
from .encoder import Curves, PointEncoder
from .purges import Scope

log = logging.getLogger(__name__)


class Side:
    """One folder, and the points to write there.

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
        self._folder = EventFolder(directory, umask, can_wait=False)
        self._pieces: list[bytes | memoryview] = []
        self._contents = Contents(directory)
        self.resume = Resume(self._contents)
        self._generation = ""  # whose points come, as the file says

    def read(self, generation: str) -> History:
        """Read the points of one start of a job in the folder, and lock it; before any are added.

        Raises:
            OSError: it cannot be read at this moment, or somebody else writes it.
        """
        if not self.directory.is_dir():
            return History()
        self._lock()
        if not self._contents.files:
            self._checkpoints.load(self._contents)
        self.resume.read(self._folder.name)
        return self._contents.reduced.history(generation, ordered=False)

    def add(self, generation: str, pieces: list[bytes | memoryview]) -> None:
        """Take the events of a start of a job."""
        if generation != self._generation:
            self._generation = generation
            self._pieces.append(note("G" + generation))
        self._pieces += pieces

    def look(self) -> bool:
        """Read the folder's contents with the taken events; return False if there are none, or they cannot be read.

        Raises:
            FileLost: the file is not there any more.
        """
        if not self._pieces and not self.directory.is_dir():
            return False
        try:
            self._lock()
            self.resume.read(self._folder.name, self._pieces)
        except FileLost:
            raise
        except OSError as error:
            log.warning("%s does not go on from an earlier step: %s", self.directory, error)
            return False
        return True

    def write(self) -> None:
        """Write the taken events.

        Raises:
            FileLost: the file is not there any more.
            OSError: the disk does not take it; the next call goes on.
        """
        file = self._folder.file
        if not self._pieces and not (file is not None and file.pending):
            return
        self._lock()
        if file is None:
            file = self._folder.open_next(opening(time.time()), *self._origin)
        data = b"".join(self._pieces)
        self._pieces.clear()  # the file owes them from here on
        file.write(data)
        self._keep()

    def _keep(self, idle: bool = False) -> None:
        folder = self._folder
        if folder.file is not None and folder.held:
            self._checkpoints.keep(self._contents, folder.name, folder.file.size, idle)

    def _lock(self) -> None:
        folder = self._folder
        if folder.held:
            return
        try:
            folder.lock()
        except FolderHeld:
            raise FolderHeld(0, f"{self.directory} is being written by somebody else") from None
        self._contents.folder, self._contents.believed = folder.descriptor, folder.believed
        if folder.file is None:
            return
        if folder.is_overtaken(folder.take()):
            raise FileLost(0, f"{self.directory}: another process has written here meanwhile")

    @property
    def dirty(self) -> bool:
        """True if written data may not be on disk."""
        return self._folder.dirty

    def sync(self) -> None:
        """Sync written data to disk.

        Raises:
            FileLost: the file is not there any more.
            OSError: the disk cannot take it.
        """
        if self.dirty:
            self._lock()
            self._folder.sync()

    def park(self) -> None:
        """Close the descriptors until there is something to write.

        Raises:
            OSError: as for `EventFile.park`; they are given back all the same.
        """
        file = self._folder.file
        if file is not None and not file.pending and not self._pieces:
            self._keep(idle=True)
            self._folder.park()

    def close(self) -> None:
        """Close for good; errors are only logged."""
        self._keep(idle=True)
        self._folder.close_file()
        self._folder.file = None
        self._folder.unlock()


class SideStart:
    """The points of one start of a job in a folder.

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
        """Read the folder's points, and lock it; before any are added.

        Raises:
            OSError: it cannot be read at this moment, or somebody else writes it.
        """
        self.history = self._side.read(self._generation)
        self._restarted = max((restart.number for restart in self.history.restarts), default=0)
        self._logged = {tag for tag, _ in self.history.last}
        earlier = self._side.resume.earlier().items()
        self._life = Life({tag: last for tag, last in earlier if tag not in self._logged})

    def add(self, curves: Curves) -> None:
        """Take points to write; those that the folder has already are skipped."""
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
        """End the tags in which an earlier start of the job has gone further, before their first points."""
        if not self._life:
            return []
        firsts: dict[str, int] = {}
        for tag, step in zip(curves.tags, curves.steps.tolist(), strict=True):
            firsts[tag] = min(step, firsts.get(tag, step))
        end = self._side.resume.end(self._life.cuts(firsts.items()))
        return [end] if end else []

    def meet(self, tag: str, last: int) -> None:
        """Note the last step of a tag of another start of a job, which this one continues."""
        if tag not in self._logged:
            self._life.meet(tag, last)

    def restart(self, step: int, asked: float, scope: Scope, staying: frozenset[bytes] = frozenset()) -> None:
        """Continue all tags from a step, unless the folder has this restart already.

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
