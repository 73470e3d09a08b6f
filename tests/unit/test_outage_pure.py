"""What the user is told when no daemon answers, and when: the clock is the test's."""

from __future__ import annotations

import pytest

from tbxd_client.transport import outage
from tbxd_client.transport.outage import AGAIN_SECONDS, FIRST_SECONDS, START_SECONDS, TOLD_SECONDS, Outage


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was said, each thing once."""
    told: list[str] = []
    once: set[str] = set()

    def warn(text: str, once_key: str = "", **more: str) -> None:
        key = more.get("once", once_key)
        if key not in once:
            once.add(key)
            told.append(text)

    monkeypatch.setattr(outage, "warn", warn)
    monkeypatch.setattr(outage, "was_said", lambda *names: False)
    return told


def watch(looked: Outage, begin: float, end: float, answered: bool = False, known: bool = False) -> None:
    now = begin
    while now < end:
        looked.look(now, answered, known, lambda: "nothing listens there")
        now += 0.25


@pytest.mark.parametrize(("starts", "seconds"), [(False, FIRST_SECONDS), (True, START_SECONDS)])
def test_a_daemon_that_never_answers_is_missed_after_its_time_and_once(
    starts: bool, seconds: float, said: list[str]
) -> None:
    looked = Outage("tcp://far:1", starts, "/spool/a")
    watch(looked, 0.0, seconds)
    assert said == []
    watch(looked, seconds, seconds + 400.0)
    assert len(said) == 1 and "nothing listens there" in said[0] and "/spool/a" in said[0]


def test_a_daemon_that_was_there_is_missed_later_and_its_return_is_said_once(said: list[str]) -> None:
    looked = Outage("tcp://far:1", False, "/spool/a")
    watch(looked, 0.0, 1.0, answered=True)
    watch(looked, 1.0, 1.0 + AGAIN_SECONDS)
    assert said == [], "one that is started anew is back by then"
    watch(looked, 1.0 + AGAIN_SECONDS, 100.0)
    assert len(said) == 1
    watch(looked, 100.0, 110.0, answered=True)
    assert len(said) == 2 and "answers after 99 s" in said[1]


def test_a_link_that_flaps_is_told_once_in_ten_minutes(said: list[str]) -> None:
    looked = Outage("tcp://far:1", False, "/spool/a")
    now = 0.0
    while now < 2 * TOLD_SECONDS:
        watch(looked, now, now + 60.0)
        watch(looked, now + 60.0, now + 70.0, answered=True)
        now += 70.0
    outages = [text for text in said if text.startswith("no daemon")]
    assert 2 <= len(outages) <= 3 and len(said) == 2 * len(outages)


def test_where_the_reason_is_known_nothing_more_is_said_until_an_answer_had_its_time(said: list[str]) -> None:
    looked = Outage("tcp://far:1", False, "/spool/a")
    watch(looked, 0.0, 60.0, known=True)
    watch(looked, 60.0, 60.0 + FIRST_SECONDS - 0.5)
    assert said == []
    watch(looked, 60.0 + FIRST_SECONDS - 0.5, 70.0)
    assert len(said) == 1
