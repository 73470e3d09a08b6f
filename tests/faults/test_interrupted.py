"""Whoever interrupts `add_scalar` on its own thread and logs, at whatever place, tears nothing and loses nothing.

Without a trace or profile function the interpreter looks for signals in few places; with one (coverage, debuggers,
profilers) a handler may run between any two of its steps. All records are read in the journal itself afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import World, world

# Logs until it has been interrupted so often, and prints what the journal holds.
SCRIPT = """
import collections, json, os, signal, sys, threading, time
from tbxd.ingest.session import Scalars, Session
from tbxd_client import SummaryWriter
from tbxd_client.writer import SummaryWriter as Traced
mode, wanted = sys.argv[1], int(sys.argv[2])
CODE = Traced.add_scalar.__code__
writer = SummaryWriter("logs/a")
second = SummaryWriter("logs/b")
counts = collections.Counter()
inside = False

def interrupt(number=0, frame=None):
    global inside
    if inside:
        return
    inside = True
    try:
        one = (writer, second)[counts["handler"] % 2]
        one.add_scalar("handler", counts["handler"], counts["handler"])
        counts["handler"] += 1
        if counts["handler"] % 97 == 0:
            writer.log({"row": 1.0}, counts["row"])
            counts["row"] += 1
    finally:
        inside = False

events = 0
def trace(frame, event, arg):
    global events
    if frame.f_code is not CODE:
        return None
    frame.f_trace_opcodes = mode == "opcode"
    events += 1
    if mode in ("line", "opcode") and events % 7 == 0:
        interrupt()
    return trace

def profile(frame, event, arg):
    global events
    if frame.f_code is CODE:
        events += 1
        if events % 3 == 0:
            interrupt()

signal.signal(signal.SIGALRM, interrupt)
for one in (writer, second):
    one.add_scalar("main", -1.0, -1)
    one.add_scalar("handler", -1.0, -1)
writer.log({"row": 1.0}, -1)
if "timer" in mode:
    signal.setitimer(signal.ITIMER_REAL, 0.00005, 0.00005)
if mode == "profile":
    sys.setprofile(profile)
elif mode == "profile-timer":
    sys.setprofile(lambda frame, event, arg: None)
else:
    sys.settrace(trace)
deadline = time.monotonic() + 50
while counts["handler"] < wanted and time.monotonic() < deadline:
    writer.add_scalar("main", counts["main"], counts["main"])
    counts["main"] += 1
sys.settrace(None)
sys.setprofile(None)
signal.setitimer(signal.ITIMER_REAL, 0)
journal = writer._tbxd_run.journal
committed = journal.committed
journal.commit()
session = Session(journal.session, 0)
session.feed_definitions(0, journal.read_definitions(0, 1 << 30))
found = collections.defaultdict(list)
data, rows = b"", 0
while stretch := journal.read(len(data), 1 << 20):
    data += stretch
for batch in session.feed_records(0, data):
    for item in batch.items:
        if isinstance(item, Scalars):
            for number, step, value in zip(item.values["tag"], item.values["step"], item.values["value"]):
                tag = batch.tag(int(number)).tag
                found[tag].append(int(step))
                assert value == step, (tag, step, value)
        else:
            rows += 1
result = {
    "interruptions": counts["handler"], "main": counts["main"], "all": committed == journal.position == len(data),
    "main_right": sorted(found["main"]) == sorted([-1, -1, *range(counts["main"])]),
    "main_ordered": [step for step in found["main"] if step >= 0] == list(range(counts["main"])),
    "handler_right": sorted(found["handler"]) == sorted([-1, -1, *range(counts["handler"])]),
    "rows_right": rows == counts["row"] + 1,
    "accepted": writer.stats()["accepted"] + second.stats()["accepted"],
    "logged": sum(len(steps) for steps in found.values()) + rows,
}
print(json.dumps(result), flush=True)
os._exit(0)
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path, TBXD_ADDRESS=f"ipc://{tmp_path}/nobody", TBXD_BLOCK_MS="0") as made:
        yield made


@pytest.mark.parametrize("mode", ["line", "opcode", "profile", "line-timer", "profile-timer"])
def test_who_logs_in_the_middle_of_a_scalar_at_whatever_place_tears_and_loses_nothing(place: World, mode: str) -> None:
    wanted = 20_000 if "timer" not in mode else 2_000
    result = place.run(SCRIPT, mode, wanted)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["interruptions"] >= wanted, "it did happen"
    assert found["main_right"] and found["handler_right"] and found["rows_right"], found
    assert found["main_ordered"], "each tag in the order of its calls"
    if mode != "opcode":  # there a handler may run in the midst of a sum
        assert found["all"], "with the end of the call that was interrupted all is committed"
        assert found["accepted"] == found["logged"], "and counted"


STATEMENTS = """
import json, os, sys
from tbxd_client import SummaryWriter
CODE = SummaryWriter.add_scalar.__code__
what = sys.argv[1]
done = []

def trace(frame, event, arg):
    if frame.f_code is not CODE:
        return None
    if event == "line" and place[0] == frame.f_lineno and not done:
        done.append(True)
        if what == "close":
            writer.add_scalar("handler", 1.0, 1)
            writer.close()
            from tbxd_client.session import session
            session.active() and session.active().end()
        else:
            writer.add_scalar("handler", 1.0, 1)
            assert writer.flush(0.01) in (True, False)
    return trace

lines = sorted({line for _, _, line in CODE.co_lines() if line})
place = [0]
for number, line in enumerate(lines):
    place[0] = line
    done.clear()
    writer = SummaryWriter(f"logs/{number}")
    writer.add_scalar("main", 0.0, 0)
    writer.add_scalar("handler", 0.0, 0)
    sys.settrace(trace)
    writer.add_scalar("main", 1.0, 1)
    sys.settrace(None)
    writer.add_scalar("main", 2.0, 2)
    if not done:
        print(number, "not reached")
        continue
    print(number, "reached", writer.stats()["accepted"])
assert writer.flush(60)
for one in range(3):
    writer.add_scalar("main", 3.0 + one, 3 + one)
assert writer.flush(60)
"""


@pytest.mark.parametrize("what", ["close", "flush"])
def test_who_closes_or_flushes_in_the_middle_of_a_scalar_loses_none_that_was_logged(tmp_path: Path, what: str) -> None:
    """One at each line of `add_scalar`, with a daemon."""
    from harness import scalars, wait_for

    with world(tmp_path) as place:
        place.serve()
        result = place.run(STATEMENTS, what)
        assert result.returncode == 0, result.stderr
        lines = [line.split() for line in result.stdout.splitlines()]
        reached = [int(number) for number, how, *_ in lines if how == "reached"]
        assert len(reached) > 15, "most lines of the way that scalars take"
        for number in reached:

            def right(number: int = number) -> bool:
                written = scalars(place.logdir / f"{number}")
                found = {tag: [step for step, _ in points] for tag, points in written.items()}
                # What is left of a session that was closed meanwhile is written when it has ended.
                main = sorted(step for step in found.get("main", ()) if step < 3)
                return main == [0, 1, 2] and sorted(found.get("handler", ())) == [0, 1]

            wait_for(right, f"what was logged around line {number}", 20)


THREADS = """
import json, sys, threading
from tbxd_client import SummaryWriter
sys.setswitchinterval(1e-6)
writers = [SummaryWriter(f"logs/{name}") for name in "ab"]
def work(me):
    for step in range(1500):
        one = writers[step % 2]
        one.add_scalar(f"loss{me}", step, step)
        if step % 10 == 0:
            one.log({f"row{me}": step}, step)
        if step % 50 == 0:
            one.add_text(f"text{me}", "text", step)
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
done = [writer.flush(60) for writer in writers]
print(json.dumps([done, [writer.stats() for writer in writers]]))
"""


def test_threads_that_log_in_all_ways_are_counted_exactly(tmp_path: Path) -> None:
    with world(tmp_path) as place:
        place.serve()
        result = place.run(THREADS)
        assert result.returncode == 0, result.stderr
        done, stats = json.loads(result.stdout)
        assert done == [True, True]
        total = 8 * (1500 + 150 + 30)
        assert sum(one["accepted"] for one in stats) == total
        for one in stats:
            assert one["accepted"] == one["written"] and not one["pending"] and not one["dropped"]
        status: Any = place.status()
        assert status["totals"]["accepted"] == status["totals"]["written"] == total


def test_nothing_is_called_while_a_scalar_has_its_place_and_is_not_stored() -> None:
    """From the mark to the store of the position only C runs that calls nobody: what a handler logs comes after."""
    import dis

    from tbxd_client.writer import SummaryWriter

    names = [(one.opname, one.argval) for one in dis.get_instructions(SummaryWriter.add_scalar)]
    begin = next(place for place, (name, value) in enumerate(names) if name == "STORE_ATTR" and value == "limit")
    end = next(place for place, (name, value) in enumerate(names) if name == "STORE_ATTR" and value == "position")
    called = [name for name, _ in names[begin:end] if name.startswith("CALL")]
    assert len(called) == 1, "pack_into"
