"""Histograms: those of tensorboardX for the same numbers.

A record has the numbers themselves, or what the client has counted of them where they are many
(`tbxd_client.statistics`). Both are put together the same way, so that parts of one array may come in either form.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.protocol.kinds import HISTOGRAM, HISTOGRAM_RAW
from tbxd_client.protocol.limits import BIN_RULES, BINS_MAX, PARTIAL_SUMS_MAX
from tbxd_client.protocol.records import Record, TagDefinition
from tbxd_client.statistics.distribution import Distribution
from tbxd_client.statistics.moments import BLOCK, Moments, Scratch, add_partial
from tbxd_client.statistics.numpy_bins import BadBins, numpy_counts
from tbxd_client.statistics.tensorflow_bins import tensorflow_edges

from ..tfevents import schema
from .arrays import AnyArray, array_of, arrays_of, check_real
from .metadata import summary_value
from .rejections import Refused

TENSORFLOW = "tensorflow"
COUNT_MAX = (1 << 63) - 1  # numbers of a histogram

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(slots=True, frozen=True)
class Histogram:
    """A histogram as TensorBoard has it: ``counts[i]`` numbers from ``limits[i - 1]`` up to ``limits[i]``.

    The first count is 0, its limit is the lower end of the first bin that holds something. The statistics are those
    of all finite numbers, also where the bins leave some out.
    """

    counts: Counts
    limits: Floats
    statistics: Moments


def encode(record: Record, tag: TagDefinition) -> list[Any]:
    """One histogram: attributes ``bins`` and ``max_bins``, and the numbers or what was counted of them.

    Raises:
        Refused: ``bad_record``, ``bad_bins`` or ``no_finite_values``.
    """
    return encode_together([record], tag)


def encode_together(records: Sequence[Record], tag: TagDefinition) -> list[Any]:
    """One histogram of the numbers of several records, which are parts of one array; the first says with which bins.

    Where the numbers of some have been counted by TensorFlow's bins, all are.

    Raises:
        Refused: ``bad_record``, ``bad_bins`` or ``no_finite_values``.
    """
    attrs = records[0].attrs
    bins, max_bins = attrs.get("bins", TENSORFLOW), attrs.get("max_bins")
    found = [_counted(record) for record in records if "moments" in record.attrs]
    arrays = [array_of(record) for record in records if "moments" not in record.attrs]
    counted = [one for one in found if one.moments.num]  # without a finite number no bins were made
    if found and not counted and not arrays:
        size = sum(one.moments.size for one in found)
        raise Refused("no_finite_values", f"none of {size:,} numbers is finite")
    if not counted:
        result = histogram_of(arrays, bins, max_bins)
    elif all(isinstance(one, Distribution) for one in counted):
        whole = distribution_of(arrays)
        for one in counted:
            if isinstance(one, Distribution):
                whole.merge(one)
        result = _of_distribution(whole, max_bins)
    else:
        result = _of_bins(counted, arrays, max_bins)
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
    """One histogram as it was given: arrays ``limits`` and ``counts``, attributes ``min``, ``max``, ``num``, ``sum``
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
    """The histogram of an array's finite numbers, or of those of several together.

    Args:
        array: real numbers of any shape.
        bins: one of `BIN_RULES`, a number of bins, or a list of their edges.
        max_bins: None, or about how many bins at most; neighbours are added up.

    Raises:
        Refused: ``bad_record`` for complex numbers, ``no_finite_values``, ``bad_bins``.
    """
    arrays = [array] if isinstance(array, np.ndarray) else array
    wanted = _checked_bins(bins)
    if wanted == TENSORFLOW:
        return _of_distribution(distribution_of(arrays), max_bins)
    moments = moments_of(arrays)
    if not moments.num:
        raise Refused("no_finite_values", f"none of {moments.size:,} numbers is finite")
    try:
        counts, limits = numpy_counts(lambda: _blocks(arrays), wanted, moments)
    except BadBins as error:
        raise Refused("bad_bins", f"{error}") from error
    return _shown(counts, limits, moments, max_bins)


def distribution_of(arrays: Sequence[AnyArray]) -> Distribution:
    """The distribution of the numbers of several arrays together.

    Raises:
        Refused: ``bad_record`` for complex numbers.
    """
    result = Distribution()
    for array in arrays:
        check_real(array)
        result.add(_blocks([array]), array.dtype, array.size)
    return result


def moments_of(arrays: Sequence[AnyArray]) -> Moments:
    """What is known of the numbers of several arrays together, but for the zeros.

    Raises:
        Refused: ``bad_record`` for complex numbers.
    """
    for array in arrays:
        check_real(array)
    moments, scratch = Moments(), Scratch(min(BLOCK, sum(array.size for array in arrays)))
    with np.errstate(all="ignore"):
        for block in _blocks(arrays):
            moments.take(block, scratch)
    return moments


def _of_distribution(whole: Distribution, max_bins: object) -> Histogram:
    places, moments = whole.places, whole.moments
    _check_number(moments)
    if not moments.num:
        raise Refused("no_finite_values", f"none of {moments.size:,} numbers is finite")
    counts, limits = places[1:-1], tensorflow_edges()
    if not counts.any():  # all beyond the outermost edges: shown in two bins of their own, not refused
        counts, limits = _beyond(places, limits, moments)
    return _shown(counts, limits, moments, max_bins)


def _check_number(moments: Moments) -> None:
    """Refuse parts that claim more numbers together than int64 holds: their counts would be negative."""
    if moments.num > COUNT_MAX:
        raise Refused("bad_record", f"parts of one array that have {moments.num:,} numbers")


def _shown(counts: Counts, limits: Floats, moments: Moments, max_bins: object) -> Histogram:
    if max_bins is not None and not (type(max_bins) is int and max_bins > 0):
        raise Refused("bad_bins", f"max_bins is {max_bins!r:.40}")
    if max_bins is not None and len(counts) > max_bins:
        counts, limits = _merged(counts, limits, max_bins)
    counts, limits = _trimmed(counts, limits)
    return Histogram(counts, limits, moments)


# --- what the client has counted -------------------------------------------------------------------------------


@dataclass(slots=True)
class _Bins:
    """Counts of numbers in bins whose edges are ``limits``."""

    moments: Moments
    limits: Floats
    counts: Counts


def _counted(record: Record) -> Distribution | _Bins:
    """What a record has counted: attributes ``moments`` and ``arrays``.

    Raises:
        Refused: ``bad_record``.
    """
    moments = _moments(record.attrs["moments"])
    arrays = {name: array.reshape(-1) for name, array in arrays_of(record).items()}
    counts = arrays.get("counts", np.empty(0, np.uint64))
    if counts.dtype != np.uint64 or len(counts) > BINS_MAX or sum(counts.tolist()) > moments.num:
        raise Refused("bad_record", f"{len(counts)} counts of {counts.dtype}, of {moments.num} numbers")
    counts = counts.astype(np.int64)
    if arrays.keys() == {"places", "counts"}:
        result = Distribution()
        places = arrays["places"]
        if places.dtype != np.uint16 or len(places) != len(counts) or (places >= len(result.places)).any():
            raise Refused("bad_record", f"{len(places)} places of {places.dtype} for {len(counts)} counts")
        if int(counts.sum()) != moments.num:
            raise Refused("bad_record", f"counts of {counts.sum()} numbers, and there are {moments.num}")
        np.add.at(result.places, places, counts)
        result.moments = moments
        return result
    limits = arrays.get("limits", np.empty(0))
    is_ascending = limits.dtype == np.float64 and bool((limits[1:] >= limits[:-1]).all())
    if arrays.keys() != {"limits", "counts"} or len(limits) != len(counts) + 1 or not is_ascending:
        raise Refused("bad_record", f"{len(limits)} edges of {limits.dtype} for {len(counts)} counts")
    return _Bins(moments, limits, counts)


def _moments(described: object) -> Moments:
    result = Moments()
    if not isinstance(described, list) or len(described) != 9:
        raise Refused("bad_record", f"moments that are {described!r:.80}")
    *counts, result.min, result.max, sums, squares = described
    extremes = (result.min, result.max)
    if not all(type(count) is int and 0 <= count <= COUNT_MAX for count in counts) or not all(
        type(number) is float and not math.isnan(number) for number in extremes
    ):
        raise Refused("bad_record", f"moments that are {described!r:.80}")
    result.num, result.nan, result.negative_infinite, result.positive_infinite, result.zeros = counts
    if result.num and not -math.inf < result.min <= result.max < math.inf:
        raise Refused("bad_record", f"{result.num} finite numbers from {result.min} to {result.max}")
    for partials, mine in ((sums, result.sums), (squares, result.squares)):
        if not isinstance(partials, list) or len(partials) > PARTIAL_SUMS_MAX:
            raise Refused("bad_record", f"partial sums that are {partials!r:.80}")
        for number in partials:
            if type(number) is not float:
                raise Refused("bad_record", f"a partial sum that is {number!r:.40}")
            add_partial(mine, number)
    return result


def _of_bins(counted: Sequence[Distribution | _Bins], arrays: Sequence[AnyArray], max_bins: object) -> Histogram:
    """The histogram of parts that have been counted in the same bins.

    Raises:
        Refused: ``bad_bins``: in others, or not all of them were; ``no_finite_values``.
    """
    first = next(one for one in counted if isinstance(one, _Bins))
    whole = _Bins(Moments(), first.limits, np.zeros(len(first.counts), np.int64))
    for one in counted:
        if not isinstance(one, _Bins) or not np.array_equal(one.limits, first.limits):
            raise Refused("bad_bins", "parts of one array were counted in different bins")
        whole.moments.merge(one.moments)
        whole.counts += one.counts
    if arrays:
        moments = moments_of(arrays)
        counts, _ = numpy_counts(lambda: _blocks(arrays), tuple(first.limits.tolist()), moments)
        whole.moments.merge(moments)
        whole.counts += counts
    _check_number(whole.moments)
    if not whole.moments.num:
        raise Refused("no_finite_values", f"none of {whole.moments.size:,} numbers is finite")
    return _shown(whole.counts, whole.limits, whole.moments, max_bins)


# --- bins ------------------------------------------------------------------------------------------------------


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


def _blocks(arrays: Sequence[AnyArray]) -> Iterator[AnyArray]:
    for array in arrays:
        flat = array.reshape(-1)
        for first in range(0, len(flat), BLOCK):
            yield flat[first : first + BLOCK]


def _beyond(places: Counts, edges: Floats, moments: Moments) -> tuple[Counts, Floats]:
    """Counts and edges of numbers that all lie below or above the bins, with a bin from there to the outermost."""
    counts, limits = places[1:-1], edges
    if places[0]:
        counts, limits = np.append(places[0], counts), np.append(moments.min, limits)
    if places[-1]:
        counts, limits = np.append(counts, places[-1]), np.append(limits, moments.max)
    return counts, limits


# --- what TensorBoard gets of the bins -------------------------------------------------------------------------


def _merged(counts: Counts, limits: Floats, bins_max: int) -> tuple[Counts, Floats]:
    """Every so many neighbouring bins as one. As tensorboardX does it, there may be up to twice ``bins_max`` left."""
    every = len(counts) // bins_max
    firsts = np.arange(0, len(counts), every)
    return np.add.reduceat(counts, firsts), np.append(limits[firsts], limits[-1])


def _trimmed(counts: Counts, limits: Floats) -> tuple[Counts, Floats]:
    """Without the empty bins at both ends, and with upper limits only: an empty first bin has the lower one."""
    filled = np.flatnonzero(counts)
    if not len(filled):
        raise Refused("bad_bins", "no number is in any of the bins")
    first, last = int(filled[0]), int(filled[-1])
    return np.concatenate([[0], counts[first : last + 1]]), limits[first : last + 2]
