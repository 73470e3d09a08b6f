"""Histograms with fixed buckets: durations and sizes in the daemon.

There is one of each for a daemon and not for each run, and it counts writes and not records: so they cost next to
nothing, and their number does not grow.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from typing import Any

# Upper ends, all in one shape: 1, 2.5 and 5 of each power of ten.
SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
RECORDS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
BYTES = (1 << 8, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26)


class Buckets:
    """One histogram. `observe` may be called by any thread.

    Args:
        bounds: the upper ends of its buckets, each inclusive; larger values have a bucket of their own.
    """

    __slots__ = ("_bounds", "_counts", "_lock", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, value: float) -> None:
        """Count a value."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    @property
    def sum(self) -> float:
        """The sum of all values."""
        return self._sum

    def status(self) -> dict[str, Any]:
        """Return the state for `tbxd status --json`: the upper ends, one count for each and one above, the sum."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        return {"bounds": list(self._bounds), "counts": counts, "count": sum(counts), "sum": total}


class Meters:
    """All histograms of a daemon."""

    def __init__(self) -> None:
        self.encode = Buckets(SECONDS)  # of making the events of one write
        self.write = Buckets(SECONDS)  # of one write to the event file, and to those of ranks beside it
        self.fsync = Buckets(SECONDS)  # of one event file
        self.lag = Buckets(SECONDS)  # of a batch, from its arrival until the event file has it
        self.batch_records = Buckets(RECORDS)  # of one write
        self.batch_bytes = Buckets(BYTES)  # of one write, in the event file

    def status(self) -> dict[str, Any]:
        """Return the states by name."""
        return {name: buckets.status() for name, buckets in vars(self).items()}
