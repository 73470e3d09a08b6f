"""Scalars of a run become the same events whether few or many are made at once, and none of them is counted wrong."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tbxd.batch import SCALAR_DTYPE, Batch, Token
from tbxd.encode import scalar_batcher
from tbxd.encode.scalar_batcher import ScalarWriter
from tbxd.tfevents import schema
from tbxd.tfevents.ledger import Entry, LedgerReader, Marker
from tbxd.tfevents.tfrecord import read_records
from tbxd_client.protocol.records import SCALAR_BYTES, RunDefinition, TagDefinition, pack_scalar

RUN = RunDefinition(0, "/runs/a", "host", 1, 0.0)
TAGS: list[TagDefinition | None] = [
    TagDefinition(0, 0, "loss"),
    TagDefinition(1, 0, "acc"),
    None,  # left out by a client that was interrupted
    TagDefinition(3, 0, "a" * 130),
    TagDefinition(4, 0, "colored", "#ff8000"),
    TagDefinition(5, 0, "loss"),  # of another run of the session in the same folder
    TagDefinition(6, 0, "described", "", "name", "text"),
]
USED = [number for number, tag in enumerate(TAGS) if tag is not None]
SESSIONS = [bytes([number]) * 12 for number in range(1, 4)]
INFINITE = float("inf")

one = st.tuples(
    st.sampled_from(USED),
    st.one_of(st.integers(0, 2), st.sampled_from([127, 128, -1, -(2**63), 2**63 - 1])),
    st.sampled_from([1e9, 1e9 + 0.004, 1e9 + 0.02]),
    st.one_of(st.floats(), st.sampled_from([1e300, -1e300])),
    st.sampled_from([0, 0, 0, 0, 34, 34, 40]),  # bytes of another run's record before it
)
batches = st.lists(st.tuples(st.integers(0, 2), st.lists(one, min_size=1, max_size=12)), min_size=1, max_size=8)
Batches = list[tuple[int, list[tuple[int, int, float, float, int]]]]


def array_of(records: list[tuple[int, int, float, float, int]]) -> Any:
    return np.frombuffer(b"".join(pack_scalar(*record[:4]) for record in records), SCALAR_DTYPE)


def written(given: Batches, small: int, flush_each: bool) -> tuple[bytes, dict[bytes, Entry]]:
    """Return a writer's bytes of batches, and the ledger after them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scalar_batcher, "SMALL", small)
        writer, ledger, pieces = ScalarWriter(Marker()), {}, []
        for number, records in given:
            session = SESSIONS[number]
            entry = ledger.setdefault(session, Entry())
            values = array_of(records)
            ends = entry.end + np.cumsum([SCALAR_BYTES + gap for *_, gap in records])
            batch = Batch(session, RUN, TAGS, [], Token(0, 1))
            writer.add(batch, values, ends, values["step"].astype(np.int64), entry)
            if flush_each:
                writer.flush(pieces)
        writer.flush(pieces)
        return b"".join(pieces), ledger


@settings(deadline=None)
@given(batches)
def test_few_and_many_at_once_give_the_same_bytes(given: Batches) -> None:
    one_by_one, ledger = written(given, 10**9, flush_each=False)
    for small in (0, 5):
        for flush_each in (False, True):
            assert written(given, small, flush_each) == (one_by_one, ledger)
    assert written(given, 10**9, flush_each=True) == (one_by_one, ledger)


def read(data: bytes) -> list[tuple[int, Any]]:
    return [(end, schema.Event.FromString(event)) for end, event in read_records(io.BytesIO(data).read)]


@settings(deadline=None)
@given(batches, st.sampled_from([0, 10**9]))
def test_every_scalar_is_there_once_in_its_order_and_the_marks_before_any_cut_say_so(
    given: Batches, small: int
) -> None:
    data, ledger = written(given, small, flush_each=False)
    expected: dict[bytes, list[tuple[int, str, int, float]]] = {session: [] for session in SESSIONS}
    for number, records in given:
        known = expected[SESSIONS[number]]
        end = known[-1][0] if known else 0
        for tag, step, _, value, gap in records:
            end += SCALAR_BYTES + gap
            with np.errstate(over="ignore"):
                known.append((end, TAGS[tag].tag, step, float(np.float64(value).astype("f4"))))  # type: ignore[union-attr]
    reader = LedgerReader()
    reader.follow("tbxd 0")
    described: set[str] = set()
    for _, event in read(data):
        before = {session: entry.copy() for session, entry in reader.ledger.items()}
        reader.follow(event.source_metadata.writer, len(event.summary.value))
        (session,) = [session for session, entry in reader.ledger.items() if before.get(session) != entry]
        count = before[session].count if session in before else 0
        records = expected[session][count : reader.ledger[session].count]
        assert reader.ledger[session].end == records[-1][0], "a cut behind this event begins again with the next record"
        assert [tag for _, tag, *_ in records] == [value.tag for value in event.summary.value]
        assert len({tag for _, tag, *_ in records}) == len(records), "the fast loader keeps one of a tag"
        assert {step for _, _, step, _ in records} == {event.step}
        values = [value.simple_value for value in event.summary.value]
        assert np.array_equal([value for *_, value in records], values, equal_nan=True)
        for value in event.summary.value:
            assert value.HasField("metadata") <= (len(records) == 1)
            described |= {value.tag} if value.HasField("metadata") else set()
    assert reader.ledger == ledger
    logged = {tag for records in expected.values() for _, tag, *_ in records}
    assert described == logged & {"colored", "described"}


def test_a_hundred_tags_of_one_step_take_nine_bytes_each_beside_the_tag() -> None:
    tags: list[TagDefinition | None] = [TagDefinition(n, 0, f"train/metric_{n:02}") for n in range(100)]
    writer, entry, pieces = ScalarWriter(Marker()), Entry(), []
    values = array_of([(n, step, 1e9 + step + n * 1e-6, 0.5, 0) for step in range(100) for n in range(100)])
    ends = np.arange(1, len(values) + 1) * SCALAR_BYTES
    writer.add(Batch(SESSIONS[0], RUN, tags, [], Token(0, 1)), values, ends, values["step"].astype(np.int64), entry)
    writer.flush(pieces)
    events = read(b"".join(pieces))
    assert [len(event.summary.value) for _, event in events] == [100] * 100
    assert [event.wall_time for _, event in events] == [1e9 + step for step in range(100)]
    assert events[-1][0] / len(values) < 15 + 9 + 0.4


@pytest.mark.parametrize("count", [3, 3 * scalar_batcher.SMALL])
def test_a_wall_time_that_is_no_time_is_that_of_writing(count: int) -> None:
    writer, pieces = ScalarWriter(Marker()), []
    values = array_of([(0, step, [1e9, INFINITE, float("nan")][step % 3], 0.5, 0) for step in range(count)])
    ends = np.arange(1, count + 1) * SCALAR_BYTES
    writer.add(Batch(SESSIONS[0], RUN, TAGS, [], Token(0, 1)), values, ends, values["step"].astype(np.int64), Entry())
    writer.flush(pieces)
    times = [event.wall_time for _, event in read(b"".join(pieces))]
    assert times[::3] == [1e9] * (count // 3)
    assert all(1.7e9 < time < 1e11 for place, time in enumerate(times) if place % 3)


def test_more_tags_than_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scalar_batcher, "TAGS_MAX", 10)
    tags: list[TagDefinition | None] = [TagDefinition(n, 0, f"{n}") for n in range(400)]
    writer, entry, pieces = ScalarWriter(Marker()), Entry(), []
    for turn in range(8):
        values = array_of([((turn * 173 + n) % 400, turn, 1e9, 0.5, 0) for n in range(100)])
        ends = entry.end + np.arange(1, 101) * SCALAR_BYTES
        batch = Batch(SESSIONS[0], RUN, tags, [], Token(0, 1))
        writer.add(batch, values, ends, values["step"].astype(np.int64), entry)
        writer.flush(pieces)
    found = [value.tag for _, event in read(b"".join(pieces)) for value in event.summary.value]
    assert found == [f"{(turn * 173 + n) % 400}" for turn in range(8) for n in range(100)]


@pytest.mark.parametrize("small", [0, 10**9])
@pytest.mark.parametrize("tags", [1, 3])
def test_runs_that_take_turns_need_no_mark_with_every_event(small: int, tags: int) -> None:
    others = 4 * tags * SCALAR_BYTES  # what four more runs log in between
    records = [
        (USED[tag], step, 1e9, 0.5, others if tag == 0 and step else 0) for step in range(50) for tag in range(tags)
    ]
    data, ledger = written([(0, records)], small, flush_each=False)
    events = [event for _, event in read(data)]
    assert len(events) == 50
    assert [index for index, event in enumerate(events) if event.source_metadata.writer] == [0]
    reader = LedgerReader()
    reader.follow("tbxd 0")
    for event in events:
        reader.follow(event.source_metadata.writer, len(event.summary.value))
    assert reader.ledger == ledger
