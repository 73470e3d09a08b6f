"""Several jobs of ranks, and processes beside them, that log one tag into one folder: no point of any is hidden."""

from __future__ import annotations

import gc
import subprocess
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import World, scalars, wait_for
from ranks_world import Daemon, Rank
from tbxd.ingest.session import Session
from tbxd.reduce.displaced_jobs import name_of
from tbxd_client.distributed.process_identity import PROGRAM_CHARS
from tbxd_client.protocol.kinds import RESTART
from tbxd_client.protocol.records import pack_record_head
from test_check import check
from test_successors import of, shown

Points = list[tuple[int, float]]
KIN = {"train.py": "a" * 16, "other.py": "b" * 16}


def ranks_of(folder: Path, job: str, script: str = "train.py", count: int = 2, attempt: int = 0) -> list[Rank]:
    return [Rank(folder, rank, count, job, attempt, script=script, kin=KIN[script]) for rank in range(count)]


def log(daemon: Daemon, ranks: list[Rank], tag: str, steps: range, value: float) -> None:
    for rank in ranks:
        for step in steps:
            rank.scalar(tag, step, value + step + rank.rank)
        daemon.feed(rank)


def add(daemon: Daemon, *ranks: Rank, alive: bool = True) -> None:
    for rank in ranks:
        daemon.ranks.append(rank)
        daemon.sessions[rank.id] = Session(rank.id, 0)
        if alive:
            daemon.alive.add(rank.id)


def end(daemon: Daemon, *ranks: Rank) -> None:
    for rank in ranks:
        daemon.alive.discard(rank.id)
        daemon.leave(rank)


def mean(steps: range, value: float) -> Points:
    return [(step, value + step + 0.5) for step in steps]


def least(steps: range, value: float) -> Points:
    return [(step, value + step) for step in steps]


def is_settled(daemon: Daemon) -> None:
    for rank in daemon.ranks:
        entry = daemon.writer.entry(rank.id)
        assert (entry.end, entry.count, entry.refused) == (len(rank.records), rank.accepted, {}), rank.run.job
        assert rank.acked == len(rank.records)


@pytest.mark.parametrize("seed", [None, *range(6)])
def test_two_jobs_that_log_one_tag_at_once_have_a_run_each(tmp_path: Path, seed: int | None) -> None:
    """With their extremes; also where daemons are killed between any two bytes that they write."""
    first, second = ranks_of(tmp_path, "one"), ranks_of(tmp_path, "two")
    daemon = Daemon(tmp_path, [])
    beside = tmp_path / name_of(second[0].run)
    sides = [beside / "ranks" / "min", beside / "ranks" / "max", beside / "ranks", beside]
    daemon.folders = [*sides, *daemon.folders]
    add(daemon, *first, *second)
    random = np.random.default_rng(seed)

    def write() -> None:
        if seed is not None and random.random() < 0.4:
            daemon.kill_in_write(random)
            for rank in daemon.ranks:
                daemon.feed(rank)
        daemon.write(2)

    for begin in range(0, 40, 5):
        log(daemon, first, "loss", range(begin, begin + 5), 1000.0)
        for rank in second if begin >= 10 else []:  # which are not at one step
            for step in range(begin - 10, begin - 5):
                rank.scalar("loss", step, 2000.0 + step + rank.rank)
                rank.scalar(f"own{rank.rank}", step, 5.0)
            rank.text("said", begin, f"rank {rank.rank} at {begin}")
            rank.row({"x": begin + rank.rank, "y": 1.0}, begin)
            if random.random() < 0.6:
                daemon.feed(rank)
        write()
    for rank in second:
        daemon.feed(rank)
    write()
    end(daemon, *first, *second)
    daemon.write(3)
    is_settled(daemon)
    for folder, value, steps in ((tmp_path, 1000.0, range(40)), (beside, 2000.0, range(30))):
        assert scalars(folder)["loss"] == mean(steps, value)
        assert scalars(folder / "ranks" / "min")["loss"] == least(steps, value)
        assert scalars(folder / "ranks" / "max")["loss"] == least(steps, value + 1)
    assert scalars(beside)["own0"] == scalars(beside)["own1"] == [(step, 5.0) for step in range(30)]
    assert scalars(beside)["x"] == [(begin, begin + 0.5) for begin in range(10, 40, 5)]
    assert set(scalars(tmp_path)) == {"loss"}
    assert {run: points for run, points in shown(tmp_path).items() if "ranks" not in run} == {
        ".": mean(range(40), 1000.0),
        beside.name: mean(range(30), 2000.0),
    }


def test_a_job_whose_tags_are_its_own_stays_in_the_run_until_it_meets_another(tmp_path: Path) -> None:
    """What it has logged until then stays; from there on all of it is beside."""
    train, evaluation = ranks_of(tmp_path, "one"), ranks_of(tmp_path, "two", "other.py")
    daemon = Daemon(tmp_path, [])
    add(daemon, *train, *evaluation)
    log(daemon, train, "loss", range(100), 1000.0)
    daemon.write(2)
    log(daemon, evaluation, "accuracy", range(10), 0.0)
    daemon.write(2)
    assert scalars(tmp_path)["accuracy"] == mean(range(10), 0.0)
    log(daemon, evaluation, "accuracy", range(10, 20), 0.0)
    log(daemon, evaluation, "loss", range(200, 203), 2000.0)  # further, but the other goes on
    log(daemon, train, "loss", range(100, 220), 1000.0)
    daemon.write(3)
    daemon.kill()
    for rank in daemon.ranks:
        daemon.feed(rank)
    daemon.write(3)
    end(daemon, *train, *evaluation)
    daemon.write(3)
    is_settled(daemon)
    beside = tmp_path / name_of(evaluation[0].run)
    assert scalars(tmp_path)["loss"] == mean(range(220), 1000.0)
    assert scalars(beside)["loss"] == mean(range(200, 203), 2000.0)
    assert scalars(tmp_path).get("accuracy", []) + scalars(beside).get("accuracy", []) == mean(range(20), 0.0)


@pytest.mark.parametrize("purge", [False, True])
@pytest.mark.parametrize("same", [False, True])
def test_a_job_that_comes_when_another_is_over_goes_on_with_it_where_that_is_its_work(
    tmp_path: Path, same: bool, purge: bool
) -> None:
    train, later = ranks_of(tmp_path, "one"), ranks_of(tmp_path, "two", "train.py" if same else "other.py")
    daemon = Daemon(tmp_path, [])
    add(daemon, *train)
    log(daemon, train, "loss", range(100), 1000.0)
    log(daemon, train, "lr", range(100), 0.0)
    daemon.write(2)
    end(daemon, *train)
    daemon.write(2)
    add(daemon, *later)
    if purge:
        for rank in later:
            rank.add(pack_record_head(RESTART, rank.tag("loss"), 50, 2.0, {}, 0))
    log(daemon, later, "loss", range(50, 60), 2000.0)
    daemon.write(3)
    end(daemon, *later)
    daemon.write(3)
    is_settled(daemon)
    beside = name_of(later[0].run)
    found = shown(tmp_path)
    if same or purge:
        whole = mean(range(50), 1000.0) + mean(range(50, 60), 2000.0)
        assert found["."] == whole and not (tmp_path / beside).exists()
    else:
        assert found["."] == mean(range(100), 1000.0) and found[beside] == mean(range(50, 60), 2000.0)
        # Its next attempt goes on with it there.
        again = ranks_of(tmp_path, "two", "other.py", attempt=1)
        add(daemon, *again)
        log(daemon, again, "loss", range(55, 70), 3000.0)
        daemon.write(3)
        end(daemon, *again)
        daemon.write(3)
        is_settled(daemon)
        found = shown(tmp_path)
        assert found["."] == mean(range(100), 1000.0)
        assert found[beside] == mean(range(50, 55), 2000.0) + mean(range(55, 70), 3000.0)
    assert shown(tmp_path, "lr")["."] == mean(range(50 if purge else 100), 0.0)


@pytest.mark.parametrize("begin", [51, 0])
def test_a_job_of_the_same_program_with_other_arguments_goes_on_unless_it_begins_anew(
    tmp_path: Path, begin: int
) -> None:
    """It says its settings first, at step 0: that is no beginning of its work."""
    train = ranks_of(tmp_path, "one")
    other = "a" * PROGRAM_CHARS + "c" * (16 - PROGRAM_CHARS)
    later = [Rank(tmp_path, rank, 2, "two", script="train.py", kin=other) for rank in range(2)]
    daemon = Daemon(tmp_path, [])
    for ranks, steps, value in ((train, range(100), 1000.0), (later, range(begin, begin + 60), 2000.0)):
        add(daemon, *ranks)
        ranks[0].text("args", 0, f"{value}")
        ranks[0].scalar("parameters", 0, value)
        log(daemon, ranks, "loss", steps, value)
        daemon.write(2)
        end(daemon, *ranks)
        daemon.write(3)
    is_settled(daemon)
    found = shown(tmp_path)
    if begin:
        assert found["."] == mean(range(51), 1000.0) + mean(range(51, 111), 2000.0)
        assert not (tmp_path / name_of(later[0].run)).exists()
    else:
        assert found["."] == mean(range(100), 1000.0)
        assert found[name_of(later[0].run)] == mean(range(60), 2000.0)


def test_purge_step_of_one_job_takes_nothing_of_another_that_lives(tmp_path: Path) -> None:
    first, second = ranks_of(tmp_path, "one"), ranks_of(tmp_path, "two")
    daemon = Daemon(tmp_path, [])
    add(daemon, *first, *second)
    log(daemon, first, "loss", range(100), 1000.0)
    daemon.write(2)
    for rank in second:
        rank.add(pack_record_head(RESTART, rank.tag("loss"), 50, 2.0, {}, 0))
    log(daemon, second, "loss", range(50, 60), 2000.0)
    daemon.write(3)
    log(daemon, first, "loss", range(100, 110), 1000.0)
    daemon.write(3)
    end(daemon, *first, *second)
    daemon.write(3)
    is_settled(daemon)
    found = shown(tmp_path)
    beside = name_of(second[0].run)
    assert found["."] == mean(range(110), 1000.0) and found[beside] == mean(range(50, 60), 2000.0)
    assert found["ranks/min"] == least(range(110), 1000.0)
    assert found[f"{beside}/ranks/min"] == least(range(50, 60), 2000.0)


@pytest.mark.parametrize("steps", [range(150, 155), range(20, 25)])
def test_a_process_beside_ranks_that_log_hides_nothing_of_them(tmp_path: Path, steps: range) -> None:
    """Also where it is further than they are: they will come by."""
    train = ranks_of(tmp_path, "one")
    alone = Rank(tmp_path, 0, 1, "", script="other.py", kin=KIN["other.py"])
    daemon = Daemon(tmp_path, [])
    add(daemon, *train, alone)
    log(daemon, train, "loss", range(100), 1000.0)
    daemon.write(2)
    log(daemon, [alone], "loss", steps, 3000.0)
    daemon.write(2)
    log(daemon, train, "loss", range(100, 200), 1000.0)
    daemon.write(2)
    end(daemon, *train)
    daemon.write(2)
    is_settled(daemon)
    found = shown(tmp_path)
    assert found.pop(".") == mean(range(200), 1000.0)
    assert [points for run, points in found.items() if "ranks" not in run] == [least(steps, 3000.0)]


def test_a_run_that_is_let_go_of_lets_go_of_the_jobs_beside_it(tmp_path: Path) -> None:
    first, second = ranks_of(tmp_path, "one"), ranks_of(tmp_path, "two")
    daemon = Daemon(tmp_path, [])
    add(daemon, *first, *second)
    log(daemon, first, "loss", range(10), 1000.0)
    log(daemon, second, "loss", range(10), 2000.0)
    daemon.write(3)
    assert daemon.writer.besides.names == [name_of(second[0].run)]
    (writer,) = daemon.writer.besides._writers.values()
    left = [weakref.ref(one) for one in (daemon.writer, writer, daemon.writer.ranks, writer.ranks)]
    end(daemon, *first, *second)
    daemon.write(3)
    daemon.writer.park()
    assert not daemon.writer.open and not daemon.writer.dirty and not writer.open
    gc.collect()
    gc.disable()
    try:
        daemon.writer.forget()
        del daemon.writer, writer
        assert [one() for one in left] == [None] * 4
    finally:
        gc.enable()


# --- real processes -----------------------------------------------------------------------------------------------

TRAIN = """
    import os, time
    from tbxd_client import SummaryWriter
    rank, life = int(os.environ["RANK"]), int(os.environ["LIFE"])
    writer = SummaryWriter("logs/run", **eval(os.environ.get("WRITER", "{}")))
    begin, end = map(int, os.environ["STEPS"].split())
    for step in range(begin, end):
        writer.add_scalar("loss", 1000 * life + step + rank - 0.5, step)
        writer.add_histogram("weights", [rank, step], step) if step % 50 == 0 else None
        time.sleep(0.004)
    writer.close()
"""


def start(place: World, script: str, job: str, life: int, steps: str, **environ: str) -> list[subprocess.Popen[Any]]:
    told = {"WORLD_SIZE": "2", "TBXD_RUN_ID": job, "LIFE": str(life), "STEPS": steps, **environ}
    return [place.start(script, environ={**told, "RANK": str(rank)}) for rank in range(2)]


def ended(place: World, *processes: subprocess.Popen[Any]) -> dict[str, Any]:
    assert [process.wait(60) for process in processes] == [0] * len(processes)
    wait_for(place.drained, "the journals")
    status = place.status()
    assert status is not None
    run = status["runs"][str(place.logdir / "run")]
    assert run["accepted"] == run["written"] and not run["dropped"] and not run["pending"], run
    return dict(run)


def test_two_jobs_of_two_ranks_in_one_folder_keep_every_point(place: World) -> None:
    place.serve()
    jobs = [*start(place, TRAIN, "one", 1, "0 300"), *start(place, TRAIN, "two", 2, "0 300")]
    run = ended(place, *jobs)
    (folder,) = run["beside"]
    found = shown(place.logdir)
    expected = sorted([of(1, 0, 300), of(2, 0, 300)])
    assert sorted([found["run"], found[f"run/{folder}"]]) == expected
    for side, more in (("min", -0.5), ("max", 0.5)):
        ends = sorted([found[f"run/ranks/{side}"], found[f"run/{folder}/ranks/{side}"]])
        assert ends == [[(step, value + more) for step, value in points] for points in expected]
    assert set(found) == {"run", f"run/{folder}"} | {
        f"{run}/ranks/{side}" for run in ("run", f"run/{folder}") for side in ("min", "max")
    }
    code, answer = check(place, place.logdir)
    assert code == 0 and answer["found"] == {"beside": 1} and answer["by"]["beside"]["detail"] == folder


def test_a_daemon_that_is_killed_again_and_again_leaves_both_jobs_whole(place: World) -> None:
    place.serve()
    jobs = [*start(place, TRAIN, "one", 1, "0 1000"), *start(place, TRAIN, "two", 2, "0 1000")]
    for kill in range(4):
        wait_for(lambda kill=kill: len(scalars(place.logdir / "run").get("loss", ())) > 100 * kill, "the jobs to log")
        place.kill_daemon()
        place.ensure()
    assert all(process.poll() is None for process in jobs), "they have outlived the kills"
    ended(place, *jobs)
    found = {run: points for run, points in shown(place.logdir).items() if "ranks" not in run}
    assert sorted(found.values()) == sorted([of(1, 0, 1000), of(2, 0, 1000)])


def test_the_next_job_of_the_program_takes_the_place_of_one_whose_journals_are_written_with_its_own(
    place: World,
) -> None:
    """No daemon ran: all that is known of the first comes in the same moment as the second."""
    alone = {"TBXD_PYTHON": "/bin/false", "TBXD_FLUSH_SECONDS": "0.2"}
    for job, life, steps in (("one", 1, "0 100"), ("two", 2, "50 120")):
        jobs = start(place, TRAIN, job, life, steps, **alone)
        assert [process.wait(60) for process in jobs] == [0, 0]
    result = place.tbxd("drain")
    assert result.returncode == 0, result.stderr
    found = shown(place.logdir)
    assert found["run"] == of(1, 0, 50) + of(2, 50, 120)
    for side, more in (("min", -0.5), ("max", 0.5)):
        assert found[f"run/ranks/{side}"] == [(step, value + more) for step, value in found["run"]]
