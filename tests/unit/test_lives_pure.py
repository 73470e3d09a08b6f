"""Who goes on with whose work, and what has to be shown anew: decided by what processes say of themselves."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbxd.reduce.job_starts import generation_of
from tbxd.runs.resume import FIRST_STEP_MAX, Known, Lives
from tbxd.tfevents import schema
from tbxd.tfevents.auto_steps import Steps
from tbxd.tfevents.contents import Contents
from tbxd.tfevents.lineage import ALL, UNKNOWN, Lineage, beside_text, introduced, is_after, life_of
from tbxd.tfevents.lineage import Life as Who
from tbxd.tfevents.resume_marks import BY_START, BY_STEP, Life, Resume
from tbxd.tfevents.tag_steps import COUNTED_FROM, NONE, Tags
from tbxd.tfevents.tfrecord import read_records
from tbxd_client.distributed import process_identity
from tbxd_client.protocol.records import RunDefinition

PROGRAM, OTHER = "a" * 8, "b" * 8
DROPPED = "tbxd/dropped/"


def run(directory: Path, number: int = 1, **more: Any) -> RunDefinition:
    return RunDefinition(0, str(directory), "host", number, float(number))._replace(**more)


class Folder:
    """A run into which processes come one after the other; ``alive`` are those that may still log."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.alive: set[bytes] = set()
        self.asked: list[int] = []

        def lives(session: bytes, began: int) -> bool:
            self.asked.append(began)
            return session in self.alive

        self.lives = Lives(Contents(directory), (DROPPED,), lives)

    def enter(self, name: str, **more: Any) -> Any:
        """A session logs here for the first time; its member."""
        session = name.encode().ljust(12, b".")
        self.notes = self.lives.begin(session, run(self.directory, **more), set(), "")
        return self.lives.members[session]

    def ranks(self, name: str, job: str, attempt: int = 0, **more: Any) -> RunDefinition:
        """A rank of a start of a job does; its run."""
        definition = run(self.directory, job=job, attempt=attempt, world=2, reduce=True, **more)
        self.lives.begin(name.encode().ljust(12, b"."), definition, set(), "")
        return definition


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


# --- who goes on --------------------------------------------------------------------------------------------------

KIN = PROGRAM + "1" * 8


def reference(who: dict[str, Any], other: dict[str, Any], alive: bool, step: int) -> bool:
    """As docs/EVENT_FILE.md and ARCHITECTURE.md have it, from the top."""
    job, earlier = who.get("job"), who.get("attempt", 0) > other.get("attempt", 0)
    if (job and job == other.get("job") and earlier) or who.get("resume") == "always":
        return True
    if alive or who.get("resume") == "never":
        return False
    kin, theirs = who.get("kin", ""), other.get("kin", "")
    if not kin or not theirs:
        return True
    if who.get("parent") and who.get("parent") == other.get("parent"):
        return False
    return kin == theirs or (kin[:8] == theirs[:8] and step > 1)


@pytest.mark.parametrize("alive", [False, True])
@pytest.mark.parametrize("resume", ["", "always", "never"])
@pytest.mark.parametrize("same", ["kin", "program", "nothing", "unknown", "unknown other"])
def test_a_process_goes_on_with_the_work_of_one_that_is_over_and_of_its_kin(
    same: str, resume: str, alive: bool, tmp_path: Path
) -> None:
    kins = {
        "kin": (KIN, KIN),
        "program": (KIN, PROGRAM + "2" * 8),
        "nothing": (KIN, OTHER + "1" * 8),
        "unknown": ("", KIN),
        "unknown other": (KIN, ""),
    }
    cases = itertools.product(
        [("", ""), ("c", "c"), ("c", "d")], [("", ""), ("j", "j"), ("j", "k")], [(0, 0), (0, 1), (1, 0)]
    )
    for number, (parents, jobs, attempts) in enumerate(cases):
        other = {"kin": kins[same][1], "parent": parents[0], "job": jobs[0], "attempt": attempts[0]}
        who = {"kin": kins[same][0], "parent": parents[1], "job": jobs[1], "attempt": attempts[1], "resume": resume}
        one = Folder(tmp_path)
        first = one.enter(f"a{number}", number=1, **other)
        member = one.enter(f"b{number}", number=2, **who)
        if alive:
            one.alive.add(first.who.key)
        later = is_after(first.who, first.place, member.who, member.place)
        for step in (0, FIRST_STEP_MAX, FIRST_STEP_MAX + 1, 100):
            expected = reference(who, other, alive or later, step)
            assert one.lives.goes_on(member, first.place, step) is expected, (who, other, step)


def test_whoever_is_busy_lives_and_an_earlier_boot_is_not_compared(folder: Folder) -> None:
    first = folder.enter("a", kin=KIN)
    second = folder.enter("b", kin=KIN, boot=process_identity.boot(), began=77)
    assert not folder.lives.is_alive(first.place, second) and folder.asked[-1] == 77
    folder.lives.busy.add(first.who.key)
    assert folder.lives.is_alive(first.place, second)
    third = folder.enter("c", kin=KIN, boot="f" * 16, began=99)
    folder.lives.busy.clear()
    assert not folder.lives.is_alive(first.place, third) and folder.asked[-1] == 0


def test_who_has_said_from_where_on_the_run_goes_goes_on_with_it_whatever_the_program(folder: Folder) -> None:
    first, second = folder.enter("a", kin=KIN), folder.enter("b", kin=OTHER + "1" * 8)
    assert not folder.lives.goes_on(second, first.place, 5)
    folder.lives.lineage.purges.append((second.place, 3))
    assert folder.lives.goes_on(second, first.place, 5) and folder.lives.has_predecessor(second, 5)
    assert not folder.lives.goes_on(first, second.place, 5), "who is later is nobody's predecessor"


@pytest.mark.parametrize(
    ("one", "other", "after"),
    [
        ({}, {}, True),  # by the order in which they have come
        ({"boot": "b", "began": 5}, {"boot": "b", "began": 4}, False),
        ({"boot": "b", "began": 4}, {"boot": "b", "began": 5}, True),
        ({"boot": "b", "began": 5}, {"boot": "c", "began": 4}, True),
        ({"boot": "b", "began": 5}, {"boot": "b", "began": 0}, True),
        ({"job": "j", "attempt": 1}, {"job": "j", "attempt": 0, "boot": "b", "began": 9}, False),
        ({"job": "j", "attempt": 1}, {"job": "j", "attempt": 2}, True),
        ({"job": "j", "attempt": 1}, {"job": "k", "attempt": 0}, True),
        ({"job": "j", "boot": "b", "began": 5}, {"job": "j", "boot": "b", "began": 4}, False),
    ],
)
def test_attempts_come_before_clocks_and_clocks_before_the_order_in_the_folder(
    one: dict[str, Any], other: dict[str, Any], after: bool
) -> None:
    assert is_after(Who(b"2", **other), 2, Who(b"1", **one), 1) is after
    if one != other and {**one, **other} != one:
        assert is_after(Who(b"1", **one), 1, Who(b"2", **other), 2) is not after


def test_lives_that_begin_later_are_seen_by_those_that_are_there(folder: Folder) -> None:
    first = folder.enter("a", kin=KIN)
    assert not folder.lives.later(first).any() and not first.followed
    second = folder.enter("b", kin=KIN)
    folder.lives.lineage.purges += [(second.place, 9), (second.place, 4), (first.place, 1)]
    assert folder.lives.later(first)[second.place] and first.followed and first.purged == 4
    assert not folder.lives.later(second).any() and second.purged is None


def test_a_session_says_once_who_it_is(folder: Folder) -> None:
    folder.enter("a", kin=KIN)
    assert len(folder.notes) == 1
    lineage = Lineage()
    lineage.follow(folder.notes[0])
    assert lineage.lives[1].kin == KIN and lineage.lives[1].known
    folder.lives.forget(b"a".ljust(12, b"."))
    folder.enter("a", kin=KIN)
    assert folder.notes == []


# --- what was logged ----------------------------------------------------------------------------------------------


def known_of(directory: Path, *rows: tuple[str, int, int, int]) -> Known:
    """Of name, last step, largest step and owner."""
    contents = Contents(directory)
    for name, last, most, owner in rows:
        place = contents.tags.place(name)
        contents.tags.note([place], last, most, 1.0, 0, owner)
    return Known(contents)


def test_a_tag_is_said_once_where_whoever_logs_it_has_come_further_with_others(tmp_path: Path) -> None:
    for most, others, once in ((0, 100, True), (1, 2, True), (1, 1, False), (2, 100, False), (0, 0, False)):
        known = known_of(tmp_path, ("settings", most, most, 1), ("loss", others, others, 1), ("foreign", 900, 900, 2))
        assert known.is_said_once(0) is once, (most, others)


def test_a_counted_tag_goes_on_after_its_largest_step_and_each_tag_of_an_event_with_it(tmp_path: Path) -> None:
    steps = Steps(Contents(tmp_path))
    steps.note("loss", 5)
    steps.note("loss", 3)
    assert steps.next(["loss", "new"]) == 6 and steps.next(["new"]) == 7


def test_a_tag_that_is_cut_by_nobody_known_stays_that_of_the_life_before() -> None:
    tags = Contents(Path("/nowhere")).tags
    place = tags.place("loss")
    tags.cut(place, 5, era=7)
    tags.cut(place, 3)
    assert tags.eras[place] == 7
    tags.cut(place, 2, era=9)
    assert tags.eras[place] == 9


def test_places_of_tags_grow_and_begin_with_nobody(tmp_path: Path) -> None:
    known = known_of(tmp_path, ("loss", 5, 7, 1))
    assert known.place("loss") == 0
    for number in range(200):
        assert known.place(f"tag {number}") == number + 1
        assert known.owner[number + 1] == -1 and known.last[number + 1] < -(1 << 60)
    assert (known.last[0], known.most[0], known.owner[0]) == (5, 7, 1)


def test_points_of_ranks_are_claimed_unless_they_go_back_behind_a_stranger(folder: Folder) -> None:
    stranger = folder.enter("a", kin=OTHER + "1" * 8)
    job = folder.ranks("r", "job", kin=KIN)
    lives = folder.lives
    assert lives.has_strangers(job)
    lives.known = known_of(folder.directory, ("loss", 10, 10, stranger.place))
    why, met = lives.claim(job, ["loss", "loss"], np.array([11, 12]))
    assert why == "" and met == {}
    place = lives.known.place("loss")
    mine = lives.lineage.find(life_of(generation_of(job)))
    assert (lives.known.owner[place], lives.known.last[place], lives.known.most[place]) == (mine, 12, 12)
    assert lives.claim(job, ["loss"], np.array([3]))[0] == "", "it is its own by now"
    assert (lives.known.last[place], lives.known.most[place]) == (3, 12)
    lives.known = known_of(folder.directory, ("loss", 10, 10, stranger.place))
    why, met = lives.claim(job, ["new", "loss"], np.array([0, 10]))
    assert "'loss' at step 10" in why and lives.known.places.get("new") is None, "nothing is taken note of"


def test_a_stranger_all_of_whose_tags_are_beside_the_run_is_in_nobody_s_way(folder: Folder) -> None:
    stranger = folder.enter("a", kin=OTHER + "1" * 8)
    job = folder.ranks("r", "job", kin=KIN)
    folder.lives.lineage.beside[stranger.who.key] = {ALL: 0}
    assert not folder.lives.has_strangers(job)


def test_points_of_ranks_that_go_on_with_a_predecessor_begin_its_tags_anew(folder: Folder) -> None:
    before = folder.enter("a", kin=KIN)
    job = folder.ranks("r", "job", kin=KIN)
    lives = folder.lives
    assert not lives.has_strangers(job)
    lives.known = known_of(folder.directory, ("loss", 10, 10, before.place))
    why, met = lives.claim(job, ["loss", "loss"], np.array([10, 11]))
    assert (why, met) == ("", {"loss": 10})
    events = events_of(lives.points(job, {"loss": 10}))
    assert [(event.step, [value.tag for value in event.summary.value]) for event in events[2:-1]] == [(10, ["loss"])]
    assert lives.points(job, {"loss": 10}) == b"", "once"


def test_a_start_of_a_job_is_beside_the_run_when_it_or_an_earlier_start_was_moved(folder: Folder) -> None:
    first = folder.ranks("a", "job", 0)
    assert not folder.lives.is_moved(first)
    note = folder.lives.move(first)
    assert note == beside_text(life_of(generation_of(first)), 0, ALL) and folder.lives.is_moved(first)
    assert folder.lives.is_moved(run(folder.directory, job="job", attempt=1, world=2, reduce=True))
    assert not folder.lives.is_moved(run(folder.directory, job="other", world=2, reduce=True))
    folder.lives.read("")
    assert folder.lives.is_moved(first), "also where the files do not tell it yet"


# --- lineage ------------------------------------------------------------------------------------------------------


def test_a_process_that_begins_another_session_is_one_life_and_ranks_are_of_theirs() -> None:
    lineage = Lineage()
    one = Who(b"1" * 12, KIN, "", 0, "b" * 16, 5, "c", True)
    assert lineage.enter(one) == 1
    again = Who(b"2" * 12, KIN, "", 0, "b" * 16, 5, "c", True)
    assert lineage.enter(again) == 1 and lineage.find(again.key) == 1
    for other in (
        Who(b"3" * 12, KIN, "", 0, "b" * 16, 6, "c", True),
        Who(b"4" * 12, KIN, "j", 0, "b" * 16, 5, "c", True),
        Who(b"5" * 12, KIN, "", 0, "", 5, "c", True),
        Who(b"6" * 12, KIN, "", 0, "b" * 16, 0, "c", True),
    ):
        assert lineage.enter(other) == len(lineage.lives) - 1 > 1
    assert lineage.join(b"7" * 12, b"4" * 12) == lineage.find(b"4" * 12)
    assert lineage.knows(b"7" * 12) and not lineage.knows(b"8" * 12) and lineage.find(b"8" * 12) == -1
    lineage.place(b"9" * 12)
    assert not lineage.knows(b"9" * 12), "nobody has said who it is"
    copied = lineage.copy()
    copied.beside[b"1" * 12] = {ALL: 5}
    copied.purges.append((1, 5))
    assert not lineage.beside and not lineage.purges
    loaded = Lineage.load(lineage.dump())
    assert loaded.dump() == lineage.dump()
    assert loaded.enter(Who(b"a" * 12, KIN, "", 0, "b" * 16, 5, "c", True)) == 1, "processes are known again"


def test_what_a_process_says_of_itself_is_taken_as_far_as_it_makes_sense(tmp_path: Path) -> None:
    who = introduced(b"1" * 12, run(tmp_path, kin="x" * 16, boot="", began=5, parent="0" * 16, job="job"))
    assert (who.kin, who.boot, who.began, who.parent, who.known) == ("", "", 0, "0" * 16, True)
    assert who.job and introduced(b"1" * 12, run(tmp_path)).job == ""
    assert introduced(b"1" * 12, run(tmp_path, boot="a" * 16, began=5)).began == 5


def test_of_a_tag_that_goes_beside_the_run_the_first_position_counts() -> None:
    lineage = Lineage()
    for position in (100, 200):
        assert lineage.follow(beside_text(b"1" * 12, position, "d" * 16)) == UNKNOWN
    assert lineage.beside == {b"1" * 12: {"d" * 16: 100}}


# --- tags that go on ----------------------------------------------------------------------------------------------


def events_of(data: bytes) -> list[Any]:
    place = 0

    def read(count: int) -> bytes:
        nonlocal place
        place += count
        return data[place - count : place]

    found = []
    for _, record in read_records(read):
        event = schema.Event()
        event.ParseFromString(record)
        found.append(event)
    return found


@given(st.dictionaries(st.text(max_size=3), st.integers(-5, 5), max_size=8), st.booleans())
@settings(deadline=None)
def test_the_end_of_tags_lets_each_go_on_from_its_step_in_falling_order(cuts: dict[str, int], named: bool) -> None:
    resume = Resume(Contents(Path("/nowhere")))
    data = resume.end(cuts, b"1" * 12 if named else b"")
    cuts.pop("", None)
    if not cuts:
        assert data == b""
        return
    first, above, *ends, last = events_of(data)
    assert (first.file_version, last.file_version) == (BY_STEP, BY_START)
    steps = [event.step for event in (above, *ends)]
    assert all(after < before for before, after in itertools.pairwise(steps)), "or the slow loader sees no step back"
    assert not above.summary.value and above.step == max(cuts.values()) + 1
    assert {value.tag: event.step for event in ends for value in event.summary.value} == cuts
    assert all(("~" in event.source_metadata.writer) is named for event in (first, above, *ends, last))


def tags_of(*rows: tuple[str, int, int, float, int]) -> Tags:
    """Of name, last and largest step, wall time and owner."""
    tags = Tags()
    for name, last, most, wall_time, owner in rows:
        tags.note([tags.place(name)], last, most, wall_time, 0, owner)
    return tags


def test_what_is_asked_of_tags_is_answered_by_their_last_steps_and_times(tmp_path: Path) -> None:
    contents = Contents(tmp_path)
    contents.tags = tags_of(("a", 5, 9, 1.0, 1), ("b", 3, 3, 2.0, 2), ("c", 7, 7, 3.0, UNKNOWN))
    contents.lineage.place(b"1" * 12)
    contents.lineage.place(b"2" * 12)
    resume = Resume(contents)
    assert (resume.last("a"), resume.last("x")) == (5, None)
    assert resume.earlier() == {"a": 5, "b": 3, "c": 7} and resume.earlier(2.0) == {"a": 5}
    assert resume.of(b"2" * 12) == {"b"} and resume.of(b"1" * 12, b"2" * 12) == {"a", "b"} and not resume.of(b"9" * 12)
    assert resume.beyond(7) == {"a": 1.0, "c": 3.0} and resume.beyond(9) == {"a": 1.0} and not resume.beyond(10)


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 6)),
    st.lists(
        st.tuples(st.sampled_from(["log", "meet", "restart"]), st.sampled_from("abcde"), st.integers(0, 6)), max_size=12
    ),
)
def test_a_life_begins_a_tag_anew_where_it_goes_back_behind_an_earlier_one_and_once(
    earlier: dict[str, int], moves: list[tuple[str, str, int]]
) -> None:
    life, left = Life(dict(earlier)), dict(earlier)
    for move, tag, step in moves:
        assert bool(life) is bool(left) and life.has_yet_to_log(tag) is (tag in left)
        if move == "log":
            last = left.pop(tag, None)
            assert life.cuts([(tag, step), (tag, 0)]) == ({tag: step} if last is not None and step <= last else {})
        elif move == "meet":
            life.meet(tag, step)
            left[tag] = step
        else:
            life.restart(step)
            left = {name: min(last, step - 1) for name, last in left.items()}


@given(
    st.lists(
        st.tuples(st.sampled_from(["note", "cut", "start"]), st.integers(0, 2), st.integers(-3, 6), st.integers(0, 3)),
        max_size=20,
    ),
    st.booleans(),
)
def test_tags_are_as_one_after_the_other_makes_them_however_many_come_at_once(
    moves: list[tuple[str, int, int, int]], many: bool
) -> None:
    count = 40 if many else 3
    tags = Tags()
    for number in range(count):
        tags.place(f"tag {number}")
    rows = [[0, NONE, COUNTED_FROM, 0.0, 0, 0] for _ in range(count)]  # last, most, counted, time, owner, era
    for number, (move, place, step, more) in enumerate(moves):
        if move == "note":
            places = list(range(place, count))
            tags.note(places, step, step + more, float(number), 0, more)
            for row in rows[place:]:
                row[0], row[1], row[2] = step, max(row[1], step + more), max(row[2], step + more)
                row[3], row[4] = float(number), more
        elif move == "cut":
            tags.cut(place, step, more)
            row = rows[place]
            row[:3] = [min(column, max(step - 1, NONE)) for column in row[:3]]
            row[5] = more or row[5]
        else:
            tags.start(step)
            for row in rows:
                row[2] = min(row[2], step - 1)
    columns = (tags.last, tags.most, tags.counted, tags.wall_times, tags.owners, tags.eras)
    assert [list(row) for row in zip(*columns, strict=True)] == rows
    copied = tags.copy()
    copied.cut(0, -100)
    assert list(tags.last) == [row[0] for row in rows] and copied.names == tags.names
    with pytest.raises(ValueError, match="columns"):
        Tags.of(tags.names, [*copied.columns()[:-1], copied.eras[:-1]], {})


def steps_of(counted: dict[str, int]) -> Steps:
    class Held:
        tags = Tags()

    Held.tags = Tags()
    for name, step in counted.items():
        Held.tags.counted[Held.tags.place(name)] = step
    return Steps(Held)  # type: ignore[arg-type]


@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(-1, 5)),
    st.lists(
        st.tuples(
            st.sampled_from(["next", "note", "all", "some"]),
            st.sets(st.sampled_from("abcd"), max_size=3),
            st.integers(0, 8),
        ),
        max_size=15,
    ),
)
def test_numbered_records_go_on_behind_the_last_of_each_of_their_tags(
    counted: dict[str, int], moves: list[tuple[str, set[str], int]]
) -> None:
    steps, last = steps_of(counted), {name: step for name, step in counted.items() if step != COUNTED_FROM}
    for move, names, step in moves:
        if move == "next":
            expected = max((last.get(name, -1) for name in names), default=-1) + 1
            assert steps.next(names) == expected
            last.update(dict.fromkeys(names, expected))
        elif move == "note":
            for name in names:
                steps.note(name, step)
                last[name] = max(step, last.get(name, -1))
        else:
            steps.restart(step, None if move == "all" else names)
            for name in last if move == "all" else names & last.keys():
                last[name] = min(last[name], step - 1)
