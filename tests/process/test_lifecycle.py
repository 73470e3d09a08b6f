"""The life of a writer: opened, pickled, forked, closed, opened again, forgotten; often, and nothing stays."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from harness import World, events, scalars, wait_for

CLIENT_BYTES_A_CYCLE = 1024  # in a folder that has been opened before: what its records touch of the journal's first MB
CLIENT_BYTES_A_FOLDER = 8 << 10  # and what is remembered of each other one, its tags above all
THREADS_OF_A_DAEMON = 8 + 3  # those that write, its own, and two of ZeroMQ
DAEMON_BYTES_A_FOLDER = 36 << 10  # 34,000 measured: for `tbxd status`, and to know what its files hold

CYCLES = """
    import gc, os, sys, threading
    import psutil
    from tbxd_client import GlobalSummaryWriter, SummaryWriter
    me = psutil.Process()
    kept = []

    def cycle(number):
        folder = f"logs/{number % int(sys.argv[1])}"
        writer = SummaryWriter(folder) if number % 3 else GlobalSummaryWriter(folder)
        for tag in range(10):
            writer.add_scalar(f"value/{tag}", number)
        writer.add_text("text", str(number))
        if number % 2:
            writer.close()

    def state():
        gc.collect()
        return me.memory_info().rss, me.num_fds(), threading.active_count(), len(me.children())

    for number in range(200):
        cycle(number)
    before = state()
    for number in range(200, 1200):
        cycle(number)
    after = state()
    assert after[1:3] == before[1:3], (before, after)
    print((after[0] - before[0]) / 1000)
"""


def descriptors_of(daemon: psutil.Process) -> int:
    """How many a daemon has that has nothing to do; the last that it opens for itself watches the spool."""

    def watches() -> bool:
        for path in Path(f"/proc/{daemon.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                if "inotify" in str(path.readlink()):
                    return True
        return False

    if sys.platform == "linux":
        wait_for(watches, "the daemon to watch its spool")
    return int(daemon.num_fds())


@pytest.mark.long
@pytest.mark.parametrize(("folders", "bytes_max"), [(3, CLIENT_BYTES_A_CYCLE), (2000, CLIENT_BYTES_A_FOLDER)])
def test_a_thousand_cycles_leave_nothing_in_trainer_daemon_and_spool(
    place: World, folders: int, bytes_max: int
) -> None:
    """Half of the writers are never closed."""
    daemon = psutil.Process(place.serve().pid)
    descriptors = descriptors_of(daemon)
    assert place.run(CYCLES, 1).returncode == 0  # what the daemon needs once, its threads above all
    wait_for(place.drained, "the spool to be empty")
    threads, before = daemon.num_threads(), daemon.memory_info().rss
    result = place.run(CYCLES, folders, timeout=180)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < bytes_max
    wait_for(place.drained, "the spool to be empty")
    wait_for(lambda: daemon.num_fds() <= descriptors, f"{descriptors} descriptors")
    assert daemon.num_threads() <= max(threads, THREADS_OF_A_DAEMON)
    status = place.status()
    assert status is not None and status["sessions"] == []
    assert status["totals"] == {"accepted": 2 * 13_200, "written": 2 * 13_200, "pending": 0, "dropped": {}}
    assert (daemon.memory_info().rss - before) / max(1000, min(folders, 1200)) < DAEMON_BYTES_A_FOLDER
    assert not place.journals()


@pytest.mark.long
def test_two_hundred_processes_leave_nothing_in_the_daemon(place: World) -> None:
    daemon = psutil.Process(place.serve().pid)
    descriptors = descriptors_of(daemon)
    script = """
        import os
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        writer.add_scalar("parent", 0.0, 0)
        for number in range(100):
            if os.fork() == 0:
                writer.add_scalar("child", number, number)
                if number % 2:
                    os._exit(0)  # no close, no goodbye: the daemon finds its journal
                raise SystemExit(0)
            if number % 10 == 9:
                for _ in range(10):
                    os.wait()
        assert writer.flush(60)
        """

    for _ in range(2):
        result = place.run(script)
        assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the spool to be empty")
    wait_for(lambda: (place.status() or {"sessions": [""]})["sessions"] == [], "the sessions to be forgotten")
    wait_for(lambda: daemon.num_fds() <= descriptors, f"{descriptors} descriptors")
    # What comes behind another child's has a run of its own, so that TensorBoard shows it.
    folders = [place.logdir / "a", *filter(Path.is_dir, (place.logdir / "a").iterdir())]
    points = [point for folder in folders for point in scalars(folder).get("child", [])]
    assert sorted(points) == sorted(2 * [(step, float(step)) for step in range(100)])


def test_a_writer_is_what_it_was_after_pickling_and_copying(place: World) -> None:
    result = place.run(
        """
        import copy, pickle
        from tbxd_client import FileWriter, GlobalSummaryWriter, SummaryWriter
        from tensorboardX.proto.summary_pb2 import Summary
        writer = SummaryWriter("logs/a", purge_step=0, filename_suffix=".mine")
        writer.add_scalar("value", 0.0, 0)
        writer.add_custom_scalars({"c": {"one": ["Multiline", ["value"]]}})
        for step, how in enumerate((lambda it: pickle.loads(pickle.dumps(it)), copy.deepcopy, copy.copy), 1):
            other = how(writer)
            assert other.logdir == writer.logdir and other.purge_step == 0
            other.add_scalar("value", step, step)
            other.add_scalars("chart", {"one": step}, step)
            other.add_custom_scalars({"c": {f"chart {step}": ["Multiline", ["value"]]}})
            other.file_writer.add_summary(Summary(value=[Summary.Value(tag="own", simple_value=step)]), step)
            assert other.all_writers["logs/a"] is other.file_writer
            writer.add_scalar("original", step, step)
        for kind in (FileWriter, GlobalSummaryWriter):
            pickle.loads(pickle.dumps(kind("logs/a"))).flush()
        off = pickle.loads(pickle.dumps(SummaryWriter("logs/off", write_to_disk=False)))
        off.add_scalar("value", 0.0, 0)
        assert writer.flush(60)
        assert writer.stats()["accepted"] == 1 + 1 + 1 + 3 * 5, writer.stats()
        """
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be drained")
    found = scalars(place.logdir / "a")
    assert found["value"] == [(step, float(step)) for step in range(4)]
    assert found["original"] == found["own"] == found["value"][1:]
    chart = events(place.logdir / "a" / "chart" / "one")
    assert not any(event.HasField("session_log") for event in chart), "only the original restarts a run below it"
    assert not (place.logdir / "off").exists()


def test_closing_is_flushing_and_may_be_left_out_or_done_again(place: World) -> None:
    result = place.run(
        """
        from tbxd_client import GlobalSummaryWriter, SummaryWriter
        for kind in (SummaryWriter, GlobalSummaryWriter):
            never = kind("logs/never")
            never.close(), never.flush()  # before its first record there is nothing to close
            writer = kind("logs/a")
            for step in range(3):
                writer.add_scalar(kind.__name__, step, **({"global_step": step} if kind is SummaryWriter else {}))
                writer.close()
                writer.close()
            with writer as again:
                assert again is writer
            below = writer.file_writer if kind is GlobalSummaryWriter else writer._get_file_writer()
            below.close()
            below.reopen()
            below.event_writer.close()
            writer.add_text("last", "after every close", 3)
            del writer
        SummaryWriter("logs/a").add_scalar("nobody closes this", 1.0, 1)
        """
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be drained")
    found = scalars(place.logdir / "a")
    assert found.pop("nobody closes this") == [(1, 1.0)]
    points = [(step, float(step)) for step in range(3)]
    assert found == {"SummaryWriter": points, "GlobalSummaryWriter": points}
    assert len(list((place.logdir / "never").iterdir())) == 1  # with its version, as the originals leave


def test_threads_open_close_and_fork_as_they_like(place: World) -> None:
    """Eight threads, each with writers of its own to the same folders, while the main thread forks."""
    result = place.run(
        """
        import os, threading
        from tbxd_client import SummaryWriter
        failed = []
        def work(number):
            try:
                for step in range(100):
                    with SummaryWriter(f"logs/{step % 4}") as writer:
                        writer.add_scalar(f"thread{number}", step, step)
            except BaseException as error:
                failed.append(error)
                raise
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for number in range(10):
            if os.fork() == 0:
                with SummaryWriter("logs/forked") as writer:
                    writer.add_scalar(f"child{number}", number, number)
                os._exit(0)
        for _ in range(10):
            assert os.wait()[1] == 0
        for thread in threads:
            thread.join()
        assert not failed and threading.active_count() == 1, failed  # the sender is none of theirs
        """,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journals to be drained")
    for folder in range(4):
        expected = [(step, float(step)) for step in range(folder, 100, 4)]
        assert scalars(place.logdir / str(folder)) == {f"thread{number}": expected for number in range(8)}
    assert scalars(place.logdir / "forked") == {f"child{number}": [(number, float(number))] for number in range(10)}


def test_a_run_whose_definition_was_interrupted_is_settled_under_its_second_number(place: World) -> None:
    """Ctrl-C in it, and training goes on: `stats()` said for ever that all of the run was pending."""
    result = place.run(
        """
        from tbxd_client import SummaryWriter
        from tbxd_client.journal import journal
        define = journal.Journal.define
        def interrupted(self, definition):
            define(self, definition)
            journal.Journal.define = define
            raise KeyboardInterrupt
        with SummaryWriter("logs/a") as writer:
            writer.add_scalar("value", 1.0, 0)
            journal.Journal.define = interrupted
            try:
                writer.add_scalars("many", {"one": 1.0}, 0)
                raise SystemExit("not interrupted")
            except KeyboardInterrupt:
                pass
            for step in range(10):
                writer.add_scalars("many", {"one": 1.0}, step)
            assert writer.flush(30)
            stats = writer.stats()
        assert (stats["accepted"], stats["written"], stats["pending"]) == (11, 11, 0), stats
        """
    )
    assert result.returncode == 0, result.stderr
    assert scalars(place.logdir / "a" / "many" / "one") == {"many": [(step, 1.0) for step in range(10)]}


def test_a_fork_while_the_first_writer_is_made_leaves_no_lock_of_an_import_behind(place: World) -> None:
    """What sends is imported with the first writer, over tcp pyzmq too; a child that is forked in the middle of that
    could never import it."""
    result = place.run(
        """
        import os, sys, threading, time
        import tbxd_client
        begun = threading.Event()
        class Slow:  # the import takes a while, so that the fork certainly meets it
            def find_spec(self, name, path=None, target=None):
                if name == "zmq":
                    begun.set()
                    time.sleep(0.3)
        sys.meta_path.insert(0, Slow())
        thread = threading.Thread(target=tbxd_client.SummaryWriter, args=("logs/a",))
        thread.start()
        assert begun.wait(30)
        child = os.fork()
        if child == 0:
            tbxd_client.SummaryWriter("logs/b").close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        thread.join()
        """,
        timeout=60,
        environ={"TBXD_ADDRESS": "tcp://127.0.0.1:9", "TBXD_FLUSH_SECONDS": "0.1"},
    )
    assert result.returncode == 0, result.stderr


def test_a_writer_that_is_gone_frees_its_memory_and_a_known_folder_defines_nothing_again(place: World) -> None:
    result = place.run(
        """
        import gc, weakref
        from tbxd_client import SummaryWriter
        from tbxd_client.session.session import active
        def open_and_log(step):
            writer = SummaryWriter("logs/a")
            writer.add_scalar("value", step, step)
            writer.add_scalar("coloured", step, step, color="red")
            writer.log({"row": 1.0, "other": 2.0}, step)
            writer.add_scalars("chart", {"one": step}, step)
            return weakref.ref(writer), weakref.ref(writer.file_writer)
        open_and_log(0)
        defined = active().journal.definitions_end
        references = [open_and_log(step) for step in range(1, 50)]
        gc.collect()
        assert all(reference() is None for pair in references for reference in pair)
        assert active().journal.definitions_end == defined
        assert active().flush(60)
        """
    )
    assert result.returncode == 0, result.stderr
    found = scalars(place.logdir / "a")
    assert all(len(found[tag]) == 50 for tag in ("value", "coloured", "row", "other"))
