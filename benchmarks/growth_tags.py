"""Does a scalar cost the same among ten thousand tags?"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from . import curve
from .add_scalar import VALUE
from .meter import CpuMeter, HelperMeter, file_bytes, import_what_a_trainer_has
from .peers import BASE, Peer
from .question import Logged, Outcome, Question

XS = (1, 10, 100, 1000, 10**4)
MEASURES = (
    ("caller_us", "caller's time per call", "µs"),
    ("trainer_cpu_us", "CPU of the trainer per record", "µs"),
    ("daemon_cpu_us", "CPU of the daemon or helpers per record", "µs"),
    ("daemon_mib", "peak memory of the daemon or helpers", "MiB"),
    ("disk_bytes", "on disk, per record", "bytes"),
)


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one peer; to be called in a fresh process."""
    import_what_a_trainer_has(torch=bool(counts["torch_imported"]))
    records = counts.get(peer.name, counts["others"])

    def point(number: int) -> tuple[dict[str, float], list[Logged]]:
        folder = logs / str(number)
        tags = [f"layer_{index}/loss" for index in range(number)]
        steps = max(records // number, 1)
        bytes_before = file_bytes(logs) if logs.exists() else 0
        writer = peer.open(folder)
        for tag in tags:
            writer.add_scalar(tag, VALUE, 0)
        peer.flush(writer)
        helper = HelperMeter(peer)
        helper.forget_peak()
        cpu = CpuMeter(helper)
        start = time.perf_counter()
        for step in range(1, steps + 1):
            for tag in tags:
                writer.add_scalar(tag, VALUE, step)
        seconds = time.perf_counter() - start
        peer.flush(writer)
        daemon_mib = helper.peak()
        peer.close(writer)
        trainer, helpers = cpu.read()
        logged = steps * number
        return {
            "caller_us": seconds / logged * 1e6,
            "trainer_cpu_us": trainer / logged * 1e6,
            "daemon_cpu_us": helpers / logged * 1e6,
            "daemon_mib": daemon_mib,
            "disk_bytes": (file_bytes(logs) - bytes_before) / (logged + number),
        }, [Logged(folder.name, tag, "simple_value", steps + 1) for tag in tags]

    return curve.climb(
        [x for x in XS if x <= counts["most"]], point, unlimited=peer.name == BASE, work=lambda x: records + x
    )


QUESTION = Question(
    name="growth_tags",
    title="growth with the number of tags",
    notes=(
        "100,000 scalars of tbxd, 20,000 of the others, 1,000 of mlflow, but at least one of each tag, in a new "
        "run for each point: every tag in turn at each step. A first record of each tag is logged before."
    ),
    figures=curve.figures(MEASURES, XS, "tags"),
    full={BASE: 100_000, "others": 20_000, "mlflow": 1_000, "most": 10**4, "torch_imported": 1},
    quick={"others": 100, "most": 10, "torch_imported": 0},
    measure=measure,
    x="tags",
)
