"""What does one ``add_image`` of a small picture cost?"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

from .add_histogram import PAUSE_SECONDS, timed
from .meter import CpuMeter, HelperMeter, file_bytes, import_what_a_trainer_has
from .peers import Peer
from .question import Figure, Logged, Outcome, Question

TAG = "picture"
SHAPE = (256, 256, 3)


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one peer; to be called in a fresh process."""
    import_what_a_trainer_has(torch=bool(counts["torch_imported"]))
    import numpy as np

    calls = counts["calls"]
    picture = np.random.default_rng(1).integers(0, 256, SHAPE, "u1")
    folder = logs / "run"
    writer = peer.open(folder)
    writer.add_image(TAG, picture, 0, dataformats="HWC")
    peer.flush(writer)
    cpu = CpuMeter(HelperMeter(peer))
    steps = iter(range(1, calls + 1))
    times = timed(
        lambda: writer.add_image(TAG, picture, next(steps), dataformats="HWC"), calls, lambda: peer.flush(writer)
    )
    peer.close(writer)
    trainer_cpu, helper_cpu = cpu.read()
    return Outcome(
        {
            "caller_us": statistics.median(times) * 1e6,
            "max_us": max(times) * 1e6,
            "copy_us": statistics.median(timed(picture.copy, calls)) * 1e6,
            "trainer_cpu_us": trainer_cpu / calls * 1e6,
            "daemon_cpu_us": helper_cpu / calls * 1e6,
            "disk_bytes": file_bytes(logs) / (calls + 1),
        },
        [Logged("run", TAG, "image", calls + 1)],
    )


QUESTION = Question(
    name="add_image",
    title="add_image of 256 by 256 by 3 uint8",
    notes=(
        "20 calls with random pixels, after one that is not counted. Each is followed by flush() and a pause of "
        f"{PAUSE_SECONDS * 1000:g} ms, neither of which is in the caller's time. CPU is that of the whole process, "
        "threads included, until flush() and close() have returned. A bare copy is `picture.copy()` in the same "
        "process, as often and with the same pauses: the processor's caches are cold then."
    ),
    figures=(
        Figure("caller_us", "caller's time per call, median", "µs"),
        Figure("max_us", "… max", "µs"),
        Figure("copy_us", "a bare copy of the picture, for scale", "µs", compared=False),
        Figure("trainer_cpu_us", "CPU of the trainer per call", "µs"),
        Figure("daemon_cpu_us", "CPU of the daemon or helpers per call", "µs", compared=False),
        Figure("disk_bytes", "on disk, per picture", "bytes"),
    ),
    full={"calls": 20, "torch_imported": 1},
    quick={"calls": 2, "torch_imported": 0},
    measure=measure,
)
