"""Sessions that are over for good are forgotten by the ledgers, and no other; nothing comes twice for that."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from harness import World, scalars, wait_for
from one_by_one import read_events
from ranks_world import Rank
from tbxd.batch import Batch
from tbxd.ingest import ended_sessions as ended_module
from tbxd.ingest.ended_sessions import NAME, Ended
from tbxd.ingest.hub import LEDGERS
from tbxd.ingest.session import Session
from tbxd.runs.run_writer import RunWriter
from tbxd.tfevents.contents import contents_of
from tbxd.tfevents.ledger import OVER, Entry
from tbxd_client.logdir.event_names import event_files
from tbxd_client.protocol.records import RunDefinition, TagDefinition, pack_definition, pack_scalar

SESSIONS = 250


def test_sessions_one_after_the_other_take_a_kilobyte_each_and_no_longer_at_the_end(tmp_path: Path) -> None:
    run, ended = tmp_path / "run", Ended(tmp_path / "ledgers")
    seconds = []
    writer = RunWriter(run, lambda batch: None, ended=ended)
    for number in range(SESSIONS):
        session = Session(os.urandom(12), 0)
        name = f"events.out.tfevents.{1_000_000_000 + number:010d}.host.{number + 1}.0"
        defined = (RunDefinition(0, str(run), "host", number + 1, 1e9 + number, "", name), TagDefinition(0, 0, "eval"))
        session.feed_definitions(0, b"".join(map(pack_definition, defined)))
        begun = time.thread_time()
        batches: list[Batch] = session.feed_records(0, pack_scalar(0, number, 1e9 + number, 0.5)) or []
        for batch in batches:
            writer.offer(batch)
        writer.write()
        assert not writer.error and writer.name == name
        writer.park()
        seconds.append(time.thread_time() - begun)
        ended.add([session.id], [])
    writer.close()
    assert sum(path.stat().st_size for path in run.iterdir()) < SESSIONS << 10
    assert sum(seconds[-50:]) < 5 * sum(seconds[50:100]), "what has been costs next to nothing"
    found = contents_of(run).ledger()
    assert sum(entry.count for entry in found.values()) == SESSIONS and len(found) <= 2


def test_a_file_that_is_gone_costs_what_was_in_it_whoever_is_over(tmp_path: Path) -> None:
    run, ended = tmp_path / "run", Ended()
    for number in range(3):
        writer = RunWriter(run, lambda batch: None, ended=ended)
        rank = Rank(run, 0, 1, created=float(number + 1))
        session = Session(rank.id, 0)
        for step in range(10):
            rank.scalar("loss", step + 10 * number, 0.5)
        session.feed_definitions(0, rank.definitions)
        for batch in session.feed_records(0, rank.records) or []:
            writer.offer(batch)
        writer.write()
        ended.add([rank.id], [])
        if number < 2:
            writer.close()
    before = writer.settled()
    assert before == {OVER: Entry(20, 20), rank.id: Entry(340, 10)}
    os.truncate(run / event_files(run)[-1], 100)
    session.feed_definitions(0, rank.definitions)
    rank.scalar("loss", 40, 0.5)
    for batch in session.feed_records(340, rank.records[340:]) or []:
        writer.offer(batch)
    writer.write()
    writer.write()
    writer.close()
    found = writer.settled()
    assert sum(entry.count for entry in found.values()) == 31
    assert sum(entry.refused.get("file_lost", 0) for entry in found.values()) == 10
    assert contents_of(run).ledger() == found


def test_a_session_that_is_over_is_not_forgotten_before_its_drops_are_noted(tmp_path: Path) -> None:
    """Its last report comes when the run is parked, and the next script's file begins a moment later."""
    run, ended = tmp_path / "run", Ended()
    writer = RunWriter(run, lambda batch: None, ended=ended)
    first = Rank(run, 0, 1, created=1.0)
    for number, rank in enumerate((first, Rank(run, 0, 1, created=2.0))):
        session = Session(rank.id, 0)
        rank.scalar("loss", number, 0.5)
        name = f"events.out.tfevents.{1_000_000_000 + number:010d}.host.{number + 1}.0"
        session.feed_definitions(0, rank.definitions)
        for batch in session.feed_records(0, rank.records) or []:
            batch.run = batch.run._replace(file_name=name)
            writer.offer(batch)
        writer.write()
        assert not writer.error and writer.name == name
        writer.park()
        if not number:
            assert writer.tell(first.run, first.id, {"journal_full": 7})
            ended.add([first.id], [])
    writer.close()
    ledger = contents_of(run).ledger()
    assert sum(entry.dropped.get("journal_full", 0) for entry in ledger.values()) == 7
    assert sum(entry.count for entry in ledger.values()) == 2


def test_what_is_torn_damaged_or_a_link_names_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = [bytes([number]) * 12 for number in range(1, 9)]
    Ended(tmp_path).add(sessions[:4], [tmp_path / "journal"])
    path = tmp_path / NAME
    assert path.stat().st_mode & 0o7777 == 0o600
    os.truncate(path, path.stat().st_size - 5)
    again = Ended(tmp_path)
    assert [session in again for session in sessions] == [True] * 3 + [False] * 5
    again.add(sessions[4:5], [])
    assert [session in Ended(tmp_path) for session in sessions] == [True, True, True, False, True, False, False, False]
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)
    assert sessions[0] not in Ended(tmp_path) and sessions[1] in Ended(tmp_path)
    path.rename(tmp_path / "real")
    path.symlink_to(tmp_path / "real")
    assert sessions[1] not in Ended(tmp_path)
    path.unlink()
    monkeypatch.setattr(ended_module, "COUNT_MAX", 4)
    few = Ended(tmp_path)
    for session in sessions:
        few.add([session], [])
    assert sessions[-1] in few and sessions[0] not in few and path.stat().st_size <= 4 * 16
    few.add([b"x" * 12], [tmp_path / "no" / "folder"])
    assert b"x" * 12 not in few, "it is not on the disk that its journal is gone"


ONE = """
import sys
from tbxd_client import SummaryWriter
writer = SummaryWriter(sys.argv[1])
writer.add_scalar("loss", 0.5, int(sys.argv[2]))
assert writer.flush(20)
if len(sys.argv) > 3:
    print("logged", flush=True)
    sys.stdin.readline()
"""


def over(place: World) -> int:
    return len(Ended(place.spool / LEDGERS)._sessions)


def carried(run: Path) -> list[str]:
    """The ledger that the newest file begins with."""
    texts = [event.source_metadata.writer for event in read_events(run / event_files(run)[-1])]
    return [entry for text in texts if text.startswith("L") and text != "L." for entry in text[1:].split(";")]


def test_a_script_that_has_ended_is_over_and_one_that_was_killed_when_its_journal_is_written(place: World) -> None:
    run = place.logdir / "run"
    place.ensure()
    assert place.run(ONE, run, 0).returncode == 0
    wait_for(lambda: over(place) == 1, "the session to be over")
    killed = place.start(ONE, run, 1, "wait", stdin=-1, stdout=-1)
    assert killed.stdout is not None and killed.stdout.readline() == b"logged\n"
    assert over(place) == 1, "one that lives is not"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    wait_for(lambda: over(place) == 2, "the journal to be adopted and deleted")
    place.kill_daemon()
    place.ensure()
    assert place.run(ONE, run, 2).returncode == 0
    assert scalars(run) == {"loss": [(step, 0.5) for step in range(3)]}
    assert carried(run) == ["AAAAAAAAAAAAAAAA,2,2"]
    assert (place.status() or {})["totals"]["written"] == 3


def test_a_journal_that_comes_late_is_not_written_again(place: World, tmp_path: Path) -> None:
    """Moved away without a word it is not over; and a copy of one that is over is put aside."""
    run = place.logdir / "run"
    place.ensure()
    trainer = place.start(ONE, run, 0, "wait", stdin=-1, stdout=-1)
    assert trainer.stdout is not None and trainer.stdout.readline() == b"logged\n"
    (journal,) = place.journals()
    late = tmp_path / journal.name
    trainer.send_signal(signal.SIGSTOP)
    shutil.copytree(journal, late)
    released = late / "control"
    page = bytearray(released.read_bytes())
    page[17 * 8 : 18 * 8] = bytes(8)  # as if it had never heard that its records are written
    released.write_bytes(page)
    journal.rename(tmp_path / "away")
    trainer.kill()
    trainer.wait()
    assert place.run(ONE, run, 1).returncode == 0
    wait_for(lambda: over(place) == 1, "the other session to be over")
    assert bytes.fromhex(journal.name) not in Ended(place.spool / LEDGERS), "nobody has said that this one is"
    place.kill_daemon()
    place.ensure()
    shutil.copytree(late, journal)
    wait_for(lambda: over(place) == 2, "what came late to be adopted and over")
    shutil.copytree(late, journal)
    wait_for(lambda: (place.status() or {}).get("quarantined_journals"), "the copy to be put aside")
    assert place.run(ONE, run, 2).returncode == 0
    assert scalars(run) == {"loss": [(step, 0.5) for step in range(3)]}
