"""Settings that change while the daemon runs: by `tbxd reload` and by SIGHUP, heard at a real notification socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from harness import World, events, scalars, wait_for, world
from manager import Manager, manager
from tbxd.config.settings import SETTINGS, BadSetting, Settings
from tbxd.config.sources import Config, Source
from tbxd.daemon import reload as module
from tbxd.daemon.reload import Reloader, take_over
from tbxd.process.sd_notify import Notifier
from tbxd_client.logdir.event_names import event_files

STEADY = """
    import select, sys
    from tbxd_client import SummaryWriter
    writer = SummaryWriter("logs/a")
    step = 0
    while not select.select([sys.stdin], [], [], 0.005)[0]:
        writer.add_scalar("value", step, step)
        step += 1
    assert writer.flush(60)
    print(step, flush=True)
"""


def settings_of(place: World) -> dict[str, Any]:
    status = place.status()
    assert status is not None
    found: dict[str, Any] = status["settings"]
    return found


def reload(place: World, code: int = 0) -> dict[str, Any]:
    result = place.tbxd("reload", "--json")
    assert result.returncode == code, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_what_can_change_while_it_runs_does_and_what_takes_a_restart_is_named(place: World) -> None:
    place.config.write_text("batch_ms = 250\nthreads = 3\n")
    daemon = place.serve("--idle-seconds", "9")
    nothing = place.tbxd("reload")
    assert nothing.stdout.splitlines() == [f"read again: {place.config}", "nothing has changed"]
    place.config.write_text(
        'batch_ms = 20\nsync_seconds = 0.5\nopen_files = 9\nsystem_seconds = 60\nlog_level = "info"\nidle_seconds = 5\n'
        'threads = 4\nsync = "always"\nranks_seconds = 7\n'
    )
    found = reload(place)
    assert found == {
        "problem": "",
        "file": str(place.config),
        "changed": {
            "batch_ms": [250, 20],
            "sync_seconds": [1, 0.5],
            "open_files": [256, 9],
            "system_seconds": [0, 60],
            "log_level": [None, "info"],
        },
        "restart": {"sync": ["periodic", "always"], "threads": [3, 4], "ranks_seconds": [30, 7]},
        "hidden": {"idle_seconds": "--idle-seconds"},
    }
    now = settings_of(place)
    assert (now["batch_ms"], now["open_files"], now["log_level"]) == (20, 9, "info")
    assert (now["threads"], now["sync"], now["ranks_seconds"], now["idle_seconds"]) == (3, "periodic", 30, 9)
    text = place.tbxd("reload").stdout
    assert "threads: 4 holds after a restart, until then 3" in text
    assert "idle_seconds: the daemon was started with --idle-seconds, which counts" in text
    place.config.unlink()
    gone = place.tbxd("reload")
    assert gone.returncode == 0 and "read again: there is no file" in gone.stdout
    assert "batch_ms: 100 (was 20)" in gone.stdout and "log_level: unset (was info)" in gone.stdout
    assert settings_of(place)["batch_ms"] == 100 and daemon.poll() is None


def test_with_a_bad_file_everything_stays_one_line_is_logged_and_the_command_fails(place: World) -> None:
    place.config.write_text("batch_ms = 250\n")
    with open(place.root / "log", "wb") as log:
        daemon = subprocess.Popen([sys.executable, "-m", "tbxd", "serve"], env=place.environ, stderr=log)
    place.processes.append(daemon)
    wait_for(place.running, "the daemon")
    place.config.write_text("batch_ms = 20\nbatch = 1\nthreads = 0\n")
    told = [
        f"the settings stay as they are: {place.config}:2: batch is no setting; did you mean batch_ms?",
        f"the settings stay as they are: {place.config}:3: threads is 0; whole numbers from 1 to 256 are possible",
    ]
    refused = place.tbxd("reload")
    assert refused.returncode == 2 and not refused.stdout
    assert refused.stderr.splitlines() == [f"tbxd: {line}" for line in told]
    assert reload(place, 2)["problem"].count("\n") == 1
    assert settings_of(place)["batch_ms"] == 250
    lines = [line for line in (place.root / "log").read_text().splitlines() if " ERROR " in line]
    assert len(lines) == 1 and lines[0].endswith("; ".join(told)), lines
    place.config.chmod(0o666)
    assert "chmod o-w" in place.tbxd("reload").stderr
    place.config.write_text("batch_ms = 20\n")
    place.config.chmod(0o600)
    assert place.tbxd("reload").returncode == 0 and settings_of(place)["batch_ms"] == 20


def test_more_and_less_is_logged_with_a_reload(place: World) -> None:
    with open(place.root / "log", "wb") as log:
        daemon = subprocess.Popen([sys.executable, "-m", "tbxd", "serve"], env=place.environ, stderr=log)
    place.processes.append(daemon)
    wait_for(place.running, "the daemon")
    script = """
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/a") as writer:
            writer.add_scalar("value", 1.0, 0)
            assert writer.flush(30)
    """
    sessions = []
    for text in ("", 'log_level = "info"', 'log_level = "error"'):
        place.config.write_text(text)
        reload(place)
        before = (place.root / "log").stat().st_size
        assert place.run(script).returncode == 0
        wait_for(place.drained, "the journal to be released")
        sessions.append("tbxd.ingest.hub: session" in (place.root / "log").read_text()[before:])
    assert sessions == [False, True, False]


def test_without_a_daemon_there_is_nothing_to_reload(place: World) -> None:
    assert place.tbxd("reload").returncode == 3


def test_records_are_written_sooner_once_the_daemon_is_told_to_gather_them_for_less(place: World) -> None:
    place.config.write_text("batch_ms = 60_000\n")
    place.serve()
    trainer = place.start(STEADY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def accepted() -> int:
        status = place.status()
        assert status is not None
        return int(status["totals"]["accepted"])

    wait_for(lambda: accepted() > 20, "records that wait")
    assert not scalars(place.logdir / "a"), "they are gathered for a minute"
    place.config.write_text("batch_ms = 0\n")
    began = time.monotonic()
    assert reload(place)["changed"] == {"batch_ms": [60_000, 0]}
    wait_for(lambda: scalars(place.logdir / "a"), "what had been waiting")
    assert time.monotonic() - began < 30, "and not only when its minute was over"
    assert trainer.stdin is not None and trainer.stdout is not None
    trainer.stdin.close()
    count = int(trainer.stdout.readline())
    assert trainer.wait(60) == 0
    assert scalars(place.logdir / "a") == {"value": [(step, float(step)) for step in range(count)]}


def test_system_metrics_begin_and_end_with_a_reload(place: World) -> None:
    node = os.uname().nodename
    place.serve()
    place.start(STEADY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    wait_for(lambda: scalars(place.logdir / "a"), "a run")
    curves = place.logdir / "a" / "system" / node

    def system() -> dict[str, Any]:
        status = place.status()
        assert status is not None
        found: dict[str, Any] = status["system"]
        return found

    for _ in range(2):
        place.config.write_text("system_seconds = 1\n")
        assert reload(place)["changed"]
        before = len(events(curves)) if curves.exists() else 0
        wait_for(lambda before=before: curves.exists() and len(events(curves)) > before, "a sample")
        place.config.write_text("")
        assert reload(place)["changed"]
        wait_for(lambda: not system()["runs"] and not system()["seconds"], "the sampling to end")
        assert not system()["on"]
    assert len(event_files(curves)) <= 2


def test_a_daemon_goes_sooner_or_later_when_its_idle_time_is_changed(place: World) -> None:
    place.extra["TBXD_IDLE_SECONDS"] = ""
    result = place.run(
        """
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/a") as writer:
            writer.add_scalar("value", 1.0, 0)
            assert writer.flush(30)
        """
    )
    assert result.returncode == 0 and place.running()
    place.config.write_text("idle_seconds = 0.1\n")
    assert reload(place)["changed"] == {"idle_seconds": [60, 0.1]}
    wait_for(lambda: not place.running(), "the embedded daemon to leave", seconds=30)


def test_sighup_reads_the_file_again_and_ends_nothing(place: World) -> None:
    place.config.write_text("batch_ms = 250\n")
    daemon = place.serve()
    place.config.write_text("batch_ms = 20\n")
    daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: settings_of(place)["batch_ms"] == 20, "the new settings")
    for number in range(50):
        place.config.write_text(f"batch_ms = {number + 100}\n")
        daemon.send_signal(signal.SIGHUP)
    wait_for(lambda: settings_of(place)["batch_ms"] == 149, "the last of many")
    place.config.write_text("batch_ms = ")
    daemon.send_signal(signal.SIGHUP)
    assert reload(place, 2)["problem"] and settings_of(place)["batch_ms"] == 149 and daemon.poll() is None


def test_a_trainer_that_logs_all_the_while_loses_nothing(place: World) -> None:
    place.serve()
    trainer = place.start(STEADY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for number in range(10):
        place.config.write_text(f"batch_ms = {number}\nopen_files = {number + 1}\nsync_seconds = {1 / (number + 1)}\n")
        assert reload(place)["changed"]["batch_ms"][1] == number
    assert trainer.stdin is not None and trainer.stdout is not None
    trainer.stdin.close()
    count = int(trainer.stdout.readline())
    assert trainer.wait(60) == 0 and count
    assert scalars(place.logdir / "a") == {"value": [(step, float(step)) for step in range(count)]}


def test_a_disk_that_hangs_holds_up_the_reload_and_nothing_else(place: World) -> None:
    """Opening it again takes until a gate is gone."""
    script = """
        import os, sys, time
        from tbxd.config.sources import Source
        real, gate = Source.load, sys.argv[1]
        def slow(self):
            while os.path.exists(gate):
                time.sleep(0.01)
            return real(self)
        Source.load = slow
        from tbxd.cli.main import main
        main(["serve"])
    """
    gate = place.root / "gate"
    place.start(script, gate)
    wait_for(place.running, "the daemon")
    gate.touch()
    place.config.write_text("batch_ms = 20\n")
    asking = [
        subprocess.Popen([sys.executable, "-m", "tbxd", "reload", "--json"], env=place.environ, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    place.processes += asking
    for _ in range(3):
        assert settings_of(place)["batch_ms"] == 100, "it answers others meanwhile"
    assert [one.poll() for one in asking] == [None, None]
    gate.unlink()
    answers = [json.loads(one.communicate(timeout=60)[0]) for one in asking]
    assert [answer["changed"] for answer in answers if answer["changed"]] == [{"batch_ms": [100, 20]}]
    assert [answer["problem"] for answer in answers] == ["", ""]


# --- systemd -------------------------------------------------------------------------------------------------


def test_a_manager_hears_that_settings_are_read_again_and_that_it_is_ready_again(tmp_path: Path) -> None:
    with world(tmp_path / "world") as place, manager(tmp_path) as systemd:
        place.extra.update(systemd.environ())
        daemon = place.serve()
        systemd.wait("READY=1")
        for code in (0, 2):
            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            assert place.tbxd("reload").returncode == code
            heard_reload(systemd, before)
            place.config.write_text("batch_ms = ")
        daemon.send_signal(signal.SIGHUP)
        heard_reload(systemd, before)
        assert daemon.poll() is None


def heard_reload(systemd: Manager, since_usec: int) -> None:
    """RELOADING=1 with the time in one datagram, and READY=1 after it."""
    begun = len(systemd.heard)
    systemd.wait("RELOADING=1")
    (time_line,) = [line for line in systemd.heard[begun:] if line.startswith("MONOTONIC_USEC=")]
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert since_usec <= int(time_line.partition("=")[2]) <= now
    assert "READY=1" not in systemd.heard[begun:]
    systemd.wait("READY=1")


def test_a_manager_that_is_busy_hears_later_that_it_is_ready_again(tmp_path: Path) -> None:
    with manager(tmp_path) as systemd:
        notifier = Notifier(systemd.environ())
        notifier.turned(0.0, True, lambda: "well")
        for now in range(0, 1000, 10):  # until its socket is full
            notifier.turned(float(now), True, lambda now=now: str(now))  # type: ignore[misc]
        notifier.reloaded()
        notifier.turned(2000.0, True, lambda: "well")
        systemd.drop()
        assert systemd.heard.count("READY=1") == 1
        notifier.turned(2010.0, True, lambda: "well")
        assert systemd.listen(1) == ["READY=1"]


def test_a_unit_says_how_it_is_reloaded() -> None:
    for name in ("tbxd.service", "tbxd@.service"):
        unit = (Path(__file__).parents[2] / "tbxd" / "systemd" / name).read_text()
        assert "ExecReload=@PYTHON@ -m tbxd reload\n" in unit
    assert "Environment=TBXD_CONFIG=-/etc/tbxd/config.toml\nEnvironmentFile=" in unit


# --- in one process ------------------------------------------------------------------------------------------


def test_only_what_may_change_while_it_runs_is_taken_over() -> None:
    running = Settings.of({})
    for setting in SETTINGS:
        if setting.most:
            value: Any = setting.least if setting.default != setting.least else setting.most
        else:
            value = setting.choices[-1] if setting.choices else "/x"
        wanted = Config(Settings.of({setting.name: value}), {})
        settings, answer = take_over(running, wanted)
        assert (getattr(settings, setting.name) == getattr(wanted.settings, setting.name)) == setting.live
        assert (setting.name in answer["changed"]) == setting.live
        assert (setting.name in answer["restart"]) == (not setting.live)
        assert any(line.startswith(f"{setting.name}: ") for line in module.lines(answer))


def test_a_fault_while_reading_changes_nothing_and_the_next_time_is_as_good() -> None:
    found: list[Any] = [RuntimeError("a fault"), BadSetting("bad"), OSError("gone"), Source().load()]

    def load() -> Config:
        next_one = found.pop(0)
        if isinstance(next_one, Exception):
            raise next_one
        assert isinstance(next_one, Config)
        return next_one

    woken: list[bool] = []
    running = Settings.of({"batch_ms": 7.0})
    reloader = Reloader(Config(running, {}), load, lambda: woken.append(True), Notifier({}))
    assert reloader.step(running) is None
    for expected in ("internal error: RuntimeError: a fault", "bad", "gone", ""):
        reloader.ask()
        done = wait_for(lambda: reloader.step(running), "the file to be read")
        assert done[1]["problem"] == expected and woken
        assert (done[0] is running) == bool(expected)
    assert done[1]["changed"] == {"batch_ms": [7.0, 100.0]}
    assert reloader.step(running) is None


@pytest.mark.parametrize("number", range(3))
def test_who_asks_while_the_file_is_read_gets_what_is_in_it_afterwards(number: int) -> None:
    gates = [threading.Event() for _ in range(2)]
    loads: list[int] = []

    def load() -> Config:
        loads.append(len(loads))
        assert gates[len(loads) - 1].wait(30)
        return Config(Settings.of({"batch_ms": float(len(loads))}), {})

    running = Settings.of({})
    reloader = Reloader(Config(running, {}), load, lambda: None, Notifier({}))
    reloader.ask()
    assert reloader.step(running) is None
    for _ in range(number + 1):
        reloader.ask()
    gates[0].set()
    first = wait_for(lambda: reloader.step(running), "the first")
    gates[1].set()
    second = wait_for(lambda: reloader.step(first[0]), "the second")
    assert (first[0].batch_ms, second[0].batch_ms) == (1, 2) and len(loads) == 2
    assert reloader.step(running) is None
