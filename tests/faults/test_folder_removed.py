"""A folder that somebody removes between two runs: who logs there next begins clean and without a pause."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from harness import World, scalars, wait_for
from ranks_world import Rank
from tbxd.ingest.session import Session
from tbxd.runs.run_writer import RunWriter
from tbxd.scheduler.run_scheduler import IDLE_SECONDS
from tbxd_client.logdir.folder_lock import is_held

SCRIPT = """
    import shutil, sys, time
    from tbxd_client import SummaryWriter
    for life in map(int, sys.argv[1:]):
        writer = SummaryWriter("logs/run")
        for step in range(100 - 10 * life):
            writer.add_scalar("loss", life, step)
        begun = time.monotonic()
        assert writer.flush(30)
        print(time.monotonic() - begun)
        writer.close()
        if life != int(sys.argv[-1]):
            shutil.rmtree("logs/run")
"""


@pytest.mark.parametrize("processes", [1, 4])
def test_whoever_logs_there_next_begins_clean_and_at_once(place: World, processes: int) -> None:
    place.serve()
    took = []
    lives = [[0, 1, 2, 3]] if processes == 1 else [[life] for life in range(processes)]
    for arguments in lives:
        shutil.rmtree(place.logdir / "run", ignore_errors=True)
        result = place.run(SCRIPT, *arguments)
        assert result.returncode == 0 and not result.stderr, result.stderr
        took += [float(line) for line in result.stdout.split()]
    assert scalars(place.logdir / "run") == {"loss": [(step, 3.0) for step in range(70)]}
    assert min(took[1:]) < 0.5, "it waited for the pause after trouble"
    status = place.status()
    assert status is not None
    run = status["runs"][str(place.logdir / "run")]
    accepted, removed = (340, 0) if processes == 1 else (70, 270)
    assert (run["accepted"], run["written"], run["dropped"], run["removed"]) == (accepted, accepted, {}, removed)
    assert status["totals"]["dropped"] == {} and not run["error"]


def test_what_was_refused_and_dropped_before_stays_with_what_was_removed(place: World) -> None:
    place.serve()
    script = """
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/run") as writer:
            writer.add_histogram("empty", [], 0)
            writer.add_scalar("loss", 1.0, 0)
    """
    assert place.run(script).returncode == 0
    assert any(tag.startswith("tbxd/dropped/") for tag in scalars(place.logdir / "run"))
    wait_for(place.drained, "the journal to be drained")
    shutil.rmtree(place.logdir / "run")
    again = "from tbxd_client import SummaryWriter\nSummaryWriter('logs/run').add_scalar('a', 1, 0)"
    assert place.run(again).returncode == 0
    assert scalars(place.logdir / "run") == {"a": [(0, 1.0)]}
    status = place.status()
    assert status is not None and status["runs"][str(place.logdir / "run")]["dropped"] == {}


@pytest.mark.parametrize("parked", [False, True])
def test_what_a_process_that_lives_has_lost_is_still_counted(tmp_path: Path, parked: bool) -> None:
    run = tmp_path / "run"
    alive: set[bytes] = set()
    writer = RunWriter(run, lambda batch: None, alive=lambda session, _: session in alive)
    ranks = [Rank(run, 0, 1) for _ in range(3)]
    sessions = [Session(rank.id, 0) for rank in ranks]

    def log(number: int, step: int) -> None:
        rank, session = ranks[number], sessions[number]
        rank.scalar("loss", step, 1.0)
        session.feed_definitions(session.definitions_expected, rank.definitions[session.definitions_expected :])
        for batch in session.feed_records(session.expected, rank.records[session.expected :]) or []:
            writer.offer(batch)
        writer.write()
        assert not writer.error

    log(0, 0)
    log(1, 1)
    if parked:
        writer.park()
    shutil.rmtree(run)
    run.mkdir()
    alive.add(ranks[1].id)
    log(2, 2)
    assert writer.losses.removed == 1
    assert scalars(run)["tbxd/dropped/file_lost"] == [(2, 1.0)]
    assert {session: (entry.written, entry.refused) for session, entry in writer.settled().items()} == {
        ranks[1].id: (0, {"file_lost": 1}),
        ranks[2].id: (1, {}),
    }
    writer.close()


@pytest.mark.parametrize("parked", [False, True])
@pytest.mark.parametrize("of_file", [False, True])
def test_what_is_in_a_folder_that_was_renamed_under_a_script_is_not_lost(
    tmp_path: Path, parked: bool, of_file: bool
) -> None:
    """What the script logs from then on is where it has asked for it."""
    run, elsewhere = tmp_path / "logs" / "run", tmp_path / "logs" / "kept"
    writer = RunWriter(run, lambda batch: None, alive=lambda session, _: session == rank.id)
    rank = Rank(run, 0, 1)
    session = Session(rank.id, 0)

    def log(*steps: int) -> None:
        for step in steps:
            rank.scalar("loss", step, 1.0)
        session.feed_definitions(session.definitions_expected, rank.definitions[session.definitions_expected :])
        for batch in session.feed_records(session.expected, rank.records[session.expected :]) or []:
            writer.offer(batch)
        writer.write()
        assert not writer.error

    log(0, 1, 2)
    if parked:
        writer.park()
    if of_file:
        elsewhere.mkdir()
        (run / writer.name).rename(elsewhere / writer.name)
    else:
        run.rename(elsewhere)
    log(3, 4)
    assert scalars(elsewhere) == {"loss": [(0, 1.0), (1, 1.0), (2, 1.0)]}
    lost = of_file and parked  # nobody knows where to look for it
    found = scalars(run)
    assert found.pop("loss") == [(3, 1.0), (4, 1.0)]
    assert found == ({"tbxd/dropped/file_lost": [(4, 3.0)]} if lost else {})
    (entry,) = writer.settled().values()
    assert (entry.written, entry.refused) == ((2, {"file_lost": 3}) if lost else (5, {}))
    shutil.rmtree(run)
    writer.losses.next_try = 0.0  # as a second later
    log(5)
    (entry,) = writer.settled().values()
    assert (entry.written, entry.refused["file_lost"]) == ((1, 5) if lost else (4, 2)), "what was removed is lost"
    writer.close()


def test_who_logs_to_a_folder_that_has_another_name_now_waits_for_nobody(place: World) -> None:
    """The daemon has it open by the name that it had."""
    place.serve()
    script = """
        import os, sys
        from tbxd_client import SummaryWriter
        writer = SummaryWriter(sys.argv[1])
        for step in range(int(sys.argv[2]), int(sys.argv[2]) + 50):
            writer.add_scalar("loss", step, step)
        assert writer.flush(IDLE / 2), "it has waited until the daemon has let go of what is idle"
        if len(sys.argv) > 3:  # and goes on
            os.rename(sys.argv[1], sys.argv[3])
            other = SummaryWriter(sys.argv[3])
            for step in range(50, 100):
                other.add_scalar("loss", step, step)
                writer.add_scalar("loss", step, step)
            assert other.flush(IDLE / 2) and writer.flush(IDLE / 2)
        print(writer.stats()["dropped"])
    """.replace("IDLE", str(IDLE_SECONDS))
    result = place.run(script, "logs/a", 0)
    assert result.returncode == 0, result.stderr
    (place.logdir / "a").rename(place.logdir / "b")
    result = place.run(script, "logs/b", 50)
    assert result.returncode == 0, result.stderr
    assert scalars(place.logdir / "b") == {"loss": [(step, float(step)) for step in range(100)]}
    assert not (place.logdir / "a").exists()
    result = place.run(script, "logs/c", 0, "logs/d")
    assert (result.returncode, result.stdout) == (0, "{}\n"), result.stderr
    assert scalars(place.logdir / "d") == {"loss": [(step, float(step)) for step in range(100)]}
    assert scalars(place.logdir / "c") == {"loss": [(step, float(step)) for step in range(50, 100)]}


@pytest.mark.parametrize("kept", [True, False])
def test_files_that_are_removed_under_a_script_are_its_loss_where_the_folder_stays(place: World, kept: bool) -> None:
    place.serve()
    script = """
        import pathlib, shutil, sys
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/run")
        for step in range(50):
            writer.add_scalar("loss", step, step)
        assert writer.flush(30)
        if sys.argv[1] == "True":
            for file in pathlib.Path("logs/run").iterdir():
                file.unlink()
        else:  # and begins anew
            shutil.rmtree("logs/run")
            writer.close()
            writer = SummaryWriter("logs/run")
        for step in range(50, 60):
            writer.add_scalar("loss", step, step)
        writer.flush(30)
        print(writer.stats()["dropped"])
    """
    result = place.run(script, kept)
    assert result.returncode == 0, result.stderr
    shown = scalars(place.logdir / "run")
    assert shown.pop("loss") == [(step, float(step)) for step in range(50, 60)]
    assert [value for _, value in shown.pop("tbxd/dropped/file_lost", [])] == ([50.0] if kept else []) and not shown
    assert result.stdout.strip() == ("{'file_lost': 50}" if kept else "{}")
    status = place.status()
    assert status is not None
    run = status["runs"][str(place.logdir / "run")]
    assert (run["accepted"], run["written"], run["dropped"]) == ((60, 10, {"file_lost": 50}) if kept else (60, 60, {}))


def lost(steps: int) -> str:
    return f"{{'file_lost': {steps}}}"


@pytest.mark.parametrize("how", ["new", "made before", "gone", "made again", "sub-run first", "parked", "parked new"])
def test_a_writer_that_goes_on_has_lost_what_was_removed_and_one_that_begins_anew_has_not(
    place: World, how: str
) -> None:
    """Whoever makes the folder again: somebody else, the daemon for a run of `add_scalars`, or the new writer."""
    place.serve()
    script = """
        import os, shutil, sys
        from tbxd_client import SummaryWriter
        how = sys.argv[1]
        writer = SummaryWriter("logs/run")
        for step in range(50):
            writer.add_scalar("loss", step, step)
            writer.add_scalars("c", {"a": step}, step)
        assert writer.flush(30)
        if how.startswith("parked"):
            print("written", flush=True)
            input()
        shutil.rmtree("logs/run")
        if how in ("made again", "made before"):
            os.makedirs("logs/run")
        if how in ("new", "made before", "parked new"):
            writer = SummaryWriter("logs/run")
        if how == "sub-run first":
            writer.add_scalars("c", {"a": 50}, 50)
            assert writer.flush(30)
        for step in range(51, 60):
            writer.add_scalar("loss", step, step)
            writer.add_scalars("c", {"a": step}, step)
        writer.flush(30)
        stats = writer.stats()
        assert stats["accepted"] == stats["written"] + sum(stats["dropped"].values()) and not stats["pending"], stats
        print(stats["dropped"])
    """
    process = place.start(script, how, stdin=-1, stdout=-1, stderr=-1)
    if how.startswith("parked"):
        assert process.stdout is not None and process.stdout.readline() == b"written\n"
        wait_for(lambda: not is_held(str(place.logdir / "run")), "the run to be parked")
    told, errors = process.communicate(b"\n", 60)
    anew = how in ("new", "made before", "parked new")
    assert told.decode().strip() == ("{}" if anew else lost(100)), errors
    for folder, tag in (("run", "loss"), ("run/c/a", "c")):
        found = scalars(place.logdir / folder)
        assert [step for step, _ in found.pop(tag) if step > 50] == list(range(51, 60))
        assert [value for _, value in found.pop("tbxd/dropped/file_lost", [])] == ([] if anew else [50.0]) and not found
    status = place.status()
    assert status is not None
    for folder in ("run", "run/c/a"):
        run = status["runs"][str(place.logdir / folder)]
        assert run["accepted"] == run["written"] + sum(run["dropped"].values()) and not run["pending"]
        assert run["dropped"] == ({} if anew else {"file_lost": 50})


def test_of_two_processes_the_one_that_goes_on_has_lost_its_records(place: World) -> None:
    place.serve()
    going = place.start(
        """
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/run")
        for step in range(50):
            writer.add_scalar("loss", step, step)
        assert writer.flush(30)
        print("written", flush=True)
        input()
        for step in range(50, 60):
            writer.add_scalar("loss", step, step)
        assert writer.flush(30)
        print(writer.stats()["dropped"], flush=True)
        """,
        stdin=-1,
        stdout=-1,
    )
    assert going.stdout is not None and going.stdin is not None and going.stdout.readline() == b"written\n"
    shutil.rmtree(place.logdir / "run")
    # Another one makes the folder again, and has not logged yet.
    assert place.run("from tbxd_client import SummaryWriter\nSummaryWriter('logs/run')").returncode == 0
    told, _ = going.communicate(b"\n", 60)
    assert told.decode().strip() == lost(50)


def test_what_was_left_behind_by_a_new_beginning_is_not_lost_with_what_follows(place: World) -> None:
    """30 records, removed by who begins anew; then 20, removed under the writer; then 10, and what was refused."""
    place.serve()
    result = place.run(
        """
        import shutil
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/run")
        for step in range(30):
            writer.add_scalar("loss", step, step)
        writer.add_histogram("empty", [], 0)
        writer.flush(30)
        shutil.rmtree("logs/run")
        writer = SummaryWriter("logs/run")
        for step in range(20):
            writer.add_scalar("loss", step, step)
        assert writer.flush(30)
        for _ in range(2):
            shutil.rmtree("logs/run")
            for step in range(10):
                writer.add_scalar("loss", step, 50 + step)
            writer.flush(30)
        print(writer.stats())
        """
    )
    assert result.returncode == 0, result.stderr
    counts = "'accepted': 71, 'written': 40, 'pending': 0, 'dropped': {'no_finite_values': 1, 'file_lost': 30}"
    assert counts in result.stdout, result.stdout
    assert scalars(place.logdir / "run")["loss"] == [(50 + step, float(step)) for step in range(10)]


def test_a_writer_that_begins_anew_names_the_file_that_it_gets(place: World) -> None:
    place.serve()
    result = place.run(
        """
        import os, shutil
        from tbxd_client import SummaryWriter
        for _ in range(3):
            shutil.rmtree("logs/run", ignore_errors=True)
            writer = SummaryWriter("logs/run")
            name = writer.file_writer.event_writer._file_name
            writer.add_scalar("loss", 1.0, 1)
            assert writer.flush(30)
            assert os.listdir("logs/run") == [os.path.basename(name)], (os.listdir("logs/run"), name)
        """
    )
    assert result.returncode == 0, result.stderr
