"""Log folders on a server that several hosts mount, with locks as NFS has them, with locks of each host's own, without.

The file system is a real one (FUSE, `remote.py`), mounted once for each host: the kernel keeps lists and attributes of
each mount apart, and ``flock`` is each mount's own. Daemons of two hosts are two of this one, each with a runtime
folder and a spool of its own, that write through two mounts.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from harness import World, scalars, wait_for, world
from oracle import Verdict
from report import ROWS, account
from tbxd.batch import Batch
from tbxd.ingest.session import Session
from tbxd.runs import run_writer as run
from tbxd.runs.run_writer import RunWriter
from tbxd.tfevents import event_file, rivals
from tbxd.tfevents.event_file import EventFile
from tbxd_client.logdir.event_names import event_files, second_of
from tbxd_client.protocol.records import RunDefinition, TagDefinition, pack_definition, pack_scalar

SERVER = Path(__file__).with_name("remote.py")
QUIET = 1.0


class Remote:
    """A folder of a server, and where each host has it."""

    def __init__(self, root: Path, hosts: int) -> None:
        self.folder = root / "served"
        self.mounts = [root / f"host{number}" for number in range(hosts)]

    def quota(self, on: bool, what: str = "quota") -> None:
        """Have the server take no more from now on, or again; or say so with close alone."""
        path = Path(f"{self.folder}.{what}")
        path.touch() if on else path.unlink()


@contextmanager
def remote(root: Path, *, hosts: int = 2, locks: str = "server", cache: int = 30) -> Iterator[Remote]:
    if os.getuid() or not os.path.exists("/dev/fuse"):
        pytest.skip("FUSE needs root here, and /dev/fuse")
    served = Remote(root, hosts)
    served.folder.mkdir()
    for mount in served.mounts:
        mount.mkdir()
    command = [sys.executable, SERVER, served.folder, *served.mounts, "--locks", locks, "--cache", str(cache)]
    process = subprocess.Popen([str(word) for word in command])
    try:
        wait_for(lambda: process.poll() is not None or all(map(os.path.ismount, served.mounts)), "the mounts")
        if process.poll() is not None:
            pytest.skip("nothing can be mounted by FUSE here")
        yield served
    finally:
        for mount in served.mounts:
            subprocess.run(["umount", "-l", str(mount)], check=False, capture_output=True)
        process.kill()
        process.wait()


class Host:
    """The writer of a run in the daemon of one host, and a session of a trainer there."""

    def __init__(self, folder: Path, number: int, tag: str = "value") -> None:
        self.folder = folder
        self.done: list[Batch] = []
        self.writer = RunWriter(folder, self.done.append)
        self._session = Session(bytes([number + 1]) * 12, 0)
        self._position = 0
        defined = RunDefinition(0, str(folder), f"host{number}", 100 + number, 0.0)
        definitions = [defined, TagDefinition(0, 0, tag)]
        self._session.feed_definitions(0, b"".join(map(pack_definition, definitions)))

    def log(self, *steps: int) -> None:
        data = b"".join(pack_scalar(0, step, time.time(), float(step)) for step in steps)
        for batch in self._session.feed_records(self._position, data) or []:
            self.writer.offer(batch)
        self._position += len(data)

    @property
    def has_it(self) -> bool:
        return self.writer.open

    def end(self) -> None:
        self.writer.park()


@pytest.fixture(autouse=True)
def again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turns come faster than daemons would have them."""
    monkeypatch.setattr(run, "AGAIN_SECONDS", 0.0)


@contextmanager
def writers(served: Remote, run: str = "run", tag: str = "value") -> Iterator[list[Host]]:
    made = [Host(mount / run, number, tag.format(number)) for number, mount in enumerate(served.mounts)]
    try:
        yield made
    finally:
        for host in made:
            with suppress(OSError):
                host.writer.close()


def held(folder: Path) -> list[tuple[int, float]]:
    """What the server has of a run, all tags together, and that names are of no time to come."""
    names = event_files(folder)
    assert max(second_of(name) or 0 for name in names) <= time.time()
    return [point for points in scalars(folder).values() for point in points]


def points(count: int) -> list[tuple[int, float]]:
    return [(step, float(step)) for step in range(count)]


def test_two_hosts_take_turns_thirty_times_and_no_name_is_ahead_of_time(tmp_path: Path) -> None:
    with remote(tmp_path) as served, writers(served) as hosts:
        for turn in range(30):
            now, later = hosts[turn % 2], hosts[1 - turn % 2]
            now.log(turn)
            now.writer.write()
            assert not now.writer.error and now.has_it
            if turn % 3 == 0:  # the other one comes, and waits
                later.log(turn + 1)
                later.writer.write()
                assert later.writer.error.startswith("another tbxd daemon is writing this folder")
                now.end()
                later.writer.write()
                assert not later.writer.error, later.writer.error
                later.end()
            now.end()
        expected = sorted([*range(30), *(turn + 1 for turn in range(0, 30, 3))])
        found = [step for step, _ in held(served.folder / "run")]
        assert sorted(found) == expected
        assert len(event_files(served.folder / "run")) <= 30
    account("nfs", 30, Verdict(accepted=len(expected), written=len(found)))


def test_of_two_hosts_that_come_in_the_same_moment_never_both_write(tmp_path: Path) -> None:
    both, written = 0, [0, 0]
    with remote(tmp_path, cache=60) as served:
        for round_ in range(20):
            with writers(served, f"run{round_}", "host{}") as hosts:
                for number, host in enumerate(hosts):
                    host.log(*range(10 * number, 10 * number + 10))
                start = threading.Barrier(2)

                def go(host: Host, start: threading.Barrier = start) -> None:
                    start.wait()
                    host.writer.write()

                threads = [threading.Thread(target=go, args=(host,)) for host in hosts]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                both += all(host.has_it for host in hosts)
                for number, host in enumerate(hosts):
                    written[number] += host.has_it
                    assert host.has_it or host.writer.error
                for host in [*hosts, *hosts]:  # whoever has had to wait
                    host.writer.write()
                    if not host.writer.error:
                        host.end()
                assert sorted(held(served.folder / f"run{round_}")) == points(20)
        assert not both and sum(written) > 0
    account("nfs", 20, Verdict(accepted=400, written=400))


def test_parked_runs_that_go_on_in_the_same_moment_never_both_write(tmp_path: Path) -> None:
    """Either has a file of its own, which it would go on with; what it knows of the folder is a minute old."""
    with remote(tmp_path, cache=60) as served, writers(served, tag="host{}") as hosts:
        step = 0
        for turn in range(8):
            for host in hosts[:: 1 - 2 * (turn % 2)]:
                host.log(step)
                host.writer.write()
                assert not host.writer.error
                host.end()
                step += 1
            start = threading.Barrier(2)

            def go(host: Host, start: threading.Barrier = start) -> None:
                start.wait()
                host.writer.write()

            for host in hosts:
                host.log(step)
                step += 1
            threads = [threading.Thread(target=go, args=(host,)) for host in hosts]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not all(host.has_it for host in hosts)
            for host in [*hosts, *hosts]:
                host.writer.write()
                if not host.writer.error:
                    host.end()
        assert sorted(held(served.folder / "run")) == points(step)
    account("nfs", 8, Verdict(accepted=step, written=step))


@pytest.mark.parametrize("locks", ["none", "local"])
def test_where_locks_hold_nobody_out_files_that_grow_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, locks: str
) -> None:
    monkeypatch.setattr(rivals, "QUIET_SECONDS", QUIET)
    monkeypatch.setattr(rivals, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(rivals, "_told", set())
    with remote(tmp_path, locks=locks) as served, writers(served) as (one, other):
        one.log(0)
        one.writer.write()
        other.log(1)
        begun = time.monotonic()
        while time.monotonic() < begun + 2 * QUIET:  # who comes waits as long as the other writes
            one.log(*range(0))
            one.writer.file.dirty = True  # type: ignore[union-attr]
            other.writer.write()
            assert "another tbxd daemon is writing" in other.writer.error and "grows" in other.writer.error
            os.utime(served.folder / "run" / one.writer.name)
            time.sleep(QUIET / 10)
        wait_for(lambda: other.writer.write() or not other.writer.error, "the other to have its turn", 5 * QUIET)
        one.log(2)  # and the first finds that one has come behind
        one.writer.write()
        assert "another tbxd daemon is writing" in one.writer.error and other.writer.name in one.writer.error
        wait_for(lambda: one.writer.write() or not one.writer.error, "the first to go on", 5 * QUIET)
        other.log(3)
        wait_for(lambda: other.writer.write() or not other.writer.error, "the other to go on", 5 * QUIET)
        assert held(served.folder / "run") == points(4)
    told = [record.message for record in caplog.records if "noticed by its event file alone" in record.message]
    why = "locks do not work" if locks == "none" else "keeps locks on this host"
    assert len(told) == 2 and all(why in message for message in told), "each host once"
    account("nfs_without", 3, Verdict(accepted=4, written=4))


@pytest.mark.parametrize("locks", ["none", "local"])
def test_who_comes_after_a_daemon_of_its_own_host_waits_only_where_there_are_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locks: str
) -> None:
    """As after a restart: what the one before wrote a moment ago shows that it was of this host, and it has no lock."""
    monkeypatch.setattr(rivals, "_told", set())
    with remote(tmp_path, hosts=2, locks=locks) as served:
        before, after, elsewhere = (Host(served.mounts[at] / "run", number) for number, at in enumerate((0, 0, 1)))
        before.log(0)
        before.writer.write()
        after.log(1)
        after.writer.write()
        assert "another tbxd daemon is writing" in after.writer.error, "it lives"
        for fd in (before.writer.file._fd, before.writer.files.folder.descriptor):  # type: ignore[union-attr]
            os.close(fd)  # as its end does
        after.writer.write()
        if locks == "none":
            assert "grows" in after.writer.error
            return
        assert not after.writer.error and held(served.folder / "run") == points(2)
        elsewhere.log(2)
        elsewhere.writer.write()
        assert "grows" in elsewhere.writer.error, "of another host nobody knows whether it lives"
        after.writer.close()


def test_scripts_and_daemons_of_two_hosts_write_a_folder_one_after_the_other(place: World, tmp_path: Path) -> None:
    script = """
        import os, sys, time
        from tbxd_client import SummaryWriter
        writer = SummaryWriter(sys.argv[1])
        step = int(sys.argv[2])
        while step < int(sys.argv[2]) + 100 or sys.argv[3] and not os.path.exists(sys.argv[3]):
            writer.add_scalar("value", step, step)
            step += 1
            time.sleep(0.02)
        print(step)
        """
    with remote(tmp_path) as served, world(tmp_path / "other") as other:
        folders = [mount / "run" for mount in served.mounts]
        first = place.start(script, folders[0], 0, "enough", stdout=subprocess.PIPE)
        wait_for(lambda: (served.folder / "run").exists() and scalars(served.folder / "run"), "the first to write")
        second = other.start(script, folders[1], 1_000_000, "", stdout=subprocess.PIPE)

        def error() -> str:
            status = other.status()
            return status["runs"].get(str(folders[1]), {}).get("error", "") if status is not None else ""

        assert wait_for(error, "the second to be told").startswith("another tbxd daemon is writing this folder")
        (place.root / "enough").touch()
        counts = [int(process.communicate(timeout=60)[0]) for process in (first, second)]
        wait_for(lambda: place.drained() and other.drained(), "both to be done")
        steps = [step for step, _ in held(served.folder / "run")]
        assert steps == [*range(counts[0]), *range(1_000_000, counts[1])]
    account("nfs", 1, Verdict(accepted=len(steps), written=len(steps)))


def test_a_host_that_is_root_there_and_nobody_on_the_server_keeps_others_out_as_well(tmp_path: Path) -> None:
    """What this user makes belongs to another, as where a server takes root for nobody."""
    with remote(tmp_path) as served:
        folder = served.mounts[0] / "run"
        folder.mkdir()
        nobody = 65534

        def as_nobody(path: Path) -> int:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.fchown(fd, nobody, nobody)
            return fd

        from tbxd_client.logdir.folder_lock import is_file_locked, lock_file

        fd = as_nobody(folder / "events.out.tfevents.1000000000.h.1.0")
        assert lock_file(fd) == 0
        there = os.open(served.mounts[1] / "run", os.O_RDONLY)
        assert is_file_locked(there, owner=nobody) and not is_file_locked(there)
        os.close(there)
        os.close(fd)


def test_a_lock_that_is_refused_is_told_from_one_that_is_not_there(tmp_path: Path) -> None:
    from tbxd_client.logdir.folder_lock import lock_file

    with remote(tmp_path, locks="none") as served:
        fd = os.open(served.mounts[0] / "file", os.O_WRONLY | os.O_CREAT)
        assert lock_file(fd) == errno.ENOLCK
        os.close(fd)


def test_what_a_server_does_not_take_for_its_quota_and_throws_away_is_given_to_it_again(
    place: World, tmp_path: Path
) -> None:
    """It was written, and acknowledged to the script, whose journal has it no more."""
    with remote(tmp_path, hosts=1, cache=0) as served:
        folder = served.mounts[0] / "run"
        place.serve()
        script = place.start(
            """
            import sys
            from tbxd_client import SummaryWriter
            writer = SummaryWriter(sys.argv[1])
            step = 0
            for seconds in map(float, sys.stdin):
                for step in range(step + 1, step + 1001):
                    writer.add_scalar("value", step, step)
                print(writer.flush(seconds), flush=True)
            """,
            folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert script.stdin is not None and script.stdout is not None

        def log(seconds: float) -> bytes:
            assert script.stdin is not None and script.stdout is not None
            script.stdin.write(f"{seconds}\n".encode())
            script.stdin.flush()
            return script.stdout.readline()

        def error() -> str:
            status = place.status()
            return status["runs"][str(folder)]["error"] if status is not None else ""

        assert log(60) == b"True\n"
        wait_for(lambda: len(scalars(served.folder / "run").get("value", ())) == 1000, "the server to have it")
        served.quota(True)
        assert log(60) == b"True\n", "it is in the file, as far as anybody can see"
        assert "quota exceeded" in wait_for(error, "the server to refuse it")
        assert log(0.5) == b"False\n", "more is not written before"
        assert len(scalars(served.folder / "run")["value"]) == 1000
        served.quota(False)
        assert log(60) == b"True\n"
        wait_for(lambda: not error(), "it to be well again")
        script.stdin.close()
        assert script.wait() == 0
        steps = [step for step, _ in scalars(served.folder / "run")["value"]]
        assert steps == list(range(1, 4001)) and len(event_files(served.folder / "run")) == 1
    account("close_quota", 1, Verdict(accepted=4000, written=len(steps)))


def test_a_server_that_says_with_close_that_the_quota_is_reached_is_asked_again(tmp_path: Path) -> None:
    with remote(tmp_path, hosts=1, cache=0) as served, writers(served) as (host,):
        host.log(*range(100))
        host.writer.write()
        served.quota(True, "close")
        host.writer.park()
        assert "quota exceeded" in host.writer.error and host.writer.dirty
        host.writer.sync()
        assert "quota exceeded" in host.writer.error
        served.quota(False, "close")
        host.writer.sync()
        assert not host.writer.error and not host.writer.dirty
        host.log(*range(100, 200))
        host.writer.write()
        assert not host.writer.error
        host.writer.sync()
        assert held(served.folder / "run") == points(200)
    account("close_quota", 1, Verdict(accepted=200, written=200))


def test_what_is_kept_for_a_server_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_file, "KEPT_BYTES", 10_000)
    with remote(tmp_path, hosts=1, cache=0) as served, writers(served) as (host,):
        for part in range(20):
            host.log(*range(100 * part, 100 * part + 100))
            host.writer.write()
            opened = host.writer.file
            assert opened is not None and opened._kept is not None and len(opened._kept) < 20_000
        assert opened.size > 40_000 and opened.dirty
        host.writer.sync()
        assert not opened._kept
    here = EventFile(tmp_path / "events.out.tfevents.1.h.1.0")
    here.write(b"whole")
    assert here._kept is None, "on a disk of this host the system has it"
    here.close()


def test_each_row_of_the_table_of_faults_is_injected_by_a_test() -> None:
    tests = [path.read_text() for path in Path(__file__).parent.glob("test_*.py")]
    assert not [row for row in ROWS if not any(f'"{row}"' in text for text in tests)]
