"""TensorFlow's bins, which tensorboardX has as its default: numbers are counted without sorting.

There are 1,549 edges, each 1.1 times the one before. To sort a million numbers, or to search the edges for each, is
slow; but a float32 cut to its upper bits says almost always which bin a number is in. So numbers are counted by these
bits (a *cell*), the cells of a bin are added up, and only what is in a cell that an edge goes through is compared with
that edge; a cell is narrow, so there is one. Of numbers that have 16 bits or fewer each value is a cell of its own.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from .moments import BLOCK, Moments, Scratch, add_partial

CELL_BITS = 16
# With more bits fewer numbers are unclear: 2 in 100 instead of 8. The larger tables pay from so many numbers on.
CELL_BITS_OF_MANY = 18
MANY = 1 << 16


@cache
def tensorflow_edges() -> Any:
    """1e-12 times powers of 1.1 up to 1e20, their negatives, and 0, ascending: float64, (E,), read-only.

    Multiplied step by step, as TensorFlow does (``histogram.cc``): a power would differ in the last bits.
    """
    import numpy as np

    edge, positive = 1e-12, []
    while edge < 1e20:
        positive.append(edge)
        edge *= 1.1
    edges = np.array([*(-edge for edge in reversed(positive)), 0.0, *positive])
    edges.flags.writeable = False
    return edges


def no_counts() -> Any:
    """Zero numbers at each place: below all edges, between each two of them, and above all; int64, (E + 1,)."""
    import numpy as np

    return np.zeros(len(tensorflow_edges()) + 1, np.int64)


@cache
def _bounds() -> Any:
    """The edges as bounds of places: the last bin holds its upper edge, so its numbers end at the next float64."""
    import numpy as np

    edges = tensorflow_edges()
    return np.append(edges[:-1], np.nextafter(edges[-1], np.inf))


class Cells(NamedTuple):
    """What the upper bits of a float32 say of a number.

    A cell holds the float64 numbers whose nearest float32 begins with the cell's bits; these reach at most one float32
    beyond the cell's own. A number's place is how many edges are not above it; cells side by side have mostly the same.

    ``shift``: how many bits are cut off. ``firsts``: cells where a row of cells begins whose numbers are at one place,
    ascending; of a cell with an edge in it, those below that edge are meant. ``places``: the place for each row.
    ``mixed``: for each cell whether there is an edge in it, so that its numbers are at two places. ``slots``: for each
    cell how many mixed ones are before it. ``edges``: of each mixed cell the edge; what is not below it is one place
    higher. ``lower``: and the place of what is below.
    """

    shift: int
    firsts: Any
    places: Any
    mixed: Any
    slots: Any
    edges: Any
    lower: Any


@cache
def _cells(width: int) -> Cells:
    import numpy as np

    shift = 32 - width
    bits = np.arange(1 << width, dtype=np.uint32) << shift
    with np.errstate(all="ignore"):
        ends = np.stack([bits, bits | ((1 << shift) - 1)]).view(np.float32)
        low = np.nextafter(ends.min(axis=0), np.float32(-np.inf))
        high = np.nextafter(ends.max(axis=0), np.float32(np.inf))
    negative = bits >> 31 == 1
    low = np.where(negative, low, np.maximum(low, np.float32(0)))  # rounding keeps the sign,
    high = np.where(negative, np.minimum(high, np.float32(0)), high)  # but -0.0 is in a negative cell and is 0
    bounds = _bounds()
    places = np.searchsorted(bounds, low.astype(np.float64), side="right")
    high_places = np.searchsorted(bounds, high.astype(np.float64), side="right")
    overflown = (bits & 0x7F80_0000) == 0x7F80_0000  # finite numbers that no float32 holds
    places[overflown] = high_places[overflown] = np.where(negative[overflown], 0, len(bounds))
    mixed = places != high_places
    assert (high_places - places)[mixed].max() == 1
    firsts = np.flatnonzero(np.diff(places, prepend=-1))
    slots = (np.cumsum(mixed) - mixed).astype(np.int16)
    return Cells(shift, firsts, places[firsts], mixed, slots, bounds[places[mixed]], places[mixed])


class CellCounter:
    """Counts float32 and float64 numbers by their cells, from `counter` on until `add_to`.

    Args:
        width: bits of a cell.
        size: how many numbers come at a time, at most.
    """

    def __init__(self, width: int, size: int) -> None:
        import numpy as np

        self._known = known = _cells(width)
        self._in_cells = np.zeros(len(known.mixed), np.int64)
        self._higher = np.zeros(len(known.edges), np.int64)  # of each mixed cell, the numbers not below its edge
        self._scratch = Scratch(size)
        self._cells = np.empty(size, np.intp)
        self._mixed = np.empty(size, np.bool_)
        self._adds_quickly = np.lib.NumpyVersion(np.__version__) >= "1.25.0"

    def take(self, block: Any, moments: Moments) -> None:
        """Count a block of any real dtype, (N,)."""
        import numpy as np

        numbers = moments.take(block, self._scratch)
        known, count = self._known, len(numbers)
        bits = numbers.astype(np.float32, copy=False).view(np.uint32)
        cells = np.right_shift(bits, known.shift, out=self._cells[:count], casting="unsafe")
        zeros = self._in_cells[[0, len(self._in_cells) // 2]].sum()  # in the cells of 0.0 and -0.0
        if self._adds_quickly:  # and takes no memory
            np.add.at(self._in_cells, cells, 1)
        else:
            self._in_cells += np.bincount(cells, minlength=len(self._in_cells))
        # "clip" is quicker than to look whether an index is out of bounds; none is.
        unclear = np.flatnonzero(known.mixed.take(cells, out=self._mixed[:count], mode="clip"))
        slots = known.slots[cells[unclear]]
        self._higher += np.bincount(slots[numbers[unclear] >= known.edges[slots]], minlength=len(self._higher))
        if self._in_cells[[0, len(self._in_cells) // 2]].sum() != zeros:
            moments.zeros += count - int(np.count_nonzero(numbers))

    def add_to(self, places: Any, moments: Moments) -> None:
        """Add the counts at each place to ``places``, see `no_counts`; it can be used again then."""
        import numpy as np

        known = self._known
        np.add.at(places, known.places, np.add.reduceat(self._in_cells, known.firsts))
        np.subtract.at(places, known.lower, self._higher)
        np.add.at(places, known.lower + 1, self._higher)
        self._in_cells.fill(0)
        self._higher.fill(0)
        _counters.append(self) if len(self._cells) == BLOCK and not _counters else None


_counters: list[CellCounter] = []  # to be used again: to take some MiB anew costs as much as to count a block


def cell_counter(size: int) -> CellCounter:
    """A counter for about ``size`` numbers."""
    if size < MANY:
        return CellCounter(CELL_BITS, min(size, BLOCK))
    try:
        return _counters.pop()
    except IndexError:
        return CellCounter(CELL_BITS_OF_MANY, BLOCK)


class ValueCounter:
    """Counts numbers of a type that has 65,536 values at most, each by itself.

    Args:
        dtype: numpy's, of one or two bytes; or "bfloat16", whose blocks are uint16.
    """

    def __init__(self, dtype: Any) -> None:
        import numpy as np

        self._dtype = dtype
        bytes_of_one = 2 if isinstance(dtype, str) else dtype.itemsize
        self._codes = np.uint8 if bytes_of_one == 1 else np.uint16
        self._counts = np.zeros(1 << 8 * bytes_of_one, np.int64)

    def take(self, block: Any, moments: Moments) -> None:
        """Count a block of this type, (N,)."""
        import numpy as np

        self._counts += np.bincount(block.view(self._codes), minlength=len(self._counts))

    def add_to(self, places: Any, moments: Moments) -> None:
        """Add the counts at each place to ``places``, see `no_counts`, and the rest to ``moments``."""
        import numpy as np

        codes = np.flatnonzero(self._counts)
        counts, values = self._counts[codes], _values(self._dtype, codes.astype(self._codes))
        finite = np.isfinite(values)
        if not finite.all():
            odd, times = values[~finite], counts[~finite]
            moments.nan += int(times[np.isnan(odd)].sum())
            moments.negative_infinite += int(times[odd < 0].sum())
            moments.positive_infinite += int(times[odd > 0].sum())
            values, counts = values[finite], counts[finite]
        if not len(values):
            return
        moments.num += int(counts.sum())
        moments.zeros += int(counts[values == 0].sum())
        moments.min, moments.max = min(moments.min, float(values.min())), max(moments.max, float(values.max()))
        add_partial(moments.sums, float((values * counts).sum()))
        add_partial(moments.squares, float((values * values * counts).sum()))
        np.add.at(places, np.searchsorted(_bounds(), values, side="right"), counts)


def _values(dtype: Any, codes: Any) -> Any:
    """The float64 numbers that have these bits."""
    import numpy as np

    if isinstance(dtype, str):
        return (codes.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return codes.view(dtype).astype(np.float64)
