"""Does a scalar cost the same after ten million of them?"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from . import curve
from .add_scalar import TAG, VALUE
from .meter import CpuMeter, HelperMeter, MemoryMeter, import_what_a_trainer_has
from .peers import BASE, Peer
from .question import Logged, Outcome, Question

XS = (10**4, 10**5, 10**6, 10**7)
FLUSHED = 500_000  # records after which flush() is called, so that a daemon is not left behind for good
MEASURES = (
    ("caller_us", "caller's time per call", "µs"),
    ("trainer_cpu_us", "CPU of the trainer per record", "µs"),
    ("daemon_cpu_us", "CPU of the daemon or helpers per record", "µs"),
    ("trainer_mib", "peak memory of the trainer, over baseline", "MiB"),
    ("daemon_mib", "peak memory of the daemon or helpers", "MiB"),
)


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one peer; to be called in a fresh process."""
    import_what_a_trainer_has(torch=bool(counts["torch_imported"]))
    memory = MemoryMeter()

    def point(records: int) -> tuple[dict[str, float], list[Logged]]:
        folder = logs / str(records)
        writer = peer.open(folder)
        writer.add_scalar(TAG, VALUE, 0)
        peer.flush(writer)
        helper = HelperMeter(peer)
        helper.forget_peak()
        memory.forget()
        cpu = CpuMeter(helper)
        seconds = 0.0
        for first in range(1, records + 1, FLUSHED):
            start = time.perf_counter()
            for step in range(first, min(first + FLUSHED, records + 1)):
                writer.add_scalar("train/loss", VALUE, step)
            seconds += time.perf_counter() - start
            peer.flush(writer)
        daemon_mib = helper.peak()
        peer.close(writer)
        trainer, helpers = cpu.read()
        return {
            "caller_us": seconds / records * 1e6,
            "trainer_cpu_us": trainer / records * 1e6,
            "daemon_cpu_us": helpers / records * 1e6,
            "trainer_mib": max(memory.over_baseline(), 0.0),
            "daemon_mib": daemon_mib,
        }, [Logged(folder.name, TAG, "simple_value", records + 1)]

    most = counts.get(peer.name, counts["others"])
    return curve.climb([x for x in XS if x <= most], point, unlimited=peer.name == BASE)


QUESTION = Question(
    name="growth_records",
    title="growth with the number of records",
    notes=(
        "`add_scalar` in a loop, to a new run for each point, in one process. The caller's time excludes a flush() "
        f"after every {FLUSHED:,} records. Only tbxd logs 10⁷. A peer goes on to ten times as many if that is "
        f"expected to take no more than {curve.SECONDS_MAX:g} s."
    ),
    figures=curve.figures(MEASURES, XS, "records"),
    full={BASE: 10**7, "others": 10**6, "torch_imported": 1},
    quick={"others": 10**4, "torch_imported": 0},
    measure=measure,
    x="records",
)
