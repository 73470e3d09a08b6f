"""A real systemd for tests: booted on a throw-away copy of this machine's files, in namespaces of its own.

The root is an overlay over "/", whose upper half is in memory; processes, mounts, network, host name and control groups
are its own, so nothing of it is seen outside, and killing its first process ends all of it. It needs root.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from harness import wait_for

SOURCE = Path(__file__).parents[2]
SYSTEMD = Path("/lib/systemd/systemd")
BOOT_SECONDS = 60.0
USER, UID = "tbxd-alice", 61001
# What would reach beyond the namespaces, or waits for devices that are not there.
MASKED = (
    *("systemd-sysctl", "systemd-modules-load", "systemd-udevd", "systemd-udev-trigger", "systemd-timesyncd"),
    *("systemd-random-seed", "systemd-remount-fs", "systemd-binfmt", "systemd-hwdb-update", "systemd-update-utmp"),
    *("systemd-networkd", "systemd-resolved", "systemd-firstboot", "systemd-machine-id-commit"),
)
MASKED_UNITS = (
    *(f"{name}.service" for name in MASKED),
    *("systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "systemd-tmpfiles-clean.timer"),
    *("dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
    *("sys-fs-fuse-connections.mount", "sys-kernel-config.mount", "proc-sys-fs-binfmt_misc.automount"),
)
TARGET = "[Unit]\nRequires=basic.target dbus.socket systemd-logind.service\nAfter=basic.target systemd-logind.service\n"
# Capabilities that no service needs here, and that are the machine's.
LEFT_OUT = "-sys_time,-sys_module,-sys_boot,-sys_rawio,-syslog,-wake_alarm,-block_suspend"
SCRIPT = f"""
set -e
place=$1 source=$2
mount --make-rprivate /
mount -t tmpfs -o size=1g tmpfs $place
mkdir $place/upper $place/work $place/root
mount -t overlay overlay -o lowerdir=/,upperdir=$place/upper,workdir=$place/work $place/root
cd $place/root
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty; do touch dev/$node; mount --bind /dev/$node dev/$node; done
ln -s pts/ptmx dev/ptmx
mkdir dev/shm dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t devpts -o newinstance devpts dev/pts
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=1777 tmpfs var/tmp
mkdir tmp/source
mount --bind $source tmp/source
rm -rf etc/systemd/system/*
for unit in {" ".join(MASKED_UNITS)}; do ln -s /dev/null etc/systemd/system/$unit; done
printf '{TARGET.encode("unicode_escape").decode()}' > etc/systemd/system/trial.target
echo '{USER}:x:{UID}:{UID}::/home/{USER}:/bin/sh' >> etc/passwd
echo '{USER}:x:{UID}:' >> etc/group
echo '{USER}:*:19000:0:99999:7:::' >> etc/shadow
mkdir -p home/{USER} srv/runs
chown {UID}:{UID} home/{USER} srv/runs
shift 2
for folder in "$@"; do chmod a+x .$folder; done
mkdir old
pivot_root . old
umount -l /old
exec chroot / env -i container=trial PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set={LEFT_OUT} {SYSTEMD} --unit=trial.target --log-target=journal --show-status=no
"""


@dataclass
class Machine:
    """A machine that has booted.

    Args:
        pid: its first process, as this one sees it.
    """

    pid: int

    def run(self, *command: str, user: bool = False, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command there, as root or as `USER`."""
        done = subprocess.run(self._there(command, user), capture_output=True, text=True, timeout=120)
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *command: str, user: bool = False) -> subprocess.Popen[str]:
        """Start a command there."""
        return subprocess.Popen(
            self._there(command, user), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def _there(self, command: tuple[str, ...], user: bool) -> list[str]:
        inside = ["nsenter", "-t", str(self.pid), *["-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w"], "env", "-i"]
        inside += ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", f"PYTHONPATH={python_path()}"]
        if user:
            inside += [f"HOME=/home/{USER}", f"XDG_RUNTIME_DIR=/run/user/{UID}", f"USER={USER}"]
            inside += ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
        return [*inside, *command]

    def tbxd(self, *arguments: str, user: bool = False, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command of the command line there."""
        return self.run(sys.executable, "-m", "tbxd", *arguments, user=user, check=check)

    def show(self, unit: str, name: str, user: bool = False) -> str:
        """A property of a unit, as `systemctl show` has it."""
        manager = ["--user"] if user else []
        return self.run("systemctl", *manager, "show", "--value", "-p", name, unit, user=user).stdout.strip()


def python_path() -> str:
    """Where the code under test is in there."""
    return "/tmp/source:/tmp/source/client"


@contextmanager
def booted(root: Path) -> Iterator[Machine]:
    """A machine of its own; the test is skipped where none can be had."""
    for tool in ("unshare", "nsenter", "setpriv"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (apt-get install util-linux)")
    if os.getuid() != 0 or not SYSTEMD.exists() or not Path("/usr/bin/dbus-daemon").exists():
        pytest.skip("booting a systemd needs root, systemd and dbus (apt-get install systemd libpam-systemd dbus)")
    cgroup = _cgroup()
    place = root / "place"
    place.mkdir()
    folders = {
        str(folder) for path in (sys.executable, os.path.realpath(sys.executable)) for folder in Path(path).parents
    }
    log = root / "boot.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [
                *("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(cgroup)),
                *("unshare", "--mount", "--pid", "--fork", "--uts", "--ipc", "--net", "--cgroup", "--kill-child"),
                *("sh", "-c", SCRIPT, "boot", str(place), str(SOURCE), *sorted(folders - {"/"})),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        machine = _wait(process)
        if machine is None:
            pytest.skip(f"no systemd can be booted here: {log.read_text(errors='replace')[-500:]}")
        yield machine
    finally:
        for child in psutil.Process(process.pid).children() if process.poll() is None else []:
            child.send_signal(signal.SIGKILL)  # the first process of its pid namespace: all of it ends
        process.wait()
        for folder in sorted(cgroup.rglob("*/"), reverse=True):
            wait_for(lambda folder=folder: _gone(folder), "a control group to be empty")
        wait_for(lambda: _gone(cgroup), "a control group to be empty")


def _wait(process: subprocess.Popen[bytes]) -> Machine | None:
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for child in psutil.Process(process.pid).children():
            machine = Machine(child.pid)
            done = machine.run("systemctl", "is-system-running", check=False)
            if done.stdout.strip() in ("running", "degraded"):
                return machine
        time.sleep(0.1)
    return None


def _cgroup() -> Path:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            folder = Path(where) / f"tbxd-test-{os.getpid()}"
            try:
                folder.mkdir()
            except OSError as error:
                pytest.skip(f"no control group can be made: {error}")
            return folder
    pytest.skip("there are no control groups of version 2")


def _gone(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
