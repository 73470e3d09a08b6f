"""A daemon is killed in the middle of a long run: how long is nothing written?"""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from . import event_files
from .daemon_scalars import BURST_BYTES, DEADLINE, Sender, Shape, send, served
from .peers import BASE, PEERS, MeasurementError, Peer
from .question import Figure, Outcome, Question

CASES = {  # records, and tags of a step
    "10⁵ records": (10**5, 1),
    "10⁶ records": (10**6, 1),
    "10⁷ records": (10**7, 1),
    "10⁷ records of 10 tags": (10**7, 10),
    "10⁶ records of 100,000 tags": (10**6, 10**5),
}
COUNTED_MAX = 10**5  # records that are looked at one by one afterwards; of more the events are counted


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one run; to be called in a fresh process."""
    from tbxd.ingest.hub import LEDGERS
    from tbxd_client.config.paths import spool_dir

    records, tags = (
        min(number, counts[name]) for number, name in zip(CASES[peer.name], ("records", "tags"), strict=True)
    )
    run = logs / "run"
    with served() as address:
        sender = Sender(address, Shape(1, tags, BURST_BYTES), records // tags, run)
        send([sender], [len(sender.records)])
        events = _events(run)
    figures = {"nothing_s": _taken_over(logs / "new"), "kept_s": _taken_over(run)}
    shutil.rmtree(spool_dir() / LEDGERS, ignore_errors=True)
    figures["lost_s"] = _taken_over(run)
    if events < records // tags or _events(run) < events + 2:
        raise MeasurementError("not everything is in the files")
    if records <= COUNTED_MAX and event_files.points(run).total() < records + 2:
        raise MeasurementError("there is not in the files what has been logged")
    return Outcome(figures, counted=True)


def _taken_over(run: Path) -> float:
    """Seconds from the death of the daemon until another one has written a record to a run."""
    from tbxd_client.config.paths import lock_path
    from tbxd_client.transport.launcher import is_locked

    os.kill(int(lock_path().read_text()), signal.SIGKILL)
    start = time.perf_counter()
    while is_locked(lock_path()):
        if time.perf_counter() - start > DEADLINE:
            raise MeasurementError("the daemon does not die")
        time.sleep(0.001)
    with served() as address:
        sender = Sender(address, Shape(1, 1, BURST_BYTES), 1, run)
        send([sender], [len(sender.records)])
    return time.perf_counter() - start


def _events(run: Path) -> int:
    """Events in the files of a run."""
    count = 0
    for path in run.glob("*tfevents*"):
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            count += sum(1 for _ in event_files.events(data))
    return count


QUESTION = Question(
    name="recovery",
    title="seconds from a daemon's death until the next record is in the file",
    notes=(
        "A real daemon writes a run of that many scalars, each with a step of its own or together with the others "
        "of its step, and is killed. Another one is started at once and gets one record for that run, of a new "
        "session. The time lasts until this record is acknowledged and includes the start of the process. It is "
        "measured with the checkpoint that the first daemon has left, and without one. For comparison: a record "
        "for a new run."
    ),
    figures=(
        Figure("kept_s", "with a checkpoint", "s", compared=False),
        Figure("lost_s", "without one", "s", compared=False),
        Figure("nothing_s", "to a new run", "s", compared=False),
    ),
    full={"records": 10**7, "tags": 10**5},
    quick={"records": 20_000, "tags": 1000},
    measure=measure,
    peers={name: PEERS[BASE].named(name) for name in CASES},
    rounds_max=2,
)
