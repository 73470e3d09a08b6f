"""Chooses the rank that is shown for records that cannot be reduced (texts, pictures, sounds)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tbxd_client.protocol.records import STEP_MIN

from .pending import Member
from .watermarks import Frontier

_BEFORE = (-1, STEP_MIN)


class Speakers:
    """The shown rank of each tag: the lowest rank that logs it, and after its end the next one."""

    def __init__(self, frontier: Frontier) -> None:
        self._frontier = frontier
        self._ranks: dict[int, int] = {}  # by tag
        self._authors: dict[int, bytes] = {}  # whose it was before the daemon began, by tag
        self._silent = np.zeros(frontier.world, np.bool_)
        self._shown: dict[int, tuple[int, int]] = {}  # the last stretch and step, by tag
        self._places: dict[tuple[int, int], tuple[int, int]] = {}  # of each rank, by tag and rank

    def recall(self, tag: int, author: bytes, step: int) -> None:
        """Restore the shown session of a tag before the daemon began, up to a step."""
        self._authors[tag] = author
        self._shown[tag] = (0, step)

    def follow(self, tag: int, rank: int, step: int) -> int:
        """Return the stretch of a rank's record in a tag: another one begins if it goes back behind its last step."""
        stretch, last = self._places.get((tag, rank), (0, STEP_MIN))
        stretch += step < last
        self._places[tag, rank] = (stretch, step)
        return stretch

    def listen(self, members: Iterable[Member]) -> None:
        """Find the ranks that have ended, with no records left here."""
        self._silent = self._frontier.left.copy()
        for member in members:
            if member.parts:
                self._silent[member.rank] = False

    def speaks(self, member: Member, tag: int, stretch: int, step: int) -> bool:
        """Return True if a session's record of a tag at a place is shown."""
        if member.rank != self._ranks.get(tag) and member.session != self._authors.get(tag):
            there = self._frontier.seen[tag] & ~self._silent
            if int(np.argmax(there)) != member.rank or (stretch, step) <= self._shown.get(tag, _BEFORE):
                return False
            self._authors.pop(tag, None)
        self._ranks[tag] = member.rank
        self._shown[tag] = max((stretch, step), self._shown.get(tag, _BEFORE))
        return True
