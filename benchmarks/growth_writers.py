"""What do many processes that log at once cost?"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from . import curve
from .add_scalar import TAG, VALUE
from .meter import CpuMeter, HelperMeter
from .peers import BASE, FLOOR, Peer
from .question import Logged, Outcome, Question, load

XS = (1, 4, 16, 64, 256)
LIGHT = (BASE, FLOOR.name)  # more processes of the others, some of which import torch or TensorFlow, would need 30 GiB
HEAVY_MAX = 16
SECONDS_MAX = 20.0  # a point that is expected to take longer is not measured: most of it are imports
MEASURES = (
    ("caller_us", "caller's time per call, median of the processes", "µs"),
    ("trainer_cpu_us", "CPU of the trainers per record", "µs"),
    ("daemon_cpu_us", "CPU of the daemon or helpers per record", "µs"),
    ("per_second", "records a second, of all, until they are in the files", "1/s"),
    ("daemon_mib", "peak memory of the daemon or helpers", "MiB"),
)


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one peer: this process starts the writers and gives the sign."""
    records = counts.get(peer.name, counts["others"])
    most = min(counts["most"], XS[-1] if peer.name in LIGHT else HEAVY_MAX)

    def point(number: int) -> tuple[dict[str, float], list[Logged]]:
        each = max(records // number, 1)
        folders = [logs / f"{number}-{index}" for index in range(number)]
        writers = [
            subprocess.Popen(
                [sys.executable, "-m", __spec__.name, peer.name, str(folder), str(each)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            for folder in folders
        ]
        try:
            for writer in writers:
                assert writer.stdout is not None and writer.stdin is not None
                _until(writer.stdout, "ready")
            helper = HelperMeter(peer) if peer.daemon else None
            if helper:
                helper.forget_peak()
            before = helper.cpu() if helper else 0.0
            start = time.perf_counter()
            for writer in writers:
                writer.stdin.write("go\n")
                writer.stdin.flush()
            done = [json.loads(_until(writer.stdout, "{")) for writer in writers]
            seconds = time.perf_counter() - start
        finally:
            for writer in writers:
                writer.communicate()
        logged = each * number
        daemon_cpu = helper.cpu() - before if helper else sum(item["helper_cpu"] for item in done)
        return {
            "caller_us": statistics.median(item["seconds"] for item in done) / each * 1e6,
            "trainer_cpu_us": sum(item["trainer_cpu"] for item in done) / logged * 1e6,
            "daemon_cpu_us": daemon_cpu / logged * 1e6,
            "per_second": logged / seconds,
            "daemon_mib": helper.peak() if helper else sum(item["helper_mib"] for item in done),
        }, [Logged(folder.name, TAG, "simple_value", each + 1) for folder in folders]

    return curve.climb(
        [x for x in XS if x <= most], point, unlimited=peer.name == BASE, work=lambda x: 4 + x, seconds_max=SECONDS_MAX
    )


def _until(lines: object, begin: str) -> str:
    """The next line that begins so; trackers print lines of their own."""
    for line in lines:  # type: ignore[attr-defined]
        if line.startswith(begin):
            return str(line)
    raise RuntimeError("a writer has ended too early")


def main(name: str, folder: str, records: str) -> None:
    """One of the writers."""
    peer = load("growth_writers").peers[name]
    writer = peer.open(Path(folder))
    writer.add_scalar(TAG, VALUE, 0)
    peer.flush(writer)
    helper = HelperMeter(peer)
    print("ready", flush=True)
    sys.stdin.readline()
    cpu = CpuMeter(helper)
    start = time.perf_counter()
    for step in range(1, int(records) + 1):
        writer.add_scalar("train/loss", VALUE, step)
    seconds = time.perf_counter() - start
    helper_mib = helper.peak()
    peer.close(writer)
    trainer_cpu, helper_cpu = cpu.read()
    print(
        json.dumps(
            {"seconds": seconds, "trainer_cpu": trainer_cpu, "helper_cpu": helper_cpu, "helper_mib": helper_mib}
        ),
        flush=True,
    )


QUESTION = Question(
    name="growth_writers",
    title="growth with the number of processes that log",
    notes=(
        "1,024,000 scalars of tbxd, 64,000 of csv.writer, 16,000 of the others, 2,000 of mlflow, divided among "
        "that many processes with a run each, which start at a signal. The machine has fewer cores than there are "
        f"processes, so the time of a call includes that of others; the CPU does not. Up to {XS[-1]} processes of "
        f"tbxd and csv.writer, and {HEAVY_MAX} of the others, for which the memory would not suffice, as long as a "
        f"point is expected to take no more than {SECONDS_MAX:g} s."
    ),
    figures=curve.figures(MEASURES, XS, "processes"),
    full={BASE: 1_024_000, FLOOR.name: 64_000, "others": 16_000, "mlflow": 2_000, "most": 256},
    quick={"others": 100, "most": 4},
    measure=measure,
    x="processes",
)

if __name__ == "__main__":
    main(*sys.argv[1:])
