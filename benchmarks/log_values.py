"""What does it cost to log a hundred values of one step?"""

from __future__ import annotations

import statistics
import time
from array import array
from collections.abc import Mapping
from pathlib import Path

from .conditions import PAUSE_NOTES, timed
from .meter import CpuMeter, HelperMeter, file_bytes, import_what_a_trainer_has
from .peers import Peer
from .question import Figure, Logged, Outcome, Question

LEAST_BYTES = 9  # of a value in an event that several share, beside its tag: five keys or lengths, and four bytes
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
    peer.flush(writer)
    trainer_cpu, helper_cpu = cpu.read()
    paused = counts["paused"]
    numbers = iter(range(steps + 1, steps + paused + 1))
    after_pauses = timed(lambda: log(values, next(numbers)), paused, lambda: peer.flush(writer))
    peer.close(writer)
    ordered = sorted(nanoseconds)
    count = steps + paused + 1
    return Outcome(
        {
            "caller_us": sum(ordered) / steps / 1e3,
            "p50_us": ordered[steps // 2] / 1e3,
            "max_us": ordered[-1] / 1e3,
            "pause_us": statistics.median(after_pauses) * 1e6,
            "trainer_cpu_us": trainer_cpu / steps * 1e6,
            "daemon_cpu_us": helper_cpu / steps * 1e6,
            "disk_bytes": file_bytes(logs) / count / len(TAGS),
            "least_bytes": LEAST_BYTES + statistics.mean(map(len, TAGS)),
        },
        [Logged("run", tag, "simple_value", count) for tag in TAGS],
    )


QUESTION = Question(
    name="log_values",
    title="100 values of one step",
    notes=(
        "In a loop: 2,000 steps of tbxd, 200 of the others, one after the other: `writer.log({100 values}, step)` "
        "with the same keys in every step, and 100 calls of `add_scalar` for writers without such a call. A first "
        "step is logged before. All steps take 7 MB of the journal, so no call waits for the daemon. CPU is that "
        f"of the whole process, threads included, until flush() has returned. {PAUSE_NOTES} of 20. The minimum on "
        f"disk is what the format takes for a value that shares an event: {LEAST_BYTES} bytes and the text of its "
        "tag, which has 14 or 15 characters here (`train/metric_42`). The rest belongs to the event and is shared "
        "by 100 values."
    ),
    figures=(
        Figure("caller_us", "in a loop: caller's time per step", "µs"),
        Figure("p50_us", "in a loop: … p50", "µs"),
        Figure("max_us", "in a loop: … max", "µs"),
        Figure("pause_us", "after a pause: caller's time per step", "µs"),
        Figure("trainer_cpu_us", "CPU of the trainer per step", "µs"),
        Figure("daemon_cpu_us", "CPU of the daemon or helpers per step", "µs", compared=False),
        Figure("disk_bytes", "on disk, per value", "bytes"),
        Figure("least_bytes", "the least that an event takes of a value with such a tag, for scale", "bytes", False),
    ),
    full={"tbxd": 2_000, "others": 200, "paused": 20, "torch_imported": 1},
    quick={"others": 20, "paused": 2, "torch_imported": 0},
    measure=measure,
)
