"""Records that are put off, because a signal handler logs them in the middle of a call.

The hot path ends with one store into `Journal.words`. Who has interrupted it exchanges that target, so that the store
does what is still to be done; without an interruption this costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

DEFERRED_RECORDS_MAX = 256


class Words(Protocol):
    """What the hot path commits with."""

    def __setitem__(self, word: int, value: int, /) -> None:
        """Store a word of the control page."""


class Deferred(NamedTuple):
    """A record that is put off, and who counts it as dropped if it finds no room then."""

    record: bytes
    dropped: Callable[[str], object] | None


class CommitAll:
    """In the place of the control page's words while records wait for the scalar that they have interrupted.

    Who commits that scalar has them appended, which so costs nothing where there are none.
    """

    __slots__ = ("_commit",)

    def __init__(self, commit: Callable[[], None]) -> None:
        self._commit = commit

    def __setitem__(self, word: int, value: int) -> None:
        self._commit()
