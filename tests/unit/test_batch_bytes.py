"""Batches as bytes: what is read from them is written as the batch itself, and whatever is no batch is refused."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import scalars
from one_by_one import read_events
from tbxd.batch import Batch, Scalars
from tbxd.batch_bytes import from_bytes, to_bytes
from tbxd.ingest.session import Session
from tbxd.runs.run_writer import RunWriter
from tbxd_client.logdir.event_names import event_files
from tbxd_client.protocol import kinds
from tbxd_client.protocol.records import (
    RemoteProtocolError,
    RowDefinition,
    RunDefinition,
    TagDefinition,
    pack_definition,
    pack_record_head,
    pack_scalar,
    pack_text_record,
)

SESSION = bytes(range(12))
logged = st.lists(
    st.tuples(st.sampled_from(["scalar", "row", "text", "histogram", "bad"]), st.integers(0, 3)), max_size=30
)


def batches(folder: str, calls: list[tuple[str, int]]) -> list[Batch]:
    """What a session makes of some calls; tags 0 to 3 are of scalars, 4 to 7 of texts, 8 to 11 of arrays."""
    session = Session(SESSION, 0)
    definitions: list[Any] = [RunDefinition(0, folder, "host", 1, 0.0)]
    definitions += [
        TagDefinition(number, 0, f"t{number}", color="#102030" if number % 4 == 3 else "") for number in range(12)
    ]
    definitions += [RowDefinition(number, 0, (number, 3)) for number in range(3)] + [RowDefinition(3, 0, (0, 1, 2))]
    session.feed_definitions(0, b"".join(map(pack_definition, definitions)))
    data = b""
    for step, (kind, tag) in enumerate(calls):
        if kind == "scalar":
            data += pack_scalar(tag, step, float(step), step / 3)
        elif kind == "row":
            values = np.arange(3 if tag == 3 else 2, dtype=">f8").tobytes()
            data += pack_record_head(kinds.ROW, tag, step, float(step), {}, len(values)) + values
        elif kind == "text":
            data += pack_text_record(kinds.TEXT, 4 + tag, step, float(step), {}, f"é {step}")
        elif kind == "histogram":
            values = np.arange(tag + 1, dtype="<f4").tobytes()
            attrs = {"dtype": "<f4", "shape": [tag + 1], "bins": "tensorflow"}
            data += pack_record_head(kinds.HISTOGRAM, 8 + tag, step, float(step), attrs, len(values)) + values
        else:
            data += pack_record_head(99, 4 + tag, step, float(step), {}, 0)
    found = session.feed_records(0, data) if data else []
    assert found is not None
    return found


def written(folder: Path, made: list[Batch]) -> tuple[list[Any], Any]:
    """The summaries that a run holds of some batches, and its ledger's entry."""
    writer = RunWriter(folder, lambda batch: None, alive=lambda session, began: True)
    for batch in made:
        writer.offer(batch)
    writer.write()
    assert not writer.error
    entry = writer.entry(SESSION)
    writer.close()
    events = [event for name in event_files(folder) for event in read_events(folder / name)]
    return [event.summary for event in events if event.HasField("summary")], (entry.end, entry.count, entry.refused)


@given(logged)
def test_what_is_read_from_the_bytes_of_a_batch_is_written_as_the_batch(calls: list[tuple[str, int]]) -> None:
    with TemporaryDirectory() as first, TemporaryDirectory() as second:
        own = written(Path(first), batches(first, calls))
        sent = [to_bytes(batch) for batch in batches(second, calls)]
        assert written(Path(second), [from_bytes(data) for data in sent]) == own


def test_only_the_definitions_that_its_records_name_are_in_it(tmp_path: Path) -> None:
    (batch,) = batches(str(tmp_path), [("scalar", 1), ("row", 2)])
    again = from_bytes(to_bytes(batch))
    assert [tag.tag for tag in again.tags if tag is not None] == ["t1", "t2", "t3"]
    assert [row.tags for row in again.rows if row is not None] == [(2, 3)]
    assert isinstance(again.items[0], Scalars) and again.token.end == batch.token.end
    assert (again.session, again.run, again.size, again.records) == (
        batch.session,
        batch.run,
        batch.size,
        batch.records,
    )
    written(tmp_path, [again])
    assert scalars(tmp_path)["t1"] == [(0, 0.0)]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_batch_or_are_refused(data: bytes) -> None:
    try:
        from_bytes(data)
    except RemoteProtocolError:
        pass


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", 2),
        ("session", b"short"),
        ("run", pack_definition(TagDefinition(0, 0, "loss"))),
        ("tags", []),
        ("rows", []),
        ("items", [[b"x" * 33, b""]]),
        ("items", [[b"", bytes(7)]]),
        ("items", [[0, 0, "", [1, 99, 0, 0.0, {}, None]]]),
        ("end", None),
    ],
)
def test_a_batch_that_lacks_something_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    (batch,) = batches(str(tmp_path), [("scalar", 1), ("row", 2)])
    fields = msgpack.unpackb(to_bytes(batch))
    with pytest.raises(RemoteProtocolError):
        from_bytes(msgpack.packb({**fields, key: value}))
