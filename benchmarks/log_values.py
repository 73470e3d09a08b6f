"""What does it cost to log a hundred values of one step?"""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping
from pathlib import Path

from .meter import CpuMeter, HelperMeter, file_bytes, import_what_a_trainer_has
from .peers import Peer
from .question import Figure, Logged, Outcome, Question

TAGS = tuple(f"train/metric_{number}" for number in range(100))


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one peer; to be called in a fresh process."""
    import_what_a_trainer_has(torch=bool(counts["torch_imported"]))
    steps = counts.get(peer.name, counts["others"])
    folder = logs / "run"
    writer = peer.open(folder)
    log = peer.log(writer)
    log(dict.fromkeys(TAGS, 0.5), 0)
    peer.flush(writer)
    cpu = CpuMeter(HelperMeter(peer))
    nanoseconds = array("q", bytes(8 * steps))
    clock = time.perf_counter_ns
    for step in range(1, steps + 1):
        values = dict.fromkeys(TAGS, 1 / step)
        start = clock()
        log(values, step)
        nanoseconds[step - 1] = clock() - start
    peer.close(writer)
    trainer_cpu, helper_cpu = cpu.read()
    ordered = sorted(nanoseconds)
    return Outcome(
        {
            "caller_us": sum(ordered) / steps / 1e3,
            "p50_us": ordered[steps // 2] / 1e3,
            "max_us": ordered[-1] / 1e3,
            "trainer_cpu_us": trainer_cpu / steps * 1e6,
            "daemon_cpu_us": helper_cpu / steps * 1e6,
            "disk_bytes": file_bytes(logs) / (steps + 1) / len(TAGS),
        },
        [Logged("run", tag, "simple_value", steps + 1) for tag in TAGS],
    )


QUESTION = Question(
    name="log_values",
    title="100 values of one step",
    notes=(
        "2,000 steps of tbxd, 200 of the others, one after the other: `writer.log({100 values}, step)` with the "
        "same keys every step, and 100 calls of `add_scalar` for the writers that have no such call. A first step "
        "has been logged before. CPU is that of the whole process, from then until flush() and close() have "
        "returned, threads included."
    ),
    figures=(
        Figure("caller_us", "caller's time per step", "µs"),
        Figure("p50_us", "… p50", "µs"),
        Figure("max_us", "… max", "µs"),
        Figure("trainer_cpu_us", "CPU of the trainer per step", "µs"),
        Figure("daemon_cpu_us", "CPU of the daemon or helpers per step", "µs", compared=False),
        Figure("disk_bytes", "on disk, per value", "bytes"),
    ),
    full={"tbxd": 2_000, "others": 200, "torch_imported": 1},
    quick={"others": 20, "torch_imported": 0},
    measure=measure,
)
