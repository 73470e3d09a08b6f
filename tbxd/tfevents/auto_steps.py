"""Steps for records without one: the step after the last of their tag in the run.

TensorBoard's fast loader deletes points at or after a repeated step (``docs/EVENT_FILE.md``), so if several processes
count one tag together, only the writer of the file can count.
"""

from __future__ import annotations

from collections.abc import Iterable

from tbxd_client.protocol.records import STEP_MAX

from .contents import Contents
from .tag_steps import COUNTED_FROM


class Steps:
    """The last step of each tag of a run, from the event files of its folder.

    Args:
        contents: the present contents of the folder.
    """

    def __init__(self, contents: Contents) -> None:
        tags = contents.tags
        counted = zip(tags.names, tags.counted, strict=True)
        self._last: dict[str, int] = {name: step for name, step in counted if step != COUNTED_FROM}

    def next(self, tags: Iterable[str]) -> int:
        """Return the step of an event with these tags: after the last of each, from 0 on."""
        names = list(tags)
        step = min(max((self._last.get(name, -1) for name in names), default=-1) + 1, STEP_MAX)
        for name in names:
            self._last[name] = step
        return step

    def note(self, tag: str, step: int) -> None:
        """Note an event with a step of its own."""
        if step > self._last.get(tag, -1):
            self._last[tag] = step

    def restart(self, step: int, tags: Iterable[str] | None = None) -> None:
        """Continue the run, or some of its tags, from ``step``: points at or after it are forgotten."""
        for tag in list(self._last) if tags is None else tags:
            if tag in self._last:
                self._last[tag] = min(self._last[tag], step - 1)
