"""Steps for records that have none: the one behind the last of their tag in the run.

TensorBoard's fast loader deletes what stands at or behind a step that comes back (``docs/EVENT_FILE.md``), so where
several processes count one tag together, only who writes the file can count.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tbxd_client.event_names import event_files
from tbxd_client.records import STEP_MAX

from . import schema
from .file import read_events


class Steps:
    """The last step of each tag of a run, as the event files of its folder have them.

    Args:
        directory: the folder. All its event files are read, once.
        folder: a descriptor of it, which is used instead where it is given.
    """

    def __init__(self, directory: Path, folder: int | None = None) -> None:
        self._last: dict[str, int] = {}
        for name in event_files(directory if folder is None else folder):
            for event in read_events(directory / name, folder):
                if event.session_log.status == schema.SESSION_START:
                    self.restart(event.step)
                for value in event.summary.value:
                    if value.HasField(schema.END_KIND):
                        self.restart(event.step, (value.tag,))
                    else:
                        self.note(value.tag, event.step)

    def next(self, tags: Iterable[str]) -> int:
        """The step of an event with these tags: behind the last of each, from 0 on."""
        names = list(tags)
        step = min(max((self._last.get(name, -1) for name in names), default=-1) + 1, STEP_MAX)
        for name in names:
            self._last[name] = step
        return step

    def note(self, tag: str, step: int) -> None:
        """An event has a step of its own."""
        if step > self._last.get(tag, -1):
            self._last[tag] = step

    def restart(self, step: int, tags: Iterable[str] | None = None) -> None:
        """The run, or some of its tags, go on from ``step``: what stood at or behind it is forgotten."""
        for tag in list(self._last) if tags is None else tags:
            if tag in self._last:
                self._last[tag] = min(self._last[tag], step - 1)
