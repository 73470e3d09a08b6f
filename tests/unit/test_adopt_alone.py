"""Journals of dead trainers come in: a hub and its adopter in this process, the clock is the test's."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import scalars, wait_for
from tbxd.ingest import journal_recovery
from tbxd.ingest.journal_recovery import (
    DISK_SECONDS_MAX,
    DISK_SECONDS_MIN,
    DISK_TRIES_MAX,
    QUARANTINE,
    SCAN_SECONDS,
    UNFINISHED_SECONDS,
    Adopter,
)
from tbxd.ingest.recovery_order import last_stored
from tbxd_client.distributed import process_identity as origin
from tbxd_client.journal.journal import Journal
from tbxd_client.journal.journal_files import MAKING, SEGMENT_SUFFIX, JournalError, JournalReader, read_state
from tbxd_client.protocol.records import RunDefinition, TagDefinition, pack_definition, pack_record_head, pack_scalar
from test_walls import Inside


class Left(Inside):
    """A hub, an adopter, and what trainers have left in the spool."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.spool = folder / "spool"
        self.spool.mkdir(mode=0o700)
        self.adopter = Adopter(self.hub, [self.spool])
        self.now = time.monotonic()

    def leave(self, run: str, count: int, **more: Any) -> Path:
        """A trainer logs scalars and is killed; its journal."""
        journal = Journal(self.spool, lambda: False)
        definition = RunDefinition(0, str(self.folder / run), "host", 1, 1.0, **more)
        journal.define(pack_definition(definition) + pack_definition(TagDefinition(0, 0, "loss")))
        for step in range(count):
            assert journal.append(pack_scalar(0, step, float(step), float(step))) == ""
        self.dropped(journal)
        path = journal.path
        journal.close()
        return path

    def dropped(self, journal: Journal) -> None:
        """The records that it could not keep."""

    def step(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.adopter.step(self.now)
        self.turn()

    def until_gone(self, path: Path) -> None:
        def gone() -> bool:
            self.step(0.01)
            return not path.exists()

        wait_for(gone, "the journal to be written", 20.0, pause=0.001)


@pytest.fixture
def left(tmp_path: Path) -> Iterator[Left]:
    made = Left(tmp_path)
    yield made
    made.adopter.close()
    assert made.hub.close(10)


def test_a_journal_is_deleted_when_all_of_it_is_written_and_not_before(
    left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = left.leave("a", 50)
    write = type(left.hub.scheduler._pool).submit
    kept: list[Any] = []
    monkeypatch.setattr(type(left.hub.scheduler._pool), "submit", lambda pool, job: kept.append((pool, job)))
    for _ in range(20):
        left.step(0.1)
    assert path.exists() and left.adopter.busy and not (left.folder / "a").exists()
    monkeypatch.setattr(type(left.hub.scheduler._pool), "submit", write)
    for pool, job in kept:
        write(pool, job)
    left.until_gone(path)
    assert [step for step, _ in scalars(left.folder / "a")["loss"]] == list(range(50))
    assert not left.adopter.busy and not left.hub.clients


def test_how_far_a_journal_is_written_is_noted_in_it_again_and_again(
    left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_recovery, "DATA_BYTES_MAX", 200)
    path = left.leave("a", 20)
    left.hub.acks.limit = lambda client: min(client.session.written + 340, 600)  # type: ignore[method-assign]
    seen: list[int] = []

    def noted() -> bool:
        left.step(0.01)
        seen.append(read_state(path).released)
        return seen[-1] >= 578

    wait_for(noted, "the position", 10.0, pause=0.001)
    assert len(set(seen)) > 2 and seen == sorted(seen)


def test_no_more_of_a_journal_is_read_than_may_be_on_the_way(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_recovery, "DATA_BYTES_MAX", 50_000)
    path = left.leave("a", 30_000)
    asked: list[int] = []
    left.hub.acks.limit = lambda client: client.session.written + 100_000  # type: ignore[method-assign]
    feed = left.hub.feed

    def note(client: Any, position: int, payload: bytes) -> bool:
        asked.append(position - client.session.written)
        return feed(client, position, payload)

    left.hub.feed = note  # type: ignore[method-assign]
    left.until_gone(path)
    assert len(asked) > 1 and max(asked) < 100_000


def test_what_a_dead_trainer_could_not_keep_is_in_its_run(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    def drops(journal: Journal) -> None:
        for _ in range(3):
            journal.count_drop("journal_full")

    monkeypatch.setattr(left, "dropped", drops)
    left.until_gone(left.leave("a", 5))
    assert [value for _, value in scalars(left.folder / "a")["tbxd/dropped/journal_full"]] == [3.0]


def test_ranks_do_not_wait_for_one_whose_journal_is_read(left: Left) -> None:
    path = left.leave("a", 5, rank=0, world=2, job="job", reduce=True)
    client = None
    for _ in range(10):
        left.step(0.05)
        client = next(iter(left.hub.clients.values()), client)
    assert client is not None and client.complete and client.left
    assert path.exists() or client.session.written == 5 * 34


def test_a_journal_that_says_it_is_another_sessions_is_left_alone(left: Left) -> None:
    path = left.leave("a", 5)
    copied = path.with_name("0" * 24)
    shutil.copytree(path, copied)
    left.until_gone(path)
    for _ in range(5):
        left.step(SCAN_SECONDS)
    assert copied.exists() and not left.adopter.busy
    assert [step for step, _ in scalars(left.folder / "a")["loss"]] == list(range(5))


def test_a_journal_that_makes_no_sense_is_put_aside_and_the_others_go_on(left: Left) -> None:
    journal = Journal(left.spool, lambda: False)
    journal.append(pack_record_head(200, 7, 0, 1.0, {}, 0) + b"x" * 100)
    bad = journal.path
    journal.close()
    good = left.leave("a", 5)
    left.until_gone(good)

    def aside() -> bool:
        left.step(0.05)
        return (left.spool / QUARANTINE / bad.name).exists()

    wait_for(aside, "the other to be put aside", 10.0, pause=0.001)
    assert left.adopter.quarantined == 1


class Disk:
    """Refuses to give what is in journals."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, left: Left, number: int) -> None:
        self.asked: list[float] = []
        self.refuses = True
        read = JournalReader.read

        def refuse(reader: JournalReader, position: int, length: int) -> bytes:
            if not self.refuses:
                return read(reader, position, length)
            self.asked.append(left.now)
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(JournalReader, "read", refuse)


def test_a_disk_that_is_away_for_a_moment_costs_nothing(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    path = left.leave("a", 5)
    disk = Disk(monkeypatch, left, errno.EIO)
    for _ in range(3):
        left.step(DISK_SECONDS_MAX + SCAN_SECONDS)
    assert len(disk.asked) == 3 and path.exists() and not left.adopter.quarantined
    disk.refuses = False
    left.step(DISK_SECONDS_MAX)
    left.until_gone(path)
    assert [step for step, _ in scalars(left.folder / "a")["loss"]] == list(range(5))


def test_a_disk_that_stays_away_has_its_journal_put_aside_at_last(left: Left, monkeypatch: pytest.MonkeyPatch) -> None:
    path = left.leave("a", 5)
    disk = Disk(monkeypatch, left, errno.EIO)
    for _ in range(40):
        left.step(DISK_SECONDS_MAX + SCAN_SECONDS)
    assert len(disk.asked) == DISK_TRIES_MAX and not path.exists() and left.adopter.quarantined == 1


@pytest.mark.parametrize(("number", "again"), [(errno.EIO, True), (errno.ESTALE, True), (errno.EISDIR, False)])
def test_a_journal_that_cannot_be_opened_is_tried_again_where_that_may_be_over_soon(
    number: int, again: bool, left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = left.leave("a", 5)
    tried: list[float] = []

    def fail(place: Path) -> JournalReader:
        tried.append(left.now)
        raise JournalError(f"{place}: trouble") from OSError(number, os.strerror(number))

    monkeypatch.setattr(journal_recovery, "JournalReader", fail)
    for _ in range(5):
        left.step(DISK_SECONDS_MAX + SCAN_SECONDS)
    assert (len(tried) > 1) is again and path.exists()
    assert (path in left.adopter._bad) is not again


def test_a_disk_that_does_not_open_a_journal_is_asked_after_ever_longer_pauses(
    left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    left.leave("a", 5)
    tried: list[float] = []

    def fail(place: Path) -> JournalReader:
        tried.append(left.now)
        raise JournalError(f"{place}: trouble") from OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(journal_recovery, "JournalReader", fail)
    while len(tried) < 9:
        left.step(0.5)
    pauses = [after - before for before, after in pairwise(tried)]
    for number, pause in enumerate(pauses):
        wanted = min(DISK_SECONDS_MIN * 2**number, DISK_SECONDS_MAX)
        assert wanted <= pause <= wanted + SCAN_SECONDS + 0.5, pauses


def test_what_is_being_made_is_deleted_when_nobody_holds_it_and_some_seconds_have_gone(left: Left) -> None:
    journal = Journal(left.spool, lambda: False)
    held = left.spool / (MAKING + journal.path.name)
    journal.path.rename(held)
    dead = left.spool / (MAKING + "1" * 24)
    dead.mkdir()
    left.step(SCAN_SECONDS)
    left.step(UNFINISHED_SECONDS - 1.0)
    assert dead.exists()
    left.step(SCAN_SECONDS)
    assert not dead.exists() and held.exists()
    held.rename(journal.path)
    journal.close()


def test_when_a_dead_trainer_was_there_still_is_told_by_its_files_unless_the_clock_was_set(
    left: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunDefinition(0, str(left.folder / "a"), "host", 1, 1.0, boot=origin.boot(), began=origin.clock())
    path = left.leave("a", 5, boot=run.boot, began=run.began)
    client: Any = SimpleNamespace(session=SimpleNamespace(runs=[run]))
    now = time.time()
    segments = list(path.glob("*" + SEGMENT_SUFFIX))
    for segment in segments:
        os.utime(segment, (now + 30, now + 30))
    reader = JournalReader(path)
    assert abs(last_stored(client, reader) - origin.clock()) < 1000, "not later than now"
    for segment in segments:
        os.utime(segment, (now - 30, now - 30))
    assert abs(last_stored(client, reader) - origin.clock() + 30_000) < 1000
    assert last_stored(SimpleNamespace(session=SimpleNamespace(runs=[])), reader) == 0.0
    clock = time.time
    for shift in (-60, 60):
        monkeypatch.setattr(time, "time", lambda shift=shift: clock() + shift)
        assert last_stored(client, reader) == 0.0
    reader.close()
