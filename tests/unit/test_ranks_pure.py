"""The decisions about ranks, without files or a daemon: tags, frontier, points, parts, patience and history."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbxd.batch import Batch, Scalars
from tbxd.reduce.aggregate import Points, grouped
from tbxd.reduce.deadlines import Patience
from tbxd.reduce.job_starts import is_before
from tbxd.reduce.pending import Alone, Member, Shared
from tbxd.reduce.purges import Restarts
from tbxd.reduce.shown_rank import Speakers
from tbxd.reduce.tag_membership import SHARED, SOLO, UNDECIDED, Tags
from tbxd.reduce.waiting import Waiting
from tbxd.reduce.watermarks import STRETCH_MAX, Frontier, TooManyTags
from tbxd.tfevents.ledger import Entry
from tbxd.tfevents.rank_points import History, Reduced
from tbxd_client.protocol.kinds import SCALAR
from tbxd_client.protocol.records import STEP_MAX, STEP_MIN, RunDefinition, TagDefinition

NAN, INF = math.nan, math.inf


def numbers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def shared(tag: int, *places: tuple[int, int]) -> Shared:
    count = len(places)
    stretches, steps = (numbers(*column) for column in zip(*places, strict=True))
    return Shared(np.full(count, tag), stretches, steps, 34 * np.arange(1, count + 1))


# --- tags ---------------------------------------------------------------------------------------------------------


def tags_of(world: int, *names: str, seconds: float = 30.0) -> Tags:
    tags = Tags(world, seconds)
    tags.begin(0.0)
    for number, name in enumerate(names):
        tags.add(SCALAR, TagDefinition(number, 0, name), name, 0.0)
    return tags


@pytest.mark.parametrize(("joined", "now", "gathered"), [(1, 40.0, True), (1, 4.0, False), (2, 40.0, False)])
def test_a_tag_that_begins_late_goes_out_at_once_only_where_one_rank_alone_has_come(
    joined: int, now: float, gathered: bool
) -> None:
    """Begun long ago, and two ranks are there: the other one has still to be given time to come to it."""
    tags = tags_of(2)
    tags.await_none()
    tag = tags.add(SCALAR, TagDefinition(0, 0, "late"), "late", now)
    tags.join(tag, 0, now)
    tags.decide(now, False, joined, [])
    assert bool(tags.gathered[tag]) is gathered
    assert tags.decided[tag] == (SOLO if gathered else UNDECIDED)
    tags.decide(now + 6.0, False, joined, [])
    assert tags.gathered[tag] and tags.decided[tag] == SOLO


def test_ranks_that_were_never_seen_are_waited_for_while_one_that_was_lives_and_ten_seconds_then() -> None:
    tags = tags_of(2, "loss")
    tags.join(0, 0, 0.0)
    tags.decide(29.0, False, 1, [])
    assert not tags.gathered[0] and tags.due() == tags.here_by == 30.0 and not tags.all_here(29.0, 1)
    tags.deserted = True
    assert tags.due() == tags.here_by == 10.0
    tags.decide(9.9, False, 1, [])
    assert not tags.gathered[0]
    tags.decide(10.0, False, 1, [])
    assert tags.gathered[0] and tags.decided[0] == SOLO


def test_a_tag_is_gathered_when_nobody_has_joined_it_for_long_and_not_since_it_began() -> None:
    tags = tags_of(4, "loss")
    tags.await_none()
    for rank, now in ((0, 0.0), (1, 4.0), (2, 8.0)):
        tags.join(0, rank, now)
    tags.decide(12.0, False, 4, [])
    assert not tags.gathered[0] and tags.due() == 13.0
    tags.decide(13.0, False, 4, [])
    assert tags.gathered[0] and tags.decided[0] == SHARED and tags.due() == 0.0


def test_while_ranks_have_never_been_seen_no_time_tells_that_a_tag_is_gathered() -> None:
    tags = tags_of(3, "loss")
    for rank in range(2):
        tags.join(0, rank, 0.0)
    tags.decide(29.9, False, 2, [])
    assert not tags.gathered[0] and tags.due() == 30.0
    tags.decide(30.0, False, 2, [])
    assert tags.gathered[0]
    for here in (3, 2):  # with all of them it is as long as for a tag, also if one was seen and has gone
        tags = tags_of(3, "loss")
        tags.join(0, 0, 0.0)
        tags.decide(6.0, False, here, [])
        assert bool(tags.gathered[0]) is (here == 3)


def test_ranks_that_leave_gather_the_tags_that_all_others_log() -> None:
    tags = tags_of(3, "loss")
    tags.join(0, 0, 0.0)
    tags.leave(1)
    assert not tags.gathered[0]
    tags.leave(2)
    assert tags.gathered[0]


def alone(tag: int, step: int, *behind: tuple[int, int, int]) -> Alone:
    values = np.zeros(1, [("tag", "u4"), ("step", "i8"), ("wall_time", "f8"), ("value", "f8")])
    values["step"] = step
    run = RunDefinition(0, "/", "host", 1, 0.0, "", "")
    batch = Batch(b"", run, [], [], None)
    return Alone(batch, Scalars(values, np.array([34])), numbers(tag), behind=behind)


@pytest.mark.parametrize(
    ("behind", "place", "own"),
    [
        (((0, 0, 3),), (0, 4), True),
        (((0, 0, 3),), (0, 3), False),
        (((0, 0, 3),), (1, 0), True),  # the other has gone back: it has gone on
        (((0, 0, 2), (0, 0, 3)), (0, 3), False),  # of a tag the last before it counts
        (((0, 0, 3), (0, 1, 0)), (1, 0), False),
        ((), (9, 9), False),
    ],
)
def test_a_tag_is_a_ranks_own_when_all_others_are_beyond_what_it_logged_last_before_it(
    behind: tuple[tuple[int, int, int], ...], place: tuple[int, int], own: bool
) -> None:
    tags = tags_of(2, "loss", "lr")
    for rank in range(2):
        tags.join(0, rank, 0.0)
    tags.join(1, 0, 0.0)
    tags.frontier.own[0, 1], tags.frontier.last[0, 1] = place
    member = Member(b"a", 0)
    member.parts.append(alone(1, 3, *behind))
    tags.decide(1.0, False, 2, [member])
    assert bool(tags.gathered[1]) is own


def test_a_tag_is_a_ranks_own_when_all_others_have_come_to_a_later_step_behind_it() -> None:
    for step, last, own in ((4, 4, True), (4, 3, False), (3, 9, False)):
        tags = tags_of(2, "loss", "lr")
        for rank in range(2):
            tags.join(0, rank, 0.0)
        tags.frontier.last[0, 1] = last
        member = Member(b"a", 0)
        member.parts += [alone(1, 3), shared(0, (0, step))]
        tags.decide(1.0, False, 2, [member])
        assert bool(tags.gathered[1]) is own


# --- frontier -----------------------------------------------------------------------------------------------------


def test_a_floor_is_the_least_place_of_the_ranks_that_are_expected() -> None:
    frontier = Frontier(3)
    tag = frontier.add()
    for rank in range(3):
        frontier.join(tag, rank)
        frontier.follow(numbers(tag), rank, numbers(5 + rank))
        frontier.note(numbers(tag), rank)

    def floor() -> tuple[int, int]:
        stretches, steps = frontier.floors()
        return int(stretches[tag]), int(steps[tag])

    assert floor() == (0, 5)
    frontier.follow(numbers(tag), 0, numbers(2))  # goes back
    assert floor() == (0, 6)
    frontier.paused[1] = True
    assert floor() == (0, 7)
    frontier.paused[1] = False
    assert frontier.pass_over(numbers(tag), numbers(1), numbers(2)) == 2
    assert floor() == (1, 2)
    frontier.leave(0)
    assert floor() == (STRETCH_MAX, STEP_MAX)


def test_a_rank_that_repeats_a_step_is_waited_for_until_it_shows_whether_others_do() -> None:
    frontier = Frontier(2)
    tag = frontier.add()
    for rank, steps in enumerate(((3, 3), (3, 4, 5))):
        frontier.join(tag, rank)
        frontier.follow(np.full(len(steps), tag), rank, numbers(*steps))
        frontier.note(numbers(tag), rank)
    assert [int(floor[tag]) for floor in frontier.floors()] == [0, 3], "it may yet log step 4"
    frontier.follow(numbers(tag), 0, numbers(2))
    assert [int(floor[tag]) for floor in frontier.floors()] == [0, 5]
    for _ in range(2):
        frontier.follow(numbers(tag), 1, numbers(1))
    assert [int(floor[tag]) for floor in frontier.floors()] == [2, 1]


def test_a_rank_counts_as_gone_once_and_comes_back() -> None:
    frontier = Frontier(3)
    tag = frontier.add()
    frontier.join(tag, 0)
    for _ in range(2):
        frontier.leave(1)
    assert not frontier.is_whole(tag), "the third may come"
    frontier.come_back(1)
    frontier.come_back(1)
    frontier.leave(2)
    assert not frontier.is_whole(tag)
    frontier.leave(1)
    assert frontier.is_whole(tag)
    frontier.note(numbers(tag), 1)
    assert not frontier.expected[tag, 1], "nothing more comes of it"


def test_ranks_that_are_passed_over_are_those_behind_a_place_of_which_it_is_asked() -> None:
    frontier = Frontier(4)
    tag = frontier.add()
    for rank, place in enumerate([(0, 3), (1, 3), (1, 4), (2, 0)]):
        frontier.join(tag, rank)
        frontier.own[tag, rank], frontier.last[tag, rank] = place
        frontier.note(numbers(tag), rank)
    only = np.array([False, True, True, True])
    assert frontier.pass_over(numbers(tag), numbers(1), numbers(4), only) == 1
    assert frontier.expected[tag].tolist() == [True, False, True, True]
    assert frontier.pass_over(numbers(tag), numbers(1), numbers(4)) == 1


def test_what_goes_out_takes_ranks_behind_it_along_and_never_goes_back() -> None:
    frontier = Frontier(2)
    tag = frontier.add()
    for rank in range(2):
        frontier.join(tag, rank)
        frontier.follow(numbers(tag), rank, numbers(7))
        frontier.note(numbers(tag), rank)
    frontier.follow(numbers(tag), 0, numbers(3))
    frontier.advance(numbers(tag, tag), numbers(1, 0), numbers(3, 7))
    assert (frontier.stretch[tag], frontier.emitted[tag]) == (1, 3)
    assert (frontier.own[tag].tolist(), frontier.last[tag].tolist()) == ([1, 1], [3, STEP_MIN])
    assert frontier.expected[tag].tolist() == [True, False]
    frontier.advance(numbers(tag), numbers(0), numbers(9))
    assert (frontier.stretch[tag], frontier.emitted[tag]) == (1, 3)
    assert frontier.is_out(numbers(tag, tag, tag), numbers(0, 1, 1), numbers(99, 3, 4)).tolist() == [True, True, False]


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=30), st.lists(st.integers(1, 30), max_size=5))
@settings(deadline=None)
def test_stretches_are_those_of_one_record_after_the_other_however_they_are_cut(
    records: list[tuple[int, int]], cuts: list[int]
) -> None:
    parts = Frontier(2)
    for _ in range(3):
        parts.add()
    edges = [0, *sorted(cut for cut in set(cuts) if cut < len(records)), len(records)]
    for begin, end in pairwise(edges):
        if begin < end:
            tags, steps = (numbers(*column) for column in zip(*records[begin:end], strict=True))
            parts.follow(tags, 1, steps)
    expected: dict[int, tuple[int, int, int]] = {}  # of each tag: the stretch, the last step, how often it was repeated
    for tag, step in records:
        own, last, repeats = expected.get(tag, (0, -1, 0))
        if step > last:  # what was repeated before a later one is no stretch
            expected[tag] = (own - repeats, step, 0)
        else:
            expected[tag] = (own + 1, step, repeats + 1 if step == last else 0)
    for tag, (own, last, _) in expected.items():
        assert (parts.own[tag, 1], parts.last[tag, 1]) == (own, last)
    assert not parts.own[:, 0].any()


def test_there_is_room_for_so_many_tags_of_so_many_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tbxd.reduce.watermarks.CELLS_MAX", 6)
    frontier = Frontier(3)
    frontier.add()
    frontier.add()
    with pytest.raises(TooManyTags):
        frontier.add()


# --- points -------------------------------------------------------------------------------------------------------


def points_of(*rows: tuple[int, int, int, int, float, float]) -> Points:
    """Of tag, stretch, step, rank, value and wall time."""
    tags, stretches, steps, ranks, values, times = (np.array(column) for column in zip(*rows, strict=True))
    return Points(tags, stretches, steps, ranks, values.astype(float), times.astype(float), np.zeros(len(rows)))


def test_of_one_place_there_is_one_group_of_one_stretch_another() -> None:
    groups = grouped(
        points_of(
            (1, 0, 0, 1, 2.0, 1), (0, 1, 0, 0, 1.0, 1), (1, 0, 0, 0, 4.0, 1), (0, 0, 0, 0, 7.0, 1), (1, 0, 0, 0, 6.0, 1)
        )
    )
    assert list(zip(groups.tags, groups.stretches, groups.steps, groups.counts, groups.mean, strict=True)) == [
        (0, 0, 0, 1, 7.0),
        (0, 1, 0, 1, 1.0),
        (1, 0, 0, 2, 4.0),  # the last value of rank 0 counts
    ]
    assert [groups.ranks_of(place) for place in range(3)] == [[0], [0], [0, 1]]


@pytest.mark.parametrize(
    ("values", "lowest", "highest"),
    [
        ([1.0, 1.0, 0.0, 2.0, 2.0], 2, 3),
        ([3.0, 3.0, 3.0], 0, 0),
        ([1.0, NAN, 2.0, NAN], 0, 1),
        ([NAN, NAN], 0, 0),
        ([INF, -INF, INF], 1, 0),
        ([-0.0, 0.0], 0, 0),
    ],
)
def test_the_first_rank_that_has_an_extreme_is_named_and_the_first_that_has_none_is_the_highest(
    values: list[float], lowest: int, highest: int
) -> None:
    rows = [(0, 0, 5, rank, value, 1.0) for rank, value in enumerate(values)]
    groups = grouped(points_of(*rows[::-1]))
    assert (groups.lowest[0], groups.highest[0]) == (lowest, highest)
    np.testing.assert_equal(groups.min[0], np.fmin.reduce(values))
    np.testing.assert_equal(groups.max[0], np.fmax.reduce(values))


def test_the_one_that_came_last_is_the_highest_rank_s_where_several_did() -> None:
    for times, expected in (([1, 3, 3, 2], 2.0), ([5, 5, 5, 5], 3.0), ([9, 1, 1, 1], 0.0)):
        groups = grouped(points_of(*((0, 0, 0, rank, float(rank), time) for rank, time in enumerate(times))))
        assert groups.reduced(0, "last") == expected
        assert groups.wall_times[0] == max(times)


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2), st.integers(0, 5), st.floats(width=32)),
        min_size=1,
        max_size=40,
    ),
    st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_groups_are_what_numpy_makes_of_the_last_values_of_the_ranks(
    rows: list[tuple[int, int, int, int, float]], random: object
) -> None:
    groups = grouped(points_of(*((*row, 1.0) for row in rows)))
    expected: dict[tuple[int, int, int], dict[int, float]] = {}
    for tag, stretch, step, rank, value in rows:
        expected.setdefault((tag, stretch, step), {})[rank] = value
    places = list(zip(groups.tags.tolist(), groups.stretches.tolist(), groups.steps.tolist(), strict=True))
    assert places == sorted(expected)
    with np.errstate(all="ignore"):
        for number, place in enumerate(places):
            of_ranks = dict(sorted(expected[place].items()))
            values = np.array(list(of_ranks.values()))
            assert groups.ranks_of(number) == list(of_ranks)
            np.testing.assert_equal(groups.values_of(number), values)
            if np.isfinite(values).all():
                np.testing.assert_allclose(groups.mean[number], values.mean(), rtol=1e-9, atol=1e-30)
                np.testing.assert_allclose(groups.std[number], values.std(), rtol=1e-6, atol=1e-30)
                assert groups.reduced(number, "p95") == pytest.approx(np.percentile(values, 95))
            if np.isnan(values).any():
                assert math.isnan(groups.mean[number]) and math.isnan(groups.std[number])
                assert groups.highest[number] == list(of_ranks)[int(np.argmax(np.isnan(values)))]
            if not np.isnan(values).all():
                assert groups.lowest[number] == list(of_ranks)[int(np.nanargmin(values))]


# --- parts, waiting and patience ----------------------------------------------------------------------------------


def test_records_are_settled_in_their_order_rows_whole_and_late_ones_as_refused() -> None:
    frontier = Frontier(2)
    for _ in range(2):
        frontier.add()
    part = Shared(numbers(0, 1, 0, 1, 0), numbers(0, 0, 0, 0, 1), numbers(1, 1, 2, 2, 0), numbers(10, 10, 20, 20, 30))
    part.late = np.array([True, False, True, True, False])
    entry = Entry()
    frontier.advance(numbers(0), numbers(0), numbers(9))
    assert not part.settle(entry, frontier), "the row's other tag is not out"
    frontier.advance(numbers(1), numbers(0), numbers(1))
    assert part.settle(entry, frontier)
    assert (entry.end, entry.count, entry.refused) == (10, 1, {}), "one of its values is in a point"
    frontier.advance(numbers(1), numbers(0), numbers(2))
    assert part.settle(entry, frontier)
    assert (entry.end, entry.count, entry.refused) == (20, 2, {"late_rank": 1})
    assert part.tags.tolist() == [0] and part.stretches.tolist() == [1]
    frontier.advance(numbers(0), numbers(1), numbers(0))
    assert part.settle(entry, frontier) and not len(part.tags)
    assert (entry.end, entry.count, entry.refused) == (30, 3, {"late_rank": 1})


def test_parts_that_are_joined_keep_who_is_late() -> None:
    first, second = shared(0, (0, 1), (0, 2)), shared(0, (0, 3), (1, 0))
    second.late = np.array([False, True])
    first.join(second)
    assert first.late is not None and first.late.tolist() == [False, False, False, True]
    assert list(zip(first.stretches.tolist(), first.steps.tolist(), strict=True)) == [(0, 1), (0, 2), (0, 3), (1, 0)]


def waiting_of(world: int, *rows: tuple[int, int, int, int, float]) -> tuple[Frontier, Waiting]:
    """Of tag, stretch, step, rank and arrival."""
    frontier = Frontier(world)
    waiting = Waiting(frontier)
    for tag, stretch, step, rank, arrival in rows:
        while frontier.count <= tag:
            frontier.add()
        points = points_of((tag, stretch, step, rank, 0.0, 1.0))
        points.arrivals[:] = arrival
        waiting.add(points)
        frontier.join(tag, rank)
        frontier.own[tag, rank], frontier.last[tag, rank] = stretch, step
        frontier.note(numbers(tag), rank)
    return frontier, waiting


def test_what_is_up_to_the_floors_of_its_tags_is_taken_out_once() -> None:
    frontier, waiting = waiting_of(
        2, (0, 0, 1, 0, 0.0), (0, 0, 2, 0, 0.0), (0, 1, 0, 0, 0.0), (0, 0, 2, 1, 0.0), (1, 0, 9, 0, 0.0)
    )
    out = waiting.whole(*frontier.floors())
    assert out is not None
    assert sorted(
        zip(out.tags.tolist(), out.stretches.tolist(), out.steps.tolist(), out.ranks.tolist(), strict=True)
    ) == [
        (0, 0, 1, 0),
        (0, 0, 2, 0),
        (0, 0, 2, 1),
        (1, 0, 9, 0),
    ]
    assert waiting.whole(*frontier.floors()) is None and len(waiting) == 1


def test_patience_ends_with_what_came_long_ago_and_for_ranks_whose_records_are_known() -> None:
    reads = {b"a": (100.0, 100.0), b"b": (60.0, 99.0), b"c": (60.0, 0.0)}
    frontier, waiting = waiting_of(4, (0, 0, 5, 0, 50.0), (0, 1, 0, 0, 90.0))
    for rank in range(1, 4):
        frontier.join(0, rank)
        frontier.follow(numbers(0), rank, numbers(4))
        frontier.note(numbers(0), rank)
    patience = Patience(frontier, waiting, 30.0, 5.0, reads.__getitem__)
    known = patience.known(100.0, {1: [b"a"], 2: [b"b"], 3: [b"c"]})
    assert known.tolist() == [100.0, 100.0, 60.0, 100.0], "of the last nothing could be read for too long"
    patience.pass_over(100.0, known)
    assert frontier.expected[0].tolist() == [True, False, True, False]
    assert frontier.own[0, 0] == 1, "who is ahead is no reason to be passed over"


@pytest.mark.parametrize(("came", "passed"), [(94.0, True), (96.0, False)])
def test_where_too_much_waits_a_rank_is_passed_over_of_which_nothing_comes(
    came: float, passed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tbxd.reduce.waiting.PENDING_STEPS_MAX", 3)
    frontier, waiting = waiting_of(2, (0, 0, 1, 1, 99.0), *((0, 0, step, 0, 99.0) for step in range(1, 7)))
    patience = Patience(frontier, waiting, 30.0, 5.0, None)
    patience.come(1, came)
    patience.pass_over(100.0, np.full(2, 100.0))
    assert bool(frontier.expected[0, 1]) is not passed


def test_what_was_out_long_ago_is_told_from_what_went_out_just_now() -> None:
    frontier, waiting = waiting_of(1, (0, 0, 0, 0, 0.0))
    patience = Patience(frontier, waiting, 8.0, 5.0, None)
    for now, place in ((0.0, (0, 5)), (4.0, (1, 2)), (9.0, (1, 8))):
        frontier.advance(numbers(0), numbers(place[0]), numbers(place[1]))
        patience.look(now)
    places = numbers(0, 0, 0), numbers(0, 0, 1), numbers(5, 6, 0)
    assert patience.were_out(*places).tolist() == [True, False, False]
    assert not patience.were_out(numbers(7), numbers(0), numbers(0)).any(), "a tag that was not there then"


def test_one_speaks_for_a_tag_and_whoever_follows_him_goes_on_behind_what_is_shown() -> None:
    frontier = Frontier(3)
    tag = frontier.add()
    members = [Member(bytes([rank]), rank) for rank in range(3)]
    for rank in (1, 2):
        frontier.join(tag, rank)
    speakers = Speakers(frontier)
    assert speakers.follow(tag, 1, 5) == 0 and speakers.follow(tag, 1, 5) == 0 and speakers.follow(tag, 1, 4) == 1
    assert not speakers.speaks(members[2], tag, 0, 5) and speakers.speaks(members[1], tag, 0, 5)
    assert speakers.speaks(members[1], tag, 1, 4)
    frontier.leave(1)
    speakers.listen(members)
    assert not speakers.speaks(members[2], tag, 0, 9), "it was shown of the other"
    assert not speakers.speaks(members[2], tag, 1, 4)
    assert speakers.speaks(members[2], tag, 1, 5) and speakers.speaks(members[2], tag, 0, 0)


# --- what files hold ----------------------------------------------------------------------------------------------


def test_the_last_rank_of_a_point_and_those_that_are_not_in_it_are_told_apart() -> None:
    reduced = Reduced()
    reduced.follow("Gjob.0.3")
    for mark, step in (("R", 0), ("R0-1", 1), ("R2.1", 0)):
        reduced.follow(mark)
        reduced.values(b"", step, [("loss", False, 1.0)])
    history, curve = reduced.history("job.0.3"), ("loss", False)
    assert history.last[curve] == (1, 0)
    assert [history.holds(curve, 0, 0, rank) for rank in range(3)] == [True] * 3
    assert [history.holds(curve, 0, 1, rank) for rank in range(3)] == [True, True, False]
    assert [history.excludes(curve, 1, 0, rank) for rank in range(3)] == [True, True, False]
    assert not history.holds(curve, 0, 2, 0) and not history.excludes(curve, 0, 2, 0)
    assert reduced.history("job.1.3") == History()


def test_of_each_job_the_last_start_is_known_and_jobs_take_turns() -> None:
    reduced = Reduced()
    for generation, step in (("a.0.2", 0), ("b.0.2", 5), ("a.0.2", 1), ("b.1.2", 7)):
        reduced.follow("G" + generation)
        reduced.follow("R")
        reduced.values(b"", step, [("loss", False, 1.0)])
    assert reduced.history("a.0.2").points == {(("loss", False), 0, step): None for step in range(2)}
    assert reduced.history("b.1.2").last == {("loss", False): (0, 7)}
    assert reduced.history("b.0.2") == History() and reduced.past == {"b.0.2"}
    assert sorted(reduced.generations) == ["a.0.2", "b.1.2"]


def test_attempts_of_a_job_are_one_before_the_other_and_others_are_not() -> None:
    assert is_before("a.9.2", "a.10.2") and not is_before("a.10.2", "a.9.2")
    assert not is_before("a.0.2", "b.1.2") and not is_before("a.1.2", "a.1.4")


def test_restarts_are_numbered_rank_by_rank_and_known_by_their_places() -> None:
    entries = {b"a": Entry(end=50), b"b": Entry(end=10)}
    restarts = Restarts([], entries.__getitem__)
    assert [restarts.number(0, b"a", end) for end in (50, 90, 50)] == [1, 2, 1]
    assert restarts.number(1, b"b", 50) == 1 and restarts.written == 0
