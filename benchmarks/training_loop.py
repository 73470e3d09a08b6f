"""How much slower is a training loop that logs?"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .meter import CpuMeter, HelperMeter, import_what_a_trainer_has
from .peers import NotPossible, Peer
from .question import Figure, Logged, Outcome, Question

STEP_SECONDS = 0.02
BATCH, WIDTH = 256, 512
SCALARS = tuple(f"train/metric_{number}" for number in range(50))
HISTOGRAM, HISTOGRAM_STEPS = "weights", 10
BLOCK_SECONDS_BETWEEN = 0.2  # after a block, so that nothing of one is left over in the next
SETTLING = 10  # steps that are not counted, at the beginning

Step = Callable[[], None]


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one peer; to be called in a fresh process."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # this question is about all cores
        os.environ[name] = str(len(os.sched_getaffinity(0)))
    import_what_a_trainer_has(torch=bool(counts["torch_imported"]))
    import numpy as np

    blocks, steps = counts["blocks"], counts["steps"]
    training = _training_step()
    values = np.random.default_rng(1).standard_normal(10**5, dtype=np.float32)
    writer = peer.open(logs / "run")
    log = _Logger(peer, writer, values)
    log(0)
    peer.flush(writer)
    _block(training, lambda step: None, range(SETTLING))
    helper = HelperMeter(peer)
    empty: list[float] = []
    slower: list[float] = []
    trainer_cpu = helper_cpu = 0.0
    last = 1
    for _ in range(blocks):
        before = _block(training, lambda step: None, range(steps))
        cpu = CpuMeter(helper)
        logging = _block(training, log, range(last, last + steps))
        last += steps
        peer.flush(writer)
        time.sleep(BLOCK_SECONDS_BETWEEN)
        used = cpu.read()
        cpu = CpuMeter(helper)
        after = _block(training, lambda step: None, range(steps))
        without = cpu.read()
        trainer_cpu += used[0] - without[0]
        helper_cpu += used[1] - without[1]
        empty += (before, after)
        slower.append(2 * logging / (before + after))
    peer.close(writer)
    logged = [Logged("run", tag, "simple_value", last) for tag in SCALARS]
    if log.histograms:
        logged.append(Logged("run", HISTOGRAM, "histo", log.histograms, values.size, HISTOGRAM_STEPS))
    return Outcome(
        {
            "slower_percent": (statistics.median(slower) - 1) * 100,
            "step_ms": statistics.median(empty) * 1e3,
            "noise_percent": statistics.pstdev(empty) / statistics.mean(empty) * 100,
            "trainer_cpu_us": trainer_cpu / blocks / steps * 1e6,
            "daemon_cpu_us": helper_cpu / blocks / steps * 1e6,
        },
        logged,
    )


class _Logger:
    """Logs a step: 50 scalars, and now and then a histogram where the peer has any."""

    def __init__(self, peer: Peer, writer: Any, values: Any) -> None:
        self._writer = writer
        self._values = values
        self._has_histograms = True
        self.histograms = 0

    def __call__(self, step: int) -> None:
        add_scalar = self._writer.add_scalar
        for tag in SCALARS:
            add_scalar(tag, 0.5, step)
        if step % HISTOGRAM_STEPS == 0 and self._has_histograms:
            try:
                self._writer.add_histogram(HISTOGRAM, self._values, step)
                self.histograms += 1
            except NotPossible:
                self._has_histograms = False


def _training_step() -> Step:
    """Forward and backward passes through two layers, as many as take 20 ms here."""
    import numpy as np

    rng = np.random.default_rng(1)
    inputs, first, second = (
        rng.standard_normal(shape, dtype=np.float32) for shape in ((BATCH, WIDTH), (WIDTH, WIDTH), (WIDTH, WIDTH))
    )

    def passes(number: int) -> None:
        for _ in range(number):
            hidden = np.tanh(inputs @ first * 0.01)
            error = hidden @ second
            error @ second.T * (1 - hidden * hidden)
            hidden.T @ error

    passes(3)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        passes(1)
        times.append(time.perf_counter() - start)
    number = max(round(STEP_SECONDS / statistics.median(times)), 1)
    return lambda: passes(number)


def _block(training: Step, log: Callable[[int], None], steps: range) -> float:
    """Seconds a step of so many steps."""
    start = time.perf_counter()
    for step in steps:
        training()
        log(step)
    return (time.perf_counter() - start) / len(steps)


QUESTION = Question(
    name="training_loop",
    title="a training loop that logs 50 scalars a step and 10⁵ float32 every 10 steps",
    notes=(
        f"Steps of about {STEP_SECONDS * 1e3:g} ms: forward and backward passes in numpy on all cores, which "
        "training and the writer's threads or processes have to share. Each step makes 50 calls of `add_scalar`. "
        "Every tenth step calls `add_histogram` with 10⁵ float32, if the writer has histograms (csv.writer and "
        "mlflow do not). Blocks of 25 steps with logging are measured between two blocks of the same steps "
        "without. Slower is the median of 4 such blocks. Work that remains after a block is not in its time, but "
        "in its CPU: CPU of a block with logging minus that of one without. Noise is the deviation of the blocks "
        "without logging; a figure below it means nothing."
    ),
    figures=(
        Figure("slower_percent", "slower than without logging", "%", compared=False, signed=True),
        Figure("noise_percent", "noise of the loop without logging", "%", compared=False),
        Figure("step_ms", "a step without logging, for scale", "ms", compared=False),
        Figure("trainer_cpu_us", "CPU of the trainer for logging, per step", "µs", compared=False, signed=True),
        Figure("daemon_cpu_us", "CPU of the daemon or helpers, per step", "µs", compared=False, signed=True),
    ),
    full={"blocks": 4, "steps": 25, "torch_imported": 1},
    quick={"blocks": 1, "steps": 10, "torch_imported": 0},
    measure=measure,
)
