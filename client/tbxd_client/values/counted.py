"""A histogram whose numbers are counted in the call: arrays and attribute of its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config.settings import warn
from ..statistics.distribution import Distribution
from ..statistics.moments import BLOCK, Moments, Scratch
from ..statistics.numpy_bins import BadBins, numpy_counts
from .arrays import Array
from .numbers import Numbers

TENSORFLOW = "tensorflow"
RULE_NUMBERS_MAX = 1 << 23  # a rule has to see all numbers at once, as float64: 64 MiB, and some copies


def counted(
    numbers: Numbers, bins: str | int | list[float], merges: bool, what: str
) -> tuple[Mapping[str, Array], Moments] | None:
    """Count numbers, as the daemon would; None where they have to be copied for the daemon.

    So it is where they cannot be read block by block, and where a rule would take much memory to choose bins of them.

    Args:
        numbers: they are read once for TensorFlow's bins and for those whose edges are given, else two or three times.
        bins: see `media.histogram_attrs`.
        merges: what several ranks hold becomes one histogram: bins that depend on the numbers of all ranks cannot be
            chosen here, and are TensorFlow's instead, which is said once.
        what: names the histogram in messages.

    Raises:
        TypeError, ValueError: see `Numbers.blocks`.
    """
    import numpy as np

    if merges and not isinstance(bins, list) and bins != TENSORFLOW:
        warn(
            f"{what}: bins={bins!r} of a large array that several ranks share are those of TensorFlow; give their "
            "edges, or fewer numbers",
            once="large bins",
        )
        bins = TENSORFLOW
    if bins == TENSORFLOW:
        found = numbers.blocks()
        if found is None:
            return None
        whole = Distribution()
        whole.add(*found)
        places = np.flatnonzero(whole.places)
        arrays = {"places": places.astype("<u2"), "counts": whole.places[places].astype("<u8")}
        moments = whole.moments
    elif (isinstance(bins, str) and numbers.count > RULE_NUMBERS_MAX) or numbers.blocks() is None:
        return None
    else:
        moments = Moments()
        scratch = Scratch(min(BLOCK, numbers.count))
        with np.errstate(all="ignore"):
            for block in _parts(numbers):
                moments.take(block, scratch)
        counts, limits = np.empty(0, np.int64), np.zeros(1)
        try:
            if moments.num:
                wanted = tuple(bins) if isinstance(bins, list) else bins
                counts, limits = numpy_counts(lambda: _parts(numbers), wanted, moments)
                # More only where another thread has changed the array between two looks: the daemon would refuse that.
                moments.num = max(moments.num, int(counts.sum()))
        except BadBins:
            pass  # without bins the daemon counts it as dropped, as it does what it cannot make bins of itself
        arrays = {"limits": limits.astype("<f8"), "counts": counts.astype("<u8")}
    return {name: _array(one) for name, one in arrays.items()}, moments


def _parts(numbers: Numbers) -> Any:
    """Blocks of a dtype that numpy has."""
    import numpy as np

    found = numbers.blocks()
    assert found is not None
    blocks, dtype, _ = found
    for block in blocks:
        yield (block.astype(np.uint32) << 16).view(np.float32) if isinstance(dtype, str) else block


def _array(array: Any) -> Array:
    return Array(array.dtype.str, array.shape, array.tobytes())


def described(moments: Moments) -> list[Any]:
    """Return them as the attribute ``moments`` of a record."""
    return [
        *(moments.num, moments.nan, moments.negative_infinite, moments.positive_infinite, moments.zeros),
        *(moments.min, moments.max, moments.sums, moments.squares),
    ]
