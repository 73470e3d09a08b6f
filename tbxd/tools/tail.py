"""``tbxd tail``: prints new values of event files, from the files alone."""

from __future__ import annotations

import difflib
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..tfevents import schema
from ..tfevents.discovery import event_folders
from ..tfevents.scalar_parser import Peek, value_of
from ..tfevents.scan import CUT, WHOLE, scan

LOOK_SECONDS = 0.2  # between looks at the files
SEARCH_SECONDS = 1.0  # between looks for files that are new
NAMES_SHOWN = 8  # of what there is, where something else was asked for
TEXT_CHARS = 200  # of a text that are shown
PLUGIN_KINDS = {"text": "text", "pr_curves": "curve", "mesh": "mesh", "hparams": "hparams", "custom_scalars": "layout"}


@dataclass(frozen=True, slots=True)
class Value:
    """One value. ``value`` is a number for a scalar, else a short description."""

    run: str
    tag: str
    step: int
    wall_time: float
    kind: str
    value: float | str


def why_nothing(root: Path) -> tuple[str, bool]:
    """Return why a run has nothing to show, with the names that exist instead, and True if it may still appear.

    A folder may appear if its parent exists. ("", True) if there are event files.
    """
    if root.is_dir():
        if any(names for _, names in event_folders(root)):
            return "", True
        return f"{root}: there are no event files in it or below", True
    if root.exists():
        return f"{root} is a file; name the folder of the run, {root.parent}", False
    link = f" (a link to {root.readlink()})" if root.is_symlink() else ""
    above = next(parent for parent in root.absolute().parents if parent.is_dir())
    names = _folders_in(above)
    if above == root.absolute().parent:
        return f"{root}: no such folder{link}{_there_are(root.name, names, f'; in {root.parent} there')}", True
    first = root.absolute().relative_to(above).parts[0]
    return f"{root}: no such folder, for there is no {above / first}{_there_are(first, names, '; there')}", False


def _folders_in(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []


def _there_are(wanted: str, names: Iterable[str], begin: str) -> str:
    """Return the end of a sentence with the existing names, those similar to the wanted one first."""
    known = sorted(names)
    near = difflib.get_close_matches(wanted, known, NAMES_SHOWN)
    shown = (near + [name for name in known if name not in near])[:NAMES_SHOWN]
    more = f" and {len(known) - len(shown):,} more" if len(known) > len(shown) else ""
    return f"{begin} {'are' if len(known) > 1 else 'is'} {', '.join(shown)}{more}" if known else ""


class _File:
    """One event file and the position up to which it has been read."""

    def __init__(self, run: str, path: Path) -> None:
        self.run = run
        self.path = path
        self.position = 0
        self._size = -1
        self._peek = Peek()

    def values(self, wanted: Callable[[str], bool], damaged: Callable[[Path, int], None]) -> Iterator[Value]:
        """Yield the values since the last call."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return  # removed meanwhile
        try:
            state = os.fstat(fd)
            if state.st_size == self._size or not stat.S_ISREG(state.st_mode):
                return
            self._size = state.st_size
            if state.st_size < self.position:
                self.position = 0  # another file under its name
            for what, start, end, data in scan(
                lambda position, length: os.pread(fd, length, position), state.st_size, self.position
            ):
                if what == CUT:
                    return  # its rest comes
                if what != WHOLE:
                    damaged(self.path, start)
                    if end == state.st_size:
                        return  # what comes may be whole
                self.position = end
                if what == WHOLE:
                    yield from self._of_record(data, wanted)
        finally:
            os.close(fd)

    def _of_record(self, data: bytes, wanted: Callable[[str], bool]) -> Iterator[Value]:
        scalar = self._peek.scalar(data)
        if scalar is not None:
            tag, step, wall_time, end = scalar
            if wanted(tag):
                yield Value(self.run, tag, step, wall_time, "scalar", value_of(data, end))
            return
        event = self._peek.event(data)
        if event is None:
            return
        for value in event.summary.value:
            if wanted(value.tag):
                kind, shown = _of_value(value)
                if kind:
                    yield Value(self.run, value.tag, event.step, event.wall_time, kind, shown)


def _of_value(value: Any) -> tuple[str, float | str]:
    """Return the kind of a value, and its number or a short description."""
    kind = value.WhichOneof("value")
    if kind == "simple_value":
        return "scalar", float(value.simple_value)
    if kind == "image":
        return "image", f"{value.image.width} by {value.image.height}"
    if kind == "audio":
        return "audio", f"{value.audio.length_frames} frames"
    if kind == "histo":
        histogram = value.histo
        return "histogram", f"{histogram.num:g} values, {histogram.min:.6g} to {histogram.max:.6g}"
    if kind != "tensor":
        return "" if kind in (None, schema.END_KIND) else kind, ""
    return _of_tensor(value.metadata.plugin_data.plugin_name, value.tensor)


def _of_tensor(plugin: str, tensor: Any) -> tuple[str, float | str]:
    if tensor.string_val and plugin in ("text", ""):
        text = bytes(tensor.string_val[0]).decode("utf-8", "replace")
        return "text", text if len(text) <= TEXT_CHARS else text[:TEXT_CHARS] + "…"
    if len(tensor.float_val) == 1 and not tensor.tensor_shape.dim:
        return "scalar", float(tensor.float_val[0])
    shape = " by ".join(str(size.size) for size in tensor.tensor_shape.dim)
    return PLUGIN_KINDS.get(plugin, "tensor"), shape


class Tail:
    """Follows the runs in a folder and below.

    Args:
        root: a run, or a folder of runs.
        tags: patterns in the manner of `fnmatch`; none are all.
        damaged: called once with the file and position of each damaged stretch.
    """

    def __init__(self, root: Path, tags: tuple[str, ...], damaged: Callable[[Path, int], None]) -> None:
        self._root = root
        self._patterns = tags
        self._damaged = damaged
        self._known: dict[str, bool] = {}  # tag to whether it is wanted
        self._files: dict[Path, _File] = {}
        self._told: set[tuple[Path, int]] = set()
        self._next_search = 0.0

    def last(self, count: int) -> list[Value]:
        """Return the last ``count`` existing values of each tag of each run, in the order of wall times."""
        kept: dict[tuple[str, str], deque[Value]] = {}
        for value in self.new():
            kept.setdefault((value.run, value.tag), deque(maxlen=count)).append(value)
        return sorted((value for values in kept.values() for value in values), key=lambda value: value.wall_time)

    def new(self) -> Iterator[Value]:
        """Yield the values since the last call, file by file."""
        now = time.monotonic()
        if now >= self._next_search:
            self._next_search = now + SEARCH_SECONDS
            self._search()
        for file in list(self._files.values()):
            yield from file.values(self._wanted, self._tell)

    def without_a_tag(self) -> list[str]:
        """Return a line for each pattern that no tag has matched so far, with the existing tags."""
        return [
            f"no tag fits {pattern!r}{_there_are(pattern, self._known, '; there')}"
            for pattern in self._patterns
            if self._known and not any(fnmatchcase(tag, pattern) for tag in self._known)
        ]

    def _search(self) -> None:
        found = [folder / name for folder, names in event_folders(self._root) for name in names]
        for path in found:
            if path not in self._files:
                name = str(path.parent.relative_to(self._root))
                self._files[path] = _File("" if name == "." else name, path)
        gone = self._files.keys() - set(found)
        for path in gone:
            del self._files[path]

    def _wanted(self, tag: str) -> bool:
        wanted = self._known.get(tag)
        if wanted is None:
            wanted = not self._patterns or any(fnmatchcase(tag, pattern) for pattern in self._patterns)
            self._known[tag] = wanted
        return wanted

    def _tell(self, path: Path, position: int) -> None:
        if (path, position) not in self._told:
            self._told.add((path, position))
            self._damaged(path, position)
