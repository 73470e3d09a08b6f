"""What became of records: accepted = written + pending + dropped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..tfevents.ledger import Entry

# The largest count that is told: an answer can hold no more. Only ledgers that somebody has made up come to that.
TOLD_MAX = (1 << 63) - 1


@dataclass(slots=True)
class Tally:
    """A sum over sessions, runs, or both. ``dropped`` is by reason; what is accepted and neither written nor dropped is
    pending, so the equation holds whenever it is looked at."""

    accepted: int = 0
    written: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def settle(self, entry: Entry) -> None:
        """Add what a ledger says of a session: written, refused by the daemon, not kept by the trainer."""
        self.accepted += entry.count + sum(entry.dropped.values())
        self.written += entry.written
        add_counts(self.dropped, entry.refused)
        add_counts(self.dropped, entry.dropped)

    def merge(self, other: Tally) -> None:
        """Add another sum."""
        self.accepted += other.accepted
        self.written += other.written
        add_counts(self.dropped, other.dropped)

    def take_off(self, other: Tally) -> None:
        """Take a sum off that is part of this one."""
        self.accepted -= other.accepted
        self.written -= other.written
        add_counts(self.dropped, {reason: -count for reason, count in other.dropped.items()})

    @property
    def pending(self) -> int:
        """Records on their way."""
        return self.accepted - self.written - sum(self.dropped.values())

    def counts(self, more: int = 0) -> dict[str, Any]:
        """As `tbxd status --json` shows it.

        Args:
            more: so many more are on their way.
        """
        return {
            "accepted": min(self.accepted + more, TOLD_MAX),
            "written": min(self.written, TOLD_MAX),
            "pending": min(self.pending + more, TOLD_MAX),
            "dropped": {reason: min(count, TOLD_MAX) for reason, count in self.dropped.items()},
        }


def add_counts(into: dict[str, int], counts: dict[str, int]) -> None:
    """Add counts by reason to others."""
    for reason, count in counts.items():
        into[reason] = into.get(reason, 0) + count
