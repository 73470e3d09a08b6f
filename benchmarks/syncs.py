"""How long is what has been written not on the disk, under load?"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .daemon_scalars import DEADLINE
from .peers import BASE, PEERS, MeasurementError, NotPossible, Peer
from .question import Figure, Outcome, Question

TRAINER = """
import sys, time
from tbxd_client import SummaryWriter
folder, seconds, runs, tags, hertz = sys.argv[1], *map(float, sys.argv[2:])
writers = [SummaryWriter(f"{folder}/{number}") for number in range(int(runs))]
end = time.monotonic() + seconds
step = 0
while time.monotonic() < end:
    for writer in writers:
        for tag in range(int(tags)):
            writer.add_scalar(f"tag/{tag}", 0.5, step)
    step += 1
    if hertz:
        time.sleep(1 / hertz)
for writer in writers:
    writer.close()
"""
_CALL = re.compile(r"^(\d+) +(\d+\.\d+) (\w+)\((\d+<[^>]*tfevents[^>]*>).*?(<unfinished \.\.\.>|<(\d+\.\d+)>)$", re.M)
_RESUMED = re.compile(r"^(\d+) +(\d+\.\d+) <\.\.\. (\w+) resumed>", re.M)


@dataclass(frozen=True, slots=True)
class Load:
    """So many trainers, with so many runs each, tags a step and steps a second; 0: as fast as they can."""

    trainers: int
    runs: int
    tags: int
    hertz: float


CASES = {
    "100 Hz, 5 tags": Load(1, 1, 5, 100),
    "8 trainers flat out": Load(8, 1, 1, 0),
    "200 runs at 5 Hz": Load(1, 200, 1, 5),
}


@dataclass(slots=True)
class _File:
    synced: float = 0.0  # when its last sync began
    written: float = 0.0  # the first write since then; 0: none
    begun: dict[str, float] = field(default_factory=dict)  # syncs under way, by thread


@dataclass(slots=True)
class Gaps:
    """What strace tells of writes and syncs of event files, in seconds.

    ``longest``: between two syncs of a file that was written all the while, or from the first write after a sync to
    the next. ``on_disk``: from a write to the end of the sync that has it.
    """

    longest: float = 0.0
    on_disk: float = 0.0
    syncs: int = 0
    writes: int = 0


def watching(log: Path) -> list[str]:
    """The command that runs a daemon and notes when it writes and syncs."""
    return [
        *("strace", "-f", "--seccomp-bpf", "-ttt", "-T", "-y", "-s", "0"),
        *("-e", "trace=write,fdatasync", "-e", "signal=none", "-o", str(log)),
    ]


def gaps(text: str) -> Gaps:
    """What is in such a log."""
    events: list[tuple[float, str, str]] = []  # when, what, of which file
    open_calls: dict[str, tuple[float, str, str]] = {}
    for line in text.splitlines():
        if call := _CALL.match(line):
            thread, begun, name, file, rest, took = call.groups()
            if rest.startswith("<unf"):
                open_calls[thread] = float(begun), name, file
            else:
                _note(events, float(begun), float(begun) + float(took), name, file)
        elif (resumed := _RESUMED.match(line)) and resumed[1] in open_calls:
            before, name, file = open_calls.pop(resumed[1])
            _note(events, before, float(resumed[2]), name, file)
    found, files = Gaps(), {file: _File() for _, _, file in events}
    for when, what, file in sorted(events):
        state = files[file]
        if what == "write":
            found.writes += 1
            state.written = state.written or when
        elif what == "sync begins":
            if state.written:
                found.longest = max(found.longest, when - max(state.synced, state.written))
                state.begun["first"] = state.written
            state.synced, state.written = when, 0.0
        else:
            found.syncs += 1
            if first := state.begun.pop("first", 0.0):
                found.on_disk = max(found.on_disk, when - first)
    return found


def _note(events: list[tuple[float, str, str]], begun: float, done: float, name: str, file: str) -> None:
    if name == "write":
        events.append((begun, "write", file))
    else:
        events += [(begun, "sync begins", file), (done, "sync ends", file)]


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one load; to be called in a fresh process."""
    from tbxd_client.config.paths import default_address

    if shutil.which("strace") is None:
        raise NotPossible("strace is not installed")
    load, seconds = CASES[peer.name], counts["seconds"]
    log = logs.parent / "calls"
    daemon = subprocess.Popen([*watching(log), sys.executable, "-m", "tbxd", "serve"], stderr=subprocess.DEVNULL)
    address = Path(default_address().removeprefix("ipc://"))
    deadline = time.monotonic() + DEADLINE
    while not address.exists():
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise MeasurementError("the daemon does not start")
        time.sleep(0.01)
    numbers = map(str, (seconds, load.runs, load.tags, load.hertz))
    command = [sys.executable, "-c", TRAINER]
    arguments = list(numbers)
    trainers = [
        subprocess.Popen([*command, str(logs / str(number)), *arguments], env=dict(os.environ))
        for number in range(load.trainers)
    ]
    if any(trainer.wait(seconds + DEADLINE) for trainer in trainers):
        raise MeasurementError("a trainer has failed")
    subprocess.run([sys.executable, "-m", "tbxd", "stop"], check=True, stdout=subprocess.DEVNULL, timeout=DEADLINE)
    daemon.wait(DEADLINE)
    found = gaps(log.read_text())
    if found.syncs < load.trainers * load.runs or not found.writes:
        raise MeasurementError(f"{found.syncs} syncs")
    figures = {"gap_s": found.longest, "on_disk_s": found.on_disk, "syncs": found.syncs, "writes": found.writes}
    return Outcome({name: float(value) for name, value in figures.items()}, counted=True)


QUESTION = Question(
    name="syncs",
    title="seconds until what is written is on the disk",
    notes=(
        "A real daemon with its defaults (TBXD_SYNC_SECONDS is 1 s) and real trainers, for 20 s: one that logs 5 "
        "tags 100 times a second, eight that log as fast as they can, and one that logs to 200 runs 5 times a "
        "second. strace reports when an event file is written and synced. The gap: the longest time between two "
        "syncs of a file that is written meanwhile, or from the first write after a sync to the next sync; 1.2 s "
        "are promised. On the disk: from a write to the end of the sync that covers it, including the time of the "
        "disk itself."
    ),
    figures=(
        Figure("gap_s", "longest gap between two syncs", "s", compared=False),
        Figure("on_disk_s", "until a write is on the disk, the longest", "s", compared=False),
        Figure("syncs", "syncs", "", compared=False),
        Figure("writes", "writes", "", compared=False),
    ),
    full={"seconds": 20},
    quick={"seconds": 2},
    measure=measure,
    peers={name: PEERS[BASE].named(name) for name in CASES},
    rounds_max=1,
)
