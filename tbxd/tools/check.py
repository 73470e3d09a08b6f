"""``tbxd check``: event files, record by record, and how TensorBoard shows them.

The behaviour of its two loaders was measured with TensorBoard 2.21 and its data server 0.7 (``docs/EVENT_FILE.md``),
and ``tests/process/test_check.py`` compares with the real ones. The check predicts the fast loader (the default) point
by point, for a TensorBoard that is started now. It keeps only a few numbers for each tag.
"""

from __future__ import annotations

import contextlib
import math
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from ..tfevents import schema
from ..tfevents.discovery import event_folders, folder_of
from ..tfevents.ledger import NOTE
from ..tfevents.lineage import UNKNOWN, Lineage, is_after, session_beside
from ..tfevents.loader_model import Kept
from ..tfevents.scalar_parser import Peek
from ..tfevents.scan import CUT, DAMAGED, GAP, TORN, WHOLE, scan
from ..tfevents.tfrecord import DamagedFile, frame
from .hidden_curves import Hidden

PROBLEMS_MAX = 10_000  # told of one run, each of a kind, a file and a tag; those over it are counted
FILE_VERSION = "brain.Event:2"
NOTHING = "nothing"  # as an advice
LATE, BESIDE = "late", "beside"
HIDES = ("restart", "step_back", "repeated_step")  # kinds of which points are in the file that are not shown
GRAPH_TAG = "__run_graph__"  # TensorBoard's own name of the graph's series


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem. ``level``: "trouble" (something is lost or not shown), "warning" (points are not shown, or not
    by every loader), or "note" (normal)."""

    level: str
    means: str
    advice: str


KINDS = {
    "unreadable": Kind("trouble", "cannot be read", "check its permissions and its disk"),
    "folder": Kind("trouble", "a folder with the name of an event file stops the slow loader", "rename it"),
    "length_checksum": Kind(
        "trouble", "no record begins here: both loaders end the file", "tbxd check --repair-into FOLDER"
    ),
    "cut_inside": Kind(
        "trouble",
        "a record is cut and others follow: both loaders end the file",
        "tbxd check --repair-into FOLDER; let a writer that starts again begin a new file",
    ),
    "data_checksum": Kind(
        "trouble",
        "its data were changed: the fast loader shows the changed data, the slow loader ends the file",
        "tbxd check --repair-into FOLDER",
    ),
    "damaged_event": Kind(
        "trouble",
        "its data were changed and are not an event: both loaders end the file",
        "tbxd check --repair-into FOLDER",
    ),
    "no_event": Kind(
        "trouble",
        "not an event: the fast loader ends the file, the slow one stops with an error before it has read other runs",
        "tbxd check --repair-into FOLDER",
    ),
    "not_shown": Kind(
        "trouble", "whole records after damage, which a loader does not show", "tbxd check --repair-into FOLDER"
    ),
    "nan_wall_time": Kind(
        "trouble", "its wall time is NaN: the fast loader ends the file", "tbxd check --repair-into FOLDER"
    ),
    "infinite_wall_time": Kind(
        "warning", "its wall time is infinite: the fast loader drops it", "log with a real walltime"
    ),
    "no_file_version": Kind(
        "warning",
        f"does not begin with {FILE_VERSION}: the slow loader deletes points whenever a step of the run goes back",
        "use a writer that begins its files with it",
    ),
    "step_back": Kind(
        "warning",
        "its step is not after the last one of its tag: the fast loader deletes the points from this step on",
        "log each tag from one process, in the order of its steps; after a restart this is normal",
    ),
    "repeated_step": Kind(
        "warning",
        "a step is repeated: the fast loader keeps only the last value, the slow one all",
        "give each value a step of its own",
    ),
    "restart": Kind(
        "note",
        "the run continued from an earlier step: the points from there on are replaced, and still in the file",
        "nothing, if intended; to keep a process from replacing another: SummaryWriter(resume='never')",
    ),
    "beside": Kind(
        "note",
        "a process goes back behind another and does not continue it: its points from here on are in a run below",
        "nothing, if intended; to continue the run: SummaryWriter(resume='always')",
    ),
    "late": Kind(
        "note",
        "records of a process came after its successor had started: they are in a run below",
        NOTHING,
    ),
    "written_at_once": Kind(
        "warning",
        "an earlier file of the folder was written after this one began: the slow loader follows only the last file",
        "let one writer have a folder (the daemon sees to that), or use tensorboard --reload_multifile=true",
    ),
    "no_float": Kind(
        "warning", "a scalar that is not float32: the fast loader drops it", "write simple_value, or float32"
    ),
    "no_metadata": Kind(
        "warning", "the first value of the tag states no type: neither loader shows the tag", "write its metadata"
    ),
    "cut_tail": Kind("note", "the last record is cut: normal while it is written, and after a kill", NOTHING),
    "empty_file": Kind("note", "is empty: normal right after it was made", NOTHING),
    "not_looked_at": Kind(
        "note", "has no tfevents in its name: TensorBoard ignores it", "rename it if it should be shown"
    ),
}


DAMAGE = {DAMAGED: "data_checksum", TORN: "cut_inside", GAP: "length_checksum"}


@dataclass(slots=True)
class Problem:
    """A problem at its first place, found ``count`` times in this file and tag; it hides ``points``."""

    kind: str
    file: str
    run: str
    position: int | None = None
    tag: str | None = None
    step: int | None = None
    detail: str = ""
    count: int = 1
    points: int = 0

    @property
    def level(self) -> str:
        """See `Kind`."""
        return KINDS[self.kind].level


@dataclass(slots=True)
class Run:
    """The event files of a folder, in TensorBoard's order; ``name`` is TensorBoard's name of the run."""

    name: str
    root: Path  # the path that was given
    inside: Path  # its folder within one of copies
    files: list[Path] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


@dataclass(slots=True)
class Total:
    """The sums of all runs. ``tags``: run to tag to (values read, points that the fast loader keeps)."""

    runs: int = 0
    files: int = 0
    bytes: int = 0
    records: int = 0
    values: int = 0
    points_lost: int = 0
    found: dict[str, int] = field(default_factory=dict)
    tags: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    repaired_files: int = 0
    repaired_records: int = 0
    skipped: int = 0
    skipped_bytes: int = 0
    wall_times_replaced: int = 0
    hidden: int = 0  # points that restarts and steps that go back keep from being shown,
    hidden_left_out: int = 0  # of these, in copies, for which there is no run
    shown_again: dict[str, int] = field(default_factory=dict)  # runs that were made of the others, and their points

    @property
    def cannot_read(self) -> bool:
        """True if something could not be read at all."""
        return "unreadable" in self.found

    @property
    def bad(self) -> int:
        """The number of troubles and warnings."""
        return sum(count for kind, count in self.found.items() if KINDS[kind].level != "note")


class CannotRepair(Exception):
    """The copy cannot be made in this folder."""


def find(paths: list[Path]) -> list[Run]:
    """Return the runs in files and folders, recursively; links to folders are followed, as TensorBoard does."""
    found: list[Run] = []
    for root in paths:
        inside = Path(root.resolve().name if len(paths) > 1 else "")
        if root.is_dir():
            found += _runs_below(root, inside)
        else:
            run = Run(root.parent.name or ".", root, inside if root.name != inside.name else Path(), [root])
            if root.exists() and "tfevents" not in root.name:
                run.problems.append(Problem("not_looked_at", str(root), run.name))
            found.append(run)
    return found


def _runs_below(root: Path, inside: Path) -> Iterator[Run]:
    unreadable: list[Problem] = []

    def note(error: OSError) -> None:
        unreadable.append(Problem("unreadable", str(error.filename), ".", detail=error.strerror or str(error)))

    for folder, names in event_folders(root, note):
        run = Run(str(inside / folder.relative_to(root)), root, inside / folder.relative_to(root))
        for name in names:
            path = folder / name
            if os.path.isdir(path):  # noqa: PTH112 - unlike Path.is_dir it is False where it cannot be known
                run.problems.append(Problem("folder", str(path), run.name))
            else:
                run.files.append(path)
        if run.files or run.problems:
            yield run
    if unreadable:
        yield Run(".", root, inside, [], unreadable)


def size_of(runs: list[Run]) -> int:
    """Return the bytes of all files whose size can be read."""
    total = 0
    for run in runs:
        for path in run.files:
            with contextlib.suppress(OSError):
                total += path.stat().st_size
    return total


def check(
    runs: list[Run],
    report: Callable[[Problem], None],
    progress: Callable[[int], None] = lambda size: None,
    repair_into: Path | None = None,
    show_hidden: bool = False,
) -> Total:
    """Check the event files of these runs.

    Args:
        runs: of `find`.
        report: called with each problem, run by run.
        progress: called with the number of bytes that have been read since the last call.
        repair_into: a folder for copies that have every whole record and no other.
        show_hidden: beside each copy, write what it hides as runs of their own: see `hidden_curves`.

    Raises:
        CannotRepair: the folder is not empty, or inside one that is checked, or cannot be written.
    """
    if repair_into is not None:
        _check_target(repair_into, {run.root for run in runs})
    total = Total()
    for run in runs:
        _RunCheck(run, total, progress, repair_into).check()
        total.runs += bool(run.files)
        for problem in run.problems:
            total.found[problem.kind] = total.found.get(problem.kind, 0) + problem.count
            total.points_lost += problem.points if problem.level != "note" else 0
            total.hidden += problem.points if problem.kind in HIDES else 0
            report(problem)
        run.problems = []
    if repair_into is not None and show_hidden:
        for run in runs:
            _show_hidden(repair_into / run.inside, run, total)
    return total


def _show_hidden(folder: Path, run: Run, total: Total) -> None:
    """Write the hidden points of a run's copy beside it."""
    files = [copy for path in run.files if (copy := folder / path.name).exists()]
    try:
        hidden = Hidden(files)
        for found in hidden.write(folder):
            total.shown_again[str(run.inside / found.name)] = found.points
    except (OSError, DamagedFile) as error:
        raise CannotRepair(f"{folder}: {error}") from error
    total.hidden_left_out += hidden.left_out


def _check_target(target: Path, roots: set[Path]) -> None:
    full = target.resolve()
    for root in roots:
        inside = root.resolve() if root.is_dir() else root.resolve().parent
        if full == inside or inside in full.parents:
            raise CannotRepair(f"{target} is inside of {root}, and TensorBoard would show all of it twice")
    if len({root.resolve().name for root in roots}) < len(roots):
        raise CannotRepair("two of the paths have the same name; repair them one by one")
    try:
        target.mkdir(parents=True, exist_ok=True)
        if any(target.iterdir()):
            raise CannotRepair(f"{target} is not empty; name a new folder")
    except OSError as error:
        raise CannotRepair(f"{target}: {error.strerror}") from error


class _RunCheck:
    """The check of one run: its files, one after the other, and what the fast loader keeps of each tag."""

    def __init__(self, run: Run, total: Total, progress: Callable[[int], None], target: Path | None) -> None:
        self.run = run
        self.total = total
        self.progress = progress
        self.target = target
        self.peek = Peek()
        self.tags: dict[str, Kept] = {}
        self.scalars: set[str] = set()  # tags that the fast loader takes for scalars
        self.wrong: dict[str, int] = {}  # values that it drops when it shows them
        self.restarts: dict[str, int] = {}  # tag to the number of restarts that it has gone back for
        self.restart = 0
        self.latest = (-math.inf, "")  # the last wall time of earlier files, and whose it is
        self._lineage = Lineage()
        self._successors: set[int] = set()  # lives that have begun tags anew, by their places
        self._below: dict[bytes, str] = {}  # the folders of sessions that are beside the run
        self._places: dict[tuple[str, str, str | None, str], Problem] = {}

    def check(self) -> None:
        for path in self.run.files:
            try:
                with _open(path) as file:
                    _FileCheck(self, path, file).check()
            except OSError as error:
                self.found("unreadable", path, detail=error.strerror or str(error))
            self.total.files += 1
        if self.tags:
            self.total.tags.setdefault(self.run.name, {}).update(
                {tag: (kept.values, kept.total - self.wrong.get(tag, 0)) for tag, kept in self.tags.items()}
            )
        self.total.values += sum(kept.values for kept in self.tags.values())
        self.run.problems += self._places.values()

    def found(
        self,
        kind: str,
        path: Path,
        position: int | None = None,
        *,
        tag: str | None = None,
        step: int | None = None,
        detail: str = "",
        points: int = 0,
    ) -> None:
        """Record a problem: the first of its kind in a file and tag with its place; count further ones."""
        name = str(path)
        key = kind, name, tag, detail if kind in (LATE, BESIDE) else ""
        problem = self._places.get(key)
        if problem is not None:
            problem.count += 1
            problem.points += points
        elif len(self._places) < PROBLEMS_MAX:
            self._places[key] = Problem(kind, name, self.run.name, position, tag, step, detail, points=points)
        else:
            self.total.found[kind] = self.total.found.get(kind, 0) + 1
            self.total.points_lost += points

    def value(self, path: Path, position: int, tag: str, step: int) -> None:
        """Take a value that the fast loader reads."""
        kept = self.tags.get(tag)
        if kept is None:
            kept = self.tags[tag] = Kept()
        again = step == kept.last
        lost = kept.offer(step)
        if not lost:
            return
        if self.restarts.get(tag, 0) < self.restart:
            self.restarts[tag] = self.restart
            kind = "restart"
        else:
            kind = "repeated_step" if again else "step_back"
        if tag in self.wrong:
            self.wrong[tag] = min(self.wrong[tag], kept.total - 1)
        self.found(kind, path, position, tag=tag, step=step, points=lost)

    def end(self, path: Path, position: int, tag: str, step: int) -> None:
        """End a tag at a step, from which it continues, as `events.resume` writes it."""
        lost = self.tags[tag].end(step) if tag in self.tags else 0
        if lost:
            self.found("restart", path, position, tag=tag, step=step, points=lost)

    def note(self, path: Path, position: int, text: str) -> None:
        """Take a note about the processes that log here."""
        lineage = self._lineage
        life = lineage.follow(text)
        if life != UNKNOWN:
            self._successors.add(life)
        session = session_beside(text)
        if session is None:
            return
        place = lineage.place(session)
        lives = lineage.lives
        successors = self._successors | {purged for purged, _ in lineage.purges}
        late = any(
            other != place and is_after(lives[other], other, lives[place], place) for other in successors - {UNKNOWN}
        )
        below = self._below.get(session)
        if below is None:  # a session has a note for each tag, and what is read for one may be much
            below = self._below[session] = folder_of(path.parent, session)
        self.found(LATE if late else BESIDE, path, position, detail=below)


class _FileCheck:
    """The check of one file."""

    def __init__(self, run: _RunCheck, path: Path, file: BinaryIO) -> None:
        self.run = run
        self.path = path
        self.size = os.fstat(file.fileno()).st_size
        self.copy: _Copy | None = None
        self._file = file
        self._told = 0
        self._first = True
        self._plain = False  # nothing has been found that needs a closer look at each record
        self._fast: int | None = None  # where the loader ends the file
        self._slow: int | None = None
        self._fast_misses = self._slow_misses = 0  # whole records that it does not show
        self._begun: float | None = None
        self._latest = -math.inf

    def check(self) -> None:
        if not self.size:
            self.run.found("empty_file", self.path)
            return
        if self.run.target is not None:
            self.copy = _Copy(self.run.target, self.run.run, self.path, self.run.total)
        try:
            self._records()
        finally:
            if self.copy is not None:
                self.copy.close()
        self.run.progress(self.size - self._told)
        self.run.total.bytes += self.size
        self._behind_damage()
        self._overlap()

    def _read(self, position: int, length: int) -> bytes:
        if position > self._told:
            self.run.progress(position - self._told)
            self._told = position
        return os.pread(self._file.fileno(), length, position)

    def _records(self) -> None:
        peek, value, is_finite = self.run.peek.scalar, self.run.value, math.isfinite
        count = 0
        for state, start, end, data in scan(self._read, self.size):
            if state != WHOLE:
                self._damage(state, start, end, data)
                continue
            count += 1
            scalar = peek(data) if self._plain else None
            if scalar is None or not is_finite(scalar[2]):
                self._whole(start, data)
                continue
            tag, step, wall_time, _ = scalar
            self._latest = max(self._latest, wall_time)
            value(self.path, start, tag, step)
            if self.copy is not None:
                self.copy.take(data, wall_time)
        self.run.total.records += count

    # --- whole records ---------------------------------------------------------------------------------------

    def _whole(self, start: int, data: bytes) -> None:
        self._fast_misses += self._fast is not None
        self._slow_misses += self._slow is not None
        event = _parsed(data)
        if event is None:
            if self._fast is None:
                self.run.found("no_event", self.path, start)
            self._fast = start if self._fast is None else self._fast
            self._slow = start if self._slow is None else self._slow
            self._plain = False
            if self.copy is not None:
                self.copy.skip(len(data))
            return
        if self._first:
            self._first = False
            if event.file_version != FILE_VERSION:
                self.run.found("no_file_version", self.path, start, detail=event.file_version)
        if self.copy is not None:
            self.copy.take(data, event.wall_time)
        if math.isfinite(event.wall_time):
            if self._begun is None:
                self._begun = event.wall_time
            self._latest = max(self._latest, event.wall_time)
        if self._fast is None:
            self._event(start, event)
            self._plain = self._fast is None and self._slow is None

    def _event(self, start: int, event: Any) -> None:
        """Take an event as the fast loader does."""
        run = self.run
        if event.source_metadata.writer.startswith(NOTE):
            run.note(self.path, start, event.source_metadata.writer)
        if math.isnan(event.wall_time):
            run.found("nan_wall_time", self.path, start, tag=_tag_of(event), step=event.step)
            self._fast = start
            return
        if math.isinf(event.wall_time):
            run.found("infinite_wall_time", self.path, start, tag=_tag_of(event), step=event.step, points=1)
            return
        what = event.WhichOneof("what")
        if what == "summary":
            run.peek.learn(event)
            for value in event.summary.value:
                self._value(start, event.step, value)
        elif what == "graph_def":
            run.value(self.path, start, GRAPH_TAG, event.step)
        elif what == "tagged_run_metadata":
            run.value(self.path, start, event.tagged_run_metadata.tag, event.step)
        elif what == "session_log" and event.session_log.status == schema.SESSION_START:
            run.restart += 1

    def _value(self, start: int, step: int, value: Any) -> None:
        kind = value.WhichOneof("value")
        if kind is None:
            return
        run, tag = self.run, value.tag
        if kind == schema.END_KIND:
            run.end(self.path, start, tag, step)
            return
        if tag not in run.tags:
            given = value.metadata.data_class
            plugin = value.metadata.plugin_data.plugin_name
            if kind == "tensor" and not given and not plugin:
                run.found("no_metadata", self.path, start, tag=tag, step=step)
            elif given == schema.SCALAR or (not given and (kind == "simple_value" or plugin == "scalars")):
                run.scalars.add(tag)
        run.value(self.path, start, tag, step)
        if tag in run.scalars and kind != "simple_value" and not (kind == "tensor" and _is_float(value.tensor)):
            run.wrong[tag] = run.wrong.get(tag, 0) + 1
            run.found("no_float", self.path, start, tag=tag, step=step, points=1)

    # --- damage ----------------------------------------------------------------------------------------------

    def _damage(self, state: int, start: int, end: int, data: bytes) -> None:
        size = f"{end - start:,} bytes"
        if state == CUT:
            self.run.found("cut_tail", self.path, start, detail=size)
            return
        event = _parsed(data) if data or state == DAMAGED else None
        kind = "damaged_event" if state == DAMAGED and event is None else DAMAGE[state]
        self.run.found(kind, self.path, start, detail=size)
        if self._fast is None:
            if event is not None:
                self._event(start, event)  # the fast loader looks at no checksum of data
            elif state == DAMAGED:
                self._fast = start
        self._slow = start if self._slow is None else self._slow
        if state != DAMAGED:
            self._fast = start if self._fast is None else self._fast
        self._plain = False
        if self.copy is not None:
            self.copy.skip(end - start)

    def _behind_damage(self) -> None:
        missed = []
        if self._fast is not None and self._fast_misses:
            missed.append(f"{self._fast_misses:,} by the fast loader")
        if self._slow is not None and self._slow_misses:
            missed.append(f"{self._slow_misses:,} by the slow one")
        if missed:
            first = min(place for place in (self._fast, self._slow) if place is not None)
            self.run.found("not_shown", self.path, first, detail=", ".join(missed))

    def _overlap(self) -> None:
        latest, whose = self.run.latest
        if self._begun is not None and self._begun < latest:
            self.run.found("written_at_once", self.path, detail=f"{whose} went on for {latest - self._begun:,.1f} s")
        if self._latest > latest:
            self.run.latest = (self._latest, self.path.name)


class _Copy:
    """A copy of a file with every whole record, which both loaders read to its end."""

    def __init__(self, target: Path, run: Run, path: Path, total: Total) -> None:
        self._path = target / run.inside / path.name
        self._total = total
        self._last = path.stat().st_mtime  # for a wall time that is none
        self._first = True
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("xb")
        except OSError as error:
            raise CannotRepair(f"{self._path}: {error.strerror}") from error
        total.repaired_files += 1

    def take(self, data: bytes, wall_time: float) -> None:
        """Write a record. A wall time that would end the file or drop the record becomes the one before."""
        if not math.isfinite(wall_time):
            event = schema.Event()
            event.ParseFromString(data)
            event.wall_time = self._last
            data = event.SerializeToString()
            self._total.wall_times_replaced += 1
        else:
            self._last = wall_time
        self._total.repaired_records += 1
        self._write(data)

    def _write(self, data: bytes) -> None:
        try:
            if self._first:
                self._first = False
                event = schema.Event()
                event.ParseFromString(data)
                if not event.file_version:  # it was lost: without it the slow loader deletes points
                    self._file.write(frame(_file_version(event.wall_time)))
            self._file.write(frame(data))
        except OSError as error:
            raise CannotRepair(f"{self._path}: {error.strerror}") from error

    def skip(self, size: int) -> None:
        """Count bytes that are not a whole record."""
        self._total.skipped += 1
        self._total.skipped_bytes += size

    def close(self) -> None:
        """Sync the copy to disk and close it."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise CannotRepair(f"{self._path}: {error.strerror}") from error


def _open(path: Path) -> BinaryIO:
    """Open a file for reading; a pipe does not block, a device is refused."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(0, "not a regular file")
    return open(fd, "rb", buffering=0)


def _parsed(data: bytes) -> Any | None:
    event = schema.Event()
    try:
        event.ParseFromString(data)
    except schema.DecodeError:
        return None
    return event


def _tag_of(event: Any) -> str | None:
    return event.summary.value[0].tag if event.summary.value else None


def _is_float(tensor: Any) -> bool:
    """Return True if the fast loader reads a tensor as a scalar (``data_compat.rs``): one float32, no dimension."""
    if tensor.dtype != schema.DT_FLOAT or tensor.tensor_shape.dim:
        return False
    return len(tensor.float_val) == 1 or (not tensor.float_val and len(tensor.tensor_content) == 4)


def _file_version(wall_time: float) -> bytes:
    version: bytes = schema.Event(
        wall_time=wall_time if math.isfinite(wall_time) else 0.0, file_version=FILE_VERSION
    ).SerializeToString()
    return version
