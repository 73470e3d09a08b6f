"""``tbxd top``: rates and values from successive statuses of the daemon. For the terminal, see `top_view`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tbxd_client.config.paths import is_remote

from ..config.settings import Settings
from ..runs.accounting import Tally
from ..tfevents.scalar_parser import Peek, value_of
from ..tfevents.scan import WHOLE, scan
from ..transport import control_client

ANSWER_SECONDS = 2.0  # for the daemon, before it counts as gone
LOOK_SECONDS = 0.5  # between looks at event files and disks
END_BYTES = 64 << 10  # of an event file that are read when it is looked at first
READ_BYTES = 1 << 20  # and at a time later; what was written beyond that is passed over
VALUES_MAX = 64  # last values of a run that are remembered
FOLLOWED_MAX = 64  # runs whose files are looked at
RATE_SECONDS = 0.2  # a rate over less would jump
ONCE_SECONDS = 1.0  # between the two looks of a single frame
FIRST_LOOK_SECONDS = 2.0  # for the first look at files and disks
RATE, NAME, PENDING, DROPPED = ORDERS = ("rate", "name", "pending", "dropped")


@dataclass(slots=True)
class Row:
    """A run."""

    directory: str
    rate: float  # records a second
    accepted: int
    written: int
    pending: int
    dropped: dict[str, int]
    error: str
    ranks: dict[str, Any] | None
    file: str
    values: dict[str, tuple[int, float]] = field(default_factory=dict)  # tag to step and value, the latest first


@dataclass(slots=True)
class Disk:
    """A disk that the daemon writes to."""

    what: str
    path: str
    free_bytes: int
    total_bytes: int


@dataclass(slots=True)
class Frame:
    """The state at one moment.

    Without a daemon, ``trouble`` is the reason, and the rest is as of ``answered``, without rates.
    """

    time: float
    address: str
    trouble: str = ""
    answered: float = 0.0  # when a daemon answered last, in seconds since 1970; 0 if none has
    version: str = ""
    pid: int = 0
    kind: str = ""
    up_seconds: float = 0.0
    sessions: int = 0
    trainers: int = 0  # of the sessions, processes that live
    records_per_second: float = 0.0
    bytes_per_second: float = 0.0
    lag_seconds: float = 0.0
    memory_bytes: int = 0
    cpu_percent: float = 0.0
    totals: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    disks: list[Disk] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what else is not as it should be


class Top:
    """Asks the daemon for its status, and makes frames of the answers.

    Args:
        settings: the daemon's place.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._last: tuple[float, dict[str, Any]] | None = None
        self._frame: Frame | None = None
        self._rates: dict[str, float] = {}
        self._files = None if is_remote(settings.address) else _Files(settings.spool)

    def look(self) -> Frame:
        """Return the next frame. Without a daemon it has ``trouble``."""
        try:
            status = control_client.ask(self._settings, "status", timeout=ANSWER_SECONDS)
        except control_client.NotRunning as error:
            self._last = None
            frame = self._frame or Frame(time.time(), self._settings.address)
            frame.time, frame.trouble = time.time(), str(error)
            frame.records_per_second = frame.bytes_per_second = frame.cpu_percent = 0.0
            for row in frame.rows:
                row.rate = 0.0
            return frame
        self._frame = self._made(status, time.monotonic())
        return self._frame

    def settle(self) -> None:
        """Wait briefly for the first look at files and disks."""
        if self._files is not None:
            self._files.looked.wait(FIRST_LOOK_SECONDS)

    def fill(self, frame: Frame, shown: list[Row]) -> None:
        """Add the last values read so far to the shown rows, and the disks to the frame."""
        if self._files is None:
            return
        self._files.follow([(row.directory, row.file) for row in shown if row.file])
        for row in shown:
            row.values = self._files.values(row.directory)
        frame.disks = self._files.disks()

    def _made(self, status: dict[str, Any], now: float) -> Frame:
        metrics = status.get("metrics", {})
        frame = Frame(
            time.time(),
            status.get("address", self._settings.address),
            answered=time.time(),
            version=status["version"],
            pid=status["pid"],
            kind="embedded daemon" if status["embedded"] else "service" if status["service"] else "daemon",
            up_seconds=time.time() - status["started"],
            sessions=len(status["sessions"]),
            trainers=sum(not session["adopted"] for session in status["sessions"]),
            lag_seconds=metrics.get("lag_seconds", 0.0),
            memory_bytes=metrics.get("memory_bytes", 0),
            totals=status.get("totals", {}),
            notes=_notes(status),
        )
        before = self._before(status, now)
        if before is not None and metrics:
            seconds, old = now - before[0], before[1]["metrics"]
            frame.records_per_second = (metrics["settled_records"] - old["settled_records"]) / seconds
            frame.bytes_per_second = (metrics["written_bytes"] - old["written_bytes"]) / seconds
            frame.cpu_percent = 100 * (metrics["cpu_seconds"] - old["cpu_seconds"]) / seconds
        for directory, run in status["runs"].items():
            if before is not None and directory in before[1]["runs"]:
                grown = run["written"] - before[1]["runs"][directory]["written"]
                self._rates[directory] = max(0, grown) / (now - before[0])
            frame.rows.append(
                Row(
                    directory,
                    self._rates.get(directory, 0.0),
                    run["accepted"],
                    run["written"],
                    run["pending"],
                    run["dropped"],
                    run["error"],
                    run.get("ranks"),
                    run["file"],
                )
            )
        if not metrics:  # what a daemon on another host tells the owner of a key: his own runs alone
            frame.records_per_second = sum(row.rate for row in frame.rows)
            frame.totals = _totals(frame.rows)
        return frame

    def _before(self, status: dict[str, Any], now: float) -> tuple[float, dict[str, Any]] | None:
        """Return the last status of the same daemon, the base of rates."""
        last = self._last
        if last is not None and last[1]["pid"] == status["pid"] and now - last[0] < RATE_SECONDS:
            return None
        self._last = now, status
        if last is not None and last[1]["pid"] == status["pid"]:
            return last
        self._rates.clear()
        return None


def _totals(rows: list[Row]) -> dict[str, Any]:
    tally = Tally()
    for row in rows:
        tally.merge(Tally(row.accepted, row.written, row.dropped))
    return tally.counts()


def _notes(status: dict[str, Any]) -> list[str]:
    notes = [
        f"session of pid {session['pid']} is broken: {session['broken']}"
        for session in status["sessions"]
        if session["broken"]
    ]
    if hanging := status.get("metrics", {}).get("threads_hanging"):
        notes.append(f"{hanging:,} thread{' hangs' if hanging == 1 else 's hang'} on a disk")
    for key, text in (
        ("connections_turned_away", "connections refused for want of file descriptors (ulimit -n)"),
        ("quarantined_journals", "invalid journals were put aside (`tbxd doctor`)"),
        ("lost_bytes_at_crash", "bytes were lost when the machine went down"),
    ):
        if status.get(key):
            notes.append(f"{status[key]:,} {text}")
    for where, broken in sorted(status.get("internal_errors", {}).items()):
        notes.append(f"{broken['count']:,} internal errors in {where}: {broken['error']}")
    return notes


def ordered(rows: Iterable[Row], order: str) -> list[Row]:
    """Sort rows for display; equal ones by name."""
    keys = {
        RATE: lambda row: (-row.rate, row.directory),
        NAME: lambda row: row.directory,
        PENDING: lambda row: (-row.pending, row.directory),
        DROPPED: lambda row: (-sum(row.dropped.values()), row.directory),
    }
    return sorted(rows, key=keys[order])


class _Files:
    """Looks at event files and disks, on a thread that may hang with them."""

    def __init__(self, spool: Path) -> None:
        self.looked = threading.Event()
        self._spool = spool
        self._lock = threading.Lock()
        self._wanted: dict[str, str] = {}  # folder to its file
        self._ends: dict[str, _End] = {}
        self._values: dict[str, dict[str, tuple[int, float]]] = {}
        self._disks: list[Disk] = []
        self._change = threading.Event()
        threading.Thread(target=self._work, name="tbxd-top-files", daemon=True).start()

    def follow(self, runs: list[tuple[str, str]]) -> None:
        with self._lock:
            wanted = dict(runs[:FOLLOWED_MAX])
            if wanted.items() <= self._wanted.items() and len(wanted) == len(self._wanted):
                return
            self._wanted = wanted
            self.looked.clear()
            self._change.set()

    def values(self, directory: str) -> dict[str, tuple[int, float]]:
        with self._lock:
            return dict(self._values.get(directory, {}))

    def disks(self) -> list[Disk]:
        with self._lock:
            return list(self._disks)

    def _work(self) -> None:
        while True:
            self._change.clear()
            with self._lock:
                wanted = dict(self._wanted)
            disks = _disks(self._spool, wanted)
            with self._lock:
                self._disks = disks
            for directory in self._ends.keys() - wanted.keys():
                del self._ends[directory]
            for directory, file in wanted.items():
                path = Path(directory) / file
                end = self._ends.get(directory)
                if end is None or end.path != path:
                    end = self._ends[directory] = _End(path)
                end.read()
                with self._lock:
                    self._values[directory] = dict(reversed(end.values.items()))
            if not self._change.is_set():
                self.looked.set()
            self._change.wait(LOOK_SECONDS)


def _disks(spool: Path, runs: Iterable[str]) -> list[Disk]:
    found: dict[int, Disk] = {}
    for what, path in (("spool", str(spool)), *(("logs", run) for run in runs)):
        try:
            device = Path(path).stat().st_dev
            state = os.statvfs(path)
        except OSError:
            continue
        if device not in found:
            found[device] = Disk(what, path, state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize)
        elif what not in found[device].what:
            found[device].what += f" and {what}"
    return list(found.values())


class _End:
    """The end of an event file: the last scalars in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, tuple[int, float]] = {}  # the latest last
        self._position = -1
        self._peek = Peek()

    def read(self) -> None:
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return
        try:
            size = os.fstat(fd).st_size
            first = self._position < 0 or self._position > size
            start = max(0, size - END_BYTES) if first else max(self._position, size - READ_BYTES)
            self._position = start
            for what, _, end, data in scan(lambda position, length: os.pread(fd, length, position), size, start):
                if what == WHOLE:
                    self._position = end
                    self._take(data)
        except OSError:
            return
        finally:
            os.close(fd)

    def _take(self, data: bytes) -> None:
        peeked = self._peek.scalar(data)
        if peeked is not None:
            tag, step, _, end = peeked
            self._set(tag, step, value_of(data, end))
            return
        event = self._peek.event(data)
        if event is None:
            return
        for value in event.summary.value:
            if value.WhichOneof("value") == "simple_value":
                self._set(value.tag, event.step, value.simple_value)

    def _set(self, tag: str, step: int, value: float) -> None:
        self.values.pop(tag, None)
        self.values[tag] = step, value
        if len(self.values) > VALUES_MAX:
            del self.values[next(iter(self.values))]
