"""Does training feel it when logging is in trouble? Single calls of ``add_scalar`` while something is wrong."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .add_scalar import TAG, VALUE
from .meter import daemon_pid
from .peers import BASE, PEERS, MeasurementError, NotPossible, Peer
from .question import Figure, Logged, Outcome, Question

STRETCH = 5000  # calls in a row, as a loop makes them that logs much; then comes a pause
PAUSE_SECONDS = 0.035  # so that the loop lasts longer than the client waits before it greets or starts a daemon
CALL_SECONDS_MAX = 0.05  # what no call may take
TIMES_MAX = 10  # how many times that of the healthy case p99.9 may be
SMALL_DISK, LARGER_DISK, FILL_BYTES = "256k", "64m", 4096
ADDRESS_VARIABLE = "TBXD_ADDRESS"
RUN = "run"

Middle = Callable[[], None]  # what happens when half of the calls are done


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one case; to be called in a fresh process. In the end the trouble is mended and every record is there."""
    folder = logs / RUN
    folder.mkdir(parents=True)
    nanoseconds = array("q", bytes(8 * counts["calls"]))
    with CASES[peer.name](folder) as (writer, begin, middle, mend):
        writer.add_scalar(TAG, VALUE, 0)
        begin(writer)
        exceptions = _single_calls(writer, nanoseconds, middle)
        mend()
        peer.close(writer)
    ordered = sorted(nanoseconds)
    first = sorted(nanoseconds[STRETCH::STRETCH])
    return Outcome(
        {
            "p50_us": ordered[len(ordered) // 2] / 1e3,
            "p999_us": ordered[len(ordered) * 999 // 1000] / 1e3,
            "first_us": first[len(first) // 2] / 1e3,
            "max_ms": ordered[-1] / 1e6,
            "slow_calls": sum(duration > CALL_SECONDS_MAX * 1e9 for duration in ordered),
            "exceptions": exceptions,
        },
        [Logged(RUN, TAG, "simple_value", counts["calls"] + 1)],
    )


def _single_calls(writer: Any, nanoseconds: array[int], middle: Middle) -> int:
    """Time every call by itself; returns how many raised."""
    value, exceptions, half = VALUE, 0, len(nanoseconds) // 2
    clock = time.perf_counter_ns
    for first in range(0, len(nanoseconds), STRETCH):
        if first <= half < first + STRETCH:
            middle()
        for index in range(first, min(first + STRETCH, len(nanoseconds))):
            start = clock()
            try:
                writer.add_scalar("train/loss", value, index + 1)
            except Exception:
                exceptions += 1
            nanoseconds[index] = clock() - start
        time.sleep(PAUSE_SECONDS)
    return exceptions


# --- the cases: a writer, what begins the trouble, what comes in the middle, and what mends it ---------------------


def _nothing(*_: object) -> None:
    pass


def _writer(folder: Path) -> Any:
    return PEERS[BASE].open(folder)


def _flushed(writer: Any) -> None:
    PEERS[BASE].flush(writer)


Case = tuple[Any, Callable[[Any], None], Middle, Middle]


@contextmanager
def _healthy(folder: Path) -> Iterator[Case]:
    yield _writer(folder), _flushed, _nothing, _nothing


@contextmanager
def _absent(folder: Path) -> Iterator[Case]:
    """Nobody listens at the address until all is logged."""
    os.environ[ADDRESS_VARIABLE] = f"ipc://{folder.parent.parent}/absent.sock"

    def mend() -> None:
        subprocess.Popen(
            [sys.executable, "-m", "tbxd", "serve"],
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    yield _writer(folder), _nothing, _nothing, mend


@contextmanager
def _stopped(folder: Path) -> Iterator[Case]:
    """The daemon is there and does nothing: SIGSTOP."""
    pid = 0

    def begin(writer: Any) -> None:
        nonlocal pid
        _flushed(writer)
        pid = daemon_pid()
        os.kill(pid, signal.SIGSTOP)

    def mend() -> None:
        if pid:
            os.kill(pid, signal.SIGCONT)

    try:
        yield _writer(folder), begin, _nothing, mend
    finally:
        mend()


@contextmanager
def _killed(folder: Path) -> Iterator[Case]:
    """The daemon is killed in the middle; the client starts another."""
    killed = 0

    def middle() -> None:
        nonlocal killed
        killed = daemon_pid()
        os.kill(killed, signal.SIGKILL)

    yield _writer(folder), _flushed, middle, _nothing
    if daemon_pid() == killed:
        raise MeasurementError("the daemon has not been killed")


@contextmanager
def _full(folder: Path) -> Iterator[Case]:
    """The disk of the log folder, a small file system in memory, is full from the first call."""
    filler = folder / "filler"

    def begin(writer: Any) -> None:
        _flushed(writer)
        with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(FILL_BYTES))

    def mend() -> None:
        free = shutil.disk_usage(folder).free
        if free:
            raise MeasurementError(f"the disk has not been full: {free:,} bytes are free")
        filler.unlink()
        _mount("-o", f"remount,size={LARGER_DISK}", str(folder))

    if _mount("-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(folder)):
        raise NotPossible("mounting a small disk is not permitted here")
    copy = folder.with_name(RUN + "-copy")
    try:
        yield _writer(folder), begin, _nothing, mend
        shutil.copytree(folder, copy)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
    folder.rmdir()
    copy.rename(folder)  # where the files are looked at


def _mount(*arguments: str) -> int:
    try:
        return subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode
    except FileNotFoundError:
        return 127


CASES = {"healthy": _healthy, "absent": _absent, "stopped": _stopped, "killed": _killed, "disk full": _full}
PAUSE_MS = PAUSE_SECONDS * 1000

QUESTION = Question(
    name="troubled",
    title="add_scalar while logging is in trouble",
    notes=(
        f"100,000 calls of tbxd, each timed, in stretches of {STRETCH:,} with pauses of {PAUSE_MS:g} ms in between, "
        "so that the failure lasts for a while. healthy: a daemon that writes. absent: nobody listens at "
        "`TBXD_ADDRESS`. stopped: SIGSTOP before the first call. killed: `kill -9` after half of the calls; the "
        "client starts another daemon. disk full: that of the log folder, from the first call on. Then the failure "
        "is mended, and every record must be in the event file, once and in order. Expected: no exception, no call "
        f"over {CALL_SECONDS_MAX * 1e3:g} ms, p99.9 within {TIMES_MAX} times of the healthy case."
    ),
    figures=(
        Figure("p50_us", "time of a call, p50", "µs"),
        Figure("p999_us", "… p99.9", "µs"),
        Figure("first_us", "… the first after a pause, whose code and data have left the caches", "µs"),
        Figure("max_ms", "… the longest", "ms"),
        Figure("slow_calls", f"calls over {CALL_SECONDS_MAX * 1e3:g} ms", "calls", compared=False),
        Figure("exceptions", "calls that raised", "calls", compared=False),
    ),
    full={"calls": 100_000},
    quick={"calls": 10_000},
    measure=measure,
    peers={name: PEERS[BASE].named(name) for name in CASES},
)
