"""A session puts its stream together from stretches that come cut, twice, overlapping or with gaps."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbxd.batch import Batch, Scalars
from tbxd.ingest.session import ROOM_BYTES, Session
from tbxd_client.protocol import kinds, records
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

ID = bytes(12)
DEFINITIONS = b"".join(
    pack_definition(definition)
    for definition in (
        RunDefinition(0, "/runs/a", "host", 1, 0.0),
        RunDefinition(1, "/runs/b", "host", 1, 0.0),
        TagDefinition(0, 0, "loss"),
        TagDefinition(1, 1, "loss"),
        TagDefinition(2, 0, "accuracy"),
        RowDefinition(0, 0, (0, 2)),
    )
)


def session(start: int = 0) -> Session:
    made = Session(ID, start)
    assert made.feed_definitions(0, DEFINITIONS)
    return made


def contents(batches: list[Batch]) -> list[tuple[int, str, int, int]]:
    """(end, folder, kind, step) of every record, in the order of the stream."""
    found: list[tuple[int, str, int, int]] = []
    for batch in batches:
        for item in batch.items:
            if isinstance(item, Scalars):
                ends, steps = item.ends.tolist(), item.values["step"].tolist()
                found += [(end, batch.run.directory, 1, step) for end, step in zip(ends, steps, strict=True)]
            elif item.record is not None:
                found.append((item.end, batch.run.directory, item.record.kind, item.record.step))
            else:
                found.append((item.end, batch.run.directory, -1, 0))
    return sorted(found)


one_record = st.one_of(
    st.tuples(st.just(kinds.SCALAR), st.sampled_from([0, 1, 2])),
    st.tuples(st.just(kinds.HISTOGRAM), st.sampled_from([0, 1])),
    st.tuples(st.just(kinds.TEXT), st.sampled_from([0, 1])),
    st.tuples(st.just(kinds.ROW), st.just(0)),
)


def stream_of(logged: list[tuple[int, int]]) -> tuple[bytes, list[tuple[int, str, int, int]]]:
    stream, expected = b"", []
    for step, (kind, tag) in enumerate(logged):
        if kind == kinds.SCALAR:
            stream += pack_scalar(tag, step, 1.0, 2.0)
        elif kind == kinds.TEXT:
            stream += pack_text_record(kind, tag, step, 1.0, {}, "text " * (step % 7))
        else:
            payload = bytes(16 if kind == kinds.ROW else 8 * (step % 50))
            stream += pack_record_head(kind, tag, step, 1.0, {}, len(payload)) + payload
        run = "/runs/b" if kind != kinds.ROW and tag == 1 else "/runs/a"
        expected.append((len(stream), run, kind, step))
    return stream, expected


@settings(deadline=None)
@given(st.lists(one_record, max_size=60), st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 2000)), max_size=30))
def test_any_stretches_in_any_order_give_each_record_once(
    logged: list[tuple[int, int]], stretches: list[tuple[int, int]]
) -> None:
    stream, expected = stream_of(logged)
    made = session()
    batches: list[Batch] = []
    for begin, length in [*stretches, (0, len(stream))]:
        part = stream[begin : begin + length]
        got = made.feed_records(begin, part)
        assert (got is None) == (begin > made.expected and got is None)
        batches += got or []
    assert contents(batches) == expected
    assert made.expected == len(stream)


@settings(deadline=None)
@given(st.lists(one_record, max_size=60), st.lists(st.integers(1, 2000), max_size=30), st.integers(0, 200))
def test_what_is_read_into_the_rooms_of_a_session_gives_the_same_records(
    logged: list[tuple[int, int]], reads: list[int], large: int
) -> None:
    stream, expected = stream_of(logged)
    payload = bytes(large << 12)  # up to several stretches
    stream += pack_record_head(kinds.HISTOGRAM, 0, 7, 1.0, {}, len(payload)) + payload + pack_scalar(0, 8, 1.0, 1.0)
    expected += [(len(stream) - 34, "/runs/a", kinds.HISTOGRAM, 7), (len(stream), "/runs/a", kinds.SCALAR, 8)]
    made = session()
    batches: list[Batch] = []
    for turn, most in enumerate([*reads, *[1 << 20] * len(stream)]):
        position = made.expected
        part = stream[position : position + most]
        if not part:
            break
        if turn % 3 == 2:
            batches += made.feed_records(position, part) or []
        else:
            room = made.room(len(part), position)
            assert 0 < len(room) <= len(part)
            room[:] = part[: len(room)]
            batches += made.take(len(room))
    assert contents(batches) == expected


def test_a_large_record_is_read_into_memory_of_its_own_that_begins_as_the_file_does() -> None:
    payload = bytes(range(250)) * 5000
    record = pack_record_head(kinds.HISTOGRAM, 0, 1, 1.0, {}, len(payload)) + payload
    made = session()
    position = 0
    batches: list[Batch] = []
    while position < len(record):
        room = made.room(len(record) - position, 5 + position)
        if position:
            assert len(room) == len(record) - position, "all the rest at once"
        address = np.frombuffer(room, np.uint8).__array_interface__["data"][0]
        assert address % records.ALIGNMENT == (5 + position) % records.ALIGNMENT
        room[:] = record[position : position + len(room)]
        batches += made.take(len(room))
        position += len(room)
    (batch,) = batches
    (item,) = batch.items
    assert not isinstance(item, Scalars) and item.record is not None
    view = item.record.payload
    assert isinstance(view, memoryview) and view.readonly and view == payload


def test_a_record_that_says_it_is_large_takes_no_memory_before_it_comes() -> None:
    made = session()
    head = bytearray(pack_record_head(kinds.HISTOGRAM, 0, 1, 1.0, {}, 100))
    head[3:7] = (1 << 30).to_bytes(4, "big")
    made.feed_records(0, bytes(head))
    assert made.record_end == 1 << 30
    assert len(made.room(1 << 30)) == (1 << 30) - len(head)  # so much is asked for, as far as a limit goes,
    made.feed_records(len(head), bytes(1000))
    assert made.record_end == 1 << 30
    lazy = session()
    lazy.feed_records(0, bytes(head))
    assert len(lazy.room(1000)) == 1000 and len(lazy._room) <= ROOM_BYTES  # else what is there, or this


@settings(deadline=None)
@given(st.lists(one_record, min_size=1, max_size=60), st.integers(1, 500), st.randoms())
def test_written_moves_to_the_end_of_what_all_runs_have_done(
    logged: list[tuple[int, int]], cut: int, random: Any
) -> None:
    stream, expected = stream_of(logged)
    ends = {0, *(end for end, *_ in expected)}
    made = session()
    waiting: list[Batch] = []
    for begin in range(0, len(stream), cut):
        waiting += made.feed_records(begin, stream[begin : begin + cut]) or []
    random.shuffle(waiting)
    while waiting:
        assert made.outstanding
        before = made.written
        batch = waiting.pop()
        assert made.done(batch) == (made.written > before)
        assert made.written in ends
        oldest = min((other.token.end for other in waiting), default=len(stream) + 1)
        assert made.written < oldest
    assert made.written == len(stream)
    assert not made.outstanding


def test_a_gap_is_turned_away_and_changes_nothing() -> None:
    made = session()
    stream, expected = stream_of([(kinds.SCALAR, 0)] * 10)
    assert made.feed_records(34, stream[34:]) is None
    assert contents(made.feed_records(0, stream) or []) == expected
    assert not made.feed_definitions(len(DEFINITIONS) + 1, b"x")


def test_a_session_begins_where_its_client_still_has_something() -> None:
    made = session(start=1000)
    assert made.written == 1000
    (batch,) = made.feed_records(1000, pack_scalar(0, 7, 1.0, 2.0)) or []
    assert contents([batch]) == [(1034, "/runs/a", 1, 7)]


def test_the_end_of_a_record_that_has_begun_is_known_from_its_first_bytes() -> None:
    made = session()
    size = 20 << 20
    head = pack_record_head(kinds.HISTOGRAM, 0, 0, 1.0, {}, size)
    assert made.feed_records(0, head[:3]) == []
    assert made.record_end == 0
    assert made.feed_records(3, head[3:]) == []
    assert made.record_end == len(head) + size


def test_a_record_that_makes_no_sense_is_refused_alone() -> None:
    made = session()
    good = pack_scalar(0, 1, 1.0, 2.0)
    bad = bytearray(pack_text_record(kinds.TEXT, 1, 0, 1.0, {}, "x" * 10))
    bad[-5] = 0xC1  # a byte that msgpack never uses
    bad[30] = 0xC1
    stream = good + bytes(bad) + good
    got = contents(made.feed_records(0, stream) or [])
    assert got == [(34, "/runs/a", 1, 1), (34 + len(bad), "/runs/b", -1, 0), (len(stream), "/runs/a", 1, 1)]


@pytest.mark.parametrize("kind", [kinds.SCALAR, kinds.TEXT])
def test_a_record_of_a_tag_that_nobody_defined_is_counted(kind: int) -> None:
    made = session()
    record = pack_scalar(99, 0, 1.0, 2.0) if kind == kinds.SCALAR else pack_text_record(kind, 99, 0, 1.0, {}, "x")
    assert made.feed_records(0, record) == []
    assert made.homeless == 1
    assert made.written == len(record), "it is settled: nobody will write it"


@pytest.mark.parametrize(
    "data",
    [b"garbage", b"\x95\x01\xce" + bytes(31), b"\x97\x03\xce\xff\xff\xff\xff" + bytes(50), b"\x97\x03\xce" + bytes(50)],
)
def test_a_stream_without_a_next_record_breaks_the_session(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        session().feed_records(0, data)


@given(st.binary(max_size=300))
def test_any_bytes_are_records_or_a_remote_protocol_error(data: bytes) -> None:
    for prefix in (b"", pack_scalar(0, 1, 1.0, 2.0), b"\x97\x03\xce\x00\x00\x00\x80\xce"):
        made = session()
        try:
            made.feed_records(0, prefix + data)
        except RemoteProtocolError:
            pass


@given(st.binary(max_size=300))
def test_any_bytes_are_definitions_or_a_remote_protocol_error(data: bytes) -> None:
    made = session()
    try:
        made.feed_definitions(len(DEFINITIONS), data)
    except RemoteProtocolError:
        pass


@pytest.mark.parametrize(
    "definition",
    [
        RunDefinition(1, "/x", "h", 1, 0.0),
        RunDefinition(50_000, "/x", "h", 1, 0.0),
        RunDefinition(2, "relative", "h", 1, 0.0),
        TagDefinition(3, 9, "x"),
        TagDefinition(0, 0, "again"),
        RowDefinition(1, 0, (77,)),
        RowDefinition(1, 0, (1,)),
    ],
)
def test_definitions_that_do_not_fit_break_the_session(definition: records.Definition) -> None:
    with pytest.raises(RemoteProtocolError):
        session().feed_definitions(len(DEFINITIONS), pack_definition(definition))


def test_runs_that_are_one_folder_are_one_batch_in_the_order_of_the_stream() -> None:
    """That folder's ledger has one position for the session: a second batch would begin before it."""
    made = session()
    more = RunDefinition(2, "/runs/b/../a", "host", 1, 0.0, ".suffix"), TagDefinition(3, 2, "other")
    assert made.feed_definitions(len(DEFINITIONS), b"".join(map(pack_definition, more)))
    stream = b"".join(pack_scalar(tag, step, 0.0, 1.0) for step in range(3) for tag in (0, 3, 1))
    batches = made.feed_records(0, stream + pack_text_record(kinds.TEXT, 3, 3, 0.0, {}, "t"))
    assert batches is not None
    found = {batch.run.directory: [step for *_, step in contents([batch])] for batch in batches}
    assert found == {"/runs/a": [0, 0, 1, 1, 2, 2, 3], "/runs/b": [0, 1, 2]}


def test_a_record_that_names_its_tag_elsewhere_than_where_it_is_looked_for_is_refused() -> None:
    """What is looked for is number 0; a reader of msgpack finds number 5, which nobody has defined."""
    good = pack_text_record(kinds.TEXT, 0, 1, 1.0, {}, "a text")
    bad = bytearray(good[:7] + b"\xcf" + (5).to_bytes(8, "big") + good[12:])
    bad[3:7] = len(bad).to_bytes(4, "big")
    assert msgpack.unpackb(bytes(bad))[2] == 5
    (batch,) = session().feed_records(0, bytes(bad)) or []
    assert contents([batch]) == [(len(bad), "/runs/a", -1, 0)]


def test_positions_beyond_what_64_bits_hold_break_the_session() -> None:
    start = records.POSITION_MAX - records.SCALAR_BYTES
    made = session(start)
    (batch,) = made.feed_records(start, pack_scalar(0, 1, 1.0, 2.0)) or []
    assert contents([batch]) == [(records.POSITION_MAX, "/runs/a", 1, 1)]
    for start in (records.POSITION_MAX, (1 << 63) - 40, (1 << 63) - 1):
        with pytest.raises(RemoteProtocolError, match="position"):
            session(start).feed_records(start, pack_scalar(0, 1, 1.0, 2.0) * 2)


def test_a_definition_without_an_end_breaks_the_session_before_it_takes_memory() -> None:
    made = session()
    stretch = b"\xdd\x00\x01\x86\xa0" + b"\xc0" * 100_000  # a list of 100,000 times nothing, in a list of such lists
    with pytest.raises(RemoteProtocolError, match="1,048,576"):
        made.feed_definitions(made.definitions_expected, b"\xdd\x00\x01\x86\xa0")
        for _ in range(20):
            made.feed_definitions(made.definitions_expected, stretch)
    assert made.definitions_expected < 2 << 20
