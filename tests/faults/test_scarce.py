"""No thread, no memory, no clock, no thread of the system's: training goes on, and what it logs is kept."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harness import World, scalars, wait_for
from oracle import Verdict
from report import account
from test_two_users import LOG, User, users  # noqa: F401

ENOUGH = 3  # sizes at which there is nothing to say, after which larger ones tell nothing new


def limited(place: World, script: str, bytes_most: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script with so much address space."""
    command = ["prlimit", f"--as={bytes_most}", sys.executable, "-c", script, *arguments]
    return subprocess.run(command, env=place.environ, cwd=place.root, capture_output=True, text=True, timeout=60)


def kept(place: World) -> int:
    """Scalars that are in the event files once a daemon has taken what was left in the spool."""
    place.ensure()
    wait_for(place.drained, "the journals")
    return sum(len(points) for points in scalars(place.logdir / "a").values())


# --- threads ---------------------------------------------------------------------------------------------------------

FEW_THREADS = """
import os, resource, sys, time
from pathlib import Path
from tbxd_client import SummaryWriter
writer = SummaryWriter("runs/a")
mine = 0
for status in Path("/proc").glob("[0-9]*/task/[0-9]*/status"):
    try:
        mine += f"\\nUid:\\t{os.getuid()}\\t" in status.read_text()
    except OSError:
        pass
_, hard = resource.getrlimit(resource.RLIMIT_NPROC)
resource.setrlimit(resource.RLIMIT_NPROC, (mine + int(sys.argv[1]), hard))
for step in range(100):
    writer.add_scalar("value", step, step)
writer.flush(0.3)
assert writer.stats()["accepted"] == 100 and not writer.stats()["dropped"]
resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
deadline = time.monotonic() + 20
while not writer.flush(0.5):  # slowly, as training logs: the next tries come with its records
    step += 1
    writer.add_scalar("value", step, step)
    assert time.monotonic() < deadline, "nobody tries again"
    time.sleep(0.05)
print(step + 1)
"""


def test_a_trainer_that_may_have_no_thread_trains_on_and_sends_later(users: tuple[User, User]) -> None:  # noqa: F811
    """Without the thread of the sender, which is the only one: a daemon of this host is reached without libzmq."""
    user = users[0]
    assert user.script(LOG, "runs/b", 1, 50).returncode == 0, "a daemon runs"
    folder, said = user.home / "runs" / "a", ""
    for further in range(6):
        before = len(scalars(folder).get("value", []))
        result = user.script(FEW_THREADS, further, TBXD_RESUME="always")  # all in one run
        assert result.returncode == 0, f"{further} threads: {result.returncode}: {result.stderr[-2000:]}"
        assert len(scalars(folder)["value"]) == before + int(result.stdout)
        said += result.stderr
    assert "no thread to send from" in said and "no further threads" not in said


def test_over_tcp_a_trainer_that_may_have_no_thread_trains_on(users: tuple[User, User]) -> None:  # noqa: F811
    """libzmq makes two, and aborts where it gets none; here it does not begin."""
    script, said = FEW_THREADS.partition("resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))")[0], ""
    for further in range(6):
        result = users[0].script(script, further, TBXD_ADDRESS="tcp://127.0.0.1:9", TBXD_FLUSH_SECONDS="0.1")
        assert result.returncode == 0, f"{further} threads: {result.returncode}: {result.stderr[-2000:]}"
        said += result.stderr
    assert "no thread to send from" in said and "no further threads" in said, "it was so in each place"


# --- memory ----------------------------------------------------------------------------------------------------------

BARE = "import ctypes, logging, threading, json"
LOGS = f"""
import sys
try:
    {BARE}
    from tbxd_client import SummaryWriter
except (ImportError, OSError, MemoryError):  # it cannot be loaded at all, or what every program has cannot
    sys.exit(3)
try:
    writer = SummaryWriter(sys.argv[1])
    for step in range(300):
        writer.add_scalar("value", step, step)
        if step % 100 == 99:
            writer.flush(0.2)
except MemoryError:  # of Python itself: nothing more can be done here
    sys.exit(3)
stats = writer.stats()
print(stats["accepted"], sum(stats["dropped"].values()))
"""


def least(place: World, script: str) -> int:
    """The smallest address space in which a script runs, to a quarter of a MiB."""
    low, high = 1 << 20, 1 << 30
    while high - low > 1 << 18:
        middle = (low + high) // 2
        if limited(place, script, middle).returncode:
            low = middle
        else:
            high = middle
    return high


@pytest.mark.long
@pytest.mark.parametrize("step", [9 << 20, pytest.param(1 << 20, marks=pytest.mark.matrix)])
def test_a_trainer_with_little_memory_is_not_aborted(place: World, step: int) -> None:
    """From where a script runs at all, up to where everything is to be had."""
    place.serve()
    place.extra["TBXD_FLUSH_SECONDS"] = "1"
    first = least(place, BARE)
    kept: dict[str, int] = {}
    enough = 0
    for size in range(first, first + (400 << 20), step):
        folder = f"logs/{size}"
        result = limited(place, LOGS, size, folder)
        assert result.returncode in (0, 3), f"{size} bytes: {result.returncode}: {result.stderr[-2000:]}"
        assert "Traceback" not in result.stderr, f"{size} bytes: {result.stderr[-2000:]}"
        if result.returncode == 0:
            accepted, dropped = map(int, result.stdout.split())
            assert accepted == 300
            kept[folder] = accepted - dropped
            enough += not result.stderr
        if enough > ENOUGH:
            break
    assert enough, "somewhere it was enough for everything"
    place.ensure()
    wait_for(place.drained, "the journals")
    assert {folder: len(scalars(place.root / folder).get("value", [])) for folder in kept} == kept


@pytest.mark.long
def test_pyzmq_is_not_loaded_where_memory_would_run_out_in_the_midst_of_it(place: World) -> None:
    """In each quarter of a MiB of those in which that was so, nobody sees a traceback, and the journal has its memory.

    hashlib wrote one for each of its algorithms, 16 screens of them, and all records were dropped.
    """
    place.extra |= {"TBXD_FLUSH_SECONDS": "0.1", "TBXD_ADDRESS": "tcp://127.0.0.1:9"}  # over tcp it would be loaded
    script = """
import sys, resource
from tbxd_client import SummaryWriter
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[1]),) * 2)
writer = SummaryWriter("logs/a")
for step in range(10):
    writer.add_scalar("value", step, step)
stats = writer.stats()
print(stats["accepted"], sum(stats["dropped"].values()), "zmq" in sys.modules)
"""
    seen = set()
    for left in range(4 << 20, 10 << 20, 1 << 18):
        result = place.run(script, left)
        assert result.returncode == 0 and "Traceback" not in result.stderr, f"{left} bytes: {result.stderr[-2000:]}"
        seen.add(result.stdout.strip())
    assert seen == {"10 0 False"}


# --- gevent, eventlet, freezegun -------------------------------------------------------------------------------------

PATCHED = """
import sys, time
if sys.argv[1] == "gevent":
    from gevent import monkey
    patch = monkey.patch_all
    from gevent import sleep
else:
    import eventlet
    patch = eventlet.monkey_patch
    from eventlet import sleep
if sys.argv[2] == "before":
    patch()
from tbxd_client import SummaryWriter
if sys.argv[2] == "after":
    patch()
writer = SummaryWriter("logs/a")
for step in range(200):
    started = time.perf_counter()
    writer.add_scalar("value", step, step)
    sleep(0.001)
    assert time.perf_counter() - started < 2, "training stands still"
assert writer.flush(30)
print(writer.stats()["written"])
"""


@pytest.mark.parametrize("daemon", ["running", "its own"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_where_threads_are_coroutines_training_goes_on(place: World, library: str, when: str, daemon: str) -> None:
    """gevent also replaces what starts a process."""
    pytest.importorskip(library)
    if daemon == "running":
        place.serve()
    result = place.run(PATCHED, library, when, timeout=50)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["200"]
    steps = [step for step, _ in scalars(place.logdir / "a")["value"]]
    account("gevent", 1, Verdict(accepted=200, written=len(steps), doubled=len(steps) - len(set(steps))))
    assert steps == list(range(200))


FROZEN = """
import sys, time
if sys.argv[1] == "before":
    from tbxd_client import SummaryWriter
from freezegun import freeze_time
from tbxd_client import *
with freeze_time("2026-01-01"):
    writer = SummaryWriter("logs/a")
    for step in range(10):
        writer.add_scalar("value", step, step)
    writer.close()
print("done")
"""


@pytest.mark.parametrize("daemon", ["running", "none"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_frozen_clock_lets_close_end(place: World, when: str, daemon: str) -> None:
    pytest.importorskip("freezegun")
    place.extra |= {"TBXD_FLUSH_SECONDS": "1"}
    if daemon == "running":
        place.serve()
    else:
        place.extra["TBXD_ADDRESS"] = f"ipc://{place.runtime}/daemon.sock"
    result = place.run(FROZEN, when, timeout=20)
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr
    place.extra.pop("TBXD_ADDRESS", None)
    assert kept(place) == 10


# --- what a program does to its surroundings -------------------------------------------------------------------------

ODD_NAMES = """
import sys
from pathlib import Path
sys.argv = {"path": [Path("train.py")], "none": [None], "empty": [], "bytes": [b"tr\\xe4in.py"],
            "letters": ["tr\\udce4in.py"]}[sys.argv[1]]
from tbxd_client import SummaryWriter
writer = SummaryWriter("logs/a")
writer.add_scalar("value", 1.0, 1)
assert writer.flush(30)
"""


@pytest.mark.parametrize("name", ["path", "none", "empty", "bytes", "letters"])
def test_a_script_may_have_any_name(place: World, name: str) -> None:
    result = place.run(ODD_NAMES, name)
    assert (result.returncode, result.stderr) == (0, "")


THREAD_LATER = """
import _thread, sys, time
real, refused = _thread.start_new_thread, []
def start(*arguments):
    if len(refused) < 3:
        refused.append(1)
        raise RuntimeError("can't start new thread")
    return real(*arguments)
_thread.start_new_thread = start
from tbxd_client import SummaryWriter
writer = SummaryWriter("logs/a")
_thread.start_new_thread = real
step = 0
while not step or not writer.flush(0.5):
    writer.add_scalar("value", step, step)
    step += 1
    assert step < 200, "nobody tries again"
    time.sleep(0.05)
assert len(refused) == 3
"""


def test_a_sender_that_could_not_start_is_tried_again(place: World) -> None:
    place.serve()
    result = place.run(THREAD_LATER)
    assert result.returncode == 0, result.stderr
    assert "no thread to send from" in result.stderr and "tbxd tries again" in result.stderr


BROKEN_ONCE = """
from tbxd_client import SummaryWriter
from tbxd_client.protocol import wire
pack, left = wire.pack, [2]
def broken(*arguments, **more):
    if left[0]:
        left[0] -= 1
        raise LookupError("nobody has thought of this")
    return pack(*arguments, **more)
wire.pack = broken
writer = SummaryWriter("logs/a")
for step in range(10):
    writer.add_scalar("value", step, step)
assert writer.flush(30) and not left[0]
"""


def test_a_sender_that_breaks_begins_anew(place: World) -> None:
    place.serve()
    result = place.run(BROKEN_ONCE)
    assert result.returncode == 0, result.stderr
    assert "LookupError: nobody has thought of this" in result.stderr and "tbxd tries again" in result.stderr
    assert len(scalars(place.logdir / "a")["value"]) == 10


STDERR = """
import sys, os
from tbxd_client import SummaryWriter
class Bad:
    def write(self, text):
        raise KeyError("a tee that is broken")
    flush = write
if sys.argv[1] == "closed":
    os.close(1); os.close(2)
else:
    sys.stderr = {"raises": Bad(), "none": None, "odd": 3}[sys.argv[1]]
writer = SummaryWriter("logs/a")
for step in range(3):
    writer.add_scalar("value", step, step)
    writer.add_histogram("large", memoryview(bytes(1000)), step)
writer.close()
sys.stdout = sys.stderr = sys.__stderr__  # Python's own flush at the end is not meant
"""


@pytest.mark.parametrize("kind", ["raises", "none", "odd", "closed"])
def test_an_odd_stderr_does_not_come_out_of_a_call(place: World, kind: str) -> None:
    """Where there is something to say: no daemon, a journal that is too small."""
    place.extra |= {"TBXD_JOURNAL_BYTES": "nonsense", "TBXD_FLUSH_SECONDS": "0.2", "TBXD_BLOCK_MS": "many"}
    place.extra["TBXD_ADDRESS"] = f"ipc://{place.runtime}/daemon.sock"
    result = place.run(STDERR, kind)
    assert result.returncode == 0, result.stderr


COLLECTED = """
import gc, sys, threading, time
from tbxd_client import SummaryWriter
from tbxd_client.session import session
from tbxd_client.transport.sender import Sender
writer = SummaryWriter("logs/a")
writer.add_scalar("value", 1.0, 1)
took = []
class Model:
    def __del__(self):
        started = time.perf_counter()
        writer.add_scalar("value", 2.0, 2)
        writer.close()
        took.append(time.perf_counter() - started)
# Where the collector finds something is a matter of chance; here it is in the midst of the sender's loop.
report, models = Sender._report, [Model()]
def reporting(self, link, now):
    models.clear()
    return report(self, link, now)
Sender._report = reporting
deadline = time.monotonic() + 20
while not took:
    assert time.monotonic() < deadline
    time.sleep(0.01)
assert took[0] < 0.5, took
assert writer.flush(30)
"""


def test_a_close_on_the_senders_own_thread_does_not_wait_for_itself(place: World) -> None:
    place.serve()
    result = place.run(COLLECTED)
    assert result.returncode == 0, result.stderr
    assert [step for step, _ in scalars(place.logdir / "a")["value"]] == [1, 2]


ENDED = """
import time
from tbxd_client import SummaryWriter
from tbxd_client.transport import sender
from tbxd_client.session import session
def breaks(*arguments, **more):
    raise MemoryError
attempt, pause = sender.Sender._attempt, sender.Sender._pause
sender.Sender._attempt = sender.Sender._pause = breaks  # neither to send with, nor to wait with
writer = SummaryWriter("logs/a")
writer.add_scalar("value", 0, 0)
deadline = time.monotonic() + 30
while session.active().sender.alive:
    assert time.monotonic() < deadline
    time.sleep(0.01)
sender.Sender._attempt, sender.Sender._pause = attempt, pause
step = 1
while not writer.stats()["written"]:
    assert time.monotonic() < deadline, "nobody sends"
    writer.add_scalar("value", step, step)
    step += 1
    time.sleep(0.05)
writer.close()
print(step)
"""


def test_a_sender_whose_thread_ends_is_begun_anew_with_a_record(place: World) -> None:
    """Without a flush, which asks for it anyway."""
    place.serve()
    result = place.run(ENDED)
    assert result.returncode == 0, result.stderr
    assert len(scalars(place.logdir / "a")["value"]) == int(result.stdout)
