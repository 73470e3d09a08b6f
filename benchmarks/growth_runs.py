"""Does a scalar cost the same among a thousand runs of one process?"""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from pathlib import Path

from . import curve
from .add_scalar import TAG, VALUE
from .meter import CpuMeter, HelperMeter, MemoryMeter, import_what_a_trainer_has
from .peers import BASE, PEERS, Peer
from .question import Logged, Outcome, Question

XS = (1, 10, 100, 1000)
ONE_AT_A_TIME = ("wandb", "trackio")  # a process has one run of these
LEAST = 1000  # scalars of tbxd to each run, so that those are measured and not how a folder is opened
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
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    records = counts.get(peer.name, counts["others"])
    memory = MemoryMeter()

    def point(number: int) -> tuple[dict[str, float], list[Logged]]:
        folders = [logs / f"{number}-{index}" for index in range(number)]
        steps = max(records // number, counts.get(f"least_{peer.name}", 1))
        writers = [peer.open(folder) for folder in folders]
        for writer in writers:
            writer.add_scalar(TAG, VALUE, 0)
        for writer in writers:
            peer.flush(writer)
        helper = HelperMeter(peer)
        helper.forget_peak()
        cpu = CpuMeter(helper)
        start = time.perf_counter()
        for step in range(1, steps + 1):
            for writer in writers:
                writer.add_scalar("train/loss", VALUE, step)
        seconds = time.perf_counter() - start
        for writer in writers:
            peer.close(writer)
        trainer, helpers = cpu.read()
        logged = steps * number
        return {
            "caller_us": seconds / logged * 1e6,
            "trainer_cpu_us": trainer / logged * 1e6,
            "daemon_cpu_us": helpers / logged * 1e6,
            "trainer_mib": max(memory.over_baseline(), 0.0),
            "daemon_mib": helper.peak(),
        }, [Logged(folder.name, TAG, "simple_value", steps + 1) for folder in folders]

    # Opening a run is work, too, with some peers most of it.
    return curve.climb([x for x in XS if x <= counts["most"]], point, unlimited=peer.name == BASE)


QUESTION = Question(
    name="growth_runs",
    title="growth with the number of runs of a process",
    notes=(
        f"100,000 scalars of tbxd, but at least {LEAST} to each run, 20,000 of the others, 2,000 of mlflow, through "
        "that many writers at the same time, each in turn, with new writers for each point. A first record of each "
        "is written before. wandb and trackio have one run in a process. Scalars of all runs alternate one by one, "
        "which is the worst case for a daemon."
    ),
    figures=curve.figures(MEASURES, XS, "runs"),
    full={BASE: 100_000, f"least_{BASE}": LEAST, "others": 20_000, "mlflow": 2_000, "most": 1000, "torch_imported": 1},
    quick={"others": 100, "most": 10, "torch_imported": 0},
    measure=measure,
    peers={name: peer for name, peer in PEERS.items() if name not in ONE_AT_A_TIME},
    x="runs",
)
