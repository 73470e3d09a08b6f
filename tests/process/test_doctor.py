"""`tbxd doctor`: each thing that goes wrong is made to, and found with what to do."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness import World, wait_for
from tbxd import __version__
from tbxd_client.journal.journal_files import journals
from tbxd_client.transport.launcher import is_locked


def doctor(place: World, *arguments: object, code: int | None = None, **environ: str) -> list[dict[str, Any]]:
    """Return the doctor's findings, with the expected exit code."""
    place.extra.update(environ)
    result = place.tbxd("doctor", "--json", *map(str, arguments))
    for name in environ:
        del place.extra[name]
    assert result.stdout, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)
    assert result.returncode == int(any(finding["level"] == "trouble" for finding in found))
    assert code is None or result.returncode == code, found
    assert all(finding["advice"] for finding in found if finding["level"] != "ok")
    return found


def bad(found: list[dict[str, Any]]) -> list[tuple[str, str, str, str]]:
    return [tuple(finding.values()) for finding in found if finding["level"] != "ok"]  # type: ignore[misc]


def one(found: list[dict[str, Any]], what: str) -> tuple[str, str, str]:
    """Level, what was found and the advice of the one thing that is not well."""
    ((name, level, text, advice),) = bad(found)
    assert name == what
    return level, text, advice


LOG = """
    import sys
    from tbxd_client import SummaryWriter
    with SummaryWriter("logs/a") as writer:
        for step in range(100):
            writer.add_scalar("loss", step, step)
"""


def test_all_is_well_before_the_first_run_while_a_daemon_runs_and_after_it(place: World) -> None:
    before = doctor(place, code=0)
    assert not bad(before), bad(before)
    daemon = place.serve()
    assert place.run(LOG).returncode == 0
    during = doctor(place, code=0)
    assert not bad(during), bad(during)
    texts = {finding["what"]: finding["found"] for finding in during}
    assert f"{__version__}, pid {daemon.pid}" in texts["daemon"] and "1 runs" in texts["daemon"]
    assert texts["log folder"].startswith(str(place.logdir / "a"))
    assert "libzmq" in texts["versions"] and "with locks and maps" in texts["spool's disk"]
    assert not list(place.spool.glob(".doctor-*"))
    assert place.tbxd("stop").returncode == 0
    after = doctor(place, place.logdir, code=0)
    assert not bad(after), bad(after)
    assert place.tbxd("doctor").stdout.splitlines()[-1] == "all well"


def test_settings_that_are_unknown_or_make_no_sense_are_said(place: World) -> None:
    level, found, advice = one(doctor(place, TBXD_BATCHMS="5"), "environment")
    assert level == "warning" and "TBXD_BATCHMS" in found and "TBXD_BATCH_MS?" in advice
    level, found, advice = one(doctor(place, code=1, TBXD_BATCH_MS="soon"), "environment")
    assert level == "trouble" and "no daemon starts with it" in found and advice == "0 to 60000 are possible"
    level, found, _ = one(doctor(place, code=1, TBXD_JOURNAL_BYTES="5"), "environment")
    assert level == "trouble" and "the default is used" in found
    level, found, advice = one(doctor(place, code=1, TBXD_SYNC="now"), "environment")
    assert level == "trouble" and "TBXD_SYNC='now'" in found and "always" in advice
    level, found, advice = one(doctor(place, TBXD_REDUCE="tokens=sum,loss=total"), "environment")
    assert level == "warning" and found.endswith(": loss=total is not used") and "mean|sum" in advice
    assert not bad(doctor(place, TBXD_RANK="1", TBXD_WORLD_SIZE="2", TBXD_REDUCE="a=p99"))
    level, found, _ = one(doctor(place, TBXD_JOURNAL_SHARES="image=50,pictures=7"), "environment")
    assert level == "warning" and "pictures=7 is not used" in found
    assert not bad(doctor(place, TBXD_STRICT="off", TBXD_JOURNAL_SHARES="image=50"))


def test_an_address_that_no_socket_can_have_is_said(place: World) -> None:
    level, found, _ = next(iter({item[1:] for item in bad(doctor(place, TBXD_ADDRESS="ipc:///" + "x" * 120))}))
    assert level == "trouble" and "at most 107 bytes" in found
    long = place.root / ("r" * 120)
    assert not bad(doctor(place, TBXD_RUNTIME_DIR=str(long)))  # its socket is elsewhere then


def test_a_daemon_that_listens_elsewhere_is_well_and_the_address_is_wrong(place: World) -> None:
    """It was told to be killed."""
    right = f"ipc://{place.runtime}/daemon.sock"
    daemon = place.serve()
    for wrong in (f"ipc://{place.root}/other.sock", "tcp://127.0.0.1:9", "tcp://nosuchhost.invalid:7007"):
        found_all = bad(doctor(place, code=1, TBXD_ADDRESS=wrong))
        assert not [advice for *_, advice in found_all if "kill" in advice], found_all
        ((_, level, found, advice),) = [one for one in found_all if one[0] == "daemon"]
        assert level == "trouble" and wrong in found and f"pid {daemon.pid}, " in found, found
        assert found.endswith(f"runs, and listens at {right}") and "(TBXD_ADDRESS)" in advice and right in advice
    assert place.tbxd("stop").returncode == 0
    # And the other way round: the daemon has an address of its own, which nobody has been told.
    other = f"ipc://{place.root}/own/daemon.sock"
    (place.root / "own").mkdir(mode=0o700)
    process = place.start(
        "import sys; sys.argv[0] = 'tbxd'; from tbxd.cli.main import main; main()", "serve", "--address", other
    )
    wait_for(lambda: place.tbxd("status", "--address", other).returncode == 0, "the daemon")
    level, found, advice = one(doctor(place, code=1), "daemon")
    assert level == "trouble" and found.endswith(f"runs, and listens at {other}")
    assert advice == f"export TBXD_ADDRESS={other}, for scripts and commands"
    assert process.poll() is None and not bad(doctor(place, TBXD_ADDRESS=other))


def test_what_can_be_no_address_is_said_and_the_rest_is_looked_at_all_the_same(place: World) -> None:
    daemon = place.serve()
    found = doctor(place, code=1, TBXD_ADDRESS="localhost:7999", TBXD_CONFIG="relative.toml")
    troubles = [item for item in bad(found) if item[0] == "settings"]
    assert "TBXD_ADDRESS is 'localhost:7999'" in troubles[0][2] and "TBXD_CONFIG='relative.toml'" in troubles[1][2]
    assert f"pid {daemon.pid}" in next(item["found"] for item in found if item["what"] == "daemon")


def test_a_log_folder_that_was_named_and_is_not_there_is_said(place: World) -> None:
    (place.logdir / "runs").mkdir(parents=True)
    level, found, advice = one(doctor(place, place.logdir / "rums", code=1), "log folder")
    assert level == "trouble" and found == f"{place.logdir / 'rums'} does not exist" and "is runs meant?" in advice
    (place.logdir / "link").symlink_to("nowhere")
    _, found, _ = one(doctor(place, place.logdir / "link", code=1), "log folder")
    assert found.endswith("is a link to nowhere, which does not exist")


def test_folders_that_are_not_this_users_own_are_said(place: World) -> None:
    place.runtime.write_text("a file")
    level, found, _ = one(doctor(place), "runtime folder")
    assert level == "warning" and "is not a folder; it is not used: " in found and " is used" in found
    place.runtime.unlink()
    place.runtime.symlink_to(place.root)
    assert "is not a folder but a link" in one(doctor(place), "runtime folder")[1]
    place.runtime.unlink()
    place.spool.mkdir(mode=0o755)
    level, found, advice = one(doctor(place), "spool")
    assert level == "warning" and "0755" in found and advice == f"chmod 700 {place.spool}"
    if os.getuid() == 0:
        os.chown(place.spool, 12345, 0)
        found = one(doctor(place), "spool")[1]
        assert "belongs to uid 12345" in found and "journals are made in /" in found


def test_what_is_no_socket_is_said(place: World) -> None:
    place.runtime.mkdir(mode=0o700)
    path = place.runtime / "daemon.sock"
    path.write_text("a file")
    level, found, advice = one(doctor(place, code=1), "socket")
    assert level == "trouble" and "is not a socket" in found and advice == f"rm {path}"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as left:  # as a killed daemon leaves it: harmless
        left.bind(str(path))
    assert not bad(doctor(place))


def test_a_daemon_that_is_stopped_is_said(place: World) -> None:
    daemon = place.serve()
    daemon.send_signal(signal.SIGSTOP)
    try:
        level, found, advice = one(doctor(place, code=1), "daemon")
        assert level == "trouble" and found == f"pid {daemon.pid} is stopped" and advice == f"kill -CONT {daemon.pid}"
    finally:
        daemon.send_signal(signal.SIGCONT)
    assert not bad(doctor(place))


@contextmanager
def holding(place: World, path: Path) -> Iterator[int]:
    """Another process holds a lock file."""
    script = "import fcntl, sys, time; file = open(sys.argv[1], 'w'); fcntl.flock(file, fcntl.LOCK_EX); time.sleep(600)"
    process = place.start(script, path)
    wait_for(lambda: is_locked(path), "the lock")
    yield process.pid
    process.kill()
    process.wait()


def test_locks_that_somebody_else_holds_are_said(place: World) -> None:
    place.runtime.mkdir(mode=0o700)
    with holding(place, place.runtime / "daemon.lock") as pid:
        level, found, advice = one(doctor(place, code=1), "daemon")
        assert level == "trouble" and f"held by pid {pid}, which is not a daemon" in found and f"kill {pid}" in advice
    with holding(place, place.runtime / "launch.lock") as pid:
        level, found, _ = one(doctor(place), "locks")
        assert level == "warning" and f"pid {pid} starts a daemon" in found


def test_journals_that_wait_for_nobody_or_make_no_sense_are_said(place: World) -> None:
    left = LOG.replace("with SummaryWriter", "import os\n    with SummaryWriter") + "        os._exit(0)\n"
    place.run(left, environ={"TBXD_ADDRESS": f"ipc://{place.root}/nobody.sock"})
    level, found, advice = one(doctor(place), "journals")
    assert level == "warning" and "3,400 of them in 1 of ended scripts" in found and advice == "tbxd drain"
    (journal,) = journals(place.spool)
    (journal / "control").write_bytes(b"another version")
    found_all = bad(doctor(place, code=1))
    assert [item[1:3] for item in found_all] == [("trouble", f"{journal} cannot be read")]
    quarantine = place.spool / "quarantine"
    quarantine.mkdir()
    journal.rename(quarantine / journal.name)
    level, found, _ = one(doctor(place), "journals")
    assert level == "warning" and found == f"1 were put aside in {quarantine}"


def test_a_run_that_cannot_be_written_and_what_was_dropped_is_said(place: World) -> None:
    place.logdir.mkdir()
    (place.logdir / "a").write_text("a file where the folder of the run should be")
    place.serve()
    place.run(LOG, environ={"TBXD_FLUSH_SECONDS": "0"})

    def troubles() -> list[Any]:
        return [item for item in bad(doctor(place)) if item[0] == "runs"]

    ((_, level, found, _),) = wait_for(troubles, "the run's error")
    assert level == "trouble" and found == f"{place.logdir / 'a'}: Not a directory; 100 records wait"
    place.run(
        """
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/b") as writer:
            writer.add_histogram("nothing", [float("nan")], 1)
        """
    )
    dropped = wait_for(lambda: [item for item in troubles() if "dropped" in item[2]], "the drop")
    assert dropped[0][1:3] == ("warning", f"{place.logdir / 'b'}: dropped 1 no_finite_values")


def test_a_daemon_with_another_spool_is_said(place: World) -> None:
    place.serve()
    level, found, _ = one(doctor(place, TBXD_SPOOL=str(place.root / "other")), "daemon")
    assert level == "warning" and found == f"the daemon drains {place.spool}, not {place.root / 'other'}"


def test_a_daemon_of_another_version_is_said(place: World) -> None:
    script = (
        "import sys, tbxd.daemon.lifecycle; tbxd.daemon.lifecycle.__version__ = '0.0.1'\n"
        "sys.argv = ['tbxd', 'serve']; from tbxd.cli.main import main; main()"
    )
    place.start(script)
    wait_for(place.running, "the daemon")
    found = wait_for(lambda: bad(doctor(place)), "the version")
    assert len(found) == 1 and "0.0.1" in found[0][2] and found[0][3].startswith("tbxd stop;")


def test_event_files_from_the_future_are_said(place: World) -> None:
    (place.logdir / "run").mkdir(parents=True)
    path = place.logdir / "run" / f"events.out.tfevents.{int(time.time()) + 7200}.host.1.0"
    path.touch()
    level, found, _ = one(doctor(place, place.logdir), "its files' clock")
    assert level == "warning" and re.search(r"1 event files are from the future, .*0 by 7,\d{3} s", found)
    path.rename(path.with_name("events.out.tfevents.1000000000.host.1.0"))
    assert not bad(doctor(place, place.logdir))


def test_log_folders_that_cannot_be_used_are_said(place: World) -> None:
    place.logdir.write_text("a file")
    assert one(doctor(place, place.logdir, code=1), "log folder")[1] == f"{place.logdir} is not a folder"
    assert "you may not write" in one(doctor(place, place.logdir / "below", code=1), "log folder")[1]


@pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a small disk")
def test_disks_that_are_full_small_or_read_only_are_said(place: World) -> None:
    place.logdir.mkdir()
    place.spool.mkdir(mode=0o700)
    mounted = []
    try:
        for folder in (place.logdir, place.spool):
            options = "size=8m,mode=700"
            done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
            if done.returncode:
                pytest.skip("no permission to mount a small disk")
            mounted.append(folder)
        found = {what: (level, text) for what, level, text, _ in bad(doctor(place, place.logdir))}
        assert found["its space"][0] == found["spool's space"][0] == "warning"
        assert "a journal may take 268,435,456" in found["spool's space"][1]
        with (place.logdir / "fill").open("wb") as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(1 << 20))
        found = {what: (level, text) for what, level, text, _ in bad(doctor(place, place.logdir, code=1))}
        assert found["its space"] == ("trouble", f"0 bytes are free at {place.logdir}")
        subprocess.run(["mount", "-o", "remount,ro", place.logdir], check=True)
        found = {what: (level, text) for what, level, text, _ in bad(doctor(place, place.logdir, code=1))}
        assert found["its space"] == ("trouble", f"{place.logdir} is mounted read-only")
        subprocess.run(["mount", "-o", "remount,ro", place.spool], check=True)
        said = [(level, text, advice) for what, level, text, advice in bad(doctor(place, code=None)) if what == "spool"]
        level, text, advice = said[0]
        assert level == "warning" and text.startswith(f"{place.spool} is on a disk that is mounted read-only: "), said
        assert "set TBXD_SPOOL" in advice and not any("chmod" in advice for _, _, advice in said)
    finally:
        for folder in mounted:
            subprocess.run(["umount", "-l", folder], check=True)


def test_a_low_limit_of_descriptors_and_warnings_in_the_log_are_said(place: World) -> None:
    place.runtime.mkdir(mode=0o700)
    log = place.runtime / "daemon.log"
    log.write_text(
        "2026-01-01 00:00:00,000 INFO tbxd: well\n2026-01-01 00:00:01,000 WARNING tbxd.runs.run_writer: not well\n" * 9
    )
    command = f"ulimit -n 512; {sys.executable} -m tbxd doctor"
    result = subprocess.run(command, shell=True, env=place.environ, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and result.stdout.splitlines()[-1] == "2 warnings"
    assert "at most 512" in result.stdout and "LimitNOFILE=" in result.stdout
    assert f"the last of 9 warnings in {log}" in result.stdout
    assert result.stdout.count("WARNING tbxd.runs.run_writer: not well") == 5


def test_shared_memory_as_a_spool_is_warned_of(place: World) -> None:
    found = bad(doctor(place, TBXD_SPOOL=f"/dev/shm/tbxd-doctor-{os.getpid()}"))
    assert [item[:2] for item in found] == [("shared memory", "warning")]


def test_a_service_that_was_installed_and_not_started_is_told(place: World) -> None:
    environ = {"XDG_CONFIG_HOME": str(place.root / "config")}
    place.extra.update(environ)
    assert place.tbxd("service", "install", "--user").returncode == 0
    level, found, advice = one(doctor(place), "service")
    assert level == "warning" and "no daemon runs" in found
    place.ensure()
    level, found, advice = one(doctor(place), "service")
    assert level == "warning" and f"pid {place.running()}" in found
    assert advice.startswith("systemctl --user enable --now tbxd.service")
    assert place.tbxd("service", "remove", "--user").returncode == 0
    assert not bad(doctor(place))
