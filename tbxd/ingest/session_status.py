"""What the status tells of a session, made anew only when something has changed: of thousands most are as they were."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..runs.accounting import Tally
from ..scheduler.run_registry import Account
from ..tfevents.ledger import Entry

Expected = Mapping[str, tuple[int, int]]


class Row(NamedTuple):
    """A session in the status.

    ``key``: what it follows from besides ``accounts``, those of its runs; ``pending``: records of its runs that are on
    their way, where there are some; ``told``: what is told.
    """

    key: tuple[object, ...]
    accounts: list[tuple[str, Account | None]]
    pending: dict[str, int]
    told: dict[str, Any]

    def holds(self, key: tuple[object, ...], accounts: Mapping[str, Account]) -> bool:
        """Whether it would be the same again."""
        return self.key == key and all(accounts.get(directory) is known for directory, known in self.accounts)


def row_of(
    session: bytes,
    key: tuple[object, ...],
    expected: Expected,
    accounts: Mapping[str, Account],
    describe: Callable[[], dict[str, Any]],
) -> Row:
    """Make one.

    Args:
        session: which.
        key: see `Row`.
        expected: for each of its runs, by folder: records accepted, as its trainer says, and records received.
        accounts: of all runs, by folder.
        describe: tells the rest of it.
    """
    own = Tally()
    pending: dict[str, int] = {}
    followed: list[tuple[str, Account | None]] = []
    for directory, (told, received) in expected.items():
        account = accounts.get(directory)
        followed.append((directory, account))
        entry = (account.ledger.get(session) if account is not None else None) or Entry()
        own.settle(entry)
        waits = max(0, max(told - sum(entry.dropped.values()), received) - entry.count)
        own.accepted += waits
        if waits and account is not None:
            pending[directory] = waits
    return Row(key, followed, pending, describe() | own.counts())
