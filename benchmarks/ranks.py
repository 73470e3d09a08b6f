"""What does it cost that all ranks of a job log, and not rank 0 only?"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from . import event_files
from .meter import CpuMeter, HelperMeter, file_bytes
from .peers import BASE, PEERS, MeasurementError, Peer
from .question import Figure, Logged, Outcome, Question, load

WORLD = 4
TAGS = tuple(f"train/metric_{number:02}" for number in range(20))
VALUE = 0.1234
CASES = {"zero": "zero", "one process": "", "reduce": "reduce", "all": "all"}  # the policy of each; none without ranks
POLICY = "TBXD_RANKS"


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one case: this process starts the ranks, and says whose turn it is."""
    policy, steps, blocks = CASES[peer.name], counts["steps"], counts["blocks"]
    folder = logs if policy == "all" else logs / "run"  # there each rank has a run of its own
    with ExitStack() as stack:
        ranks = [stack.enter_context(_Rank(peer.name, number, folder)) for number in range(WORLD if policy else 1)]
        for rank in ranks:
            rank.say({"flush": True})
        for rank in ranks:
            rank.hear()
        _block(ranks, 1, steps)
        daemon = HelperMeter(PEERS[BASE])
        for rank in ranks:
            rank.say({"begin": True})
            rank.hear()
        cpu = daemon.cpu()
        for block in range(1, blocks + 1):
            _block(ranks, 1 + block * steps, steps)
        cpu = daemon.cpu() - cpu
        for rank in ranks:
            rank.say({"end": True})
        told = [rank.hear() for rank in ranks]
    last = 1 + (blocks + 1) * steps
    logging = 1 if policy == "zero" else len(ranks)
    points = blocks * steps * len(TAGS)
    if policy == "reduce":
        _check_sides(folder, last)
    per_call = [(item["seconds"] / points * 1e6, item["cpu"] / points * 1e6) for item in told]
    figures = {
        "caller_us": per_call[0][0],
        "trainer_cpu_us": per_call[0][1],
        "daemon_value_us": cpu / points / logging * 1e6,
        "daemon_point_us": cpu / points * 1e6,
        "disk_bytes": file_bytes(logs) / (last * len(TAGS)),
    }
    if policy:
        figures["other_us"], figures["other_cpu_us"] = (statistics.median(of) for of in zip(*per_call[1:], strict=True))
    runs = [f"rank{number}" for number in range(WORLD)] if policy == "all" else ["run"]
    return Outcome(figures, [Logged(run, tag, "simple_value", last) for run in runs for tag in TAGS])


class _Rank:
    """One rank, as a process."""

    def __init__(self, case: str, number: int, folder: Path) -> None:
        environ = dict(os.environ)
        if CASES[case]:
            environ |= {"TBXD_RANK": str(number), "TBXD_WORLD_SIZE": str(WORLD), "TBXD_RUN_ID": "benchmark"}
            environ[POLICY] = CASES[case]
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, case, str(folder)],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> _Rank:
        self.hear()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def say(self, what: Mapping[str, Any]) -> None:
        """Tell it what to do."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, float]:
        """What it answers, when it has done so."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise MeasurementError(f"a rank has ended too early, with {self._process.wait()}")
        return dict(json.loads(line))


def _block(ranks: list[_Rank], begin: int, steps: int) -> None:
    """The same steps of all ranks, in turns, so that none waits for a core; then everything is in the file."""
    for rank in ranks:
        rank.say({"log": [begin, begin + steps]})
        rank.hear()
    for rank in ranks:
        rank.say({"flush": True})
    for rank in ranks:
        rank.hear()


def _check_sides(folder: Path, steps: int) -> None:
    for side in ("min", "max"):
        found = event_files.points(folder / "ranks" / side)
        if found != dict.fromkeys(TAGS, steps):
            raise MeasurementError(f"ranks/{side} has not {steps} points of each tag: {dict(found)}")


def main(case: str, folder: str) -> None:
    """One of the ranks."""
    peer = load("ranks").peers[case]
    writer = peer.open(Path(folder))
    _log(writer, 0, 1)
    _answer({})
    helper = HelperMeter(PEERS["csv.writer"])  # nobody: the daemon is not this process's
    meter, seconds = CpuMeter(helper), 0.0
    for line in sys.stdin:
        order = json.loads(line)
        if "log" in order:
            seconds += _log(writer, *order["log"])
        elif "flush" in order:
            peer.flush(writer)
        elif "begin" in order:
            meter, seconds = CpuMeter(helper), 0.0
        elif "end" in order:
            trainer_cpu, _ = meter.read()
            peer.close(writer)
            _answer({"seconds": seconds, "cpu": trainer_cpu})
            continue
        _answer({})


def _log(writer: Any, begin: int, end: int) -> float:
    """Seconds that the calls of some steps take."""
    value, tags = VALUE, TAGS
    start = time.perf_counter()
    for step in range(begin, end):
        for tag in tags:
            writer.add_scalar(tag, value, step)
    return time.perf_counter() - start


def _answer(what: Mapping[str, float]) -> None:
    print(json.dumps(what), flush=True)


QUESTION = Question(
    name="ranks",
    title="four ranks that all log, beside rank 0 only",
    notes=(
        f"{WORLD} processes are the ranks of one job, and each calls `add_scalar` for {len(TAGS)} tags of the same "
        "steps. `zero`: rank 0 only; the calls of the others check their arguments and do nothing else. `one "
        "process`: there is no other rank. `reduce`, the default: the point of a tag and step is the mean of the "
        "four values; minimum, maximum, standard deviation and their ranks are in files beside it. `all`: four "
        "runs. There are 8 blocks of 500 steps, and one that does not count. The ranks log a block in turns, "
        "because there may be fewer cores than processes, and then flush() together. CPU is that of the whole "
        "process, threads included, from the first call until the last flush() has returned. The figures of the "
        "other ranks are the median of three. A value is what a call has logged; a point is a step of a tag."
    ),
    figures=(
        Figure("caller_us", "rank 0: caller's time per call", "µs"),
        Figure("trainer_cpu_us", "… CPU of the process per call", "µs"),
        Figure("other_us", "another rank: caller's time per call", "µs", compared=False, partial=True),
        Figure("other_cpu_us", "… CPU of the process per call", "µs", compared=False, partial=True),
        Figure("daemon_value_us", "CPU of the daemon per value", "µs"),
        Figure("daemon_point_us", "CPU of the daemon per point", "µs"),
        Figure("disk_bytes", "event files of all runs, per point", "bytes"),
    ),
    full={"steps": 500, "blocks": 8},
    quick={"steps": 20, "blocks": 1},
    measure=measure,
    peers={name: PEERS[BASE].named(name) for name in CASES},
)

if __name__ == "__main__":
    main(*sys.argv[1:])
