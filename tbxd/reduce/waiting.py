"""Waiting numbers and histograms of ranks, until every rank has reached their place or is given up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..batch import Batch, Single
from .aggregate import Integers, Points, joined
from .pending import Shared
from .watermarks import Frontier, not_beyond

PENDING_STEPS_MAX = 1000  # of a tag that wait for a rank of which nothing comes: the oldest of more go out without it

Key = tuple[int, int, int]  # a tag, a stretch and a step
Parts = dict[int, tuple[Batch, Single, Shared]]  # of a histogram, by rank
Overdue = dict[int, tuple[int, int]]  # tags, and the place up to which nobody is waited for


class Waiting:
    """The received values of the tags of a frontier that are not written yet."""

    def __init__(self, frontier: Frontier) -> None:
        self._frontier = frontier
        self._points: list[Points] = []
        self._histograms: dict[Key, Parts] = {}
        self._arrivals: dict[Key, float] = {}

    def __len__(self) -> int:
        """Return the number of scalar values and histograms."""
        return sum(map(len, self._points)) + len(self._histograms)

    def add(self, points: Points) -> None:
        """Take numbers of one rank."""
        self._points.append(points)

    def add_histogram(self, key: Key, rank: int, batch: Batch, item: Single, part: Shared, now: float) -> None:
        """Take a histogram of one rank."""
        self._arrivals.setdefault(key, now)
        self._histograms.setdefault(key, {})[rank] = (batch, item, part)

    def take_back(self, rank: int) -> None:
        """Undo stretches that have turned out to be a step that a rank has logged twice."""
        own = self._frontier.own[:, rank]
        for points in self._points:
            back = (points.ranks == rank) & (points.stretches > own[points.tags])
            points.stretches[back] = own[points.tags[back]]
        for key in [key for key, parts in self._histograms.items() if rank in parts and key[1] > own[key[0]]]:
            parts, tag = self._histograms[key], key[0]
            part, arrival = parts.pop(rank), self._arrivals[key]
            if not parts:
                del self._histograms[key], self._arrivals[key]
            self.add_histogram((tag, int(own[tag]), key[2]), rank, *part, arrival)

    # --- what goes out ---------------------------------------------------------------------------------------

    def whole(self, stretches: Integers, steps: Integers) -> Points | None:
        """Remove and return the numbers up to these places of their tags, (tags,) both; None if there are none."""
        if not self._points:
            return None
        points = joined(self._points)
        out = not_beyond(points.stretches, points.steps, stretches[points.tags], steps[points.tags])
        self._points = [points]
        if not out.any():
            return None
        rest = points.where(~out)
        self._points = [rest] if len(rest) else []
        return points.where(out)

    def whole_histograms(self, stretches: Integers, steps: Integers) -> Iterator[tuple[Key, Parts]]:
        """Remove and yield the histograms up to these places, in order."""
        out = [key for key in self._histograms if key[1:] <= (stretches[key[0]], steps[key[0]])]
        for key in sorted(out):
            del self._arrivals[key]
            yield key, self._histograms.pop(key)

    # --- how long it has waited ------------------------------------------------------------------------------

    def since(self) -> float | None:
        """The arrival of the oldest value; None if nothing waits."""
        times = [float(points.arrivals.min()) for points in self._points if len(points)]
        return min([*times, *self._arrivals.values()], default=None)

    def overdue(self, then: float) -> Overdue:
        """Return the last places, by tag, of values that arrived at a time or before."""
        found: Overdue = {}
        for points in self._points:
            old = points.arrivals <= then
            if old.any():
                places = zip(
                    points.tags[old].tolist(), points.stretches[old].tolist(), points.steps[old].tolist(), strict=True
                )
                for tag, stretch, step in set(places):
                    found[tag] = max((stretch, step), found.get(tag, (stretch, step)))
        for (tag, *place), arrival in self._arrivals.items():
            if arrival <= then:
                found[tag] = max((place[0], place[1]), found.get(tag, (place[0], place[1])))
        return found

    def too_many(self) -> Overdue:
        """Return the places that stop waiting, of tags with too many waiting places."""
        if sum(map(len, self._points)) <= PENDING_STEPS_MAX:
            return {}
        points = joined(self._points)
        self._points = [points]
        stretches, steps = self._frontier.floors()
        waits = ~not_beyond(points.stretches, points.steps, stretches[points.tags], steps[points.tags])
        points = points.where(waits)
        found: Overdue = {}
        for tag in np.flatnonzero(np.bincount(points.tags) > PENDING_STEPS_MAX).tolist():
            mine = points.tags == tag
            places = sorted(set(zip(points.stretches[mine].tolist(), points.steps[mine].tolist(), strict=True)))
            if len(places) > PENDING_STEPS_MAX:
                found[tag] = places[-PENDING_STEPS_MAX - 1]
        return found
