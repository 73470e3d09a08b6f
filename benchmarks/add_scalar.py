"""What does one ``add_scalar`` cost the trainer, and what does it cost the machine?"""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .meter import CpuMeter, HelperMeter, MemoryMeter, file_bytes, import_what_a_trainer_has
from .peers import Peer
from .question import Figure, Logged, Outcome, Question

TAG = "train/loss"
VALUE = 0.1234


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one peer; to be called in a fresh process."""
    calls = counts.get(peer.name, counts["others"])
    import_what_a_trainer_has(torch=bool(counts["torch_imported"]))
    nanoseconds = array("q", bytes(8 * calls))
    empty = _loop(_Nothing(), calls)
    memory = MemoryMeter()

    writer, first = _opened(peer, logs / "loop")
    helper = HelperMeter(peer)
    helper.forget_peak()
    cpu = CpuMeter(helper)
    seconds = _loop(writer, calls)
    peer.close(writer)
    trainer_cpu, daemon_cpu = cpu.read()

    writer, _ = _opened(peer, logs / "single")
    _single_calls(writer, nanoseconds)
    peer.close(writer)
    memory_peak, daemon_peak = memory.over_baseline(), helper.peak()

    ordered = sorted(nanoseconds)
    return Outcome(
        {
            "caller_us": seconds / calls * 1e6,
            "p50_us": ordered[calls // 2] / 1e3,
            "p999_us": ordered[calls * 999 // 1000] / 1e3,
            "max_us": ordered[-1] / 1e3,
            "empty_us": empty / calls * 1e6,
            "first_ms": first * 1e3,
            "trainer_cpu_us": trainer_cpu / calls * 1e6,
            "daemon_cpu_us": daemon_cpu / calls * 1e6,
            "total_cpu_us": (trainer_cpu + daemon_cpu) / calls * 1e6,
            "trainer_mib": memory_peak,
            "daemon_mib": daemon_peak,
            "disk_bytes": file_bytes(logs) / (2 * calls + 2),
        },
        [Logged(folder, TAG, "simple_value", calls + 1) for folder in ("loop", "single")],
    )


def _opened(peer: Peer, folder: Path) -> tuple[Any, float]:
    """A writer whose first record is in the file, and the seconds that import, writer and that record took."""
    start = time.perf_counter()
    writer = peer.open(folder)
    writer.add_scalar(TAG, VALUE, 0)
    seconds = time.perf_counter() - start
    peer.flush(writer)
    return writer, seconds


def _loop(writer: Any, calls: int) -> float:
    """Seconds that ``calls`` calls in a row take."""
    value = VALUE
    start = time.perf_counter()
    for step in range(1, calls + 1):
        writer.add_scalar("train/loss", value, step)
    return time.perf_counter() - start


def _single_calls(writer: Any, nanoseconds: array[int]) -> None:
    """Time every call by itself."""
    value = VALUE
    clock = time.perf_counter_ns
    for index in range(len(nanoseconds)):
        start = clock()
        writer.add_scalar("train/loss", value, index + 1)
        nanoseconds[index] = clock() - start


class _Nothing:
    """A writer that does nothing: what the loop itself costs."""

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        pass


QUESTION = Question(
    name="add_scalar",
    title="add_scalar in a tight loop",
    notes=(
        'A loop of `writer.add_scalar("train/loss", value, step)` with a Python float: 100,000 calls of tbxd, '
        "20,000 of the others. A first record is written before, so the start does not count. A second loop, in "
        "which every call is timed, gives p50, p99.9 and max. CPU is that of the whole process, threads included, "
        "from the first call until flush() and close() have returned. Memory is the peak above what the process "
        "had before it imported the writer, with numpy and torch already imported."
    ),
    figures=(
        Figure("caller_us", "caller's time per call", "µs"),
        Figure("p50_us", "… p50", "µs"),
        Figure("p999_us", "… p99.9", "µs"),
        Figure("max_us", "… max", "µs"),
        Figure("empty_us", "the loop with an empty method, for scale", "µs", compared=False),
        Figure("first_ms", "import, open and first call", "ms"),
        Figure("trainer_cpu_us", "CPU of the trainer per record", "µs"),
        Figure("daemon_cpu_us", "CPU of the daemon or helpers per record", "µs", compared=False),
        Figure("total_cpu_us", "CPU of both per record", "µs"),
        Figure("trainer_mib", "peak memory of the trainer, over baseline", "MiB"),
        Figure("daemon_mib", "peak memory of the daemon or helpers", "MiB", compared=False),
        Figure("disk_bytes", "on disk, per record", "bytes"),
    ),
    full={"tbxd": 100_000, "others": 20_000, "mlflow": 2_000, "torch_imported": 1},
    quick={"tbxd": 2_000, "others": 200, "torch_imported": 0},
    measure=measure,
)
