"""How long flush() and close() take, and what is written when they return: whatever is wrong, and whoever else logs."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import msgpack
import pytest

from harness import World, scalars, wait_for
from tbxd.config.settings import Settings
from tbxd.ingest.hub import Hub
from tbxd.ingest.journal_recovery import Adopter
from tbxd.transport.server_socket import Peer
from tbxd_client.journal.journal import Journal
from tbxd_client.protocol import wire

FLUSH_SECONDS_MAX = 0.05  # of a call in training
BUSY_SECONDS = 0.1  # that this machine may keep a process waiting besides, with everything else that runs on it
RANKS = 128
DEATH_SECONDS = 0.3  # from a trainer's death to its records in the file

# What a training loop does: a record and a flush in each step, and how long the flushes took.
LOOP = """
    import json, sys, time
    from tbxd_client import SummaryWriter
    writer = SummaryWriter("logs/a")
    took, said = [], []
    for step in range(int(sys.argv[1])):
        writer.add_scalar("value", step, step)
        before = time.monotonic()
        said.append(writer.flush())
        took.append(time.monotonic() - before)
        time.sleep(0.02)
    before = time.monotonic()
    writer.close()
    print(json.dumps([took, said, time.monotonic() - before, writer.stats()]), flush=True)
"""


def loop(place: World, steps: int, **environ: str) -> tuple[list[float], list[bool], float, dict[str, object]]:
    result = place.run(LOOP, steps, environ=environ)
    assert result.returncode == 0, result.stderr
    took, said, closing, stats = json.loads(result.stdout)
    return took, said, closing, stats


def is_quick(took: list[float]) -> bool:
    """Whether no flush waited longer than one may; the machine itself may have been busy once."""
    slow = [seconds for seconds in took if seconds > FLUSH_SECONDS_MAX]
    return len(slow) <= 1 and max(took) < FLUSH_SECONDS_MAX + BUSY_SECONDS


# --- one process -----------------------------------------------------------------------------------------------------


def test_a_first_flush_succeeds_where_a_daemon_runs(place: World) -> None:
    place.serve()
    firsts = []
    for _ in range(10):  # one in which this machine has nothing else to do will do
        took, said, closing, _ = loop(place, 10)
        assert is_quick(took) and closing < 1, (took, closing)
        firsts.append((said[0], took[0]))
        if said[0]:
            break
    assert firsts[-1][0], firsts


@pytest.mark.parametrize("wrong", ["nobody", "starting", "stopped", "mute", "unreachable", "held up"])
def test_no_flush_in_training_takes_long_whatever_is_wrong(place: World, wrong: str) -> None:
    """And all of them together wait once or twice, not once a step."""
    environ = {"TBXD_FLUSH_SECONDS": "0.5"}
    with socket.socket() as mute:
        if wrong == "nobody":
            environ["TBXD_ADDRESS"] = f"ipc://{place.root}/nobody.sock"
        elif wrong == "stopped":
            os.kill(place.serve().pid, signal.SIGSTOP)
        elif wrong == "mute":
            mute.bind(("127.0.0.1", 0))
            mute.listen()
            environ["TBXD_ADDRESS"] = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        elif wrong == "unreachable":
            environ["TBXD_ADDRESS"] = "tcp://nosuchhost.invalid:7007"
        elif wrong == "held up":
            place.serve()
            place.logdir.mkdir()
            (place.logdir / "a").write_text("a file is in the way")
        took, said, closing, stats = loop(place, 30, **environ)
    assert is_quick(took), took
    assert closing < 0.5 + FLUSH_SECONDS_MAX + BUSY_SECONDS
    if wrong != "starting":
        assert not any(said) and stats["pending"] == 30
        assert sum(took) < 4 * FLUSH_SECONDS_MAX + BUSY_SECONDS, took


def test_a_flush_with_a_time_of_its_own_waits_so_long(place: World) -> None:
    result = place.run(
        """
        import time
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        writer.add_scalar("value", 0.0, 0)
        for flush in (writer.flush, writer.file_writer.flush, writer.file_writer.event_writer.flush):
            before = time.monotonic()
            assert not flush(0.3) and time.monotonic() - before >= 0.3
        before = time.monotonic()
        assert not writer.flush() and time.monotonic() - before < 0.1
        """,
        environ={"TBXD_ADDRESS": f"ipc://{place.root}/nobody.sock", "TBXD_FLUSH_SECONDS": "0.1"},
    )
    assert result.returncode == 0, result.stderr


def test_a_close_waits_for_a_daemon_that_is_being_started_though_a_flush_did_not(place: World) -> None:
    result = place.run(
        """
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        writer.add_scalar("value", 0.0, 0)
        assert not writer.flush(), "a daemon takes longer to start"
        writer.close()
        assert writer.stats()["written"] == 1, writer.stats()
        """,
        environ={"TBXD_FLUSH_SECONDS": "30"},
    )
    assert result.returncode == 0, result.stderr


def test_a_flush_does_not_wait_for_a_thread_that_holds_the_journal(place: World) -> None:
    result = place.run(
        """
        import time
        from tbxd_client import SummaryWriter
        from tbxd_client.session.session import active
        import threading
        writer = SummaryWriter("logs/a")
        writer.add_scalar("value", 0.0, 0)
        held, done = threading.Event(), threading.Event()
        def hold():  # a call that stores a large record on a disk that hangs
            with active().journal.lock:
                held.set()
                done.wait(30)
        threading.Thread(target=hold).start()
        held.wait(30)
        before = time.monotonic()
        assert not writer.flush()
        assert time.monotonic() - before < 0.15
        done.set()
        """
    )
    assert result.returncode == 0, result.stderr


# --- children --------------------------------------------------------------------------------------------------------

CHILDREN = """
import multiprocessing, sys
from pathlib import Path
from tbxd_client import SummaryWriter

def work(writer, number):
    for step in range(10):
        writer.add_scalar(f"child{number}", step, step)
        writer.add_scalars("chart", {f"child{number}": step}, step)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    writer = SummaryWriter("logs/a")
    writer.add_scalar("parent", 0.0, 0)
    if sys.argv[2] == "warm":
        assert writer.flush(60)
    children = [context.Process(target=work, args=(writer, number)) for number in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join()
        assert child.exitcode == 0
    writer.close()
    folders = [Path("logs/a"), *Path("logs/a/chart").iterdir()]
    files = [path for folder in folders for path in folder.glob("*tfevents*")]
    Path("seen").mkdir()
    for number, path in enumerate(files):  # as they are at this moment
        (Path("seen") / f"{number}-{path.name}").write_bytes(path.read_bytes())
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("daemon", ["cold", "warm"])
def test_the_close_of_a_parent_includes_what_children_that_have_ended_have_logged(
    place: World, method: str, daemon: str
) -> None:
    (place.root / "script.py").write_text(CHILDREN)
    path = os.pathsep.join([str(place.root), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = "import runpy; runpy.run_path('script.py', run_name='__main__')"
    result = place.run(run, method, daemon, environ={"TBXD_FLUSH_SECONDS": "30", "PYTHONPATH": path})
    assert result.returncode == 0, result.stderr
    found: dict[str, list[int]] = {}
    for path in (place.root / "seen").iterdir():
        folder = place.root / f"one-{path.name}"
        folder.mkdir()
        path.rename(folder / path.name.split("-", 1)[1])
        for tag, points in scalars(folder).items():
            found.setdefault(tag, []).extend(step for step, _ in points)
    assert sorted(found.pop("parent")) == [0]
    assert sorted(found.pop("chart")) == sorted(4 * list(range(10)))
    assert found == {f"child{number}": list(range(10)) for number in range(4)}


def test_a_parent_waits_for_no_child_that_lives_and_for_no_other_run(place: World) -> None:
    """Where there are such, its close takes no longer; neither does it where the journal of another run cannot go."""
    place.serve()
    place.logdir.mkdir()
    (place.logdir / "other").write_text("a file is in the way")
    result = place.run(
        """
        import os, signal, time
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        writer.add_scalar("parent", 0.0, 0)
        ready, told = os.pipe()
        children = []
        for folder, lives in (("logs/a", True), ("logs/other", False)):
            child = os.fork()
            if child == 0:
                SummaryWriter(folder).add_scalar("child", 0.0, 0)
                os.write(told, b"!")
                if lives:
                    signal.pause()
                os._exit(0)
            children.append(child)
        os.read(ready, 1), os.read(ready, 1)
        os.waitpid(children[1], 0)
        before = time.monotonic()
        writer.close()
        print(time.monotonic() - before)
        os.kill(children[0], signal.SIGKILL)
        """
    )
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 0.5


# --- the dead --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tells", [True, False], ids=["told", "blind"])
def test_what_a_dead_trainer_has_left_is_written_soon(place: World, tells: bool) -> None:
    """From the kill to the file, with and without a system that tells of it; also where it never said hello."""
    if not tells:
        (place.root / "sitecustomize.py").write_text(
            "import tbxd.process.inotify as it\nit.Inotify.watch = lambda self, path, mask: -1\n"
        )
        place.extra["PYTHONPATH"] = str(place.root)
    place.serve()
    place.extra.pop("PYTHONPATH", None)
    count = 24 if tells else 8
    script = """
        import os, signal, sys
        from tbxd_client import SummaryWriter
        for number in range(int(sys.argv[1])):
            if os.fork() == 0:
                if number % 4 == 3:
                    os.environ["TBXD_ADDRESS"] = "ipc:///nobody.sock"
                writer = SummaryWriter(f"logs/{number}")
                writer.add_scalar("value", 0.0, 0)
                if number % 4 != 3:
                    writer.flush(60)
                for step in range(1, 100):
                    writer.add_scalar("value", step, step)
                os.write(1, b"%d %d\\n" % (number, os.getpid()))
                signal.pause()
        signal.pause()
    """
    trainer = place.start(script, count, stdout=subprocess.PIPE)
    assert trainer.stdout is not None
    pids = dict(map(int, trainer.stdout.readline().split()) for _ in range(count))
    took = []
    for number, pid in pids.items():
        before = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        folder = place.logdir / str(number)
        wait_for(lambda folder=folder: len(scalars(folder).get("value", [])) == 100, "its records", pause=0.002)
        took.append(time.monotonic() - before)
    if tells:
        print(f"median {statistics.median(took):.3f} s, most {max(took):.3f} s")
    assert statistics.median(took) < DEATH_SECONDS, took
    assert sum(seconds > DEATH_SECONDS for seconds in took) <= (1 if tells else 2), took
    assert max(took) < 2 * DEATH_SECONDS if tells else 2.5, took


def test_a_look_at_all_journals_takes_eight_times_as_long_for_eight_times_as_many(tmp_path: Path) -> None:
    """And not 64 times: that was seconds of each two, with 500 trainers on a host."""
    cost = {}
    settings = Settings.of({"runtime_dir": str(tmp_path / "run"), "spool": str(tmp_path / "spool")})
    for count in (25, 200):
        spool = tmp_path / str(count)
        spool.mkdir()
        hub = Hub(settings, lambda: None, lambda peer, message: None)
        adopter = Adopter(hub, [spool])
        owned = [Journal(spool, lambda: None, 1 << 20) for _ in range(count)]
        for number, journal in enumerate(owned):
            hello = wire.Hello(journal.session, 0, os.getpid(), os.uname().nodename, str(journal.path), "", "")
            hub.handle(Peer(b"%d" % number, os.getpid()), hello)
        adopter.step(0.0)
        times = []
        for look in range(1, 6):
            before = time.process_time()
            adopter.step(10.0 * look)
            times.append(time.process_time() - before)
        cost[count] = min(times)
        assert not adopter.draining, "all of them live"
        adopter.close()
        hub.close(1.0)
        for journal in owned:
            journal.close()
    assert cost[200] < 20 * cost[25], cost


# --- ranks -----------------------------------------------------------------------------------------------------------

ONE_OF_TWO = """
    import json, os, sys, time
    from tbxd_client import SummaryWriter
    rank = int(os.environ["RANK"])
    writer = SummaryWriter("logs/job")
    took, said = [], []
    if rank == 0:
        for step in range(5):
            writer.add_scalar("loss", step, step)
            before = time.monotonic()
            said.append(writer.flush(*[2.0] * (step == 0)))
            took.append(time.monotonic() - before)
            time.sleep(0.1)  # behind one that was in vain the next does not wait, until something has moved
        before = time.monotonic()
        writer.close()
        closing = time.monotonic() - before
        print(json.dumps([took, said, closing, writer.stats()]), flush=True)
"""


def ranks(
    place: World, script: str, world: int, environ: dict[str, str] | None = None, **more: Any
) -> list[subprocess.Popen[bytes]]:
    return [
        place.start(
            script,
            environ={"RANK": str(rank), "WORLD_SIZE": str(world), "TORCHELASTIC_RUN_ID": "job", **(environ or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **more,
        )
        for rank in range(world)
    ]


def test_a_rank_that_logs_alone_waits_for_no_other(place: World) -> None:
    """Not in flush, not in close, not at its end; what it has logged comes when nobody else can log it any more."""
    place.serve()
    before = time.monotonic()
    first, second = ranks(place, ONE_OF_TWO, 2)
    out, err = first.communicate(timeout=60)
    ended = time.monotonic() - before
    assert first.returncode == 0 and not err, err
    took, said, closing, stats = json.loads(out)
    assert said[0] and took[0] < 1.0 and is_quick(took[1:]) and said.count(False) <= 1, (took, said)
    assert closing < FLUSH_SECONDS_MAX + BUSY_SECONDS and ended < 3
    assert stats["written"] + stats["pending"] == 5 and not stats["dropped"]
    assert second.wait() == 0
    wait_for(lambda: len(scalars(place.logdir / "job").get("loss", [])) == 5, "its points", seconds=15)
    wait_for(place.drained, "its journal to go")


def test_what_waits_for_other_ranks_is_with_nobody_when_the_daemon_is_gone(place: World) -> None:
    """flush() is False then, and the end of the script says where its records are."""
    place.serve()
    environ = {
        "TBXD_ADDRESS": f"ipc://{place.runtime}/daemon.sock",  # nobody starts another
        "TBXD_FLUSH_SECONDS": "0.5",
        "TBXD_RANKS_SECONDS": "600",
        **{"TBXD_RANK": "0", "TBXD_WORLD_SIZE": "2", "TBXD_RUN_ID": "job"},
    }
    script = place.start(
        """
        import sys, time
        from tbxd_client import SummaryWriter
        from tbxd_client.session import session
        writer = SummaryWriter("logs/a")
        writer.add_scalar("value", 1, 0)
        print(writer.flush(20), writer.stats()["written"], flush=True)
        sys.stdin.readline()
        deadline = time.monotonic() + 30
        while session.active().sender.connected:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        print(writer.flush(0.2), flush=True)
        sys.stdin.readline()
        print(writer.flush(20), writer.stats()["written"], flush=True)
        sys.stdin.readline()
        """,
        environ=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert script.stdout is not None and script.stdin is not None
    assert script.stdout.readline() == "True 0\n", "it waits for the other rank and for nothing else"
    place.kill_daemon()
    print(file=script.stdin, flush=True)
    assert script.stdout.readline() == "False\n"
    place.serve()
    print(file=script.stdin, flush=True)
    assert script.stdout.readline() == "True 0\n", "another daemon has it"
    place.kill_daemon()
    _, said = script.communicate("\n", timeout=60)
    assert script.returncode == 0 and "bytes of records wait in" in said, said


def test_a_flush_changes_nothing_of_what_is_reduced(place: World) -> None:
    """One rank is a second behind and flushes as often as the other: all points are of both."""
    place.serve()
    script = """
        import os, time
        from tbxd_client import SummaryWriter
        rank = int(os.environ["RANK"])
        writer = SummaryWriter("logs/job", reduce={"tokens": "sum"})
        time.sleep(rank)
        for step in range(10):
            writer.add_scalar("tokens", 1 + rank, step)
            assert writer.flush(30)
    """
    for process in ranks(place, script, 2):
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0 and not err, err
    # The last to end leaves nothing undone.
    assert scalars(place.logdir / "job")["tokens"] == [(step, 3.0) for step in range(10)]


def test_a_daemon_that_runs_and_has_not_answered_in_time_writes_what_waits_and_nobody_is_told_to_start_one(
    place: World,
) -> None:
    daemon = place.serve()
    os.kill(daemon.pid, signal.SIGSTOP)
    script = """
        from tbxd_client import SummaryWriter
        SummaryWriter("logs/a").add_scalar("value", 1.0, 1)
    """
    result = place.run(script, environ={"TBXD_FLUSH_SECONDS": "0.2"})
    said = result.stderr
    assert result.returncode == 0 and "records wait in" in said and "the daemon writes them when it can" in said, said
    assert "serve" not in said, said
    os.kill(daemon.pid, signal.SIGCONT)
    wait_for(place.drained, "its journal to go", seconds=20)
    assert scalars(place.logdir / "a") == {"value": [(1, 1.0)]}


LEFT = """
    import sys
    from tbxd_client import SummaryWriter
    from tbxd_client.transport import sender
    sender.LIVES_SECONDS = float(sys.argv[1])
    writer = SummaryWriter("logs/a")
    writer.add_scalar("value", 0.0, 0)
    assert writer.flush(60)
    print("there", flush=True)
    sys.stdin.readline()
    for step in range(1, 10):
        writer.add_scalar("value", step, step)
"""


@pytest.mark.parametrize("daemon", ["busy", "hangs", "killed", "killed at an address"])
def test_what_is_left_to_a_daemon_that_lives_needs_no_word(place: World, daemon: str) -> None:
    """One that has greeted a script reads its journal when it gets to it. That it does not answer, or is gone, is said.

    The script is not told anything by a daemon that is stopped just before its end, whatever time it had before.
    """
    served = place.serve()
    environ = {"TBXD_FLUSH_SECONDS": "0.5"}
    if daemon == "killed at an address":  # where a script starts no daemon
        environ["TBXD_ADDRESS"] = f"ipc://{place.runtime}/daemon.sock"
    script = place.start(
        LEFT,
        0 if daemon == "hangs" else 1,
        environ=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert script.stdout is not None and script.stdout.readline() == "there\n"
    if daemon.startswith("killed"):
        # No other is started meanwhile: somebody else is about to, it seems.
        with open(place.runtime / "launch.lock", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            place.kill_daemon()
            _, said = script.communicate("\n", timeout=60)
    else:
        os.kill(served.pid, signal.SIGSTOP)
        idle = time.monotonic() + 1.5  # and hears nothing meanwhile: that is no silence of the daemon
        wait_for(lambda: time.monotonic() > idle, "the script to have been idle")
        _, said = script.communicate("\n", timeout=60)
    assert script.returncode == 0
    if daemon == "busy":
        assert not said
    else:
        who = "the daemon" if daemon == "hangs" else "the next daemon"
        assert "306 bytes of records wait in" in said and who in said, said
    if not daemon.startswith("killed"):
        os.kill(served.pid, signal.SIGCONT)
    place.ensure()
    wait_for(place.drained, "its journal to go", seconds=20)
    assert scalars(place.logdir / "a") == {"value": [(step, float(step)) for step in range(10)]}


@pytest.mark.long
def test_many_ranks_that_end_at_once_end_quietly(place: World) -> None:
    """Whatever time the daemon takes: it has their records, or their journals, and nobody has to do anything."""
    place.serve()
    script = """
        import os, sys, time
        from tbxd_client import SummaryWriter
        from tbxd_client.session import session
        reading, writing = os.pipe()
        for rank in range(int(os.environ["WORLD_SIZE"])):
            if os.fork() == 0:
                os.environ["RANK"] = str(rank)
                os.close(writing)
                writer = SummaryWriter("logs/job")
                for step in range(20):
                    for tag in range(10):
                        writer.add_scalar(f"value/{tag}", step + rank, step)
                while not session.active().sender.gets_on:  # the daemon knows it: starting all is not what takes long
                    time.sleep(0.01)
                os.write(1, b"!")
                os.read(reading, 1)
                sys.exit(3)
        sys.stdin.read()
        os.close(writing)
        while True:
            try:
                assert os.waitstatus_to_exitcode(os.wait()[1]) == 3
            except ChildProcessError:
                break
    """
    job = place.start(
        script,
        environ={"WORLD_SIZE": str(RANKS), "TORCHELASTIC_RUN_ID": "job", "TBXD_FLUSH_SECONDS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert job.stdout is not None
    assert job.stdout.read(RANKS) == RANKS * b"!"
    _, said = job.communicate(timeout=120)
    assert job.returncode == 0 and not said, said.decode()
    wait_for(place.drained, "their journals to go", seconds=20)
    found = scalars(place.logdir / "job")
    mean = (RANKS - 1) / 2
    assert found == {f"value/{tag}": [(step, step + mean) for step in range(20)] for tag in range(10)}


def test_a_line_on_stderr_is_one_write_so_that_those_of_many_processes_do_not_mix(place: World) -> None:
    """With PYTHONUNBUFFERED, as containers have it, the ends of lines came as writes of their own."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)  # one write, one message
    with ours, theirs:
        script = place.start(
            "from tbxd_client.config.settings import warn; warn('one'); warn('another')",
            environ={"PYTHONUNBUFFERED": "1"},
            stderr=theirs,
        )
        assert script.wait(60) == 0
        assert [ours.recv(100), ours.recv(100)] == [b"tbxd: one\n", b"tbxd: another\n"]


# --- the messages ----------------------------------------------------------------------------------------------------


def test_what_was_added_to_the_messages_is_left_out_by_older_versions() -> None:
    session = bytes(12)
    assert wire.unpack([msgpack.packb([1, "flush", session, 3])]) == wire.Flush(session, 3, 0, 0)
    assert wire.unpack([msgpack.packb([1, "ack", session, 5, 9, {}])]) == wire.Ack(session, 5, 9, {}, 0, 0, "")
    assert wire.unpack([msgpack.packb([1, "welcome", session, 1, 2, 3, 1])]).leftovers == 0  # type: ignore[union-attr]
