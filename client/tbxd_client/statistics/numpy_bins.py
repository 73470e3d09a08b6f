"""Bins as ``numpy.histogram`` makes them: a number of bins, their edges, or a rule that chooses a number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from ..protocol.limits import BINS_MAX
from .moments import Moments

STONE_VALUES_MAX = 1 << 15  # numpy's rule "stone" makes sqrt(n) histograms of all n numbers to choose one of them

Blocks = Callable[[], Iterable[Any]]  # gives the blocks of all numbers, from the first on


class BadBins(ValueError):
    """No such bins can be made of these numbers."""


def numpy_counts(blocks: Blocks, bins: str | int | tuple[float, ...], moments: Moments) -> tuple[Any, Any]:
    """Counts, int64 (B,), and edges, float64 (B + 1,), as ``numpy.histogram`` has them of the finite numbers.

    Args:
        blocks: the numbers.
        bins: a rule's name, a number, or edges that do not fall.
        moments: of all these numbers; at least one is finite.

    Raises:
        BadBins: no such bins can be made of these numbers, or there would be more than `BINS_MAX`.
    """
    import numpy as np

    span = (moments.min, moments.max)
    if not isinstance(bins, tuple) and not math.isfinite(span[1] - span[0]):
        raise BadBins(f"numbers from {span[0]:g} to {span[1]:g}, whose difference no float64 holds")
    with np.errstate(all="ignore"):  # a program may have numpy raise for what is rounded to 0 or to inf
        return _counts(blocks, _bins_by_rule(blocks, bins, span) if isinstance(bins, str) else bins, span)


def _counts(blocks: Blocks, bins: int | tuple[float, ...], span: tuple[float, float]) -> tuple[Any, Any]:
    import numpy as np

    edges: Any = bins if isinstance(bins, int) else np.array(bins, np.float64)
    try:
        limits = np.histogram_bin_edges(np.empty(0), edges, span)
        counts = np.zeros(len(limits) - 1, np.int64)
        for block in blocks():
            counts += np.histogram(_finite(block), edges, span)[0]
    except ValueError as error:  # numpy's: the numbers are too close together for so many bins
        raise BadBins(f"{error}") from error
    return counts, limits


def _finite(block: Any) -> Any:
    import numpy as np

    wide = block.astype(np.float64, copy=False)
    return wide[np.isfinite(wide)]


def _bins_by_rule(blocks: Blocks, rule: str, span: tuple[float, float]) -> int:
    """How many bins one of numpy's rules makes of the finite numbers, which are held all at once as float64.

    "stone" looks at no more than `STONE_VALUES_MAX` of them, evenly spread.
    """
    import numpy as np

    numbers = np.concatenate([_finite(block) for block in blocks()])
    if not len(numbers):  # another thread has changed them since their moments were taken
        raise BadBins("no number is finite any more")
    if rule in ("auto", "fd"):  # a few numbers far away can make billions of bins, which numpy would try to hold
        low, high = np.percentile(numbers, [25, 75])
        width = 2 * (high - low) / len(numbers) ** (1 / 3)
        if width > 0 and (span[1] - span[0]) / width > BINS_MAX:
            if rule == "fd":
                raise BadBins(f"rule 'fd' makes more than {BINS_MAX:,} bins of these numbers")
            return min(BINS_MAX, math.ceil(2 * math.sqrt(len(numbers))))  # as "auto" is bounded in numpy 2.3
    if rule == "stone" and len(numbers) > STONE_VALUES_MAX:
        numbers = numbers[:: math.ceil(len(numbers) / STONE_VALUES_MAX)]
    try:
        count = len(np.histogram_bin_edges(numbers, rule, span)) - 1
    except (ValueError, OverflowError, RuntimeWarning) as error:  # numpy's: no width can be made of them
        raise BadBins(f"rule {rule!r}: {error}") from error
    if count > BINS_MAX:
        raise BadBins(f"rule {rule!r} makes {count:,} bins of these numbers; at most {BINS_MAX:,}")
    return count
