"""A short job of several ranks of which one alone logs: what it has logged is written when no other rank may come any
more, which the processes of the host tell, and not before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import World, scalars, wait_for
from tbxd.config.settings import Settings
from tbxd.reduce import launched_ranks as launched
from tbxd.reduce.expected_ranks import Coming
from tbxd.reduce.launched_ranks import START_ALL_SECONDS, Absent, Host, Launched
from tbxd.reduce.tag_membership import ENDED_SECONDS
from tbxd.reduce.unread_records import Reads
from tbxd.transport import control_client as ask
from tbxd_client.distributed import job_identity as jobs
from tbxd_client.distributed.job_identity import Process
from tbxd_client.journal.journal_files import SESSION_BYTES
from tbxd_client.protocol.records import RunDefinition

# As torchrun does: all ranks at once, each with a session of its own, and it ends when all have.
LAUNCHER = """
import os, subprocess, sys
told = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
told |= {"TORCHELASTIC_RUN_ID": "none"}
ranks = []
for rank in "01":
    environ = os.environ | told | {"RANK": rank, "LOCAL_RANK": rank}
    ranks.append(subprocess.Popen([sys.executable, "rank.py"], env=environ, start_new_session=True))
print(*[rank.pid for rank in ranks], flush=True)
sys.exit(max(rank.wait() for rank in ranks))
"""
# As mp.spawn: ranks are told in the processes themselves.
SPAWNER = """
import multiprocessing, os, runpy

def work(rank):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29512"}
    runpy.run_path("rank.py", run_name="rank")

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=work, args=(rank,)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    print(*[rank.pid for rank in ranks], flush=True)
    for rank in ranks:
        rank.join()
"""
RANK = """
import os, time
from pathlib import Path
from tbxd_client import SummaryWriter

rank = int(os.environ["RANK"])
writer = SummaryWriter("exp", reduce={"tokens": "sum"})  # knows its job from here on, whatever becomes of its launcher
if rank:
    Path("made").touch()
while rank and not Path("go").exists():
    time.sleep(0.01)
if not rank or Path("go").read_text() == "log":
    for step in range(20):
        writer.add_scalar("tokens", 1.0, step)
    writer.close()
"""


@pytest.fixture
def job(place: World) -> Any:
    """Starts a job; gives the launcher and the pid of rank 1."""
    started = []

    def start(program: str) -> tuple[subprocess.Popen[str], int]:
        (place.root / "launch.py").write_text(textwrap.dedent(program))
        (place.root / "rank.py").write_text(textwrap.dedent(RANK))
        launcher = subprocess.Popen(
            [sys.executable, "launch.py"],
            env=place.environ,
            cwd=place.root,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # what other tests start is not taken for a rank
        )
        started.append(launcher.pid)
        assert launcher.stdout is not None
        pids = [int(pid) for pid in launcher.stdout.readline().split()]
        started.extend(pids)
        return launcher, pids[1]

    yield start
    for pid in started:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass


def shown(place: World) -> list[tuple[int, float]]:
    folder = place.root / "exp"
    return scalars(folder).get("tokens", []) if folder.is_dir() else []


def rank_0_is_over(place: World) -> bool:
    """Return True if all records of rank 0 have come, and wait for rank 1."""
    if not place.running():
        return False
    status = ask.ask(Settings.of({"runtime_dir": str(place.runtime)}), "status", timeout=30)
    ranks = [run.get("ranks") for run in status["runs"].values()]
    return any(known is not None and known["joined"] == 1 and not known["alive"] for known in ranks)


@pytest.mark.parametrize("program", [LAUNCHER, SPAWNER])
def test_what_one_rank_has_logged_is_written_soon_after_the_end_of_the_job(
    place: World, job: Any, program: str
) -> None:
    """And not before all are gone."""
    begun = time.monotonic()
    launcher, _ = job(program)
    wait_for(lambda: rank_0_is_over(place), "rank 0 to have ended")
    assert shown(place) == []
    (place.root / "go").write_text("end")
    assert launcher.wait(30) == 0
    wait_for(lambda: len(shown(place)) == 20, "the file to be whole")
    assert time.monotonic() - begun < ENDED_SECONDS, "it was not waited for ranks of which nobody knows"
    assert shown(place) == [(step, 1.0) for step in range(20)]


@pytest.mark.parametrize("program", [LAUNCHER, SPAWNER])
@pytest.mark.parametrize("killed", [False, True])
def test_a_rank_that_lives_is_waited_for_whether_or_not_its_launcher_does(
    place: World, job: Any, program: str, killed: bool
) -> None:
    """A wrong sum is worse than a late one."""
    launcher, rank = job(program)
    wait_for(lambda: rank_0_is_over(place), "rank 0 to have ended")
    wait_for((place.root / "made").exists, "the writer of rank 1")
    if killed:
        launcher.kill()
        launcher.wait()
        os.kill(rank, 0)
    looked = time.monotonic() + 2 * launched.LOOK_SECONDS_MAX
    wait_for(lambda: time.monotonic() > looked, "the daemon to have looked")
    assert shown(place) == []
    (place.root / "go").write_text("log")
    wait_for(lambda: len(shown(place)) == 20, "the file to be whole")
    assert shown(place) == [(step, 2.0) for step in range(20)]


# --- the processes of a host ----------------------------------------------------------------------------------------

LAUNCHER_PID, SHELL_PID, DAEMON_PID = 100, 90, 500
RANK_TOLD = b"\0RANK=1\0"


class Fake(Host):
    """A host whose launcher was started by a shell and lives."""

    def __init__(self) -> None:
        super().__init__()
        self.own = DAEMON_PID
        self.there: dict[int, Process] = {}
        self.environs: dict[int, bytes] = {}
        self.hidden: set[int] = set()
        self.now = 2000.0
        self.add(1, 0, started=0)
        self.add(SHELL_PID, 1, started=10)
        self.add(LAUNCHER_PID, SHELL_PID, started=1000)
        self.add(DAEMON_PID, 1, started=1100, environ=b"\0RANK=0\0TBXD_STARTED=4:5\0")

    def add(
        self, pid: int, parent: int, started: int = 1050, environ: bytes = b"\0", group: int = 0, state: str = "S"
    ) -> None:
        self.there[pid] = Process(pid, "python", parent, pid, started, group or pid, state)
        self.environs[pid] = environ

    def launched(self, at_once: bool = False) -> Launched:
        text = f"7/{LAUNCHER_PID}.1000.{LAUNCHER_PID}.{SHELL_PID}/1050/RANK/{int(at_once)}"
        known = Launched.read(text, True, self)
        assert known is not None
        return known

    def namespace(self) -> int:
        return 7

    def ticks(self) -> float:
        return self.now

    def processes(self) -> dict[int, Process]:
        return dict(self.there)

    def environ(self, pid: int) -> bytes:
        return self.environs[pid]

    def is_there(self, pid: int) -> bool:
        return pid in self.there or pid in self.hidden


@pytest.fixture
def host() -> Fake:
    return Fake()


def test_a_launcher_that_lives_may_start_others_unless_it_has_started_all_at_once(host: Fake) -> None:
    assert host.launched().may_come()
    assert not host.launched(at_once=True).may_come()
    host.now = 1050 + (START_ALL_SECONDS - 0.1) / host.tick
    assert host.launched(at_once=True).may_come(), "it may just be about it"
    host.add(LAUNCHER_PID, SHELL_PID, started=1000, state="Z")
    assert not host.launched().may_come(), "it has ended, and nobody has asked for its status"


@pytest.mark.parametrize(
    ("told", "comes"),
    [(b"\0", True), (RANK_TOLD, True), (b"\0RANK=1\0TBXD_STARTED=4:5\0", False)],
)
def test_whatever_runs_below_the_launcher_may_be_a_rank_but_for_daemons(host: Fake, told: bytes, comes: bool) -> None:
    host.add(101, LAUNCHER_PID, environ=b"\0TBXD_STARTED=4:5\0")
    host.add(102, 101, environ=told)
    assert host.launched(at_once=True).may_come() is comes
    host.add(102, 101, environ=told, state="Z")
    assert not host.launched(at_once=True).may_come()


@pytest.mark.parametrize(
    ("rank", "comes"),
    [
        ({"environ": RANK_TOLD}, True),  # as torchrun starts them, each with a session of its own
        ({"group": LAUNCHER_PID}, True),  # as `multiprocessing` does
        ({"group": LAUNCHER_PID, "parent": 60}, True),  # which another process has been given, as under systemd
        ({"group": LAUNCHER_PID, "parent": SHELL_PID}, False),  # the next program of a script
        ({}, False),
        ({"environ": RANK_TOLD, "started": 999}, False),  # that of another job
    ],
)
def test_ranks_whose_launcher_was_killed_are_known_by_what_they_were_told_or_by_their_group(
    host: Fake, rank: dict[str, Any], comes: bool
) -> None:
    del host.there[LAUNCHER_PID]
    host.add(60, 1, started=5)
    host.add(101, **{"parent": 1, **rank})
    assert host.launched().may_come() is comes
    host.add(LAUNCHER_PID, 1, started=5000)  # another process with its number
    assert host.launched().may_come() is comes


def test_what_another_launcher_has_started_since_is_none(host: Fake) -> None:
    del host.there[LAUNCHER_PID]
    host.add(110, SHELL_PID, started=1200)
    host.add(111, 110, started=1201, environ=RANK_TOLD)
    host.add(112, 111, started=1202, environ=RANK_TOLD)
    assert not host.launched().may_come()
    host.add(120, 1, started=1300, environ=RANK_TOLD)  # a script of a rank, and what it has started
    host.add(121, 120, started=1301, environ=RANK_TOLD)
    assert host.launched().may_come()


def test_a_number_that_no_process_can_have_is_nobodys() -> None:
    """A client may say anything of who has launched it; an exception would begin its run anew again and again."""
    host = Host()
    for pid in (2**31, 9_999_999_999):
        assert not host.is_there(pid)
        known = Launched.read(f"{host.namespace():x}/{pid}.1.1.1/1/RANK/1", True)
        assert known is not None
        known.may_come()


def test_where_the_system_does_not_show_everything_a_rank_may_come(host: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    del host.there[LAUNCHER_PID]
    assert not host.launched().may_come()
    host.hidden.add(LAUNCHER_PID)
    assert host.launched().may_come()
    host.hidden.clear()

    def refuse() -> dict[int, Process]:
        raise PermissionError

    monkeypatch.setattr(host, "processes", refuse)
    assert host.launched().may_come()


def test_processes_are_looked_at_ever_more_rarely(host: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    monkeypatch.setattr(time, "perf_counter", iter(range(0, 1000)).__next__)
    monkeypatch.setattr(Launched, "may_come", lambda known: looks.append(known) or True)
    absent = Absent(host.launched())
    assert absent.may_come(100.0, lambda: False) and absent.due == 100.0 + launched.LOOK_SHARE
    assert absent.may_come(absent.due - 0.1, lambda: False) and len(looks) == 1
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)
    pauses = []
    for _ in range(8):
        now = absent.due
        assert absent.may_come(now, lambda: False)
        pauses.append(round(absent.due - now, 3))
    assert pauses == [0.04, 0.08, 0.16, 0.32, 0.5, 0.5, 0.5, 0.5]


def test_what_has_not_been_read_is_a_rank_that_comes(host: Fake) -> None:
    del host.there[LAUNCHER_PID]
    absent = Absent(host.launched())
    assert absent.may_come(1.0, lambda: True)
    assert not absent.may_come(absent.due, lambda: False)
    assert Absent(None).may_come(1.0, lambda: False), "nothing is known of who has started it"


SESSION = b"1" * SESSION_BYTES
RUN = RunDefinition(0, "/logs/run", "host", 1, 1.0, rank=0, world=2, job="job", reduce=True)


@dataclass
class Heard:
    """The hub's state of a session."""

    runs: list[RunDefinition | None]
    complete: bool = True
    broken: str = ""
    again: float = 0.0

    @property
    def session(self) -> Heard:
        return self


@pytest.mark.parametrize(
    ("heard", "unread"),
    [
        (Heard([RUN._replace(rank=1)]), True),
        (Heard([]), True),
        (Heard([None]), False),
        (Heard([RUN._replace(rank=1, job="another")]), False),
        (Heard([RUN._replace(rank=1, attempt=1)]), False),
        (Heard([RUN._replace(directory="/logs/other")]), False),
        (Heard([RUN._replace(directory="/logs/other")], complete=False), True),  # its next definition may be of the run
        (Heard([RUN._replace(directory="/logs/other", job="another")], complete=False), False),
        (Heard([RUN._replace(rank=1)], broken="it makes no sense"), False),
        (Heard([RUN._replace(rank=1)], broken="for now", again=5.0), True),
    ],
)
def test_what_the_hub_has_of_a_session_is_unread_where_it_may_be_a_rank(
    tmp_path: Path, heard: Heard, unread: bool
) -> None:
    clients = {SESSION: heard}
    reads = Reads(lambda _: (0.0, 0.0), Coming(), clients, [tmp_path])
    assert reads.unread(RUN, set()) is unread
    assert not reads.unread(RUN, {SESSION}), "the reduction has it"


def test_a_journal_that_nobody_has_opened_is_unread(tmp_path: Path) -> None:
    clients: dict[bytes, Heard] = {}
    reads = Reads(lambda _: (0.0, 0.0), Coming(), clients, [tmp_path])
    assert not reads.unread(RUN, set())
    (tmp_path / (SESSION).hex()).mkdir()
    assert reads.unread(RUN, set())
    clients[SESSION] = Heard([])
    assert reads.unread(RUN, set())
    assert not reads.unread(RUN, {SESSION})


# --- what a rank says -----------------------------------------------------------------------------------------------


def test_nothing_is_concluded_from_what_is_of_another_namespace_boot_or_version(tmp_path: Path) -> None:
    """What makes no sense says nothing."""
    own = jobs.process_of(os.getpid())
    assert own is not None
    here = jobs.pid_namespace()
    text = f"{here:x}/{own.pid}.{own.started}.{own.group}.{own.parent}/{own.started}/RANK/0"
    known = Launched.read(text, True)
    assert known is not None
    assert known.may_come(), "it lives, and may start others"
    assert Launched.read(text, False) is None
    assert Launched.read(text.replace(f"{here:x}/", f"{here + 1:x}/"), True) is None
    for other in ("", "x", text + "\n", text.replace("/RANK/", "//"), text[:-1] + "2"):
        assert Launched.read(other, True) is None


def environ_of(**more: str) -> dict[str, str]:
    return {"RANK": "0", "WORLD_SIZE": "2", **more}


@pytest.mark.parametrize(
    ("environ", "local_world", "told"),
    [
        (environ_of(MASTER_ADDR="127.0.0.1", MASTER_PORT="1"), 0, True),
        (environ_of(MASTER_ADDR="localhost", MASTER_PORT="1"), 2, True),
        (environ_of(MASTER_ADDR="10.0.0.1", TORCHELASTIC_RUN_ID="none"), 2, True),
        (environ_of(MASTER_ADDR="10.0.0.1", TORCHELASTIC_RUN_ID="none", TBXD_RUN_ID="mine"), 2, True),
        (environ_of(MASTER_ADDR="127.0.0.1", TORCHELASTIC_RUN_ID="none"), 1, False),  # on several hosts
        (environ_of(MASTER_ADDR="127.0.0.1", TORCHELASTIC_RUN_ID="none"), 0, False),
        (environ_of(MASTER_ADDR="10.0.0.1"), 0, False),
        (environ_of(), 0, False),  # it is not known where they are
        (environ_of(MASTER_ADDR="127.0.0.1", TBXD_RUN_ID="mine"), 0, False),  # others may have started the others
        (environ_of(MASTER_ADDR="127.0.0.1", SLURM_JOB_ID="5", SLURM_STEP_ID="0"), 0, False),
    ],
)
def test_a_rank_says_who_has_started_all_of_them_only_where_that_is_one_on_this_host(
    environ: dict[str, str], local_world: int, told: bool
) -> None:
    """In a process whose parent is a program, as a launcher is."""
    asked = f"print(jobs.launched({environ!r}, 'RANK', 0, 2, {local_world}))"
    code = f"from tbxd_client.distributed import job_identity as jobs\n{asked}"
    launch = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    command = [sys.executable, "-c", launch]
    result = subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=True)
    text = result.stdout.strip()
    assert bool(text) is told, result.stderr
    if told:
        known = Launched.read(text, True)
        assert known is not None and known.source == "RANK"
        assert known.at_once is ("TORCHELASTIC_RUN_ID" in environ)
        assert not known.may_come(), "all have ended"


def test_nobody_is_named_by_numbers_that_other_processes_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """``/proc`` may be that of another namespace."""
    assert jobs.pid_namespace() == os.stat("/proc/self/ns/pid").st_ino
    monkeypatch.setattr(os, "readlink", lambda path: "1")
    assert jobs.pid_namespace() == 0
    assert jobs.launched(environ_of(MASTER_ADDR="127.0.0.1"), "RANK", 0, 2, 0) == ""
