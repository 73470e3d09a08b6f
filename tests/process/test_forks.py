"""What a forked child inherits, how a daemon is started, and which descriptors are whose."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from harness import World, scalars, wait_for
from tbxd_client.transport.launcher import is_locked

# A child that lives until its stdin is closed, and says so first.
LINGER = "import sys; print('there', flush=True); sys.stdin.read()"


def points(steps: range) -> list[tuple[int, float]]:
    return [(step, float(step)) for step in steps]


# --- forks ---------------------------------------------------------------------------------------------------


def test_persistent_workers_that_are_made_right_after_the_first_record_hold_nothing_up(place: World) -> None:
    """The workers inherit whatever is open while the daemon is being started, and live as long as training."""
    result = place.run(
        """
        import torch
        from torch.utils.data import DataLoader, TensorDataset
        from tbxd_client import SummaryWriter
        loader = DataLoader(TensorDataset(torch.arange(100.0)), batch_size=10, num_workers=4, persistent_workers=True)
        writer = SummaryWriter("logs/a")
        writer.add_text("config", "lr=0.1", 0)
        step = 0
        for epoch in range(3):
            for (x,) in loader:
                writer.add_scalar("loss", step, step)
                step += 1
        assert writer.flush(20), "while the workers live"
        assert writer.stats()["written"] == 31
        writer.close()
        """
    )
    assert result.returncode == 0, result.stderr
    assert scalars(place.logdir / "a") == {"loss": points(range(30))}


def test_a_child_of_the_moment_in_which_a_daemon_is_looked_for_keeps_nobody_from_starting_one(place: World) -> None:
    """Who looks takes the daemon's lock for microseconds; a child kept it for as long as it lived."""
    place.runtime.mkdir(mode=0o700)
    (place.runtime / "daemon.lock").touch()  # of an earlier daemon
    result = place.run(
        """
        import fcntl, os, signal, types
        from tbxd_client import SummaryWriter
        from tbxd_client.config import runtime_folders as places
        children = []
        def flock(file, how):
            fcntl.flock(file, how)
            if how & fcntl.LOCK_SH:  # another thread forks now
                child = os.fork()
                if not child:
                    signal.pause()
                children.append(child)
        places.fcntl = types.SimpleNamespace(**{**vars(fcntl), "flock": flock})
        writer = SummaryWriter("logs/a")
        writer.add_scalar("loss", 0, 0)
        written = writer.flush(20)
        for child in children:
            os.kill(child, signal.SIGKILL)
        assert children and written
        """
    )
    assert result.returncode == 0, result.stderr
    assert scalars(place.logdir / "a") == {"loss": points(range(1))}


def test_what_a_signal_handler_raises_lets_no_later_fork_wait(place: World) -> None:
    """It may come where the thread is just about to say that a fork need not wait for it any more."""
    result = place.run(
        """
        import os, signal, threading, time
        from tbxd_client.process import descriptors
        class Raised(Exception): pass
        armed = False
        def handler(number, frame):
            if armed:
                raise Raised
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
        deadline = time.monotonic() + 20
        while not descriptors._inside:
            assert time.monotonic() < deadline
            try:
                armed = True
                for _ in range(10_000):
                    with descriptors.uncut:
                        pass
                armed = False
            except Raised:
                armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        took = []
        def fork():
            for _ in range(6):
                begun = time.monotonic()
                child = os.fork()
                if not child:
                    os._exit(0)
                took.append(time.monotonic() - begun)
                os.waitpid(child, 0)
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
        print(took)
        assert min(took[1:]) < 0.04, took
        with descriptors.uncut:
            pass
        assert not descriptors._inside and not descriptors._long
        """
    )
    assert result.returncode == 0, result.stderr


def test_what_is_raised_where_a_fork_says_that_it_is_over_makes_nobody_wait_from_then_on(place: World) -> None:
    result = place.run(
        """
        import os, sys, threading, time
        from tbxd_client.process import descriptors

        raised = []
        def trace(frame, event, argument):  # as a signal handler does that comes at the first line
            if event == "call" and frame.f_code is descriptors._after_fork_in_parent.__code__:
                raised.append(1)
                raise KeyboardInterrupt
        def fork():
            sys.settrace(trace)
            child = os.fork()
            if not child:
                os._exit(0)
            sys.settrace(None)
            os.waitpid(child, 0)
            over.set()
            end.wait()  # the thread lives on
        over, end = threading.Event(), threading.Event()
        thread = threading.Thread(target=fork)
        thread.start()
        over.wait()
        took = []
        for _ in range(5):
            begun = time.monotonic()
            with descriptors.uncut:
                pass
            took.append(time.monotonic() - begun)
        end.set()
        thread.join()
        assert raised
        print(took)
        assert sum(took[1:]) < descriptors.FORK_SECONDS, took
        """
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("milliseconds", [0, 2, 5])
def test_a_child_goes_on_alone_when_its_parent_is_gone_in_the_middle_of_starting_a_daemon(
    place: World, milliseconds: int
) -> None:
    """It has to start one itself: no import may be half done, no lock held by the thread that is not there."""
    result = place.run(
        """
        import os, sys, time
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        writer.add_scalar("parent", 0.0, 0)
        time.sleep(int(sys.argv[1]) / 1000)
        if os.fork():
            os._exit(0)
        for step in range(10):
            writer.add_scalar("child", step, step)
        print(writer.flush(30))
        """,
        milliseconds,
    )
    assert (result.returncode, result.stdout) == (0, "True\n"), result.stderr
    wait_for(place.drained, "both journals")
    assert scalars(place.logdir / "a") == {"parent": [(0, 0.0)], "child": points(range(10))}


def test_a_script_that_becomes_a_daemon_right_after_its_first_record_is_written(place: World) -> None:
    """Two forks, a session of its own, every descriptor closed: as `man 7 daemon` has it."""
    result = place.run(
        """
        import os, resource, sys
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        writer.add_scalar("before", 0.0, 0)
        if os.fork():
            os._exit(0)
        os.setsid()
        writer.add_scalar("between", 0.0, 0)
        if os.fork():
            os._exit(0)
        os.closerange(0, 1024)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1), os.dup2(null, 2)
        files = [open(f"file{number}", "wb", buffering=0) for number in range(40)]  # they have the numbers now
        for step in range(100):
            writer.add_scalar("after", step, step)
        flushed = writer.flush(30)
        with open("done.part", "w") as file:
            print(flushed, *{os.fstat(file.fileno()).st_size for file in files}, file=file)
        os.rename("done.part", "done")
        """
    )
    assert result.returncode == 0, result.stderr
    wait_for((place.root / "done").exists, "the daemon of the script")
    assert (place.root / "done").read_text().split() == ["True", "0"]
    wait_for(place.drained, "the three journals")
    found = scalars(place.logdir / "a")
    assert found == {"before": [(0, 0.0)], "between": [(0, 0.0)], "after": points(range(100))}


def test_children_that_live_on_keep_nobody_from_starting_a_daemon_and_no_journal_from_being_written(
    place: World,
) -> None:
    """Forked at every few milliseconds while one is started; then it is killed, and so is their parent."""
    with_children = place.start(
        """
        import os, signal, sys, time
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        for step in range(60):
            writer.add_scalar("value", step, step)
            if step % 3 == 0 and os.fork() == 0:
                time.sleep(120)
                os._exit(0)
            time.sleep(0.005)
        writer.flush(30)
        os.kill(int(open(sys.argv[1]).read()), signal.SIGKILL)
        for step in range(60, 100):
            writer.add_scalar("value", step, step)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        place.runtime / "daemon.lock",
    )
    try:
        with_children.wait(60)
        assert with_children.returncode == -signal.SIGKILL
        result = place.run(
            """
            import time
            from tbxd_client import SummaryWriter
            writer = SummaryWriter("logs/b")
            writer.add_scalar("other", 0.0, 0)
            begun = time.monotonic()
            assert writer.flush(30), "the launch lock is held"
            print(time.monotonic() - begun)
            """
        )
        assert result.returncode == 0, result.stderr
        assert float(result.stdout) < 15, "another than who holds the lock has to wait that long"
        wait_for(place.drained, "the journal of the parent, whose children live", seconds=20)
        assert scalars(place.logdir / "a") == {"value": points(range(100))}
        children = [one for one in psutil.process_iter() if _cwd(one) == str(place.root) and one.pid != os.getpid()]
        assert len(children) == 20, "they live still"
    finally:
        for one in psutil.process_iter():
            if _cwd(one) == str(place.root):
                one.kill()


def _cwd(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except psutil.Error:
        return ""


def test_a_child_has_no_descriptor_of_its_parent_that_stands_for_anything(place: World) -> None:
    """Files, pipes and sockets are closed; /dev/null, once a map, is left."""
    result = place.run(
        """
        import os
        import numpy as np
        from tbxd_client import SummaryWriter
        before = set(os.listdir("/proc/self/fd"))
        writer = SummaryWriter("logs/a")
        for step in range(2000):
            writer.add_histogram("histogram", np.arange(3000.0), step)  # more than one segment
        assert writer.flush(60)
        ours = set(os.listdir("/proc/self/fd")) - before
        def targets():
            found = []
            for number in ours:
                try:
                    found.append(os.readlink(f"/proc/self/fd/{number}"))
                except OSError:
                    pass
            return found
        mine = targets()
        assert any(target.endswith("/control") for target in mine) and any("socket" in target for target in mine)
        if os.fork() == 0:
            assert set(targets()) <= {"/dev/null"}, targets()
            os._exit(0)
        assert os.wait()[1] == 0
        assert targets() == mine
        """
    )
    assert result.returncode == 0, result.stderr


def test_children_forked_right_before_and_after_a_daemon_is_spawned_hold_nothing_of_its_start(place: World) -> None:
    """Neither `launch.lock` nor the pipe that says that it lives, nor its log: by another thread, and by that one."""
    result = place.run(
        """
        import os, select, stat, sys, threading
        from tbxd_client import SummaryWriter
        from tbxd_client.process import helper
        real, asked, answered, held = helper.posix_spawn, threading.Event(), threading.Event(), []
        def ours():
            found = []
            for number in map(int, os.listdir("/proc/self/fd")):
                try:
                    target = os.readlink(f"/proc/self/fd/{number}")
                except OSError:
                    continue
                if number > 2 and number not in before:
                    found.append(target)
            return [one for one in found if one != "/dev/null" and not one.endswith("/fd")]
        def fork():
            pid = os.fork()
            if pid == 0:
                left = ours()
                print(left, file=sys.stderr) if left else None
                os._exit(len(left))
            held.append(os.waitpid(pid, 0)[1])
        def spawn(*given, **named):
            there = " ".join(ours())
            assert "launch.lock" in there and "daemon.log" in there and "pipe:" in there, there
            for late in (False, True):
                if late:
                    pid = real(*given, **named)
                fork()
                asked.set()
                answered.wait(30)
                answered.clear()
            return pid
        before = {int(number) for number in os.listdir("/proc/self/fd")}
        helper.posix_spawn = spawn
        writer = SummaryWriter("logs/a")
        writer.add_scalar("value", 0.0, 0)
        for _ in range(2):
            assert asked.wait(30)
            asked.clear()
            fork()
            answered.set()
        assert writer.flush(30)
        assert held == [0] * 4, held
        """
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_nothing_is_imported_on_the_threads_of_the_client(place: World) -> None:
    """A child forked in the middle of an import could never do it: the lock of the module is held for ever."""
    result = place.run(
        """
        import sys, threading
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        here, found = threading.get_ident(), []
        def hook(event, arguments):
            if event == "import" and threading.get_ident() != here:
                found.append(arguments[0])
        sys.addaudithook(hook)
        writer.add_scalar("value", 0.0, 0)
        assert writer.flush(60), "with a daemon that had to be started"
        writer.close()
        assert not found, found
        """
    )
    assert result.returncode == 0, result.stderr


def test_a_fork_waits_for_what_it_must_not_cut_in_two_but_not_for_a_disk_that_hangs(place: World) -> None:
    result = place.run(
        """
        import os, sys, threading, time
        from pathlib import Path
        from tbxd_client.process import descriptors
        folder = Path.cwd()
        descriptors.know(folder)
        inside, leave, left = threading.Event(), threading.Event(), threading.Event()

        def hold(seconds):
            with descriptors.uncut:
                fd = os.open(folder / "file", os.O_RDWR | os.O_CREAT)  # open, and not yet known
                inside.set()
                leave.wait(seconds)
                os.close(fd)
                left.set()

        def fork_while_it_is_held(seconds):
            for event in (inside, leave, left):
                event.clear()
            thread = threading.Thread(target=hold, args=(seconds,))
            thread.start()
            inside.wait()
            pid = os.fork()
            if pid == 0:
                links = [os.readlink(f"/proc/self/fd/{number}") for number in descriptors.open_numbers(3)[:-1]]
                os._exit(any("file" in link for link in links))
            waited = left.is_set()
            leave.set()
            assert os.waitpid(pid, 0)[1] == 0, "it has the file"
            thread.join()
            return waited
        assert not fork_while_it_is_held(60), "it does not wait for that"
        descriptors.FORK_SECONDS = 30.0
        assert fork_while_it_is_held(0.02), "it waits"
        with descriptors.uncut:  # a signal handler that forks
            if os.fork() == 0:
                os._exit(0)
            assert os.wait()[1] == 0
        """
    )
    assert result.returncode == 0, result.stderr


# --- how the daemon is started -------------------------------------------------------------------------------


def test_the_daemon_has_nothing_of_the_trainer_that_starts_it(place: World) -> None:
    """No descriptor, also none that is inherited; no ignored or blocked signal; and it is nobody's child."""
    result = place.run(
        """
        import os, signal, socket
        from tbxd_client import SummaryWriter
        listener = socket.create_server(("127.0.0.1", 0))
        listener.set_inheritable(True)  # as libraries in C leave them
        os.dup2(listener.fileno(), 3), os.dup2(listener.fileno(), 400)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
        writer = SummaryWriter("logs/a")
        writer.add_scalar("value", 0.0, 0)
        assert writer.flush(60)
        print(os.fstat(3).st_ino)
        """
    )
    assert result.returncode == 0, result.stderr
    daemon = psutil.Process(wait_for(place.running, "the daemon"))
    links = [os.readlink(path) for path in Path(f"/proc/{daemon.pid}/fd").iterdir()]
    assert f"socket:[{result.stdout.strip()}]" not in links
    assert daemon.cwd() == "/" and os.getsid(daemon.pid) != os.getsid(0)
    assert not [child.cmdline() for child in daemon.children()]
    state = dict(line.split(":\t") for line in Path(f"/proc/{daemon.pid}/status").read_text().splitlines())
    term = 1 << (signal.SIGTERM - 1)
    assert int(state["SigBlk"], 16) == 0 and not int(state["SigIgn"], 16) & term and int(state["SigCgt"], 16) & term
    daemon.terminate()
    wait_for(lambda: not is_locked(place.runtime / "daemon.lock"), "it to leave as it is told")


def test_a_descriptor_beyond_the_limit_is_no_reason_to_start_no_daemon_and_none_that_it_has(place: World) -> None:
    """`ulimit -n` leaves open what is open; posix_spawn refuses such a number."""
    result = place.run(
        """
        import os, resource
        from tbxd_client import SummaryWriter
        reader, pipe = os.pipe()
        os.dup2(pipe, 251, inheritable=True)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        with SummaryWriter("logs/a") as writer:
            writer.add_scalar("value", 0.0, 0)
            assert writer.flush(60)
        os.fstat(251)
        print(os.fstat(pipe).st_ino)
        """
    )
    assert result.returncode == 0 and not result.stderr, result.stderr
    assert scalars(place.logdir / "a") == {"value": points(range(1))}
    daemon = psutil.Process(wait_for(place.running, "the daemon"))
    links = [os.readlink(path) for path in Path(f"/proc/{daemon.pid}/fd").iterdir()]
    assert f"pipe:[{result.stdout.strip()}]" not in links


def test_a_trainer_has_no_child_and_no_signal_of_the_daemon_that_it_has_started(place: World) -> None:
    result = place.run(
        """
        import os, time
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        writer.add_scalar("value", 0.0, 0)
        assert writer.flush(60)
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print("none")
        """
    )
    assert (result.returncode, result.stdout) == (0, "none\n"), result.stderr


def test_a_daemon_is_started_where_there_is_no_shell(place: World) -> None:
    result = place.run(
        """
        import tbxd_client.process.helper
        tbxd_client.process.helper.SHELL = "/nowhere/sh"
        open("json.py", "w").write("raise SystemExit(9)")  # a module of the working directory shadows nothing
        writer = tbxd_client.SummaryWriter("logs/a")
        writer.add_scalar("value", 0.0, 0)
        assert writer.flush(60)
        """
    )
    assert result.returncode == 0, result.stderr


# A program that trains whatever its arguments are, as one that was made of a script does.
FROZEN = """
import os, sys
with open({starts!r}, "a") as file:
    print(os.getpid(), file=file)
sys.executable = {program!r}
if {frozen!r}:
    sys.frozen = True
from tbxd_client import SummaryWriter
with SummaryWriter({logs!r}) as writer:
    for step in range(10):
        writer.add_scalar("value", step, step)
    print(writer.flush(float(os.environ.get("WAIT", "30"))))
"""


def program(place: World, name: str, frozen: bool, prefix: str = "") -> Path:
    """An executable that runs the training."""
    path = place.root / name
    script = place.root / "training.py"
    starts, logs = str(place.root / "starts"), str(place.logdir / "a")
    made = FROZEN.format(starts=starts, program=str(path), frozen=frozen, logs=logs)
    if prefix:
        made = f"import sys\nsys.exec_prefix = {prefix!r}\n{made}"
    script.write_text(made)
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {script} "$@"\n')
    path.chmod(0o755)
    return path


def starts(place: World) -> int:
    return len((place.root / "starts").read_text().splitlines())


def test_a_program_that_was_made_of_a_script_is_never_run_to_have_a_daemon(place: World) -> None:
    path = program(place, "trainer", frozen=True)
    result = place.shell(f"WAIT=1 {path}")
    assert (result.returncode, result.stdout) == (0, "False\n"), result.stderr
    assert result.stderr.count("no daemon is started") == 1 and "TBXD_PYTHON" in result.stderr
    assert starts(place) == 1 and len(place.journals()) == 1
    result = place.shell(f"TBXD_PYTHON={sys.executable} {path}")
    assert (result.returncode, result.stdout) == (0, "True\n"), result.stderr
    wait_for(place.drained, "what was kept, too")
    assert starts(place) == 2
    assert sorted(scalars(place.logdir / "a")["value"]) == sorted(2 * points(range(10)))


def test_a_program_that_has_python_inside_finds_that_of_its_prefix(place: World) -> None:
    path = program(place, "host", frozen=False)
    result = place.shell(f"{path}")
    assert (result.returncode, result.stdout, starts(place)) == (0, "True\n", 1), result.stderr
    path = program(place, "other", frozen=False, prefix=str(place.root))
    place.tbxd("stop")
    result = place.shell(f"WAIT=1 {path}")
    assert (result.returncode, result.stdout, starts(place)) == (0, "False\n", 2), result.stderr
    assert "no Python, and there is none in" in result.stderr


def test_a_program_that_passes_for_a_python_is_run_once_and_starts_nothing_itself(place: World) -> None:
    """Whatever is started in our name carries a mark, which what it starts in turn inherits."""
    path = program(place, "python3", frozen=False)
    result = place.shell(f"WAIT=3 TBXD_FLUSH_SECONDS=1 {path}")
    assert (result.returncode, result.stdout) == (0, "False\n"), result.stderr
    assert "is not tbxd" in result.stderr
    wait_for(lambda: not [one for one in psutil.process_iter() if str(path) in _command(one)], "the other run to end")
    assert starts(place) == 2 and place.running() is None


def test_the_mark_is_taken_by_what_was_meant_to_be_started_and_inherited_by_all_else(place: World) -> None:
    script = """
        import os, sys
        from tbxd_client.process import helper
        ours, theirs = os.pipe()
        os.environ[helper.STARTED_VARIABLE] = f"{theirs}:{os.fstat(theirs).st_ino}"
        os.set_inheritable(theirs, True)
        assert helper.is_started()
        helper.say_impostor()
        assert os.read(ours, 100) == b"126\\n"
        helper.take_mark()
        assert not helper.is_started() and not os.get_inheritable(theirs)
        for text in (f"{theirs}:1", "3", "x:y", "999999999999:1"):  # a pipe of somebody else
            os.environ[helper.STARTED_VARIABLE] = text
            helper.say_impostor(), helper.take_mark()
            assert not helper.is_started()
        os.set_blocking(ours, False)
        try:
            assert not os.read(ours, 100)
        except BlockingIOError:
            pass
    """
    result = place.run(script)
    assert result.returncode == 0, result.stderr


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_a_setting_that_is_no_program_is_told_and_nothing_else_is_run(place: World) -> None:
    for value in ("python3", "/nowhere/python3", str(place.root)):
        result = place.run(
            """
            from tbxd_client import SummaryWriter
            SummaryWriter("logs/a").add_scalar("value", 0.0, 0)
            """,
            environ={"TBXD_PYTHON": value, "TBXD_FLUSH_SECONDS": "0.5"},
        )
        assert result.returncode == 0 and f"TBXD_PYTHON='{value}'" in result.stderr
        assert place.running() is None


# --- closed descriptors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [False, True])
def test_a_program_that_closes_all_descriptors_keeps_its_files_and_its_records(place: World, warm: bool) -> None:
    """Also those of the client, whose numbers its own files have afterwards: large records, definitions and rings go
    into no file of its own, and the lock of the journal holds."""
    result = place.run(
        """
        import os, sys, time
        from pathlib import Path
        import numpy as np
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        for step in range(100):
            writer.add_scalar("value", step, step)
        assert sys.argv[1] == "False" or writer.flush(60)
        os.closerange(3, 1024)
        files = [open(f"file{number}", "w+b", buffering=0) for number in range(60)]
        for file in files:
            file.write(b"x" * 100)
            file.seek(50)
        for step in range(100, 200):
            writer.add_scalar("value", step, step)
            if step % 10 == 0:
                writer.add_histogram("histogram", np.arange(50_000.0), step)
        writer.add_scalar("other", 1.0, 1)
        assert writer.flush(60)
        time.sleep(2.5)  # the sender sleeps
        writer.add_scalar("value", 200.0, 200)
        assert writer.flush(5)
        assert writer.stats()["written"] == 212
        for file in files:
            assert file.tell() == 50
            file.seek(0)
            assert file.read() == b"x" * 100
        writer.close()
        for file in files:
            file.write(b"y")  # none is closed
        """,
        warm,
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal")
    assert scalars(place.logdir / "a") == {"value": points(range(201)), "other": [(1, 1.0)]}


# What the sender does when the program closes all descriptors: the function that it is in, as MODULE:NAME, and whether
# it is through with it.
MOMENTS = {
    "as it looks for free descriptors": ("tbxd_client.process.descriptors:Descriptor", False),
    "before it has looked for a daemon": ("tbxd_client.transport.launcher:lock_path", False),
    "as it opens the lock of who starts one": ("tbxd_client.transport.launcher:private_dir", True),
    "as it has that lock": ("tbxd_client.transport.executable:environment", True),
    "as it starts one": ("tbxd_client.process.descriptors:limit", True),
    "when it has found one": ("tbxd_client.transport.local_connection:socket_trouble", True),
    "before it connects": ("tbxd_client.transport.local_connection:open_socket", False),
    "as it connects": ("tbxd_client.transport.local_connection:open_socket", True),
    "as it has connected": ("tbxd_client.transport.local_connection:opening", True),
    "as it says something": ("tbxd_client.transport.local_connection:encoded", True),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_sender_gets_over_closed_descriptors_whatever_it_does_at_that_moment(place: World, moment: str) -> None:
    """The program is as quick as can be: it has opened files of its own under the numbers before anybody looks."""
    where, after = MOMENTS[moment]
    result = place.run(
        """
        import importlib, os, sys, time
        from tbxd_client import SummaryWriter
        from tbxd_client.process.native import get_ident
        module, name = sys.argv[1].split(":")
        owner, after, here, files = importlib.import_module(module), sys.argv[2] == "True", get_ident(), []
        real = getattr(owner, name)
        def close_all():
            setattr(owner, name, real)
            os.closerange(3, 1024)
            for number in range(60):
                files.append(open(f"file{number}", "w+b", buffering=0))
                files[-1].write(b"x" * 100)
                files[-1].seek(50)
        def closing(*given, **named):
            if get_ident() == here or files:
                return real(*given, **named)
            if not after:
                close_all()
            try:
                return real(*given, **named)
            finally:
                if after:
                    close_all()
        writer = SummaryWriter("logs/a")
        setattr(owner, name, closing)
        writer.add_scalar("value", 0.0, 0)  # one: it rings before there is a sender, and nobody while it closes
        deadline = time.monotonic() + 30
        while len(files) < 60:
            assert time.monotonic() < deadline, "the moment has not come"
            time.sleep(0.001)
        for step in range(1, 100):
            writer.add_scalar("value", step, step)
        assert writer.flush(30), "not written"
        writer.add_scalar("value", 100.0, 100)
        assert writer.flush(30), "not written later"
        writer.close()
        for file in files:
            assert file.tell() == 50, "a file was used"
            file.seek(0)
            assert file.read() == b"x" * 100
            file.write(b"y")  # none is closed
        """,
        where,
        after,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert scalars(place.logdir / "a") == {"value": points(range(101))}


@pytest.mark.parametrize("closed", ["0<&- 1>&- 2>&-", "2>&-", "0<&- 2>&-"])
def test_no_descriptor_of_ours_has_the_number_of_a_closed_stderr(place: World, closed: str) -> None:
    """A library in C writes to descriptor 2, open or not."""
    (place.root / "script.py").write_text(
        """
import os, sys
import numpy as np
from tbxd_client import SummaryWriter
writer = SummaryWriter("logs/a")
for step in range(2000):
    writer.add_scalar("value", step, step)
    os.write(2, b"a warning of a library in C" * 10)
    os.write(1, b"") if step == 0 else None
    if step % 500 == 0:
        writer.add_histogram("histogram", np.arange(300_000.0), step)
flushed = writer.flush(30)
low = [os.readlink(f"/proc/self/fd/{number}") for number in range(3)]
with open("said", "w") as file:
    print(flushed, *low, file=file)
"""
    )
    result = place.shell(f"{sys.executable} script.py {closed}")
    assert result.returncode == 0, result.stderr
    flushed, *low = (place.root / "said").read_text().split()
    assert flushed == "True" and "/dev/null" in low and not any(str(place.spool) in name for name in low)
    wait_for(place.drained, "the journal")
    found = scalars(place.logdir / "a")
    assert found == {"value": points(range(2000))}


def test_a_daemon_with_closed_standard_descriptors_serves(place: World) -> None:
    daemon = place.start(
        "import os, sys; os.closerange(0, 3); os.execv(sys.executable, [sys.executable, '-m', 'tbxd', 'serve'])"
    )
    pid = wait_for(place.running, "the daemon")
    assert pid == daemon.pid
    assert {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)} == {"/dev/null"}
    result = place.run(
        "from tbxd_client import SummaryWriter\nwith SummaryWriter('logs/a') as w: w.add_scalar('value', 0.0, 0)"
    )
    assert result.returncode == 0, result.stderr
    assert scalars(place.logdir / "a") == {"value": [(0, 0.0)]}
    daemon.terminate()
    assert daemon.wait(30) == 0


def test_what_is_told_where_there_is_no_stderr_does_not_go_to_stdout(place: World) -> None:
    result = place.shell(
        f"""
        TBXD_FLUSH_SECONDS=x {sys.executable} -c 'import sys
from tbxd_client import SummaryWriter
assert sys.stderr is None
with SummaryWriter("logs/a") as writer: writer.add_scalar("value", 0.0, 0)' 2>&-
        """
    )
    assert (result.returncode, result.stdout) == (0, ""), result.stdout


@pytest.mark.parametrize("what", ["turns.run(lambda patient: hold())", "journal.lock", "session._lock", "_lock"])
def test_a_handler_that_forks_in_a_wait_for_another_thread_has_a_child_that_goes_on(place: World, what: str) -> None:
    """The thread that is waited for is not there in the child, and would never be ready."""
    result = place.run(
        f"""
        import os, signal, sys, threading, time
        from tbxd_client import SummaryWriter
        from tbxd_client.session import session as module
        what = "{what}"
        writer = SummaryWriter("logs/a")
        if what != "_lock":
            writer.add_scalar("known", 0.0, 0)
        parent, session, held = os.getpid(), module.active(), threading.Event()
        """
        """
        def hold():
            held.set()
            time.sleep(1.5)
        def other():
            if what.startswith("turns"):
                module.turns.run(lambda patient: hold())
            else:
                owner = {"journal.lock": session and session.journal, "session._lock": session, "_lock": module}[what]
                with owner.lock if what == "journal.lock" else owner._lock:
                    hold()
        children = []
        def fork(number, frame):
            children.append(os.fork())
            if not children[-1]:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(20)  # ends what waits for ever
        signal.signal(signal.SIGALRM, fork)
        threading.Thread(target=other, daemon=True).start()
        held.wait()
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        if what == "session._lock":
            session.begin_anew("nowhere")
        else:
            writer.add_text("text", "text", 1)
        if os.getpid() != parent:
            writer.add_text("text", "text", 2)
            os._exit(7 if writer.flush(30) else 8)
        print(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]), flush=True)
        assert writer.flush(30)
        """
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "7\n", "the child logs"


def test_a_handler_that_forks_in_a_flush_has_a_child_that_waits_for_nobody(place: World) -> None:
    """What sends is a thread of the parent; the child has nothing to be written."""
    result = place.run(
        """
        import os, signal, time
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        writer.add_scalar("value", 0.0, 0)
        parent, children = os.getpid(), []
        signal.signal(signal.SIGALRM, lambda number, frame: children.append(os.fork()))
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        begun = time.monotonic()
        writer.flush(8)
        took = time.monotonic() - begun
        if os.getpid() != parent:
            os._exit(int(took))
        print(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]), took > 7)
        os._exit(0)
        """,
        environ={"TBXD_ADDRESS": f"ipc://{place.root}/nobody"},
    )
    assert result.returncode == 0, result.stderr
    seconds, waited = result.stdout.split()
    assert waited == "True" and int(seconds) < 4
