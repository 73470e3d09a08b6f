"""Steps for records that have none: the one behind the last of their tag in the run.

TensorBoard's fast loader deletes what stands at or behind a step that comes back (``docs/EVENT_FILE.md``), so where
several processes count one tag together, only who writes the file can count.
"""

from __future__ import annotations

from collections.abc import Iterable

from tbxd_client.protocol.records import STEP_MAX

from .contents import Contents
from .tag_steps import COUNTED_FROM


class Steps:
    """The last step of each tag of a run, as the event files of its folder have them.

    Args:
        contents: of the folder, as they are now.
    """

    def __init__(self, contents: Contents) -> None:
        tags = contents.tags
        counted = zip(tags.names, tags.counted, strict=True)
        self._last: dict[str, int] = {name: step for name, step in counted if step != COUNTED_FROM}

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
