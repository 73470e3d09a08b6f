"""Processes and threads: fork, spawn, forkserver, DataLoader workers, threads, many writers, pickling."""

from __future__ import annotations

import pytest

from harness import World, scalars, wait_for


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_children_of_every_kind_log_through_sessions_of_their_own(place: World, method: str) -> None:
    (place.root / "script.py").write_text(
        """
import multiprocessing, sys
from tbxd_client import SummaryWriter

def work(writer, number):
    for step in range(100):
        writer.add_scalar(f"child{number}", step, step)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    writer = SummaryWriter("logs/a")
    for step in range(100):
        writer.add_scalar("parent", step, step)
    children = [context.Process(target=work, args=(writer, number)) for number in range(3)]
    for child in children:
        child.start()
    for step in range(100, 200):
        writer.add_scalar("parent", step, step)
    for child in children:
        child.join()
        assert child.exitcode == 0
    writer.close()
"""
    )
    result = place.run(
        "import runpy, sys; sys.path.insert(0, '.'); runpy.run_path('script.py', run_name='__main__')", method
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the children's journals")
    expected = {f"child{number}": [(step, float(step)) for step in range(100)] for number in range(3)}
    expected["parent"] = [(step, float(step)) for step in range(200)]
    assert scalars(place.logdir / "a") == expected


def test_a_forked_child_that_never_logs_never_connects_and_harms_nothing(place: World) -> None:
    result = place.run(
        """
        import os, threading
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        writer.add_scalar("value", 0.0, 0)
        assert writer.flush(60)
        for _ in range(5):
            if os.fork() == 0:
                assert threading.active_count() == 1
                writer.close()  # nothing to flush: at once, and without the parent's socket
                raise SystemExit(0)
            assert os.wait()[1] == 0
        for step in range(1, 100):
            writer.add_scalar("value", 0.0, step)
        assert writer.flush(60)
        """
    )
    assert result.returncode == 0, result.stderr
    assert [step for step, _ in scalars(place.logdir / "a")["value"]] == list(range(100))
    status = place.status()
    assert status is not None and len(status["sessions"]) == 0


def test_eight_threads_log_at_once(place: World) -> None:
    result = place.run(
        """
        import threading
        import numpy as np
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        def work(number):
            for step in range(2000):
                writer.add_scalar(f"thread{number}", step, step)
                if step % 500 == 0:
                    writer.add_histogram(f"histogram{number}", np.arange(20_000.0), step)
                    writer.log({f"row{number}": step}, step)
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert writer.flush(60)
        assert writer.stats()["accepted"] == 8 * 2008, writer.stats()
        """
    )
    assert result.returncode == 0, result.stderr
    found = scalars(place.logdir / "a")
    for number in range(8):
        assert found[f"thread{number}"] == [(step, float(step)) for step in range(2000)]
        assert [step for step, _ in found[f"row{number}"]] == [0, 500, 1000, 1500]


def test_a_thousand_writers_in_a_row_leave_nothing_behind(place: World) -> None:
    result = place.run(
        """
        import os, threading, psutil
        from tbxd_client import SummaryWriter
        me = psutil.Process()
        for number in range(1000):
            with SummaryWriter(f"logs/{number % 10}") as writer:
                writer.add_scalar("value", number, number)
            if number == 20:
                before = me.num_fds(), threading.active_count()
        assert (me.num_fds(), threading.active_count()) == before, (me.num_fds(), before)
        """,
        timeout=180,
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be deleted")
    for number in range(10):
        assert [step for step, _ in scalars(place.logdir / str(number))["value"]] == list(range(number, 1000, 10))
        assert len(list((place.logdir / str(number)).iterdir())) == 1, "one owner, one event file"


def test_a_signal_handler_that_logs_and_flushes_does_not_hang_or_lose(place: World) -> None:
    result = place.run(
        """
        import signal, time
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        handled = 0
        def handler(number, frame):
            global handled
            mine = handled  # the handler may be interrupted by itself
            handled += 1
            writer.add_scalar("handler", mine, mine)
            if mine % 20 == 0:
                writer.flush(60)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        step = 0
        while handled < 200:
            writer.add_scalar("loop", step, step)
            step += 1
            if step % 20_000 == 0:
                writer.flush(60)
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert writer.flush(60)
        print(step, handled)
        """
    )
    assert result.returncode == 0, result.stderr
    steps, handled = map(int, result.stdout.split())
    found = scalars(place.logdir / "a")
    assert [step for step, _ in found["loop"]] == list(range(steps))
    assert sorted(found["handler"]) == [(step, float(step)) for step in range(handled)]


def test_data_loader_workers_may_log(place: World) -> None:
    result = place.run(
        """
        import torch
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        class Data(torch.utils.data.Dataset):
            def __len__(self): return 40
            def __getitem__(self, index):
                writer.add_scalar(f"item/{index}", index, index)
                return index
        writer.add_scalar("main", 0.0, 0)
        for _ in torch.utils.data.DataLoader(Data(), batch_size=4, num_workers=2):
            pass
        writer.close()
        """
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the workers' journals")
    found = scalars(place.logdir / "a")
    assert found.pop("main") == [(0, 0.0)]
    assert found == {f"item/{index}": [(index, float(index))] for index in range(40)}


def test_two_names_of_one_folder_are_one_run(place: World) -> None:
    """Through a symbolic link and without it: one owner, one event file, no record waiting for the other's lock."""
    place.logdir.mkdir()
    (place.root / "link").symlink_to(place.logdir)
    result = place.run(
        """
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/a") as one, SummaryWriter("link/a") as other:
            one.add_scalar("one", 1.0, 0)
            other.add_scalar("other", 2.0, 0)
        """
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be drained")
    assert scalars(place.logdir / "a") == {"one": [(0, 1.0)], "other": [(0, 2.0)]}
    assert len(list((place.logdir / "a").iterdir())) == 1


def test_two_writers_of_one_folder_with_other_suffixes_lose_nothing(place: World) -> None:
    """Two runs of one session, one ledger: their records keep the order of the calls, in one file."""
    place.serve()
    result = place.run(
        """
        from tbxd_client import SummaryWriter
        one, other = SummaryWriter("logs/a"), SummaryWriter("logs/a", filename_suffix=".other")
        for step in range(500):
            one.add_scalar("one", step, step)
            other.add_scalar("other", step, step)
            other.add_text("text", str(step), step)
        assert one.flush(60)
        """
    )
    assert result.returncode == 0, result.stderr
    assert scalars(place.logdir / "a") == {
        tag: [(step, float(step)) for step in range(500)] for tag in ("one", "other")
    }
    status = place.status()
    assert status is not None
    run = status["runs"][str(place.logdir / "a")]
    assert (run["accepted"], run["written"], run["pending"], run["dropped"]) == (1500, 1500, 0, {})
    assert len(list((place.logdir / "a").iterdir())) == 1


INSIDE = """
import sys
sys.path[:] = {path!r}
for module in ("tbxd_client", "tbxd_client.writer"):
    try:
        __import__(module)
        print("imported")
    except ImportError as error:
        print(error)
print("zmq" in sys.modules or "msgpack" in sys.modules, flush=True)
"""


def test_a_subinterpreter_is_refused_and_told_what_to_do(place: World) -> None:
    """Before pyzmq is imported there; the main interpreter goes on logging."""
    result = place.run(
        """
        import sys
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/a") as writer:
            writer.add_scalar("value", 0.0, 0)
            other = interpreters.create()
            interpreters.run_string(other, sys.argv[1].format(path=sys.path))
            interpreters.destroy(other)
            writer.add_scalar("value", 1.0, 1)
        """,
        INSIDE,
    )
    assert result.returncode == 0, result.stderr
    *said, loaded = result.stdout.splitlines()
    assert len(said) == 2 and loaded == "False"
    for line in said:
        assert "subinterpreter" in line and "multiprocessing" in line
    wait_for(place.drained, "the journal to be drained")
    assert scalars(place.logdir / "a") == {"value": [(0, 0.0), (1, 1.0)]}


def test_a_signal_handler_that_raises_in_the_middle_of_a_call_leaves_no_lock_behind(place: World) -> None:
    result = place.run(
        """
        import random, signal, threading
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        writer.add_scalar("value", 0.0, 0)
        rng = random.Random(1)

        class Stop(Exception):
            pass

        def handler(number, frame):
            raise Stop
        signal.signal(signal.SIGALRM, handler)
        stopped = returned = 0
        while stopped < 2000:
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(5e-5, 3e-4))
                while True:
                    writer.add_scalar("value", 1.0, returned)
                    returned += 1
            except Stop:
                stopped += 1
        thread = threading.Thread(target=writer.add_scalar, args=("other", 1.0, 0))
        thread.start()
        thread.join(60)
        assert not thread.is_alive(), "the lock is held by nobody"
        assert writer.flush(60)
        print(returned, stopped)
        """
    )
    assert result.returncode == 0, result.stderr
    returned, stopped = map(int, result.stdout.split())
    found = scalars(place.logdir / "a")
    steps = [step for step, _ in found["value"][1:]]
    assert set(steps) == {*range(returned)} or set(steps) == {*range(returned + 1)}
    assert returned <= len(steps) <= returned + stopped  # a call that was interrupted may be there, and was made again
    assert len(found["other"]) == 1


def test_a_call_that_is_interrupted_while_it_waits_for_another_thread_raises_what_the_handler_raised(
    place: World,
) -> None:
    result = place.run(
        """
        import signal, threading
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        writer.add_scalar("value", 0.0, 0)
        lock = writer._tbxd_run.journal.lock
        held, done = threading.Event(), threading.Event()

        def hold():
            with lock:
                held.set()
                done.wait()
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        for kind in (KeyboardInterrupt, RuntimeError):
            def handler(number, frame):
                raise kind("of the handler")
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            try:
                writer.add_scalar("value", 1.0, 1)
            except kind as error:
                assert str(error) == "of the handler", repr(error)
            else:
                raise AssertionError("nothing was raised")
        done.set()
        thread.join()
        writer.add_scalar("value", 2.0, 2)
        assert writer.flush(60)
        """
    )
    assert result.returncode == 0, result.stderr
    assert scalars(place.logdir / "a") == {"value": [(0, 0.0), (2, 2.0)]}
