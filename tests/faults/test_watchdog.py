"""A daemon all of whose threads hang on a disk does not feed its watchdog, and loses nothing by what follows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness import World, scalars, wait_for, world
from inject import injected, tampered
from manager import manager

WATCHDOG_SECONDS = 3.0
# The limit is 256 threads; three hang sooner.
FEW_THREADS = """
import sys
import tbxd.process.io_pool
tbxd.process.io_pool.THREADS_MAX = 3
from tbxd.cli.main import main
main(sys.argv[1:], "tbxd")
"""
LOG = """
    import sys
    from tbxd_client import SummaryWriter
    for run in range(5):
        SummaryWriter(f"logs/{run}").add_scalar("value", 0, 0)
    assert SummaryWriter("logs/4").flush(60)
    print("written", flush=True)
    for step in range(1, 101):
        sys.stdin.readline()
        for run in range(5):
            SummaryWriter(f"logs/{run}").add_scalar("value", step, step)
    assert SummaryWriter("logs/4").flush(60)
"""


def daemon(place: World, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", FEW_THREADS, "serve", "--threads", "1", "--sync-seconds", "0.2"],
        env={**place.environ, **environ},
    )
    place.processes.append(process)
    return process


@pytest.mark.long
def test_a_pool_whose_threads_all_hang_does_not_feed_the_watchdog(tmp_path: Path) -> None:
    with world(tmp_path / "world") as place, manager(tmp_path) as systemd:
        process = daemon(place, systemd.environ(WATCHDOG_SECONDS))
        systemd.wait("READY=1")
        trainer = place.start(LOG, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert trainer.stdin is not None and trainer.stdout is not None
        assert trainer.stdout.readline() == b"written\n"
        log = place.root / "strace"
        with tampered(process.pid, "?fdatasync,?fsync", "delay_enter=600000000", log):
            trainer.stdin.write(b"\n" * 50)
            trainer.stdin.flush()
            said = systemd.wait("STATUS=", 120)
            while "every thread hangs on a disk" not in said:
                said = systemd.wait("STATUS=", 120)
            assert injected(log) or log.read_text().count("sync(") >= 3
            systemd.drop()
            assert not systemd.fed(2 * WATCHDOG_SECONDS)
            assert place.status() is not None, "it answers still, but does not write"
            process.kill()  # as the manager does
        process.wait()
        daemon(place, systemd.environ(WATCHDOG_SECONDS))
        systemd.wait("READY=1")
        assert systemd.fed(5 * WATCHDOG_SECONDS)
        trainer.stdin.write(b"\n" * 50)
        trainer.stdin.close()
        assert trainer.wait(120) == 0
        wait_for(place.drained, "the journal")
        for run in range(5):
            assert scalars(place.logdir / str(run)) == {"value": [(step, float(step)) for step in range(101)]}
