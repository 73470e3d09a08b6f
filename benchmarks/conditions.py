"""The two conditions in which a single call is measured: in a loop, and after a pause.

In a loop the code and the data of a call are in the processor's caches, as where a floor is measured; after a pause,
in which training would compute, they are not, and the same call takes several times as long. Both are true.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PAUSE_SECONDS = 0.05  # stands for the training between two calls
BURSTS = 6  # loops, the first of which is not counted: it makes the memory that the others use again
LOOP_NOTES = (
    "In a loop: calls in a row with nothing in between. The first one does not count; the figure is the time of the "
    f"others, divided by their number. {BURSTS - 1} loops with flush() in between, after one that does not count"
)
PAUSE_NOTES = (
    f"After a pause: flush() and {PAUSE_SECONDS * 1000:g} ms between calls, neither of them timed, as in training, so "
    "that code and data have left the processor's caches; the median"
)


@dataclass(frozen=True, slots=True)
class Loop:
    """Calls in a row: the mean of what one takes, and the median, in seconds. A call that waits for a queue counts."""

    mean: float
    median: float


def copying(values: Any, places: int) -> Callable[[], object]:
    """A bare copy of an array: to the next of ``places`` that have been written before, as a journal has them.

    The same place each time would be in the processor's caches, where no record that is kept can be.
    """
    import numpy as np

    kept = itertools.cycle([values.copy() for _ in range(places)])
    return lambda: np.copyto(next(kept), values)


def timed(call: Callable[[], object], calls: int, after: Callable[[], None] = lambda: None) -> list[float]:
    """Seconds of each call; ``after`` and a pause come in between and are not timed."""
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
        after()
        time.sleep(PAUSE_SECONDS)
    return seconds


def looped(call: Callable[[], object], calls: int, after: Callable[[], None] = lambda: None) -> Loop:
    """What a call takes of ``calls`` in a row, `BURSTS` times; ``after`` comes after each of these.

    `loop_calls` are made in all.
    """
    seconds: list[float] = []
    clock = time.perf_counter
    for burst in range(BURSTS):
        call()
        for _ in range(calls):
            start = clock()
            call()
            if burst:
                seconds.append(clock() - start)
        after()
    return Loop(statistics.mean(seconds), statistics.median(seconds))


def loop_calls(calls: int) -> int:
    """How many calls `looped` makes."""
    return BURSTS * (calls + 1)
