"""Who goes on with whose work: a restart takes the place of what it repeats, and whoever is none keeps every point."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from harness import World, scalars, wait_for, world
from tb import LOADERS, board

Points = list[tuple[int, float]]

# What a life logs comes in the environment: who is started with other arguments is no restart.
TRAIN = """
    import os, signal, time
    clock = time.time
    shift = float(os.environ.get("SHIFT", "0"))
    time.time = lambda: clock() + shift
    from tbxd_client import SummaryWriter
    life, begin, end, stride = map(int, os.environ["GIVEN"].split())
    writer = SummaryWriter("logs/run", **eval(os.environ.get("WRITER", "{}")))
    for step in range(begin, end, stride):
        writer.add_scalar("loss", 1000 * life + step, step)
    if os.environ.get("WAIT"):
        writer.flush(30)
        print("logged", flush=True)
        input()
    os.kill(os.getpid(), getattr(signal, os.environ.get("SIGNAL", "SIGKILL")))
"""
EVALUATE = "    # another program\n" + TRAIN.lstrip("\n")


def of(life: int, *steps: int) -> Points:
    return [(step, 1000.0 * life + step) for step in range(*steps)]


def life(place: World, script: str, number: int, begin: int, end: int, stride: int = 1, **environ: str) -> None:
    """One life, which is killed at its end."""
    given = {"GIVEN": f"{number} {begin} {end} {stride}", **environ}
    assert place.run(script, environ=given).returncode == -9


def drained(place: World) -> None:
    place.ensure()
    wait_for(place.drained, "the journals to be drained")


def shown(logdir: Path, tag: str = "loss") -> dict[str, Points]:
    """The runs that have a tag, which all readers show alike."""
    found: dict[str, Points] = {}
    for folder in sorted({path.parent for path in logdir.rglob("*tfevents*")}):
        reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        reader.Reload()
        if tag in reader.Tags()["scalars"]:
            found[str(folder.relative_to(logdir))] = [(event.step, event.value) for event in reader.Scalars(tag)]
    for loader in LOADERS:
        with board(logdir, loader) as shows:
            shows.until(lambda shows=shows: {run: shows.scalars(run, tag) for run in found} == found, loader)
            assert {run for run, tags in shows.tags().items() if tag in tags} == set(found)
    return found


def beside(found: dict[str, Points]) -> dict[str, Points]:
    """Those of them that are below the run, without the parts of their names that each process has for itself."""
    names = {re.sub(r"-[^-]+-\d+-\w{5}_[\d-]+$", "", run): run for run in found if run.startswith("run/")}
    assert len(names) + 1 == len(found)
    return {name: found[run] for name, run in names.items()}


# --- what is no restart keeps every point ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [(1500, 1501, 1), *(pytest.param(steps, marks=pytest.mark.long) for steps in ((4000, 4001, 1), (0, 5000, 500)))],
)
def test_an_evaluation_of_an_older_checkpoint_hides_nothing(place: World, steps: tuple[int, int, int]) -> None:
    place.serve()
    life(place, TRAIN, 1, 1000, 4001, 1000)
    life(place, EVALUATE, 2, *steps)
    drained(place)
    found = shown(place.logdir)
    assert found["run"] == of(1, 1000, 4001, 1000)
    assert beside(found) == {"run/python": of(2, *steps)}
    status = place.status()
    assert status is not None
    counts = status["runs"][str(place.logdir / "run")]
    assert counts["beside"] == [run.removeprefix("run/") for run in found if run != "run"]
    assert counts["accepted"] == counts["written"] == 4 + len(of(2, *steps)) and not counts["dropped"]
    told = place.tbxd("status").stdout
    assert f"are in runs below it: {counts['beside'][0]}" in told and "TBXD_RESUME=always" in told
    assert place.tbxd("check", str(place.logdir)).returncode == 0


def test_evaluations_that_go_on_are_one_curve_and_one_that_goes_back_is_another(place: World) -> None:
    place.serve()
    for number, step in enumerate((1000, 2000, 3000), 1):
        life(place, EVALUATE + "\n" * number, number, step, step + 1)
    life(place, EVALUATE + "\n" * 9, 9, 1500, 1501)
    drained(place)
    found = shown(place.logdir)
    assert found["run"] == of(1, 1000, 1001) + of(2, 2000, 2001) + of(3, 3000, 3001)
    assert beside(found) == {"run/python": of(9, 1500, 1501)}


@pytest.mark.parametrize("script", [TRAIN, EVALUATE])
def test_two_jobs_at_once_keep_every_point(place: World, script: str) -> None:
    place.serve()
    first = place.start(TRAIN, environ={"GIVEN": "1 0 100 1", "WAIT": "1"}, stdin=-1, stdout=-1)
    assert first.stdout is not None and first.stdin is not None
    assert first.stdout.readline() == b"logged\n"
    life(place, script, 2, 0, 200)
    wait_for(lambda: len(place.journals()) == 1, "the journal of the second to be drained")
    first.stdin.write(b"\n")
    first.stdin.close()
    first.wait()
    drained(place)
    found = shown(place.logdir)
    assert found["run"] == of(1, 0, 100)
    assert beside(found) == {"run/python": of(2, 0, 200)}


def test_workers_that_are_made_anew_in_each_epoch_keep_every_point(place: World) -> None:
    place.serve()
    result = place.run(
        """
        import multiprocessing
        from tbxd_client import SummaryWriter
        def work(epoch):
            with SummaryWriter("logs/run") as writer:
                for step in range(20):
                    writer.add_scalar("load", 1000 * epoch + step, step)
        with SummaryWriter("logs/run") as writer:
            for epoch in (1, 2, 3):
                worker = multiprocessing.get_context("fork").Process(target=work, args=(epoch,))
                worker.start()
                worker.join()
                writer.add_scalar("loss", 1000 + epoch, epoch)
        """
    )
    assert result.returncode == 0, result.stderr
    drained(place)
    found = shown(place.logdir, "load")
    assert sorted(found.values()) == [of(1, 20), of(2, 20), of(3, 20)]
    assert found["run"] == of(1, 20)
    assert shown(place.logdir) == {"run": of(1, 1, 4)}


def test_where_nobody_can_know_an_argument_or_a_setting_decides(place: World) -> None:
    place.serve()
    life(place, TRAIN, 1, 0, 30)
    life(place, EVALUATE, 2, 20, 40, WRITER="dict(resume='always')")
    drained(place)
    assert shown(place.logdir) == {"run": of(1, 0, 20) + of(2, 20, 40)}
    life(place, EVALUATE, 3, 30, 50, TBXD_RESUME="never")
    drained(place)
    found = shown(place.logdir)
    assert found["run"] == of(1, 0, 20) + of(2, 20, 40)
    assert beside(found) == {"run/python": of(3, 30, 50)}
    result = place.run("from tbxd_client import SummaryWriter\nSummaryWriter('logs/x', resume='perhaps')")
    assert "resume='perhaps': 'auto', 'always', 'never' are possible" in result.stderr


def test_arguments_that_say_that_a_program_goes_on_make_it_no_other_program(place: World) -> None:
    place.serve()
    given = '(2, 20, 40, 1) if "--resume" in sys.argv else (1, 0, 30, 1)'
    script = TRAIN.replace('os.environ["GIVEN"].split()', given)
    script = script.replace("import os", "import os, sys", 1)
    assert place.run(script, "--lr", 1).returncode == -9
    assert place.run(script, "--lr", 1, "--resume", "last.pt").returncode == -9
    drained(place)
    assert shown(place.logdir) == {"run": of(1, 0, 20) + of(2, 20, 40)}
    assert place.run(script, "--lr", 2).returncode == -9
    drained(place)
    found = shown(place.logdir)
    assert found["run"] == of(1, 0, 20) + of(2, 20, 40) and beside(found) == {"run/python": of(1, 0, 30)}


@pytest.mark.parametrize(
    ("before", "after", "goes_on"),
    [
        ("--epochs 60", "--epochs 600 --resume last.pt", True),
        ("", "--ckpt_path last.ckpt", True),
        ("lr=0.1", "lr=0.1 ckpt=last.ckpt", True),
        ("--port 29500", "--port 29501 --load-from last.pt", True),
        ("", "--eval --load last.pt", False),
        ("fit", "validate --ckpt_path last.ckpt", False),
        ("mode=train", "mode=test", False),
        ("--eval", "--eval --epochs 2", True),
    ],
)
def test_the_same_program_with_other_arguments_goes_on_where_it_does_not_say_that_it_does_something_else(
    place: World, before: str, after: str, goes_on: bool
) -> None:
    """People resume with an argument more; a second run, said to nobody, was what they got."""
    place.serve()
    given = f"(2, 20, 40, 1) if sys.argv[1:] == {after.split()} else (1, 0, 30, 1)"
    script = TRAIN.replace('os.environ["GIVEN"].split()', given).replace("import os", "import os, sys", 1)
    assert place.run(script, *before.split()).returncode == -9
    assert place.run(script, *after.split()).returncode == -9
    drained(place)
    found = shown(place.logdir)
    if goes_on:
        assert found == {"run": of(1, 0, 20) + of(2, 20, 40)}
    else:
        assert found["run"] == of(1, 0, 30) and beside(found) == {"run/python": of(2, 20, 40)}


@pytest.mark.parametrize("told", ["--epochs 600 --resume last.pt", "--trial 2"])
def test_what_a_program_says_of_itself_as_it_begins_is_no_beginning_of_its_work(place: World, told: str) -> None:
    """As transformers' Trainer does: its settings as a text without a step, and a number. The curve goes on; what was
    said before stays, and what is said now is beside."""
    place.serve()
    script = """
        import os, signal, sys
        from tbxd_client import SummaryWriter
        life, begin = (2, 51 if "--resume" in sys.argv else 1) if len(sys.argv) > 1 else (1, 1)
        writer = SummaryWriter("logs/run")
        writer.add_text("args", f"life {life}")
        writer.add_scalar("parameters", 1000 * life)
        for step in range(begin, begin + 60):
            writer.add_scalar("loss", 1000 * life + step, step)
        writer.flush(30)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    for arguments in ([], told.split()):
        assert place.run(script, *arguments).returncode == -9
        drained(place)
    found = shown(place.logdir)
    if "--resume" in told:
        assert found == {"run": of(1, 1, 51) + of(2, 51, 111)}
    else:
        assert found["run"] == of(1, 1, 61) and beside(found) == {"run/python": of(2, 1, 61)}
    said = shown(place.logdir, "parameters")
    assert said["run"] == [(0, 1000.0)] and beside(said) == {"run/python": [(0, 2000.0)]}


def test_a_script_may_have_a_name_of_any_length_and_script(place: World) -> None:
    place.serve()
    for number, name in enumerate(("\N{CJK UNIFIED IDEOGRAPH-5B57}" * 80, "s" * 200, "\N{GRINNING FACE}" * 60)):
        path = place.root / f"{name}.py"
        path.write_text(
            "from tbxd_client import SummaryWriter\n"
            f"with SummaryWriter('logs/{number}') as writer:\n    writer.add_scalar('value', 1, 0)\n"
            "    assert writer.flush(20)\n"
        )
        result = subprocess.run([sys.executable, path], env=place.environ, cwd=place.root, capture_output=True)
        assert (result.returncode, result.stderr) == (0, b""), name
        assert scalars(place.logdir / str(number)) == {"value": [(0, 1)]}


# --- order is that of beginnings ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", ["60", "-60"])
@pytest.mark.parametrize("writer", ["{}", "dict(purge_step=50)"])
def test_a_clock_that_was_set_changes_nothing(place: World, shift: str, writer: str) -> None:
    """The first life was a minute ahead: 120 steps, and 120 points."""
    place.serve()
    life(place, TRAIN, 1, 0, 100, SHIFT=shift)
    drained(place)
    life(place, TRAIN, 2, 50, 120, WRITER=writer)
    drained(place)
    assert shown(place.logdir) == {"run": of(1, 0, 50) + of(2, 50, 120)}


@pytest.mark.parametrize("environ", [{}, {"TBXD_RUN_ID": "job"}])
def test_two_lives_that_logged_while_no_daemon_ran_are_written_in_their_order(
    place: World, environ: dict[str, str]
) -> None:
    for turn in range(3):
        for number, begin, end in ((1, 0, 30), (2, 20, 40)):
            told = {**environ, "TBXD_ATTEMPT": str(number)} if environ else {}
            life(place, TRAIN, number, begin, end, TBXD_PYTHON="/bin/false", **told)
        assert len(place.journals()) == 2
        result = place.tbxd("drain")
        assert result.returncode == 0, result.stderr
        assert shown(place.logdir) == {"run": of(1, 0, 20) + of(2, 20, 40)}, turn
        shutil.rmtree(place.logdir)
        if place.running():
            place.kill_daemon()


def test_two_that_logged_at_once_while_no_daemon_ran_keep_every_point(place: World) -> None:
    """Neither has begun when the other was over: their journals tell."""
    script = TRAIN.replace(
        "    if os.environ",
        """    end = time.monotonic()
    while os.environ.get("UNTIL") and time.monotonic() < end + 4:  # until long after the other has begun
        if not os.path.exists(os.environ["UNTIL"]):
            end = time.monotonic()
        step += 1
        writer.add_scalar("loss", 1000 * life + step, step)
        time.sleep(0.01)
    print(step, flush=True)
    if os.environ""",
        1,
    )
    until, environ = place.root / "until", {"TBXD_PYTHON": "/bin/false"}
    first = place.start(script, environ={**environ, "GIVEN": "1 0 30 1", "UNTIL": str(until)}, stdout=-1)
    wait_for(place.journals, "the journal of the first")
    result = place.run(script, environ={**environ, "GIVEN": "2 20 40 1"})
    assert result.returncode == -9
    until.touch()
    last = int(first.communicate()[0])
    assert len(place.journals()) == 2
    assert place.tbxd("drain").returncode == 0
    found = shown(place.logdir)
    assert found["run"] == of(1, 0, last + 1)
    assert beside(found) == {"run/python": of(2, 20, 40)}


def test_who_begins_while_what_a_killed_one_has_left_waits_follows_it(place: World) -> None:
    life(place, TRAIN, 1, 0, 30, TBXD_PYTHON="/bin/false")
    assert len(place.journals()) == 1
    life(place, TRAIN, 2, 20, 40, WAIT="")
    drained(place)
    assert shown(place.logdir) == {"run": of(1, 0, 20) + of(2, 20, 40)}


# --- what comes late ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", ["{}", "dict(purge_step=250)"])
@pytest.mark.parametrize("ahead", ["0", pytest.param("-1", marks=pytest.mark.long)])
def test_a_dead_hosts_journal_that_comes_late_is_written_beside_the_job_that_went_on(
    tmp_path: Path, writer: str, ahead: str
) -> None:
    """A logs 0 to 1499 and dies with records pending; B resumes at 250 elsewhere, its clock behind, and goes on."""
    with world(tmp_path / "a") as one, world(tmp_path / "b") as other:
        (other.root / "logs").symlink_to(one.logdir)
        one.logdir.mkdir()
        one.serve()
        trainer = one.start(LATE, stdin=-1, stdout=-1)
        assert trainer.stdout is not None and trainer.stdin is not None
        assert trainer.stdout.readline() == b"1260\n"
        pid = one.kill_daemon()
        trainer.stdin.write(b"\n")
        trainer.stdin.flush()
        assert trainer.wait() == -9 and pid
        wait_for(lambda: not one.running(), "no daemon")
        assert len(one.journals()) == 1
        other.serve()
        result = other.run(LATE, environ={"LIFE": "2", "WRITER": writer, "SHIFT": ahead})
        assert result.returncode == 0, result.stderr
        drained(other)
        assert shown(one.logdir) == {"run": of(1, 0, 250) + of(2, 250, 2000)}
        other.kill_daemon()
        result = one.tbxd("drain")
        assert result.returncode == 0, result.stderr
        found = shown(one.logdir)
        assert found["run"] == of(1, 0, 250) + of(2, 250, 2000)
        assert list(beside(found).values()) == [of(1, 1260, 1500)]
        assert sum(len(points) for points in scalars(one.logdir / "run").values()) == 1260 + 1750


LATE = """
    import os, signal, time
    life, clock, shift = int(os.environ.get("LIFE", "1")), time.time, float(os.environ.get("SHIFT", "0"))
    time.time = lambda: clock() + shift
    from tbxd_client import SummaryWriter
    writer = SummaryWriter("logs/run", **eval(os.environ.get("WRITER", "{}")))
    for step in range(0 if life == 1 else 250, 1260 if life == 1 else 2000):
        writer.add_scalar("loss", 1000 * life + step, step)
    assert writer.flush(30)
    if life == 1:
        os.environ["TBXD_PYTHON"] = "/bin/false"  # no other daemon
        print(step + 1, flush=True)
        input()
        for step in range(1260, 1500):
            writer.add_scalar("loss", 1000 * life + step, step)
        os.kill(os.getpid(), signal.SIGKILL)
"""
