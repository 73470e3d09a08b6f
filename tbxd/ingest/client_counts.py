"""What a client says it has counted: checked, and kept run by run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tbxd_client.journal.journal_files import DROP_REASONS
from tbxd_client.protocol.records import RemoteProtocolError

CLIENT_REASONS = (*DROP_REASONS, "no_journal")
# Records that a client may say it has logged, over all its runs: a million a second for two years. Sums over all
# sessions that there can be stay below what msgpack can hold.
RECORDS_TOLD_MAX = 1 << 46


class Reported:
    """The counts of a session's runs, as its reports have named them: accepted, and dropped by reason."""

    __slots__ = ("_runs", "_total")

    def __init__(self) -> None:
        self._runs: dict[int, tuple[int, dict[str, int]]] = {}  # by their numbers
        self._total = 0

    def accepted(self, run: int) -> int:
        """Records of a run, as far as it was told."""
        return self._runs.get(run, (0, {}))[0]

    def dropped(self, run: int) -> dict[str, int]:
        """What of a run was dropped, by reason, as far as it was told."""
        return self._runs.get(run, (0, {}))[1]

    def drops(self) -> Iterator[tuple[int, dict[str, int]]]:
        """The number of each run that is known, and what of it was dropped."""
        for number, (_, dropped) in self._runs.items():
            yield number, dropped

    def take(self, runs: dict[int, Any]) -> dict[int, dict[str, int]]:
        """Take note of a report; runs that it does not name are as they were.

        Returns:
            Those of which other drops are told now: the number of each, and what was dropped by reason.

        Raises:
            RemoteProtocolError: it is something else than numbers of runs and counts, or more than can be.
        """
        news = {}
        for number, counts in runs.items():
            if type(number) is not int or type(counts) is not list or len(counts) != 2:
                raise RemoteProtocolError("a report of something else than runs and counts")
            accepted, dropped = counts
            if not _is_count(accepted) or type(dropped) is not dict or len(dropped) > len(CLIENT_REASONS):
                raise RemoteProtocolError("a report of something else than counts")
            if not all(key in CLIENT_REASONS and _is_count(value) for key, value in dropped.items()):
                raise RemoteProtocolError("a report with a reason that is not known, or of something else than counts")
            before = self._runs.get(number, (0, {}))
            self._total += _records(accepted, dropped) - _records(*before)
            if self._total > RECORDS_TOLD_MAX:
                raise RemoteProtocolError(f"a report of more than {RECORDS_TOLD_MAX:,} records")
            self._runs[number] = (accepted, dropped)
            if dropped != before[1]:
                news[number] = dropped
        return news


def _records(accepted: int, dropped: dict[str, int]) -> int:
    return max(accepted, sum(dropped.values()))


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= RECORDS_TOLD_MAX
