"""Who has logged how far: which groups are whole, and for whom is not waited any more. No I/O, clocks or threads.

A rank's steps grow, tag by tag. So a group is whole when every rank that is expected has logged its tag at its step or
behind it: the least of their last steps is the tag's *floor*, and whatever stands at or before it can go out, in the
order of the steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.records import STEP_MAX, STEP_MIN

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

CELLS_MAX = 1 << 24  # tags times ranks: what is known of each takes 30 bytes


class TooManyTags(Exception):
    """There is no room to follow another tag of so many ranks."""


class Frontier:
    """The tags of a run by number, and the ranks 0 to ``world`` - 1.

    ``seen``: which ranks have ever logged a tag; ``expected``: those of them that are waited for; ``latest``: the last
    step of each, (tags, world) all three. ``emitted``: the last step of a tag that has gone out; ``ranks``: how many
    have ever logged it, (tags,) both. Arrays may be longer than there are tags.
    """

    def __init__(self, world: int) -> None:
        self.world = world
        self.count = 0
        self.seen = np.zeros((0, world), np.bool_)
        self.expected = np.zeros((0, world), np.bool_)
        self.latest = np.zeros((0, world), np.int64)
        self.emitted = np.zeros(0, np.int64)
        self.ranks = np.zeros(0, np.int64)
        # A rank that logs a step anew, or an earlier one, begins a stretch of the tag: which one goes out, and of each
        # rank in which it is, and at what step.
        self.stretch = np.zeros(0, np.int64)
        self.own = np.zeros((0, world), np.int64)
        self.last = np.zeros((0, world), np.int64)
        self.repeats = np.zeros((0, world), np.int32)  # of these stretches, the last ones that began with the same step
        self.left = np.zeros(world, np.bool_)  # ranks of which nothing more comes
        self._gone = 0  # how many these are

    def add(self) -> int:
        """The number of a new tag.

        Raises:
            TooManyTags: there are too many.
        """
        if (self.count + 1) * self.world > CELLS_MAX:
            raise TooManyTags
        if self.count == len(self.emitted):
            size = max(16, 2 * self.count)
            self.seen, self.expected = _grown(self.seen, size, False), _grown(self.expected, size, False)
            self.latest = _grown(self.latest, size, STEP_MIN)
            self.stretch, self.own = _grown(self.stretch, size, 0), _grown(self.own, size, 0)
            self.last = _grown(self.last, size, STEP_MIN)
            self.repeats = _grown(self.repeats, size, 0)
            self.emitted = _grown(self.emitted, size, STEP_MIN)
            self.ranks = _grown(self.ranks, size, 0)
        self.count += 1
        return self.count - 1

    def join(self, tag: int, rank: int) -> int:
        """A rank logs a tag; returns how many do."""
        if not self.seen[tag, rank]:
            self.seen[tag, rank] = True
            self.ranks[tag] += 1
        return int(self.ranks[tag])

    def is_whole(self, tag: int) -> bool:
        """Whether every rank has logged a tag or never will."""
        if self.ranks[tag] == self.world:
            return True
        return self.ranks[tag] + self._gone >= self.world and bool((self.seen[tag] | self.left).all())

    def note(self, tags: Integers, rank: int, steps: Integers) -> None:
        """A rank has logged some tags at some steps, in time: it is waited for from now on."""
        column = self.latest[:, rank]
        np.maximum.at(column, tags, steps)
        self.expected[tags, rank] = not self.left[rank]

    def follow(self, tags: Integers, rank: int, steps: Integers) -> Integers:
        """In which stretch of its tag each of a rank's records is, (N,); ``tags`` and ``steps`` in its order, (N,)."""
        order = np.argsort(tags, kind="stable")
        sorted_tags, sorted_steps = tags[order], steps[order]
        if self.repeats[tags, rank].any():
            return self._follow_one_by_one(tags, rank, steps)
        first = np.append(True, sorted_tags[1:] != sorted_tags[:-1])
        before = np.append(STEP_MIN, sorted_steps[:-1])
        before[first] = self.last[sorted_tags[first], rank]
        back = sorted_steps <= before
        back[first & (before == STEP_MIN)] = False
        if (sorted_steps[back] == before[back]).any():
            return self._follow_one_by_one(tags, rank, steps)
        begun = np.cumsum(back)
        starts = np.flatnonzero(first)
        counts = np.diff(starts, append=len(tags))
        base = begun[starts] - back[starts] - self.own[sorted_tags[starts], rank]
        stretches = np.empty(len(tags), np.int64)
        stretches[order] = begun - np.repeat(base, counts)
        ends = starts + counts - 1
        self.last[sorted_tags[ends], rank] = sorted_steps[ends]
        self.own[sorted_tags[ends], rank] = (begun[ends] - base).astype(np.int64)
        return stretches

    def _follow_one_by_one(self, tags: Integers, rank: int, steps: Integers) -> Integers:
        """The same where a step is repeated: a later one that follows shows that it was no stretch of its own."""
        own, last, repeats = self.own[:, rank], self.last[:, rank], self.repeats[:, rank]
        stretches = np.empty(len(tags), np.int64)
        for index, (tag, step) in enumerate(zip(tags.tolist(), steps.tolist(), strict=True)):
            if last[tag] == STEP_MIN:
                pass
            elif step == last[tag]:
                own[tag] += 1
                repeats[tag] += 1
            elif step < last[tag]:
                own[tag] += 1
                repeats[tag] = 0
            else:
                if repeats[tag] and own[tag] - repeats[tag] >= self.stretch[tag]:
                    own[tag] -= repeats[tag]
                    earlier = stretches[:index]
                    earlier[(tags[:index] == tag) & (earlier > own[tag])] = own[tag]
                repeats[tag] = 0
            last[tag] = step
            stretches[index] = own[tag]
        return stretches

    def go_beyond(self, tags: Iterable[int]) -> None:
        """Wait for no more in the stretch of these tags that goes out of ranks that have come to a later one. Where
        one has repeated a step, it is waited for until it shows whether the others do so as well."""
        for tag in tags:
            ahead = self.own[tag] > self.stretch[tag]
            waited = self.expected[tag] & ~self.left
            beyond = ahead if bool((ahead | ~waited).all()) else ahead & (self.repeats[tag] == 0)
            self.latest[tag, beyond] = STEP_MAX
            self.expected[tag, beyond] = ~self.left[beyond]

    def advance(self, tag: int) -> None:
        """The next stretch of a tag begins to go out. Ranks that have not come to it are taken to be in it."""
        stretch = self.stretch[tag] = self.stretch[tag] + 1
        behind = self.own[tag] < stretch
        self.own[tag, behind] = stretch
        self.last[tag, behind] = STEP_MIN
        self.repeats[tag] = np.minimum(self.repeats[tag], self.own[tag] - stretch)
        self.latest[tag] = STEP_MIN
        self.expected[tag] = ~behind & self.seen[tag] & ~self.left
        self.emitted[tag] = STEP_MIN

    def leave(self, rank: int) -> None:
        """Nothing more comes of a rank than what has come or is on the way here."""
        self._gone += not self.left[rank]
        self.left[rank] = True
        self.expected[:, rank] = False

    def come_back(self, rank: int) -> None:
        """More comes of a rank."""
        self._gone -= bool(self.left[rank])
        self.left[rank] = False

    def floors(self) -> Integers:
        """Up to which step each tag is whole, (tags,)."""
        known = slice(0, self.count)
        waited = np.where(self.expected[known], self.latest[known], STEP_MAX)
        floors: Integers = waited.min(axis=1)
        return floors

    def pass_over(self, tags: Integers, steps: Integers, ranks: Mask | None = None) -> int:
        """Wait no more for ranks that have not come to these steps of these tags; they are expected again when they
        have caught up. Returns how many that are, counted once for each tag.

        Args:
            tags: (N,), each once.
            steps: (N,).
            ranks: (world,) those it is about; None for all.
        """
        behind: Mask = self.expected[tags] & (self.latest[tags] < steps[:, None])
        if ranks is not None:
            behind &= ranks
        self.expected[tags] &= ~behind
        return int(behind.sum())


def _grown(array: npt.NDArray[Any], size: int, fill: object) -> npt.NDArray[Any]:
    grown = np.full((size, *array.shape[1:]), fill, array.dtype)
    grown[: len(array)] = array
    return grown
