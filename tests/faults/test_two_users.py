"""Two users of one machine, at the places that each has by default: neither reaches, reads or deceives the other."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

import tbxd
from harness import scalars, wait_for

FIRST = 1_000_000_000 + 2 * os.getpid()  # uids that nobody has, nor another run of these tests
SECOND = FIRST + 1
SECONDS = 60


@dataclass
class User:
    """Somebody with a home, and the place that tbxd takes for him by default."""

    uid: int
    home: Path
    python: dict[str, str]  # the environment in which Python finds everything, where everybody may read

    @property
    def base(self) -> Path:
        return Path(f"/var/tmp/tbxd-{self.uid}")

    @property
    def interpreter(self) -> str:
        return f"{self.python['PYTHONHOME']}/bin/python{sys.version_info[0]}.{sys.version_info[1]}"

    @property
    def address(self) -> str:
        return f"ipc://{self.base}/run/daemon.sock"

    def environ(self, **more: str) -> dict[str, str]:
        mine = {"HOME": str(self.home), "TBXD_IDLE_SECONDS": "30", "OMP_NUM_THREADS": "1"}
        return {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **self.python, **mine, **more}

    def run(self, *command: Any, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command as this user."""
        return subprocess.run(
            [self.interpreter, *map(str, command)],
            user=self.uid,
            group=self.uid,
            extra_groups=[],
            cwd=self.home,
            env=self.environ(**environ),
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    def start(self, text: str, *arguments: Any) -> subprocess.Popen[str]:
        """Start a script as this user."""
        return subprocess.Popen(
            [self.interpreter, "-c", textwrap.dedent(text), *map(str, arguments)],
            user=self.uid,
            group=self.uid,
            extra_groups=[],
            cwd=self.home,
            env=self.environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def script(self, text: str, *arguments: Any, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a script as this user."""
        return self.run("-c", textwrap.dedent(text), *arguments, **environ)

    def tbxd(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the command line as this user."""
        return self.run("-m", "tbxd", *arguments, **environ)

    def status(self) -> dict[str, Any]:
        """What this user's own daemon says."""
        return dict(json.loads(self.tbxd("status", "--json").stdout))


@pytest.fixture
def users() -> Iterator[tuple[User, User]]:
    if os.getuid():
        pytest.skip("only root can be two users")
    root = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="two-users-"))
    root.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root)
        # Whoever runs the tests may keep Python and this checkout to himself: others see both at another place.
        python, packages, code = (
            stack.enter_context(_seen_at(root / name, path))
            for name, path in (
                ("python", Path(sys.base_prefix)),
                ("packages", Path(sysconfig.get_path("purelib"))),
                ("code", Path(tbxd.__file__).parent.parent),
            )
        )
        found = {"PYTHONHOME": str(python), "PYTHONPATH": f"{code}:{code / 'client'}:{packages}"}
        both = User(FIRST, root / "first", found), User(SECOND, root / "second", found)
        for user in both:
            user.home.mkdir(mode=0o755)
            os.chown(user.home, user.uid, user.uid)
            _clear(user)
            stack.callback(_clear, user)
        tried = both[0].script("import tbxd, tbxd_client, numpy, zmq")
        if tried.returncode:
            pytest.skip(f"Python does not work for another user here: {tried.stderr[-200:]}")
        yield both


@contextmanager
def _seen_at(place: Path, path: Path) -> Iterator[Path]:
    """Let a folder be seen at another place, too."""
    place.mkdir()
    if subprocess.run(["mount", "--bind", str(path), str(place)], capture_output=True).returncode:
        pytest.skip("no permission to mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _clear(user: User) -> None:
    """End what runs as a user, and remove what he has at his default place."""
    processes = [process for process in psutil.process_iter(["uids"]) if process.info["uids"].real == user.uid]
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, SECONDS)
    if user.base.is_symlink():
        user.base.unlink()
    for base in (user.base, Path("/tmp") / user.base.name):
        if base.exists():
            shutil.rmtree(base)


LOG = """
    import sys
    from tbxd_client import SummaryWriter
    writer = SummaryWriter(sys.argv[1])
    for step in range(int(sys.argv[2])):
        writer.add_scalar("value", step % 100, step)
    print(writer.flush(float(sys.argv[3])))
    writer.close()
"""


def points(count: int) -> dict[str, list[tuple[int, float]]]:
    return {"value": [(step, float(step % 100)) for step in range(count)]}


def test_two_users_log_at_one_time_and_each_has_a_daemon_and_files_of_his_own(users: tuple[User, User]) -> None:
    for user, count in zip(users, (500, 50_000), strict=True):
        result = user.script(LOG, "runs/a", count, 50)
        assert (result.returncode, result.stdout) == (0, "True\n"), result.stderr
    pids = set()
    for user, count in zip(users, (500, 50_000), strict=True):
        folder = user.home / "runs" / "a"
        assert scalars(folder) == points(count)
        assert {path.stat().st_uid for path in folder.iterdir()} == {user.uid}
        status = user.status()
        assert list(status["runs"]) == [str(folder)]
        pids.add(status["pid"])
    assert len(pids) == 2


TRY = """
    import os, sys
    base, pid = sys.argv[1], int(sys.argv[2])
    tries = {
        "list": lambda: os.listdir(base),
        "list the spool": lambda: os.listdir(base + "/spool"),
        "read the lock": lambda: open(base + "/run/daemon.lock").read(),
        "reach the socket": lambda: os.stat(base + "/run/daemon.sock"),
        "plant a journal": lambda: os.mkdir(base + "/spool/planted"),
        "open it to all": lambda: os.chmod(base, 0o777),
        "put it away": lambda: os.rename(base, base + "-away"),
        "end the daemon": lambda: os.kill(pid, 9),
        "stop the daemon": lambda: os.kill(pid, 19),
        "read its memory": lambda: open(f"/proc/{pid}/mem", "rb"),
        "read its environment": lambda: open(f"/proc/{pid}/environ", "rb").read(),
    }
    for name, attempt in tries.items():
        try:
            attempt()
        except PermissionError:
            continue
        print(name)
"""


FLOOD = """
    import pathlib, sys
    from tbxd_client import SummaryWriter
    writers = [SummaryWriter(f"logs/{number}") for number in range(4)]
    print("begun", flush=True)
    step = 0
    while not pathlib.Path("enough").exists():
        for writer in writers * 500:
            writer.add_scalar("loss", step, step)
            step += 1
    for writer in writers:
        writer.close()
"""
QUIET = """
    from tbxd_client import SummaryWriter
    with SummaryWriter("logs") as writer:
        for step in range(5_000):
            writer.add_scalar("loss", step, step)
"""


@pytest.mark.long
def test_a_user_who_logs_all_he_can_starves_no_other(users: tuple[User, User]) -> None:
    loud, quiet = users
    flood = loud.start(FLOOD)
    assert flood.stdout is not None and flood.stdout.readline() == "begun\n"
    done = quiet.script(QUIET)
    assert done.returncode == 0, done.stderr
    expected = [(step, float(step)) for step in range(5_000)]
    wait_for(lambda: scalars(quiet.home / "logs").get("loss") == expected, "all that the quiet user logged")
    assert quiet.status()["totals"]["dropped"] == {}
    assert flood.poll() is None, "the other went on all the time"
    (loud.home / "enough").touch()
    assert flood.wait(SECONDS) == 0

    def settled() -> Any:
        totals = loud.status()["totals"]
        return totals if not totals["pending"] else None

    totals = wait_for(settled, "what the loud user logged")
    assert totals["accepted"] > 5_000 and totals["accepted"] == totals["written"] + sum(totals["dropped"].values())


def test_another_user_reaches_neither_the_daemon_nor_its_journals(users: tuple[User, User]) -> None:
    first, second = users
    assert first.script(LOG, "runs/a", 10, 50).stdout == "True\n"
    status = first.status()
    assert second.script(TRY, first.base, status["pid"]).stdout == "", "what another user could do"
    for command in ("status", "stop", "reload"):
        assert second.tbxd(command, TBXD_ADDRESS=first.address).returncode != 0, command
    # A script that is told to log there goes on; its records wait in its own journal, and come with its own daemon.
    result = second.script(LOG, "runs/b", 10, 0.5, TBXD_ADDRESS=first.address, TBXD_FLUSH_SECONDS="0.5")
    assert (result.returncode, result.stdout) == (0, "False\n"), result.stderr
    assert not scalars(second.home / "runs" / "b")
    assert second.tbxd("drain").returncode == 0
    assert scalars(second.home / "runs" / "b") == points(10)
    again = first.status()
    assert again["pid"] == status["pid"] and again["runs"] == status["runs"]
    assert again["refused_messages"] == 0


@pytest.mark.parametrize("how", ["a folder", "a link"])
def test_a_place_that_another_user_has_made_before_is_not_used(users: tuple[User, User], how: str) -> None:
    first, second = users
    result = second.script(
        """
        import os, sys
        base, how = sys.argv[1:]
        trap = base if how == "a folder" else os.path.expanduser("~/trap")
        for name in ("", "/run", "/spool"):
            os.mkdir(trap + name)
            os.chmod(trap + name, 0o777)
        if how == "a link":
            os.symlink(trap, base)
        """,
        first.base,
        how,
    )
    assert result.returncode == 0, result.stderr
    trap = first.base if how == "a folder" else second.home / "trap"
    result = first.script(LOG.replace("writer.close()", "print(writer.stats()['dropped'])"), "runs/a", 10, 50)
    assert result.returncode == 0, "training goes on"
    assert result.stdout.splitlines() == ["True", "{}"], "another place is taken"
    assert str(first.base) in result.stderr and "It is in /tmp/" in result.stderr, result.stderr
    assert not [path for path in trap.rglob("*") if path.name not in ("run", "spool")], "nothing of it gets there"
    assert first.status()["address"].startswith("ipc:///tmp/")
    assert first.tbxd("stop").returncode == 0
    # With a place of his own it works.
    own = {"TBXD_RUNTIME_DIR": str(first.home / "run"), "TBXD_SPOOL": str(first.home / "spool")}
    assert first.script(LOG, "runs/a", 10, 50, **own).stdout == "True\n"
    # Another program that logs the same steps: it has a run of its own, below the first.
    folders = [first.home / "runs" / "a", *filter(Path.is_dir, (first.home / "runs" / "a").iterdir())]
    assert [scalars(folder) for folder in folders] == 2 * [points(10)]
    assert first.tbxd("stop", **own).returncode == 0


IMPOSTOR = """
    import os, sys
    import zmq
    from tbxd_client.protocol import wire
    folder, address, mode, lock = sys.argv[1], sys.argv[2], int(sys.argv[3], 8), sys.argv[4]
    if not os.path.exists(folder):
        os.mkdir(folder)
        os.chmod(folder, mode)
    if lock == "locked":
        import fcntl
        held = open(folder + "/daemon.lock", "w")
        os.chmod(held.name, 0o644)
        fcntl.flock(held, fcntl.LOCK_EX)
    socket = zmq.Context().socket(zmq.ROUTER)
    os.umask(0)
    socket.bind(address)
    print("listens", flush=True)
    while True:
        route, *frames = socket.recv_multipart()
        message = wire.unpack(frames)
        print(type(message).__name__, flush=True)
        if isinstance(message, wire.Hello):
            socket.send_multipart([route, *wire.pack(wire.Welcome(message.session, 0, 0, 8 << 20, 0))])
"""


@pytest.mark.parametrize("how", ["the runtime folder", "a socket in his folder", "a socket in a shared folder"])
def test_a_socket_that_another_user_listens_at_hears_nothing(users: tuple[User, User], how: str) -> None:
    first, second = users
    shared = first.home.parent / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    folder = shared if "shared" in how else shared / "run"
    address = f"ipc://{folder}/daemon.sock"
    own = {"TBXD_RUNTIME_DIR": str(folder)} if "runtime" in how else {"TBXD_ADDRESS": address}
    lock = "locked" if "runtime" in how else ""
    impostor = second.start(IMPOSTOR, folder, address, "777", lock)
    try:
        assert impostor.stdout is not None and impostor.stdout.readline() == "listens\n"
        wait = 50 if "runtime" in how else 2
        result = first.script(LOG, "runs/a", 10, wait, TBXD_FLUSH_SECONDS="0.5", **own)
        asked = [first.tbxd(command, **own) for command in ("status", "stop")]
    finally:
        impostor.kill()
        heard, _ = impostor.communicate()
    assert heard == "", "not even that somebody is there"
    assert f"belongs to uid {second.uid}, not to you" in result.stderr, result.stderr
    if "runtime" in how:  # another folder stands in for it, of which everybody is told or finds it
        assert (result.returncode, result.stdout) == (0, "True\n"), result.stderr
        assert re.search(rf"Until then the daemon is in {first.base}/run-[0-9a-f]{{16}}$", result.stderr.strip())
        assert [one.returncode for one in asked] == [0, 0], asked
        assert scalars(first.home / "runs" / "a") == points(10)
        return
    assert (result.returncode, result.stdout) == (0, "False\n"), result.stderr
    for one in asked:
        assert one.returncode != 0 and f"belongs to uid {second.uid}" in one.stdout + one.stderr
    assert first.tbxd("drain").returncode == 0, "the records are in the journal of who logged them"
    assert scalars(first.home / "runs" / "a") == points(10)


def test_a_link_that_another_user_plants_in_a_shared_log_folder_leads_nowhere(users: tuple[User, User]) -> None:
    first, second = users
    shared = first.home.parent / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    goal = second.home / "goal"
    result = second.script(
        """
        import os, sys
        os.mkdir("goal"), os.chmod("goal", 0o777)
        os.symlink(os.path.abspath("goal"), sys.argv[1])
        """,
        shared / "run",
    )
    assert result.returncode == 0, result.stderr
    # The folder is resolved where the script makes its writer, and is then written under its own name.
    result = first.script(
        """
        import os, sys
        from tbxd_client import SummaryWriter
        writer = SummaryWriter(sys.argv[1] + "/own")
        os.rename(sys.argv[1] + "/own", sys.argv[1] + "/away")
        os.symlink(sys.argv[2], sys.argv[1] + "/own")
        writer.add_scalar("value", 1.0, 0)
        print(writer.flush(2))
        """,
        shared,
        goal,
        TBXD_FLUSH_SECONDS="0.5",
    )
    assert (result.returncode, result.stdout) == (0, "False\n"), result.stderr
    assert not list(goal.iterdir())
    assert first.status()["runs"][str(shared / "own")]["error"]
    assert stat.S_ISLNK((shared / "run").lstat().st_mode)
    (shared / "own").unlink()
    wait_for(lambda: scalars(shared / "own") == {"value": [(0, 1.0)]}, "the record, once the link is gone")


def shared_run(first: User) -> Path:
    """A run of the first user that others may write."""
    shared = first.home.parent / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    (shared / "run").mkdir()
    os.chown(shared / "run", first.uid, first.uid)
    (shared / "run").chmod(0o777)
    return shared / "run"


FORGE = """
    import base64, os, sys, time
    from tbxd.tfevents import schema
    from tbxd.tfevents.tfrecord import frame
    folder, session, end, count = sys.argv[1], bytes.fromhex(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    name = base64.urlsafe_b64encode(session).decode()
    with open(f"{folder}/events.out.tfevents.{int(time.time()) + 3600:010d}.forged.1.0", "wb") as file:
        for mark in ("tbxd 1", f"L{name},{end:x},{count:x}", "L."):
            event = schema.Event(wall_time=time.time())
            if mark.startswith("tbxd"):
                event.file_version = "brain.Event:2"
            event.source_metadata.writer = mark
            file.write(frame(event.SerializeToString()))
"""
STAY = """
    import sys
    from tbxd_client import SummaryWriter
    from tbxd_client.session import session
    writer = SummaryWriter(sys.argv[1])
    step = 0
    for line in sys.stdin:
        for _ in range(1000):
            writer.add_scalar("value", step % 100, step)
            step += 1
        done = line == "later\\n" or writer.flush(30)
        print(session.current().journal.session.hex(), done, writer.stats()["written"], flush=True)
"""


@pytest.mark.parametrize("daemon", ["lives", "is killed"])
def test_a_ledger_that_another_user_forges_counts_nothing_as_written(users: tuple[User, User], daemon: str) -> None:
    first, second = users
    folder = shared_run(first)
    trainer = first.start(STAY, folder)
    assert trainer.stdout is not None and trainer.stdin is not None

    def log(how: str) -> list[str]:
        assert trainer.stdin is not None and trainer.stdout is not None
        trainer.stdin.write(how + "\n")
        trainer.stdin.flush()
        return trainer.stdout.readline().split()

    session, done, written = log("now")
    assert (done, written) == ("True", "1000")
    pid = first.status()["pid"]
    forged = second.script(FORGE, folder, session, 1 << 30, 1_000_000)
    assert forged.returncode == 0, forged.stderr
    if daemon == "is killed":
        os.kill(pid, 9)
    else:  # it lets go of the folder, and looks at it again
        wait_for(lambda: not is_held_by(first, folder), "the daemon to let go of the folder")
    assert log("now") == [session, "True", "2000"]
    assert scalars(folder) == points(2000)
    run = first.status()["runs"][str(folder)]
    assert (run["written"], run["pending"], run["error"]) == (2000, 0, "")
    assert f"(uid {second.uid})" in run["notice"] and run["notice"] in first.tbxd("status").stdout
    assert run["notice"] in first.tbxd("doctor").stdout
    trainer.stdin.close()
    assert trainer.wait(SECONDS) == 0
    trainer.stdout.close()


def is_held_by(user: User, folder: Path) -> bool:
    result = user.script(
        "import sys; from tbxd_client.logdir.folder_lock import is_held; print(is_held(sys.argv[1]))", folder
    )
    return result.stdout == "True\n"


KEEP = """
    import os, sys, time
    from tbxd_client import SummaryWriter
    writer = SummaryWriter(sys.argv[1])
    step = 1001
    while not os.path.exists("enough"):
        writer.add_scalar("value", 0.0, step)
        step += 1
        time.sleep(0.02)
    writer.close()
"""
HOLD = """
    import fcntl, os, sys
    for path in sys.argv[1:]:
        fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_folder_that_another_user_locks_is_written_all_the_same(users: tuple[User, User]) -> None:
    first, second = users
    folder = first.home / "runs" / "a"
    (folder / "custom_scalars").mkdir(parents=True)
    for path in (folder.parent, folder, folder / "custom_scalars"):
        os.chown(path, first.uid, first.uid)
    holder = second.start(HOLD, folder, folder / "custom_scalars")
    assert holder.stdout is not None and holder.stdin is not None and holder.stdout.readline() == "held\n"
    result = first.script(LOG, folder, 100, 20)
    assert (result.returncode, result.stdout) == (0, "True\n"), result.stderr
    assert scalars(folder) == points(100)
    # A second daemon of the same user is kept away all the same, as long as the first writes.
    busy = first.start(KEEP, folder)
    wait_for(lambda: scalars(folder)["value"][-1][0] > 1000, "the first daemon to write again")
    own = {"TBXD_RUNTIME_DIR": str(first.home / "run"), "TBXD_SPOOL": str(first.home / "spool")}
    assert first.script(LOG, folder, 100, 0.1, TBXD_FLUSH_SECONDS="0.1", **own).returncode == 0

    def error() -> str:
        found = first.tbxd("status", "--json", **own)
        return json.loads(found.stdout).get("runs", {}).get(str(folder), {}).get("error", "") if found.stdout else ""

    assert "another tbxd daemon" in wait_for(error, "the second daemon to be kept away")
    (first.home / "enough").touch()
    assert busy.wait(SECONDS) == 0

    def beside() -> bool:  # another program has logged further: it has a run of its own
        return any(scalars(path) == points(100) for path in folder.iterdir() if path.is_dir())

    wait_for(beside, "the second daemon to get it")
    first.tbxd("stop")
    first.tbxd("stop", **own)
    holder.stdin.close()
    holder.wait(SECONDS)
    holder.stdout.close()


@pytest.mark.long
def test_two_users_who_log_into_one_folder_both_get_on_and_are_told(users: tuple[User, User]) -> None:
    folder = shared_run(users[0])
    trainers = [user.start(STAY, folder) for user in users]
    for _ in range(2):
        for trainer in trainers:
            assert trainer.stdin is not None and trainer.stdout is not None
            trainer.stdin.write("now\n")
            trainer.stdin.flush()
            assert trainer.stdout.readline().split()[1] == "True"
    for user, other in (users, users[::-1]):
        told = wait_for(lambda user=user: user.status()["runs"][str(folder)]["notice"], "it to be told")
        assert f"(uid {other.uid})" in told
    for trainer in trainers:
        assert trainer.stdin is not None and trainer.stdout is not None
        trainer.stdin.close()
        assert trainer.wait(SECONDS) == 0
        trainer.stdout.close()
    assert sorted(scalars(folder)["value"]) == sorted(points(2000)["value"] * 2)


def test_a_folder_that_cannot_be_written_is_told_when_the_writer_is_made(users: tuple[User, User]) -> None:
    user = users[0]
    (user.home / "closed").mkdir(mode=0o555)
    script = """
        import sys
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("closed")
        print("made", file=sys.stderr, flush=True)
        writer.add_scalar("value", 1.0, 1)
    """
    said = user.script(script, TBXD_FLUSH_SECONDS="0.5").stderr.splitlines()
    assert "may not write there" in said[0] and said[1] == "made" and "records wait" in said[2], said


def test_doctor_looks_on_where_the_folder_of_a_run_is_closed_to_its_user(users: tuple[User, User]) -> None:
    user = users[0]
    assert user.script(LOG, "closed/a", 1, 50).returncode == 0
    (user.home / "closed").chmod(0)
    result = user.tbxd("doctor")
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    assert "Permission denied" in result.stdout and "spool" in result.stdout


def test_a_umask_that_closes_everything_closes_no_folder_of_ours(users: tuple[User, User]) -> None:
    """It left folders with the mode 000 in /var/tmp, which no later script of the user could use. His log folder, where
    it is there, is written; one that is made under such a umask is his to open, and that is said."""
    script = """
import os, sys
os.makedirs("runs/there")
os.umask(0o777)
from tbxd_client import SummaryWriter
writer = SummaryWriter("runs/there")
for step in range(100):
    writer.add_scalar("value", step, step)
assert writer.flush(30)
SummaryWriter("runs/made").add_scalar("value", 0, 0)
"""
    user = users[0]
    result = user.script(script, TBXD_FLUSH_SECONDS="1")
    assert result.returncode == 0, result.stderr
    assert "runs/made: this user may not write there" in result.stderr and "no journal" not in result.stderr
    assert len(scalars(user.home / "runs" / "there")["value"]) == 100
    result = user.script(
        "from tbxd_client import SummaryWriter\nw = SummaryWriter('runs/b')\n"
        "w.add_scalar('v', 1, 1)\nassert w.flush(30)"
    )
    assert (result.returncode, result.stderr) == (0, "")
