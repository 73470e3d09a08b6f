"""What does one ``add_histogram`` cost the trainer, and what does it cost the machine?"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .meter import CpuMeter, HelperMeter, MemoryMeter, file_bytes, import_what_a_trainer_has
from .peers import Peer
from .question import Figure, Logged, Outcome, Question

if TYPE_CHECKING:
    import numpy as np

SIZES = {"1e4": 10**4, "1e6": 10**6}  # the small one first: it must not profit from the memory of the large one
TAG = "weights"
PAUSE_SECONDS = 0.05  # stands for the training between two calls


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one peer; to be called in a fresh process."""
    import_what_a_trainer_has(torch=bool(counts["torch_imported"]))
    calls = counts["calls"]
    arrays = {name: _normal(size) for name, size in SIZES.items()}
    memory = MemoryMeter()
    outcome = Outcome()
    for name, values in arrays.items():
        memory.forget()
        figures = _measure_size(peer, calls, logs / name, values, memory)
        figures["copy_ms"] = statistics.median(timed(values.copy, calls)) * 1e3
        outcome.figures |= {f"{figure}_{name}": value for figure, value in figures.items()}
        outcome.logged.append(Logged(name, TAG, "histo", calls + 1, SIZES[name]))
    return outcome


def _measure_size(
    peer: Peer, calls: int, folder: Path, values: np.ndarray[Any, Any], memory: MemoryMeter
) -> dict[str, float]:
    bytes_before = file_bytes(folder.parent)
    start = time.perf_counter()
    writer = peer.open(folder)
    writer.add_histogram(TAG, values, 0)
    first = time.perf_counter() - start
    peer.flush(writer)
    helper = HelperMeter(peer)
    helper.forget_peak()

    cpu = CpuMeter(helper)
    steps = iter(range(1, calls + 1))
    times = timed(lambda: writer.add_histogram(TAG, values, next(steps)), calls, lambda: peer.flush(writer))
    peer.close(writer)
    trainer_cpu, daemon_cpu = cpu.read()
    return {
        "caller_ms": statistics.median(times) * 1e3,
        "max_ms": max(times) * 1e3,
        "first_ms": first * 1e3,
        "trainer_cpu_ms": trainer_cpu / calls * 1e3,
        "daemon_cpu_ms": daemon_cpu / calls * 1e3,
        "total_cpu_ms": (trainer_cpu + daemon_cpu) / calls * 1e3,
        "trainer_mib": memory.over_baseline(),
        "daemon_mib": helper.peak(),
        "disk_bytes": (file_bytes(folder.parent) - bytes_before) / (calls + 1),
    }


def timed(call: Callable[[], object], calls: int, after: Callable[[], None] = lambda: None) -> list[float]:
    """Seconds of each call; ``after`` and a pause come in between and are not timed."""
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
        after()
        time.sleep(PAUSE_SECONDS)
    return seconds


def _normal(size: int) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.random.default_rng(1).standard_normal(size, dtype=np.float32)


def _figures(size: str, title: str) -> tuple[Figure, ...]:
    return (
        Figure(f"caller_ms_{size}", f"{title}: caller's time per call, median", "ms"),
        Figure(f"max_ms_{size}", f"{title}: … max", "ms"),
        Figure(f"copy_ms_{size}", f"{title}: a bare copy of the array, for scale", "ms", compared=False),
        Figure(f"first_ms_{size}", f"{title}: open and first call", "ms"),
        Figure(f"trainer_cpu_ms_{size}", f"{title}: CPU of the trainer per call", "ms"),
        Figure(f"daemon_cpu_ms_{size}", f"{title}: CPU of the daemon or helpers per call", "ms", compared=False),
        Figure(f"total_cpu_ms_{size}", f"{title}: CPU of both per call", "ms"),
        Figure(f"trainer_mib_{size}", f"{title}: peak memory of the trainer, over baseline", "MiB"),
        Figure(f"daemon_mib_{size}", f"{title}: peak memory of the daemon or helpers", "MiB", compared=False),
        Figure(f"disk_bytes_{size}", f"{title}: on disk, per call", "bytes"),
    )


QUESTION = Question(
    name="add_histogram",
    title="add_histogram of 10⁶ and of 10⁴ float32 values",
    notes=(
        "20 calls each with normally distributed numpy float32 values, after one that is not counted. Each call is "
        f"followed by flush() and a pause of {PAUSE_SECONDS * 1000:g} ms, neither of which is in the caller's time, so "
        "that calls are spaced as training spaces them. CPU is that of the whole process, from the first call until "
        "flush() and close() have returned, threads included; BLAS has one thread, because idle ones would spin and "
        "triple the peers' figure. Memory is the peak over what the process had before it imported the writer, with "
        "numpy, torch and the arrays there already. The first call of 10⁴ includes the import. A bare copy is "
        "`values.copy()` in the same process, as often and with the same pauses."
    ),
    figures=_figures("1e6", "10⁶") + _figures("1e4", "10⁴"),
    full={"calls": 20, "torch_imported": 1},
    quick={"calls": 2, "torch_imported": 0},
    measure=measure,
)
