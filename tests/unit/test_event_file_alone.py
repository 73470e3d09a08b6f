"""An event file whose disk fails, and which others touch: whole records, whatever happens."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tbxd.tfevents import event_file as file_module
from tbxd.tfevents.event_file import EventFile, FileLost, open_to_read
from tbxd.tfevents.trust import own


@pytest.fixture
def made(tmp_path: Path) -> Iterator[EventFile]:
    file = EventFile(tmp_path / "events.out.tfevents.1.host.1.0")
    yield file
    file.close()


class Short:
    """A disk that takes so many bytes and then says why it takes no more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        self.error = errno.ENOSPC
        write = os.write

        def short(fd: int, data: bytes) -> int:
            if self.left is None:
                return write(fd, data)
            if not self.left:
                raise OSError(self.error, os.strerror(self.error))
            written = write(fd, data[: self.left])
            self.left -= written
            return written

        monkeypatch.setattr(os, "write", short)


def test_what_a_full_disk_takes_in_part_is_gone_on_with(made: EventFile, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Short(monkeypatch)
    made.write(b"a" * 10)
    for taken in (3, 4):
        disk.left = taken
        with pytest.raises(OSError, match="No space"):
            made.write(b"b" * 10)
        assert made.pending
    disk.left = None
    made.park()
    assert made.number >= 0, "it may not be parked while a part is owed"
    made.write(b"c")
    assert not made.pending
    assert made.path.read_bytes() == b"a" * 10 + b"b" * 20 + b"c" and made.size == 31


def test_a_file_that_may_grow_no_further_is_left_where_it_is_worth_it(
    made: EventFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Short(monkeypatch)
    disk.error, disk.left = errno.EFBIG, 0
    with pytest.raises(OSError, match="too large") as small:
        made.write(b"a")
    assert not isinstance(small.value, FileLost)
    monkeypatch.setattr(file_module, "WORTH_BYTES", 0)
    with pytest.raises(FileLost, match="may not grow"):
        made.write(b"")


@pytest.mark.parametrize(
    "touch",
    [
        lambda path: path.write_bytes(b"cut"),
        lambda path: os.truncate(path, 3),
        lambda path: path.open("ab").write(b"more"),
        lambda path: path.unlink(),
        lambda path: (path.rename(path.with_name("other")), path.write_bytes(b"0123456789")),
        lambda path: (path.rename(path.with_name("other")), path.symlink_to(path.with_name("other"))),
    ],
    ids=["written", "cut", "longer", "removed", "replaced", "linked"],
)
@pytest.mark.parametrize("parked", [False, True])
def test_a_file_that_somebody_has_touched_is_left(
    parked: bool, touch: Callable[[Path], object], made: EventFile
) -> None:
    made.write(b"0123456789")
    if parked:
        made.park()
    touch(made.path)
    with pytest.raises(FileLost):
        made.write(b"x")


def test_a_parked_file_is_appended_to_and_locked_again(made: EventFile, tmp_path: Path) -> None:
    made.write(b"first")
    made.park()
    assert made.number == -1
    made.write(b"second")
    assert made.path.read_bytes() == b"firstsecond"
    made.park()
    other = os.open(made.path, os.O_WRONLY)
    assert file_module.lock_file(other) == 0
    with pytest.raises(FileLost, match="locked"):
        made.take()
    os.close(other)


class Syncs:
    """Notes what is synced and stored again; fails where it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fails = 0
        self.synced: list[str] = []
        self.again: list[tuple[int, int]] = []
        fdatasync, fsync, store_again = os.fdatasync, os.fsync, file_module.store_again

        def sync(fd: int) -> None:
            if self.fails:
                raise OSError(self.fails, os.strerror(self.fails))
            self.synced.append("data")
            fdatasync(fd)

        def sync_name(file: object) -> None:
            self.synced.append("name")
            fsync(file)  # type: ignore[arg-type]

        def store(
            path: Path, folder: int | None, identity: tuple[int, int], begin: int, end: int, kept: object
        ) -> None:
            self.again.append((begin, end))
            store_again(path, folder, identity, begin, end, kept)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "fdatasync", sync)
        monkeypatch.setattr(os, "fsync", sync_name)
        monkeypatch.setattr(file_module, "store_again", store)


def test_what_a_sync_that_failed_may_have_left_is_stored_again_and_nothing_else(
    made: EventFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Syncs(monkeypatch)
    made.write(b"a" * 10)
    made.sync()
    assert disk.synced == ["data", "name"] and not made.dirty
    made.sync()
    assert disk.synced == ["data", "name"], "nothing is new"
    made.write(b"b" * 10)
    disk.fails = errno.EIO
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            made.sync()
        assert made.dirty
    disk.fails = 0
    made.sync()
    assert disk.again == [(10, 20)] * 2, "before the second attempt and the third"
    assert disk.synced == ["data", "name", "data"] and not made.dirty
    made.write(b"c")
    made.sync()
    assert len(disk.again) == 2 and made.path.read_bytes() == b"a" * 10 + b"b" * 10 + b"c"


@pytest.mark.parametrize("number", sorted(file_module.NO_SYNC))
def test_a_file_system_that_has_no_sync_holds_nobody_up(
    number: int, made: EventFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Syncs(monkeypatch)
    disk.fails = number
    made.write(b"a")
    made.sync()
    assert not made.dirty


def test_what_a_disk_says_with_close_it_is_given_again(made: EventFile, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Syncs(monkeypatch)
    made.write(b"a" * 10)
    made.sync()
    made.write(b"b" * 10)
    made.sync()
    close, number = os.close, made.number

    def refuse(fd: int) -> None:
        close(fd)
        if fd == number:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "close", refuse)
    with pytest.raises(OSError, match="quota"):
        made.park()
    monkeypatch.setattr(os, "close", close)
    assert made.number == -1 and made.dirty
    made.sync()
    assert disk.again == [(20, 20)] and not made.dirty


def test_what_is_no_file_of_this_user_is_not_read(tmp_path: Path) -> None:
    fifo, link, folder, plain = (tmp_path / name for name in ("fifo", "link", "folder", "plain"))
    os.mkfifo(fifo)
    folder.mkdir()
    plain.write_bytes(b"x")
    link.symlink_to(plain)
    assert [open_to_read(path, None, own()) for path in (fifo, link, folder, tmp_path / "none")] == [-1] * 4
    assert [open_to_read(path) for path in (fifo, folder)] == [-1] * 2
    fd = open_to_read(plain, None, own())
    assert os.read(fd, 2) == b"x"
    os.close(fd)
