"""Locales, signal handlers that raise, the last moments of the interpreter, no ``/proc``: nothing is lost by them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import World, scalars, wait_for

# --- locales ---------------------------------------------------------------------------------------------------------

NAMED = """
import os, sys
from tbxd_client import SummaryWriter
given = {"argument": sys.argv[2], "letters": "l\\xf6gs", "bytes": sys.argv[2].encode(sys.getfilesystemencoding(),
         "surrogateescape")}[sys.argv[1]]
writer = SummaryWriter(given)
for step in range(10):
    writer.add_scalar("value", step, step)
assert writer.flush(30)
print(writer.stats()["written"])
"""


def spoken(place: World, locale: str, how: str, folder: bytes) -> subprocess.CompletedProcess[bytes]:
    environ = {**place.environ, "LC_ALL": locale, "PYTHONUTF8": "0"}
    command = [sys.executable.encode(), b"-c", NAMED.encode(), how.encode(), folder]
    return subprocess.run(command, env=environ, cwd=place.root, capture_output=True, timeout=60)


@pytest.mark.parametrize("daemon", ["its own", "running"])
@pytest.mark.parametrize("how", ["argument", "letters", "bytes"])
def test_a_folder_of_other_letters_than_the_locales_is_the_folder_of_these_bytes(
    place: World, how: str, daemon: str
) -> None:
    if daemon == "running":
        place.serve()
    result = spoken(place, "C", how, "lögs".encode())
    assert (result.returncode, result.stdout) == (0, b"10\n"), result.stderr
    assert [os.fsencode(path.name) for path in place.root.glob("l*gs")] == ["lögs".encode()], "one, and no other"
    assert len(scalars(place.root / "lögs")["value"]) == 10
    status = place.status()
    assert status is not None and list(status["runs"]) == [str(place.root / "lögs")]
    result_of = subprocess.run(
        [sys.executable, "-m", "tbxd", "status"],
        env={**place.environ, "LC_ALL": "C", "PYTHONUTF8": "0"},
        capture_output=True,
    )
    assert result_of.returncode == 0 and "lögs".encode() in result_of.stdout, result_of


def test_a_folder_whose_name_is_no_text_is_logged_to(place: World) -> None:
    """What a file system takes is taken: bytes of another encoding, as old disks have them."""
    place.serve()
    result = spoken(place, "C.UTF-8", "argument", b"l\xf6gs")
    assert (result.returncode, result.stdout) == (0, b"10\n"), result.stderr
    folder = Path(os.fsdecode(os.fsencode(place.root) + b"/l\xf6gs"))
    assert len(scalars(folder)["value"]) == 10
    status = place.status()
    assert status is not None and list(status["runs"]) == [str(folder)]
    for command in ("status", "doctor"):
        result_of = place.tbxd(command)
        assert result_of.returncode == 0 and "Traceback" not in result_of.stderr, result_of
    assert "l\\udcf6gs" in place.tbxd("status").stdout


# --- signal handlers that raise --------------------------------------------------------------------------------------

RAISING = """
import collections, random, signal, sys, threading
from tbxd_client import SummaryWriter
writer = SummaryWriter("logs/a")
writer.add_text("text", "x", 0)
writer.add_histogram("small", [1.0], 0)
assert writer.flush(30)  # else each first call is interrupted, and nothing else is tried
class Stop(BaseException):  # as KeyboardInterrupt: an Exception is taken for that of an array which is read
    pass
def handler(number, frame):
    raise Stop
signal.signal(signal.SIGALRM, handler)
rng = random.Random(int(sys.argv[2]))
stopped = n = 0
odd = collections.Counter()
small, large = memoryview(bytes(8000)).cast("d"), memoryview(bytes(1_000_000)).cast("d")
def calls():
    global n
    for _ in range(20_000):
        n += 1
        writer.add_scalar("value", 1.0, n)
        writer.log({"a": 1.0, "b": 2.0}, n)
        writer.add_scalar(f"tag {n % 500}", 1.0, n)
        writer.add_text("text", "x", n)
        if n % 7 == 0:
            writer.flush(0.001)
        if n % 11 == 0:
            writer.add_histogram("small", small, n)
        if n % 53 == 0:
            writer.add_histogram("large", large, n)
        if n % 13 == 0:
            writer.stats()
            writer.add_scalars("many", {"x": 1.0, "y": 2.0}, n)
    raise AssertionError("what the handler raised has reached nobody")
while stopped < int(sys.argv[1]):
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(2e-5, 4e-4))
        calls()
    except Stop:
        stopped += 1
    except Exception as error:
        odd[repr(error)] += 1
        stopped += 1
signal.signal(signal.SIGALRM, signal.SIG_IGN)
done = threading.Event()
def other():
    writer.add_scalar("other", 1.0, 1)
    done.set()
threading.Thread(target=other, daemon=True).start()
assert done.wait(20), "a lock is held by nobody"
flushed = writer.flush(60)
stats = writer.stats()
assert not odd, odd
if not flushed:
    flushed = writer.flush(60)
assert flushed and stats["accepted"] == stats["written"] + stats["pending"] + sum(stats["dropped"].values())
stats = writer.stats()
assert -stopped <= stats["pending"] <= 0, stats  # a call that a handler has ended may be written and not counted
print(stopped, n)
"""


@pytest.mark.parametrize("interruptions", [4000, pytest.param(40_000, marks=pytest.mark.matrix)])
def test_a_signal_handler_that_raises_leaves_every_lock_as_it_was(place: World, interruptions: int, seed: int) -> None:
    """Also in calls that wait for room or for the daemon; nothing but what the handler raised comes out of them."""
    place.extra |= {"TBXD_JOURNAL_BYTES": str(4 << 20), "TBXD_BLOCK_MS": "5"}
    place.serve()
    result = place.run(RAISING, interruptions, seed, timeout=300)
    assert result.returncode == 0, result.stderr


# --- the last moments ------------------------------------------------------------------------------------------------

LATE = """
import atexit, builtins, sys, time
from tbxd_client import SummaryWriter
how, before = sys.argv[1:]
class Model:
    def __del__(self):
        started = time.perf_counter()
        writer.add_scalar("value", 2.0, 2)
        writer.add_histogram("histogram", [1.0, 2.0], 2)
        writer.add_text("text", "x", 2)
        writer.close()
        print(writer.stats()["accepted"], sum(writer.stats()["dropped"].values()), time.perf_counter() - started)
if how == "atexit":
    atexit.register(lambda: Model())
writer = SummaryWriter("logs/a")
if before == "logged":
    writer.add_scalar("value", 0.0, 0)
    assert writer.flush(30)
model = Model() if how != "atexit" else None
if how == "cycle":
    model.itself = model
elif how == "module":
    sys.modules["kept"] = model
elif how == "builtins":
    builtins.kept = model
"""


@pytest.mark.parametrize("before", ["logged", "nothing"])
@pytest.mark.parametrize("how", ["atexit", "global", "cycle", "module", "builtins"])
def test_what_is_logged_in_the_last_moments_is_written_or_counted_and_told(place: World, how: str, before: str) -> None:
    place.serve()
    result = place.run(LATE, how, before)
    assert result.returncode == 0 and "Traceback" not in result.stderr, result.stderr
    accepted, dropped, seconds = result.stdout.split()
    assert float(seconds) < 2, "there is no thread any more to wait for"
    assert int(accepted) == 3 and int(dropped) <= 1, "of the session that this made"
    assert result.stderr.count("when the program had ended") == 1
    assert result.stderr.count("imports nothing any more") == int(dropped)
    wait_for(place.drained, "the journal that was left", 10)
    steps = [step for step, _ in scalars(place.logdir / "a")["value"]]
    assert steps == ([0, 2] if before == "logged" else [2])
    status = place.status()
    assert status is not None
    run = status["runs"][str(place.logdir / "a")]
    assert run["accepted"] == 3 + (before == "logged") == run["written"] + sum(run["dropped"].values()), run
    assert run["dropped"].get("shutdown", 0) == int(dropped)


# --- no /proc --------------------------------------------------------------------------------------------------------

NO_PROC = ["unshare", "-m", "bash", "-c", 'mount -t tmpfs tmpfs /proc && exec "$@"', "bash"]
LOGS = """
import sys
from tbxd_client import SummaryWriter
writer = SummaryWriter("logs/a")
for step in range(1000):
    writer.add_scalar("value", step, step)
print(writer.flush(float(sys.argv[1])))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("daemon", ["its own", "killed", "with /proc", "later, with /proc"])
def test_without_proc_all_is_written(place: World, daemon: str) -> None:
    """The daemon counts its descriptors, and knows what a crash of the machine is, in another way."""
    if daemon == "with /proc":
        place.serve()
    late = daemon == "later, with /proc"
    environ = {"TBXD_ADDRESS": f"ipc://{place.runtime}/nobody.sock"} if late else {}
    seconds = 0 if late else 30
    trainer = place.start(LOGS, seconds, under=NO_PROC, stdout=subprocess.PIPE, text=True, environ=environ)
    out, _ = trainer.communicate(timeout=60)
    assert (trainer.returncode, out) == (0, f"{not late}\n")
    if daemon == "killed":
        place.kill_daemon()
        again = place.start(LOGS, 30, under=NO_PROC, stdout=subprocess.PIPE, text=True)
        assert again.communicate(timeout=60)[0] == "True\n"
    place.ensure()
    wait_for(place.drained, "the journal")
    found = [step for step, _ in scalars(place.logdir / "a")["value"]]
    assert found == [*range(1000)] * (2 if daemon == "killed" else 1), "nothing is taken for lost in a crash"
    status = place.status()
    assert status is not None and not status["lost_bytes_at_crash"]
    for command in (["status", "--json"], ["doctor", "--json"], ["drain"]):
        result = place.tbxd(*command, under=NO_PROC)
        assert result.returncode == 0, (command, result.stdout, result.stderr)
    assert json.loads(place.tbxd("status", "--json", under=NO_PROC).stdout)["running"]
