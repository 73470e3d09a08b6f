"""The service: what is installed, what holds of the units, and that writers wait for it and lose nothing meanwhile."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import psutil
import pytest

from harness import World, scalars, wait_for
from tbxd.process.io_pool import THREADS_MAX
from tbxd.tools.systemd_units import OLD_SUFFIX
from tbxd.transport import credit
from tbxd_client.config.paths import awaited_service, service_path
from tbxd_client.journal.journal_files import journals, read_state
from tbxd_client.transport.launcher import SERVICE_SECONDS

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "tbxd" / "systemd"
EXPOSURE_MAX = 1.5
STEADY = """
    import select, sys
    from tbxd_client import SummaryWriter
    writer = SummaryWriter("logs/a")
    step = 0
    while not select.select([sys.stdin], [], [], 0.001)[0]:
        writer.add_scalar("value", step, step)
        step += 1
    assert writer.flush(60)
    print(step, flush=True)
"""
LOG_ONE = """
    import sys
    from tbxd_client import SummaryWriter
    with SummaryWriter("logs/a") as writer:
        writer.add_scalar("value", 1.0, int(sys.argv[1]))
        sys.exit(0 if writer.flush(float(sys.argv[2])) else 7)
"""


def tool(name: str) -> str:
    """Where a tool of systemd is; the test is skipped without."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (apt-get install systemd)")
    return found


def install(place: World, *arguments: str, system: bool = False) -> subprocess.CompletedProcess[str]:
    """`tbxd service install`, into the world's own folders."""
    place.extra["XDG_CONFIG_HOME"] = str(place.root / "config")
    whose = ("--system", "--root", str(place.root / "image")) if system else ("--user",)
    return place.tbxd("service", "install", *whose, *arguments)


def user_unit(place: World) -> Path:
    return place.root / "config" / "systemd" / "user" / "tbxd.service"


def system_unit(place: World) -> Path:
    return place.root / "image" / "etc" / "systemd" / "system" / "tbxd@.service"


def as_service(place: World) -> subprocess.Popen[bytes]:
    """Start the daemon as the installed unit says."""
    (command,) = re.findall(r"^ExecStart=(.+)$", user_unit(place).read_text(), re.M)
    process = subprocess.Popen(command.split(), env=place.environ, cwd="/")
    place.processes.append(process)
    wait_for(lambda: process.poll() is not None or place.running() == process.pid, "the service")
    assert process.poll() is None, f"the service left with {process.returncode}"
    return process


# --- what is installed ---------------------------------------------------------------------------------------


def test_a_dry_run_prints_all_and_writes_nothing(place: World) -> None:
    for system in (False, True):
        shown = install(place, "--dry-run", *(["--account", "--logs", "/scratch"] if system else []), system=system)
        assert shown.returncode == 0 and "ExecStart=" in shown.stdout and "tbxd.env (new)" in shown.stdout
        assert "@PYTHON@" not in shown.stdout and sys.executable in shown.stdout
    assert not (place.root / "config").exists() and not (place.root / "image").exists()


def test_what_was_changed_by_hand_is_neither_replaced_nor_removed_without_a_word(place: World) -> None:
    assert install(place).returncode == 0
    unit, env = user_unit(place), place.root / "config" / "tbxd" / "tbxd.env"
    written = unit.read_text()
    assert install(place).stdout.count("exists already") == 2
    unit.write_text(written.replace("WatchdogSec=60", "WatchdogSec=600"))
    env.write_text("TBXD_BATCH_MS=50\n")
    refused = install(place)
    assert refused.returncode == 1 and f"{unit} was changed by hand" in refused.stderr and "--force" in refused.stderr
    assert "WatchdogSec=600" in unit.read_text()
    kept = place.tbxd("service", "remove", "--user")
    assert kept.returncode == 1 and "was changed by hand: it stays" in kept.stdout and unit.exists()
    forced = install(place, "--force")
    old = unit.with_name(unit.name + OLD_SUFFIX)
    assert forced.returncode == 0 and str(old) in forced.stdout
    assert unit.read_text() == written and "WatchdogSec=600" in old.read_text()
    assert env.read_text() == "TBXD_BATCH_MS=50\n" and f"{env} is yours and stays" in forced.stdout
    assert place.tbxd("service", "remove", "--user").returncode == 0
    assert not unit.exists() and env.exists() and old.exists()
    unit.write_text("[Unit]\nDescription=somebody else's\n")
    assert "is not from tbxd" in install(place).stderr and "somebody else's" in unit.read_text()


def test_an_older_file_of_ours_is_replaced(place: World) -> None:
    assert install(place).returncode == 0
    unit = user_unit(place)
    new = unit.read_text()
    header, rest = new.split("\n", 1)
    place.run(
        """
        import sys
        from pathlib import Path
        from tbxd.tools import systemd_units as service
        Path(sys.argv[1]).write_text(service._signed("[Unit]\\n").replace("tbxd 0.1.0", "tbxd 0.0.1"))
        """,
        unit,
    )
    assert unit.read_text() != new
    assert f"{unit} replaced" in install(place).stdout
    assert unit.read_text() == new and header.startswith("# tbxd ") and rest


def test_log_folders_and_the_account_of_a_system_service_outlive_the_next_install_and_are_removed(place: World) -> None:
    assert install(place, "--logs", "/scratch", "--logs", "/data/runs", "--account", system=True).returncode == 0
    image = place.root / "image"
    drop_in = system_unit(place).with_name("tbxd@.service.d") / "logs.conf"
    assert "ReadWritePaths=-/scratch\nReadWritePaths=-/data/runs\n" in drop_in.read_text()
    assert (image / "etc/sysusers.d/tbxd.conf").exists()
    assert install(place, system=True).returncode == 0 and drop_in.exists()
    assert "needs quotes" in install(place, "--logs", "/with space", system=True).stderr.replace("would need", "needs")
    assert place.tbxd("service", "remove", "--system", "--root", str(image)).returncode == 0
    assert not [path for path in image.rglob("*") if path.is_file()]


def test_an_interpreter_in_a_home_is_refused_for_a_system_service(place: World) -> None:
    result = place.run(
        """
        from pathlib import Path
        from tbxd.tools import systemd_units as service
        try:
            service.for_system(Path("/"), (), False, python="/home/alice/venv/bin/python")
        except service.ServiceError as error:
            print(error)
        """
    )
    assert "is in a home" in result.stdout and "/opt/tbxd" in result.stdout


def test_the_wheel_has_the_units_and_installs_them(place: World) -> None:
    built = subprocess.run(
        [*(sys.executable, "-m", "pip", "wheel"), "--no-deps", "--no-build-isolation", "-q", "-w", place.root, ROOT],
        capture_output=True,
        text=True,
        cwd=place.root,
    )
    if built.returncode != 0:
        pytest.skip(f"no wheel can be built here: {built.stderr[-300:]}")
    (wheel,) = place.root.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place.root / "site")
    place.extra["PYTHONPATH"] = str(place.root / "site")
    assert install(place).returncode == 0 and install(place, "--account", system=True).returncode == 0
    assert {path.name for path in UNITS.iterdir()} == {
        path.name for path in (place.root / "site/tbxd/systemd").iterdir()
    }


# --- the units -----------------------------------------------------------------------------------------------


def test_the_units_are_clean(place: World) -> None:
    analyze = tool("systemd-analyze")
    assert install(place).returncode == 0 and install(place, "--logs", "/scratch", system=True).returncode == 0
    instance = system_unit(place).with_name("tbxd@alice.service")
    shutil.copy(system_unit(place), instance)
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(place.root), "HOME": str(place.root)}
    for arguments in (["verify", str(instance)], ["--user", "verify", str(user_unit(place))]):
        done = subprocess.run([analyze, *arguments], capture_output=True, text=True, env=environ)
        ours = [line for line in (done.stdout + done.stderr).splitlines() if "tbxd" in line]
        assert done.returncode == 0 and not ours, done.stderr


def test_the_system_unit_is_hardened(place: World) -> None:
    analyze = tool("systemd-analyze")
    assert install(place, "--logs", "/scratch", system=True).returncode == 0
    instance = system_unit(place).with_name("tbxd@alice.service")
    shutil.copy(system_unit(place), instance)
    done = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", str(instance)], capture_output=True, text=True
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze knows no --offline (systemd before 250)")
    (exposure,) = re.findall(r"Overall exposure level for tbxd@alice.service: ([\d.]+)", done.stdout)
    assert float(exposure) <= EXPOSURE_MAX, done.stdout


def test_the_units_allow_what_the_daemon_is_promised_to_need() -> None:
    for name in ("tbxd.service", "tbxd@.service"):
        unit = (UNITS / name).read_text()
        settings = dict(re.findall(r"^(\w+)=(.*)$", unit, re.M))
        (sessions,) = re.findall(r"# Enough for (\d+) sessions, all of which log as much as they may", unit)
        promised = credit.memory_most(int(sessions)) + credit.COPIES * credit.GRANTS_BYTES_MAX
        assert promised <= int(settings["MemoryMax"].removesuffix("G")) << 30
        assert int(settings["TasksMax"]) >= THREADS_MAX + 64
        assert settings["Type"] == "notify" and settings["Restart"] == "always"
        assert settings["StartLimitIntervalSec"] == "0", "records wait for it, however often it has failed"
        # What hides a folder or a kernel file from the daemon loses records; the unit says how.
        for harmful in ("PrivateTmp", "ProcSubset", "UMask", "DynamicUser", "TemporaryFileSystem"):
            assert harmful not in settings, harmful


def test_sweeping_old_files_leaves_the_folders_of_a_daemon_and_the_spool_alone(tmp_path: Path) -> None:
    """systemd-tmpfiles deletes old files from /var/tmp. A daemon holds its folders; what waits has the snippet."""
    tmpfiles = tool("systemd-tmpfiles")
    root = tmp_path / "root"
    swept = root / "var" / "tmp"
    swept.mkdir(parents=True)
    place = World(swept / "held", {"TBXD_IDLE_SECONDS": "600"})
    try:
        daemon = place.serve()
        (place.spool / "old").mkdir()
        (place.spool / "old" / "definitions").write_text("of a trainer that runs for months")
        waiting = swept / "tbxd-1000" / "spool" / "journal"
        waiting.mkdir(parents=True)
        (waiting / "control").write_text("waits for a daemon")
        (swept / "other").write_text("somebody's")
        config = tmp_path / "all.conf"
        config.write_text("e /var/tmp - - - 0\n" + (UNITS / "tbxd.tmpfiles.conf").read_text())
        done = subprocess.run([tmpfiles, f"--root={root}", "--clean", str(config)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert not (swept / "other").exists(), "it was swept"
        assert (waiting / "control").exists()
        assert (place.spool / "old" / "definitions").exists()
        assert place.running() == daemon.pid
    finally:
        place.end()


# --- writers and the service ---------------------------------------------------------------------------------


def test_an_upgrade_under_a_running_trainer_loses_nothing_and_starts_no_other_daemon(place: World) -> None:
    assert install(place).returncode == 0
    service = as_service(place)
    trainer = place.start(STEADY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    seen = [0]
    for _ in range(3):
        wait_for(lambda: _count(place) > seen[-1], "new records")
        service.send_signal(signal.SIGTERM)  # what `systemctl stop` does
        assert service.wait(60) == 0
        seen.append(_count(place))
        (journal,) = journals(place.spool)
        end = read_state(journal).commit + 300 * 34
        wait_for(lambda end=end, journal=journal: read_state(journal).commit > end, "the trainer to go on")
        assert place.running() is None and awaited_service(place.runtime) == str(user_unit(place))
        service = as_service(place)
    assert trainer.stdin is not None and trainer.stdout is not None
    trainer.stdin.close()
    count = int(trainer.stdout.readline())
    assert trainer.wait(60) == 0
    assert count > seen[-1] + 300
    assert scalars(place.logdir / "a") == {"value": [(step, float(step)) for step in range(count)]}
    assert not (place.runtime / "daemon.log").exists(), "nobody has started an embedded daemon"


def _count(place: World) -> int:
    return len(scalars(place.logdir / "a").get("value", []))


def test_while_the_service_is_stopped_a_new_trainer_waits_and_says_so(place: World) -> None:
    assert install(place).returncode == 0
    service = as_service(place)
    service.send_signal(signal.SIGTERM)
    assert service.wait(60) == 0
    result = place.run(LOG_ONE, 0, SERVICE_SECONDS + 2)
    assert result.returncode == 7 and place.running() is None
    assert f"the service of {user_unit(place)} does not run" in result.stderr and "records wait in" in result.stderr
    assert len(place.journals()) == 1
    as_service(place)
    wait_for(place.drained, "the journal")
    assert scalars(place.logdir / "a") == {"value": [(0, 1.0)]}


@pytest.mark.parametrize("how", ["remove", "by hand"])
def test_when_the_service_is_gone_writers_start_daemons_again(place: World, how: str) -> None:
    assert install(place).returncode == 0
    assert awaited_service(place.runtime) == "", "one that has never run is not waited for"
    service = as_service(place)
    assert awaited_service(place.runtime) == str(user_unit(place))
    service.send_signal(signal.SIGTERM)
    assert service.wait(60) == 0
    if how == "remove":
        assert place.tbxd("service", "remove", "--user").returncode == 0
        assert not service_path(place.runtime).exists()
    else:
        user_unit(place).unlink()
    assert place.run(LOG_ONE, 0, 60).returncode == 0
    assert scalars(place.logdir / "a") == {"value": [(0, 1.0)]}


def test_a_daemon_that_a_writer_has_started_makes_way_for_the_service(place: World) -> None:
    assert install(place).returncode == 0
    trainer = place.start(STEADY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    embedded = psutil.Process(wait_for(place.running, "the embedded daemon"))
    wait_for(lambda: scalars(place.logdir / "a"), "the first records")
    service = as_service(place)
    wait_for(lambda: not embedded.is_running(), "the embedded daemon to be gone")
    assert place.running() == service.pid
    assert "service" in place.tbxd("status").stdout
    assert trainer.stdin is not None and trainer.stdout is not None
    trainer.stdin.close()
    count = int(trainer.stdout.readline())
    assert trainer.wait(60) == 0
    assert scalars(place.logdir / "a") == {"value": [(step, float(step)) for step in range(count)]}
    stopped = place.tbxd("stop")
    assert stopped.returncode == 0 and "comes back by itself" in stopped.stdout


def test_a_daemon_that_somebody_has_started_on_purpose_does_not_make_way(place: World) -> None:
    assert install(place).returncode == 0
    first = place.serve()
    second = place.tbxd("serve", "--service", str(user_unit(place)))
    assert second.returncode == 4 and f"pid {first.pid}" in second.stderr
    assert first.poll() is None


def test_with_an_address_no_daemon_is_started_whatever_there_is(place: World) -> None:
    result = place.run(LOG_ONE, 0, 1, environ={"TBXD_ADDRESS": f"ipc://{place.root}/service.sock"})
    assert result.returncode == 7 and place.running() is None and len(place.journals()) == 1


def test_a_marker_that_makes_no_sense_is_no_service(place: World) -> None:
    place.runtime.mkdir(mode=0o700)
    for text in ("", "relative/tbxd.service", "/nowhere/tbxd.service", "\0", "/" + "x" * 5000):
        service_path(place.runtime).write_text(text)
        assert awaited_service(place.runtime) == ""
    service_path(place.runtime).unlink()
    os.mkfifo(service_path(place.runtime))
    assert awaited_service(place.runtime) == "", "it does not wait for somebody to write"
