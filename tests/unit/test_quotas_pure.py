"""The quotas of keys, and the end of their waits: without a daemon, its clock is the test's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbxd.config.settings import Settings
from tbxd.ingest.quotas import DAY, Allowance, OverQuota, Quotas


def quotas_of(**settings: Any) -> Quotas:
    return Quotas(Settings.of(settings))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), max_size=20), st.integers(1, 20))
def test_an_allowance_is_filled_up_by_so_much_in_each_stretch_and_by_no_more(
    come: list[tuple[int, int]], most: int
) -> None:
    allowance, now, stretch, used = Allowance(10.0, 0.0), 0, 0, 0
    for pause, count in come:
        now += pause
        if now // 10 > stretch:
            used, stretch = max(0, used - (now // 10 - stretch) * most), now // 10
        wait = allowance.wait(most, float(now))
        assert wait == max(0, (stretch + used // most) * 10 - now if used >= most else 0)
        assert allowance.room(most) == max(0, most - used)
        allowance.spend(count)
        used += count


def test_a_key_has_so_many_sessions_at_a_time() -> None:
    quotas = quotas_of(key_sessions=2)
    quotas.enter("a", 0.0)
    quotas.enter("a", 0.0)
    with pytest.raises(OverQuota, match="2 sessions"):
        quotas.enter("a", 0.0)
    quotas.enter("b", 0.0)
    quotas.leave("a", 0)
    quotas.enter("a", 0.0)
    found = quotas.status(0.0)
    assert (found["a"]["sessions"], found["a"]["refused"], found["b"]["sessions"]) == (2, {"key_sessions": 1}, 1)


def test_tags_are_those_of_the_sessions_that_are_there_and_runs_those_that_a_key_has_ever_had() -> None:
    quotas = quotas_of(key_tags=10, key_runs=2)
    quotas.enter("a", 0.0)
    quotas.define("a", ["/x", "/y"], 6)
    quotas.define("a", ["/x"], 4)
    assert quotas.folders("a") == {"/x", "/y"} and quotas.folders("b") == set()
    with pytest.raises(OverQuota, match="10 tags"):
        quotas.define("a", [], 1)
    quotas.leave("a", 11)
    quotas.enter("a", 0.0)
    quotas.define("a", ["/x", "/y"], 10)
    with pytest.raises(OverQuota, match="2 runs"):
        quotas.define("a", ["/z"], 0)
    assert quotas.folders("a") == {"/x", "/y"}
    assert quotas.status(0.0)["a"]["refused"] == {"key_tags": 1, "key_runs": 1}


def test_who_has_used_a_second_or_a_day_up_waits_for_the_longer_and_is_freed_once() -> None:
    quotas = quotas_of(key_bytes_second=100, key_bytes_day=250)
    quotas.enter("a", 0.0)
    assert quotas.room("a", 0.0) == 100 and quotas.due(0.0) == float("inf")
    quotas.spend("a", 150)
    assert quotas.room("a", 0.5) == 0 and quotas.due(0.5) == 1.0
    assert quotas.room("a", 1.0) == 0, "it is held until it is freed, or it would send in bursts"
    assert quotas.freed(0.9) == set() and quotas.freed(1.0) == {"a"} and quotas.freed(1.0) == set()
    assert quotas.room("a", 1.0) == 50, "what was over is made good"
    quotas.spend("a", 100)
    assert quotas.room("a", 1.5) == 0
    assert quotas.due(1.5) == DAY and quotas.freed(100.0) == set(), "the day is used up"
    assert quotas.status(100.0)["a"]["waits_seconds"] == DAY - 100.0
    assert quotas.freed(DAY) == {"a"} and quotas.room("a", DAY) == 100
    assert quotas.status(DAY)["a"] == {
        "sessions": 1,
        "runs": 0,
        "tags": 0,
        "bytes": 250,
        "waits_seconds": 0.0,
        "refused": {},
    }


def test_a_change_of_the_settings_counts_at_once() -> None:
    quotas = quotas_of(key_bytes_second=100)
    quotas.enter("a", 0.0)
    quotas.spend("a", 500)
    assert quotas.room("a", 0.1) == 0 and quotas.due(0.1) == 5.0
    quotas.configure(Settings.of({"key_bytes_second": 0}))
    assert quotas.freed(0.2) == {"a"} and quotas.room("a", 0.2) == float("inf")
