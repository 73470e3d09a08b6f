"""The units in a real systemd: they start, are restarted, are watched, stop, and nothing is lost meanwhile."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from boot import UID, USER, Machine, booted, python_path
from harness import wait_for

pytestmark = pytest.mark.long

UNIT = f"tbxd@{USER}.service"
STEADY = """
import select, sys
import numpy as np
from tbxd_client import SummaryWriter
writer = SummaryWriter(sys.argv[1])
step = 0
while not select.select([sys.stdin], [], [], 0.001)[0]:
    writer.add_scalar("value", step, step)
    if step % 50 == 0:  # what the hardening might not let through: numpy, pillow, protobuf
        writer.add_histogram("histogram", np.arange(1000.0), step)
        writer.add_image("image", np.zeros((3, 16, 16), np.uint8), step)
        writer.add_text("text", "words", step)
    step += 1
flushed = writer.flush(90)
print(step, flushed, writer.stats()["dropped"], flush=True)
"""
READ = """
import json, sys
sys.path.insert(0, "/tmp/source/tests")
from pathlib import Path
from harness import events, scalars
folder = Path(sys.argv[1])
tags = sorted({value.tag for event in events(folder) for value in event.summary.value}) if folder.exists() else []
print(json.dumps([tags, scalars(folder).get("value", [])]))
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with booted(tmp_path_factory.mktemp("boot")) as result:
        yield result


def read(machine: Machine, folder: str) -> Any:
    return json.loads(machine.run(sys.executable, "-c", READ, folder).stdout)


def settle(machine: Machine, trainer: subprocess.Popen[str], folder: str) -> None:
    """End a trainer; every step it has logged is there once."""
    output, errors = trainer.communicate("", timeout=120)
    found = re.match(r"(\d+) True {}", output)
    assert found, output + errors
    tags, values = read(machine, folder)
    assert values == [[step, float(step)] for step in range(int(found.group(1)))]
    assert int(found.group(1)) and {"histogram", "image", "text/text_summary", "value"} <= {*tags}


def begin(machine: Machine, folder: str) -> subprocess.Popen[str]:
    trainer = machine.start(sys.executable, "-c", STEADY, folder, user=True)
    wait_for(lambda: trainer.poll() is not None or read(machine, folder)[1], "the first records")
    return trainer


@pytest.fixture(scope="module")
def service(machine: Machine) -> Machine:
    """The system service, installed and started."""
    machine.tbxd("service", "install", "--system", "--account")
    # Three seconds instead of a minute, and the code under test.
    machine.run(
        *("sh", "-c", 'mkdir -p "$1" && printf "$2" > "$1/test.conf"', "sh"),
        f"/run/systemd/system/{UNIT}.d",
        f"[Service]\\nWatchdogSec=3\\nEnvironment=PYTHONPATH={python_path()}\\n",
    )
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "enable", "--now", UNIT)
    return machine


def test_it_starts_logs_to_the_journal_and_says_how_it_is(service: Machine) -> None:
    assert service.show(UNIT, "ActiveState") == "active", "which it is once it has said that it is ready"
    assert service.show(UNIT, "User") == USER
    trainer = begin(service, f"/home/{USER}/runs/a")
    wait_for(lambda: "1 session, 1 run, " in service.show(UNIT, "StatusText"), "the status")
    settle(service, trainer, f"/home/{USER}/runs/a")
    lines = service.run("journalctl", "-u", UNIT, "-o", "json").stdout.splitlines()
    ours = [line for line in map(json.loads, lines) if line.get("SYSLOG_IDENTIFIER") == "tbxd"]
    assert any("listens at" in line["MESSAGE"] and line["PRIORITY"] == "6" for line in ours)
    assert not any(re.match(r"<\d>|\d{4}-", line["MESSAGE"]) for line in ours)


def test_killed_it_comes_back_and_loses_nothing(service: Machine) -> None:
    trainer = begin(service, "/tmp/runs/killed")
    restarts = int(service.show(UNIT, "NRestarts"))
    for number in (1, 2):
        service.run("systemctl", "kill", "--signal=SIGKILL", UNIT)
        wait_for(lambda number=number: int(service.show(UNIT, "NRestarts")) >= restarts + number, "the restart")
        wait_for(lambda: service.show(UNIT, "ActiveState") == "active", "the service")
    settle(service, trainer, "/tmp/runs/killed")


def test_one_that_hangs_is_ended_by_the_watchdog_and_loses_nothing(service: Machine) -> None:
    trainer = begin(service, "/tmp/runs/hung")
    service.run("systemctl", "kill", "--signal=SIGSTOP", UNIT)
    wait_for(lambda: "Watchdog timeout" in service.run("journalctl", "-u", UNIT).stdout, "the watchdog")
    service.run("systemctl", "kill", "--signal=SIGCONT", UNIT, check=False)  # or it would take SIGKILL after a minute
    wait_for(lambda: service.show(UNIT, "ActiveState") == "active", "the service")
    settle(service, trainer, "/tmp/runs/hung")
    assert "in _loop" in service.run("journalctl", "-u", UNIT).stdout, "where it was is in the journal"


def test_stopped_and_started_under_a_trainer_no_other_takes_its_place(service: Machine) -> None:
    trainer = begin(service, "/tmp/runs/upgrade")
    service.run("systemctl", "stop", UNIT)
    assert service.show(UNIT, "Result") == "success"
    size = f"du -s --apparent-size /var/tmp/tbxd-{UID}/spool"
    before = service.run("sh", "-c", size).stdout
    wait_for(lambda: service.run("sh", "-c", size).stdout != before, "the trainer to go on")
    assert service.run("pgrep", "-u", USER, "-f", "tbxd serve", check=False).returncode == 1
    service.run("systemctl", "start", UNIT)
    settle(service, trainer, "/tmp/runs/upgrade")
    stopped = service.tbxd("stop", user=True)
    assert "comes back by itself" in stopped.stdout
    wait_for(lambda: service.show(UNIT, "ActiveState") == "active", "it to come back")


def test_reload_takes_over_the_machines_file_and_fails_with_one_that_makes_no_sense(service: Machine) -> None:
    def batch_ms() -> float:
        return float(json.loads(service.tbxd("status", "--json", user=True).stdout)["settings"]["batch_ms"])

    trainer = begin(service, "/tmp/runs/reload")
    pid = service.show(UNIT, "MainPID")
    service.run("sh", "-c", "echo 'batch_ms = 17' > /etc/tbxd/config.toml")
    service.run("systemctl", "reload", UNIT)
    assert batch_ms() == 17
    service.run("sh", "-c", "echo 'batch = 18' > /etc/tbxd/config.toml")
    assert service.run("systemctl", "reload", UNIT, check=False).returncode != 0
    assert "config.toml:1: batch is no setting; did you mean batch_ms?" in service.run("journalctl", "-u", UNIT).stdout
    assert batch_ms() == 17 and service.show(UNIT, "ActiveState") == "active"
    service.run("sh", "-c", "echo 'batch_ms = 19' > /etc/tbxd/config.toml")
    service.run("systemctl", "kill", "--signal=SIGHUP", UNIT)
    wait_for(lambda: batch_ms() == 19, "the new settings")
    wait_for(lambda: service.show(UNIT, "ActiveState") == "active", "it to be ready again")
    assert service.show(UNIT, "MainPID") == pid
    service.run("rm", "/etc/tbxd/config.toml")
    service.run("systemctl", "reload", UNIT)
    assert batch_ms() == 100
    settle(service, trainer, "/tmp/runs/reload")


def test_a_log_folder_outside_waits_and_says_so_until_it_is_allowed(service: Machine) -> None:
    trainer = service.start(sys.executable, "-c", STEADY, "/srv/runs/a", user=True)
    wait_for(lambda: "Read-only file system" in service.tbxd("status", user=True).stdout, "the error in the status")
    wait_for(lambda: "held up (Read-only file system)" in service.show(UNIT, "StatusText"), "the error in systemctl")
    service.tbxd("service", "install", "--system", "--logs", "/srv/runs")
    service.run("systemctl", "daemon-reload")
    service.run("systemctl", "restart", UNIT)
    settle(service, trainer, "/srv/runs/a")


def test_what_a_killed_trainer_had_not_on_disk_is_written(service: Machine) -> None:
    """The hardened daemon still sees which boot this is; otherwise it would trust only what was synced."""
    script = "import os, sys; from tbxd_client import SummaryWriter\nw = SummaryWriter(sys.argv[1])\n"
    script += "for i in range(1000): w.add_scalar('value', i, i)\nos.kill(os.getpid(), 9)\n"
    service.run(sys.executable, "-c", script, "/tmp/runs/dead", user=True, check=False)
    wait_for(lambda: len(read(service, "/tmp/runs/dead")[1]) == 1000, "the dead trainer's records")
    status = json.loads(service.tbxd("status", "--json", user=True).stdout)
    assert status["lost_bytes_at_crash"] == 0


def test_the_scripts_for_slurm_start_the_daemon_and_leave_nothing_behind(service: Machine) -> None:
    """As slurmd would call them; there is no slurmd here, and so no squeue that knows of other jobs."""
    service.run("systemctl", "stop", UNIT)
    service.run(
        "sh", "-c", f"printf '#!/bin/sh\nexec {sys.executable} -m tbxd \"$@\"\n' > /tmp/tbxd; chmod 755 /tmp/tbxd"
    )
    job = ("env", f"SLURM_JOB_USER={USER}", "SLURM_JOB_ID=7", "SLURMD_NODENAME=node", "TBXD_BIN=/tmp", "sh")
    service.run(*job, "/tmp/source/docs/examples/slurm/prolog.sh")
    trainer = begin(service, "/tmp/runs/job")
    service.run("pkill", "-KILL", "-u", USER, "-f", "/tmp/runs/job", check=False)
    trainer.communicate()
    service.run(*job, "/tmp/source/docs/examples/slurm/epilog.sh")
    assert service.show(UNIT, "ActiveState") == "inactive"
    left = service.run("sh", "-c", f"ls /var/tmp/tbxd-{UID}/spool").stdout.split()
    assert left == ["ledgers"], "what its event files held, for the next daemon"
    values = read(service, "/tmp/runs/job")[1]
    assert values == [[step, float(step)] for step in range(len(values))]
    service.run("systemctl", "start", UNIT)


def test_the_account_is_made_and_its_daemon_starts(service: Machine) -> None:
    service.run("systemd-sysusers", "/etc/sysusers.d/tbxd.conf")
    service.run("systemd-tmpfiles", "--create", "/etc/tmpfiles.d/tbxd-account.conf")
    service.run("sh", "-c", f"echo PYTHONPATH={python_path()} > /etc/tbxd/tbxd.env")
    service.run("systemctl", "start", "tbxd@tbxd.service")
    assert service.run("stat", "-c", "%U", "/var/lib/tbxd").stdout.strip() == "tbxd"


def test_removed_it_is_stopped_and_trainers_start_daemons_again(service: Machine) -> None:
    removed = service.tbxd("service", "remove", "--system", check=False)
    assert "tbxd@.service removed" in removed.stdout
    assert service.show(UNIT, "ActiveState") == "inactive"
    assert not service.run("sh", "-c", "find /etc/systemd/system -name 'tbxd@*' -type l").stdout
    trainer = begin(service, "/tmp/runs/after")
    assert "embedded daemon" in service.tbxd("status", user=True).stdout
    settle(service, trainer, "/tmp/runs/after")


def test_the_users_own_service_starts_takes_over_and_comes_back(machine: Machine) -> None:
    machine.run("loginctl", "enable-linger", USER)
    wait_for(
        lambda: machine.run("systemctl", "is-active", f"user@{UID}", check=False).returncode == 0, "the user manager"
    )
    trainer = begin(machine, f"/home/{USER}/runs/own")
    assert "embedded daemon" in machine.tbxd("status", user=True).stdout
    machine.run(
        "sh", "-c", f"mkdir -p ~/.config/tbxd; echo PYTHONPATH={python_path()} > ~/.config/tbxd/tbxd.env", user=True
    )
    installed = machine.tbxd("service", "install", "--user", "--start", user=True)
    assert "done: systemctl --user enable --now tbxd.service" in installed.stdout
    assert machine.show("tbxd.service", "ActiveState", user=True) == "active"
    assert re.search(r", service, ", machine.tbxd("status", user=True).stdout)
    machine.run("systemctl", "--user", "kill", "--signal=SIGKILL", "tbxd.service", user=True)
    wait_for(lambda: machine.show("tbxd.service", "NRestarts", user=True) == "1", "the restart")
    settle(machine, trainer, f"/home/{USER}/runs/own")
    assert machine.tbxd("service", "remove", "--user", user=True).returncode == 0
