"""A run goes on from wherever its event file was cut, with whatever had shared an event."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import events
from tbxd.batch import Batch
from tbxd.encode import scalar_batcher
from tbxd.ingest.session import Session
from tbxd.runs.run_writer import RunWriter
from tbxd_client.logdir.event_names import event_files
from tbxd_client.protocol.kinds import ROW, TEXT
from tbxd_client.protocol.records import (
    RowDefinition,
    RunDefinition,
    TagDefinition,
    pack_definition,
    pack_record_head,
    pack_scalar,
    pack_text_record,
)

TAGS = 5
SESSIONS = [bytes([number]) * 12 for number in (1, 2)]

# What a step logs: how many tags, whether one of them twice, a row, a text, a record of another run.
steps = st.lists(
    st.tuples(st.integers(0, TAGS), st.booleans(), st.sampled_from(["", "", "", "row", "text", "elsewhere", "bad"])),
    min_size=1,
    max_size=25,
)


def batches(folder: Path, session: bytes, logged: list[tuple[int, bool, str]], cut: int) -> list[Batch]:
    """The batches of a run that a session's stream gives, cut into messages."""
    made = Session(session, 0)
    names = [TagDefinition(number, 0, f"{session[0]}/{number}") for number in range(TAGS)]
    definitions = [
        RunDefinition(0, str(folder), "host", 1, 0.0),
        RunDefinition(1, "/elsewhere", "host", 1, 0.0),
        *names,
        TagDefinition(TAGS, 1, "tag"),
        RowDefinition(0, 0, (0, 1)),
    ]
    made.feed_definitions(0, b"".join(map(pack_definition, definitions)))
    stream = b""
    for step, (count, again, more) in enumerate(logged):
        for number in [*range(count), *([0] if again and count else [])]:
            stream += pack_scalar(number, step, 1e9 + step, len(stream))
        if more == "row":
            stream += pack_record_head(ROW, 0, step, 1e9, {}, 16) + bytes(16)
        elif more == "text":
            stream += pack_text_record(TEXT, 0, step, 1e9, {}, "hi")
        elif more == "elsewhere":
            stream += pack_scalar(TAGS, step, 1e9, 0.0)
        elif more == "bad":
            stream += pack_record_head(ROW, 0, step, 1e9, {}, 8) + bytes(8)
    found: list[Batch] = []
    for begin in range(0, len(stream), cut):
        found += made.feed_records(begin, stream[begin : begin + cut]) or []
    return [batch for batch in found if batch.run.directory == str(folder)]


def write(folder: Path, given: list[Batch]) -> RunWriter:
    done: list[Batch] = []
    writer = RunWriter(folder, done.append)
    for batch in given:
        writer.offer(batch)
    writer.write()
    assert not writer.error and len(done) == len(given)
    writer.close()
    return writer


def contents(folder: Path) -> list[tuple[str, int, float]]:
    return [
        (value.tag, event.step, value.simple_value)
        for event in events(folder)
        for value in event.summary.value
        if not value.tag.startswith("tbxd/")
    ]


@settings(deadline=None, max_examples=60)
@given(one=steps, other=steps, cut=st.integers(34, 3000), where=st.floats(0, 1), small=st.sampled_from([0, 48]))
def test_a_file_cut_anywhere_is_gone_on_with_exactly(
    one: list[tuple[int, bool, str]],
    other: list[tuple[int, bool, str]],
    cut: int,
    where: float,
    small: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scalar_batcher, "SMALL", small)

        def sent() -> list[Batch]:
            return [
                batch
                for session, logged in zip(SESSIONS, (one, other), strict=True)
                for batch in batches(folder, session, logged, cut)
            ]

        if not sent():
            return
        whole = write(folder, sent())
        expected = contents(folder)
        assert sum(entry.count for entry in whole.ledger.values()) == sum(batch.records for batch in sent())
        (name,) = event_files(folder)
        size = (folder / name).stat().st_size
        (folder / name).write_bytes((folder / name).read_bytes()[: int(where * size)])
        for _ in range(2):  # what is all there already is not written again
            again = write(folder, sent())
            assert again.ledger == whole.ledger
    assert contents(folder) == expected


@pytest.mark.parametrize("parked", [False, True])
def test_a_folder_that_could_not_be_looked_at_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parked: bool
) -> None:
    """Else what is in it would be written again, or its file never be found again."""
    folder = tmp_path / "run"
    first, second = batches(folder, SESSIONS[0], [(TAGS, False, "")] * 8, 10**6), SESSIONS[1]
    done: list[Batch] = []
    writer = RunWriter(folder, done.append)
    if parked:
        for batch in first:
            writer.offer(batch)
        writer.write()
        writer.park()
        first = batches(folder, second, [(TAGS, False, "")] * 8, 10**6)
    else:
        write(folder, first)
    before = contents(folder)
    with monkeypatch.context() as patch:
        patch.setattr("tbxd.tfevents.event_folder.event_files", no_descriptors)
        patch.setattr("tbxd.tfevents.contents.event_files", no_descriptors)
        for batch in first:
            writer.offer(batch)
        writer.write()
        assert writer.error == os.strerror(errno.EMFILE) and contents(folder) == before
        assert not writer.open, "nothing is held meanwhile"
    writer.write()
    assert not writer.error
    writer.close()
    found = contents(folder)
    assert len(found) == len(set(found)) == (2 if parked else 1) * len(before)


def no_descriptors(folder: int) -> list[str]:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
