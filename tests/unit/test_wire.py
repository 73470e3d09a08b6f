"""Messages: values to frames and back; anything else is a RemoteProtocolError that says what was wrong."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tbxd_client.protocol import wire
from tbxd_client.protocol.records import LocalProtocolError, RemoteProtocolError

SESSION = bytes(range(12))
sizes = st.integers(0, 2**63 - 1)

messages = st.one_of(
    st.builds(wire.Hello, st.just(SESSION), sizes, sizes, *[st.text()] * 5, sizes),
    st.builds(wire.Data, st.just(SESSION), st.sampled_from([0, 1]), sizes, st.binary()),
    st.builds(wire.Stored, st.just(SESSION), sizes, sizes, sizes),
    st.builds(wire.Flush, st.just(SESSION), sizes, sizes, sizes),
    st.builds(wire.Report, st.just(SESSION), st.dictionaries(st.integers(0, 9), st.lists(st.integers(0, 9)))),
    st.builds(wire.Goodbye, st.just(SESSION)),
    st.builds(wire.Welcome, st.just(SESSION), sizes, sizes, sizes, sizes, sizes, sizes),
    st.builds(
        wire.Ack,
        st.just(SESSION),
        sizes,
        sizes,
        st.dictionaries(st.integers(0, 9), st.lists(st.integers(0, 9))),
        sizes,
        sizes,
        st.text(),
    ),
    st.builds(wire.Unknown, st.just(SESSION)),
    st.builds(wire.Refused, st.just(SESSION), st.text()),
    st.builds(wire.Ask, st.text(), st.text()),
    st.builds(wire.Answer, st.dictionaries(st.text(), st.integers(0, 9))),
)


@given(messages)
def test_a_message_comes_back(message: wire.Message) -> None:
    assert wire.unpack(wire.pack(message)) == message


def test_every_message_is_tried_above() -> None:
    assert set(wire.MESSAGES.values()) == set(wire.Message.__args__)


@given(st.lists(st.binary(max_size=100), max_size=3))
def test_any_frames_are_a_message_or_a_remote_protocol_error(frames: list[bytes]) -> None:
    try:
        wire.unpack(frames)
    except RemoteProtocolError:
        pass


values = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()


@given(st.sampled_from(sorted(wire.MESSAGES)), st.lists(values, max_size=8), st.lists(st.binary(), max_size=1))
def test_a_message_with_any_fields_is_one_or_a_remote_protocol_error(
    name: str, fields: list[object], more: list[bytes]
) -> None:
    try:
        message = wire.unpack([msgpack.packb([wire.VERSION, name, *fields]), *more])
    except RemoteProtocolError:
        return
    assert wire.MESSAGES[name] is type(message)


def test_a_later_version_may_add_fields_but_not_change_the_version() -> None:
    assert wire.unpack([msgpack.packb([1, "goodbye", SESSION, "later"])]) == wire.Goodbye(SESSION)
    with pytest.raises(RemoteProtocolError, match="version 2"):
        wire.unpack([msgpack.packb([2, "goodbye", SESSION])])


def test_a_field_that_was_added_later_may_be_missing() -> None:
    assert wire.unpack([msgpack.packb([1, "welcome", SESSION, 1, 2, 3])]) == wire.Welcome(SESSION, 1, 2, 3, 0)
    with pytest.raises(RemoteProtocolError, match="3 fields; 4 are expected"):
        wire.unpack([msgpack.packb([1, "welcome", SESSION, 1, 2])])


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [msgpack.packb([1, "data", SESSION, 0, 0])],
        [msgpack.packb([1, "data", SESSION, 0, 0]), bytes(wire.DATA_BYTES_MAX + 1)],
        [msgpack.packb([1, "data", SESSION, 0, -1]), b""],
        [msgpack.packb([1, "data", SESSION, 0, 2**63]), b""],
        [msgpack.packb([1, "goodbye", b"short"])],
        [msgpack.packb([1, "goodbye", SESSION]), b"more"],
        [msgpack.packb([1, "nonsense"])],
        [b"\x81" * 100_000],  # maps in maps
        [b"\x91" * 2000],
        [bytes(wire.MESSAGE_BYTES_MAX + 1)],
    ],
)
def test_what_is_no_message_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(RemoteProtocolError):
        wire.unpack(frames)


def test_a_stretch_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(LocalProtocolError):
        wire.pack(wire.Data(SESSION, 0, 0, bytes(wire.DATA_BYTES_MAX + 1)))
