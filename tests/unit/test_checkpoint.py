"""A daemon that comes next reads only what is new, and writes what it would have written had it read everything."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import one_by_one
from amount import examples
from one_by_one import read_events
from ranks_world import Daemon, Rank
from tbxd.reduce import tag_membership as rank_tags
from tbxd.tfevents import checkpoint
from tbxd.tfevents.checkpoint import Checkpoints
from tbxd.tfevents.contents import Contents
from tbxd_client.logdir.event_names import event_files
from tbxd_client.protocol.kinds import RESTART
from tbxd_client.protocol.records import TagDefinition, pack_scalar, pack_text_record

NOW = 1e6  # wall times of records are before it, those of the daemon's own events behind

TAGS = st.sampled_from(["loss", "accuracy", "lr"])
TROUBLE = st.sampled_from(["", "", "", "gone", "stale", "torn", "flipped", "cut", "copied", "edited", "foreign"])
calls = st.one_of(
    st.tuples(st.just("scalars"), st.integers(0, 3), st.lists(TAGS, min_size=1, max_size=3), st.integers(0, 60)),
    st.tuples(st.sampled_from(["text", "row", "count", "restart"]), st.integers(0, 3), TAGS, st.integers(0, 60)),
    st.tuples(st.just("join"), st.integers(0, 3), st.just(None), st.integers(0, 60)),
    st.tuples(st.just("write"), st.integers(0, 3), st.just(None), st.just(0)),
    st.tuples(st.just("park"), st.integers(0, 3), st.just(None), st.just(0)),
    st.tuples(st.just("kill"), st.integers(0, 3), TROUBLE, st.integers(0, 500)),
)


class Twin:
    """A run, its sessions and its daemons; ``keeps`` what checkpoints there are, or finds none at each start."""

    def __init__(self, folder: Path, world: int, keeps: bool) -> None:
        self.run, self.place, self.old = folder / "run", folder / "ledgers", folder / "old"
        self.world, self.keeps = world, keeps
        self.clock = 0.0
        self.starts = 0
        self.ranks: list[Rank] = []
        self.daemon = Daemon(self.run, self.ranks, seconds=0.0, checkpoints=Checkpoints(self.place))
        self.join(0)

    def join(self, ago: int) -> None:
        """All sessions end, and others begin."""
        self.settle()
        self.clock += 100
        self.ranks[:] = [
            Rank(self.run, rank, self.world, "job", self.starts, self.clock - ago) for rank in range(self.world)
        ]
        for rank in self.ranks:  # the same in both runs
            rank.id = hashlib.sha256(f"{self.starts}.{rank.rank}".encode()).digest()[:12]
        self.starts += 1
        self.daemon.kill()

    def log(self, kind: str, who: int, what: Any, step: int) -> None:
        rank = self.ranks[who % self.world]
        self.clock += 1
        match kind:
            case "scalars":
                for number in range(30):
                    for tag in what:
                        rank.scalar(tag, step + number, number, wall_time=self.clock)
            case "text":
                rank.text(f"{what}/text", step, "text")
            case "row":
                rank.row({what: 1.0, "other": 2.0}, step)
            case "count":
                number = rank.tags.get((what, "numbered"))
                if number is None:
                    number = rank.tags[what, "numbered"] = len(rank.tags)
                    rank.define(TagDefinition(number, 0, f"{what}/count", numbered=True))
                rank.add(pack_scalar(number, 0, self.clock, 1.0))
            case "restart":
                rank.add(pack_text_record(RESTART, rank.tag("loss"), step, self.clock, {}, None))

    def settle(self) -> None:
        for rank in self.ranks:
            self.daemon.feed(rank)
        self.daemon.write(3 if self.world > 1 else 1)

    def kill(self, trouble: str, number: int, other: int) -> None:
        """A daemon ends, what is found by the next one is not what it left, and that one begins."""
        self.daemon.writer.close()
        paths = [self.run / name for name in event_files(self.run)] if self.run.is_dir() else []
        if trouble == "cut" and paths:
            os.truncate(paths[-1], max(0, paths[-1].stat().st_size - number))
        elif trouble == "copied" and paths:
            path = paths[other % len(paths)]
            path.write_bytes(path.read_bytes()) if other % 2 else shutil.copy(path, path.with_name("new"))
            if not other % 2:
                path.with_name("new").rename(path)
        elif trouble == "edited" and paths:
            path = paths[other % len(paths)]
            before = path.stat().st_ctime_ns
            with path.open("r+b") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(number % max(1, size))
                byte = file.read(1)
                file.seek(number % max(1, size))
                file.write(bytes(255 - value for value in byte))
            while path.stat().st_ctime_ns == before:  # the clock of a file system has its own steps
                os.utime(path)
        elif trouble == "foreign" and paths:
            paths[0].with_name("a.tfevents." + str(number)).write_bytes(paths[0].read_bytes()[:number])
        if not self.keeps:
            shutil.rmtree(self.place, ignore_errors=True)
        elif self.place.is_dir():
            kept = sorted(self.place.iterdir())
            if trouble == "gone":
                shutil.rmtree(self.place)
            elif trouble == "stale" and self.old.is_dir():
                shutil.rmtree(self.place)
                self.old.rename(self.place)
            elif trouble == "torn" and kept:
                os.truncate(kept[0], max(0, kept[0].stat().st_size - 1 - number))
            elif trouble == "flipped" and kept:
                data = bytearray(kept[0].read_bytes())
                data[number % len(data)] ^= 1
                kept[0].write_bytes(data)
            if number % 2 and self.place.is_dir():
                shutil.rmtree(self.old, ignore_errors=True)
                shutil.copytree(self.place, self.old)
        self.daemon.begin()

    def written(self) -> dict[str, list[list[Any]]]:
        """What the files hold, but for the daemon's own clock."""
        result: dict[str, list[list[Any]]] = {}
        for folder in ("", "ranks", "ranks/min", "ranks/max"):
            path = self.run / folder
            for name in event_files(path) if path.is_dir() else ():
                events = []
                for event in read_events(path / name):
                    if event.wall_time > NOW:
                        event.wall_time = 0.0
                    events.append(event.SerializeToString(deterministic=True))
                result.setdefault(folder, []).append(events)
        return result


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints are made of little, and tags are decided at once."""
    monkeypatch.setattr(checkpoint, "BUSY_BYTES", 4000)
    monkeypatch.setattr(checkpoint, "IDLE_BYTES", 100)
    monkeypatch.setattr(checkpoint, "SHARE", 0)
    monkeypatch.setattr(checkpoint, "TIMES", 0.0)
    monkeypatch.setattr(checkpoint, "LAST_BYTES", 64)
    monkeypatch.setattr(rank_tags, "JOIN_SECONDS", 0.0)


@settings(max_examples=examples(100), deadline=None)
@given(world=st.sampled_from([1, 1, 2]), given_calls=st.lists(calls, max_size=25))
def test_with_a_checkpoint_or_without_the_same_is_written(
    tmp_path_factory: pytest.TempPathFactory, world: int, given_calls: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("twins")
    twins = [Twin(folder / name, world, name == "kept") for name in ("kept", "read")]
    for kind, who, what, step in given_calls:
        for twin in twins:
            if kind == "join":
                twin.join(step)
            elif kind == "write":
                twin.settle()
            elif kind == "park":
                twin.daemon.writer.park()
            elif kind == "kill":
                twin.kill(what, step, who)
            else:
                twin.log(kind, who, what, step)
    for twin in twins:
        twin.settle()
    kept, read = twins
    assert kept.written() == read.written()
    ledgers = [{rank.id: twin.daemon.writer.entry(rank.id) for rank in twin.ranks} for twin in twins]
    assert ledgers[0] == ledgers[1]


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Path, Checkpoints, Path]:
    """A run of two files, the checkpoints, and the one of the run."""
    run, checkpoints = tmp_path / "run", Checkpoints(tmp_path / "ledgers")
    for created in (1.0, 2.0):
        rank = Rank(run, 0, 1, created=created)
        daemon = Daemon(run, [rank], checkpoints=checkpoints)
        for step in range(300):
            rank.scalar("loss", step, step / 2)
        rank.histogram("weights", 3, np.arange(3.0))
        daemon.feed(rank)
        daemon.write()
        daemon.writer.close()
    (path,) = (tmp_path / "ledgers").iterdir()
    return run, checkpoints, path


def found(run: Path, checkpoints: Checkpoints) -> tuple[bool, int]:
    """Whether a checkpoint is taken, and how many bytes are read besides; what is known then is what the files say."""
    contents = Contents(run)
    loaded = checkpoints.load(contents)
    contents.update()
    one_by_one.check(contents)
    return loaded, contents.unsaved


def newest(run: Path) -> Path:
    return run / event_files(run)[-1]


def test_only_what_follows_a_checkpoint_is_read(kept: tuple[Path, Checkpoints, Path]) -> None:
    run, checkpoints, path = kept
    assert found(run, checkpoints) == (True, 0)
    assert path.stat().st_mode & 0o7777 == 0o600 and path.parent.stat().st_mode & 0o7777 == 0o700
    content = newest(run).read_bytes()
    first = event_files(run)[0]
    with newest(run).open("ab") as file:
        file.write((run / first).read_bytes()[:-1])
    loaded, read = found(run, checkpoints)
    assert loaded and 0 < read < (run / first).stat().st_size
    (run / f"{newest(run).name}.later").write_bytes(content)
    assert found(run, checkpoints) == (True, read + len(content))


TOUCHED = {
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1),
    "cut and gone on with": lambda path: (
        os.truncate(path, path.stat().st_size - 20),
        os.truncate(path, path.stat().st_size + 100),
    ),
    "edited": lambda path: edit(path, 0xFF),
    "edited to the same": lambda path: edit(path, 0),
    "replaced": lambda path: (path.with_name("new").write_bytes(path.read_bytes()), path.with_name("new").rename(path)),
    "open to everybody": lambda path: path.chmod(0o666),
    "open to everybody, and gone on with": lambda path: (path.chmod(0o666), edit(path, 0, b"more")),
    "removed": Path.unlink,
    "renamed": lambda path: path.rename(path.with_name(path.name + ".old")),
    "replaced by a link": lambda path: (path.rename(path.with_name("real")), path.symlink_to(path.with_name("real"))),
    "followed by one that was there before": lambda path: path.with_name(
        event_files(path.parent)[0] + ".a"
    ).write_bytes(path.read_bytes()),
}


def edit(path: Path, flip: int, more: bytes = b"") -> None:
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= flip
    with path.open("r+b") as file:
        file.write(data + more)
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("how", TOUCHED)
def test_where_a_file_is_not_what_it_was_everything_is_read(
    kept: tuple[Path, Checkpoints, Path], how: str, place: int
) -> None:
    run, checkpoints, _ = kept
    TOUCHED[how](run / event_files(run)[place])
    loaded, read = found(run, checkpoints)
    assert not loaded and read > 0


def test_a_folder_that_was_copied_or_put_in_place_of_another_is_read(
    kept: tuple[Path, Checkpoints, Path], tmp_path: Path
) -> None:
    run, checkpoints, path = kept
    shutil.copytree(run, tmp_path / "copy")
    assert not found(tmp_path / "copy", checkpoints)[0]
    state = (tmp_path / "copy").stat()
    shutil.copy(path, path.with_name(f"{state.st_dev:x}-{state.st_ino:x}"))  # as if it were that one's
    assert not found(tmp_path / "copy", checkpoints)[0]
    run.rename(tmp_path / "moved")
    assert found(tmp_path / "moved", checkpoints) == (True, 0)


def test_after_a_start_of_the_system_everything_is_read(
    kept: tuple[Path, Checkpoints, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a file says it holds may not have come to its disk."""
    run, checkpoints, _ = kept
    monkeypatch.setattr(checkpoint, "boot_id", lambda: b"another system..")
    assert not found(run, checkpoints)[0]


def test_a_checkpoint_that_is_torn_forged_or_of_another_version_is_none(kept: tuple[Path, Checkpoints, Path]) -> None:
    run, checkpoints, path = kept
    data = path.read_bytes()
    for length in [*range(0, len(data), 17), len(data) - 1]:
        path.write_bytes(data[:length])
        assert not found(run, checkpoints)[0], length
    for place in range(0, len(data), 13):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert not found(run, checkpoints)[0], place
    path.write_bytes(data + b"more")
    assert not found(run, checkpoints)[0]
    size = int.from_bytes(data[40:48], "little")
    head = json.loads(data[48 : 48 + size])
    for changed in ({}, [], None, {**head, "tags": 5}, {**head, "lengths": [9]}, {**head, "reader": {}}, {"boot": 1}):
        text = json.dumps(changed).encode()
        rest = len(text).to_bytes(8, "little") + text + data[48 + size :]
        path.write_bytes(data[:8] + hashlib.sha256(rest).digest() + rest)
        assert not found(run, checkpoints)[0], changed
    path.write_bytes(data)
    assert found(run, checkpoints)[0]


def test_what_is_not_this_users_own_is_no_place_for_checkpoints(
    kept: tuple[Path, Checkpoints, Path], tmp_path: Path
) -> None:
    run, checkpoints, path = kept
    real = tmp_path / "elsewhere"
    path.rename(real)
    path.symlink_to(real)
    assert not found(run, checkpoints)[0]
    path.unlink()
    os.mkfifo(path)
    assert not found(run, checkpoints)[0]
    path.unlink()
    path.mkdir()
    assert not found(run, checkpoints)[0]
    path.rmdir()
    path.parent.rename(tmp_path / "others")
    path.parent.symlink_to(tmp_path / "others")
    real.rename(path)
    assert not found(run, checkpoints)[0]


def test_a_checkpoint_of_another_user_is_none(
    kept: tuple[Path, Checkpoints, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, checkpoints, path = kept
    own, data = os.geteuid(), path.read_bytes()
    assert Checkpoints._read(path) == data
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: own + 1)
        assert Checkpoints._read(path) is None
    assert found(run, checkpoints)[0]


@pytest.mark.parametrize("place", [0, 1])
def test_where_one_of_several_older_files_was_touched_everything_is_read(tmp_path: Path, place: int) -> None:
    run, checkpoints = tmp_path / "run", Checkpoints(tmp_path / "ledgers")
    for created in (1.0, 2.0, 3.0):
        rank = Rank(run, 0, 1, created=created)
        daemon = Daemon(run, [rank], checkpoints=checkpoints)
        for step in range(300):
            rank.scalar("loss", step, step / 2)
        daemon.feed(rank)
        daemon.write()
        daemon.writer.close()
    assert found(run, checkpoints)[0] and len(event_files(run)) == 3
    edit(run / event_files(run)[place], 0)
    assert not found(run, checkpoints)[0]


@pytest.mark.parametrize("call", ["write", "rename", "open"])
def test_a_daemon_that_is_killed_or_fails_while_it_makes_one_leaves_the_one_before(
    kept: tuple[Path, Checkpoints, Path], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    run, checkpoints, path = kept
    before = path.read_bytes()
    rank = Rank(run, 0, 1, created=3.0)
    daemon = Daemon(run, [rank], checkpoints=checkpoints)
    for step in range(300):
        rank.scalar("loss", step, 1.0)
    daemon.feed(rank)

    def fails(*arguments: Any, **named: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        if call == "rename":
            patch.setattr(Path, "rename", fails)
        elif call == "open":
            patch.setattr(checkpoint, "private_dir", fails)
        else:
            patch.setattr(Checkpoints, "_write", fails)
        daemon.write()
        daemon.writer.close()
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]
    loaded, read = found(run, checkpoints)
    assert loaded and read > 0


def test_what_is_old_too_much_or_half_made_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "ledgers"
    place.mkdir()
    monkeypatch.setattr(checkpoint, "COUNT_MAX", 3)
    for number in range(6):
        (place / f"1-{number}").write_bytes(bytes(10))
        os.utime(place / f"1-{number}", (checkpoint.time.time() - number,) * 2)
    old = checkpoint.time.time() - checkpoint.AGE_SECONDS_MAX - 1
    os.utime(place / "1-0", (old, old))
    (place / ".new-1-7-1").touch()
    os.utime(place / ".new-1-7-1", (old, old))
    Checkpoints(place).sweep()
    assert sorted(path.name for path in place.iterdir()) == ["1-1", "1-2", "1-3"]
    monkeypatch.setattr(checkpoint, "BYTES_MAX", 15)
    Checkpoints(place).sweep()
    assert [path.name for path in place.iterdir()] == ["1-1"]
    Checkpoints(tmp_path / "none").sweep()
    Checkpoints().sweep()
