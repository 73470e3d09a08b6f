"""Several ranks log into one run: one point for each tag and step, exact, once, whatever is killed."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amount import examples
from harness import wait_for
from one_by_one import read_events
from ranks_world import Daemon, Rank
from tbxd.encode import color_of
from tbxd.encode.histogram import histogram_of
from tbxd.ingest.session import Session
from tbxd.reduce import reduction, waiting
from tbxd.reduce import tag_membership as tags
from tbxd.tfevents.ledger import decode_ranks
from tbxd.tfevents.scalar_columns import Piece
from tbxd.tfevents.schema import END_KIND
from tbxd_client.logdir.event_names import event_files
from tbxd_client.protocol.kinds import RESTART
from tbxd_client.protocol.records import pack_record_head


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tags are decided at once, so that nothing has to wait for a clock."""
    monkeypatch.setattr(tags, "JOIN_SECONDS", 0.0)
    monkeypatch.setattr(tags, "START_SECONDS", 0.0)


def points(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the points in the event files of a folder, in order."""
    result: dict[str, list[tuple[int, float]]] = {}
    for name in event_files(directory) if directory.exists() else ():
        for event in read_events(directory / name):
            for value in event.summary.value:
                if not value.HasField(END_KIND):
                    result.setdefault(value.tag, []).append((event.step, value.simple_value))
    return result


def job(directory: Path, world: int, seconds: float = 30.0) -> tuple[list[Rank], Daemon]:
    ranks = [Rank(directory, rank, world) for rank in range(world)]
    return ranks, Daemon(directory, ranks, seconds)


def test_a_point_is_the_mean_and_the_sides_have_the_spread(tmp_path: Path) -> None:
    run = tmp_path / "run"
    ranks, daemon = job(run, 4)
    values = np.random.default_rng(1).normal(size=(50, 4))
    for step in range(50):
        for rank in ranks:
            rank.scalar("loss", step, float(values[step, rank.rank]))
    for rank in ranks:
        daemon.feed(rank)
    daemon.write()
    mean, low, high, spread = (points(run / side) for side in (".", "ranks/min", "ranks/max", "ranks"))
    steps = np.arange(50)
    for found, expected in (
        (mean["loss"], values.mean(axis=1)),
        (low["loss"], values.min(axis=1)),
        (high["loss"], values.max(axis=1)),
        (spread["tbxd/ranks/std/loss"], values.std(axis=1)),
        (spread["tbxd/ranks/lowest/loss"], values.argmin(axis=1)),
        (spread["tbxd/ranks/highest/loss"], values.argmax(axis=1)),
    ):
        assert [step for step, _ in found] == steps.tolist()
        np.testing.assert_array_max_ulp(np.array([v for _, v in found], np.float32), expected.astype(np.float32), 1)
    assert all(rank.acked == len(rank.records) for rank in ranks)


def test_what_one_rank_logs_is_shown_as_it_is(tmp_path: Path, quick: None) -> None:
    ranks, daemon = job(tmp_path, 2)
    for step in (0, 0, 1, 5, 3):  # as it is, whatever the steps are
        ranks[0].scalar("lr", step, step / 8)
        ranks[0].text("note", step, f"at {step}")
    daemon.feed(ranks[0])
    daemon.write(2)
    found = points(tmp_path)
    assert found["lr"] == [(0, 0.0), (0, 0.0), (1, 0.125), (5, 0.625), (3, 0.375)]
    assert [step for step, _ in found["note/text_summary"]] == [0, 0, 1, 5, 3]
    assert not (tmp_path / "ranks").exists()
    assert ranks[0].acked == len(ranks[0].records)


def test_a_tag_is_not_taken_for_a_ranks_own_before_others_had_time_to_log_it(tmp_path: Path) -> None:
    ranks, daemon = job(tmp_path, 3)
    ranks[0].scalar("loss", 0, 1.0)
    daemon.feed(ranks[0])
    daemon.write()
    ranks[1].scalar("loss", 0, 2.0)
    daemon.feed(ranks[1])
    daemon.write()
    assert points(tmp_path) == {}  # the third may come
    ranks[2].scalar("loss", 0, 6.0)
    daemon.feed(ranks[2])
    daemon.write()
    assert points(tmp_path) == {"loss": [(0, 3.0)]}


def test_a_rank_that_has_never_been_seen_is_waited_for_from_the_first_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as for any rank; not by a daemon that finds the job begun, nor by one whose rank has logged too much."""
    monkeypatch.setattr(tags, "JOIN_SECONDS", 0.0)
    monkeypatch.setattr(tags, "START_SECONDS", 1.0)
    ranks, daemon = job(tmp_path / "late", 3)
    for rank in ranks:
        rank.scalar("tokens", 0, 1.0, reduce="sum")
    for rank in ranks[:2]:
        daemon.feed(rank)
        daemon.write(2)
    assert points(tmp_path / "late") == {} and 0.5 < daemon.writer.ranks.due - time.monotonic() <= 1
    daemon.feed(ranks[2])
    daemon.write()
    assert points(tmp_path / "late")["tokens"] == [(0, 3.0)]
    for rank in ranks[:2]:
        rank.scalar("new", 1, 1.0, reduce="sum")
    daemon.kill()
    for rank in ranks[:2]:
        daemon.feed(rank)
    daemon.write(2)
    assert points(tmp_path / "late")["new"] == [(1, 2.0)]
    ranks, daemon = job(tmp_path / "never", 3)
    ranks[0].scalar("tokens", 0, 1.0, reduce="sum")
    daemon.feed(ranks[0])
    daemon.write(2)
    assert points(tmp_path / "never") == {}
    wait_for(lambda: daemon.write() or points(tmp_path / "never"), "a rank that never comes", 10, 0.1)
    ranks, daemon = job(tmp_path / "much", 3)
    monkeypatch.setattr(reduction, "kept", lambda sessions: 100_000)
    for step in range(3):
        ranks[0].histogram("w", step, np.zeros(5000))
    daemon.feed(ranks[0], ranks[0].ends[0])
    daemon.write(2)
    assert points(tmp_path / "much") == {}
    daemon.feed(ranks[0])
    daemon.write(2)
    assert len(points(tmp_path / "much")["w"]) == 3


def test_a_rank_that_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    ranks, daemon = job(tmp_path, 3)
    for step in range(4):
        for rank in ranks[: 3 if step < 2 else 2]:
            rank.scalar("loss", step, float(rank.rank))
    for rank in ranks:
        daemon.feed(rank)
    daemon.write()
    assert points(tmp_path)["loss"] == [(0, 1.0), (1, 1.0)]
    daemon.leave(ranks[2])
    daemon.write()
    assert points(tmp_path)["loss"] == [(0, 1.0), (1, 1.0), (2, 0.5), (3, 0.5)]
    assert daemon.writer.ranks.status() == {
        "world": 3,
        "joined": 3,
        "alive": 2,
        "behind": [],
        "missing": 2,
        "late": 0,
        "waiting": 0,
    }
    assert points(tmp_path / "ranks")["tbxd/ranks/missing"] == [(3, 2.0)]


def test_a_rank_with_two_sessions_is_gone_with_the_last_of_them_and_what_is_on_the_way_brings_none_back(
    tmp_path: Path,
) -> None:
    ranks, daemon = job(tmp_path, 2)
    worker = Rank(tmp_path, 1, 2)
    add(daemon, worker)
    for rank in (*ranks, worker):
        rank.scalar("read" if rank is worker else "loss", 0, float(rank.rank))
        daemon.feed(rank)
    daemon.write()
    daemon.leave(ranks[1])
    ranks[0].scalar("loss", 1, 1.0)
    daemon.feed(ranks[0])
    daemon.write(2)
    status = daemon.writer.ranks.status()
    assert status is not None and status["alive"] == 2
    assert points(tmp_path)["loss"] == [(0, 0.5)], "its other process may log it yet"
    for step in (1, 2):
        worker.scalar("loss", step, 3.0)
    daemon.leave(worker)
    daemon.feed(worker)  # this was on its way
    ranks[0].scalar("loss", 2, 1.0)
    ranks[0].scalar("loss", 3, 1.0)
    daemon.feed(ranks[0])
    daemon.write(2)
    status = daemon.writer.ranks.status()
    assert status is not None and status["alive"] == 1
    assert points(tmp_path)["loss"] == [(0, 0.5), (1, 2.0), (2, 2.0), (3, 1.0)]
    last = Rank(tmp_path, 1, 2)  # it ends before anything of it is here
    add(daemon, last)
    daemon.leave(last)
    daemon.write()
    last.scalar("loss", 4, 3.0)
    daemon.feed(last)
    ranks[0].scalar("loss", 4, 1.0)
    ranks[0].scalar("loss", 5, 1.0)
    daemon.feed(ranks[0])
    daemon.write(2)
    status = daemon.writer.ranks.status()
    assert status is not None and status["alive"] == 1
    assert points(tmp_path)["loss"][4:] == [(4, 2.0), (5, 1.0)]
    assert all(rank.acked == len(rank.records) for rank in daemon.ranks)


def test_a_rank_with_a_tag_of_its_own_is_not_behind(tmp_path: Path) -> None:
    ranks, daemon = job(tmp_path, 2)
    for step in range(4):
        for rank in ranks:
            rank.scalar("loss", step, 1.0)
        ranks[0].scalar("lr", step, 0.1)
    for rank in ranks:
        daemon.feed(rank)
    daemon.write()
    assert points(tmp_path)["lr"][0] == (0, pytest.approx(0.1))
    assert daemon.writer.ranks.status()["behind"] == []


def test_a_late_rank_is_counted_and_joins_again_when_it_has_caught_up(tmp_path: Path, quick: None) -> None:
    ranks, daemon = job(tmp_path, 2, seconds=0.0)
    for rank in ranks:
        rank.scalar("loss", 0, float(rank.rank))
        daemon.feed(rank)
    daemon.write()
    ranks[0].scalar("loss", 1, 7.0)
    ranks[0].scalar("loss", 2, 8.0)
    daemon.feed(ranks[0])
    daemon.write(2)
    ranks[1].scalar("loss", 1, 9.0)  # too late
    ranks[1].scalar("loss", 3, 10.0)
    daemon.feed(ranks[1])
    ranks[0].scalar("loss", 3, 11.0)
    daemon.feed(ranks[0])
    daemon.write(2)
    assert points(tmp_path)["loss"] == [(0, 0.5), (1, 7.0), (2, 8.0), (3, 10.5)]
    entry = daemon.writer.entry(ranks[1].id)
    assert (entry.count, entry.refused) == (3, {"late_rank": 1})
    assert points(tmp_path / "ranks")["tbxd/ranks/late"][-1][1] == 1.0
    assert all(rank.acked == len(rank.records) for rank in ranks)


def test_a_late_histogram_is_counted_and_status_can_be_sent(tmp_path: Path, quick: None) -> None:
    ranks, daemon = job(tmp_path, 2, seconds=0.0)
    for rank in ranks:
        rank.histogram("w", 0, np.arange(3.0))
        daemon.feed(rank)
    daemon.write()
    ranks[0].histogram("w", 1, np.arange(3.0))
    daemon.feed(ranks[0])
    daemon.write(2)
    ranks[1].histogram("w", 1, np.arange(3.0))
    daemon.feed(ranks[1])
    daemon.write(2)
    assert daemon.writer.entry(ranks[1].id).refused == {"late_rank": 1}
    status = daemon.writer.ranks.status()
    assert status is not None and (status["missing"], status["late"]) == (1, 1)
    assert json.loads(json.dumps(status)) == status


def test_rows_are_reduced_by_their_tags(tmp_path: Path) -> None:
    ranks, daemon = job(tmp_path, 2)
    for step in range(3):
        ranks[0].row({"a": 1.0, "b": 2.0}, step)
        ranks[1].row({"a": 3.0, "b": 6.0, "only": 9.0}, step)
    for rank in ranks:
        daemon.feed(rank)
        daemon.leave(rank)
    daemon.write(2)
    found = points(tmp_path)
    assert found["a"] == [(step, 2.0) for step in range(3)]
    assert found["b"] == [(step, 4.0) for step in range(3)]
    assert found["only"] == [(step, 9.0) for step in range(3)]
    assert [daemon.writer.entry(rank.id).count for rank in ranks] == [3, 3]
    assert all(rank.acked == len(rank.records) for rank in ranks)


@pytest.mark.parametrize("bins", ["tensorflow", "auto", 20])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shards_are_one_histogram(tmp_path: Path, bins: str | int, dtype: type) -> None:
    """Counts, extremes and number are those of the whole tensor; sums to the last digits."""
    ranks, daemon = job(tmp_path, 4)
    whole = np.random.default_rng(3).standard_t(2, size=40_000).astype(dtype)
    shards = np.split(whole, [1, 9_000, 30_000])
    for rank, shard in zip(ranks, shards, strict=True):
        rank.histogram("w", 7, shard, bins=bins)
        daemon.feed(rank)
    daemon.write()
    events = [event for name in event_files(tmp_path) for event in read_events(tmp_path / name)]
    (found,) = [value.histo for event in events for value in event.summary.value]
    expected = histogram_of(whole, bins)
    assert list(found.bucket) == expected.counts.tolist() and list(found.bucket_limit) == expected.limits.tolist()
    assert (found.num, found.min, found.max) == (len(whole), float(whole.min()), float(whole.max()))
    np.testing.assert_allclose(found.sum, whole.astype(np.float64).sum(), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(found.sum_squares, np.square(whole.astype(np.float64)).sum(), rtol=1e-12)
    assert all(rank.acked == len(rank.records) for rank in ranks)


def test_a_histogram_that_cannot_be_made_is_counted_with_every_rank(tmp_path: Path) -> None:
    ranks, daemon = job(tmp_path, 2)
    for rank in ranks:
        rank.histogram("w", 0, np.full(3, np.nan))
        rank.scalar("after", 0, 1.0)
        daemon.feed(rank)
    daemon.write()
    assert points(tmp_path)["after"] == [(0, 1.0)]
    assert [daemon.writer.entry(rank.id).refused for rank in ranks] == [{"no_finite_values": 1}] * 2


def test_of_texts_the_lowest_ranks_is_shown_or_all_where_that_is_asked_for(tmp_path: Path) -> None:
    ranks, daemon = job(tmp_path, 2)
    for rank in ranks:
        rank.text("note", 0, f"of {rank.rank}")
        rank.text("each", 0, f"of {rank.rank}", reduce="all")
        rank.scalar("load", 0, float(rank.rank), reduce="all")
        daemon.feed(rank)
        daemon.leave(rank)
    daemon.write(2)
    found = points(tmp_path)
    assert {tag: len(values) for tag, values in found.items()} == {
        "note/text_summary": 1,
        "each/rank0/text_summary": 1,
        "each/rank1/text_summary": 1,
        "load/rank0": 1,
        "load/rank1": 1,
    }
    assert [daemon.writer.entry(rank.id).written for rank in ranks] == [3, 3]
    assert all(rank.acked == len(rank.records) for rank in ranks)


def test_of_texts_one_rank_s_are_shown_whichever_comes_first_and_whatever_is_killed(tmp_path: Path) -> None:
    """The lowest's, and the next one's where that has ended; none twice, none after a later one."""
    ranks, daemon = job(tmp_path, 3)

    def shown() -> list[tuple[int, str]]:
        found = [event for name in event_files(tmp_path) for event in read_events(tmp_path / name)]
        values = [(event.step, value) for event in found for value in event.summary.value]
        return [(step, value.tensor.string_val[0].decode()) for step, value in values]

    for step in (0, 0, 10):
        for rank in ranks:
            rank.text("note", step, f"of {rank.rank} at {step}")
    for rank in reversed(ranks):
        daemon.feed(rank, rank.ends[1] if rank.rank else None)
        daemon.write()
    once = [(0, "of 0 at 0"), (0, "of 0 at 0"), (10, "of 0 at 10")]
    assert shown() == once
    daemon.kill()
    ranks[0].text("note", 15, "of 0 at 15")
    for rank in reversed(ranks):
        daemon.feed(rank)
        daemon.write()
    assert shown() == [*once, (15, "of 0 at 15")]
    daemon.leave(ranks[0])
    for step in (15, 20):
        for rank in ranks[:0:-1]:
            rank.text("note", step, f"of {rank.rank} at {step}")
            daemon.feed(rank)
            daemon.write()
    assert shown()[4:] == [(20, "of 1 at 20")]
    assert all(rank.acked == len(rank.records) for rank in ranks)
    assert [daemon.writer.entry(rank.id).written for rank in ranks] == [4, 5, 5]


def test_a_tag_says_what_becomes_of_it(tmp_path: Path) -> None:
    words: dict[str, Callable[[list[float]], float]] = {
        "sum": np.sum,
        "min": np.min,
        "max": np.max,
        "last": lambda values: values[0],  # the wall times go down
        "p50": lambda values: np.percentile(values, 50),
        "p95": lambda values: np.percentile(values, 95),
        "p99": lambda values: np.percentile(values, 99),
    }
    ranks, daemon = job(tmp_path, 5)
    values = np.random.default_rng(5).normal(size=5)
    for rank in ranks:
        for word in words:
            rank.scalar(word, 0, float(values[rank.rank]), wall_time=100.0 - rank.rank, reduce=word)
        daemon.feed(rank)
    daemon.write()
    found = points(tmp_path)
    for word, expected in words.items():
        np.testing.assert_allclose(found[word][0][1], expected(values.tolist()), rtol=1e-6)


def test_another_start_of_the_job_takes_over_when_the_first_is_over(tmp_path: Path) -> None:
    """Also with another number of ranks; what still comes of the first is late."""
    ranks, daemon = job(tmp_path, 2)
    for rank in ranks:
        for step in range(3):
            rank.scalar("loss", step, float(rank.rank))
        daemon.feed(rank)
    daemon.write()
    again = [Rank(tmp_path, rank, 3, attempt=1, created=2.0) for rank in range(3)]
    for rank in again:
        daemon.ranks.append(rank)
        daemon.sessions[rank.id] = Session(rank.id, 0)
        for step in (3, 4):
            rank.scalar("loss", step, 10.0 * rank.rank)
        daemon.feed(rank)
    ranks[0].scalar("loss", 3, 100.0)  # of the first start, whose other rank never came so far
    daemon.feed(ranks[0])
    daemon.write()
    assert [step for step, _ in points(tmp_path)["loss"]] == [0, 1, 2]
    for rank in ranks:
        daemon.leave(rank)
    daemon.write()
    assert points(tmp_path)["loss"] == [(0, 0.5), (1, 0.5), (2, 0.5), (3, 100.0), (3, 10.0), (4, 10.0)]
    ranks[1].scalar("loss", 3, 5.0)
    daemon.feed(ranks[1])
    daemon.write(2)
    assert daemon.writer.entry(ranks[1].id).refused == {"late_rank": 1}
    assert all(rank.acked == len(rank.records) for rank in daemon.ranks)


def add(daemon: Daemon, *ranks: Rank) -> None:
    """Other processes come."""
    for rank in ranks:
        daemon.ranks = [*daemon.ranks, rank]
        daemon.sessions[rank.id] = Session(rank.id, 0)


def test_attempts_follow_each_other_by_their_numbers_whatever_clocks_say(tmp_path: Path) -> None:
    ranks, daemon = job(tmp_path, 2)
    for rank in ranks:
        rank.scalar("loss", 0, 1.0)
        daemon.feed(rank)
    daemon.write()
    again = [Rank(tmp_path, rank, 2, attempt=1, created=0.5) for rank in range(2)]  # a host whose clock is behind
    add(daemon, *again)
    for rank in again:
        rank.scalar("loss", 1, 2.0)
        daemon.feed(rank)
    for rank in ranks:
        daemon.leave(rank)
    daemon.write(2)
    assert points(tmp_path)["loss"] == [(0, 1.0), (1, 2.0)]
    assert all(daemon.writer.entry(rank.id).refused == {} for rank in daemon.ranks)


@pytest.mark.parametrize("kill", [False, True])
def test_another_job_in_the_folder_is_reduced_beside_the_first(tmp_path: Path, kill: bool) -> None:
    """Neither waits for the other, nor is late when it comes back; what a kill leaves out of one is made again."""
    ranks, daemon = job(tmp_path, 2)
    random = np.random.default_rng(3)
    other = [Rank(tmp_path, rank, 2, job="evaluation", created=2.0) for rank in range(2)]
    add(daemon, *other)
    for step in range(7):
        for rank in ranks:
            rank.scalar("loss", step, float(rank.rank))
            daemon.feed(rank)
        for rank in other:
            rank.scalar("eval", step, 4.0 + rank.rank)
            daemon.feed(rank)
        if kill and step % 2:
            daemon.kill_in_write(random)
            for rank in (*ranks, *other):
                daemon.feed(rank)
        daemon.write()
        assert [at for at, _ in points(tmp_path)["loss"]] == list(range(step + 1))
        assert [at for at, _ in points(tmp_path)["eval"]] == list(range(step + 1)), "the first one goes on"
    status = daemon.writer.ranks.status()
    assert status is not None and (status["world"], status["alive"], status["waiting"]) == (4, 4, 0)
    for rank in ranks:
        daemon.leave(rank)
    daemon.write(2)
    status = daemon.writer.ranks.status()
    assert status is not None and (status["world"], status["alive"]) == (2, 2)
    if kill:
        daemon.kill()
        for rank in other:
            daemon.feed(rank)
    for rank in other:
        daemon.leave(rank)
    back = [Rank(tmp_path, rank, 2) for rank in range(2)]  # the first job opens the folder again
    add(daemon, *back)
    for rank in back:
        rank.scalar("loss", 7, float(rank.rank))
        daemon.feed(rank)
    daemon.write(3)
    assert points(tmp_path) == {
        "loss": [(step, 0.5) for step in range(8)],
        "eval": [(step, 4.5) for step in range(7)],
    }
    for side, more in (("min", 0), ("max", 1)):
        assert points(tmp_path / "ranks" / side) == {
            "loss": [(step, float(more)) for step in range(8)],
            "eval": [(step, 4.0 + more) for step in range(7)],
        }
    assert all(daemon.writer.entry(rank.id).refused == {} for rank in daemon.ranks)
    assert all(rank.acked == len(rank.records) for rank in daemon.ranks)


def test_a_restart_that_names_a_tag_whose_ranks_are_shown_one_by_one(tmp_path: Path, quick: None) -> None:
    ranks, daemon = job(tmp_path, 2)
    for rank in ranks:
        rank.scalar("load", 0, float(rank.rank), reduce="all")
        rank.add(pack_record_head(RESTART, rank.tag("never logged"), 50, 1.0, {}, 0))
        rank.scalar("load", 50, float(rank.rank), reduce="all")
        daemon.feed(rank)
    daemon.write(2)
    assert points(tmp_path) == {f"load/rank{rank}": [(0, float(rank)), (50, float(rank))] for rank in range(2)}
    assert all(daemon.writer.entry(rank.id).refused == {} for rank in ranks)


def test_percentiles_of_infinities_are_infinite(tmp_path: Path) -> None:
    inf = float("inf")
    for number, (values, expected) in enumerate(
        [([1.0, inf], inf), ([inf, inf], inf), ([-inf, 1.0], -inf), ([-inf, -inf], -inf), ([-inf, inf], float("nan"))]
    ):
        ranks, daemon = job(tmp_path / str(number), 2)
        for rank in ranks:
            rank.scalar("time", 0, values[rank.rank], reduce="p50")
            daemon.feed(rank)
        daemon.write()
        np.testing.assert_equal(points(tmp_path / str(number))["time"], [(0, expected)])


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(
    "steps",
    [[0] * 20, [*range(10)] * 3, [*range(100), *range(50, 100)], [0, 1, 2, 1, 2, 3, 3, 2, 5]],
    ids=["no step", "epochs", "purged", "to and fro"],
)
def test_what_goes_back_is_a_stretch_of_its_own_and_nothing_is_late(
    tmp_path: Path, steps: list[int], mixed: bool
) -> None:
    """The n-th of one rank goes with the n-th of another, however far one is ahead."""
    ranks, daemon = job(tmp_path, 3)
    values = np.random.default_rng(7).normal(size=(len(steps), 3))
    for index, step in enumerate(steps):
        for rank in ranks:
            rank.scalar("loss", step, float(values[index, rank.rank]))
            rank.scalar("acc", index, float(rank.rank))
    random = np.random.default_rng(8)
    while mixed and any(rank.sent < len(rank.records) for rank in ranks):
        rank = ranks[int(random.integers(3))]
        daemon.feed(rank, int(random.integers(rank.sent, len(rank.records) + 1)))
        daemon.write()
    for rank in ranks:
        daemon.feed(rank)
    daemon.write(2)
    found = points(tmp_path)
    assert [step for step, _ in found["loss"]] == steps
    np.testing.assert_allclose([value for _, value in found["loss"]], values.mean(axis=1), rtol=1e-5, atol=1e-6)
    assert found["acc"] == [(index, 1.0) for index in range(len(steps))]
    for side, how in (("min", np.min), ("max", np.max)):
        beside = points(tmp_path / "ranks" / side)["loss"]
        assert beside == [(step, np.float32(how(row))) for step, row in zip(steps, values, strict=True)]
    assert all(daemon.writer.entry(rank.id).refused == {} for rank in ranks)
    assert all(rank.acked == len(rank.records) for rank in ranks)


def test_a_rank_that_does_not_go_back_is_taken_to_be_where_the_others_are(tmp_path: Path, quick: None) -> None:
    ranks, daemon = job(tmp_path, 2, seconds=0.0)
    for rank in ranks:
        for step in range(3):
            rank.scalar("loss", step, 1.0)
        daemon.feed(rank)
    daemon.write()
    ranks[0].scalar("loss", 1, 5.0)
    daemon.feed(ranks[0])
    daemon.write(2)
    assert points(tmp_path)["loss"][3:] == [(1, 5.0)]
    for rank in ranks:
        rank.scalar("loss", 3, float(rank.rank))
        daemon.feed(rank)
    daemon.write(2)
    assert points(tmp_path)["loss"][4:] == [(3, 0.5)]
    assert all(daemon.writer.entry(rank.id).refused == {} for rank in ranks)


@pytest.mark.parametrize("apart", [False, True])
def test_a_rank_that_logs_a_tag_twice_at_a_step_counts_with_the_last_value(tmp_path: Path, apart: bool) -> None:
    """Nor do the others lose it for that, whenever it comes."""
    ranks, daemon = job(tmp_path, 2)
    for step in range(5):
        for rank in ranks:
            rank.scalar("loss", step, 1.0)
        ranks[0].scalar("loss", step, 5.0)
    ranks[0].scalar("loss", 5, 1.0)
    for end in ranks[0].ends if apart else ranks[0].ends[-1:]:
        daemon.feed(ranks[0], end)
        daemon.write()
    daemon.feed(ranks[1])
    daemon.write(2)
    assert points(tmp_path)["loss"] == [(step, 3.0) for step in range(5)]
    assert all(daemon.writer.entry(rank.id).refused == {} for rank in ranks)
    assert ranks[1].acked == len(ranks[1].records)


def test_a_rank_that_has_ended_in_an_earlier_stretch_is_not_waited_for(tmp_path: Path) -> None:
    ranks, daemon = job(tmp_path, 2)
    for step in (0, 1, 0, 1):
        ranks[0].scalar("loss", step, 1.0)
    ranks[1].scalar("loss", 0, 3.0)
    for rank in ranks:
        daemon.feed(rank)
    daemon.write()
    assert points(tmp_path)["loss"] == [(0, 2.0)]
    daemon.leave(ranks[1])
    daemon.write(2)
    assert points(tmp_path)["loss"] == [(0, 2.0), (1, 1.0), (0, 1.0), (1, 1.0)]
    assert all(rank.acked == len(rank.records) for rank in ranks)


TAGS = ("loss", "acc", "grad/norm", "lr")
Program = list[tuple[str, int]]


@st.composite
def programs(draw: st.DrawFn) -> tuple[int, list[Program]]:
    """For each rank of a job what it logs: tags whose steps grow, each rank in an order of its own."""
    world = draw(st.integers(2, 4))
    steps = draw(st.integers(1, 6))
    ranks = []
    for _ in range(world):
        logged = [
            [(tag, step) for tag in draw(st.permutations(TAGS)) if draw(st.integers(0, 9)) < 8] for step in range(steps)
        ]
        ranks.append([call for step in logged for call in step])
    return world, ranks


@st.composite
def one_program(draw: st.DrawFn) -> tuple[int, list[Program]]:
    """The same where the ranks log in one order, and each tag is logged by some of them always."""
    world = draw(st.integers(2, 4))
    steps = draw(st.integers(1, 6))
    order = draw(st.permutations(TAGS))
    whose = {tag: draw(st.sets(st.integers(0, world - 1), min_size=1)) for tag in TAGS}
    return world, [
        [(tag, step) for step in range(steps) for tag in order if rank in whose[tag]] for rank in range(world)
    ]


@given(program=programs(), seed=st.integers(0, 1 << 30))
@settings(max_examples=examples(200), deadline=None)
def test_every_value_is_in_one_point_however_it_comes_and_whatever_is_killed(
    tmp_path_factory: pytest.TempPathFactory, program: tuple[int, list[Program]], seed: int
) -> None:
    """Also where every rank has an order of its own: then only time tells that a tag is one rank's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tags.Tags, "_pass_by", lambda self, member: None)
        run_program(tmp_path_factory.mktemp("run"), program, seed)


@given(program=one_program(), seed=st.integers(0, 1 << 30))
@settings(max_examples=examples(200), deadline=None)
def test_so_it_is_where_all_ranks_run_one_program_without_waiting(
    tmp_path_factory: pytest.TempPathFactory, program: tuple[int, list[Program]], seed: int
) -> None:
    run_program(tmp_path_factory.mktemp("run"), program, seed)


Logged = dict[tuple[str, int], dict[int, float]]  # by tag and step, and by rank


def log_and_kill(ranks: list[Rank], daemon: Daemon, calls: list[Program], random: np.random.Generator) -> Logged:
    """Log random numbers, and let the daemon have some of it, in any pieces, between kills at any moment."""
    logged: Logged = {}
    for rank, own in zip(ranks, calls, strict=True):
        for tag, step in own:
            value = float(random.normal())
            rank.scalar(tag, step, value)
            logged.setdefault((tag, step), {})[rank.rank] = value
    for _ in range(int(random.integers(1, 12))):
        rank = ranks[int(random.integers(len(ranks)))]
        daemon.feed(rank, int(random.integers(rank.sent, len(rank.records) + 1)))
        if random.random() < 0.5:
            daemon.write()
        if random.random() < 0.4:
            (daemon.kill if random.random() < 0.3 else lambda: daemon.kill_in_write(random))()
    return logged


def run_program(run: Path, program: tuple[int, list[Program]], seed: int) -> None:
    world, calls = program
    random = np.random.default_rng(seed)
    ranks, daemon = job(run, world)
    logged = log_and_kill(ranks, daemon, calls, random)
    for rank in ranks:
        daemon.feed(rank)
        daemon.leave(rank)
    daemon.write(3)
    check(run, logged, ranks, daemon)
    daemon.writer.close()


@st.composite
def to_and_fro(draw: st.DrawFn) -> tuple[int, list[list[tuple[str, int]]]]:
    """For each rank of a job what it logs: one program, whose tags go back as they like, and which not all ranks log.

    A step that is repeated before a later one is left out: what is meant by that depends on when it is known.
    """
    world = draw(st.integers(2, 3))
    tags = TAGS[:3]
    whose = {tag: draw(st.sets(st.integers(0, world - 1), min_size=2)) for tag in tags}
    program: list[tuple[str, int]] = []
    for tag, step in draw(st.lists(st.tuples(st.sampled_from(tags), st.integers(0, 3)), min_size=4, max_size=14)):
        before = [old for name, old in program if name == tag][-2:]
        if len(before) < 2 or not before[0] == before[1] < step:
            program.append((tag, step))
    return world, [[(tag, step) for tag, step in program if rank in whose[tag]] for rank in range(world)]


@pytest.mark.parametrize("histograms", [False, True])
@given(program=to_and_fro(), seed=st.integers(0, 1 << 30))
@settings(max_examples=examples(100), deadline=None)
def test_what_goes_back_is_in_one_point_each_time_whatever_is_killed(
    tmp_path_factory: pytest.TempPathFactory, histograms: bool, program: tuple[int, list[Program]], seed: int
) -> None:
    """The n-th record of one rank is in the n-th point of its tag, with the n-th of all others that log it."""
    world, calls = program
    random = np.random.default_rng(seed)
    run = tmp_path_factory.mktemp("run")
    ranks, daemon = job(run, world)
    expected: dict[str, list[tuple[int, list[float]]]] = {}
    for rank, own in zip(ranks, calls, strict=True):
        place: dict[str, int] = {}
        for tag, step in own:
            value = float(random.normal())
            if histograms and tag == TAGS[0]:
                rank.histogram(tag, step, np.array([value]))
            else:
                rank.scalar(tag, step, value)
            known = expected.setdefault(tag, [])
            number = place[tag] = place.get(tag, -1) + 1
            if number == len(known):
                known.append((step, []))
            known[number][1].append(value)
    for _ in range(int(random.integers(1, 20))):
        rank = ranks[int(random.integers(world))]
        daemon.feed(rank, int(random.integers(rank.sent, len(rank.records) + 1)))
        if random.random() < 0.6:
            daemon.write()
        if random.random() < 0.4:
            (daemon.kill if random.random() < 0.3 else lambda: daemon.kill_in_write(random))()
    for rank in ranks:
        daemon.feed(rank)
    daemon.write()
    for rank in ranks:
        daemon.leave(rank)
    daemon.write(3)
    found = points(run)
    assert {tag: [step for step, _ in values] for tag, values in found.items()} == {
        tag: [step for step, _ in values] for tag, values in expected.items()
    }
    for tag, values in expected.items():
        if not (histograms and tag == TAGS[0]):
            means = [np.mean(of_ranks) for _, of_ranks in values]
            np.testing.assert_allclose([value for _, value in found[tag]], means, rtol=1e-5, atol=1e-6)
            for side, extreme in (("min", min), ("max", max)):
                beside = points(run / "ranks" / side)[tag]
                assert beside == [(step, np.float32(extreme(of_ranks))) for step, of_ranks in values]
    for rank in ranks:
        entry = daemon.writer.entry(rank.id)
        assert (entry.count, entry.refused) == (rank.accepted, {})
        assert rank.acked == len(rank.records)
    daemon.writer.close()


def check(run: Path, logged: Logged, ranks: list[Rank], daemon: Daemon) -> None:
    found = points(run)
    assert {tag: [step for step, _ in values] for tag, values in found.items()} == {
        tag: sorted(step for name, step in logged if name == tag) for tag in {name for name, _ in logged}
    }
    low, high = points(run / "ranks" / "min"), points(run / "ranks" / "max")
    for (tag, step), of_ranks in logged.items():
        values = list(of_ranks.values())
        assert np.float32(dict(found[tag])[step]) == pytest.approx(np.mean(values), rel=1e-6, abs=1e-7)
        if len(values) > 1:
            assert dict(low[tag])[step] == np.float32(min(values))
            assert dict(high[tag])[step] == np.float32(max(values))
    for side in (low, high):
        for values in side.values():
            assert [step for step, _ in values] == sorted({step for step, _ in values})
    for rank in ranks:
        entry = daemon.writer.entry(rank.id)
        assert (entry.count, entry.refused) == (rank.accepted, {})
        assert rank.acked == len(rank.records)


@given(program=programs(), seed=st.integers(0, 1 << 30))
@settings(max_examples=examples(200), deadline=None)
def test_where_nobody_is_waited_for_each_point_says_of_which_ranks_it_is_and_the_others_are_counted(
    tmp_path_factory: pytest.TempPathFactory, program: tuple[int, list[Program]], seed: int
) -> None:
    world, calls = program
    run = tmp_path_factory.mktemp("run")
    random = np.random.default_rng(seed)
    ranks, daemon = job(run, world, seconds=0.0)
    logged = log_and_kill(ranks, daemon, calls, random)
    for rank in ranks:
        daemon.feed(rank)
    daemon.writer.read_for(ranks[0].run)  # also where nothing comes after the last kill
    daemon.write(3)
    marked = members(run)
    beside = {side: members(run / "ranks" / side) for side in ("min", "max") if (run / "ranks" / side).exists()}
    written = 0
    for (tag, step), (value, present) in marked.items():
        ours = [logged[tag, step][rank] for rank in sorted(logged[tag, step]) if present is None or rank in present]
        written += len(ours)
        assert np.float32(value) == pytest.approx(np.mean(ours), rel=1e-6, abs=1e-7)
        for side, extreme in (("min", min), ("max", max)):
            if (tag, step) in beside.get(side, {}):
                number, there = beside[side][tag, step]  # of others, where the run's was made anew after a kill
                known = [value for rank, value in logged[tag, step].items() if there is None or rank in there]
                assert number == np.float32(extreme(known))
    found = {tag: values for tag, values in points(run).items() if tag in TAGS}
    for tag in {tag for tag, _ in marked}:
        steps = [step for step, _ in found[tag]]
        assert steps == sorted(steps)
    entries = [daemon.writer.entry(rank.id) for rank in ranks]
    assert [entry.count for entry in entries] == [rank.accepted for rank in ranks]
    alone = sum(map(len, found.values())) - len(marked)  # what was a rank's own at the time
    assert sum(entry.written for entry in entries) == written + alone
    assert {reason for entry in entries for reason in entry.refused} <= {"late_rank"}
    assert all(rank.acked == len(rank.records) for rank in ranks)
    daemon.writer.close()


def members(directory: Path) -> dict[tuple[str, int], tuple[float, frozenset[int] | None]]:
    """Each point of several ranks, and of which it is."""
    result: dict[tuple[str, int], tuple[float, frozenset[int] | None]] = {}
    for name in event_files(directory):
        ranks, reducing = None, False
        for event in read_events(directory / name):
            writer = event.source_metadata.writer
            if writer:
                reducing = writer.startswith("R")
                ranks = decode_ranks(writer) if reducing else None
            for value in event.summary.value if reducing else ():
                assert (value.tag, event.step) not in result
                result[value.tag, event.step] = (value.simple_value, ranks)
    return result


def test_a_rank_that_logs_is_waited_for_however_many_steps_it_is_behind(tmp_path: Path) -> None:
    """Of two quick scripts one is read before the other: that one is late, it is not missing."""
    ranks, daemon = job(tmp_path, 2)
    for step in range(5000):
        for rank in ranks:
            rank.scalar("loss", step, float(rank.rank))
    for end in (1, 2500, 2600, 5000):
        for rank in ranks:
            daemon.feed(rank, rank.ends[(end if rank.rank or end == 1 else 5000) - 1])
            daemon.write()
    assert points(tmp_path) == {"loss": [(step, 0.5) for step in range(5000)]}
    assert all(daemon.writer.entry(rank.id).refused == {} for rank in ranks)


def test_too_many_steps_of_a_tag_do_not_wait_for_a_rank_of_which_nothing_comes(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PENDING_STEPS_MAX", 3)
    ranks, daemon = job(tmp_path, 2)
    for rank in ranks:
        rank.scalar("loss", 0, float(rank.rank))
    for step in range(1, 8):
        ranks[0].scalar("loss", step, float(step))
    for rank in ranks:
        daemon.feed(rank)
    daemon.write()
    assert [step for step, _ in points(tmp_path)["loss"]] == [0, 1, 2, 3, 4, 5, 6, 7]
    ranks[1].scalar("loss", 8, 3.0)
    ranks[0].scalar("loss", 8, 5.0)
    for rank in ranks:
        daemon.feed(rank)
    daemon.write()
    assert points(tmp_path)["loss"][-1] == (8, 4.0)


def test_a_tag_that_all_others_have_passed_by_is_a_ranks_own_without_waiting(tmp_path: Path) -> None:
    ranks, daemon = job(tmp_path, 3)
    for step in range(2):
        ranks[0].scalar("lr", step, 0.5)
        for rank in ranks:
            rank.scalar("loss", step, float(rank.rank))
    daemon.feed(ranks[0])
    daemon.feed(ranks[1])
    daemon.write()
    assert "lr" not in points(tmp_path)
    daemon.feed(ranks[2])
    daemon.write(2)
    assert points(tmp_path) == {"lr": [(0, 0.5), (1, 0.5)], "loss": [(0, 1.0), (1, 1.0)]}
    assert all(rank.acked == len(rank.records) for rank in ranks)


def test_a_tag_is_a_ranks_own_when_the_others_have_gone_on_from_what_it_logged_before(tmp_path: Path) -> None:
    """Nothing that follows it has to be read for that: it may stand behind more than may be on the way."""
    ranks, daemon = job(tmp_path, 3)
    for rank in ranks:
        rank.scalar("loss", 0, float(rank.rank))
    for tag in ("w0", "w1"):
        ranks[0].histogram(tag, 0, np.arange(3.0))
    ranks[1].scalar("loss", 1, 1.0)
    for rank in ranks:
        daemon.feed(rank)
    daemon.write(2)
    assert set(points(tmp_path)) == {"loss"}, "the third may come to it yet"
    ranks[2].scalar("loss", 1, 1.0)
    daemon.feed(ranks[2])
    daemon.write(2)
    assert {tag: len(found) for tag, found in points(tmp_path).items()} == {"loss": 1, "w0": 1, "w1": 1}
    assert ranks[0].acked == len(ranks[0].records)


def test_no_point_goes_out_without_a_rank_whose_records_are_on_their_way(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long they take, and however many steps wait; what is known of a rank up to a moment counts as such."""
    monkeypatch.setattr(waiting, "PENDING_STEPS_MAX", 3)
    ranks, daemon = job(tmp_path, 2, seconds=0.2)
    now = time.monotonic()
    for step in range(8):
        for rank in ranks:
            rank.scalar("tokens", step, 1.0, reduce="sum")
    daemon.feed(ranks[0], ranks[0].ends[0])
    daemon.feed(ranks[1])
    daemon.read[ranks[0].id] = (now, now + 100)
    daemon.write()
    wait_for(lambda: time.monotonic() > now + 0.5, "more than a rank is waited for", pause=0.05)
    daemon.write()
    assert points(tmp_path)["tokens"] == [(0, 2.0)]
    daemon.feed(ranks[0])
    daemon.read.clear()
    daemon.write()
    assert points(tmp_path)["tokens"] == [(step, 2.0) for step in range(8)]
    ranks[1].scalar("tokens", 8, 1.0, reduce="sum")
    daemon.feed(ranks[1])
    daemon.read[ranks[0].id] = (now, now)  # nothing of it comes any more, whatever keeps it
    daemon.write()
    wait_for(lambda: daemon.write() or (8, 1.0) in points(tmp_path)["tokens"], "a rank that is given up", 5, 0.05)


def test_a_tag_is_not_taken_for_whole_before_a_rank_is_read_that_may_log_it(tmp_path: Path, quick: None) -> None:
    ranks, daemon = job(tmp_path, 2)
    for rank in ranks:
        rank.scalar("loss", 0, 1.0)
        rank.scalar("tokens", 0, 1.0, reduce="sum")
    daemon.feed(ranks[0], ranks[0].ends[0])
    daemon.feed(ranks[1])
    now = time.monotonic()
    daemon.read[ranks[0].id] = (now - 1, now + 100)
    daemon.write(2)
    assert "tokens" not in points(tmp_path)
    daemon.feed(ranks[0])
    daemon.read.clear()
    daemon.write(2)
    assert points(tmp_path)["tokens"] == [(0, 2.0)]


def test_the_first_point_of_a_tag_in_each_file_has_its_colour_and_texts(tmp_path: Path) -> None:
    ranks, daemon = job(tmp_path, 2)
    for life in range(2):
        for rank in ranks:
            for step in range(3 * life, 3 * life + 3):
                rank.scalar("loss", step, 1.0, color="#ff0000")
                rank.scalar("acc", step, 1.0)
            daemon.feed(rank)
        daemon.write()
        daemon.kill()
    for name in event_files(tmp_path):
        values = [value for event in read_events(tmp_path / name) for value in event.summary.value]
        colors = [color_of(value.metadata.plugin_data.content) for value in values if value.tag == "loss"]
        assert colors == ["#ff0000", "", ""]
    assert points(tmp_path) == {tag: [(step, 1.0) for step in range(6)] for tag in ("loss", "acc")}


# --- somebody else ------------------------------------------------------------------------------------------------


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Somebody else writes this folder."""
    folder.mkdir(parents=True)
    fd = os.open(folder, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(fd)


def test_a_side_that_somebody_else_holds_loses_nothing(tmp_path: Path) -> None:
    ranks = [Rank(tmp_path, number, 2) for number in range(2)]
    alone = Rank(tmp_path, 0, 1, job="another")
    daemon = Daemon(tmp_path, [alone, *ranks])
    for step in range(3):
        alone.scalar("own", step, 7.0)
        for rank in ranks:
            rank.scalar("loss", step, float(rank.rank))
    with held(tmp_path / "ranks" / "min"):
        for rank in daemon.ranks:
            daemon.feed(rank)
        for _ in range(2):
            daemon.writer.write()
            assert "somebody else" in daemon.writer.error
            assert daemon.writer.waiting
    daemon.write(2)
    assert points(tmp_path) == {"own": [(step, 7.0) for step in range(3)], "loss": [(step, 0.5) for step in range(3)]}
    assert points(tmp_path / "ranks" / "min") == {"loss": [(step, 0.0) for step in range(3)]}
    assert all(rank.acked == len(rank.records) for rank in daemon.ranks)


def test_the_next_start_of_a_job_waits_for_a_side_that_somebody_else_holds(tmp_path: Path, quick: None) -> None:
    first, second = (
        [Rank(tmp_path, number, 2, attempt=attempt, created=1.0 + attempt) for number in range(2)] for attempt in (0, 1)
    )
    daemon = Daemon(tmp_path, [*first, *second])
    for rank in first:
        rank.scalar(f"own/{rank.rank}", 0, 1.0)
    for rank in second:
        rank.scalar("loss", 1, float(rank.rank))
    for rank in first:
        daemon.feed(rank)
    daemon.write()
    with held(tmp_path / "ranks" / "max"):
        for rank in second:
            daemon.feed(rank)
        for rank in first:
            daemon.leave(rank)
        for _ in range(2):
            daemon.writer.write()
            assert "somebody else" in daemon.writer.error
    daemon.write(2)
    assert points(tmp_path) == {"own/0": [(0, 1.0)], "own/1": [(0, 1.0)], "loss": [(1, 0.5)]}
    assert all(rank.acked == len(rank.records) for rank in daemon.ranks)


def test_the_end_of_a_rank_comes_behind_its_records_however_the_threads_meet(tmp_path: Path) -> None:
    """The last records of a rank and its end come while a write is between its queue and what goes out."""
    ranks = [Rank(tmp_path, rank, 2) for rank in range(2)]
    daemon = Daemon(tmp_path, ranks)
    for rank in ranks:
        for step in range(6):
            rank.scalar("loss", step, 2.0 * rank.rank)
    for rank in ranks:
        daemon.feed(rank, rank.ends[2])
    daemon.write()
    daemon.feed(ranks[0])
    emit = daemon.writer.ranks.emit

    def met(pieces: list[Piece], gone: int) -> list[bytes]:
        daemon.writer.ranks.emit = emit  # type: ignore[method-assign]
        daemon.feed(ranks[1])
        daemon.leave(ranks[1])
        return emit(pieces, gone)

    daemon.writer.ranks.emit = met  # type: ignore[method-assign]
    daemon.write()
    daemon.write()
    assert points(tmp_path)["loss"] == [(step, 1.0) for step in range(6)]
    assert not daemon.writer.ranks.news
    assert all(rank.acked == len(rank.records) for rank in ranks)
    ranks[0].scalar("loss", 6, 5.0)
    daemon.feed(ranks[0])
    daemon.write()
    assert points(tmp_path)["loss"][6:] == [(6, 5.0)], "nobody waits for who has left"


def test_who_ends_of_a_start_that_is_over_is_not_remembered(tmp_path: Path) -> None:
    """Else each write would look through all of them."""
    late, here, next_start = (Rank(tmp_path, 0, 2, attempt=attempt) for attempt in range(3))
    daemon = Daemon(tmp_path, [late, here, next_start])
    here.scalar("loss", 0, 1.0)
    daemon.feed(here)
    daemon.write()
    for rank in (late, next_start):
        daemon.leave(rank)
    daemon.write()
    assert [session for session, _ in daemon.writer.ranks._early] == [next_start.id]
