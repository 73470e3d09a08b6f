"""Encodes points of several ranks as events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..encode.scalar_batcher import SMALL, TAGS_MAX, finite_times, float32
from ..tfevents.grouping import VALUES_MAX
from ..tfevents.scalar_columns import Piece, RowEncoder
from ..tfevents.scalar_encoder import ScalarEncoder
from .aggregate import Floats, Integers


@dataclass(slots=True)
class Curves:
    """Points for one event file, (K,) each, whose places are ``stretches`` and ``steps``. Those with one step and one
    ``mark``, which is that of a stretch, share an event where they follow each other; no tag comes twice in one."""

    tags: Sequence[str]
    stretches: Integers
    steps: Integers
    wall_times: Floats
    numbers: Floats
    marks: Sequence[str]

    def where(self, places: list[int]) -> Curves:
        """Return some of the points."""
        return Curves(
            [self.tags[place] for place in places],
            self.stretches[places],
            self.steps[places],
            self.wall_times[places],
            self.numbers[places],
            [self.marks[place] for place in places],
        )


class PointEncoder:
    """Makes the events of one file."""

    def __init__(self) -> None:
        self._encoder = ScalarEncoder()
        self._rows = RowEncoder()

    def events(self, curves: Curves) -> list[Piece]:
        """Return the framed events; an event has a mark if it differs from that of the one before."""
        count = len(curves.tags)
        if not count:
            return []
        begins = np.ones(count, np.bool_)
        begins[1:] = curves.steps[1:] != curves.steps[:-1]
        marks = curves.marks
        starts = []
        size = 0
        for index, begin in enumerate(begins.tolist()):
            if begin or marks[index] != marks[index - 1] or size >= VALUES_MAX:
                starts.append(index)
                size = 0
            size += 1
        said = {
            place: marks[start]
            for place, start in enumerate(starts)
            if not place or marks[start] != marks[starts[place - 1]]
        }
        wall_times = finite_times(curves.wall_times)
        numbers = float32(curves.numbers)
        if count <= SMALL:
            data = numbers.tobytes()
            return [
                self._encoder.event(
                    curves.tags[a:b],
                    int(curves.steps[a]),
                    float(wall_times[a]),
                    data[4 * a : 4 * b],
                    said.get(place, ""),
                )
                for place, (a, b) in enumerate(zip(starts, [*starts[1:], count], strict=True))
            ]
        if len(self._rows.tags) > TAGS_MAX:
            self._rows = RowEncoder()
        known = self._rows.tags
        tags = np.array([known.number(tag) for tag in curves.tags], np.int64)
        return self._rows.events(np.array(starts, np.int64), tags, curves.steps, wall_times, numbers, said)
