"""How long after ``add_scalar`` can a reader see the record in the event file, on an idle machine?"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping
from pathlib import Path

from . import event_files
from .add_scalar import TAG, VALUE
from .peers import BASE, PEERS, NotPossible, Peer
from .question import Figure, Logged, Outcome, Question

BATCH_VARIABLE = "TBXD_BATCH_MS"
BATCHES_MS = (10, 0)  # beside the default
LOOK_SECONDS = 0.001
SECONDS_MAX = 5.0
BETWEEN_SECONDS = (0.2, 0.4)  # from one record to the next, at random, so that no timer of a writer is in step with it


def measure(peer: Peer, counts: Mapping[str, int], logs: Path) -> Outcome:
    """Measure one case; to be called in a fresh process."""
    if peer.name in CASES:
        os.environ[BATCH_VARIABLE] = CASES[peer.name]  # the daemon inherits it
    folder = logs / "run"
    writer = peer.open(folder)
    writer.add_scalar(TAG, VALUE, 0)
    peer.flush(writer)
    reader = _Reader(folder)
    reader.wait(1, peer)
    between = random.Random(1)
    times = []
    for step in range(1, counts["records"] + 1):
        time.sleep(between.uniform(*BETWEEN_SECONDS))
        start = time.perf_counter()
        writer.add_scalar(TAG, VALUE, step)
        reader.wait(1, peer)
        times.append(time.perf_counter() - start)
    peer.close(writer)
    times.sort()
    return Outcome(
        {
            "median_ms": times[len(times) // 2] * 1e3,
            "p95_ms": times[len(times) * 95 // 100] * 1e3,
            "max_ms": times[-1] * 1e3,
        },
        [Logged("run", TAG, "simple_value", len(times) + 1)],
    )


class _Reader:
    """Follows the event files of a folder, of which there may be none yet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._positions: dict[Path, int] = {}

    def wait(self, count: int, peer: Peer) -> None:
        """Return when so many more events hold a scalar.

        Raises:
            NotPossible: they do not come.
        """
        deadline = time.perf_counter() + SECONDS_MAX
        while count > 0:
            count -= self._new()
            if time.perf_counter() > deadline:
                raise NotPossible(f"by default {peer.title} has nothing in the file within {SECONDS_MAX:g} s")
            if count > 0:
                time.sleep(LOOK_SECONDS)

    def _new(self) -> int:
        found = 0
        for path in self._folder.glob("*tfevents*"):
            with open(path, "rb") as file:
                position = self._positions.get(path, 0)
                file.seek(position)
                data = file.read()
                for begin, end in event_files.events(data):
                    found += TAG.encode() in data[begin:end]
                    self._positions[path] = position + end + event_files.AFTER
        return found


CASES = {f"{BASE}, {value} ms": str(value) for value in BATCHES_MS}

QUESTION = Question(
    name="latency",
    title="from add_scalar to readable in the file",
    notes=(
        "40 scalars, one every 0.2 to 0.4 s, with nothing else to do. A reader looks at the event file every "
        f"{LOOK_SECONDS * 1e3:g} ms. tbxd has its default, and `{BATCH_VARIABLE}` at {BATCHES_MS[0]} and "
        f"{BATCHES_MS[1]}. The others keep records for up to 120 s by default, unless flush() is called."
    ),
    figures=(
        Figure("median_ms", "until it can be read, median", "ms"),
        Figure("p95_ms", "… p95", "ms"),
        Figure("max_ms", "… max", "ms"),
    ),
    full={"records": 40},
    quick={"records": 3},
    measure=measure,
    peers={
        BASE: PEERS[BASE],
        **{name: PEERS[BASE].named(name) for name in CASES},
        **{name: PEERS[name] for name in ("tensorboardX", "torch", "tf.summary")},
    },
    rounds_max=1,
)
