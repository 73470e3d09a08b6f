"""Forks at any moment after the first record, with the daemon being started or there: no hang, nothing lost.

Ten children are started by each script, 30 ms apart, and the scripts shift that a little: together they meet every
moment of the first 300 ms. Some children log and live on, some log and return or exit, some become another program,
some do nothing; all records have to be in the event files while the children live. ``TBXD_FORKS`` sets how many
children there are for each start method in the full sweep (`make faults`).
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness import scalars, wait_for, world
from report import account

CHILDREN, APART_MS = 10, 30  # of a script
RECORDS = 5  # of a child that logs
CALL_SECONDS = 0.25  # the longest call that logs, on a machine that is busy with other things
FORKS = int(os.environ.get("TBXD_FORKS", "1000"))

SCRIPT = """
import contextlib, json, multiprocessing, os, sys, time
from tbxd_client import SummaryWriter

KINDS = ("lives", "returns", "execs", "silent", "exits")

def child(kind, number, writer, pipe):
    if kind != "silent":
        for step in range(5):
            writer.add_scalar(f"child{number}", step, step)
    if kind == "lives":
        pipe.send(writer.flush(30))
    elif kind == "execs":
        pipe.send(True)
        os.execv(sys.executable, [sys.executable, "-S", "-c", "import time; time.sleep(120)"])
    elif kind == "exits":
        os._exit(0)
    if kind != "returns":
        pipe.poll(120)

if __name__ == "__main__":
    method, shift, state = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.Process(target=int).start()  # the server is there
    writer = SummaryWriter("logs/a")
    calls, children = [], []
    def log(step):
        begun = time.perf_counter()
        writer.add_scalar("parent", step, step)
        calls.append(time.perf_counter() - begun)
    begin = time.monotonic()
    log(0)
    for number in range(10):
        kind = KINDS[(number + int(10 * shift)) % len(KINDS)]
        ours, theirs = context.Pipe()
        process = context.Process(target=child, args=(kind, number, writer, theirs))
        while time.monotonic() < begin + (shift + 30 * number) / 1000:
            time.sleep(0.0001)
        process.start()
        log(number + 1)
        children.append((kind, number, process, ours))
    begun = time.monotonic()
    flushed = writer.flush(30)
    waited = time.monotonic() - begun
    answer = ("lives", "execs")
    told = {number: pipe.poll(60) and pipe.recv() for kind, number, process, pipe in children if kind in answer}
    living = sum(process.is_alive() for kind, number, process, pipe in children)
    for kind, number, process, pipe in children:
        if kind == "execs":
            process.terminate()
        else:
            with contextlib.suppress(OSError):  # it has ended
                pipe.send("leave")
    codes = []
    for kind, number, process, pipe in children:
        process.join(60)
        codes.append(process.exitcode)
    writer.close()
    kinds = [kind for kind, *_ in children]
    found = dict(flushed=flushed, waited=waited, told=told, living=living, codes=codes, kinds=kinds, calls=calls)
    print(json.dumps(found))
"""


@dataclass
class Sweep:
    """What came of it: seconds of calls, and of the parent's flush while its children live."""

    forks: int = 0
    calls: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)


def sweep(method: str, scripts: int, warm: bool, folder: Path) -> Sweep:
    """So many scripts, evenly over the 30 ms between two children; asserts that all is written and nobody hangs."""
    result = Sweep()
    for number in range(scripts):
        shift = APART_MS * number / scripts
        with tempfile.TemporaryDirectory(dir=folder) as root, world(Path(root) / "w") as place:
            if warm:
                place.serve()
            (place.root / "sweep.py").write_text(SCRIPT)
            try:
                run = place.run(
                    "import runpy, sys; sys.path.insert(0, '.'); runpy.run_path('sweep.py', run_name='__main__')",
                    method,
                    f"{shift:.3f}",
                    "warm" if warm else "cold",
                    timeout=180,
                )
            except subprocess.TimeoutExpired as error:
                raise AssertionError(f"{method}, {shift:.3f} ms: it hangs: {error.stderr!r}") from None
            assert run.returncode == 0 and not run.stderr, f"{method}, {shift:.3f} ms: {run.stderr}"
            found = json.loads(run.stdout)
            assert found["flushed"] and all(found["told"].values()) and len(found["told"]) == 4, (shift, found)
            assert found["living"] >= 6, "those that live, exec or are silent, while all is written"
            codes = [code for code, kind in zip(found["codes"], found["kinds"], strict=True) if kind != "execs"]
            assert codes == [0] * 8, (shift, found)
            wait_for(place.drained, f"the journals of {method}, {shift:.3f} ms")
            expected = {
                f"child{number}": [(step, float(step)) for step in range(RECORDS)]
                for number, kind in enumerate(found["kinds"])
                if kind != "silent"
            }
            expected["parent"] = [(step, float(step)) for step in range(CHILDREN + 1)]
            assert scalars(place.logdir / "a") == expected, (method, shift)
            result.forks += CHILDREN
            result.calls += found["calls"]
            result.waited.append(found["waited"])
    account("forks", result.forks)
    return result


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "scripts", "warm"),
    [("fork", 3, False), ("fork", 1, True), ("forkserver", 1, False), ("spawn", 1, False)],
)
def test_children_started_at_any_moment_after_the_first_record_cost_nothing(
    tmp_path: Path, method: str, scripts: int, warm: bool
) -> None:
    assert max(sweep(method, scripts, warm, tmp_path).calls) < CALL_SECONDS


@pytest.mark.matrix
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_thousand_children_started_at_every_moment_cost_nothing(tmp_path: Path, method: str, warm: bool) -> None:
    result = sweep(method, FORKS // CHILDREN // 2, warm, tmp_path)
    calls, waited = sorted(result.calls), sorted(result.waited)
    print(
        f"{method}, {'warm' if warm else 'cold'}: {result.forks} children, 0 hangs, 0 lost; calls: median "
        f"{1e6 * statistics.median(calls):.0f} µs, longest {1e3 * calls[-1]:.1f} ms; flush while they live: median "
        f"{waited[len(waited) // 2]:.2f} s, longest {waited[-1]:.2f} s"
    )
