"""Aggregates the points of several ranks: pure arithmetic on arrays.

A *group* is the values of the ranks at one tag, in one stretch of it (see `watermarks`) and at one step. Sums are
those of `math.fsum`: rounded once, so they are the same in whatever order the values come; counts and extremes are so
anyway.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.distributed.rank_policy import LAST, MAX, MEAN, MIN, PERCENTILES, SUM

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

WORDS = (MEAN, SUM, MIN, MAX, LAST, *PERCENTILES)


@dataclass(slots=True)
class Points:
    """The values of ranks, (N,) each; ``tags`` are numbers, ``arrivals`` seconds of a monotonic clock."""

    tags: Integers
    stretches: Integers
    steps: Integers
    ranks: Integers
    values: Floats
    wall_times: Floats
    arrivals: Floats

    def __len__(self) -> int:
        return len(self.tags)

    def where(self, which: npt.NDArray[Any]) -> Points:
        """Return some of the points, by a mask or by places."""
        return Points(
            self.tags[which],
            self.stretches[which],
            self.steps[which],
            self.ranks[which],
            self.values[which],
            self.wall_times[which],
            self.arrivals[which],
        )


def joined(parts: list[Points]) -> Points:
    """Concatenate points."""
    if len(parts) == 1:
        return parts[0]
    names = ("tags", "stretches", "steps", "ranks", "values", "wall_times", "arrivals")
    kinds = (np.int64, np.int64, np.int64, np.int64, np.float64, np.float64, np.float64)
    return Points(
        *(
            np.concatenate([getattr(part, name) for part in parts]) if parts else np.zeros(0, kind)
            for name, kind in zip(names, kinds, strict=True)
        )
    )


@dataclass(slots=True)
class Groups:
    """Groups in the order of tags and places, (K,) each, over points in the order of group and rank, (N,).

    ``starts``: where each begins; ``counts``: how many ranks are in it; ``mean``, ``std`` (of all there are, as
    numpy's), ``min``, ``max``: of their values; ``lowest``, ``highest``: which rank has these, the first where several
    do. Numbers that are NaN make mean and std NaN, are passed over by the extremes, and their rank is the highest.
    """

    points: Points
    starts: Integers
    counts: Integers
    tags: Integers
    stretches: Integers
    steps: Integers
    wall_times: Floats
    sum: Floats
    mean: Floats
    std: Floats
    min: Floats
    max: Floats
    lowest: Integers
    highest: Integers

    def __len__(self) -> int:
        return len(self.starts)

    def values_of(self, group: int) -> Floats:
        """Return the values of a group, in the order of the ranks."""
        begin = int(self.starts[group])
        return self.points.values[begin : begin + int(self.counts[group])]

    def ranks_of(self, group: int) -> list[int]:
        """Return the ranks of a group, ascending."""
        begin = int(self.starts[group])
        ranks: list[int] = self.points.ranks[begin : begin + int(self.counts[group])].tolist()
        return ranks

    def reduced(self, group: int, word: str) -> float:
        """Reduce a group to one number.

        Args:
            group: which.
            word: one of `WORDS`; ``last`` is what was logged last, by wall time.
        """
        if word in PERCENTILES:
            return _percentile(self.values_of(group), PERCENTILES[word])
        if word == LAST:
            begin = int(self.starts[group])
            times = self.points.wall_times[begin : begin + int(self.counts[group])]
            return float(self.values_of(group)[len(times) - 1 - int(np.argmax(times[::-1]))])
        chosen: Floats = {MEAN: self.mean, SUM: self.sum, MIN: self.min, MAX: self.max}[word]
        return float(chosen[group])


def grouped(points: Points) -> Groups:
    """Group points. If a rank has logged one place of a tag several times, its last value counts.

    Args:
        points: at least one, those of a rank in its order.
    """
    # Stable: a rank's later point comes later.
    points = points.where(np.lexsort((points.ranks, points.steps, points.stretches, points.tags)))
    same = _same(points)
    again = same & (points.ranks[1:] == points.ranks[:-1])
    if again.any():
        keep = np.append(~again, True)
        points = points.where(keep)
        same = _same(points)
    starts = np.flatnonzero(np.append(True, ~same))
    counts = np.diff(starts, append=len(points))
    values = points.values
    with np.errstate(all="ignore"):
        low, high = np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)
        whose = np.repeat(np.arange(len(starts)), counts)
        lowest = _first(values == low[whose], whose, starts, points.ranks)
        nan = np.isnan(values)
        highest = _first(values == high[whose], whose, starts, points.ranks)
        if nan.any():
            highest = _first(nan, whose, starts, points.ranks, highest)
        numbers = values.tolist()
        edges = list(pairwise([*starts.tolist(), len(numbers)]))
        sums = np.array([_sum(numbers[a:b]) for a, b in edges])
        mean = sums / counts
        squares = np.square(values - mean[whose]).tolist()
        std = np.sqrt(np.array([_sum(squares[a:b]) for a, b in edges]) / counts)
    return Groups(
        points,
        starts,
        counts,
        points.tags[starts],
        points.stretches[starts],
        points.steps[starts],
        np.fmax.reduceat(points.wall_times, starts),
        sums,
        mean,
        std,
        low,
        high,
        lowest,
        highest,
    )


def _same(points: Points) -> npt.NDArray[np.bool_]:
    """Return a mask of the points, but the first, with the place of the one before, (N - 1,)."""
    same: npt.NDArray[np.bool_] = points.tags[1:] == points.tags[:-1]
    same &= points.stretches[1:] == points.stretches[:-1]
    same &= points.steps[1:] == points.steps[:-1]
    return same


def _percentile(values: Floats, percent: float) -> float:
    """As `np.percentile`, also next to infinity: a value between a number and infinity is infinite."""
    with np.errstate(all="ignore"):
        result = float(np.percentile(values, percent))
    if not math.isnan(result) or np.isnan(values).any():
        return result
    ordered = np.sort(values).tolist()
    place = (len(ordered) - 1) * percent / 100
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return float(low if low == high else low + high)  # of both signs: NaN


def _first(
    which: npt.NDArray[np.bool_], whose: Integers, starts: Integers, ranks: Integers, otherwise: Integers | None = None
) -> Integers:
    """Return the rank of the first point in ``which`` of each group."""
    result = ranks[starts] if otherwise is None else otherwise
    places = np.flatnonzero(which)[::-1]  # the first is stored last
    result[whose[places]] = ranks[places]
    return result


def _sum(numbers: list[float]) -> float:
    if len(numbers) == 1:
        return numbers[0]
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):  # beyond float64, or infinities of both signs
        with np.errstate(all="ignore"):
            return float(np.sum(numbers))
