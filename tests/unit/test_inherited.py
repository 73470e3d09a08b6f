"""What another process has written to a folder lately is brought onto the disk by whoever takes it for written."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tbxd.runs.run_writer import RunWriter
from tbxd.tfevents import inherited
from tbxd_client.logdir.event_names import event_files
from test_run import SESSIONS, batches

LOGGED = [(2, False, "")] * 10


class Disk:
    """Notes what is synced and stored again, in order, and refuses the first syncs that it is to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refuse: str = "") -> None:
        self.calls: list[tuple[str, str]] = []
        self.seen: list[list[str]] = []  # the event files that are beside what is synced, or in it
        self.refuse = refuse
        for name in ("fdatasync", "fsync", "pwrite"):
            monkeypatch.setattr(os, name, self._instead(name, getattr(os, name)))

    def _instead(self, name: str, call: Callable[..., object]) -> Callable[..., object]:
        def instead(fd: Any, *arguments: object) -> object:
            path = Path(f"/proc/self/fd/{fd if isinstance(fd, int) else fd.fileno()}").readlink()
            self.calls.append((name, path.name))
            self.seen.append(event_files(path if path.is_dir() else path.parent))
            if self.refuse and name == "fdatasync" and path.name == self.refuse:
                self.refuse = ""
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return call(fd, *arguments)

        return instead


def left_behind(folder: Path) -> str:
    """A daemon writes, and is killed before it syncs; returns its event file."""
    writer = RunWriter(folder, lambda batch: None)
    for batch in batches(folder, SESSIONS[0], LOGGED, 4096):
        writer.offer(batch)
    writer.write()
    assert not writer.error and writer.dirty
    for fd in (writer.file._fd, writer.files.folder.descriptor):  # type: ignore[union-attr]
        os.close(fd)
    return event_files(folder)[-1]


def next_one(folder: Path, durable: bool = False) -> tuple[RunWriter, list[bytes]]:
    """Who comes next, and has another session to write."""
    done: list[bytes] = []
    writer = RunWriter(folder, lambda batch: done.append(batch.session), durable)
    for batch in batches(folder, SESSIONS[1], LOGGED, 4096):
        writer.offer(batch)
    return writer, done


def test_the_file_of_a_killed_daemon_is_on_the_disk_before_another_says_what_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "made" / "for" / "run"
    old = left_behind(folder)
    disk = Disk(monkeypatch)
    writer, done = next_one(folder)
    writer.write()
    assert done and disk.calls == [("fdatasync", old), ("fsync", folder.name)], "and its name"
    assert disk.seen == [[old], [old]], "before there is another"
    writer.sync()
    names = [name for _, name in disk.calls]
    assert names.index("made") < names.index(writer.name), "what was made above it, too"
    assert {"for", "run", tmp_path.name} <= set(names) and not writer.dirty
    before = len(disk.calls)
    for batch in batches(folder, SESSIONS[1], LOGGED * 2, 4096):
        writer.offer(batch)
    writer.write()
    writer.sync()
    assert disk.calls[before:] == [("fdatasync", writer.name)], "once"
    writer.close()


def test_a_file_that_the_disk_does_not_take_holds_the_run_up_and_is_stored_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    old = left_behind(folder)
    content = (folder / old).read_bytes()
    disk = Disk(monkeypatch, refuse=old)
    writer, done = next_one(folder, durable=True)
    writer.write()
    assert not done and writer.error == "fsync: Input/output error"
    assert event_files(folder) == [old], "nothing says that it is written"
    disk.calls.clear()
    writer.write()
    assert done and not writer.error
    assert disk.calls[:3] == [("pwrite", old), ("fdatasync", old), ("fsync", folder.name)]
    assert (folder / old).read_bytes() == content
    writer.close()


def test_what_was_written_long_ago_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    old = left_behind(folder)
    past = time.time() - 2 * inherited.LATELY_SECONDS
    os.utime(folder / old, (past, past))
    disk = Disk(monkeypatch)
    writer, done = next_one(folder)
    writer.write()
    assert done and not disk.calls
    writer.close()


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_cannot_sync_holds_no_run_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    folder = tmp_path / "run"
    left_behind(folder)
    writer, done = next_one(folder)

    def refused(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fdatasync", refused)
    writer.write()
    writer.sync()
    assert done == [SESSIONS[1]] and not writer.error and not writer.dirty
    # What a server may throw away, where the sync before is said to have failed, would be stored before all else.
    monkeypatch.setattr(writer.file, "_kept", bytearray())
    writer.offer(next(iter(batches(folder, SESSIONS[0], LOGGED * 2, 4096))))
    writer.sync()
    writer.write()
    writer.sync()
    assert len(done) == 2 and not writer.error
    writer.close()


def test_a_file_that_is_synced_by_who_may_write_it_alone_is_opened_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SMB servers, and systems that do not look for a descriptor for writing of their own."""
    folder = tmp_path / "run"
    old, synced = left_behind(folder), []
    writer, done = next_one(folder)
    sync = os.fdatasync

    def to_write(fd: int) -> None:
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", to_write)
    writer.write()
    assert done and not writer.error and synced == [old]
    writer.close()
