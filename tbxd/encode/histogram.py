"""Histograms: the counts of tensorboardX, without sorting.

Its default bins ("tensorflow") have 1,549 edges, each 1.1 times the one before. To sort a million numbers, or to
search the edges for each, is slow; but the upper bits of a float32 almost always determine its bin. So numbers are
counted by these bits (a *cell*), and the cells of a bin are added up. Only numbers in a cell with an edge are compared
with that edge; a cell is narrow, so it has at most one. The work is done in chunks that fit the processor's cache, and
reuses the memory of the chunk before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.protocol.kinds import HISTOGRAM, HISTOGRAM_RAW
from tbxd_client.protocol.limits import BIN_RULES, BINS_MAX
from tbxd_client.protocol.records import Record, TagDefinition

from ..tfevents import schema
from .arrays import AnyArray, array_of, arrays_of, check_real
from .metadata import summary_value
from .rejections import Refused

CHUNK = 1 << 17  # numbers at a time: 1 MiB as float64
CELL_BITS = 16
# With more bits fewer numbers are unclear: 2 in 100 instead of 8. The larger tables pay from so many numbers on.
CELL_BITS_OF_MANY = 18
MANY = 1 << 18
STONE_VALUES_MAX = 1 << 15  # numpy's rule "stone" makes sqrt(n) histograms of all n numbers to choose one of them

TENSORFLOW = "tensorflow"

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class Scratch:
    """Reusable memory for chunks of at most ``size`` numbers each."""

    def __init__(self, size: int) -> None:
        self.wide = np.empty(size, np.float64)
        self.squares = np.empty(size, np.float64)
        self.cells = np.empty(size, np.intp)


@dataclass(slots=True)
class Statistics:
    """The statistics of the finite numbers of an array; ``left_out`` others were not finite."""

    num: int = 0
    left_out: int = 0
    min: float = math.inf
    max: float = -math.inf
    sums: list[float] = field(default_factory=list)  # of each chunk, as are the squares
    squares: list[float] = field(default_factory=list)

    def take(self, chunk: AnyArray, scratch: Scratch) -> AnyArray:
        """Account for a chunk; return its finite numbers, float32 as they are, others as float64.

        They may be in the scratch, which the next chunk overwrites.
        """
        wide = scratch.wide[: len(chunk)]
        wide[:] = chunk
        numbers = chunk if chunk.dtype == np.float32 else wide
        total = float(wide.sum())
        if not math.isfinite(total):  # something is not finite, or only the sum is not
            finite = np.isfinite(wide)
            numbers, wide = numbers[finite], wide[finite]
            self.left_out += len(chunk) - len(wide)
            total = float(wide.sum())
        if len(numbers):
            self.num += len(numbers)
            self.min = min(self.min, float(numbers.min()))
            self.max = max(self.max, float(numbers.max()))
            self.sums.append(total)
            # Not a dot product: BLAS starts a thread for each core and has them spin for 100 ms after it.
            self.squares.append(float(np.square(wide, out=scratch.squares[: len(wide)]).sum()))
        return numbers

    @property
    def sum(self) -> float:
        """The sum of the numbers; infinite beyond float64."""
        return _total(self.sums)

    @property
    def sum_squares(self) -> float:
        """The sum of the numbers' squares; infinite beyond float64."""
        return _total(self.squares)


@dataclass(slots=True, frozen=True)
class Histogram:
    """A histogram as TensorBoard has it: ``counts[i]`` numbers from ``limits[i - 1]`` up to ``limits[i]``.

    The first count is 0, its limit is the lower end of the first bin that is not empty. The statistics are those of all
    finite numbers, even if the bins leave some out.
    """

    counts: Counts
    limits: Floats
    statistics: Statistics


def encode(record: Record, tag: TagDefinition) -> list[Any]:
    """Encode one histogram: attributes ``dtype``, ``shape``, ``bins`` and ``max_bins``.

    Raises:
        Refused: ``bad_record``, ``bad_bins`` or ``no_finite_values``.
    """
    return encode_together([record], tag)


def encode_together(records: Sequence[Record], tag: TagDefinition) -> list[Any]:
    """Encode one histogram of several records, which are parts of one array; the first determines the bins.

    Raises:
        Refused: ``bad_record``, ``bad_bins`` or ``no_finite_values``.
    """
    attrs = records[0].attrs
    arrays = [array_of(record) for record in records]
    result = histogram_of(arrays, attrs.get("bins", TENSORFLOW), attrs.get("max_bins"))
    message = schema.HistogramProto(
        min=result.statistics.min,
        max=result.statistics.max,
        num=result.statistics.num,
        sum=result.statistics.sum,
        sum_squares=result.statistics.sum_squares,
        bucket_limit=result.limits.tolist(),
        bucket=result.counts.tolist(),
    )
    return [summary_value(HISTOGRAM, tag, histo=message)]


def encode_raw(record: Record, tag: TagDefinition) -> list[Any]:
    """Encode a precomputed histogram: arrays ``limits`` and ``counts``, attributes ``min``, ``max``, ``num``, ``sum``
    and ``sum_squares``.

    Raises:
        Refused: ``bad_record``.
    """
    arrays = arrays_of(record)
    statistics = {name: record.attrs.get(name) for name in ("min", "max", "num", "sum", "sum_squares")}
    if arrays.keys() != {"limits", "counts"} or not all(type(number) is float for number in statistics.values()):
        raise Refused("bad_record", f"a histogram of {sorted(arrays)!r:.60} with {statistics!r:.80}")
    for array in arrays.values():
        check_real(array)
    limits, counts = (arrays[name].reshape(-1).astype(np.float64) for name in ("limits", "counts"))
    if len(limits) != len(counts) or not 1 <= len(limits) <= BINS_MAX:
        raise Refused("bad_record", f"a histogram of {len(limits)} limits and {len(counts)} counts")
    message = schema.HistogramProto(**statistics, bucket_limit=limits.tolist(), bucket=counts.tolist())
    return [summary_value(HISTOGRAM_RAW, tag, histo=message)]


def histogram_of(array: AnyArray | Sequence[AnyArray], bins: object = TENSORFLOW, max_bins: object = None) -> Histogram:
    """Return the histogram of the finite numbers of one or several arrays.

    Args:
        array: real numbers of any shape.
        bins: one of `BIN_RULES`, a number of bins, or a list of their edges.
        max_bins: None, or the approximate maximum of bins; neighbours are added up.

    Raises:
        Refused: ``bad_record`` for complex numbers, ``no_finite_values``, ``bad_bins``.
    """
    arrays = [array] if isinstance(array, np.ndarray) else array
    for one in arrays:
        check_real(one)
    size = sum(one.size for one in arrays)
    wanted = _checked_bins(bins)
    if max_bins is not None and not (type(max_bins) is int and max_bins > 0):
        raise Refused("bad_bins", f"max_bins is {max_bins!r:.40}")
    statistics, scratch = Statistics(), Scratch(min(size, CHUNK))
    with np.errstate(all="ignore"):  # sums of numbers near float64's end are infinite, as tensorboardX's are
        finite = (statistics.take(chunk, scratch) for one in arrays for chunk in _chunks(one))
        if wanted == TENSORFLOW:
            at_places, limits = _tensorflow_counts(finite, size, scratch), tensorflow_edges()
            counts = at_places[1:-1]
        else:
            for _ in finite:  # numpy's bins need the range first
                pass
        if not statistics.num:
            raise Refused("no_finite_values", f"none of {size:,} numbers is finite")
        if wanted != TENSORFLOW:
            counts, limits = _numpy_counts(arrays, wanted, statistics)
        elif not counts.any():  # all beyond the outermost edges: shown in two bins of their own, not refused
            counts, limits = _beyond(at_places, limits, statistics)
    if max_bins is not None and len(counts) > max_bins:
        counts, limits = _merged(counts, limits, max_bins)
    counts, limits = _trimmed(counts, limits)
    return Histogram(counts, limits, statistics)


def _checked_bins(bins: object) -> str | int | tuple[float, ...]:
    if isinstance(bins, str) and bins in BIN_RULES:
        return bins
    if type(bins) is int and 0 < bins <= BINS_MAX:
        return bins
    if isinstance(bins, list | tuple) and 2 <= len(bins) <= BINS_MAX + 1:
        try:
            edges = tuple(float(edge) for edge in bins if type(edge) in (int, float))
        except OverflowError:
            edges = ()
        if len(edges) == len(bins) and all(low <= high for low, high in pairwise(edges)):
            return edges  # no NaN: it is not less than anything
    raise Refused("bad_bins", f"bins are {bins!r:.80}; a rule, a number, or edges that grow are expected")


def _chunks(array: AnyArray) -> Iterator[AnyArray]:
    flat = array.reshape(-1)
    for first in range(0, len(flat), CHUNK):
        yield flat[first : first + CHUNK]


def _finite_chunks(arrays: Sequence[AnyArray]) -> Iterator[Floats]:
    for array in arrays:
        for chunk in _chunks(array):
            wide = chunk.astype(np.float64, copy=False)
            yield wide[np.isfinite(wide)]


def _total(parts: list[float]) -> float:
    try:
        return math.fsum(parts)
    except (OverflowError, ValueError):  # beyond float64, or infinities of both signs
        return float(np.sum(parts))


# --- TensorFlow's bins -----------------------------------------------------------------------------------------


@cache
def tensorflow_edges() -> Floats:
    """Return 1e-12 times powers of 1.1 up to 1e20, their negatives, and 0, ascending.

    They are multiplied step by step, as in TensorFlow (``histogram.cc``): a power would differ in the last bits.
    """
    edge, positive = 1e-12, []
    while edge < 1e20:
        positive.append(edge)
        edge *= 1.1
    edges = np.array([*(-edge for edge in reversed(positive)), 0.0, *positive])
    edges.flags.writeable = False
    return edges


@dataclass(slots=True, frozen=True)
class Cells:
    """A table from the upper bits of a float32 to the bin of a number.

    A cell holds the float64 numbers whose nearest float32 begins with the cell's bits; these reach at most one float32
    beyond the cell's own. A number's place is the count of edges not above it; neighbouring cells mostly have the same.

    Args:
        shift: the number of bits cut off.
        firsts: the first cells of rows of cells whose numbers are at one place, ascending; for a cell with an edge,
            those below that edge.
        places: the place of each row.
        mixed: True for each cell with an edge in it, whose numbers are at two places.
        slots: for each cell the number of mixed ones before it.
        edges: the edge of each mixed cell; numbers not below it are one place higher.
        lower: the place of the numbers below that edge.
    """

    shift: int
    firsts: npt.NDArray[np.intp]
    places: npt.NDArray[np.intp]
    mixed: npt.NDArray[np.bool_]
    slots: npt.NDArray[np.int16]
    edges: Floats
    lower: npt.NDArray[np.intp]


@cache
def _cells(width: int) -> Cells:
    edges = tensorflow_edges()
    shift = 32 - width
    bits = np.arange(1 << width, dtype=np.uint32) << shift
    with np.errstate(all="ignore"):
        ends = np.stack([bits, bits | ((1 << shift) - 1)]).view(np.float32)
        low = np.nextafter(ends.min(axis=0), np.float32(-np.inf))
        high = np.nextafter(ends.max(axis=0), np.float32(np.inf))
    negative = bits >> 31 == 1
    low = np.where(negative, low, np.maximum(low, np.float32(0)))  # rounding keeps the sign,
    high = np.where(negative, np.minimum(high, np.float32(0)), high)  # but -0.0 is in a negative cell and is 0
    # The last bin holds its upper edge, so its numbers end where the next float64 begins.
    bounds = np.append(edges[:-1], np.nextafter(edges[-1], np.inf))
    places = np.searchsorted(bounds, low.astype(np.float64), side="right")
    high_places = np.searchsorted(bounds, high.astype(np.float64), side="right")
    overflown = (bits & 0x7F80_0000) == 0x7F80_0000  # finite numbers that no float32 holds
    places[overflown] = high_places[overflown] = np.where(negative[overflown], 0, len(bounds))
    mixed = places != high_places
    assert (high_places - places)[mixed].max() == 1
    firsts = np.flatnonzero(np.diff(places, prepend=-1))
    slots = (np.cumsum(mixed) - mixed).astype(np.int16)
    return Cells(shift, firsts, places[firsts], mixed, slots, bounds[places[mixed]], places[mixed])


def _tensorflow_counts(chunks: Iterable[AnyArray], size: int, scratch: Scratch) -> Counts:
    """Count the numbers below, in each bin of, and above `tensorflow_edges`; the last bin includes its upper edge.

    Args:
        chunks: the numbers.
        size: their approximate number.
        scratch: memory for a chunk.
    """
    known = _cells(CELL_BITS if size < MANY else CELL_BITS_OF_MANY)
    in_cells = np.zeros(len(known.mixed), np.int64)
    higher = np.zeros(len(known.edges), np.int64)  # how many numbers of each mixed cell are not below its edge
    for chunk in chunks:
        bits = chunk.astype(np.float32, copy=False).view(np.uint32)
        cells = scratch.cells[: len(chunk)]
        np.right_shift(bits, known.shift, out=cells, casting="unsafe")
        in_cells += np.bincount(cells, minlength=len(in_cells))
        unclear = np.flatnonzero(known.mixed.take(cells))
        slots = known.slots[cells[unclear]]
        higher += np.bincount(slots[chunk[unclear] >= known.edges[slots]], minlength=len(higher))
    at_places = np.zeros(len(tensorflow_edges()) + 1, np.int64)
    np.add.at(at_places, known.places, np.add.reduceat(in_cells, known.firsts))
    np.subtract.at(at_places, known.lower, higher)
    np.add.at(at_places, known.lower + 1, higher)
    return at_places


def _beyond(at_places: Counts, edges: Floats, statistics: Statistics) -> tuple[Counts, Floats]:
    """Add bins up to the outermost numbers, for numbers that all lie below or above the bins."""
    counts, limits = at_places[1:-1], edges
    if at_places[0]:
        counts, limits = np.append(at_places[0], counts), np.append(statistics.min, limits)
    if at_places[-1]:
        counts, limits = np.append(counts, at_places[-1]), np.append(limits, statistics.max)
    return counts, limits


# --- numpy's bins ----------------------------------------------------------------------------------------------


def _numpy_counts(
    arrays: Sequence[AnyArray], bins: str | int | tuple[float, ...], statistics: Statistics
) -> tuple[Counts, Floats]:
    """Return counts and edges as ``numpy.histogram`` does."""
    span = (statistics.min, statistics.max)
    if not isinstance(bins, tuple) and not math.isfinite(span[1] - span[0]):
        raise Refused("bad_bins", f"numbers from {span[0]:g} to {span[1]:g}, whose difference no float64 holds")
    if isinstance(bins, str):
        bins = _bins_by_rule(arrays, bins, statistics)
    edges: int | Floats = bins if isinstance(bins, int) else np.array(bins, np.float64)
    try:
        limits = np.histogram_bin_edges(np.empty(0), edges, span)
        counts = np.zeros(len(limits) - 1, np.int64)
        for chunk in _finite_chunks(arrays):
            counts += np.histogram(chunk, edges, span)[0]
    except ValueError as error:  # numpy's: the numbers are too close together for so many bins
        raise Refused("bad_bins", f"{error}") from error
    return counts, limits


def _bins_by_rule(arrays: Sequence[AnyArray], rule: str, statistics: Statistics) -> int:
    """Return the number of bins that one of numpy's rules makes of the finite numbers.

    "stone" uses at most `STONE_VALUES_MAX` of them, evenly spread.
    """
    span = (statistics.min, statistics.max)
    numbers = np.concatenate(list(_finite_chunks(arrays)))
    if rule in ("auto", "fd"):  # a few numbers far away can make billions of bins, which numpy would try to hold
        low, high = np.percentile(numbers, [25, 75])
        width = 2 * (high - low) / len(numbers) ** (1 / 3)
        if width > 0 and (span[1] - span[0]) / width > BINS_MAX:
            if rule == "fd":
                raise Refused("bad_bins", f"rule 'fd' makes more than {BINS_MAX:,} bins of these numbers")
            return min(BINS_MAX, math.ceil(2 * math.sqrt(len(numbers))))  # as "auto" is bounded in numpy 2.3
    if rule == "stone" and len(numbers) > STONE_VALUES_MAX:
        numbers = numbers[:: math.ceil(len(numbers) / STONE_VALUES_MAX)]
    try:
        count = len(np.histogram_bin_edges(numbers, rule, span)) - 1
    except (ValueError, OverflowError) as error:  # numpy's: no width can be made of them
        raise Refused("bad_bins", f"rule {rule!r}: {error}") from error
    if count > BINS_MAX:
        raise Refused("bad_bins", f"rule {rule!r} makes {count:,} bins of these numbers; at most {BINS_MAX:,}")
    return count


# --- what TensorBoard gets of the bins -------------------------------------------------------------------------


def _merged(counts: Counts, limits: Floats, bins_max: int) -> tuple[Counts, Floats]:
    """Merge neighbouring bins. As with tensorboardX, up to twice ``bins_max`` may be left."""
    every = len(counts) // bins_max
    firsts = np.arange(0, len(counts), every)
    return np.add.reduceat(counts, firsts), np.append(limits[firsts], limits[-1])


def _trimmed(counts: Counts, limits: Floats) -> tuple[Counts, Floats]:
    """Remove the empty bins at both ends; keep upper limits only: an empty first bin has the lower one."""
    filled = np.flatnonzero(counts)
    if not len(filled):
        raise Refused("bad_bins", "no number is in any of the bins")
    first, last = int(filled[0]), int(filled[-1])
    return np.concatenate([[0], counts[first : last + 1]]), limits[first : last + 2]
