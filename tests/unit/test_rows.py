"""Scalars by arrays, by hand and by protobuf: the same bytes."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from tbxd.tfevents import grouping, scalar_columns, schema
from tbxd.tfevents.crc import Contributions
from tbxd.tfevents.grouping import VALUES_MAX, WALL_SECONDS, starts_of, walk
from tbxd.tfevents.scalar_columns import RowEncoder
from tbxd.tfevents.scalar_encoder import ScalarEncoder
from tbxd.tfevents.tfrecord import frame, read_records

tags = st.one_of(
    st.sampled_from(["loss", "acc", "train/metric_37", "", "\N{LATIN SMALL LETTER U WITH DIAERESIS}" * 70]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=150),
)
steps = st.one_of(st.integers(0, 3), st.integers(0, 1 << 21), st.integers(-(2**63), 2**63 - 1))
times = st.one_of(
    st.floats(0, 0.02), st.just(1.7e9), st.floats(1.6e9, 1.8e9), st.floats(allow_nan=False, allow_infinity=False)
)
numbers = st.floats(width=32)
scalar = st.tuples(tags, steps, times, numbers)


def loop(events: list[list[tuple[str, int, float, float]]], marks: dict[int, str]) -> bytes:
    encoder = ScalarEncoder()
    return b"".join(
        encoder.event(
            [tag for tag, *_ in event],
            event[0][1],
            event[0][2],
            np.array([number for *_, number in event], "<f4").tobytes(),
            marks.get(index, ""),
        )
        for index, event in enumerate(events)
    )


def arrays(encoder: RowEncoder, events: list[list[tuple[str, int, float, float]]], marks: dict[int, str]) -> bytes:
    flat = [item for event in events for item in event]
    sizes = [len(event) for event in events]
    pieces = encoder.events(
        np.cumsum([0, *sizes[:-1]]),
        np.array([encoder.tags.number(tag) for tag, *_ in flat], np.int64),
        np.array([step for _, step, *_ in flat], np.int64),
        np.array([time for *_, time, _ in flat], np.float64),
        np.array([number for *_, number in flat], np.float32),
        marks,
    )
    return b"".join(pieces)


@settings(deadline=None)
@given(
    st.one_of(
        st.lists(st.lists(scalar, min_size=1, max_size=1), min_size=1, max_size=30),
        st.lists(st.lists(scalar, min_size=1, max_size=6), min_size=1, max_size=20),
    ),
    st.data(),
)
def test_events_made_all_at_once_are_those_made_one_by_one(
    events: list[list[tuple[str, int, float, float]]], data: st.DataObject
) -> None:
    places = data.draw(st.lists(st.integers(0, len(events) - 1), max_size=3))
    marks = {place: f"V0,{place:x},22,1" for place in places}
    encoder = RowEncoder()
    expected = loop(events, marks)
    for _ in range(2):  # the second comes from what the first has left in the tables
        assert arrays(encoder, events, marks) == expected
    for event, (_, made) in zip(events, read_records(io.BytesIO(expected).read), strict=True):
        message = schema.Event(wall_time=event[0][2], step=event[0][1])
        for tag, *_, number in event:
            message.summary.value.add(tag=tag, simple_value=number)
        assert np.array_equal([value.simple_value for value in message.summary.value], numbers_of(made), equal_nan=True)
        assert [value.tag for value in message.summary.value] == [value.tag for value in parsed(made).summary.value]
        assert (parsed(made).wall_time, parsed(made).step) == (message.wall_time, message.step)


def parsed(data: bytes) -> Any:
    return schema.Event.FromString(data)


def numbers_of(data: bytes) -> list[float]:
    return [value.simple_value for value in parsed(data).summary.value]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200),
            steps.filter(bool),
            st.floats(1, 1e12),
            numbers,
        ),
        min_size=1,
        max_size=20,
    )
)
def test_the_bytes_are_those_of_protobuf(scalars: list[tuple[str, int, float, float]]) -> None:
    """Which leaves out what is zero or empty; by hand it is written out."""
    for events in ([[item] for item in scalars], [scalars]):
        expected = b""
        for event in events:
            message = schema.Event(wall_time=event[0][2], step=event[0][1])
            for tag, *_, number in event:
                message.summary.value.add(tag=tag, simple_value=number)
            expected += frame(message.SerializeToString())
        assert arrays(RowEncoder(), events, {}) == expected


def test_more_rows_than_are_made_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scalar_columns, "ROWS_BYTES", 1)
    monkeypatch.setattr(scalar_columns, "ROWS_MIN", 3)
    events = [[("tag" * (n % 3), n, float(n), float(n))] * (1 + n % 5) for n in range(40)]
    marks = {0: "V0=AAECAwQFBgcICQoL,22,22,1", 7: "V0,ff,22,9", 39: "V0,fff,22,99"}
    assert arrays(RowEncoder(), events, marks) == loop(events, marks)


@given(st.binary(min_size=1, max_size=100), st.binary(min_size=4, max_size=100), st.data())
def test_a_checksum_is_the_sum_of_what_its_bytes_add(data: bytes, more: bytes, draw: st.DataObject) -> None:
    crcs = Contributions()
    crcs.reach(len(data) + len(more))
    octets = np.frombuffer(data, np.uint8)
    added = crcs.of(octets, np.arange(len(data))[::-1])
    assert np.bitwise_xor.reduce(added) ^ crc32c(bytes(len(data))) == crc32c(data)
    place = draw.draw(st.integers(0, len(data) - 1))
    assert crcs.of(octets[place : place + 1], len(data) - 1 - place)[0] == added[place]
    followed = crcs.followed(np.array([crc32c(data)], np.uint32), len(more))[0]
    assert followed ^ crc32c(more) == crc32c(data + more)


# --- which share an event ----------------------------------------------------------------------------------------

sequences = st.lists(
    st.tuples(
        st.integers(0, 2),  # step
        st.sampled_from([0.0, 0.004, -0.004, 0.0099, 0.011, -1e308, 1e308]),  # wall time
        st.sampled_from([0, 1, 2, 3, 70_000 - (1 << 16), 70_000]),  # two of them are one in 16 bits
        st.sampled_from([False] * 9 + [True]),  # another session
    ),
    min_size=1,
    max_size=60,
)


@given(sequences, st.sampled_from([3, VALUES_MAX]))
def test_arrays_begin_events_where_one_by_one_does(sequence: list[tuple[int, float, int, bool]], most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "VALUES_MAX", most)
        begins = [True, *(begin for *_, begin in sequence[1:])]
        steps, times, tags, _ = map(list, zip(*sequence, strict=True))
        expected: list[int] = []
        bounds = [index for index, begin in enumerate(begins) if begin] + [len(sequence)]
        for begin, end in itertools.pairwise(bounds):
            expected += [begin + start for start in walk(steps[begin:end], times[begin:end], tags[begin:end])]
        found = starts_of(np.array(begins), np.array(steps), np.array(times), np.array(tags))
        assert found.tolist() == expected
        for begin, end in zip(expected, [*expected[1:], len(sequence)], strict=True):
            assert len(set(tags[begin:end])) == end - begin <= most, "a tag once in an event"
            assert len(set(steps[begin:end])) == 1
            assert all(abs(time - times[begin]) <= WALL_SECONDS for time in times[begin:end])


def test_a_hundred_tags_of_a_step_are_one_event() -> None:
    assert walk([7] * 100, [1.0] * 100, range(100)) == [0]


@pytest.mark.parametrize("tags", [[70_000, 4_464, 70_000], [4_464, 70_000, 4_464], [5, 65_541, 131_077, 5]])
def test_a_tag_that_comes_again_begins_an_event_also_behind_one_that_is_alike_in_16_bits(tags: list[int]) -> None:
    count = len(tags)
    arrays = np.zeros(count, np.int64), np.ones(count), np.array(tags)
    assert (
        starts_of(np.arange(count) == 0, *arrays).tolist() == [0, count - 1] == walk([0] * count, [1.0] * count, tags)
    )


def test_an_event_has_a_thousand_values_at_the_most() -> None:
    count = 2500
    times = [1.0] * count
    assert walk([7] * count, times, range(count)) == [0, 1000, 2000]
    arrays = np.full(count, 7), np.array(times), np.arange(count)
    assert starts_of(np.zeros(count, np.bool_) | (np.arange(count) == 0), *arrays).tolist() == [0, 1000, 2000]
