"""A cache of the values of events with many tags, in the order last seen, so that they need not be parsed again: a loop
that logs the same tags in each step writes the same bytes except for the numbers, wherever events begin.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

BYTES_MAX = 4 << 20  # then it begins anew
NUMBER_BYTES = 4
NAME_BYTES_MAX = 0x7F  # of a tag that is looked for: its length is one byte


class Tape:
    """Values of summaries, with the places of their tags."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._bytes = bytearray()
        self._same = bytearray()  # 255 where a byte is always the same, 0 where a number stands
        self._ends = array("q")  # of each value
        self._places = array("q")
        self._firsts: dict[bytes, int] = {}  # a tag to its last value

    def find(self, data: bytes, begin: int, end: int) -> npt.NDArray[np.int64] | None:
        """Return the places, (N,), of the tags of a summary ``data[begin:end]``; None if not on the tape as a whole."""
        name = data[begin + 3]
        first = self._firsts.get(data[begin + 4 : begin + 4 + name]) if name <= NAME_BYTES_MAX else None
        if first is None:
            return None
        at = self._ends[first - 1] if first else 0
        stop = at + end - begin
        if stop > len(self._bytes):
            return None
        differs = np.frombuffer(data, np.uint8, end - begin, begin) ^ np.frombuffer(self._bytes, np.uint8)[at:stop]
        differs &= np.frombuffer(self._same, np.uint8)[at:stop]
        last = bisect_left(self._ends, stop, first)
        if np.count_nonzero(differs) or self._ends[last] != stop:
            return None
        return np.array(self._places[first : last + 1], np.int64)

    def add(self, data: bytes, begin: int, tags: Sequence[bytes], ends: Sequence[int], places: Sequence[int]) -> None:
        """Add the values of a summary that begins at ``begin``; ``ends`` are the ends of the values."""
        if len(self._bytes) > BYTES_MAX:
            self._begin()
        shift, first = len(self._bytes) - begin, len(self._ends)
        self._bytes += data[begin : ends[-1]]
        same: npt.NDArray[Any] = np.full(ends[-1] - begin, 0xFF, np.uint8)
        same[(np.array(ends) - begin)[:, None] - np.arange(1, NUMBER_BYTES + 1)] = 0
        self._same += same.tobytes()
        self._ends.extend([end + shift for end in ends])
        self._places.extend(places)
        self._firsts.update(zip(tags, range(first, first + len(tags)), strict=True))
