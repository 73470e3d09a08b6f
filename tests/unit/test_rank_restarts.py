"""Ranks say where they go on (``purge_step``): in all readers each step is shown once, as it was logged last."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator

from harness import wait_for
from ranks_world import Daemon, Rank
from tbxd.ingest.session import Session
from tbxd_client.protocol.kinds import RESTART
from tbxd_client.protocol.records import pack_record_head

Points = list[tuple[int, float]]


def purge(rank: Rank, step: int, asked: float) -> None:
    rank.add(pack_record_head(RESTART, rank.tag("loss"), step, asked, {}, 0))


def shown(folder: Path, tag: str) -> Points:
    """What `EventAccumulator` and TensorBoard's slow loader make of a tag, which has to be the same."""
    old = event_accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    old.Reload()
    found = [(event.step, event.value) for event in old.Scalars(tag)] if tag in old.Tags()["scalars"] else []
    new = plugin_event_accumulator.EventAccumulator(str(folder), tensor_size_guidance={"scalars": 0})
    new.Reload()
    slow = [(event.step, event.tensor_proto.float_val[0]) for event in new.Tensors(tag)] if found else []
    assert slow == found
    return found


def both(rank: Rank, tag: str, steps: range, at: float, value: float = 0.0) -> None:
    for step in steps:
        rank.scalar(tag, step, value + step + rank.rank, wall_time=at + step)


@pytest.mark.parametrize("kill", [False, True])
@pytest.mark.parametrize("first", [0, 1])
def test_what_another_rank_logs_behind_the_moment_of_the_first_is_forgotten_as_well(
    tmp_path: Path, first: int, kill: bool
) -> None:
    """Neither clocks nor who is read first decide; the second purge_step of one step counts as the first did."""
    ranks = [Rank(tmp_path, rank, 2) for rank in range(2)]
    daemon = Daemon(tmp_path, ranks)
    for rank, at in zip(ranks, (0.0, 1000.0), strict=True):  # of which one is long behind
        both(rank, "loss", range(100), at)
        both(rank, "gone", range(100), at)
        for again in (1, 2):
            purge(rank, 50, at + 200 * again)
            both(rank, "loss", range(50, 80), at + 200 * again)
    random = np.random.default_rng(5)
    order = [ranks[first], ranks[1 - first]]
    for rank in order:
        daemon.feed(rank, int(random.integers(len(rank.records))))
        daemon.write()
        if kill:
            daemon.kill_in_write(random)
    for rank in order:
        daemon.feed(rank)
        daemon.write()
        if kill:
            daemon.kill_in_write(random)
    for rank in order:
        daemon.feed(rank)
    daemon.write(2)
    assert shown(tmp_path, "loss") == [(step, step + 0.5) for step in range(80)]
    assert shown(tmp_path, "gone") == [(step, step + 0.5) for step in range(50)]
    for side, more in (("min", 0), ("max", 1)):
        assert shown(tmp_path / "ranks" / side, "loss") == [(step, step + more) for step in range(80)]
        assert shown(tmp_path / "ranks" / side, "gone") == [(step, step + more) for step in range(50)]
    assert [step for step, _ in shown(tmp_path / "ranks", "tbxd/ranks/std/loss")] == list(range(80))
    assert all(daemon.writer.entry(rank.id).refused == {} for rank in ranks)
    assert all(rank.acked == len(rank.records) for rank in ranks)
    daemon.writer.close()


def test_a_purge_step_is_repeated_in_a_later_attempt_and_by_another_rank(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path, [])
    everybody: list[Rank] = []
    for attempt, end in enumerate((100, 90, 70)):
        ranks = [Rank(tmp_path, rank, 2, attempt=attempt, created=1.0) for rank in range(2)]
        daemon.ranks += ranks
        for rank in ranks if attempt % 2 else ranks[::-1]:
            daemon.sessions[rank.id] = Session(rank.id, 0)
            if attempt:
                purge(rank, 50, 1.0)  # of a host whose clock is behind what was logged
            both(rank, "loss", range(50 if attempt else 0, end), 2.0)
            daemon.feed(rank)
        daemon.write()
        for rank in ranks:
            daemon.leave(rank)
        daemon.write(2)
        everybody += ranks
    assert shown(tmp_path, "loss") == [(step, step + 0.5) for step in range(70)]
    assert all(daemon.writer.entry(rank.id).refused == {} for rank in everybody)
    assert all(rank.acked == len(rank.records) for rank in everybody)
    daemon.writer.close()


def test_a_rank_that_goes_back_without_saying_so_holds_up_nobody(tmp_path: Path) -> None:
    ranks = [Rank(tmp_path, rank, 2) for rank in range(2)]
    daemon = Daemon(tmp_path, ranks)
    for rank in ranks:
        both(rank, "loss", range(100), 0.0)
        if not rank.rank:
            purge(rank, 50, 300.0)
        both(rank, "loss", range(50, 100), 400.0)
        daemon.feed(rank)
    daemon.write(2)
    assert shown(tmp_path, "loss") == [(step, step + 0.5) for step in range(100)]
    assert all(rank.acked == len(rank.records) for rank in ranks)
    daemon.writer.close()


def test_a_rank_that_never_comes_to_a_restart_is_waited_for_as_for_a_point(tmp_path: Path) -> None:
    ranks = [Rank(tmp_path, rank, 2) for rank in range(2)]
    daemon = Daemon(tmp_path, ranks, seconds=0.5)
    for rank in ranks:
        both(rank, "loss", range(10), 0.0)
    purge(ranks[0], 5, 300.0)
    both(ranks[0], "loss", range(5, 10), 400.0)
    for rank in ranks:
        daemon.feed(rank)
    daemon.write(2)
    begun = time.monotonic()
    assert daemon.writer.entry(ranks[0].id).end == ranks[0].ends[9], "what stands behind it waits"
    assert 0 < daemon.writer.ranks.due <= begun + 0.5
    wait_for(lambda: daemon.write(2) or ranks[0].acked == len(ranks[0].records), "it to be given up", 10, 0.05)
    assert shown(tmp_path, "loss") == [
        *((step, step + 0.5) for step in range(5)),
        *((s, float(s)) for s in range(5, 10)),
    ]
    daemon.writer.close()


def test_a_rank_that_comes_late_to_a_restart_that_is_written_forgets_nothing_once_more(tmp_path: Path) -> None:
    ranks = [Rank(tmp_path, rank, 2) for rank in range(2)]
    daemon = Daemon(tmp_path, ranks, seconds=0.0)
    for rank in ranks:
        both(rank, "loss", range(10), 0.0)
        daemon.feed(rank)
    daemon.write(2)
    purge(ranks[0], 5, 300.0)
    both(ranks[0], "loss", range(5, 10), 400.0)
    daemon.feed(ranks[0])
    daemon.write(3)
    before = shown(tmp_path, "loss")
    assert before[5:] == [(step, float(step)) for step in range(5, 10)]
    purge(ranks[1], 5, 300.0)
    daemon.feed(ranks[1])
    daemon.write(3)
    assert shown(tmp_path, "loss") == before and ranks[1].acked == len(ranks[1].records)
    daemon.writer.close()


def test_the_first_records_of_new_ranks_are_restarts_and_wait_for_nobody(tmp_path: Path) -> None:
    ranks = [Rank(tmp_path, rank, 3) for rank in range(3)]
    daemon = Daemon(tmp_path, ranks)
    for rank in ranks:
        purge(rank, 5, 1.0)
        both(rank, "loss", range(5, 10), 2.0)
    daemon.feed(ranks[2])
    daemon.write()
    assert daemon.writer.entry(ranks[2].id).end == ranks[2].ends[0]
    for rank in ranks:
        daemon.feed(rank)
    daemon.write(2)
    assert shown(tmp_path, "loss") == [(step, step + 1.0) for step in range(5, 10)]
    assert all(rank.acked == len(rank.records) for rank in ranks)
    daemon.writer.close()


def program(random: np.random.Generator) -> list[tuple[str, int]]:
    """What all ranks do: tags and steps, and restarts (``""``). A step that is repeated before a later one is left out:
    what is meant by that depends on when it is known."""
    calls: list[tuple[str, int]] = [("x", int(random.integers(6)))]
    for _ in range(int(random.integers(2, 16))):
        step = int(random.integers(6))
        tag = "" if random.random() < 0.2 else str(random.choice(["x", "loss", "acc"]))
        before = [old for name, old in calls if name == tag][-2:]
        if not tag or len(before) < 2 or not before[0] == before[1] < step:
            calls.append((tag, step))
    return calls


@pytest.mark.parametrize("seed", range(40))
def test_sequences_of_stretches_and_restarts_whatever_is_killed(tmp_path: Path, seed: int) -> None:
    """The oracle: the n-th record of a tag of one rank goes with the n-th of the others that log it, and a restart
    takes from all tags what they have at or behind its step."""
    random = np.random.default_rng(seed)
    world = int(random.integers(2, 4))
    calls = program(random)
    whose = {tag: [rank for rank in range(world) if random.random() < 0.8] or [0] for tag in ("loss", "acc")}
    whose["x"] = list(range(world))
    ranks = [Rank(tmp_path, rank, world) for rank in range(world)]
    daemon = Daemon(tmp_path, ranks)
    expected: dict[str, list[tuple[int, list[float]]]] = {}
    for tag, step in calls:
        if tag:
            values = {rank: float(np.float32(random.random())) for rank in whose[tag]}
            for rank, value in values.items():
                ranks[rank].scalar(tag, step, value, wall_time=100 * random.random())
            expected.setdefault(tag, []).append((step, list(values.values())))
            continue
        for rank in ranks:
            purge(rank, step, 100 * random.random())
        expected = {name: [point for point in points if point[0] < step] for name, points in expected.items()}
    for _ in range(int(random.integers(1, 16))):
        rank = ranks[int(random.integers(world))]
        daemon.feed(rank, int(random.integers(rank.sent, len(rank.records) + 1)))
        if random.random() < 0.6:
            daemon.write()
        if random.random() < 0.35:
            (daemon.kill if random.random() < 0.3 else lambda: daemon.kill_in_write(random))()
    for rank in ranks:
        daemon.feed(rank)
    daemon.write()
    for rank in ranks:
        daemon.leave(rank)
    daemon.write(4)
    for tag, points in expected.items():
        assert shown(tmp_path, tag) == [(step, pytest.approx(np.mean(values))) for step, values in points]
        for side, extreme in (("min", min), ("max", max)) if len(whose[tag]) > 1 else ():
            assert shown(tmp_path / "ranks" / side, tag) == [(step, extreme(values)) for step, values in points]
    for rank in ranks:
        entry = daemon.writer.entry(rank.id)
        assert (entry.count, entry.refused) == (rank.accepted, {})
        assert rank.acked == len(rank.records)
    daemon.writer.close()
