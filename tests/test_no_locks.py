"""A runtime folder on a file system without locks: there is no daemon, and each who looks for one is told why."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence

import pytest

from faults.inject import strace
from harness import World, scalars

LOG = """
    from tbxd_client import SummaryWriter
    writer = SummaryWriter("logs/a")
    for step in range(100):
        writer.add_scalar("value", step, step)
    print(writer.flush(8))
"""


def without_locks(place: World, code: str) -> Sequence[str]:
    """The command that runs another one whose ``flock`` fails in the runtime folder, as on such a file system."""
    run = place.runtime
    run.mkdir(mode=0o700, exist_ok=True)
    others = [word for name in ("launch.lock", "daemon.lock") for word in ("-P", str(run / name))]
    command = strace("flock", f"error={code}", place.root / "strace.log", run)
    return [command[0], *others, *command[1:]]


@pytest.mark.parametrize("code", ["ENOLCK", "EOPNOTSUPP", "ENOSYS"])
def test_without_locks_there_is_no_daemon_and_everybody_is_told_why(place: World, code: str) -> None:
    said = os.strerror(getattr(errno, code)) + ": its file system has no locks (flock), and a daemon needs one; set "
    said += "TBXD_RUNTIME_DIR to a folder on a local disk"
    trainer = place.start(
        LOG, under=without_locks(place, code), stdout=-1, stderr=-1, environ={"TBXD_FLUSH_SECONDS": "0"}
    )
    out, err = trainer.communicate(timeout=60)
    assert trainer.returncode == 0 and out == b"False\n"
    text = err.decode()
    assert text.count("cannot start the daemon:") == 1 and f"{place.runtime}/launch.lock: {said}" in text, text
    if code == "ENOLCK":
        for command, exit_code in (("serve", 1), ("status", 3), ("drain", 1)):
            result = place.tbxd(*command.split(), under=without_locks(place, code))
            assert result.returncode == exit_code and said in result.stderr + result.stdout, (command, result)
        result = place.tbxd("doctor", "--json", under=without_locks(place, code))
        (found,) = [one for one in json.loads(result.stdout) if one["what"] == "locks"]
        assert found["level"] == "trouble" and "has no locks (flock)" in found["found"] and result.returncode == 1
        assert "TBXD_RUNTIME_DIR" in found["advice"]
    assert place.tbxd("drain").returncode == 0, "nothing is lost of it"
    assert len(scalars(place.logdir / "a")["value"]) == 100


def test_what_is_no_lock_of_somebody_else_is_not_taken_for_one(place: World) -> None:
    script = """
        import sys
        from pathlib import Path
        from tbxd_client.launch import is_locked
        print(is_locked(Path(sys.argv[1])))
    """
    under = without_locks(place, "ENOLCK")
    (place.runtime / "daemon.lock").touch()
    process = place.start(script, place.runtime / "daemon.lock", under=under, stdout=-1)
    assert process.communicate(timeout=60)[0] == b"False\n"
