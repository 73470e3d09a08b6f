"""Number, sum, sum of squares, extremes and odd values of numbers that come block by block.

Sums are kept as partial sums without a common bit (J. R. Shewchuk, "Adaptive Precision Floating-Point Arithmetic and
Fast Robust Geometric Predicates", 1997), so that nothing is rounded when sums are added up: the same blocks give the
same sum in whatever grouping and order they are merged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

BLOCK = 1 << 17  # numbers at a time: 1 MiB as float64, which stays in a processor's cache


class Scratch:
    """Memory for what is computed of one block after the other, of at most ``size`` numbers each."""

    __slots__ = ("squares", "wide")

    def __init__(self, size: int) -> None:
        import numpy as np

        self.wide = np.empty(size, np.float64)
        self.squares = np.empty(size, np.float64)


class Moments:
    """What is known of numbers beside their bins.

    Attributes:
        num: how many of them are finite.
        nan, negative_infinite, positive_infinite: how many are not.
        zeros: how many are zero.
        min, max: of the finite ones; inf and -inf where there are none.
        sums, squares: partial sums of the finite ones and of their squares.
    """

    __slots__ = ("max", "min", "nan", "negative_infinite", "num", "positive_infinite", "squares", "sums", "zeros")

    def __init__(self) -> None:
        self.num = self.nan = self.negative_infinite = self.positive_infinite = self.zeros = 0
        self.min, self.max = math.inf, -math.inf
        self.sums: list[float] = []
        self.squares: list[float] = []

    @property
    def left_out(self) -> int:
        """How many numbers are not finite."""
        return self.nan + self.negative_infinite + self.positive_infinite

    @property
    def size(self) -> int:
        """How many numbers there are in all."""
        return self.num + self.left_out

    @property
    def sum(self) -> float:
        """The sum of the finite numbers; infinite where float64 ends."""
        return total(self.sums)

    @property
    def sum_squares(self) -> float:
        """The sum of the finite numbers' squares; infinite where float64 ends."""
        return total(self.squares)

    def take(self, block: Any, scratch: Scratch) -> Any:
        """Account for a block; returns its finite numbers, float32 as they are, others as float64.

        Zeros are not counted: whoever counts bins knows where there are any.

        Args:
            block: an array of real numbers, (N,), no more of them than the scratch holds. The numbers that are returned
                may be in the scratch, and are then gone with the next block.
            scratch: memory for a block.
        """
        import numpy as np

        wide = scratch.wide[: len(block)]
        wide[:] = block
        numbers = block if block.dtype == np.float32 else wide
        whole = float(wide.sum())
        if not math.isfinite(whole):  # something is not finite, or only the sum is not
            numbers, wide = self._leave_out(numbers, wide)
            whole = float(wide.sum())
        if len(numbers):
            self.num += len(numbers)
            low, high = float(numbers.min()), float(numbers.max())
            if not -math.inf < low <= high < math.inf:  # another thread has changed the block: the copy has not changed
                low, high = float(wide.min()), float(wide.max())
            self.min, self.max = min(self.min, low), max(self.max, high)
            add_partial(self.sums, whole)
            # Not a dot product: BLAS starts a thread for each core and has them spin for 100 ms after it.
            add_partial(self.squares, float(np.square(wide, out=scratch.squares[: len(wide)]).sum()))
        return numbers

    def _leave_out(self, numbers: Any, wide: Any) -> tuple[Any, Any]:
        import numpy as np

        finite = np.isfinite(wide)
        odd = wide[~finite]
        nan = int(np.count_nonzero(np.isnan(odd)))
        below = int(np.count_nonzero(odd < 0))
        self.nan += nan
        self.negative_infinite += below
        self.positive_infinite += len(odd) - nan - below
        return numbers[finite], wide[finite]

    def merge(self, other: Moments) -> None:
        """Take what is known of other numbers."""
        self.num += other.num
        self.nan += other.nan
        self.negative_infinite += other.negative_infinite
        self.positive_infinite += other.positive_infinite
        self.zeros += other.zeros
        self.min, self.max = min(self.min, other.min), max(self.max, other.max)
        for one in other.sums:
            add_partial(self.sums, one)
        for one in other.squares:
            add_partial(self.squares, one)


def add_partial(partials: list[float], number: float) -> None:
    """Add a number to a sum that is kept as partial sums, so that nothing is rounded.

    Where a sum has left float64, all that stays is the one number that it is then.
    """
    index = 0
    for one in partials:
        high, low = (number, one) if abs(number) >= abs(one) else (one, number)
        number = high + low
        rest = low - (number - high)
        if not math.isfinite(number):
            partials[:] = [number]
            return
        if rest:
            partials[index] = rest
            index += 1
    partials[index:] = [number] if number or not index else []


def total(parts: Iterable[float]) -> float:
    """Their sum, rounded once; infinite, or NaN, where float64 ends."""
    some = list(parts)
    try:
        return math.fsum(some)
    except (OverflowError, ValueError):  # beyond float64, or infinities of both signs
        result = 0.0
        for one in some:
            result += one
        return result
