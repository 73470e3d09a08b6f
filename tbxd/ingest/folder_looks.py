"""Whether a folder that a client logs to is the one that is seen here under the same path.

A client in another mount namespace, or under another root, sees other files. Its folder is compared by device and
inode, on a thread that may wait for the disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tbxd_client.process.view import view

from ..process.serial_queue import Strand
from ..process.walls import Walls
from .client import Client, Seen


class FolderLooks:
    """Looks at folders of clients that see other files.

    Args:
        strand: makes a queue for jobs that wait for the disk; given what is told of an error there.
        seen: takes what a look has found, on a thread of the pool.
        walls: is told what breaks.
    """

    def __init__(
        self, strand: Callable[[Callable[[BaseException], object]], Strand], seen: Callable[[Seen], None], walls: Walls
    ) -> None:
        self.view = view()  # the files that this daemon sees
        self._strand = strand
        self._seen = seen
        self._walls = walls

    def look(self, client: Client, known: int) -> None:
        """Look at the folders of a client's runs, where it sees other files. It is undecided until all are seen.

        Args:
            client: which.
            known: so many of its runs were looked at before.
        """
        for run in client.session.runs[known:]:
            if run is not None and run.folder is not None and run.view != self.view:
                client.undecided += 1
                broke = partial(self._walls.broke, "the look at a folder", whose=run.directory)
                self._strand(broke).submit(partial(self._see, client, run.above or run.directory, run.folder))

    def _see(self, client: Client, directory: str, folder: tuple[int, int]) -> None:  # on a thread of the pool
        same = False  # also where the look itself breaks: another daemon looks then, and nobody waits for ever
        try:
            state = Path(directory).stat()
            # Behind a link it would be a folder that nobody has named here.
            same = (state.st_dev, state.st_ino) == folder and os.path.realpath(directory) == directory
        except (OSError, ValueError):
            pass
        finally:
            self._seen(Seen(client, directory, same))
