"""Records that are put off, because a signal handler logs them in the middle of a call.

The hot path ends with one store into `Journal.words`. A signal handler that has interrupted it replaces that target, so
that the store appends the handler's record, too. Without an interruption this costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

DEFERRED_RECORDS_MAX = 256


class Words(Protocol):
    """The target of the hot path's commit: the words of the control page, or what stands in for them."""

    def __setitem__(self, word: int, value: int, /) -> None:
        """Store a word of the control page."""


class Deferred(NamedTuple):
    """A record that is put off, and the callback that counts it as dropped if there is no room for it later."""

    record: bytes
    dropped: Callable[[str], object] | None


class CommitAll:
    """Stands in for the control page's words while records wait for the scalar that they have interrupted.

    The commit of that scalar appends them. So nothing is checked, and nothing paid, in a call without an interruption.
    """

    __slots__ = ("_commit",)

    def __init__(self, commit: Callable[[], None]) -> None:
        self._commit = commit

    def __setitem__(self, word: int, value: int) -> None:
        self._commit()
