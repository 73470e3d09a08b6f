"""When a run of several ranks is due, what is known of its ranks, and what is forgotten: no test waits."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from one_by_one import read_events
from ranks_world import Daemon, Rank
from tbxd.ingest.session import Session
from tbxd.reduce import reduction
from tbxd.reduce import tag_membership as tags
from tbxd.reduce.job_starts import generation_of
from tbxd.reduce.rank_jobs import Ranks
from tbxd.tfevents.ledger import decode_ranks
from tbxd_client.logdir.event_names import event_files
from test_reduction import job, points


def ranks_of(daemon: Daemon) -> Ranks:
    return daemon.writer.ranks


def due(daemon: Daemon) -> float:
    """In how many seconds the run is to be written although nothing comes; 0 for never."""
    at = ranks_of(daemon).due
    return at - time.monotonic() if at else 0.0


def begun(directory: Path, world: int = 2, steps: int = 2) -> tuple[list[Rank], Daemon]:
    """Ranks that have logged some steps together."""
    ranks, daemon = job(directory, world)
    for rank in ranks:
        for step in range(steps):
            rank.scalar("loss", step, float(rank.rank))
        daemon.feed(rank)
    daemon.write()
    assert len(points(directory)["loss"]) == steps
    return ranks, daemon


# --- when -----------------------------------------------------------------------------------------------------------


def test_a_point_that_waits_for_a_rank_is_due_when_the_rank_has_had_its_time(tmp_path: Path) -> None:
    ranks, daemon = begun(tmp_path)
    assert due(daemon) == 0.0, "nothing waits"
    ranks[0].scalar("loss", 2, 1.0)
    daemon.feed(ranks[0])
    daemon.write()
    assert 25.0 < due(daemon) <= 30.0
    ranks[1].scalar("loss", 2, 1.0)
    daemon.feed(ranks[1])
    daemon.write()
    assert due(daemon) == 0.0


def test_a_tag_of_one_rank_is_due_when_the_others_have_had_time_to_log_it(tmp_path: Path) -> None:
    ranks, daemon = begun(tmp_path)
    ranks[0].scalar("lr", 5, 1.0)
    daemon.feed(ranks[0])
    daemon.write()
    assert 0.0 < due(daemon) <= tags.JOIN_SECONDS


def test_ranks_that_have_never_come_are_waited_for_while_one_lives_and_less_when_all_have_ended(tmp_path: Path) -> None:
    ranks, daemon = job(tmp_path, 3)
    ranks[0].scalar("loss", 0, 1.0)
    daemon.feed(ranks[0])
    daemon.write()
    assert tags.ENDED_SECONDS < due(daemon) <= tags.START_SECONDS
    daemon.leave(ranks[0])
    daemon.write()
    assert 0.0 < due(daemon) <= tags.ENDED_SECONDS
    ranks[1].scalar("loss", 0, 1.0)
    daemon.feed(ranks[1])
    daemon.write()
    assert tags.ENDED_SECONDS < due(daemon) <= tags.START_SECONDS, "another one has come"


def test_a_rank_that_logs_more_than_may_wait_is_written_without_those_that_have_never_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tags, "JOIN_SECONDS", 0.0)
    ranks, daemon = job(tmp_path, 3)
    ranks[0].scalar("loss", 0, 1.0)
    daemon.feed(ranks[0])
    daemon.write(2)
    assert points(tmp_path) == {}
    monkeypatch.setattr(reduction, "kept", lambda sessions: 30)
    daemon.write(0)
    ranks[0].scalar("loss", 1, 1.0)
    daemon.feed(ranks[0])
    daemon.write(2)
    assert [step for step, _ in points(tmp_path)["loss"]] == [0, 1]


# --- who --------------------------------------------------------------------------------------------------------


def test_who_has_ended_and_is_written_is_forgotten_and_is_not_behind(tmp_path: Path) -> None:
    ranks, daemon = begun(tmp_path, 3)
    (found,) = ranks_of(daemon)._reductions.values()
    assert len(found._members) == 3
    for rank in ranks[:2]:
        rank.scalar("loss", 2, 1.0)
        daemon.feed(rank)
    daemon.leave(ranks[2])
    daemon.write()
    status = ranks_of(daemon).status()
    assert status is not None
    assert (status["alive"], status["behind"], status["missing"]) == (2, [], 1)
    assert set(found._members) == {rank.id for rank in ranks[:2]}


def test_an_end_that_is_not_looked_at_yet_stays_news(tmp_path: Path) -> None:
    ranks, daemon = begun(tmp_path)
    daemon.leave(ranks[0])
    assert ranks_of(daemon).news
    ranks_of(daemon).emit([], 0)
    assert ranks_of(daemon).news and ranks_of(daemon).gone == 1
    daemon.write()
    assert not ranks_of(daemon).news and ranks_of(daemon).gone == 0


def test_who_has_ended_is_not_waited_for_when_the_run_begins_anew(tmp_path: Path) -> None:
    ranks, daemon = begun(tmp_path)
    daemon.leave(ranks[1])
    daemon.write()
    for name in event_files(tmp_path):
        (tmp_path / name).unlink()
    ranks[0].scalar("loss", 2, 5.0)
    daemon.feed(ranks[0])
    daemon.writer.write()
    daemon.write()
    ranks[0].scalar("loss", 3, 5.0)
    daemon.feed(ranks[0])
    daemon.write(2)
    status = ranks_of(daemon).status()
    assert status is not None and status["alive"] == 1


def test_a_rank_that_ends_and_comes_back_is_waited_for_again(tmp_path: Path) -> None:
    ranks, daemon = begun(tmp_path)
    daemon.leave(ranks[1])
    daemon.write()
    again = Rank(tmp_path, 1, 2)
    daemon.ranks.append(again)
    daemon.sessions[again.id] = Session(again.id, 0)
    for rank in (ranks[0], again):
        rank.scalar("loss", 2, 4.0 * rank.rank)
        daemon.feed(rank)
    daemon.write(2)
    ranks[0].scalar("loss", 3, 0.0)
    daemon.feed(ranks[0])
    daemon.write(2)
    assert points(tmp_path)["loss"][2:] == [(2, 2.0)]
    again.scalar("loss", 3, 4.0)
    daemon.feed(again)
    daemon.write(2)
    assert points(tmp_path)["loss"][2:] == [(2, 2.0), (3, 2.0)]


def test_jobs_that_are_over_are_not_in_the_status_of_those_that_log(tmp_path: Path) -> None:
    ranks, daemon = begun(tmp_path)
    other = [Rank(tmp_path, rank, 2, job="other") for rank in range(2)]
    for rank in ranks:
        daemon.leave(rank)
    daemon.write()
    assert ranks_of(daemon).status()["alive"] == 0  # type: ignore[index]
    daemon.ranks += other
    for rank in other:
        daemon.sessions[rank.id] = Session(rank.id, 0)
        rank.scalar("other", 0, 1.0)
        daemon.feed(rank)
    daemon.write(2)
    status = ranks_of(daemon).status()
    assert status is not None and (status["world"], status["joined"], status["alive"]) == (2, 2, 2)


# --- starts of a job ----------------------------------------------------------------------------------------------


def next_start(daemon: Daemon, directory: Path, attempt: int) -> list[Rank]:
    ranks = [Rank(directory, rank, 2, attempt=attempt) for rank in range(2)]
    daemon.ranks += ranks
    for rank in ranks:
        daemon.sessions[rank.id] = Session(rank.id, 0)
    return ranks


def test_the_next_start_of_a_job_waits_for_the_last_and_no_longer_than_for_a_rank(tmp_path: Path) -> None:
    first, daemon = begun(tmp_path)
    second = next_start(daemon, tmp_path, 1)
    for rank in second:
        rank.scalar("loss", 2, 7.0)
        daemon.feed(rank)
    daemon.write()
    assert [step for step, _ in points(tmp_path)["loss"]] == [0, 1]
    assert 25.0 < due(daemon) <= 30.0
    for rank in first:
        daemon.leave(rank)
    daemon.write(2)
    assert [step for step, _ in points(tmp_path)["loss"]] == [0, 1, 2]
    first[0].scalar("loss", 3, 1.0)
    daemon.feed(first[0])
    daemon.write()
    entry = daemon.writer.entry(first[0].id)
    assert (entry.count, entry.refused) == (3, {"late_rank": 1}) and first[0].acked == len(first[0].records)


def test_a_start_that_hangs_is_followed_when_the_next_has_waited_as_long_as_for_a_rank(tmp_path: Path) -> None:
    ranks, daemon = job(tmp_path, 2, seconds=0.0)
    for rank in ranks:
        rank.scalar("loss", 0, 1.0)
        daemon.feed(rank)
    daemon.write()
    for rank in next_start(daemon, tmp_path, 1):
        rank.scalar("loss", 1, 7.0)
        daemon.feed(rank)
    daemon.write(3)
    assert [step for step, _ in points(tmp_path)["loss"]] == [0, 1], "though no rank of the first has ended"


def test_after_a_kill_an_earlier_start_of_the_job_is_still_late_and_counted_once(tmp_path: Path) -> None:
    first, daemon = begun(tmp_path)
    for rank in first:
        daemon.leave(rank)
    second = next_start(daemon, tmp_path, 1)
    for rank in second:
        rank.scalar("loss", 2, 7.0)
        daemon.feed(rank)
    daemon.write(2)
    daemon.kill()
    for _ in range(2):
        first[0].scalar("loss", 9, 1.0)
        daemon.feed(first[0])
        daemon.write()
    assert [step for step, _ in points(tmp_path)["loss"]] == [0, 1, 2]
    entry = daemon.writer.entry(first[0].id)
    assert (entry.count, entry.refused) == (4, {"late_rank": 2})
    assert generation_of(first[0].run) in ranks_of(daemon)._past


# --- what goes out --------------------------------------------------------------------------------------------------


def marks(directory: Path) -> list[str]:
    return [
        event.source_metadata.writer
        for name in event_files(directory)
        for event in read_events(directory / name)
        if event.source_metadata.writer.startswith("R")
    ]


def test_a_histogram_without_a_rank_says_so_and_is_counted(tmp_path: Path) -> None:
    ranks, daemon = job(tmp_path, 3)
    for step in range(2):
        for rank in ranks if not step else ranks[:2]:
            rank.histogram("w", step, np.arange(3.0))
    for rank in ranks:
        daemon.feed(rank)
    daemon.leave(ranks[2])
    daemon.write(2)
    assert [decode_ranks(mark) for mark in marks(tmp_path)] == [decode_ranks("R"), decode_ranks("R0-1")]
    status = ranks_of(daemon).status()
    assert status is not None and status["missing"] == 1
    assert [value for _, value in points(tmp_path / "ranks")["tbxd/ranks/missing"]] == [1.0]


def test_missing_and_late_values_are_shown_where_they_change_and_go_on_after_a_kill(tmp_path: Path) -> None:
    ranks, daemon = begun(tmp_path, 3)
    daemon.leave(ranks[2])
    for step in (2, 3):
        for rank in ranks[:2]:
            rank.scalar("loss", step, 1.0)
            daemon.feed(rank)
        daemon.write(2)
    assert points(tmp_path / "ranks")["tbxd/ranks/missing"] == [(2, 1.0), (3, 2.0)]
    daemon.write(3)
    assert points(tmp_path / "ranks")["tbxd/ranks/missing"] == [(2, 1.0), (3, 2.0)], "nothing has changed"
    low, high = (points(tmp_path / "ranks" / side)["loss"] for side in ("min", "max"))
    assert [value for _, value in low][:2] == [0.0, 0.0] and [value for _, value in high][:2] == [2.0, 2.0]
    daemon.kill()
    for rank in ranks[:2]:
        rank.scalar("loss", 4, 1.0)
        daemon.feed(rank)
    daemon.leave(ranks[2])
    daemon.write(2)
    daemon.leave(ranks[1])
    ranks[0].scalar("loss", 5, 1.0)
    daemon.feed(ranks[0])
    daemon.write(2)
    assert [value for _, value in points(tmp_path / "ranks")["tbxd/ranks/missing"]] == [1.0, 2.0, 3.0]


def test_a_file_that_is_begun_anew_has_all_points_and_the_metadata_of_tags_again(tmp_path: Path) -> None:
    ranks, daemon = job(tmp_path / "run", 2)
    for rank in ranks:
        rank.add_tag = rank.tag("loss", color="red")  # type: ignore[attr-defined]
        rank.tags["loss", ""] = rank.add_tag  # type: ignore[attr-defined]
        rank.scalar("loss", 0, 1.0)
        daemon.feed(rank)
    daemon.write()

    def described() -> list[int]:
        return [
            event.step
            for name in event_files(tmp_path / "run")
            for event in read_events(tmp_path / "run" / name)
            for value in event.summary.value
            if value.tag == "loss" and value.HasField("metadata") and value.metadata.summary_description
        ]

    assert described() in ([0], [])
    shutil.rmtree(tmp_path / "run")
    for rank in ranks:
        rank.scalar("loss", 1, 1.0)
        daemon.feed(rank)
    daemon.writer.write()
    daemon.write()
    assert [step for step, _ in points(tmp_path / "run")["loss"]][-1] == 1
