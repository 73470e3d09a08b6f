"""Notifications of a daemon to the manager that started it, received at a real notification socket."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness import World, scalars, wait_for, world
from manager import manager
from tbxd.process.sd_notify import FEEDS_PER_DEADLINE, STATUS_CHARACTERS_MAX, Notifier
from tbxd_client.config.paths import spools

WATCHDOG_SECONDS = 2.0
LOG_ONE = """
    import sys
    from tbxd_client import SummaryWriter
    with SummaryWriter("logs/a") as writer:
        writer.add_scalar("value", 1.0, int(sys.argv[1]))
        assert writer.flush(60)
"""


def serve(place: World, environ: dict[str, str], *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start a daemon and wait for nothing."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tbxd", "serve", *arguments], env={**place.environ, **environ}, **options
    )
    place.processes.append(process)
    return process


def test_a_daemon_whose_spool_is_none_is_ready_and_says_where_journals_are(tmp_path: Path) -> None:
    with world(tmp_path / "world") as place, manager(tmp_path) as systemd:
        place.spool.write_text("a file where the spool should be")
        instead = spools(place.spool)[1]
        daemon = serve(place, systemd.environ(), stderr=subprocess.PIPE)
        systemd.wait("READY=1")
        result = place.run(LOG_ONE, 0)
        assert result.returncode == 0 and f"It is in {instead}" in result.stderr, result.stderr
        assert scalars(place.logdir / "a") == {"value": [(0, 1.0)]}
        daemon.terminate()
        assert daemon.stderr is not None
        said = daemon.stderr.read().decode()
        assert f"WARNING tbxd.daemon.lifecycle: no journal can be made in {place.spool}: File exists" in said
        assert said.endswith(f"Scripts make theirs in {instead}\n")
        assert daemon.wait(30) == 0 and place.spool.is_file()
        shutil.rmtree(instead, ignore_errors=True)  # the last script may have removed it


@pytest.mark.parametrize("abstract", [False, True])
def test_ready_is_said_once_records_are_accepted_and_stopping_before_it_leaves(tmp_path: Path, abstract: bool) -> None:
    with world(tmp_path / "world") as place, manager(tmp_path, abstract) as systemd:
        daemon = serve(place, systemd.environ())
        assert systemd.wait("READY=1") and systemd.heard[0] == "READY=1"
        answer = place.tbxd("status", "--json")
        assert answer.returncode == 0 and json.loads(answer.stdout)["pid"] == daemon.pid
        assert place.run(LOG_ONE, 0).returncode == 0
        assert systemd.wait("STATUS=") == "STATUS=0 sessions, 0 runs, 0 records written"
        assert systemd.wait("STATUS=").endswith("1 run, 1 record written")
        daemon.send_signal(signal.SIGTERM)
        systemd.wait("STOPPING=1")
        assert daemon.wait(30) == 0
        systemd.drop()
        assert systemd.heard.count("READY=1") == systemd.heard.count("STOPPING=1") == 1
        assert "WATCHDOG=1" not in systemd.heard, "nobody has asked for it"


def test_a_daemon_that_cannot_accept_records_never_says_that_it_is_ready(tmp_path: Path) -> None:
    with world(tmp_path / "world") as place, manager(tmp_path) as systemd:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
            assert serve(place, systemd.environ(), "--address", address).wait(60) == 1
        first = serve(place, {})
        wait_for(place.running, "the first daemon")
        assert serve(place, systemd.environ()).wait(60) == 4
        assert not systemd.listen(0.001) and first.poll() is None


def test_the_watchdog_is_fed_by_a_daemon_that_turns_and_not_by_one_that_is_stopped(tmp_path: Path) -> None:
    with world(tmp_path / "world") as place, manager(tmp_path) as systemd:
        daemon = serve(place, systemd.environ(WATCHDOG_SECONDS))
        systemd.wait("READY=1")
        for _ in range(2 * FEEDS_PER_DEADLINE):
            assert systemd.fed(WATCHDOG_SECONDS), "also when there is nothing to do"
        daemon.send_signal(signal.SIGSTOP)
        wait_for(lambda: Path(f"/proc/{daemon.pid}/stat").read_text().split()[2] == "T", "it to stop")
        systemd.drop()
        assert not systemd.fed(WATCHDOG_SECONDS)
        daemon.send_signal(signal.SIGCONT)
        assert systemd.fed(WATCHDOG_SECONDS * 5)


def test_what_a_manager_does_to_a_daemon_that_hangs_loses_nothing_and_says_where_it_was(tmp_path: Path) -> None:
    """SIGABRT, then SIGKILL, then it is started again; all the while a trainer logs."""
    script = """
        import sys, time
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        step = 0
        while not sys.stdin in __import__("select").select([sys.stdin], [], [], 0.001)[0]:
            writer.add_scalar("value", step, step)
            step += 1
        assert writer.flush(60)
        print(step, flush=True)
    """
    with world(tmp_path / "world") as place, manager(tmp_path) as systemd:
        unit = place.root / "tbxd.service"
        unit.write_text("installed")
        arguments = ("--service", str(unit))
        daemon = serve(place, systemd.environ(WATCHDOG_SECONDS), *arguments, stderr=subprocess.PIPE)
        systemd.wait("READY=1")
        trainer = place.start(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        wait_for(lambda: scalars(place.logdir / "a"), "the first records")
        daemon.send_signal(signal.SIGSTOP)
        while systemd.fed(WATCHDOG_SECONDS):
            pass
        daemon.send_signal(signal.SIGABRT)
        daemon.send_signal(signal.SIGCONT)  # a stopped process takes no other signal than SIGKILL
        assert daemon.wait(30) == -signal.SIGABRT
        assert daemon.stderr is not None and b"in _loop" in daemon.stderr.read()
        for _ in range(2):
            daemon = serve(place, systemd.environ(WATCHDOG_SECONDS), *arguments)
            systemd.wait("READY=1")
            daemon.kill()
            daemon.wait()
        serve(place, systemd.environ(WATCHDOG_SECONDS), *arguments)
        assert trainer.stdin is not None and trainer.stdout is not None
        trainer.stdin.close()
        count = int(trainer.stdout.readline())
        assert trainer.wait(60) == 0
        assert count > 0 and scalars(place.logdir / "a") == {"value": [(step, float(step)) for step in range(count)]}


def test_a_daemon_that_a_writer_has_started_does_not_speak_for_the_writers_service(tmp_path: Path) -> None:
    with world(tmp_path / "world") as place, manager(tmp_path) as systemd:
        place.extra.update(systemd.environ(WATCHDOG_SECONDS))
        assert place.run(LOG_ONE, 0).returncode == 0 and place.running()
        assert not systemd.listen(WATCHDOG_SECONDS)


def test_a_watchdog_for_another_process_is_not_fed(tmp_path: Path) -> None:
    with manager(tmp_path) as systemd:
        for pid, feeds in ((os.getpid() + 1, 0), (os.getpid(), 3), (None, 3)):
            notifier = Notifier(systemd.environ(4, pid))
            for now in (10.0, 11.0, 12.0):
                notifier.turned(now, True, lambda: "well")
            systemd.drop()
            assert systemd.heard.count("WATCHDOG=1") == feeds
            systemd.heard.clear()


def test_it_is_fed_only_while_records_are_written_and_soon_again_when_they_are(tmp_path: Path) -> None:
    with manager(tmp_path) as systemd:
        notifier = Notifier(systemd.environ(40))
        turns = [(0.0, True, 1), (5.0, True, 1), (10.0, False, 1), (10.4, True, 1), (10.5, True, 2), (20.5, True, 3)]
        for now, gets_on, feeds in turns:
            due = notifier.turned(now, gets_on, lambda: "well")
            systemd.drop()
            assert systemd.heard.count("WATCHDOG=1") == feeds, now
            assert now < due <= now + 5
        assert systemd.heard.count("STATUS=well") == 1, "told when it has changed"


def test_odd_surroundings_are_said_and_do_no_harm(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("vsock:2:1", str(tmp_path / "nobody")):
        notifier = Notifier({"NOTIFY_SOCKET": name})
        notifier.turned(0.0, True, lambda: "well")
        notifier.stopping("going")
        assert name in caplog.text
    with manager(tmp_path) as systemd:
        environ = {**systemd.environ(), "WATCHDOG_USEC": "soon"}
        notifier = Notifier(environ)
        assert not environ, "no child inherits it"
        notifier.turned(0.0, True, lambda: "many\nlines" * 1000)
        assert "WATCHDOG_USEC='soon'" in caplog.text
        lines = systemd.listen(1)
        assert lines == ["READY=1"]
        (line,) = systemd.listen(1)
        assert line.startswith("STATUS=many lines") and len(line) < STATUS_CHARACTERS_MAX + 8
    assert Notifier({}).turned(0.0, True, lambda: "well") == float("inf")


def test_a_manager_that_does_not_read_holds_nothing_up_and_gets_the_rest_later(tmp_path: Path) -> None:
    with manager(tmp_path) as systemd:
        notifier = Notifier(systemd.environ(4))
        began = time.monotonic()
        for now in range(0, 10_000, 10):  # a socket holds net.unix.max_dgram_qlen datagrams, as a rule 10
            notifier.turned(float(now), True, lambda now=now: str(now))  # type: ignore[misc]
        assert time.monotonic() - began < 5
        systemd.drop()
        assert systemd.heard[0] == "READY=1" and len(systemd.heard) < 2000, "it was full"
        notifier.turned(20_000.0, True, lambda: "well")
        assert systemd.listen(1) == ["STATUS=well"] and systemd.listen(1) == ["WATCHDOG=1"]
