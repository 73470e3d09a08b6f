"""Where the usual place for journals and the daemon cannot be used: another is taken, and all find each other there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from faults.inject import strace, tampered
from harness import World, scalars, wait_for
from tbxd_client.config.paths import runtimes, spools

# In a mount namespace of its own, with places of its own: the world is at /mnt.
APART = """
set -e
mount --bind "$1" /mnt
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
eval "$2"
cd /mnt
shift 2
exec "$@"
"""
UNUSABLE = {
    "read-only": "mount -t tmpfs -o ro tmpfs /var/tmp",
    "missing": "mount -t tmpfs tmpfs /var",
    "full": "mount -t tmpfs -o size=16k tmpfs /var/tmp; mkdir /var/tmp/tbxd-0; head -c 16k /dev/zero >/var/tmp/x",
    "somebody else's": "mount -t tmpfs tmpfs /var/tmp; mkdir -m 777 /var/tmp/tbxd-0; chown 12345 /var/tmp/tbxd-0",
    "a file": "mount -t tmpfs tmpfs /var/tmp; touch /var/tmp/tbxd-0",
    "a link": "mount -t tmpfs tmpfs /var/tmp; mkdir -m 700 /tmp/there; ln -s /tmp/there /var/tmp/tbxd-0",
    "three of them": "mount -t tmpfs -o ro tmpfs /var/tmp; mount -o remount,ro /tmp; mount -o remount,ro /dev/shm",
}
ALL = """
import json, os, subprocess, sys, time
LOG = '''
import sys
from tbxd_client import SummaryWriter
writer = SummaryWriter(sys.argv[1])
for step in range(100):
    writer.add_scalar("value", step, step)
print(writer.flush(30))
'''
def tbxd(*arguments):
    return subprocess.run([sys.executable, "-m", "tbxd", *arguments], capture_output=True, text=True)
def log(folder, **environ):
    command = [sys.executable, "-c", LOG, folder]
    result = subprocess.run(command, env={**os.environ, **environ}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result
found = {"said": log("logs/a").stderr, "again": log("logs/a").stdout}
found["status"] = json.loads(tbxd("status", "--json").stdout)
found["doctor"] = json.loads(tbxd("doctor", "--json").stdout)
found["stop"] = tbxd("stop").returncode
# One is left behind, and seen and drained.
os.environ["TBXD_FLUSH_SECONDS"] = "0"
LOG = LOG.replace("flush(30)", "flush(0)")
log("logs/b", TBXD_ADDRESS="ipc:///nonexistent/nobody.sock")
found["left"] = json.loads(tbxd("status", "--json").stdout)
drained = tbxd("drain")
found["drained"] = drained.returncode, drained.stdout + drained.stderr
print(json.dumps(found))
"""


def apart(place: World, mounts: str, script: str, *arguments: str) -> dict[str, Any]:
    """What a script prints that runs in namespaces of its own, with nothing configured."""
    (place.root / "home").mkdir(exist_ok=True)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("TBXD_", "XDG_"))}
    environ |= {"HOME": "/mnt/home", "TBXD_IDLE_SECONDS": "20", "OMP_NUM_THREADS": "1"}
    command = ["unshare", "-m", "bash", "-c", APART, "bash", str(place.root), mounts]
    result = subprocess.run(
        [*command, sys.executable, "-c", script, *arguments], env=environ, capture_output=True, text=True, timeout=120
    )
    if "unshare failed" in result.stderr:
        pytest.skip("no permission for namespaces")
    assert result.returncode == 0, result.stderr
    return dict(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")
@pytest.mark.parametrize(
    "how", ["full", *(pytest.param(how, marks=pytest.mark.long) for how in UNUSABLE if how != "full")]
)
def test_where_var_tmp_cannot_be_used_another_place_is_and_all_agree(place: World, how: str) -> None:
    found = apart(place, UNUSABLE[how], ALL)
    assert found["again"] == "True\n"
    assert scalars(place.logdir / "a") == {"value": 2 * [(step, float(step)) for step in range(100)]}
    status = found["status"]
    assert status["running"] and status["runs"]["/mnt/logs/a"]["written"] == 200
    assert found["stop"] == 0
    (left,) = found["left"]["journals"]
    assert left["waiting_bytes"] and not left["journal"].startswith("/var/tmp")
    assert found["drained"][0] == 0 and len(scalars(place.logdir / "b")["value"]) == 100, found["drained"]
    spool = [item for item in found["doctor"] if item["what"] == "spool"]
    assert spool[0]["level"] == "warning" and "/var/tmp" in spool[0]["found"], spool
    assert all(item["level"] != "trouble" for item in found["doctor"] if item["what"] in ("spool", "runtime folder"))
    if how in ("somebody else's", "full", "a file", "a link"):
        assert found["said"].count("tbxd:") == 1 and "no journal can be made in /var/tmp" in found["said"]
    else:
        assert found["said"] == "", "there is nothing to do about it"


# --- no place at all -------------------------------------------------------------------------------------------------

SMALL_FILES = ["prlimit", "--fsize=100000"]
MIXED = """
import sys, time
from pathlib import Path
from tbxd_client import SummaryWriter
writer = SummaryWriter("logs/a")
for step in range(int(sys.argv[1])):
    writer.add_scalar("value", step, step)
    if step % 1000 == 0:
        writer.add_histogram("large", memoryview(bytes(200_000)).cast("d"), step)
        if len(sys.argv) > 2:
            time.sleep(0.02)
        if step == 5000 and len(sys.argv) > 2:
            Path("half").touch()
            while not Path("go").exists():
                time.sleep(0.01)
print(writer.flush(60 if len(sys.argv) > 2 else 0.1), writer.stats()["dropped"])
"""


def test_without_any_place_records_are_kept_in_memory_and_written(place: World) -> None:
    """`ulimit -f` is too small for a journal anywhere."""
    place.serve()
    trainer = place.start(
        MIXED, 30_000, "slowly", under=SMALL_FILES, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    wait_for((place.root / "half").exists, "half of it")
    doctor = json.loads(place.tbxd("doctor", "--json").stdout)
    assert any("keeps its records in memory" in item["found"] for item in doctor), doctor
    (place.root / "go").touch()
    out, said = trainer.communicate(timeout=60)
    assert (trainer.returncode, out) == (0, "True {}\n"), said
    assert said.count("tbxd:") == 1 and "Records are kept in memory" in said and "File too large" in said
    assert [step for step, _ in scalars(place.logdir / "a")["value"]] == [*range(30_000)]


def test_what_is_in_memory_outlives_the_daemon(place: World) -> None:
    place.serve()
    environ = {"TBXD_ADDRESS": f"ipc://{place.runtime}/daemon.sock"}  # one that it starts itself has its limit, too
    trainer = place.start(
        MIXED, 30_000, "slowly", under=SMALL_FILES, stdout=subprocess.PIPE, text=True, environ=environ
    )
    wait_for((place.root / "half").exists, "half of it")
    place.kill_daemon()
    (place.root / "go").touch()
    place.ensure()
    out, _ = trainer.communicate(timeout=60)
    assert (trainer.returncode, out) == (0, "True {}\n")
    assert [step for step, _ in scalars(place.logdir / "a")["value"]] == [*range(30_000)]


def test_what_was_in_memory_and_nobody_has_taken_is_counted_at_the_end(place: World) -> None:
    place.extra |= {"TBXD_ADDRESS": f"ipc://{place.runtime}/nobody.sock", "TBXD_FLUSH_SECONDS": "0.2"}
    trainer = place.start(MIXED, 3000, under=SMALL_FILES, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _, said = trainer.communicate(timeout=60)
    assert trainer.returncode == 0
    assert "3,003 records were dropped in this process: 3,003 no_journal" in said, said


LATER = """
import os, resource, sys, time
from tbxd_client import SummaryWriter
import tbxd_client.transport.sender, tbxd_client.transport.connection
writer = SummaryWriter("logs/a")
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (4, hard))
for step in range(10):
    writer.add_scalar("value", step, step)
assert not writer.flush(1), "they were dropped"
assert writer.stats()["dropped"] == {"no_journal": 10}
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
deadline = time.monotonic() + 20
while writer.stats()["dropped"] == {"no_journal": step + 1}:
    step += 1
    writer.add_scalar("value", step, step)
    time.sleep(0.05)
    assert time.monotonic() < deadline
time.sleep(0.1)
writer.flush(30)
assert writer.flush(30), "nothing was dropped since"
print(writer.stats()["dropped"]["no_journal"])
time.sleep(60)
"""


def test_what_was_dropped_for_want_of_a_journal_reaches_the_status(place: World) -> None:
    place.serve()
    trainer = place.start(LATER, stdout=subprocess.PIPE, text=True)
    dropped = int(trainer.stdout.readline())
    run = wait_for(
        lambda: (place.status() or {"runs": {}})["runs"].get(str(place.logdir / "a"), {}).get("dropped"), "the drops"
    )
    status = place.status()
    assert status is not None and run == {"no_journal": dropped} == status["totals"]["dropped"]
    trainer.kill()


DROPPED = """
import sys
from tbxd_client import SummaryWriter
writer = SummaryWriter("logs/a")
assert writer.flush(), "nothing was logged"
writer.add_scalar("value", 1.0, 1)
assert writer.flush(30)
if sys.argv[1] == "here":
    for step in range(20):
        writer.add_text("large", "x" * 900_000, step)
elif sys.argv[1] == "daemon":
    writer.add_histogram("nothing", [float("nan")], 1)
else:
    writer.add_scalar("value", "nonsense", 1)
assert writer.flush(30) == (sys.argv[1] != "here"), "some were not kept"
assert writer.stats()["dropped"]
writer.add_scalar("value", 2.0, 2)
assert writer.flush(30), "none since"
writer.close()
"""


@pytest.mark.parametrize("where", ["here", "daemon", "argument"])
def test_a_flush_is_false_where_something_could_not_be_kept_since_the_last(place: World, where: str) -> None:
    place.serve()
    place.extra |= {"TBXD_JOURNAL_BYTES": str(1 << 20), "TBXD_BLOCK_MS": "0", "TBXD_STRICT": "0"}
    result = place.run(DROPPED, where)
    assert result.returncode == 0, result.stderr


FAILING = """
import os, sys
from tbxd_client import SummaryWriter
from tbxd_client.session import session
session.RETRY_SECONDS = 0
writer = SummaryWriter("logs/a")
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
before = len(os.listdir("/proc/self/fd"))
resource.setrlimit(resource.RLIMIT_NOFILE, (before + int(sys.argv[1]), hard))
for step in range(20):
    writer.add_scalar("value", step, step)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
assert writer.stats()["dropped"]["no_journal"] == 20
assert len(os.listdir("/proc/self/fd")) == before, "each attempt leaves descriptors open"
"""


@pytest.mark.parametrize("spare", range(1, 6))
def test_an_attempt_to_make_a_journal_leaves_no_descriptors_open(place: World, spare: int) -> None:
    result = place.run(FAILING, spare)
    assert result.returncode == 0, result.stderr


HANGS = "delay_enter=30000000"  # microseconds: a network disk whose server is gone
FILES = "?newfstatat,?openat,?stat,?lstat,?statx,?inotify_add_watch"


def test_a_home_folder_that_hangs_holds_up_neither_a_script_nor_a_daemon_that_do_not_need_it(
    place: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the last of the places where journals and daemon may be, and may be on the network."""
    monkeypatch.setenv("HOME", str(place.root / "home"))
    (place.root / "home").mkdir()
    log = place.root / "strace.log"
    daemon = place.serve()
    under = strace(FILES, HANGS, place.root / "script.log", runtimes(place.runtime)[-1])
    script = place.start(
        """
        import time
        begun = time.monotonic()
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        writer.add_scalar("value", 0, 0)
        print(time.monotonic() - begun < 15 and writer.flush(10))
        """,
        under=under,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert script.communicate(timeout=60)[0] == "True\n", "it was not looked at"
    with tampered(daemon.pid, FILES, HANGS, log, spools(place.spool)[-1]):
        wait_for(lambda: log.exists() and log.stat().st_size, "a look at the home folder", 10)
        result = place.run(
            """
            from tbxd_client import SummaryWriter
            writer = SummaryWriter("logs/b")
            for step in range(100):
                writer.add_scalar("value", step, step)
            print(writer.flush(10))
            """
        )
        assert result.stdout == "True\n", result.stderr
        daemon.kill()


def test_a_daemon_whose_settings_are_on_a_disk_that_hangs_says_so_and_does_not_wait(
    place: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = place.root / "home"
    (home / ".config" / "tbxd").mkdir(parents=True)
    file = home / ".config" / "tbxd" / "config.toml"
    file.write_text("")
    place.extra |= {"HOME": str(home), "TBXD_CONFIG": ""}
    under = strace(FILES, HANGS, place.root / "serve.log", file)
    said = place.root / "said"
    with said.open("wb") as stderr:  # strace ends with the delay
        place.processes.append(
            subprocess.Popen([*under, sys.executable, "-m", "tbxd", "serve"], env=place.environ, stderr=stderr)
        )
    wait_for(lambda: said.stat().st_size, "a word of it", 25)
    assert str(file) in said.read_text() and "hangs" in said.read_text() and "Traceback" not in said.read_text()
