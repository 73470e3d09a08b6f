"""What others do in the folder of a run: it keeps nothing from being written, but may from being shown.

Other daemons of this user, which are kept out or waited for, are another matter (`events.rivals`).
"""

from __future__ import annotations

import logging
import stat
import time
from pathlib import Path

from tbxd_client.logdir.event_names import event_files

from ..tfevents.rivals import Rivals
from ..tfevents.trust import Trust, state_of

log = logging.getLogger(__name__)

NOTICE_SECONDS = 4.0  # between looks whether another user writes the folder as well


class Others:
    """Who writes the folder of a run as well.

    Args:
        directory: the folder.
    """

    def __init__(self, directory: Path) -> None:
        self.notice = ""  # what has to be known of them, for `tbxd status`
        self.rivals = Rivals(directory)
        self._directory = directory
        self._sizes: dict[str, int] = {}  # of the event files of other users
        self._next = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is time for another look."""
        return time.monotonic() >= self._next

    def see(self, folder: int, believed: Trust, own: str, names: list[str] | None = None) -> None:
        """Note what others do.

        Args:
            folder: a descriptor of the folder.
            believed: whose files count there.
            own: the name of the event file that is written; empty where there is none.
            names: those of the folder's event files, where they have just been listed.

        Raises:
            OSError: the folder cannot be listed at this moment.
        """
        names = event_files(folder) if names is None else names
        self._next = time.monotonic() + NOTICE_SECONDS
        sizes: dict[str, int] = {}
        users: dict[int, str] = {}
        open_to_all = ""
        for name in names:
            state = state_of(folder, name)
            if state is None or not stat.S_ISREG(state.st_mode) or believed.holds(state):
                continue
            if state.st_uid == believed.owner:
                open_to_all = name
            else:
                sizes[name] = state.st_size
                users[state.st_uid] = name
        growing = [name for name, size in sizes.items() if self._sizes.get(name, size) != size]
        self._sizes = sizes
        notes = []
        if growing:
            notes.append(
                f"somebody else writes {growing[-1]} here as well; TensorBoard's slow loader follows the newest file "
                "only: log to a folder of your own"
            )
        elif own and names and names[-1] > own and names[-1] in sizes:
            notes.append(
                f"{names[-1]} of another user has a name behind which none fits: TensorBoard's slow loader does not "
                "follow this run; remove that file, or log to another folder"
            )
        if users:
            notes.append(
                f"event files of other users (uid {', '.join(map(str, sorted(users)))}) are shown with it; what they "
                "say is written does not count"
            )
        if open_to_all:
            notes.append(f"everybody may write {open_to_all}, so what it says is written does not count: chmod o-w it")
        notice = "; ".join(notes)
        if notice and notice != self.notice:
            log.warning("%s: %s", self._directory, notice)
        self.notice = notice
