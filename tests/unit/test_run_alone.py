"""A run whose files are lost or whose disk fails in the midst of a write: what is written then, and what is not."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from harness import scalars
from tbxd.ingest.session import Batch, Session
from tbxd.runs.run_writer import RunWriter
from tbxd.tfevents.event_file import FileLost
from tbxd_client.logdir.event_names import event_files
from tbxd_client.protocol.records import RunDefinition, TagDefinition, pack_definition, pack_scalar


class Stream:
    """A session's scalars as batches for a run; ``numbered``: the run counts the steps."""

    def __init__(self, folder: Path, numbered: bool = False) -> None:
        self.session = Session(os.urandom(12), 0)
        definitions = RunDefinition(0, str(folder), "host", 1, 0.0), TagDefinition(0, 0, "loss", numbered=numbered)
        self.session.feed_definitions(0, b"".join(map(pack_definition, definitions)))

    def log(self, first: int, count: int) -> list[Batch]:
        data = b"".join(pack_scalar(0, step, float(step), float(step)) for step in range(first, first + count))
        found = self.session.feed_records(self.session.expected, data)
        assert found is not None
        return found


def made(folder: Path) -> tuple[RunWriter, list[Batch]]:
    done: list[Batch] = []
    return RunWriter(folder, done.append, alive=lambda session, began: True), done


def write(writer: RunWriter, batches: list[Batch]) -> None:
    for batch in batches:
        writer.offer(batch)
    writer.write()


def remove_files(folder: Path) -> None:
    for name in event_files(folder):
        (folder / name).unlink()


def test_steps_that_the_run_counts_go_on_from_what_the_files_hold_when_one_was_removed(tmp_path: Path) -> None:
    writer, done = made(tmp_path)
    stream = Stream(tmp_path, numbered=True)
    write(writer, stream.log(0, 3))
    assert [step for step, _ in scalars(tmp_path)["loss"]] == [0, 1, 2]
    remove_files(tmp_path)
    write(writer, stream.log(3, 2))
    writer.write()
    assert not writer.error and len(done) == 2
    assert [step for step, _ in scalars(tmp_path)["loss"]] == [0, 1], "nothing is there that they could go on from"
    assert writer.entry(stream.session.id).refused == {"file_lost": 3}
    writer.close()


def test_what_could_not_be_written_and_whose_file_is_lost_then_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, done = made(tmp_path)
    stream = Stream(tmp_path)
    write(writer, stream.log(0, 2))
    sides = writer.ranks.write_sides
    trouble: list[OSError] = [OSError(errno.ENOSPC, "No space left"), FileLost(0, "replaced")]

    def fail() -> None:
        if trouble:
            raise trouble.pop(0)
        sides()

    monkeypatch.setattr(writer.ranks, "write_sides", fail)
    write(writer, stream.log(2, 2))
    assert "No space" in writer.error and writer.waiting and len(done) == 1
    writer.write()
    writer.write()
    assert not writer.error and not writer.waiting and len(done) == 2
    assert scalars(tmp_path) == {"loss": [(step, float(step)) for step in range(4)]}
    writer.close()


def test_drops_are_noted_in_the_run_once_and_counted_behind_a_lost_file(tmp_path: Path) -> None:
    writer, _ = made(tmp_path)
    stream = Stream(tmp_path)
    write(writer, stream.log(0, 2))
    run = stream.session.runs[0]
    assert run is not None
    assert writer.tell(run, stream.session.id, {"journal_full": 2}) and writer.waiting
    writer.write()
    assert not writer.tell(run, stream.session.id, {"journal_full": 2}) and not writer.waiting
    assert not writer.tell(run, stream.session.id, {"journal_full": 1}), "it never goes back"
    assert scalars(tmp_path)["tbxd/dropped/journal_full"] == [(1, 2.0)]
    remove_files(tmp_path)
    write(writer, stream.log(2, 1))
    writer.write()
    found = scalars(tmp_path)
    assert found["loss"] == [(2, 2.0)] and found["tbxd/dropped/file_lost"][-1][1] == 2.0
    assert writer.entry(stream.session.id).dropped == {"journal_full": 2}
    writer.close()
