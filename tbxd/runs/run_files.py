"""The folder of a run and its event files: owned, read, gone on with, and given back.

What a run's records become and how far they are is another matter (`record_encoder`, `run_writer`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tbxd_client.logdir.event_names import event_files, file_name, is_acceptable
from tbxd_client.protocol.records import RunDefinition

from ..tfevents.checkpoint import Checkpoints
from ..tfevents.contents import Contents
from ..tfevents.event_builder import event_record, opening
from ..tfevents.event_file import FileLost
from ..tfevents.event_folder import EventFolder
from ..tfevents.ledger import Ledger, carry_over
from .other_users import Others

SYNC_ERROR = "fsync: "  # what an error begins with that the next sync may end


class RunFiles:
    """Those of one run. For one thread at a time; any thread may ask for ``folder``'s properties.

    Args:
        directory: the run's folder, absolute and without links.
        checkpoints: of what folders hold.
    """

    def __init__(self, directory: Path, checkpoints: Checkpoints) -> None:
        self.others = Others(directory)  # who write the folder as well
        self.folder = EventFolder(directory, rivals=self.others.rivals)
        self.read = Contents(directory)  # what the folder's files hold, as far as it had to be known
        self._directory = directory
        self._checkpoints = checkpoints

    @property
    def contents(self) -> Contents:
        """What the folder's files hold at this moment.

        Raises:
            OSError: one of them cannot be read at this moment.
        """
        self.read.update(self.folder.name)
        return self.read

    def own(self, run: RunDefinition | None, take_up: Callable[[], None]) -> None:
        """Lock the folder and see what is in it, if it is not held anyway.

        Args:
            run: as whoever logs next defines it; None: it is owned for the sake of what is written already.
            take_up: called where no file is gone on with, when the folder's files can be read: `contents`.

        Raises:
            FileLost: the run has to go on in another file.
            FolderHeld: another daemon writes it.
            OSError: it cannot be seen at this moment what is there. The folder is given back then.
        """
        folder = self.folder
        if folder.held:
            self.others.rivals.look(folder.descriptor, folder.believed, folder.name)
            return
        names = folder.lock()
        self.read.folder, self.read.believed = folder.descriptor, folder.believed
        try:
            if folder.file is not None:
                self._go_on(run)
            else:
                self.see_others(names)
                self._checkpoints.load(self.read)
                take_up()
        except BaseException:  # what is in the folder is not known: the next attempt has to look again
            folder.close_file()
            folder.unlock()
            raise

    def _go_on(self, run: RunDefinition | None) -> None:
        """Take the file that had been parked."""
        folder = self.folder
        assert folder.file is not None
        names = folder.take()
        self.see_others(names)
        if self._is_overtaken(names):
            raise FileLost(0, "another process has written here meanwhile")
        # The trainer has seen that nobody writes here. A file that the disk has yet to take stays until it has.
        if run is not None and not folder.file.dirty and self._accepts(run, names):
            folder.close_file()
            folder.file = None

    def open_next(self, run: RunDefinition, ledger: Ledger) -> None:
        """Make the next file of the folder, which is held.

        Args:
            run: as whoever logs next defines it.
            ledger: what the folder's files hold.

        Raises:
            NameRefused, FolderHeld, OSError: as for `EventFolder.open_next`.
        """
        wanted = run.file_name if self._accepts(run, event_files(self.folder.descriptor)) else ""
        first = opening(time.time(), self.others.rivals.mark)
        earlier = b"".join(event_record(0, time.time(), text) for text in carry_over(ledger))
        self.folder.open_next(first + earlier, run.host, run.pid, run.filename_suffix, wanted)

    def _accepts(self, run: RunDefinition, names: list[str]) -> bool:
        """Whether a new file may have the name that a trainer has told its user already."""
        wanted, suffix = run.file_name, run.filename_suffix.replace("/", "_")
        return wanted not in self.folder.made and is_acceptable(wanted, suffix, names, time.time())

    def _is_overtaken(self, names: list[str]) -> bool:
        """Whether the run has to go on in a new file: where one of this user's has come behind its own, whose ledger
        counts, and where that of another user can be overtaken, so that readers of the newest file see the run."""
        own = self.folder.name
        if self.folder.is_overtaken(names):
            return True
        return names[-1] > own and file_name(names, time.time(), "host", 0) > names[-1]

    def see_others(self, names: list[str] | None = None) -> None:
        """Note who writes the folder as well.

        Args:
            names: of the event files, where they have just been listed.

        Raises:
            OSError: the folder cannot be listed at this moment.
        """
        self.others.see(self.folder.descriptor, self.folder.believed, self.folder.name, names)

    def keep(self, idle: bool = False) -> None:
        """Now and then, keep what the folder holds for the daemon that comes next."""
        file = self.folder.file
        if file is not None and self.folder.held:
            self._checkpoints.keep(self.read, self.folder.name, file.size, idle)

    def sync_inherited(self) -> None:
        """Bring onto the disk what earlier writers have left in the folder, before a new file says what it is.

        Raises:
            OSError: the disk cannot take it.
        """
        with syncing():
            self.folder.inherited.sync_files(self.folder.descriptor)

    def leave(self) -> Path | None:
        """Leave a file that is lost; the folder stays locked. Returns where the file is, if somebody has moved it."""
        folder, moved = self.folder, None
        if folder.file is not None:
            moved = folder.file.moved_to()
            with contextlib.suppress(OSError):  # what it holds counts as written; the next look at it says so, too
                if folder.held:
                    folder.file.sync()
            folder.close_file()
            folder.file = None
        self.read = Contents(self._directory)
        return moved

    def close(self) -> None:
        """Close the file, and give the folder back."""
        self.folder.close_file()
        self.folder.unlock()


@contextlib.contextmanager
def syncing() -> Iterator[None]:
    """Says of what the disk refuses that a sync has found it."""
    try:
        yield
    except FileLost:
        raise
    except OSError as error:
        raise OSError(error.errno, f"{SYNC_ERROR}{error.strerror or error}") from error
