"""The lock of a log folder: one daemon of a user at a time, whoever else may read or write the folder."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness import World, scalars, wait_for, world
from tbxd.tfevents.event_file import EventFile, FileLost
from tbxd_client.logdir.folder_lock import FolderHeld, is_held, lock_folder

OTHER = 1_000_000_000 + os.getpid()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path / "world") as result:
        yield result


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def other_user(does: Callable[[], Any]) -> Iterator[None]:
    """Another user has done something, and lives meanwhile."""
    if os.getuid():
        pytest.skip("only root can be two users")
    told, tell = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.closerange(3, tell)  # locks belong to open files, which the child would share
            os.closerange(tell + 1, 1024)
            os.setgroups([])
            os.setgid(OTHER)
            os.setuid(OTHER)
            kept = does()
            os.write(tell, b"ready")
            signal.pause()
            del kept
        except BaseException as error:
            os.write(tell, repr(error).encode())
        finally:
            os._exit(1)
    try:
        said = os.read(told, 1000)
        assert said == b"ready", said
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(told)
        os.close(tell)


def open_to_all(folder: Path) -> None:
    """Let other users come to a folder."""
    for above in (folder, *folder.parents):
        if above in (Path("/"), Path("/tmp"), Path("/var")):
            break
        above.chmod(above.stat().st_mode | 0o055)


class Holder:
    """A daemon's hold on a folder: its descriptor, locked, and the event file that it writes."""

    def __init__(self, folder: Path, number: int = 1) -> None:
        self.fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self.file: EventFile | None = None
        try:
            lock_folder(self.fd)
            self.file = EventFile(folder / f"events.out.tfevents.{number:010d}.host.1.0", self.fd)
        except OSError:
            os.close(self.fd)
            raise

    def end(self) -> None:
        assert self.file is not None
        self.file.close()
        os.close(self.fd)


def test_one_holds_a_folder_and_leaves_nothing_in_it(tmp_path: Path) -> None:
    holder = Holder(tmp_path)
    assert is_held(tmp_path)
    for _ in range(2):
        with pytest.raises(FolderHeld, match="another tbxd daemon"):
            Holder(tmp_path, 2)
    assert len(list(tmp_path.iterdir())) == 1, "the event file, and nothing else"
    holder.end()
    assert not is_held(tmp_path)
    Holder(tmp_path, 2).end()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_daemon_of_before_and_one_of_now_exclude_each_other(tmp_path: Path) -> None:
    with opened(tmp_path) as before:
        fcntl.flock(before, fcntl.LOCK_EX)
        assert is_held(tmp_path)
        with pytest.raises(FolderHeld):
            Holder(tmp_path)
        assert not list(tmp_path.iterdir())
        fcntl.flock(before, fcntl.LOCK_UN)
        holder = Holder(tmp_path)
        with pytest.raises(BlockingIOError):
            fcntl.flock(before, fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder.end()


@pytest.mark.parametrize("how", [fcntl.LOCK_EX, fcntl.LOCK_SH])
def test_another_user_who_locks_the_folder_keeps_nobody_away_and_lets_no_two_in(tmp_path: Path, how: int) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o755)
    open_to_all(folder)

    def lock_it() -> Any:
        fcntl.flock(os.open(folder, os.O_RDONLY), how)

    with other_user(lock_it), opened(folder) as fd:
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert not is_held(folder)
        holder = Holder(folder)
        assert is_held(folder)
        with pytest.raises(FolderHeld):
            Holder(folder, 2)
        holder.end()
        assert not is_held(folder)


def test_another_user_who_locks_the_event_file_keeps_nobody_from_going_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o755)
    open_to_all(folder)
    holder = Holder(folder)
    assert holder.file is not None
    holder.file.write(b"whole")
    holder.file.park()
    path = holder.file.path

    def lock_it() -> Any:
        fd = os.open(path, os.O_RDONLY)
        fcntl.lockf(fd, fcntl.LOCK_SH)
        with pytest.raises(OSError, match="denied"):
            os.open(path, os.O_WRONLY)
        return fd

    with other_user(lock_it):
        with pytest.raises(FileLost, match="locked by somebody else"):
            holder.file.write(b"more")
        holder.end()
        assert not is_held(folder)
        again = Holder(folder, 2)  # another file, which he cannot lock
        assert again.file is not None
        again.file.write(b"more")
        with pytest.raises(FolderHeld):
            Holder(folder, 3)
        again.end()


def test_two_daemons_of_one_user_write_a_folder_one_after_the_other(place: World, tmp_path: Path) -> None:
    script = """
        import os, sys, time
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        step = int(sys.argv[1])
        while step < int(sys.argv[1]) + 100 or sys.argv[2] and not os.path.exists(sys.argv[2]):
            writer.add_scalar("loss", step, step)
            step += 1
            time.sleep(0.02)
        """
    folder = place.logdir / "a"
    first = place.start(script, 0, "enough")
    wait_for(lambda: scalars(folder), "the first to write")
    assert is_held(folder)
    with world(tmp_path / "other") as other:
        second = place.start(script, 1_000_000, "", environ=other.environ)

        def error() -> str:
            status = other.status()
            return status["runs"].get(str(folder), {}).get("error", "") if status is not None else ""

        assert wait_for(error, "the second to be told") == "another tbxd daemon is writing this folder"
        (place.root / "enough").touch()
        assert first.wait() == second.wait() == 0
        wait_for(lambda: place.drained() and other.drained(), "both to be done")
    steps = [step for step, _ in scalars(folder)["loss"]]
    assert steps == sorted(set(steps)) and steps[-100:] == list(range(1_000_000, 1_000_100))
