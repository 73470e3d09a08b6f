"""The distribution of numbers: their moments, and how many are in each of TensorFlow's bins. It merges exactly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .moments import Moments
from .tensorflow_bins import CellCounter, ValueCounter, cell_counter, no_counts

# From so many numbers on, those of two bytes are counted value by value; the table costs as much as these.
VALUES_MIN = 1 << 15


class Distribution:
    """The distribution of the numbers of one array, or of several that are parts of one.

    Attributes:
        moments: of them.
        places: how many are below all edges of `tensorflow_edges`, between each two, and above all; int64, (E + 1,).
    """

    __slots__ = ("moments", "places")

    def __init__(self) -> None:
        self.moments = Moments()
        self.places = no_counts()

    def add(self, blocks: Iterable[Any], dtype: Any, size: int) -> None:
        """Add the numbers of one array.

        Args:
            blocks: arrays of it, (N,) with N up to `BLOCK`.
            dtype: that of the blocks, numpy's; or "bfloat16", whose blocks are uint16.
            size: how many numbers there are.
        """
        import numpy as np

        counter: CellCounter | ValueCounter
        # Not dtype == "bfloat16": numpy formats an error for that and clears it, with what a signal handler has raised.
        is_narrow = isinstance(dtype, str) or dtype.itemsize == 1 or (dtype.itemsize == 2 and size >= VALUES_MIN)
        counter = ValueCounter(dtype) if is_narrow else cell_counter(size)
        with np.errstate(all="ignore"):  # sums of numbers near float64's end are infinite, as tensorboardX's are
            for block in blocks:
                counter.take(block, self.moments)
            counter.add_to(self.places, self.moments)

    def merge(self, other: Distribution) -> None:
        """Add the numbers of another one."""
        self.moments.merge(other.moments)
        self.places += other.places
