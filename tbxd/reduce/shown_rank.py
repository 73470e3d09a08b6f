"""Of what several ranks log and cannot be put together (texts, pictures, sounds) one rank's is shown: whose it is."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tbxd_client.protocol.records import STEP_MIN

from .pending import Member
from .watermarks import Frontier

_BEFORE = (-1, STEP_MIN)


class Speakers:
    """Who speaks for each tag: the lowest rank that logs it, and where that has ended the next one from there on."""

    def __init__(self, frontier: Frontier) -> None:
        self._frontier = frontier
        self._ranks: dict[int, int] = {}  # by tag
        self._authors: dict[int, bytes] = {}  # whose it was before the daemon began, by tag
        self._silent = np.zeros(frontier.world, np.bool_)
        self._shown: dict[int, tuple[int, int]] = {}  # the last stretch and step, by tag
        self._places: dict[tuple[int, int], tuple[int, int]] = {}  # of each rank, by tag and rank

    def recall(self, tag: int, author: bytes, step: int) -> None:
        """A session has spoken for a tag before the daemon began, up to a step."""
        self._authors[tag] = author
        self._shown[tag] = (0, step)

    def follow(self, tag: int, rank: int, step: int) -> int:
        """In which stretch of a tag a rank's record is: another one begins where it goes back behind its last step."""
        stretch, last = self._places.get((tag, rank), (0, STEP_MIN))
        stretch += step < last
        self._places[tag, rank] = (stretch, step)
        return stretch

    def listen(self, members: Iterable[Member]) -> None:
        """Look which ranks have ended, and have nothing left here."""
        self._silent = self._frontier.left.copy()
        for member in members:
            if member.parts:
                self._silent[member.rank] = False

    def speaks(self, member: Member, tag: int, stretch: int, step: int) -> bool:
        """Whether what a session has logged with a tag at a place is shown."""
        if member.rank != self._ranks.get(tag) and member.session != self._authors.get(tag):
            there = self._frontier.seen[tag] & ~self._silent
            if int(np.argmax(there)) != member.rank or (stretch, step) <= self._shown.get(tag, _BEFORE):
                return False
            self._authors.pop(tag, None)
        self._ranks[tag] = member.rank
        self._shown[tag] = max((stretch, step), self._shown.get(tag, _BEFORE))
        return True
