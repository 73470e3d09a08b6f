"""What is written is on the disk as soon as the setting says, also while more is written all the time."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.syncs import TRAINER, Load, watching
from benchmarks.syncs import gaps as gaps_of
from harness import World, absent, wait_for

SECONDS = 1.0  # TBXD_SYNC_SECONDS
LOGGED_SECONDS = 8.0
ATTEMPTS = 3  # a daemon that waits too long does so in each
SLACK = 0.25  # of a machine that does something else, too

STEADY = """
import sys, time
from tbxd_client import SummaryWriter
writer = SummaryWriter(sys.argv[1])
end = time.monotonic() + float(sys.argv[2])
step = 0
while time.monotonic() < end:
    for tag in range(5):
        writer.add_scalar(f"tag/{tag}", 0.5, step)
    step += 1
    time.sleep(0.01)
"""


def gaps(strace: str) -> list[float]:
    """Seconds between the syncs of a run of `STEADY`, of which strace has told."""
    times = [float(time) for time in re.findall(r"^\d+ +(\d+\.\d+) fdatasync", strace, re.M)]
    return [after - before for before, after in pairwise(times)]


@pytest.mark.parametrize("batch_ms", [0, 100])
def test_the_longest_time_between_two_syncs_under_steady_load_is_what_is_promised(
    place: World, tmp_path: Path, batch_ms: int
) -> None:
    """In one of a few attempts: a machine that is busy lets a disk or a thread wait for seconds, whoever asks."""
    if shutil.which("strace") is None:
        absent("strace is not installed")
    log = tmp_path / "calls"
    daemon = subprocess.Popen(
        [
            *("strace", "-f", "-ttt", "-e", "trace=fdatasync", "-o", str(log)),
            *(sys.executable, "-m", "tbxd", "serve"),
        ],
        env={**place.environ, "TBXD_SYNC_SECONDS": str(SECONDS), "TBXD_BATCH_MS": str(batch_ms)},
    )
    place.processes.append(daemon)
    wait_for(place.running, "the daemon")
    found: list[list[float]] = []
    for attempt in range(ATTEMPTS):
        before = len(log.read_text())
        trainer = place.start(STEADY, place.logdir / f"run{attempt}", LOGGED_SECONDS)
        assert trainer.wait(60) == 0
        assert daemon.poll() is None
        found.append(gaps(log.read_text()[before:]))
        if len(found[-1]) >= LOGGED_SECONDS / SECONDS / 1.3 - 1 and max(found[-1]) <= 1.2 * SECONDS + SLACK:
            return
    pytest.fail(f"the gaps of {ATTEMPTS} attempts: {found}")


LOADS = {"many runs": Load(1, 60, 1, 10), "clients that log as fast as they can": Load(4, 1, 1, 0)}


@pytest.mark.parametrize("load", LOADS)
def test_many_runs_and_clients_in_a_hurry_are_synced_as_often(place: World, tmp_path: Path, load: str) -> None:
    """As above; a disk is asked by whoever writes the most, too."""
    if shutil.which("strace") is None:
        absent("strace is not installed")
    shape, found = LOADS[load], []
    place.extra |= {"TBXD_SYNC_SECONDS": str(SECONDS)}
    for attempt in range(ATTEMPTS):
        log = tmp_path / f"calls{attempt}"
        daemon = subprocess.Popen([*watching(log), sys.executable, "-m", "tbxd", "serve"], env=place.environ)
        place.processes.append(daemon)
        wait_for(place.running, "the daemon")
        numbers = (LOGGED_SECONDS / 2, shape.runs, shape.tags, shape.hertz)
        trainers = [
            place.start(TRAINER, place.logdir / f"{attempt}-{number}", *numbers) for number in range(shape.trainers)
        ]
        assert not any(trainer.wait(60) for trainer in trainers)
        assert place.tbxd("stop").returncode == 0 and daemon.wait(60) == 0
        found.append(gaps_of(log.read_text()))
        assert found[-1].syncs >= shape.trainers * shape.runs * LOGGED_SECONDS / 2 / SECONDS / 2
        if found[-1].longest <= 1.2 * SECONDS + SLACK:
            return
    pytest.fail(f"the gaps of {ATTEMPTS} attempts: {found}")
