"""Records and definitions: bytes to values and back, and nothing but RemoteProtocolError for anything else."""

from __future__ import annotations

import struct
from functools import partial
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbxd_client.protocol import kinds, records
from tbxd_client.protocol.records import (
    LocalProtocolError,
    Record,
    RemoteProtocolError,
    RowDefinition,
    RunDefinition,
    TagDefinition,
    pack_definition,
    pack_record_head,
    pack_scalar,
    pack_text_record,
    record_length,
    unpack_definition,
    unpack_record,
)

steps = st.integers(records.STEP_MIN, records.STEP_MAX)
times = st.floats(allow_nan=False)
numbers = st.integers(0, 2**32 - 1)


@given(numbers, steps, times, st.floats())
def test_a_scalar_is_34_bytes_of_plain_msgpack(tag: int, step: int, wall_time: float, value: float) -> None:
    packed = pack_scalar(tag, step, wall_time, value)
    assert len(packed) == records.SCALAR_BYTES == 34 == record_length(packed)
    kind, got_tag, got_step, got_time, got_value = msgpack.unpackb(packed)
    assert (kind, got_tag, got_step, got_time) == (kinds.SCALAR, tag, step, wall_time)
    assert struct.pack("d", got_value) == struct.pack("d", value) or value != value
    record = unpack_record(packed)
    assert (record.tag, record.step, record.wall_time) == (tag, step, wall_time)


@given(numbers, steps, times, st.dictionaries(st.text(max_size=5), st.integers(0, 9), max_size=5), st.binary())
def test_a_record_with_an_array_is_plain_msgpack_and_comes_back(
    tag: int, step: int, wall_time: float, attrs: dict[str, int], payload: bytes
) -> None:
    packed = pack_record_head(kinds.HISTOGRAM, tag, step, wall_time, attrs, len(payload)) + payload
    assert record_length(packed) == len(packed)
    expected = [kinds.HISTOGRAM, len(packed), tag, step, wall_time, attrs, payload]
    assert msgpack.unpackb(packed) == expected
    assert unpack_record(packed) == Record(kinds.HISTOGRAM, tag, step, wall_time, attrs, payload)


@given(st.dictionaries(st.text(min_size=1, max_size=5), st.integers(0, 9), max_size=20), st.binary(), st.integers())
def test_a_record_may_be_made_longer_and_says_the_same(attrs: dict[str, int], payload: bytes, excess: int) -> None:
    head = pack_record_head(kinds.HISTOGRAM, 1, 2, 3.0, attrs, len(payload))
    longer = records.filled(head, excess)
    assert record_length(longer + payload) == len(longer + payload)
    record = unpack_record(longer + payload)
    record.attrs.pop("", None)
    assert record == unpack_record(head + payload)
    assert len(longer) - len(head) <= records.FILL_BYTES_MAX
    assert len(attrs) >= 15 or (len(longer) - len(head) - excess) % records.ALIGNMENT == 0


@given(numbers, steps, times, st.none() | st.text())
def test_a_record_with_text_comes_back(tag: int, step: int, wall_time: float, text: str | None) -> None:
    packed = pack_text_record(kinds.TEXT, tag, step, wall_time, {}, text)
    assert record_length(packed) == len(packed)
    assert unpack_record(packed) == Record(kinds.TEXT, tag, step, wall_time, {}, text)


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: b"\x97\x03\xce\0\0\0\x40" + tail))
def test_any_bytes_are_a_record_or_a_remote_protocol_error(data: bytes) -> None:
    try:
        length = record_length(data)
        if length is not None:
            unpack_record(data[:length])
    except RemoteProtocolError:
        pass


definitions = st.one_of(
    st.builds(
        partial(RunDefinition),  # of a named tuple itself hypothesis draws what has a default, too
        st.integers(0, records.RUNS_MAX - 1),
        st.just("/a/b"),
        st.just("host"),
        numbers,
        st.floats(0, 1e10),
        file_name=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50),
    ),
    st.builds(
        partial(TagDefinition),  # of a named tuple itself hypothesis draws what has a default, too
        st.integers(0, records.TAGS_MAX - 1),
        st.integers(0, records.RUNS_MAX - 1),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=100),
        numbered=st.booleans(),
    ),
    st.builds(
        RowDefinition,
        st.integers(0, records.ROWS_MAX - 1),
        st.integers(0, records.RUNS_MAX - 1),
        st.lists(st.integers(0, records.TAGS_MAX - 1), max_size=20).map(tuple),
    ),
)


@given(definitions)
def test_a_definition_comes_back(definition: records.Definition) -> None:
    assert unpack_definition(msgpack.unpackb(pack_definition(definition))) == definition


def test_a_definition_of_a_later_version_is_passed_over() -> None:
    assert unpack_definition({"k": "something new", "id": 1}) is None
    assert unpack_definition({"k": "tag", "id": 1, "run": 0, "tag": "x", "later": 7}) == TagDefinition(1, 0, "x")


@pytest.mark.parametrize("fields", [{}, {"id": 1}, {"k": 7}, {"k": None}, {"k": b"run"}])
def test_a_map_without_a_kind_is_no_definition_of_any_version(fields: dict[str, object]) -> None:
    """Found by fuzzing: a megabyte of empty maps was a million definitions of a later version."""
    with pytest.raises(RemoteProtocolError, match="of a kind with a name"):
        unpack_definition(fields)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(
    json_like | st.fixed_dictionaries({"k": st.sampled_from(["run", "tag", "row"]), "id": json_like, "run": json_like})
)
def test_any_value_is_a_definition_or_a_remote_protocol_error(value: object) -> None:
    try:
        unpack_definition(value)
    except RemoteProtocolError:
        pass


@pytest.mark.parametrize("length", [0, 5, records.RECORD_BYTES_MAX + 1])
def test_a_record_that_lies_about_its_length_is_refused_before_memory_is_taken(length: int) -> None:
    head = bytearray(pack_text_record(kinds.TEXT, 0, 0, 0.0, {}, "x"))
    head[3:7] = length.to_bytes(4, "big")
    with pytest.raises(RemoteProtocolError, match="bytes"):
        record_length(bytes(head))


def test_what_is_too_large_is_refused_where_it_is_made() -> None:
    with pytest.raises(LocalProtocolError, match="1,073,741,824"):
        pack_record_head(kinds.HISTOGRAM, 0, 0, 0.0, {}, records.RECORD_BYTES_MAX)
    with pytest.raises(LocalProtocolError, match="attributes"):
        pack_record_head(kinds.HISTOGRAM, 0, 0, 0.0, {"x": "y" * (2 << 20)}, 1)
    with pytest.raises(LocalProtocolError, match="definition"):
        pack_definition(RunDefinition(0, "/" * (2 << 20), "", 0, 0.0))
    for definition, what in (
        (RunDefinition(records.RUNS_MAX, "/a", "", 0, 0.0), "100,000 runs"),
        (TagDefinition(records.TAGS_MAX, 0, "t"), "1,000,000 tags"),
        (RowDefinition(records.ROWS_MAX, 0, ()), "100,000 rows"),
    ):
        with pytest.raises(LocalProtocolError, match=what):
            pack_definition(definition)


@pytest.mark.parametrize("payload", [b"x", b"x" * (2 << 20), "x", "é" * (1 << 20), None])
def test_attributes_that_are_too_large_are_not_read_either(payload: bytes | str | None) -> None:
    def packed(attrs_bytes: int) -> bytes:
        attrs = msgpack.packb({"x": bytes(attrs_bytes)})
        body = attrs + msgpack.packb(payload)
        head = records.RECORD_HEAD_STRUCT
        length = head.size + len(body)
        return head.pack(0x97, kinds.TEXT, 0xCE, length, 0xCE, 0, 0xD3, 0, 0xCB, 0.0) + body

    assert unpack_record(packed(records.ATTRS_BYTES_MAX - 100)).payload == payload
    with pytest.raises(RemoteProtocolError, match=f"{records.ATTRS_BYTES_MAX:,}"):
        unpack_record(packed(records.ATTRS_BYTES_MAX + 100))


@pytest.mark.parametrize("kind", [kinds.HISTOGRAM, kinds.MESH, kinds.EVENT])
@pytest.mark.parametrize("attrs", [{}, {"dtype": "<f4", "": bytes(20)}, {"bins": [0.5] * 1000}], ids=len)
@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_large_array_is_a_view_of_what_it_was_read_from(kind: int, attrs: dict[str, Any], size: int) -> None:
    payload = bytes(range(250)) * (size // 250)
    whole = records.pack_record_head(kind, 7, -3, 1.5, attrs, len(payload)) + payload
    record = unpack_record(memoryview(whole))
    assert (record.kind, record.tag, record.step, record.wall_time, record.attrs) == (kind, 7, -3, 1.5, attrs)
    assert record.payload == payload
    viewed = size == 100_000 and kind in kinds.ARRAY_KINDS and "bins" not in attrs
    assert isinstance(record.payload, memoryview if viewed else bytes)
    for cut in (whole[:-1], whole + b"\0"):
        with pytest.raises(RemoteProtocolError):
            unpack_record(cut)
    for place in (7, 12, 21, 30):  # where the mark of a field, or of the attributes, stands
        with pytest.raises(RemoteProtocolError):
            unpack_record(whole[:place] + b"\xc0" + whole[place + 1 :])
