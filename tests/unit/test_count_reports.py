"""What a daemon is told of the counts of a process, and when."""

from __future__ import annotations

from typing import Any

from tbxd_client.protocol import wire
from tbxd_client.transport.count_reports import HEARTBEAT_SECONDS, REPORT_SECONDS, Reports

SESSION = b"s" * 12


def test_the_last_report_waits_for_nothing_and_others_for_their_time() -> None:
    counts: dict[int, Any] = {1: [1, {}]}
    reports = Reports(SESSION, lambda: dict(counts))
    reports.begin(keeps=True)
    assert reports.messages(100.0) == [wire.Report(SESSION, {1: [1, {}]})]
    counts[1] = [2, {"bad_record": 1}]
    assert reports.messages(100.0 + REPORT_SECONDS / 2) == [] and not reports.settled
    last = reports.messages(100.0 + REPORT_SECONDS / 2, last=True)
    assert last == [wire.Report(SESSION, {1: [2, {"bad_record": 1}]})] and reports.settled
    assert reports.messages(100.0 + REPORT_SECONDS / 2, last=True) == [wire.Report(SESSION, {})], "an empty one"


def test_a_daemon_that_keeps_nothing_is_told_all_and_one_that_keeps_it_what_has_changed() -> None:
    counts: dict[int, Any] = {1: [1, {}], 2: [5, {}]}
    for keeps, news in ((True, {2: [6, {}]}), (False, {1: [1, {}], 2: [6, {}]})):
        counts[2] = [5, {}]
        reports = Reports(SESSION, lambda: dict(counts))
        reports.begin(keeps)
        assert reports.messages(100.0) == [wire.Report(SESSION, counts)]
        counts[2] = [6, {}]
        assert reports.messages(102.0) == [wire.Report(SESSION, news)]


def test_where_nothing_has_changed_a_report_comes_with_the_heartbeat() -> None:
    reports = Reports(SESSION, lambda: {1: [1, {}]})
    reports.begin(keeps=True)
    reports.messages(100.0)
    assert reports.messages(100.0 + HEARTBEAT_SECONDS) == []
    assert reports.messages(100.5 + REPORT_SECONDS + HEARTBEAT_SECONDS) == [wire.Report(SESSION, {})]
