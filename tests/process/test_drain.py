"""`tbxd drain`: what remains is said, with who or what keeps it, soon, and with an exit code; each kind of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import World, scalars, wait_for
from hosts import Hosts, expected, hosts
from tbxd_client.journal.journal_files import journals
from tbxd_client.transport.launcher import is_locked

BYTES = 1000 * 34
LEFT = """
    import ctypes, os, sys
    from tbxd_client import SummaryWriter
    writer = SummaryWriter(sys.argv[1])
    for step in range(1000):
        writer.add_scalar("value", step * 3, step)
    if len(sys.argv) > 2:  # a helper that nothing in Python knows of: it inherits all that is open
        libc = ctypes.PyDLL(None)  # keeps the GIL: in the child nobody is left who could give it back
        pid = libc.fork()
        if not pid:
            os.close(1)
            os.close(2)
            libc.pause()
        print(pid, flush=True)
    os._exit(0)
"""
LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\d .* (INFO|WARNING|ERROR) ", re.M)


@pytest.fixture
def nobody(place: World) -> dict[str, str]:
    """The environment of a script whose records wait, for nobody answers it."""
    return {"TBXD_ADDRESS": f"ipc://{place.root}/nobody.sock", "TBXD_FLUSH_SECONDS": "0"}


@pytest.fixture
def far(place: World) -> Iterator[Hosts]:
    """A daemon's host, and another."""
    with hosts(place) as result:
        yield result


def leave(place: World, nobody: dict[str, str], *arguments: str) -> str:
    result = place.run(LEFT, place.logdir / "a", *arguments, environ=nobody)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def drain(place: World, *arguments: str) -> tuple[int, str, str]:
    result = place.tbxd("drain", *arguments)
    assert not LOG_LINE.search(result.stderr + result.stdout), "the daemon's log lines are its own"
    return result.returncode, result.stdout, result.stderr


def test_a_drain_that_ends_well_says_so_and_nothing_of_the_daemons_log(place: World, nobody: dict[str, str]) -> None:
    leave(place, nobody)
    assert drain(place) == (0, f"{BYTES:,} bytes of records were written\n", "")
    assert "listens at" in (place.runtime / "daemon.log").read_text()


def test_a_journal_that_a_helper_of_its_script_holds_is_not_passed_over(place: World, nobody: dict[str, str]) -> None:
    """It was "0 bytes" and exit code 0, with the records still there."""
    helper = int(leave(place, nobody, "helper"))
    try:
        (journal,) = journals(place.spool)
        assert is_locked(journal / "control")
        begun = time.monotonic()
        code, out, err = drain(place, "--wait", "2")
        assert code == 1 and f"{BYTES:,} bytes in 1 journal still wait" in out, (out, err)
        assert f"is gone, and pid {helper} ({sys.executable}" in out and f"(kill {helper})" in out
        assert f"(kill {helper})" in err, "it is said on the way"
        assert 2 <= time.monotonic() - begun < 20
        waiting = subprocess.Popen(
            [sys.executable, "-m", "tbxd", "drain", "--json"], env=place.environ, stdout=-1, stderr=-1, text=True
        )
        place.processes.append(waiting)  # type: ignore[arg-type]
        assert waiting.stderr is not None and f"kill {helper}" in waiting.stderr.readline()
    finally:
        os.kill(helper, signal.SIGKILL)
    told = json.loads(waiting.communicate(timeout=60)[0])
    assert waiting.returncode == 0 and told["written"] == BYTES and told["complete"] and not told["reasons"]
    assert scalars(place.logdir / "a")["value"] == expected(1000)


def test_the_journal_of_a_script_that_lives_is_left_to_it(place: World, nobody: dict[str, str]) -> None:
    trainer = place.start(
        LEFT.replace("os._exit(0)", "print('logged', flush=True); sys.stdin.read()"),
        place.logdir / "a",
        environ=nobody,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert trainer.stdout is not None and trainer.stdout.readline() == b"logged\n"
    code, out, err = drain(place, "--wait", "0")
    assert (code, err) == (0, "") and "1 journal left to the script, which lives and sends by itself" in out
    trainer.kill()
    trainer.wait()
    assert drain(place)[0] == 0  # by now, or by the daemon of the first time, which may be there yet
    assert scalars(place.logdir / "a")["value"] == expected(1000)


def test_what_cannot_be_written_is_said_within_two_seconds(place: World, nobody: dict[str, str]) -> None:
    leave(place, nobody)
    (place.logdir / "a").rmdir()
    (place.logdir / "a").write_text("a file where the folder of the run should be")
    place.ensure()
    process = subprocess.Popen(
        [sys.executable, "-m", "tbxd", "drain", "--wait", "6"], env=place.environ, stdout=-1, stderr=-1, text=True
    )
    place.processes.append(process)  # type: ignore[arg-type]
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line == f"tbxd: {place.logdir / 'a'}: Not a directory\n" and process.poll() is None
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 1 and f"{BYTES:,} bytes in 1 journal still wait" in out and "Not a directory" in out


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk_is_said_while_it_is_waited_for(place: World, nobody: dict[str, str]) -> None:
    leave(place, nobody)
    folder = place.logdir / "a"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip("no permission to mount a small disk")
    try:
        with (folder / "fill").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))
        code, out, err = drain(place, "--wait", "6")
        assert code == 1 and "No space left on device" in err and "No space left on device" in out, (out, err)
        (folder / "fill").unlink()
        again = drain(place)
        assert again[0] == 0 and scalars(folder)["value"] == expected(1000), again
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_what_was_put_aside_or_cannot_be_read_remains_and_is_said(place: World, nobody: dict[str, str]) -> None:
    leave(place, nobody)
    (journal,) = journals(place.spool)
    (journal / "definitions").write_bytes(b"\xff" * 64)
    code, out, _ = drain(place, "--wait", "0")
    assert code == 1 and "1 invalid journals were put aside" in out
    assert drain(place)[:2] == (
        0,
        "0 bytes of records were written\n1 journals were put aside earlier (`tbxd doctor`)\n",
    )
    wait_for(lambda: not place.running(), "the daemon of that drain to leave, which would take what is left next")
    leave(place, nobody)
    (journal,) = journals(place.spool)
    (journal / "control").write_bytes(b"another version")
    code, out, _ = drain(place, "--wait", "0")
    assert code == 1 and f"{journal}: the control page has 15 bytes" in out, out
    control = journal / "control"
    control.unlink()
    control.symlink_to("/etc/passwd")
    code, out, _ = drain(place, "--wait", "0")
    assert code == 1 and "Too many levels of symbolic links" in out


def test_what_is_for_a_daemon_of_another_host_is_named_with_its_address(far: Hosts) -> None:
    place, key = far.place, far.key("gpu17")
    assert far.log(key, place.logdir / "far", 0, 1000, "kill").returncode == -signal.SIGKILL
    place.extra |= {name: value for name, value in far.environ(key).items() if name != "TBXD_ADDRESS"}
    code, out, _ = drain(place, "--wait", "0")
    assert code == 1 and f"{BYTES:,} bytes in 1 journal are for the daemon of another host" in out
    assert f"TBXD_ADDRESS={far.address} tbxd drain" in out


def test_a_quota_and_another_drain_and_a_daemon_that_is_not_there_are_said(far: Hosts) -> None:
    place, key = far.place, far.key("gpu17")
    assert far.log(key, place.logdir / "far", 0, 1000, "kill").returncode == -signal.SIGKILL
    here, there = dict(place.extra), far.environ(key)
    place.extra |= there
    code, out, err = drain(place, "--wait", "3")
    assert code == 1 and f"no daemon answers at {far.address}: the connection is refused" in out
    assert "the connection is refused" in err and "the key 'gpu17'" in err
    place.extra = here | {"TBXD_KEY_BYTES_DAY": "10000"}
    far.serve()
    place.extra |= there
    code, out, err = drain(place, "--wait", "4")
    assert code == 1 and "key gpu17: quota used up; continues in" in out + err, (out, err)
    first = subprocess.Popen(
        [sys.executable, "-m", "tbxd", "drain", "--wait", "60"], env=place.environ, stdout=-1, stderr=-1
    )
    place.processes.append(first)
    (journal,) = wait_for(lambda: list(place.root.glob("far/spool/remote/*/*")), "the journal")
    wait_for(lambda: is_locked(journal / "control"), "the first drain to take it")
    code, out, _ = drain(place, "--wait", "1")
    assert code == 1 and f"it is being written by pid {first.pid} (" in out and "still wait" in out, out
    first.kill()


def test_a_journal_is_waited_for_while_nobody_can_tell_who_holds_it(place: World, nobody: dict[str, str]) -> None:
    """A holder that has closed its eyes to us: here, one without a name in /proc for its descriptor."""
    leave(place, nobody)
    (journal,) = journals(place.spool)
    hardlink: Path = place.root / "elsewhere"
    os.link(journal / "control", hardlink)
    script = "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); time.sleep(600)"
    holder: Any = place.start(script, hardlink)
    wait_for(lambda: is_locked(journal / "control"), "the lock")
    code, out, _ = drain(place, "--wait", "1")
    assert code == 1 and "locked by a process that cannot be seen from here" in out, out
    holder.kill()
    holder.wait()
    assert drain(place)[0] == 0
