"""Where does tbxd cost more than a writer in the process? A few scalars a second, on a local disk."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from .add_scalar import TAG, VALUE
from .meter import CpuMeter, HelperMeter, import_what_a_trainer_has
from .peers import Peer
from .question import Figure, Logged, Outcome, Question

RATE = 5  # scalars a second
EMPTY_SHARE = 5  # the same loop without logging goes on for one of so many parts of the time


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one peer; to be called in a fresh process."""
    import_what_a_trainer_has(torch=bool(counts["torch_imported"]))
    seconds = counts["seconds"]
    start = time.process_time()
    for _ in range(seconds * RATE // EMPTY_SHARE):
        time.sleep(1 / RATE)
    empty = (time.process_time() - start) * EMPTY_SHARE

    start = time.process_time()
    writer = peer.open(logs / "run")
    writer.add_scalar(TAG, VALUE, 0)
    peer.flush(writer)
    start_trainer = time.process_time() - start
    helper = HelperMeter(peer)
    start_helper = helper.cpu()  # it began with the writer
    cpu = CpuMeter(helper)
    for step in range(1, seconds * RATE + 1):
        time.sleep(1 / RATE)
        writer.add_scalar(TAG, VALUE, step)
    trainer, helpers = cpu.read()
    peer.close(writer)
    end_trainer, end_helpers = cpu.read()
    return Outcome(
        {
            "total_cpu_ms": (trainer + helpers - empty) * 1e3,
            "trainer_cpu_ms": (trainer - empty) * 1e3,
            "daemon_cpu_ms": helpers * 1e3,
            "second_ms": (trainer + helpers - empty) / seconds * 1e3,
            "helpers_start_ms": start_helper * 1e3,
            "end_cpu_ms": (end_trainer + end_helpers - trainer - helpers) * 1e3,
            "start_cpu_ms": (start_trainer + start_helper) * 1e3,
            "start_trainer_ms": start_trainer * 1e3,
        },
        [Logged("run", TAG, "simple_value", seconds * RATE + 1)],
    )


QUESTION = Question(
    name="break_even",
    title=f"break-even: {RATE} scalars a second on a local disk",
    notes=(
        f"A loop that sleeps 1/{RATE} s and logs one scalar, for 20 s, with the defaults of each writer. CPU is "
        "that of all threads and processes, minus that of the sleeping loop itself, in two parts. While it runs: "
        "in these 20 s, after everything has started. Once: the import, the writer, its first record until it is "
        "in the file, and the start of the daemon or helpers, which one daemon pays for all trainers of a machine; "
        "and flush() and close() at the end."
    ),
    figures=(
        Figure("second_ms", "while it runs: CPU of all per second", "ms", signed=True),
        Figure("total_cpu_ms", "while it runs: CPU of all in 20 s", "ms", signed=True),
        Figure("trainer_cpu_ms", "… of the trainer", "ms", signed=True),
        Figure("daemon_cpu_ms", "… of the daemon or helpers", "ms", compared=False),
        Figure("start_cpu_ms", "once, at the start: CPU of all", "ms"),
        Figure("start_trainer_ms", "… of the trainer, with the import", "ms"),
        Figure(
            "helpers_start_ms", "… of the daemon or helpers: once for all trainers of a machine", "ms", compared=False
        ),
        Figure("end_cpu_ms", "once, at the end: CPU of all", "ms"),
    ),
    full={"seconds": 20, "torch_imported": 1},
    quick={"seconds": 1, "torch_imported": 0},
    measure=measure,
    rounds_max=1,
)
