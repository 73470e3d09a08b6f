"""Who waits for room in a full journal holds nothing: what has room goes on, and nothing is torn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import World, scalars, wait_for, world

LARGE = 1_200_000  # bytes of a large record: with 8 MiB of journal and three quarters for them, some fit


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[World]:
    """Nobody takes anything, so large records fill their share of the journal, and wait."""
    extra = {"TBXD_ADDRESS": f"ipc://{tmp_path}/nobody", "TBXD_JOURNAL_BYTES": str(8 << 20)}
    with world(tmp_path, TBXD_BLOCK_MS="3000", **extra) as made:
        yield made


FULL = """
import json, os, signal, sys, threading, time
import numpy as np
from tbxd_client import SummaryWriter
writer = SummaryWriter("logs/a")
writer.add_scalar("known", 0.0, 0)
writer.log({"row": 1.0}, 0)
large = np.zeros(300_000, np.float32)
for step in range(100):
    thread = threading.Thread(target=writer.add_tensor, args=("large", large, step), daemon=True)
    began = time.monotonic()
    thread.start()
    thread.join(0.5)
    if thread.is_alive():
        break
"""


def test_what_has_room_goes_on_while_a_large_record_waits_for_it(alone: World) -> None:
    script = (
        FULL
        + """
took = {}
def timed(name, call, *arguments):
    start = time.monotonic()
    call(*arguments)
    took[name] = time.monotonic() - start
timed("scalar", writer.add_scalar, "known", 1.0, 1)
timed("new", writer.add_scalar, "new", 1.0, 1)
timed("row", writer.log, {"row": 1.0}, 1)
timed("text", writer.add_text, "text", "text", 1)
timed("flush", writer.flush, 0.1)
assert thread.is_alive(), "it still waits"
thread.join()
took["large"] = time.monotonic() - began
print(json.dumps([took, writer.stats()]), flush=True)
os._exit(0)
"""
    )
    result = alone.run(script)
    assert result.returncode == 0, result.stderr
    took, stats = json.loads(result.stdout)
    assert took.pop("large") >= 2.9, "its bound"
    assert max(took.values()) < 1.5, took
    assert stats["dropped"] == {"journal_full": 1}


def test_a_handler_that_raises_in_the_wait_leaves_everything_in_order(alone: World) -> None:
    """What it has logged before is kept; the record that waited was not logged, as its call did not return."""
    script = (
        FULL
        + """
thread.join()
def handler(number, frame):
    writer.add_scalar("handler", 1.0, 1)
    writer.add_text("handler", "text", 1)
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, handler)
writer._tbxd_run.journal._stalled = False  # as after a release: it is worth waiting again
before = writer.stats()["accepted"]
signal.setitimer(signal.ITIMER_REAL, 0.3)
started = time.monotonic()
try:
    writer.add_tensor("large", large, 100)
except KeyboardInterrupt:
    took = time.monotonic() - started
other = threading.Thread(target=writer.add_scalar, args=("known", 2.0, 2), daemon=True)
other.start()
other.join(10)
writer.add_scalar("known", 3.0, 3)
print(json.dumps([took, other.is_alive(), writer.stats()["accepted"] - before]), flush=True)
os._exit(0)
"""
    )
    result = alone.run(script)
    assert result.returncode == 0, result.stderr
    took, hangs, accepted = json.loads(result.stdout)
    assert 0.25 < took < 2, "in its wait"
    assert not hangs
    assert accepted == 4


def test_what_a_handler_logs_while_the_call_it_interrupts_is_under_way_waits_as_that_one(alone: World) -> None:
    """A large record that was put off finds no room: it waits at the end of the call that it has interrupted."""
    script = (
        FULL
        + """
thread.join()
writer._tbxd_run.journal._stalled = False
def handler(number, frame):
    writer.add_tensor("large", large, 200)
signal.signal(signal.SIGUSR1, handler)
kind = type(writer._tbxd_run)
number_of = kind.tag
def interrupted(*arguments):  # in the middle of the call
    kind.tag = number_of
    signal.raise_signal(signal.SIGUSR1)
    return number_of(*arguments)
kind.tag = interrupted
def log():
    time.sleep(0.5)
    writer.add_text("other", "text", 1)
    done.append(time.monotonic() - started)
done = []
before = writer.stats()["accepted"]
started = time.monotonic()
other = threading.Thread(target=log)
other.start()
writer.add_text("text", "text", 1)
took = time.monotonic() - started
other.join()
print(json.dumps([took, *done, writer.stats()["accepted"] - before, writer.stats()["dropped"]]), flush=True)
os._exit(0)
"""
    )
    result = alone.run(script)
    assert result.returncode == 0, result.stderr
    took, other, accepted, dropped = json.loads(result.stdout)
    assert took >= 2.9, "the call that was interrupted waits for it"
    assert other < 2, "and keeps nobody else waiting"
    assert accepted == 3 and dropped == {"journal_full": 2}


# A journal that is full of scalars.
FULL_OF_SCALARS = """
import json, os, signal, threading, time
from tbxd_client import SummaryWriter
writer = SummaryWriter("logs/a")
step = 0
while not writer.stats()["dropped"]:
    for _ in range(10_000):
        writer.add_scalar("known", step, step)
        step += 1
"""


def test_a_scalar_of_a_handler_in_a_turn_of_its_thread_waits_for_no_room(alone: World) -> None:
    """The turn would not end meanwhile, and all threads that log anything but scalars would wait with it."""
    result = alone.run(
        FULL_OF_SCALARS
        + """
writer._tbxd_run.journal._stalled = False  # as after a release: it is worth waiting again
took, done = {}, threading.Event()
def handler(number, frame):
    begun = time.monotonic()
    writer.add_scalar("known", 1.0, step)
    took["handler"] = time.monotonic() - begun
signal.signal(signal.SIGUSR1, handler)
kind = type(writer._tbxd_run)
number_of = kind.tag
def interrupted(*arguments):  # in the middle of the call
    kind.tag = number_of
    other.start()
    time.sleep(0.2)
    signal.raise_signal(signal.SIGUSR1)
    writer._tbxd_run.journal._stalled = True
    return number_of(*arguments)
kind.tag = interrupted
def log():
    begun = time.monotonic()
    writer.add_text("other", "text", 1)
    took["other"] = time.monotonic() - begun
other = threading.Thread(target=log)
writer.add_text("text", "text", 1)
other.join()
print(json.dumps([took, writer.stats()]), flush=True)
os._exit(0)
""",
        environ={"TBXD_BLOCK_MS": "2000"},
    )
    assert result.returncode == 0, result.stderr
    took, stats = json.loads(result.stdout)
    assert took["handler"] < 0.5 and took["other"] < 1.5, took
    assert stats["accepted"] == stats["written"] + stats["pending"] + sum(stats["dropped"].values())


def test_a_handler_that_forks_in_the_wait_has_a_child_that_goes_on(alone: World) -> None:
    """Nobody makes room in what the child has of its parent's journal: its own is empty."""
    result = alone.run(
        FULL_OF_SCALARS
        + """
parent = os.getpid()
signal.signal(signal.SIGALRM, lambda number, frame: os.fork())
journal = writer._tbxd_run.journal
journal._stalled, journal.block_seconds = False, 8.0
signal.setitimer(signal.ITIMER_REAL, 0.3)
begun = time.monotonic()
writer.add_text("text", "text", 1)
took = time.monotonic() - begun
if os.getpid() != parent:
    writer.add_scalar("known", 1.0, step)
print(json.dumps([os.getpid() != parent, took, writer.stats()]), flush=True)
os._exit(0)
"""
    )
    assert result.returncode == 0, result.stderr
    told = {child: (took, stats) for child, took, stats in map(json.loads, result.stdout.splitlines())}
    assert told[False][0] > 7, "the parent waits for room"
    assert told[True][0] < 4, "the child does not"
    assert told[True][1]["dropped"].keys() == told[False][1]["dropped"].keys() or not told[True][1]["dropped"]


@pytest.mark.parametrize("call", ["add_scalar('new', step, step)", "log({'new': step}, step)"])
def test_the_first_of_a_tag_that_was_put_off_comes_before_those_that_are_logged_later(
    tmp_path: Path, call: str
) -> None:
    """A handler logs it, and the next one logs the second while the first is about to be stored."""
    with world(tmp_path / "world") as made:
        result = made.run(
            """
            import signal
            from tbxd_client import SummaryWriter
            writer = SummaryWriter("logs/a")
            writer.add_scalar("known", 0.0, 0)
            step = 0
            def handler(number, frame):
                global step
                for _ in range(1 if step else 2):
                    step += 1
                    writer.CALL
            signal.signal(signal.SIGUSR1, handler)
            run, journal = type(writer._tbxd_run), type(writer._tbxd_run.journal)
            number_of, append = run.tag, journal.append
            appended = 0
            def interrupted(*arguments):  # in the middle of the call
                run.tag = number_of
                signal.raise_signal(signal.SIGUSR1)
                return number_of(*arguments)
            def interrupted_again(*arguments, **more):
                global appended
                appended += 1
                if appended in (2, 3):  # those of what was put off
                    signal.raise_signal(signal.SIGUSR1)
                return append(*arguments, **more)
            run.tag, journal.append = interrupted, interrupted_again
            writer.add_text("text", "text", 1)
            run.tag, journal.append = number_of, append
            assert step == 4
            step = 5
            writer.CALL
            assert writer.flush(60)
            """.replace("CALL", call)
        )
        assert result.returncode == 0, result.stderr
        assert scalars(made.logdir / "a")["new"] == [(step, float(step)) for step in range(1, 6)]


def test_what_is_put_off_and_finds_no_room_then_is_counted_where_it_was_logged(tmp_path: Path) -> None:
    """A trace function logs in the middle of a scalar: both are accepted, and the one without room is dropped."""
    script = """
import json, os, sys
from tbxd_client import SummaryWriter
writer = SummaryWriter("logs/a")
CODE = SummaryWriter.add_scalar.__code__
writer.add_scalar("main", 0.0, 0)
writer.add_scalar("handler", 0.0, 0)
journal = writer._tbxd_run.journal
while writer.stats()["dropped"] == {}:
    before = writer.stats()["accepted"]
    journal.append(b"x" * 1000) if journal._segment_end - journal.position > 1034 else writer.add_scalar("main", 1.0, 1)
    live = journal._segments.live
    if journal._segment_end - journal.position < 68 + 34 and len(live) * live[-1].capacity >= 1 << 20:
        break
while journal._segment_end - journal.position >= 68:
    writer.add_scalar("main", 1.0, 1)
done = []
def trace(frame, event, arg):
    if frame.f_code is not CODE:
        return None
    if event == "line" and journal.limit == -2 and not done:
        done.append(True)
        writer.add_scalar("handler", 1.0, 1)
    return trace
before = writer.stats()
sys.settrace(trace)
writer.add_scalar("main", 1.0, 1)
sys.settrace(None)
print(json.dumps([len(done), before, writer.stats()]), flush=True)
os._exit(0)
"""
    extra = {"TBXD_ADDRESS": f"ipc://{tmp_path}/nobody", "TBXD_JOURNAL_BYTES": str(1 << 20)}
    with world(tmp_path, TBXD_BLOCK_MS="0", **extra) as place:
        result = place.run(script)
        assert result.returncode == 0, result.stderr
        interrupted, before, after = json.loads(result.stdout)
        assert interrupted == 1
        assert after["accepted"] == before["accepted"] + 2
        assert after["dropped"] == {"journal_full": 1} and not before["dropped"]


STRESS = """
import json, os, signal, sys, threading, time
import numpy as np
from tbxd_client import SummaryWriter
sys.setswitchinterval(1e-5)
writer = SummaryWriter("logs/a")
calls = dict.fromkeys(("scalar", "row", "large", "handler", "handled"), 0)
waits = 0
ends = time.monotonic() + float(sys.argv[1])
inside = False
def handler(number, frame):
    global inside
    if inside:
        return
    inside = True
    writer.add_scalar("handler", calls["handler"], calls["handler"])
    calls["handler"] += 1
    writer.log({"handled": float(calls["handled"])}, calls["handled"])
    calls["handled"] += 1
    inside = False
def scalar():
    while time.monotonic() < ends:
        for _ in range(50):
            writer.add_scalar("scalar", calls["scalar"], calls["scalar"])
            calls["scalar"] += 1
        time.sleep(0.001)
def row():
    while time.monotonic() < ends:
        writer.log({"row": float(calls["row"])}, calls["row"])
        calls["row"] += 1
        time.sleep(0.0005)
large = np.zeros(300_000, np.float32)
signal.signal(signal.SIGALRM, handler)
writer.add_scalar("handler", -1.0, -1)
threads = [threading.Thread(target=one) for one in (scalar, row)]
for thread in threads: thread.start()
signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0007)
while time.monotonic() < ends:
    start = time.monotonic()
    writer.add_tensor("large", large, calls["large"])
    calls["large"] += 1
    waits += time.monotonic() - start > 0.005
signal.setitimer(signal.ITIMER_REAL, 0)
for thread in threads: thread.join()
done = writer.flush(60)
print(json.dumps([done, waits, calls, writer.stats()]), flush=True)
"""


def test_threads_and_handlers_that_log_while_records_wait_tear_nothing(tmp_path: Path) -> None:
    """Large records wait again and again, for a daemon that takes them; rows and scalars of others come between."""
    with world(tmp_path, TBXD_BLOCK_MS="2000", TBXD_JOURNAL_BYTES=str(4 << 20)) as place:
        place.serve()
        result = place.run(STRESS, 4)
        assert result.returncode == 0, result.stderr
        done, waits, calls, stats = json.loads(result.stdout)
        assert waits > 5, "it did happen"
        assert min(calls.values()) > 5, calls
        assert (done or stats["dropped"]) and not stats["pending"], "what finds no room in time is counted"
        assert stats["accepted"] == sum(calls.values()) + 1 == stats["written"] + sum(stats["dropped"].values())
        status: Any = place.status()
        assert status["totals"]["written"] == stats["written"], "no session was disconnected"
        wait_for(place.drained, "the journal")
        found = scalars(place.logdir / "a")
        for tag in ("scalar", "row", "handler", "handled"):
            points = [(step, value) for step, value in found[tag] if step >= 0]
            steps = [step for step, _ in points]
            assert all(abs(value - step) <= step * 1e-6 for step, value in points)
            assert steps == sorted(set(steps)), "in order, each once"
            if not stats["dropped"]:
                assert steps == list(range(calls[tag]))
