"""A disk that is really full, read-only, slow or failing: its run waits, others go on, and it resumes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import World, scalars, wait_for
from inject import NOBODY, injected, remount, say_go, small_disk, start_daemon, strace, tampered, told, train
from oracle import Verdict, judge, read_count
from ranks_world import Daemon, Rank
from report import account
from tb import LOADERS, board


def expected(count: int) -> dict[str, list[tuple[int, float]]]:
    return {"value": [(step, float(step % 100)) for step in range(count)]}


@pytest.mark.parametrize(
    "kill", [False, pytest.param(True, marks=pytest.mark.matrix)], ids=["alive", "daemon killed while full"]
)
def test_a_full_disk_holds_up_its_own_run_only_and_is_gone_on_with(place: World, kill: bool) -> None:
    full = place.logdir / "full"
    with small_disk(full, "256k"):
        place.serve()
        trainer = place.start(
            """
            import sys
            from tbxd_client import SummaryWriter
            full, other = SummaryWriter("logs/full"), SummaryWriter("logs/other")
            for step in range(20_000):
                full.add_scalar("value", step % 100, step)
                other.add_scalar("value", step % 100, step)
            print(full.flush(1), flush=True)
            sys.stdin.readline()
            print(full.flush(60), flush=True)
            """,
            stdin=-1,
            stdout=-1,
        )
        assert trainer.stdout is not None and trainer.stdin is not None
        assert trainer.stdout.readline() == b"False\n"
        assert scalars(place.logdir / "other") == expected(20_000)
        status = place.status()
        assert status is not None
        run = status["runs"][str(full)]
        assert run["error"] == "No space left on device"
        assert run["accepted"] == run["written"] + run["pending"] == 20_000
        written = scalars(full)["value"]
        assert 0 < len(written) < 20_000, "the disk was really full"
        if kill:
            place.kill_daemon()
            place.ensure()
        remount(full, "size=16m")
        trainer.stdin.write(b"\n")
        trainer.stdin.flush()
        assert trainer.stdout.readline() == b"True\n"
        assert scalars(full) == expected(20_000)
        account("disk_full", 1, Verdict(accepted=20_000, written=20_000))
        for loader in LOADERS:
            with board(place.logdir, loader) as shown:
                points = shown.until(
                    lambda shown=shown: (found := shown.scalars("full", "value")) and len(found) >= 20_000 and found,
                    "all points",
                )
                assert points == expected(20_000)["value"]


def test_a_full_spool_drops_and_counts_and_never_kills_the_trainer(place: World) -> None:
    with small_disk(place.spool, "3m"):
        os.chmod(place.spool, 0o700)
        result = place.run(
            """
            import numpy as np
            from tbxd_client import SummaryWriter
            writer = SummaryWriter("logs/a")
            for step in range(200_000):
                writer.add_scalar("value", step, step)
            writer.add_histogram("large", np.zeros(1_000_000), 0)
            import json; print(json.dumps(writer.stats()))
            """,
            environ={"TBXD_ADDRESS": NOBODY, "TBXD_FLUSH_SECONDS": "0"},
        )
        assert result.returncode == 0, result.stderr
        assert "journal_error" in result.stdout
        counts = json.loads(result.stdout)
        assert counts["accepted"] == 200_001
        assert "records were dropped in this process" in result.stderr
        place.serve()
        wait_for(place.drained, "the journal")
    points = scalars(place.logdir / "a")["value"]
    assert len(points) == 200_001 - counts["dropped"]["journal_error"]
    steps = [step for step, _ in points]
    assert steps == sorted(set(steps)), "what was kept is in order and there once"
    account("spool_full", 1, Verdict(accepted=200_001, written=len(points), dropped=200_001 - len(points)))


# A run that waits must not be felt in training: what a call may take, 99 of 100, whatever its disk does.
CALL_SECONDS_P99 = 0.002


def other_is_written(place: World, count: int) -> None:
    """The other run goes on meanwhile."""
    wait_for(lambda: read_count(place, 1).ended, "the other trainer to end")
    wait_for(lambda: _written(place, "other") == count, "the other run")


def _written(place: World, run: str) -> Any:
    status = place.status()
    return status and status["runs"].get(str(place.logdir / run), {}).get("written")


def _error(place: World, run: str) -> Any:
    status = place.status()
    return status and status["runs"].get(str(place.logdir / run), {}).get("error")


def finish(place: World, row: str, times: int, *trainers: Any) -> None:
    """Let the trainers end, and judge."""
    for trainer in trainers:
        said = told(trainer)
        assert said["p99"] < CALL_SECONDS_P99, said
        say_go(trainer)
        assert told(trainer)["flushed"]
        assert trainer.wait(60) == 0
    wait_for(place.drained, "the journals")
    folders = [place.logdir / "sick", place.logdir / "other"]
    account(row, times, judge(folders, {number: read_count(place, number) for number in range(len(trainers))}))


def test_a_full_disk_is_told_in_the_log_once_and_once_when_it_goes_on(place: World) -> None:
    full, log = place.logdir / "full", place.root / "log"
    with small_disk(full, "256k"), log.open("wb") as stderr:
        daemon = subprocess.Popen([sys.executable, "-m", "tbxd", "serve"], env=place.environ, stderr=stderr)
        place.processes.append(daemon)
        wait_for(lambda: place.running() == daemon.pid, "the daemon")
        result = place.run(
            """
            from tbxd_client import SummaryWriter
            writer = SummaryWriter("logs/full")
            for step in range(20_000):
                writer.add_scalar("value", step % 100, step)
            writer.flush(1)
            """
        )
        assert result.returncode == 0, result.stderr
        wait_for(lambda: "cannot be written" in log.read_text(), "it to be told")
        wait_for(lambda: (place.status() or {})["metrics"]["lag_seconds"] > 3, "more attempts")
        remount(full, "size=16m")
        wait_for(place.drained, "the journal to be drained")
        wait_for(lambda: "it is written again" in log.read_text(), "it to be told again")
        assert scalars(full) == expected(20_000)
        wrong, again = [line for line in log.read_text().splitlines() if "WARNING" in line]
        assert "No space left on device" in wrong and "make room on that disk" in wrong and "written again" in again


@pytest.mark.matrix
def test_a_read_only_disk_holds_up_its_own_run_only(place: World) -> None:
    sick = place.logdir / "sick"
    with small_disk(sick, "64m"):
        place.serve()
        options: dict[str, Any] = {"count": 3000, "hz": 3000, "wait": True, "flush": 60}
        one = train(place, 0, "logs/sick", **options)
        wait_for(lambda: (_written(place, "sick") or 0) > 100, "the run to be written")
        place.kill_daemon()  # a file that is open keeps its disk from becoming read-only
        remount(sick, "ro")
        place.ensure()
        other = train(place, 1, "logs/other", **options)
        other_is_written(place, 3000)
        assert _error(place, "sick") == "Read-only file system"
        remount(sick, "rw")
        finish(place, "disk_readonly", 1, one, other)


def test_a_slow_disk_holds_up_its_own_run_only(place: World) -> None:
    daemon = place.serve()
    options: dict[str, Any] = {"count": 3000, "hz": 1500, "wait": True, "flush": 120}
    one = train(place, 0, "logs/sick", pause=100, **options)
    name = wait_for(lambda: _file(place, "sick"), "the run's file")
    log = place.root / "strace"
    with tampered(daemon.pid, "write", "delay_exit=500000", log, place.logdir / "sick" / name):
        say_go(one)  # not before: what is written before strace is there, under load perhaps all, is not slow
        other = train(place, 1, "logs/other", **options)
        other_is_written(place, 3000)
        wait_for(lambda: log.read_text().count("write(") >= 2, "slow writes")
        slow = log.read_text().count("write(")
    finish(place, "disk_slow", slow, one, other)


def _file(place: World, run: str) -> Any:
    status = place.status()
    return status and status["runs"].get(str(place.logdir / run), {}).get("file")


@pytest.mark.parametrize(
    ("call", "error", "kill"),
    [
        ("write", "EIO", False),
        *(
            pytest.param(call, error, kill, marks=pytest.mark.matrix)
            for call, error in (("write", "EIO"), ("write", "ENOSPC"), ("write", "EDQUOT"), ("fdatasync", "EIO"))
            for kill in (False, True)
            if (call, error, kill) != ("write", "EIO", False)
        ),
    ],
)
def test_a_failing_disk_holds_up_its_own_run_only(place: World, call: str, error: str, kill: bool) -> None:
    daemon = place.serve()
    options: dict[str, Any] = {"count": 3000, "hz": 1500, "wait": True, "flush": 60}
    one = train(place, 0, "logs/sick", **options)
    name = wait_for(lambda: _file(place, "sick"), "the run's file")
    log = place.root / "strace"
    with tampered(daemon.pid, call, f"error={error}", log, place.logdir / "sick" / name):
        wait_for(lambda: injected(log), f"an {error}")
        assert wait_for(lambda: _error(place, "sick"), "the error in the status")
        other = train(place, 1, "logs/other", **options)
        other_is_written(place, 3000)
        if kill:
            place.kill_daemon()
    place.ensure()
    finish(place, "disk_error", injected(log), one, other)
    if not kill:
        wait_for(lambda: not _error(place, "sick"), "the error to be gone")


@pytest.mark.matrix
def test_a_folder_that_may_not_be_written_is_waited_for(place: World) -> None:
    """The folder alone is read-only; for root, too, by a flag of the file system where it has one."""
    sick = place.logdir / "sick"
    sick.mkdir(parents=True)
    if os.system(f"chattr +i {sick} 2>/dev/null"):
        pytest.skip("this file system has no immutable folders, or this user may not make one")
    try:
        place.serve()
        one = train(place, 0, "logs/sick", count=1000, hz=3000, wait=True, flush=60)
        other = train(place, 1, "logs/other", count=1000, hz=3000, wait=True, flush=60)
        other_is_written(place, 1000)
        assert "not permitted" in wait_for(lambda: _error(place, "sick"), "the error in the status")
    finally:
        os.system(f"chattr -i {sick}")
    finish(place, "disk_readonly", 1, one, other)


def test_what_an_fsync_that_failed_has_left_is_stored_again_before_the_next(place: World) -> None:
    """Linux takes the pages for clean then, and the next fsync would promise what nobody has done."""
    log = place.root / "strace"
    script = """
import sys
from pathlib import Path
from tbxd.tfevents.event_file import EventFile
path = Path(sys.argv[1])
file, data = EventFile(path), bytes(range(256)) * 4096
for failing in (False, True):
    for _ in range(2):
        file.write(data)
    try:
        file.sync()
        assert not failing
    except OSError as error:
        assert failing and file.dirty, error
file.write(data)
file.sync()
assert not file.dirty and path.read_bytes() == data * 5
"""
    command = strace("fdatasync", "error=EIO:when=2", log)
    command[command.index("trace=fdatasync")] = "trace=fdatasync,pwrite64"
    result = subprocess.run([*command, sys.executable, "-c", script, str(place.root / "file")], capture_output=True)
    assert result.returncode == 0, result.stderr.decode()
    calls = [line.split("(")[0].split()[-1] for line in log.read_text().splitlines() if "(" in line]
    assert calls[:2] == ["fdatasync"] * 2 and calls[-1] == "fdatasync" and injected(log) == 1
    stored = [line for line in log.read_text().splitlines() if "pwrite64(" in line]
    assert sum(int(line.rsplit("= ", 1)[1]) for line in stored) == 3 << 20, "two that failed and one since, no others"
    account("disk_error", 1)


def test_a_disk_that_is_full_at_any_page_of_what_ranks_write_is_gone_on_with(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, "256k"):
        stopped = 0
        for pages in range(40):
            run = disk / str(pages)
            ranks = [Rank(run, number, 2) for number in range(2)]
            daemon = Daemon(run, ranks)
            for rank in ranks:
                for step in range(200):
                    rank.scalar("loss", step, float(rank.rank))
                daemon.feed(rank)
            state = os.statvfs(disk)
            rest = disk / "rest"
            rest.write_bytes(bytes(max(0, state.f_bavail - pages) * state.f_frsize))
            daemon.writer.write()
            stopped += bool(daemon.writer.error)
            assert daemon.writer.waiting == bool(daemon.writer.error)
            rest.unlink()
            daemon.write()
            assert not daemon.writer.waiting
            assert scalars(run) == {"loss": [(step, 0.5) for step in range(200)]}
            for side, value in (("min", 0.0), ("max", 1.0)):
                assert scalars(run / "ranks" / side) == {"loss": [(step, value) for step in range(200)]}
            assert all(rank.acked == len(rank.records) for rank in ranks)
            daemon.writer.close()
            shutil.rmtree(run)
        assert 5 < stopped < 40, "it was full in the middle of each of the four files"


@pytest.mark.long
@pytest.mark.parametrize("when", ["1..3", "2..3"], ids=["from the first on", "in the midst"])
def test_a_journal_that_its_disk_does_not_give_for_a_moment_is_tried_again_and_not_put_aside(
    place: World, when: str
) -> None:
    result = place.run(
        """
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        for step in range(20_000):
            writer.add_scalar("value", step % 100, step)
        """,
        environ={"TBXD_ADDRESS": NOBODY, "TBXD_FLUSH_SECONDS": "0"},
    )
    assert result.returncode == 0, result.stderr
    (journal,) = (path for path in place.spool.iterdir() if path.name != "ledgers")
    log = place.root / "strace.log"
    start_daemon(place, strace("pread64", f"error=EIO:when={when}", log, sorted(journal.glob("*.segment"))[0]))
    wait_for(place.drained, "the journal")
    assert injected(log) > 0
    assert scalars(place.logdir / "a") == expected(20_000)
    assert not (place.spool / "quarantine").exists()
    status = place.status()
    assert status is not None and not status["internal_errors"], "it is no fault of ours"
