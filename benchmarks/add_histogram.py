"""What does one ``add_histogram`` cost the trainer, and what does it cost the machine?"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .conditions import LOOP_NOTES, PAUSE_NOTES, copying, loop_calls, looped, timed
from .meter import CpuMeter, HelperMeter, MemoryMeter, file_bytes, import_what_a_trainer_has
from .peers import MeasurementError, Peer
from .question import Figure, Logged, Outcome, Question

if TYPE_CHECKING:
    import numpy as np

SIZES = {"1e4": 10**4, "1e6": 10**6}  # the small one first: it must not profit from the memory of the large one
TAG = "weights"


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one peer; to be called in a fresh process."""
    import_what_a_trainer_has(torch=bool(counts["torch_imported"]))
    calls = counts["calls"]
    arrays = {name: _normal(size) for name, size in SIZES.items()}
    memory = MemoryMeter()
    outcome = Outcome()
    for name, values in arrays.items():
        memory.forget()
        figures = _measure_size(peer, calls, counts[f"loop_{name}"], logs / name, values, memory)
        figures |= _copies(values, calls, counts[f"loop_{name}"])
        outcome.figures |= {f"{figure}_{name}": value for figure, value in figures.items()}
        outcome.logged.append(Logged(name, TAG, "histo", calls + loop_calls(counts[f"loop_{name}"]) + 1, SIZES[name]))
        if peer.daemon:
            _check_counts(logs / name, values)
    return outcome


def _measure_size(
    peer: Peer, calls: int, loop: int, folder: Path, values: np.ndarray[Any, Any], memory: MemoryMeter
) -> dict[str, float]:
    bytes_before = file_bytes(folder.parent)
    start = time.perf_counter()
    writer = peer.open(folder)
    writer.add_histogram(TAG, values, 0)
    first = time.perf_counter() - start
    peer.flush(writer)
    helper = HelperMeter(peer)
    helper.forget_peak()

    steps = itertools.count(1)
    cpu = CpuMeter(helper)
    times = timed(lambda: writer.add_histogram(TAG, values, next(steps)), calls, lambda: peer.flush(writer))
    trainer_cpu, daemon_cpu = cpu.read()
    cpu = CpuMeter(helper)
    in_a_row = looped(lambda: writer.add_histogram(TAG, values, next(steps)), loop, lambda: peer.flush(writer))
    peer.close(writer)
    loop_trainer_cpu, loop_daemon_cpu = cpu.read()
    logged = loop_calls(loop)
    return {
        "loop_ms": in_a_row.mean * 1e3,
        "loop_median_ms": in_a_row.median * 1e3,
        "loop_trainer_cpu_ms": loop_trainer_cpu / logged * 1e3,
        "loop_daemon_cpu_ms": loop_daemon_cpu / logged * 1e3,
        "caller_ms": statistics.median(times) * 1e3,
        "max_ms": max(times) * 1e3,
        "first_ms": first * 1e3,
        "trainer_cpu_ms": trainer_cpu / calls * 1e3,
        "daemon_cpu_ms": daemon_cpu / calls * 1e3,
        "total_cpu_ms": (trainer_cpu + daemon_cpu) / calls * 1e3,
        "trainer_mib": memory.over_baseline(),
        "daemon_mib": helper.peak(),
        "disk_bytes": (file_bytes(folder.parent) - bytes_before) / (calls + logged + 1),
    }


def _copies(values: np.ndarray[Any, Any], calls: int, loop: int) -> dict[str, float]:
    """A copy into memory that has been touched before, in both conditions: the floor of whatever keeps the values."""
    copy = copying(values, loop + 1)
    return {
        "loop_copy_ms": looped(copy, loop).mean * 1e3,
        "copy_ms": statistics.median(timed(copy, calls)) * 1e3,
        "fresh_copy_ms": statistics.median(timed(values.copy, calls)) * 1e3,
    }


def _check_counts(folder: Path, values: np.ndarray[Any, Any]) -> None:
    """The counts in the file are those that `numpy.histogram` makes of the values and the bins of the event.

    Raises:
        MeasurementError: they are not.
    """
    import numpy as np

    from tbxd.tfevents import schema
    from tbxd.tfevents.tfrecord import read_records

    for path in folder.glob("*tfevents*"):
        with open(path, "rb") as file:
            for _, data in read_records(file.read):
                event = schema.Event()
                event.ParseFromString(data)
                for value in event.summary.value:
                    limits = np.array(value.histo.bucket_limit)
                    if not len(limits):
                        continue
                    edges = np.concatenate(([-np.inf], limits[:-1], [np.inf]))
                    counts, _ = np.histogram(values, edges)
                    if len(counts) != len(value.histo.bucket) or (counts != np.array(value.histo.bucket)).any():
                        raise MeasurementError(f"{path}, step {event.step}: the counts are not exact")
                    return  # every one of them was made of the same values


def _normal(size: int) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.random.default_rng(1).standard_normal(size, dtype=np.float32)


def _figures(size: str, title: str) -> tuple[Figure, ...]:
    return (
        Figure(f"loop_ms_{size}", f"{title}, in a loop: caller's time per call", "ms"),
        Figure(f"loop_median_ms_{size}", f"{title}, in a loop: … median", "ms"),
        Figure(f"loop_copy_ms_{size}", f"{title}, in a loop: a bare copy, for scale", "ms", compared=False),
        Figure(f"loop_trainer_cpu_ms_{size}", f"{title}, in a loop: CPU of the trainer per call", "ms"),
        Figure(
            f"loop_daemon_cpu_ms_{size}",
            f"{title}, in a loop: CPU of the daemon or helpers per call",
            "ms",
            compared=False,
        ),
        Figure(f"caller_ms_{size}", f"{title}, after a pause: caller's time per call", "ms"),
        Figure(f"max_ms_{size}", f"{title}, after a pause: … max", "ms"),
        Figure(f"copy_ms_{size}", f"{title}, after a pause: a bare copy, for scale", "ms", compared=False),
        Figure(
            f"fresh_copy_ms_{size}", f"{title}, after a pause: a copy into new memory, for scale", "ms", compared=False
        ),
        Figure(f"first_ms_{size}", f"{title}: open and first call", "ms"),
        Figure(f"trainer_cpu_ms_{size}", f"{title}, after a pause: CPU of the trainer per call", "ms"),
        Figure(
            f"daemon_cpu_ms_{size}",
            f"{title}, after a pause: CPU of the daemon or helpers per call",
            "ms",
            compared=False,
        ),
        Figure(f"total_cpu_ms_{size}", f"{title}, after a pause: CPU of both per call", "ms"),
        Figure(f"trainer_mib_{size}", f"{title}: peak memory of the trainer, over baseline", "MiB"),
        Figure(f"daemon_mib_{size}", f"{title}: peak memory of the daemon or helpers", "MiB", compared=False),
        Figure(f"disk_bytes_{size}", f"{title}: on disk, per call", "bytes"),
    )


QUESTION = Question(
    name="add_histogram",
    title="add_histogram of 10⁶ and of 10⁴ float32 values",
    notes=(
        "Normally distributed numpy float32 values, each array in two conditions, after one call that does not "
        f"count. {LOOP_NOTES}. A loop has 200 calls with 10⁴ values, or 8 with 10⁶: 8 and 36 MB, which fit into the "
        f"journal whether the daemon keeps up or not. {PAUSE_NOTES} of 20. CPU is that of the whole process, "
        "threads included, with flush() or close(). BLAS has one thread, because idle threads would spin and "
        "triple the peers' figure. Memory is the peak above what the process had before it imported the writer, "
        "with numpy, torch and the arrays already there. The first call of 10⁴ includes the import. A bare copy is "
        "`numpy.copyto` into memory that was written before, to another place each time, in the same process, as "
        "often, and in the same condition; a copy into new memory is `values.copy()`. The histogram in tbxd's file "
        "is compared with `numpy.histogram`: no count may be off by one."
    ),
    figures=_figures("1e6", "10⁶") + _figures("1e4", "10⁴"),
    full={"calls": 20, "loop_1e4": 200, "loop_1e6": 8, "torch_imported": 1},
    quick={"calls": 2, "loop_1e4": 4, "loop_1e6": 2, "torch_imported": 0},
    measure=measure,
)
