"""How does the cost of a histogram grow with the array?"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path

from . import curve
from .add_histogram import TAG
from .conditions import timed
from .meter import CpuMeter, HelperMeter, import_what_a_trainer_has
from .peers import BASE, Peer
from .question import Logged, Outcome, Question

XS = (10**2, 10**3, 10**4, 10**5, 10**6, 10**7)
MEASURES = (
    ("caller_us", "caller's time per call, median", "µs"),
    ("copy_us", "a bare copy of the array", "µs"),
    ("trainer_cpu_us", "CPU of the trainer per call", "µs"),
    ("daemon_cpu_us", "CPU of the daemon or helpers per call", "µs"),
)


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one peer; to be called in a fresh process."""
    import_what_a_trainer_has(torch=bool(counts["torch_imported"]))
    import numpy as np

    calls = counts["calls"]

    def point(size: int) -> tuple[dict[str, float], list[Logged]]:
        values = np.random.default_rng(1).standard_normal(size, dtype=np.float32)
        folder = logs / str(size)
        writer = peer.open(folder)
        writer.add_histogram(TAG, values, 0)
        peer.flush(writer)
        cpu = CpuMeter(HelperMeter(peer))
        steps = iter(range(1, calls + 1))
        times = timed(lambda: writer.add_histogram(TAG, values, next(steps)), calls, lambda: peer.flush(writer))
        peer.close(writer)
        trainer, helpers = cpu.read()
        return {
            "caller_us": statistics.median(times) * 1e6,
            "copy_us": statistics.median(timed(values.copy, calls)) * 1e6,
            "trainer_cpu_us": trainer / calls * 1e6,
            "daemon_cpu_us": helpers / calls * 1e6,
        }, [Logged(folder.name, TAG, "histo", calls + 1, size)]

    return curve.climb([x for x in XS if x <= counts["most"]], point, unlimited=peer.name == BASE)


QUESTION = Question(
    name="growth_size",
    title="growth with the size of an array",
    notes=(
        "5 calls of `add_histogram` with that many float32 values for each point, after one that does not count, "
        "each followed by flush() and a pause. A bare copy, measured in the process of each peer, gives the scale."
    ),
    figures=curve.figures(MEASURES, XS, "values"),
    full={"calls": 5, "most": 10**7, "torch_imported": 1},
    quick={"calls": 2, "most": 10**4, "torch_imported": 0},
    measure=measure,
    x="float32 values",
)
