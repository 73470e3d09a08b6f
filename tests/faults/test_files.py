"""Event files cut, zeroed, flipped, removed, replaced; what is planted in folders; journals of other versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness import World, events, scalars, wait_for
from inject import NOBODY, say_go, told, train
from numbered import value_of
from oracle import Count, Verdict, judge, read_count
from report import account
from tb import LOADERS, board
from tbxd.tfevents import schema
from tbxd.tfevents.tfrecord import DamagedFile, read_records
from tbxd_client.journal.journal_files import CONTROL_NAME, MAGIC, journals
from tbxd_client.logdir.event_names import event_files

RECORDS = 30
FORKS = """
import os, sys
sys.path.insert(0, sys.argv[1])
from numbered import log_record
from tbxd_client import SummaryWriter
writers = [SummaryWriter(f"logs/{number}") for number in range(int(sys.argv[2]))]
for number, writer in enumerate(writers):
    if os.fork() == 0:
        for n in range(int(sys.argv[3])):
            log_record(writer, number, n, mixed=False)
        os._exit(0)
    assert os.wait()[1] == 0
"""


def up_to_damage(folder: Path) -> Iterator[Any]:
    """The events of a folder as a reader with checksums sees them: a file ends where it is damaged."""
    for name in event_files(folder):
        with open(folder / name, "rb") as file:
            try:
                for _, data in read_records(file.read):
                    event = schema.Event()
                    event.ParseFromString(data)
                    yield event
            except DamagedFile:
                pass


def written_but_not_released(place: World, runs: int) -> None:
    """So many runs whose records are in their files, and still in journals: daemon and trainers died in between."""
    made = place.run(FORKS, Path(__file__).parent, runs, RECORDS, environ={"TBXD_ADDRESS": NOBODY}, timeout=120)
    assert made.returncode == 0, made.stderr
    assert len(place.journals()) == runs
    kept = place.root / "kept"
    shutil.copytree(place.spool, kept)
    place.serve()
    wait_for(place.drained, "the journals")
    place.kill_daemon()
    shutil.rmtree(place.spool)
    kept.rename(place.spool)


def repair_and_judge(place: World, runs: int, row: str = "torn") -> None:
    before = {path: path.read_bytes() for path in place.logdir.rglob("*tfevents*")}
    place.serve()
    wait_for(place.drained, "the journals")
    counts = {number: Count(RECORDS, True) for number in range(runs)}
    account(row, runs, judge([place.logdir / str(number) for number in range(runs)], counts, up_to_damage))
    assert all(path.read_bytes() == data for path, data in before.items()), "a torn file is left as it is"


def shown_whole(place: World, runs: int) -> None:
    """TensorBoard shows every record of every run once, with its value, in both loaders."""
    for loader in LOADERS:
        with board(place.logdir, loader) as shown:
            for number in range(runs):
                points = shown.until(
                    lambda shown=shown, number=number: (
                        (found := shown.scalars(str(number), f"scalar/{number}")) and len(found) >= RECORDS and found
                    ),
                    f"run {number} ({loader})",
                )
                right = [(step, value_of(number, step)) for step in range(RECORDS)]
                assert points == right, f"run {number} ({loader})"


def file_of(place: World, number: int) -> Path:
    (name,) = event_files(place.logdir / str(number))
    return place.logdir / str(number) / name


def last_records(path: Path) -> list[int]:
    """Return the ends of a file's records."""
    with open(path, "rb") as file:
        return [end for end, _ in read_records(file.read)]


def test_a_file_cut_at_any_byte_of_its_last_record_is_gone_on_with_in_a_new_one(place: World) -> None:
    runs = 70
    written_but_not_released(place, runs)
    sizes = set()
    for number in range(runs):
        path = file_of(place, number)
        *_, begin, end = last_records(path)
        cut = begin + number * (end - begin) // (runs - 1)
        os.truncate(path, cut)
        sizes.add(end - cut)
    assert {0, 1} <= sizes and len(sizes) > 40
    repair_and_judge(place, runs)
    for number in range(runs):
        assert list(events(place.logdir / str(number))), "and a strict reader agrees"
    shown_whole(place, runs)


def test_zeroed_tails_and_flipped_bits_cost_nothing_that_a_journal_still_has(place: World) -> None:
    """As a machine leaves them that crashed in the middle of a write; what stands before the damage is not repeated."""
    runs = 40
    written_but_not_released(place, runs)
    for number in range(runs):
        path = file_of(place, number)
        ends = last_records(path)
        data = bytearray(path.read_bytes())
        if number < runs // 2:  # zeros from somewhere in the last five records on, and some pages more
            start = ends[-6] + number * (ends[-1] - ends[-6]) // (runs // 2)
            data[start:] = bytes(len(data) - start + 4096 * (number % 3))
        else:
            data[ends[-8] + 3 * (number - runs // 2)] ^= 1 << number % 8
        path.write_bytes(data)
    repair_and_judge(place, runs)
    shown_whole(place, runs)


def _status(place: World, folder: Path) -> Any:
    status = place.status()
    return status and status["runs"].get(str(folder))


def remove(folder: Path, file: Path) -> None:
    shutil.rmtree(folder)


def rename(folder: Path, file: Path) -> None:
    folder.rename(folder.with_name("moved"))


def link_the_file(folder: Path, file: Path) -> None:
    victim = folder.with_name("victim")
    victim.write_bytes(b"theirs")
    file.unlink()
    file.symlink_to(victim)


def cut_the_file(folder: Path, file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def empty_the_file(folder: Path, file: Path) -> None:
    os.truncate(file, 0)


def append_to_the_file(folder: Path, file: Path) -> None:
    with open(file, "ab") as end:
        end.write(b"garbage")


MEDDLING = [remove, rename, link_the_file, cut_the_file, empty_the_file, append_to_the_file]
SHORT = (rename, cut_the_file)


@pytest.mark.parametrize(
    "meddle",
    [pytest.param(one, marks=[] if one in SHORT else [pytest.mark.matrix]) for one in MEDDLING],
    ids=lambda one: one.__name__,
)
def test_somebody_who_meddles_with_the_log_folder_costs_what_he_took_and_it_is_counted(
    place: World, meddle: Any
) -> None:
    folder = place.logdir / "a"
    place.serve()
    trainer = train(place, 0, "logs/a", count=6000, hz=2000, pause=3000, wait=True, flush=60, mixed=False)
    wait_for(lambda: (_status(place, folder) or {}).get("written", 0) > 500, "the run to be written")
    meddle(folder, folder / _status(place, folder)["file"])
    say_go(trainer)  # what comes next finds out
    wait_for(lambda: read_count(place, 0).ended, "the trainer to end")
    say_go(trainer)
    told(trainer)
    assert told(trainer)["flushed"]
    status = _status(place, folder)
    assert trainer.wait(60) == 0
    wait_for(place.drained, "the journal")
    if meddle is link_the_file:
        assert (place.logdir / "victim").read_bytes() == b"theirs", "what is not ours is not touched"
    for link in folder.iterdir():
        if link.is_symlink():
            link.unlink()  # what it points to is nobody's event file
    counts = {0: read_count(place, 0)}
    # What is in a folder that was renamed is not lost.
    folders = [folder, *filter(Path.is_dir, [folder.with_name("moved")])]
    there = judge(folders, counts, up_to_damage, dropped=status["dropped"].get("file_lost", 0))
    assert status["accepted"] == status["written"] + sum(status["dropped"].values()), status
    account("folder", 1, there)


def replace_by_a_link(folder: Path, elsewhere: Path) -> Path:
    """Put a link to another folder in a folder's place; returns where it has gone."""
    elsewhere.mkdir(exist_ok=True)
    (elsewhere / folder.name).mkdir(exist_ok=True)
    moved = folder.with_name(folder.name + ".moved")
    if folder.exists():
        folder.rename(moved)
    folder.symlink_to(elsewhere)
    return moved


@pytest.mark.parametrize("what", ["the folder", "the one above"])
@pytest.mark.parametrize("when", ["before it is opened", "while it is open", "while nothing comes"])
def test_a_log_folder_that_has_become_a_link_is_not_followed_and_its_records_wait(
    place: World, when: str, what: str
) -> None:
    folder, elsewhere = place.logdir / "above" / "a", place.root / "elsewhere"
    link = folder if what == "the folder" else folder.parent
    if when != "before it is opened":
        place.serve()
    environ = {} if when != "before it is opened" else {"TBXD_ADDRESS": f"ipc://{place.runtime}/daemon.sock"}
    options: dict[str, Any] = {"count": 3000, "hz": 1500, "wait": True, "flush": 60, "pause": 500, "environ": environ}
    trainer = train(place, 0, "logs/above/a", **options)
    wait_for(lambda: read_count(place, 0).returned == 500, "the trainer to log")
    if when != "before it is opened":
        wait_for(lambda: (_status(place, folder) or {}).get("written") == 500, "the run to be written")
        if when == "while nothing comes":
            wait_for(lambda: not any("tfevents" in name for name in opened(place)), "its files to be given back", 30)
    moved = replace_by_a_link(link, elsewhere)
    if when == "before it is opened":
        place.serve()
    say_go(trainer)
    wait_for(lambda: read_count(place, 0).ended, "the trainer to end")
    found = wait_for(
        lambda: (now := _status(place, folder)) and "is a link now" in now["error"] and now, "the run to say so"
    )
    assert found["pending"], found
    assert sorted(path.name for path in elsewhere.rglob("*")) == [link.name], "nothing is made where it leads"
    link.unlink()
    if moved.exists():
        moved.rename(link)
    told(trainer)
    say_go(trainer)
    assert told(trainer)["flushed"]
    assert trainer.wait(60) == 0
    account("folder", 1, judge([folder], {0: read_count(place, 0)}))


def opened(place: World) -> list[str]:
    """The files that the daemon has open."""
    return [item.path for item in psutil.Process(place.running()).open_files()]


def test_a_log_folder_behind_links_is_written_where_they_lead(place: World) -> None:
    """They are followed once, when the writer is made."""
    real = place.root / "big disk" / "runs"
    real.mkdir(parents=True)
    place.logdir.symlink_to(real)
    (real / "b").mkdir()
    (real / "a").symlink_to("b")
    place.serve()
    trainer = train(place, 0, "logs/a", count=1000, hz=3000, flush=60)
    assert trainer.wait(60) == 0
    other = train(place, 1, "logs/c/d", count=100, flush=60)
    assert other.wait(60) == 0
    judge([real / "b"], {0: read_count(place, 0)}).assert_clean()
    judge([real / "c" / "d"], {1: read_count(place, 1)}).assert_clean()


def test_what_is_planted_in_a_log_folder_or_in_the_spool_is_not_followed(place: World) -> None:
    folder = place.logdir / "a"
    folder.mkdir(parents=True)
    victim = place.root / "victim"
    victim.write_bytes(b"theirs")
    os.mkfifo(folder / "events.out.tfevents.9000000001.fifo")
    (folder / "events.out.tfevents.9000000002.link").symlink_to(victim)
    (folder / "events.out.tfevents.9000000003.device").symlink_to("/dev/zero")
    (folder / "events.out.tfevents.9000000004.folder").mkdir()
    (folder / "events.out.tfevents.9000000005.loop").symlink_to("events.out.tfevents.9000000005.loop")
    (folder / "events.out.tfevents.9000000006.garbage").write_bytes(os.urandom(10_000))
    os.mknod(folder / "events.out.tfevents.9000000007.zero", 0o600 | 0o020000, os.makedev(1, 5))
    place.spool.mkdir(mode=0o700)
    for number, plant in enumerate(("link", "fifo", "file", "empty", "zero control")):
        path = place.spool / f"{number:024x}"
        if plant == "link":
            path.symlink_to("/")
        elif plant == "fifo":
            os.mkfifo(path)
        elif plant == "file":
            path.write_bytes(b"x")
        else:
            path.mkdir()
            if plant == "zero control":
                (path / CONTROL_NAME).symlink_to("/dev/zero")
    names = list(folder.iterdir())
    planted = len(names) + len(list(place.spool.iterdir()))
    place.serve()
    trainer = train(place, 0, "logs/a", count=1000, hz=3000, flush=60)
    assert trainer.wait(60) == 0
    assert victim.read_bytes() == b"theirs"
    for path in names:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    account("planted", planted, judge([folder], {0: read_count(place, 0)}))
    assert not place.root.joinpath("bin").exists() and victim.read_bytes() == b"theirs"


@pytest.mark.parametrize("other", ["older", "newer", "a boot ago"])
def test_a_journal_of_another_version_is_read_or_kept_and_said(place: World, other: str) -> None:
    """An upgrade, or a step back, with journals pending. What is refused stays where it is, with a message."""
    trainer = train(place, 0, "logs/a", count=1000, end="os._exit", environ={"TBXD_ADDRESS": NOBODY})
    assert trainer.wait(60) == 9
    (path,) = journals(place.spool)
    control = path / CONTROL_NAME
    page = bytearray(control.read_bytes())
    if other == "a boot ago":  # then it was synced or not; nothing of it was
        page[24:40] = bytes(15) + b"\1"
    else:
        page[: len(MAGIC)] = b"tbxdjnl0" if other == "older" else b"tbxdjnl9"
    control.write_bytes(page)
    before = {entry.name: entry.read_bytes() for entry in path.iterdir()}
    log = place.root / "daemon.log"
    with open(log, "wb") as stderr:
        place.processes.append(
            subprocess.Popen([sys.executable, "-m", "tbxd", "serve"], env=place.environ, stderr=stderr)
        )
    wait_for(place.running, "the daemon")
    if other == "a boot ago":
        wait_for(place.drained, "the journal")
        status = place.status()
        assert status is not None and status["lost_bytes_at_crash"] > 0
        account("upgrade", 1)
        return
    wait_for(lambda: b"cannot adopt" in log.read_bytes(), "a message")
    assert str(path) in log.read_text() and "tbxdjnl" in log.read_text()
    alive = train(place, 1, "logs/a", count=1000, hz=3000, flush=60)
    assert alive.wait(60) == 0
    assert {entry.name: entry.read_bytes() for entry in path.iterdir()} == before, "it is kept as it is"
    account("upgrade", 1, judge([place.logdir / "a"], {1: read_count(place, 1)}))
    # The version that knows it comes back.
    place.kill_daemon()
    page[: len(MAGIC)] = MAGIC
    control.write_bytes(page)
    place.serve()
    wait_for(place.drained, "the journal")
    counts = {number: read_count(place, number) for number in (0, 1)}
    account("upgrade", 1, judge([place.logdir / "a"], counts))


def test_definitions_and_records_of_a_later_version_are_passed_over_and_counted(place: World) -> None:
    """A client that is newer than its daemon: unknown keys, unknown definitions, a kind of record that is not known."""
    result = place.run(
        """
        import msgpack
        from tbxd_client import SummaryWriter
        from tbxd_client.session.session import current
        from tbxd_client.protocol.records import pack_record_head
        writer = SummaryWriter("logs/a")
        writer.add_scalar("scalar/0", 1.0, 0)
        session = current()
        tag = session._numbers["tag"]
        session.journal.define(msgpack.packb({"k": "new kind", "id": 0, "x": [1, 2]}))
        session.journal.define(msgpack.packb({"k": "tag", "id": tag, "run": 0, "tag": "future", "unit": "m"}))
        session.journal.append(pack_record_head(100, tag, 0, 0.0, {"new": 1}, 3), b"abc")
        writer.add_scalar("scalar/0", 2.0, 1)
        assert writer.flush(60)
        """
    )
    assert result.returncode == 0, result.stderr
    assert scalars(place.logdir / "a")["scalar/0"] == [(0, 1.0), (1, 2.0)]
    status = _status(place, place.logdir / "a")
    assert status["dropped"] == {"unknown_kind": 1} and status["written"] == 2
    account("upgrade", 1, Verdict(accepted=3, written=2, dropped=1))
