"""Of what several ranks log and cannot be put together (texts, pictures, sounds) one rank's is shown: whose it is."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .frontier import Frontier
from .parts import Member


class Speakers:
    """Who speaks for each tag: the lowest rank that logs it, and where that has ended the next one from there on."""

    def __init__(self, frontier: Frontier) -> None:
        self._frontier = frontier
        self._ranks: dict[int, int] = {}  # by tag
        self._authors: dict[int, bytes] = {}  # whose it was before the daemon began, by tag
        self._silent = np.zeros(frontier.world, np.bool_)

    def recall(self, tag: int, author: bytes) -> None:
        """A session has spoken for a tag before the daemon began."""
        self._authors[tag] = author

    def listen(self, members: Iterable[Member]) -> None:
        """Look which ranks have ended, and have nothing left here."""
        self._silent = self._frontier.left.copy()
        for member in members:
            if member.parts:
                self._silent[member.rank] = False

    def speaks(self, member: Member, tag: int, step: int) -> bool:
        """Whether what a session has logged with a tag at a step is shown."""
        if member.rank == self._ranks.get(tag) or member.session == self._authors.get(tag):
            self._ranks[tag] = member.rank
            return True
        there = self._frontier.seen[tag] & ~self._silent
        if int(np.argmax(there)) != member.rank or step <= self._frontier.emitted[tag]:
            return False
        self._ranks[tag] = member.rank
        self._authors.pop(tag, None)
        return True
