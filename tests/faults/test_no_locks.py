"""A runtime folder on a file system without locks: the daemon is in another, and who looks for it is told why."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Sequence

import pytest

from faults.inject import strace
from harness import World, scalars
from tbxd_client.config.paths import runtimes

LOG = """
    from tbxd_client import SummaryWriter
    writer = SummaryWriter("logs/a")
    for step in range(100):
        writer.add_scalar("value", step, step)
    print(writer.flush(30))
"""


def without_locks(place: World, code: str) -> Sequence[str]:
    """The command that runs another one whose ``flock`` fails in the runtime folder, as on such a file system."""
    run = place.runtime
    run.mkdir(mode=0o700, exist_ok=True)
    others = [word for name in ("launch.lock", "daemon.lock") for word in ("-P", str(run / name))]
    command = strace("flock", f"error={code}", place.root / "strace.log", run)
    return [command[0], *others, *command[1:]]


@pytest.mark.parametrize("code", ["ENOLCK", "EOPNOTSUPP", "ENOSYS"])
def test_without_locks_another_place_is_taken_and_everybody_finds_it_and_says_why(place: World, code: str) -> None:
    """There was no daemon for as long as the script ran, and nobody said why."""
    said = os.strerror(getattr(errno, code)) + ": its file system has no locks (flock), and a daemon needs one; set "
    said += "TBXD_RUNTIME_DIR to a folder on a local disk"
    instead = runtimes(place.runtime)[1]
    place.extra["TBXD_IDLE_SECONDS"] = "60"
    under = without_locks(place, code)
    try:
        trainer = place.start(LOG, under=under, stdout=-1, stderr=-1)
        assert trainer.stdout is not None and trainer.stdout.readline() == b"True\n"
        assert len(scalars(place.logdir / "a")["value"]) == 100
        if code == "ENOLCK":
            assert f"ipc://{instead}/daemon.sock" in place.tbxd("status", under=under).stdout
            result = place.tbxd("doctor", "--json", under=under)
            (found,) = [one for one in json.loads(result.stdout) if one["level"] != "ok"]
            assert found["what"] == "runtime folder" and found["level"] == "warning" and said in found["found"]
            assert f"{instead} is used" in found["found"] and result.returncode == 0
            assert place.tbxd("drain", under=under).returncode == 0
        assert place.tbxd("stop", under=under).returncode == 0
        err = trainer.communicate(timeout=60)[1]  # strace waits for the daemon, too
        assert err.decode() == f"tbxd: {place.runtime}: {said}. Until then the daemon is in {instead}\n"
    finally:
        shutil.rmtree(instead, ignore_errors=True)


def test_what_is_no_lock_of_somebody_else_is_not_taken_for_one(place: World) -> None:
    script = """
        import sys
        from pathlib import Path
        from tbxd_client.transport.launcher import is_locked
        print(is_locked(Path(sys.argv[1])))
    """
    under = without_locks(place, "ENOLCK")
    (place.runtime / "daemon.lock").touch()
    process = place.start(script, place.runtime / "daemon.lock", under=under, stdout=-1)
    assert process.communicate(timeout=60)[0] == b"False\n"
