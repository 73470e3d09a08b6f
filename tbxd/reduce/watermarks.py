"""Watermarks: the place of each rank in each tag, and so the groups that are whole. No I/O, clocks or threads.

A rank's steps grow, tag by tag, or it goes back: then a *stretch* of the tag begins for it. So what a rank logs with a
tag has a place, its stretch and its step, and places grow. A group is whole when every rank that is expected has come
to its place or beyond it: the least of their places is the tag's *floor*, and whatever stands at or before it can go
out, in the order of the places.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.protocol.records import STEP_MAX, STEP_MIN

Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

CELLS_MAX = 1 << 24  # tags times ranks: what is known of each takes 22 bytes
STRETCH_MAX = np.iinfo(np.int64).max  # beyond all that there are


class TooManyTags(Exception):
    """There is no room to follow another tag of so many ranks."""


class Frontier:
    """The tags of a run by number, and the ranks 0 to ``world`` - 1.

    ``seen``: which ranks have ever logged a tag; ``expected``: those of them that are waited for; ``own``, ``last``:
    the place of each, its stretch and its step (`STEP_MIN`: nothing of that stretch yet); ``repeats``: of its
    stretches, the last ones that began with the same step; (tags, world) all five. ``stretch``, ``emitted``: the last
    place of a tag that has gone out; ``ranks``: how many have ever logged it; (tags,) all three. ``left``: ranks of
    which nothing more comes; ``paused``: those of which nothing more comes before the others have come as far; (world,)
    both. Arrays may be longer than there are tags.
    """

    def __init__(self, world: int) -> None:
        self.world = world
        self.count = 0
        self.seen = np.zeros((0, world), np.bool_)
        self.expected = np.zeros((0, world), np.bool_)
        self.own = np.zeros((0, world), np.int64)
        self.last = np.zeros((0, world), np.int64)
        self.repeats = np.zeros((0, world), np.int32)
        self.stretch = np.zeros(0, np.int64)
        self.emitted = np.zeros(0, np.int64)
        self.ranks = np.zeros(0, np.int64)
        self.left = np.zeros(world, np.bool_)
        self.paused = np.zeros(world, np.bool_)
        self._gone = 0  # how many have left

    def add(self) -> int:
        """Return the number of a new tag.

        Raises:
            TooManyTags: there are too many.
        """
        if (self.count + 1) * self.world > CELLS_MAX:
            raise TooManyTags
        if self.count == len(self.emitted):
            size = max(16, 2 * self.count)
            self.seen, self.expected = _grown(self.seen, size, False), _grown(self.expected, size, False)
            self.own, self.last = _grown(self.own, size, 0), _grown(self.last, size, STEP_MIN)
            self.repeats = _grown(self.repeats, size, 0)
            self.stretch, self.emitted = _grown(self.stretch, size, 0), _grown(self.emitted, size, STEP_MIN)
            self.ranks = _grown(self.ranks, size, 0)
        self.count += 1
        return self.count - 1

    def join(self, tag: int, rank: int) -> int:
        """Note that a rank logs a tag; return the number of ranks that do."""
        if not self.seen[tag, rank]:
            self.seen[tag, rank] = True
            self.ranks[tag] += 1
        return int(self.ranks[tag])

    def is_whole(self, tag: int) -> bool:
        """Return True if every rank has logged a tag or never will."""
        if self.ranks[tag] == self.world:
            return True
        return self.ranks[tag] + self._gone >= self.world and bool((self.seen[tag] | self.left).all())

    def note(self, tags: Integers, rank: int) -> None:
        """Note that a rank has logged these tags in time: it is expected from now on."""
        self.expected[tags, rank] = not self.left[rank]

    # --- places of ranks -------------------------------------------------------------------------------------

    def follow(self, tags: Integers, rank: int, steps: Integers) -> Integers:
        """Return the stretch of each of a rank's records, (N,); ``tags`` and ``steps`` in its order, (N,)."""
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
        """As `follow` if a step is repeated: a later step shows that the repetition was not a stretch of its own."""
        own, last, repeats = self.own[:, rank], self.last[:, rank], self.repeats[:, rank]
        stretches = np.empty(len(tags), np.int64)
        repeated: dict[int, list[int]] = {}  # by tag, those of the records that have repeated its last step
        for index, (tag, step) in enumerate(zip(tags.tolist(), steps.tolist(), strict=True)):
            if last[tag] == STEP_MIN:
                pass
            elif step == last[tag]:
                own[tag] += 1
                repeats[tag] += 1
                repeated.setdefault(tag, []).append(index)
            elif step < last[tag]:
                own[tag] += 1
                repeats[tag] = 0
                repeated.pop(tag, None)
            else:
                again = repeated.pop(tag, None)
                if repeats[tag] and own[tag] - repeats[tag] >= self.stretch[tag]:
                    own[tag] -= repeats[tag]
                    if again is not None:
                        stretches[again] = own[tag]
                repeats[tag] = 0
            last[tag] = step
            stretches[index] = own[tag]
        return stretches

    def reached(self, tag: int, stretch: int, step: int) -> Mask:
        """Return a mask of the ranks that have reached a place of a tag, (world,)."""
        own = self.own[tag]
        come: Mask = (own > stretch) | ((own == stretch) & (self.last[tag] >= step))
        come &= self.seen[tag]
        return come

    # --- what goes out ---------------------------------------------------------------------------------------

    def floors(self) -> tuple[Integers, Integers]:
        """Return the place up to which each tag is whole: stretches and steps, (tags,) both."""
        known = slice(0, self.count)
        expected, own = self.expected[known], self.own[known]
        stretches: Integers = np.where(expected, own, STRETCH_MAX).min(axis=1, initial=STRETCH_MAX)
        least = stretches[:, None]
        # A rank that has repeated a step is waited for until it shows whether the others do so as well.
        here = expected & ((own == least) & ~self.paused | (own > least) & (own - self.repeats[known] <= least))
        steps: Integers = np.where(here, self.last[known], STEP_MAX).min(axis=1, initial=STEP_MAX)
        return stretches, steps

    def is_out(self, tags: Integers, stretches: Integers, steps: Integers) -> Mask:
        """Return a mask of the places, (N,), that are at or before written ones."""
        return not_beyond(stretches, steps, self.stretch[tags], self.emitted[tags])

    def advance(self, tags: Integers, stretches: Integers, steps: Integers) -> None:
        """Note written places, (N,). Ranks behind their stretches continue in these with their next records."""
        order = np.lexsort((steps, stretches, tags))
        tags, stretches, steps = tags[order], stretches[order], steps[order]
        last = np.append(tags[1:] != tags[:-1], True)
        tags, stretches, steps = tags[last], stretches[last], steps[last]
        ahead = ~not_beyond(stretches, steps, self.stretch[tags], self.emitted[tags])
        tags, stretches, steps = tags[ahead], stretches[ahead], steps[ahead]
        on = stretches > self.stretch[tags]
        self.stretch[tags], self.emitted[tags] = stretches, steps
        for tag, stretch in zip(tags[on].tolist(), stretches[on].tolist(), strict=True):
            own = self.own[tag]
            behind = own < stretch
            own[behind] = stretch
            self.last[tag, behind] = STEP_MIN
            self.expected[tag] &= ~behind
            self.repeats[tag] = np.minimum(self.repeats[tag], own - stretch)

    def pass_over(self, tags: Integers, stretches: Integers, steps: Integers, ranks: Mask | None = None) -> int:
        """Wait no more for ranks that have not come to these places; they are expected again when they have caught up.
        Returns how many that are, counted once for each tag.

        Args:
            tags: (N,), each once.
            stretches, steps: (N,).
            ranks: (world,) those it is about; None for all.
        """
        own, last = self.own[tags], self.last[tags]
        behind: Mask = (own < stretches[:, None]) | (own == stretches[:, None]) & (last < steps[:, None])
        behind &= self.expected[tags]
        if ranks is not None:
            behind &= ranks
        self.expected[tags] &= ~behind
        return int(behind.sum())

    # --- ranks that end --------------------------------------------------------------------------------------

    def leave(self, rank: int) -> None:
        """Note the end of a rank: only records already received or in transit are left."""
        self._gone += not self.left[rank]
        self.left[rank] = True
        self.expected[:, rank] = False

    def come_back(self, rank: int) -> None:
        """Note that a rank has come back."""
        self._gone -= bool(self.left[rank])
        self.left[rank] = False


def not_beyond(stretches: Integers, steps: Integers, stretch: Any, step: Any) -> Mask:
    """Return a mask of the places at or before other ones."""
    result: Mask = (stretches < stretch) | (stretches == stretch) & (steps <= step)
    return result


def _grown(array: npt.NDArray[Any], size: int, fill: object) -> npt.NDArray[Any]:
    grown = np.full((size, *array.shape[1:]), fill, array.dtype)
    grown[: len(array)] = array
    return grown
