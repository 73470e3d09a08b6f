"""A journal whose folder is out of reach while its trainer lives is read to its end; another takes what comes then."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from harness import World, scalars, wait_for
from inject import told
from oracle import Verdict
from report import account
from tbxd_client.config.paths import spools
from tbxd_client.journal.journal_files import SEGMENT_HEAD_BYTES, is_session_name
from tbxd_client.protocol.records import SCALAR_BYTES
from test_two_users import User, users

__all__ = ["users"]

# Does what it is told, line by line: "log N", "flush", "stats", "python CODE", and ends with its input.
TRAINER = """
import json, os, sys, time
from tbxd_client import SummaryWriter
writer = SummaryWriter(sys.argv[1])
step, longest = 0, 0.0
for line in sys.stdin:
    what, _, rest = line.strip().partition(" ")
    if what == "log":
        for _ in range(int(rest)):
            begun = time.perf_counter()
            writer.add_scalar("value", step, step)
            longest = max(longest, time.perf_counter() - begun)
            step += 1
    elif what == "same":  # steps that nobody gives: all are 0
        for _ in range(int(rest)):
            writer.add_scalar("same", 1.0)
    elif what == "python":
        exec(rest)
    found = {"flushed": writer.flush(30)} if what == "flush" else {}
    print(json.dumps({**found, **writer.stats(), "longest": longest}), flush=True)
"""


class Told:
    """A trainer that does what it is told."""

    def __init__(self, place: World, *command: str, folder: str = "logs/a", **environ: str) -> None:
        self.place = place
        script = ["-c", TRAINER, folder]
        self.process = subprocess.Popen(
            [*command, *script] if command else [*_python(), *script],
            env={**place.environ, **environ},
            cwd=place.root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(place.root / "said").open("ab"),
        )
        place.processes.append(self.process)

    def do(self, what: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(what.encode() + b"\n")
        self.process.stdin.flush()
        return told(self.process)

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(60)

    @property
    def said(self) -> str:
        return (self.place.root / "said").read_text()


def _python() -> list[str]:
    import sys

    return [sys.executable]


def journals(place: World) -> list[Path]:
    """Those of this world, wherever they are."""
    found = []
    for spool in spools(place.spool):
        with contextlib.suppress(OSError):  # it is gone
            found += [path for path in spool.iterdir() if is_session_name(path.name)]
    return found


def moved(place: World, before: list[Path]) -> bool:
    """Whether another journal has come."""
    return bool(set(journals(place)) - set(before))


def whole(count: int) -> dict[str, list[tuple[int, float]]]:
    return {"value": [(step, float(step)) for step in range(count)]}


def emptied(spool: Path) -> None:
    subprocess.run(f"rm -rf {spool}/*", shell=True, check=True)


def renamed(spool: Path) -> None:
    spool.rename(spool.with_name("elsewhere"))


def removed(spool: Path) -> None:
    subprocess.run(["rm", "-rf", str(spool)], check=True)


def journal_renamed(spool: Path) -> None:
    (path,) = (path for path in spool.iterdir() if is_session_name(path.name))
    path.rename(spool / "kept")


def covered(spool: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(spool)], capture_output=True).returncode:
        pytest.skip("no permission to mount")


AWAY = [emptied, renamed, removed, journal_renamed, covered]


@pytest.mark.parametrize(
    "away", [pytest.param(one, marks=[pytest.mark.long] * (one not in (removed, covered))) for one in AWAY]
)
def test_a_spool_that_is_taken_away_costs_nothing_and_the_next_records_are_in_another_journal(
    place: World, away: Any
) -> None:
    place.serve()
    trainer = Told(place)
    trainer.do("log 2000")
    before = journals(place)
    away(place.spool)
    try:
        # What the segment had room for has to be safe as well: a look finds the loss, not a segment that is full.
        wait_for(lambda: trainer.do("log 10") and moved(place, before), "another journal")
        found = trainer.do("log 100000")
        assert found["dropped"] == {} and found["longest"] < 2, found
        assert trainer.do("flush")["flushed"]
        found = trainer.do("stats")
        assert found["accepted"] == found["written"] and found["waiting_bytes"] == 0, found
        assert scalars(place.logdir / "a") == whole(found["accepted"])
        status = place.status()
        assert status is not None and status["totals"]["dropped"] == {}
        wait_for(lambda: len(place.status()["sessions"]) == 1, "the end of the first session")  # type: ignore[index]
        # As safe from a kill as before.
        place.kill_daemon()
        count = trainer.do("log 5000")["accepted"]
        trainer.process.send_signal(signal.SIGKILL)
        trainer.process.wait()
        place.ensure()
        wait_for(lambda: scalars(place.logdir / "a") == whole(count), "all of it")
    finally:
        if away is covered:
            subprocess.run(["umount", "-l", str(place.spool)], check=True)
    assert trainer.said.count("out of reach") == 1 and trainer.said.count("tbxd:") == 1, trainer.said
    account("spool_away", 1, Verdict(accepted=count, written=count))


def test_what_the_lost_journal_holds_comes_before_what_follows_also_where_a_daemon_comes_late(place: World) -> None:
    environ = {"TBXD_ADDRESS": f"ipc://{place.runtime}/daemon.sock"}  # nobody starts one
    trainer = Told(place, **environ)
    trainer.do("log 2000")
    trainer.do("same 5")
    before = journals(place)
    emptied(place.spool)
    wait_for(lambda: trainer.do("log 10") and moved(place, before), "another journal")
    trainer.do("log 1000")
    found = trainer.do("same 5")
    assert found["pending"] == found["accepted"] == found["accepted"] and found["waiting_bytes"] > 0
    place.serve()
    assert trainer.do("flush")["flushed"]
    assert trainer.end() == 0
    points = scalars(place.logdir / "a")
    assert points["value"] == whole(found["accepted"] - 10)["value"]
    assert points["same"] == 10 * [(0, 1.0)], "it is one life: what it repeats takes nothing away"
    assert place.drained()


def test_what_nobody_can_read_any_more_is_counted_at_the_end(place: World) -> None:
    place.extra |= {"TBXD_ADDRESS": f"ipc://{place.runtime}/nobody.sock", "TBXD_FLUSH_SECONDS": "0.2"}
    trainer = Told(place)
    trainer.do("log 2000")
    before = journals(place)
    emptied(place.spool)
    lost = 2000
    while not moved(place, before):
        lost = trainer.do("log 10")["accepted"] - 10
    trainer.do("log 90")
    assert trainer.end() == 0
    said = trainer.said
    assert f"{lost:,} records were dropped in this process: {lost:,} no_journal" in said, said
    place.extra.clear()
    place.serve()
    kept = [(step, float(step)) for step in range(lost, lost + 100)]
    wait_for(lambda: scalars(place.logdir / "a") == {"value": kept}, "what was kept")


def test_a_spool_that_is_emptied_again_and_again_is_left_for_another(place: World) -> None:
    place.serve()
    trainer = Told(place)
    for _ in range(3):
        trainer.do("log 1000")
        before = journals(place)
        if place.spool.is_dir():
            emptied(place.spool)
        if journals(place) == before:
            break
        wait_for(lambda before=before: trainer.do("log 10") and moved(place, before), "another journal")
    assert not set(journals(place)) & set(place.spool.glob("*")), "it is not where it does not last"
    assert trainer.do("flush")["flushed"]
    assert scalars(place.logdir / "a") == whole(trainer.do("stats")["accepted"])


def test_a_child_of_a_trainer_that_has_moved_logs_for_itself(place: World) -> None:
    place.serve()
    trainer = Told(place)
    trainer.do("log 1000")
    before = journals(place)
    emptied(place.spool)
    wait_for(lambda: trainer.do("log 10") and moved(place, before), "another journal")
    trainer.do(
        "python "
        'pid = os.fork(); [writer.add_scalar("child", n, n) for n in range(100)] + [writer.close(), os._exit(0)] '
        "if not pid else os.waitpid(pid, 0)"
    )
    assert trainer.do("flush")["flushed"] and trainer.end() == 0
    wait_for(lambda: len(scalars(place.logdir / "a").get("child", ())) == 100, "the child's")
    assert place.drained()


@pytest.mark.long
def test_a_trainer_that_changes_its_root_goes_on_in_its_journal(place: World) -> None:
    """The daemon sees the folder, and new files in it are made by its descriptor; there is no /dev/null any more."""
    if os.getuid():
        pytest.skip("only root can change its root")
    place.serve()
    trainer = Told(place)
    trainer.do("log 1000")
    assert trainer.do("flush")["flushed"], "it is connected: by its path nobody finds the daemon from in there"
    (place.root / "bare").mkdir()
    trainer.do(f'python os.chroot({str(place.root / "bare")!r}); os.chdir("/")')
    found = trainer.do("log 100000")
    assert found["dropped"] == {}
    assert trainer.do("flush")["flushed"]
    place.kill_daemon()
    count = trainer.do("log 100000")["accepted"]
    place.serve()
    assert trainer.end() == 0
    wait_for(lambda: scalars(place.logdir / "a") == whole(count), "all of it")
    wait_for(place.drained, "the journal")
    assert "descriptors" not in trainer.said


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "not yet connected"])
def test_a_trainer_that_becomes_another_user_loses_nothing(users: tuple[User, User], connected: bool) -> None:
    user, _ = users
    root = user.home.parent / "world"
    place = World(root)
    place.extra |= {**user.python, "PATH": os.environ["PATH"], "HOME": str(user.home)}
    os.chmod(root, 0o755)
    folder = place.logdir / "a"
    folder.mkdir(parents=True)
    os.chmod(folder, 0o777)
    try:
        place.serve()
        trainer = Told(place, user.interpreter)
        if connected:
            trainer.do("log 1000")
            assert trainer.do("flush")["flushed"]
            trainer.do(f"python os.setgid({user.uid}); os.setuid({user.uid})")
        else:
            code = f"[writer.add_scalar('value', n, n) for n in range(1000)]; step = 1000; os.setgid({user.uid}); "
            trainer.do(f"python {code}os.setuid({user.uid})")
        found = trainer.do("log 100000")
        assert found["dropped"] == {}, trainer.said
        count = found["accepted"]
        # What another user's daemon alone can find is left to it, and this process does not know what becomes of it.
        flushed = trainer.do("flush")["flushed"]
        assert flushed or not connected, trainer.said
        wait_for(lambda: sorted(scalars(folder).get("value", ())) == whole(count)["value"], "all of it")
        assert trainer.end() == 0
        wait_for(lambda: sorted(scalars(folder)["value"]) == whole(count)["value"], "all of it")
    finally:
        place.end()


def test_a_trainer_that_has_become_another_user_does_not_wait_for_a_daemon_that_cannot_answer_it(
    users: tuple[User, User],
) -> None:
    """Before it was connected: the daemon's folder is closed to who it is now. What it has logged is written."""
    user, _ = users
    place = World(user.home.parent / "estranged")
    place.extra |= {**user.python, "PATH": os.environ["PATH"], "HOME": str(user.home)}
    place.root.chmod(0o755)
    folder = place.logdir / "a"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    code = f"""
import os, time
from tbxd_client import SummaryWriter
writer = SummaryWriter({str(folder)!r})
writer.add_scalar("value", 0, 0)
os.setgid({user.uid})
os.setuid({user.uid})
for step in range(1, 100):
    writer.add_scalar("value", step, step)
begun = time.monotonic()
writer.close()
print(time.monotonic() - begun)
"""
    environ = {**place.environ, "TBXD_FLUSH_SECONDS": "30"}
    try:
        command = [user.interpreter, "-c", code]
        result = subprocess.run(command, env=environ, cwd="/", capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr
        assert float(result.stdout) < 10, f"it waits for nobody: {result.stderr}"
        assert "the daemon of the user whose folder that is writes them" in result.stderr
        place.ensure()
        wait_for(lambda: scalars(folder) == whole(100), "all of it")
    finally:
        place.end()


def test_with_another_effective_user_for_a_while_nothing_is_lost(place: World) -> None:
    if os.getuid():
        pytest.skip("only root can be somebody else for a while")
    place.serve()
    trainer = Told(place)
    trainer.do("log 1000")
    trainer.do("python os.seteuid(12345)")
    assert trainer.do("log 100000")["dropped"] == {}
    trainer.do("python os.seteuid(0)")
    count = trainer.do("log 1000")["accepted"]
    assert trainer.do("flush")["flushed"], trainer.said
    assert scalars(place.logdir / "a") == whole(count)
    assert not Path("/tmp/tbxd-0").exists() or Path("/tmp/tbxd-0").stat().st_uid == 0, "a place for somebody else"
    assert trainer.end() == 0


def test_a_journal_that_is_cut_costs_what_was_cut_and_that_is_counted(place: World) -> None:
    """A trainer that logs now and then is not ended by it (one that stores at that very moment may be)."""
    place.extra |= {"TBXD_ADDRESS": f"ipc://{place.runtime}/daemon.sock"}
    trainer = Told(place)
    trainer.do("log 2000")
    (journal,) = journals(place)
    (segment,) = journal.glob("*.segment")
    wait_for(lambda: "Records wait" in trainer.said, "the sender to be at work")
    os.truncate(segment, SEGMENT_HEAD_BYTES + 500 * SCALAR_BYTES)
    wait_for(lambda: trainer.do("stats") and _sealed(trainer), "the look")
    trainer.do("log 1000")
    place.serve()
    assert trainer.do("flush")["flushed"] in (True, False)
    wait_for(lambda: not trainer.do("stats")["pending"], "an end of it")
    found = trainer.do("stats")
    assert found["accepted"] == 3000 and found["written"] == 3000 - found["dropped"]["no_journal"], found
    assert found["dropped"] == {"no_journal": 1500}
    steps = [step for step, _ in scalars(place.logdir / "a")["value"]]
    assert steps == [*range(500), *range(2000, 3000)]
    status = place.status()
    assert status is not None and status["totals"]["dropped"] == {"no_journal": 1500}
    assert trainer.end() == 0


def _sealed(trainer: Told) -> bool:
    assert trainer.process.stdin is not None
    trainer.process.stdin.write(
        b"python import tbxd_client.session.session as s; "
        b"print(json.dumps({'sealed': s._current.journal.sealed}), flush=True)\n"
    )
    trainer.process.stdin.flush()
    found = told(trainer.process)
    told(trainer.process)
    return bool(found["sealed"])


def test_ranks_are_reduced_also_behind_a_journal_that_was_lost(place: World) -> None:
    place.serve("--verbose")
    both = [
        Told(place, RANK=str(rank), WORLD_SIZE="2", LOCAL_RANK=str(rank), TORCHELASTIC_RUN_ID="job") for rank in (0, 1)
    ]
    for trainer in both:
        trainer.do("log 500")
    before = journals(place)
    emptied(place.spool)
    for trainer in both:
        wait_for(lambda trainer=trainer: trainer.do("log 10") and moved(place, before), "another journal")
    counts = [trainer.do("stats")["accepted"] for trainer in both]
    for trainer, count in zip(both, counts, strict=True):
        trainer.do(f"log {max(counts) + 500 - count}")
    for trainer in both:
        assert trainer.do("flush")["flushed"]
    for trainer in both:
        assert trainer.end() == 0
    wait_for(lambda: scalars(place.logdir / "a") == whole(max(counts) + 500), "all points")
    status = place.status()
    assert status is not None and status["totals"]["dropped"] == {}, json.dumps(status["totals"])
