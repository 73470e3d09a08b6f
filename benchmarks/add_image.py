"""What does one ``add_image`` of a small picture cost?"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping
from pathlib import Path

from .conditions import LOOP_NOTES, PAUSE_NOTES, copying, loop_calls, looped, timed
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
    helper = HelperMeter(peer)
    loop = counts["loop"]
    looping = loop_calls(loop)
    steps = itertools.count(1)

    def call() -> None:
        writer.add_image(TAG, picture, next(steps), dataformats="HWC")

    cpu = CpuMeter(helper)
    times = timed(call, calls, lambda: peer.flush(writer))
    trainer_cpu, helper_cpu = cpu.read()
    cpu = CpuMeter(helper)
    in_a_row = looped(call, loop, lambda: peer.flush(writer))
    peer.close(writer)
    loop_trainer_cpu, loop_helper_cpu = cpu.read()
    copy = copying(picture, loop + 1)
    return Outcome(
        {
            "loop_us": in_a_row.mean * 1e6,
            "loop_median_us": in_a_row.median * 1e6,
            "loop_copy_us": looped(copy, loop).mean * 1e6,
            "loop_trainer_cpu_us": loop_trainer_cpu / looping * 1e6,
            "loop_daemon_cpu_us": loop_helper_cpu / looping * 1e6,
            "caller_us": statistics.median(times) * 1e6,
            "max_us": max(times) * 1e6,
            "copy_us": statistics.median(timed(copy, calls)) * 1e6,
            "trainer_cpu_us": trainer_cpu / calls * 1e6,
            "daemon_cpu_us": helper_cpu / calls * 1e6,
            "disk_bytes": file_bytes(logs) / (calls + looping + 1),
        },
        [Logged("run", TAG, "image", calls + looping + 1)],
    )


QUESTION = Question(
    name="add_image",
    title="add_image of 256 by 256 by 3 uint8",
    notes=(
        f"Random pixels, after one call that does not count. {LOOP_NOTES}. A loop has 50 calls: 10 MB, which fit "
        f"into the journal whether the daemon keeps up or not. {PAUSE_NOTES} of 20. CPU is that of the whole "
        "process, threads included, with flush() and close(). A bare copy is `numpy.copyto` into memory that was "
        "written before, to another place each time, in the same process, as often, and in the same condition."
    ),
    figures=(
        Figure("loop_us", "in a loop: caller's time per call", "µs"),
        Figure("loop_median_us", "in a loop: … median", "µs"),
        Figure("loop_copy_us", "in a loop: a bare copy, for scale", "µs", compared=False),
        Figure("loop_trainer_cpu_us", "in a loop: CPU of the trainer per call", "µs"),
        Figure("loop_daemon_cpu_us", "in a loop: CPU of the daemon or helpers per call", "µs", compared=False),
        Figure("caller_us", "after a pause: caller's time per call", "µs"),
        Figure("max_us", "after a pause: … max", "µs"),
        Figure("copy_us", "after a pause: a bare copy, for scale", "µs", compared=False),
        Figure("trainer_cpu_us", "after a pause: CPU of the trainer per call", "µs"),
        Figure("daemon_cpu_us", "after a pause: CPU of the daemon or helpers per call", "µs", compared=False),
        Figure("disk_bytes", "on disk, per picture", "bytes"),
    ),
    full={"calls": 20, "loop": 50, "torch_imported": 1},
    quick={"calls": 2, "loop": 3, "torch_imported": 0},
    measure=measure,
)
