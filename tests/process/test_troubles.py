"""What is missing and what stands still is told in the log: once, with what to do, and once when it goes on."""

from __future__ import annotations

import fcntl
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import World, scalars, wait_for
from tbxd import drop_reasons
from tbxd.process import incident_log
from tbxd.process.incident_log import LOOK_SECONDS, STALL_SECONDS, Troubles


def serve_logging(place: World) -> None:
    """A daemon whose log is in a file."""
    with (place.root / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "tbxd", "serve"], env=place.environ, stderr=log)
    place.processes.append(process)
    wait_for(lambda: place.running() == process.pid, "the daemon")


def told(place: World) -> list[str]:
    return (place.root / "log").read_text().splitlines()


DROPS = """
    import numpy as np
    from tbxd_client import SummaryWriter
    for name in "ab":
        with SummaryWriter(f"logs/{name}") as writer:
            for step in range(300):
                writer.add_histogram("nothing", np.array([np.nan]), step)
                writer.add_scalar("loss", 0.5, step)
                if step % 100 == 0:
                    writer.flush()
"""


def test_a_reason_for_drops_is_told_once_for_a_run_with_what_to_do_also_over_restarts(place: World) -> None:
    serve_logging(place)
    assert place.run(DROPS).returncode == 0
    wait_for(place.drained, "the journals to be drained")
    lines = [line for line in told(place) if "dropped" in line]
    assert len(lines) == 2, lines
    for name, line in zip("ab", sorted(lines, key=lambda line: "/b:" in line), strict=True):
        assert f"logs/{name}: " in line and "no_finite_values" in line and "look at the model" in line
    assert place.tbxd("stop").returncode == 0
    serve_logging(place)
    assert place.run(DROPS).returncode == 0
    wait_for(place.drained, "the journals to be drained")
    assert not [line for line in told(place) if "dropped" in line], "the run's event files say that it was told"


def test_a_run_that_cannot_be_written_is_told_once_and_once_when_it_goes_on(place: World) -> None:
    serve_logging(place)
    folder = place.logdir / "a"
    folder.mkdir(parents=True)
    held = os.open(folder, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    trainer = place.start(
        """
        import time
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        for step in range(400):
            writer.add_scalar("loss", 0.5, step)
            time.sleep(0.01)
        writer.close()
        """
    )
    wait_for(lambda: [line for line in told(place) if "cannot be written" in line], "it to be told")
    status = place.status()
    assert status is not None and status["metrics"]["runs_held_up"] == 1 and status["metrics"]["queued_batches"] > 0
    wait_for(lambda: (place.status() or {})["metrics"]["lag_seconds"] > 2.5, "several more attempts")
    (line,) = [line for line in told(place) if "cannot be written" in line]
    assert "another tbxd daemon is writing this folder" in line and "To do: " in line and "WARNING" in line
    os.close(held)
    wait_for(lambda: [line for line in told(place) if "it is written again" in line], "it to go on")
    assert trainer.wait() == 0
    wait_for(place.drained, "the journal to be drained")
    assert len(scalars(folder)["loss"]) == 400
    assert len([line for line in told(place) if "logs/a" in line]) == 2, told(place)


def lines_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return lines


def test_a_write_that_does_not_come_back_and_threads_that_hang_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    seen, now = Troubles(), 1000.0
    for _ in range(int(STALL_SECONDS / LOOK_SECONDS)):
        seen.look(now, True, [("runs/a", "", 1000.0), ("runs/b", "", 0.0)])
        now += LOOK_SECONDS
    assert not lines_of(caplog)
    for _ in range(10):
        now += LOOK_SECONDS
        seen.look(now, False, [("runs/a", "", 1000.0), ("runs/b", "", 0.0)])
    stuck, line = lines_of(caplog)
    assert "nothing is written" in stuck and "To do: bring the disks back" in stuck
    assert line.startswith("runs/a: a write has not returned for 3") and "To do: " in line
    seen.look(now, False, [("runs/a", "No space left on device", now)])
    assert not lines_of(caplog), "it is looked at once in a second"
    now += LOOK_SECONDS
    seen.look(now, True, [("runs/a", "No space left on device", now)])
    again, wrong, back = lines_of(caplog)
    assert "make progress again" in again and "make room on that disk" in wrong and "has returned" in back
    for error in ("No space left on device", "fsync: Input/output error", "No space left on device"):
        now += LOOK_SECONDS
        seen.look(now, True, [("runs/a", error, 0.0)])
    (other,) = lines_of(caplog)
    assert "look at the kernel's log" in other
    now += LOOK_SECONDS
    seen.look(now, True, [("runs/a", "", 0.0)])
    assert lines_of(caplog) == ["runs/a: it is written again"]


def test_every_reason_has_a_hint_and_every_error_something_to_do() -> None:
    guarantees = (Path(__file__).parents[2] / "docs" / "GUARANTEES.md").read_text()
    table = guarantees.split("| reason | counted by |")[1].split("\n\n")[0]
    reasons = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
    assert drop_reasons.HINTS.keys() == reasons
    assert incident_log.advice("some new error") == incident_log.ELSE
    assert "ulimit -n" in incident_log.advice(os.strerror(24)) and "room" in incident_log.advice(os.strerror(28))
