"""A rank that has said hello is on its way: no point goes out without it, and nobody waits for it for ever."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from harness import scalars
from tbxd.reduce import tag_membership
from tbxd.reduce.expected_ranks import Coming
from tbxd.reduce.tag_membership import Tags
from tbxd_client.protocol import wire
from tbxd_client.protocol.kinds import SCALAR
from tbxd_client.protocol.records import RunDefinition, TagDefinition
from test_walls import Inside

RUN = RunDefinition(0, "/runs/a", "host", 1, 1.0, rank=0, world=3, job="job", reduce=True)


def test_who_has_come_may_be_a_rank_until_its_definitions_say_of_what() -> None:
    coming = Coming()
    assert coming.until(RUN, 100.0, 30.0) == 0
    runs: list[RunDefinition | None] = []
    coming.come(b"one", runs, 5.0)
    assert coming.until(RUN, 100.0, 30.0) == 35.0
    assert coming.until(RUN, 5.0, 30.0) == 0, "it came too late to count"
    runs.append(None)
    assert coming.until(RUN, 100.0, 30.0) == 35.0
    for other in ({"job": "another"}, {"attempt": 1}, {"world": 4}, {"reduce": False}):
        runs[:] = [RUN._replace(**other)]
        assert coming.until(RUN, 100.0, 30.0) == 0
    runs.append(RUN._replace(rank=2))
    assert coming.until(RUN, 100.0, 30.0) == 35.0
    coming.gone(b"one")
    coming.gone(b"one")
    assert coming.until(RUN, 100.0, 30.0) == 0


def tags_for(coming: Coming, seconds: float = 20.0) -> Tags:
    made = Tags(3, seconds, partial(coming.until, RUN, seconds=seconds))
    made.begin(0.0)
    made.add(SCALAR, TagDefinition(0, 0, "loss"), "loss", 0.0)
    made.join(0, 0, 0.0)
    return made


def test_a_tag_waits_for_who_has_come_in_time_and_at_most_as_long_again() -> None:
    coming = Coming()
    made = tags_for(coming)
    coming.come(b"one", [], 15.0)
    coming.come(b"late", [], 20.5)
    made.decide(20.0, False, 1, [])
    assert not made.gathered[0] and made.due() == made.here_by == 20.5 and not made.all_here(21.0, 1)
    made.decide(34.8, False, 1, [])
    assert not made.gathered[0] and made.due() == 35.0
    made.decide(35.0, False, 1, [])
    assert made.gathered[0] and not made.due()
    assert made.all_here(36.0, 1)


def test_where_all_have_ended_who_has_come_is_waited_for_as_well() -> None:
    coming = Coming()
    made = tags_for(coming)
    made.deserted = True
    coming.come(b"one", [], 9.0)
    made.decide(10.0, False, 1, [])
    assert not made.gathered[0]
    coming.gone(b"one")
    made.decide(10.5, False, 1, [])
    assert made.gathered[0]


def test_new_ones_that_come_one_after_the_other_hold_nothing_up_for_ever() -> None:
    coming = Coming()
    made = tags_for(coming)
    for now in range(50):
        coming.come(b"%d" % now, [], float(now))
        coming.gone(b"%d" % (now - 2))
        made.decide(now + 0.5, False, 1, [])
        if made.gathered[0]:
            break
    assert 20 <= now <= 22


def test_when_all_ranks_are_there_nobody_is_asked_for_any_more() -> None:
    coming = Coming()
    made = tags_for(coming)
    coming.come(b"one", [], 1.0)
    made.decide(2.0, False, 2, [])
    assert made.waits
    made.decide(3.0, False, 3, [])
    assert not made.waits


def test_where_journals_would_fill_up_nobody_is_waited_for() -> None:
    coming = Coming()
    made = tags_for(coming)
    coming.come(b"one", [], 1.0)
    assert made.waits
    made.hurry()
    assert not made.waits
    made.decide(6.0, False, 1, [])
    assert made.gathered[0]


def test_who_finds_the_job_begun_waits_for_who_has_come() -> None:
    """After a kill of the daemon all ranks come again, one after the other."""
    coming = Coming()
    made = tags_for(coming)
    made.await_none()
    coming.come(b"one", [], 1.0)
    made.decide(10.0, False, 2, [])
    assert not made.gathered[0]
    coming.gone(b"one")
    made.decide(10.0, False, 2, [])
    assert made.gathered[0]


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inside]:
    """A hub that waits for nobody who has not said hello."""
    for name in ("JOIN_SECONDS", "START_SECONDS", "ENDED_SECONDS"):
        monkeypatch.setattr(tag_membership, name, 0.0)
    made = Inside(tmp_path)
    yield made
    assert made.hub.close(10), "no thread is left behind"


def test_a_point_is_not_made_without_a_rank_that_has_said_hello(inside: Inside) -> None:
    ranks = [partial(dict, rank=rank, world=2, job="job", reduce=True) for rank in range(2)]
    late = b"late session"
    inside.hub.handle(inside.peer, wire.Hello(late, 0, 1, "host", "", "test", ""))
    first = inside.begin(**ranks[0]())
    inside.log(first, 3, 1)
    inside.until(lambda: inside.hub.clients[first].session.held == inside.sent[first], "the first to be taken")
    for _ in range(20):
        inside.turn()
    assert inside.counts() == (1, 0, 1)
    inside.hello(late, "a", **ranks[1]())
    inside.log(late, 3, 1)
    inside.until(lambda: inside.settled(first) and inside.settled(late), "the point")
    status = inside.hub.status()
    assert status["totals"]["dropped"] == {} and status["totals"]["written"] == 2
    assert scalars(inside.folder / "a")["loss"] == [(3, 3.0)]


@pytest.mark.parametrize("end", ["goodbye", "broken", "another job"])
def test_who_has_said_hello_and_does_not_come_is_not_waited_for(inside: Inside, end: str) -> None:
    other = b"other sessio"
    inside.hub.handle(inside.peer, wire.Hello(other, 0, 1, "host", "", "test", ""))
    first = inside.begin(rank=0, world=2, job="job", reduce=True)
    inside.log(first, 3, 1)
    inside.until(lambda: inside.hub.clients[first].session.held == inside.sent[first], "the first to be taken")
    assert inside.counts() == (1, 0, 1)
    if end == "goodbye":
        inside.hub.handle(inside.peer, wire.Goodbye(other))
    elif end == "broken":
        inside.hub.handle(inside.peer, wire.Data(other, wire.RECORDS, 0, b"\0" * 64))
    else:
        inside.hello(other, "b", job="another", world=2, reduce=True)
    inside.until(lambda: inside.settled(first), "the point without it")
