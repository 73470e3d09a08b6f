"""Calls that log one record each, in turns, and the tags and rows of which the first record is under way.

A record of a tag or row that is known needs no turn. It would come before others of the same that are put off, or wait
for room: so a tag or row is known once all of these have their places.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import ref

from ..journal.journal import Journal
from ..journal.waiting_for_room import Patience
from ..process.reentrancy import Wait

if TYPE_CHECKING:
    from .session import Session

# A record, and what puts its second piece in a better place (`Journal.append`).
Pieces = tuple[tuple["bytes | memoryview", ...], "Callable[[int], bytes] | None"]


class Call:
    """A call that logs one record, for `Turns`; it may need several turns, while there is no room for it.

    Args:
        append: does it, in a turn: see `Turns`.
        kind: of the record.
        make: the record, for a session.
    """

    __slots__ = ("__weakref__", "_append", "_made", "_make", "_patience", "_session", "kind", "placed")

    def __init__(
        self, append: Callable[[Call, bool], Wait | None], kind: int, make: Callable[[Session], Pieces]
    ) -> None:
        self.kind = kind
        self.placed: Callable[[], None] | None = None  # called when its record has its place, or none
        self._append = append
        self._make = make
        self._made: Pieces = (), None
        self._session: Session | None = None  # that it is made for
        self._patience: Patience | None = None

    def __call__(self, patient: bool) -> Wait | None:
        return self._append(self, patient)

    def record(self, session: Session) -> Pieces:
        """Return the record, made once for a session."""
        if self._session is not session:
            self._made = self._make(session)
            self._session, self._patience = session, None
        return self._made

    def patience(self, journal: Journal, patient: bool) -> Patience:
        """Return how long the record still waits for room, in the journal of the session that it is made for."""
        if self._patience is None or not patient:
            self._patience = journal.patience(patient)
        return self._patience


class Firsts:
    """The calls of one run whose tags or rows are not known yet."""

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls: dict[tuple[str, ...], set[ref[Call]]] = {}

    def begin(self, key: tuple[str, ...], call: Call, known: Callable[[Any], None]) -> None:
        """Note that a call is about to have its turn.

        Args:
            key: of its tag or row.
            call: it.
            known: called with ``key`` when all calls with it have their places.
        """
        calls = self._calls.setdefault(key, set())

        def placed() -> None:
            calls.discard(mine)
            if not calls:
                known(key)
                self._calls.pop(key, None)

        call.placed = placed
        # One that is over without a place, or given up, goes with its object: nothing may be left of each record that
        # is dropped, and nobody looks through a set to which other threads add.
        mine = ref(call, calls.discard)
        calls.add(mine)
