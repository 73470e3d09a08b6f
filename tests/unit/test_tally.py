"""Sums of what became of records: accepted = written + pending + dropped, and what clients may tell of it."""

from __future__ import annotations

from typing import Any

import pytest

from tbxd.ingest.client_counts import CLIENT_REASONS, RECORDS_TOLD_MAX, Reported
from tbxd.runs.accounting import TOLD_MAX, Tally, add_counts
from tbxd.tfevents.ledger import Entry
from tbxd_client.protocol.records import RemoteProtocolError


def test_a_ledger_and_other_sums_are_added_and_taken_off_again() -> None:
    tally = Tally()
    tally.settle(Entry(100, 10, {"late_rank": 2}, {"journal_full": 3}))
    assert (tally.accepted, tally.written, tally.pending) == (13, 8, 0)
    assert tally.dropped == {"late_rank": 2, "journal_full": 3}
    other = Tally(7, 4, {"late_rank": 1, "too_large": 1})
    assert other.pending == 1
    total = Tally()
    total.merge(tally)
    total.merge(other)
    assert (total.accepted, total.written, total.pending) == (20, 12, 1)
    assert total.dropped == {"late_rank": 3, "journal_full": 3, "too_large": 1}
    assert other.dropped == {"late_rank": 1, "too_large": 1}, "it is its own"
    total.take_off(tally)
    assert (total.accepted, total.written, total.pending) == (7, 4, 1)
    assert total.dropped == {"late_rank": 1, "journal_full": 0, "too_large": 1}


def test_what_is_told_counts_what_is_on_its_way_and_is_never_more_than_an_answer_holds() -> None:
    tally = Tally(10, 4, {"bad_record": 1})
    assert tally.counts() == {"accepted": 10, "written": 4, "pending": 5, "dropped": {"bad_record": 1}}
    assert tally.counts(3) == {"accepted": 13, "written": 4, "pending": 8, "dropped": {"bad_record": 1}}
    most = Tally(4 * TOLD_MAX, 2 * TOLD_MAX, {"x": TOLD_MAX + 1}).counts()
    assert most == {
        "accepted": TOLD_MAX,
        "written": TOLD_MAX,
        "pending": TOLD_MAX - 1,
        "dropped": {"x": TOLD_MAX},
    }
    counts = {"a": 1}
    add_counts(counts, {"a": 2, "b": 3})
    assert counts == {"a": 3, "b": 3}


@pytest.mark.parametrize(
    "report",
    [
        {"0": [1, {}]},
        {True: [1, {}]},
        {0: (1, {})},
        {0: [1]},
        {0: [1, {}, 2]},
        {0: [-1, {}]},
        {0: [True, {}]},
        {0: [RECORDS_TOLD_MAX + 1, {}]},
        {0: [1, []]},
        {0: [1, {"journal_full": -1}]},
        {0: [1, {"no such reason": 1}]},
        {0: [1, dict.fromkeys([*CLIENT_REASONS, "one more"], 0)]},
        {0: [0, {"journal_full": RECORDS_TOLD_MAX, "too_large": 1}]},
        {0: [RECORDS_TOLD_MAX, {}], 1: [1, {}]},
    ],
)
def test_a_report_is_of_numbers_of_runs_and_counts_and_no_more_than_can_be(report: dict[Any, Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        Reported().take(report)


def test_a_report_may_name_as_much_as_can_be_and_counts_again_what_it_says_anew() -> None:
    reported = Reported()
    assert reported.take({0: [0, {}], 1: [RECORDS_TOLD_MAX, dict.fromkeys(CLIENT_REASONS, 1)]}) == {
        1: dict.fromkeys(CLIENT_REASONS, 1)
    }
    assert reported.take({1: [RECORDS_TOLD_MAX - 5, {}]}) == {1: {}}
    assert reported.take({2: [5, {}]}) == {}
    assert (reported.accepted(1), reported.accepted(2), reported.accepted(3)) == (RECORDS_TOLD_MAX - 5, 5, 0)
    assert reported.dropped(1) == {} and list(reported.drops()) == [(0, {}), (1, {}), (2, {})]
    with pytest.raises(RemoteProtocolError):
        reported.take({3: [0, {"too_large": 1}]})
