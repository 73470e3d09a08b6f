"""The messages between client and daemon: bytes in, values out.

A message is one ZeroMQ message of one frame, a msgpack array ``[version, name, field, …]``, and for `Data` a second
frame with a stretch of a session's stream. No sockets, clocks or threads here. A message is a named tuple and a row in
``MESSAGES``; ``docs/PROTOCOL.md`` describes each.

The stretches of `Data` may be cut anywhere: the receiver reassembles the stream, finds duplicates by the position, and
says with `Welcome` where to continue. `Ack` confirms what has been written; its ``limit`` is the credit of the client,
the flow control.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgpack

from .records import PATH_ERRORS, SESSION_BYTES, LocalProtocolError, RemoteProtocolError

VERSION = 1  # the newest that this tbxd speaks,
OLDEST = 1  # and the oldest
# What has the same layout in every version: so sides that have no version in common can say so, and who is newer can
# ask an older daemon how it is, and to make way.
ALWAYS = frozenset(("ask", "answer", "refused"))
DATA_BYTES_MAX = 1 << 20  # payload of one Data
MESSAGE_BYTES_MAX = 1 << 20  # a first frame
FRAME_BYTES_MAX = 4 << 20  # what a socket accepts at all (ZMQ_MAXMSGSIZE)
ANSWER_BYTES_MAX = 256 << 20  # of the daemon to whoever has asked: it names every run and session
PART_BYTES = MESSAGE_BYTES_MAX // 2  # about so much of a `Report` or `Ack` goes into one message
TEXT_BYTES_MAX = 64 << 10

ELSEWHERE = "elsewhere"  # what the reason of a `Refused` begins with whose run is a folder that the daemon does not see
RECORDS, DEFINITIONS = 0, 1  # the streams of a session
_COUNT_BYTES = 9  # of a number, or of the head of a text or a map
_REPORT = msgpack.packb("report")  # behind the head of the array and the version, a byte each
_REPORT_END = 2 + len(_REPORT)


class OtherVersion(RemoteProtocolError):
    """A message of a ``version`` that this side does not speak."""

    def __init__(self, version: int) -> None:
        spoken = f"{VERSION}" if OLDEST == VERSION else f"{OLDEST} to {VERSION}"
        super().__init__(f"protocol version {version}; this tbxd speaks {spoken}. Update the older side")
        self.version = version


class TooLong(RemoteProtocolError):
    """A dispensable message exceeds the size limit: an older client's `Report` of very many runs."""


class Hello(NamedTuple):
    """A session begins, or continues with a daemon that may not know it.

    ``start`` is the position of the first record that the client still has. ``journal`` is the folder of its
    journal on ``host``, which a daemon on the same host adopts when the trainer is gone. ``token`` is empty on ipc.
    ``clock`` is the client's time in milliseconds since the boot of its system, and ``boot`` identifies that boot
    (`process_identity`). Older clients do not send these two.
    """

    session: bytes
    start: int
    pid: int
    host: str
    journal: str
    program: str
    token: str
    boot: str = ""
    clock: int = 0


class Data(NamedTuple):
    """A stretch of a stream that begins at ``position``."""

    session: bytes
    stream: int
    position: int
    payload: bytes


class Stored(NamedTuple):
    """``length`` bytes of the records from ``position`` are in ``<segment>.segment`` of the session's journal.

    Instead of a `Data` with these bytes, to a daemon whose `Welcome` says that it can read the journal.
    """

    session: bytes
    position: int
    length: int
    segment: int


class Flush(NamedTuple):
    """Write everything before ``position`` now instead of with the next batch. ``last`` is 1 if nothing follows.

    ``leftovers`` is a number that grows with each flush that also asks for the records of ended processes, in their
    journals, for the same runs; it returns in an `Ack` when they are written. 0: not asked for.
    """

    session: bytes
    position: int
    last: int = 0
    leftovers: int = 0


class Report(NamedTuple):
    """The counts of the client: ``runs`` maps the number of a run to [accepted, {reason: dropped}].

    A daemon whose `Welcome` says that it keeps them only gets runs whose counts have changed. Very many runs take
    several messages.
    """

    session: bytes
    runs: dict[int, Any]


class Goodbye(NamedTuple):
    """The session is over; it sends nothing more."""

    session: bytes


class Welcome(NamedTuple):
    """The daemon has the streams up to these positions, and accepts records up to ``limit``.

    ``journal`` is 1 if it can read the session's journal, and accepts `Stored`; older daemons do not send it.
    ``leftovers`` is 1 if it answers a `Flush` with such a number; older daemons do not. ``reports`` is 1 if it keeps
    the counts of runs that a `Report` does not name; older daemons forget them.
    """

    session: bytes
    records: int
    definitions: int
    limit: int
    journal: int = 0
    leftovers: int = 0
    reports: int = 0


class Ack(NamedTuple):
    """Everything before ``written`` is in the event files; the daemon accepts records up to ``limit``.

    ``runs`` maps the numbers of changed runs to [records settled, {reason: refused among them}], counted since the
    session began; very many runs take several messages. Everything before ``held`` is written, or only waits for
    other ranks of the job. ``leftovers`` is the number of the last `Flush` whose leftovers are written. ``trouble``
    is the reason why a run of the session cannot be written, or "". Older daemons do not send these three.
    """

    session: bytes
    written: int
    limit: int
    runs: dict[int, Any]
    held: int = 0
    leftovers: int = 0
    trouble: str = ""


class Unknown(NamedTuple):
    """The daemon does not know the session: say Hello."""

    session: bytes


class Refused(NamedTuple):
    """The daemon accepts nothing more of this session, or of this connection if ``session`` is zero."""

    session: bytes
    reason: str


class Ask(NamedTuple):
    """A question of the command line: ``status``, ``stop`` or ``reload``."""

    what: str
    token: str


class Answer(NamedTuple):
    """The answer to an `Ask`."""

    value: dict[str, Any]


Message = Hello | Data | Stored | Flush | Report | Goodbye | Welcome | Ack | Unknown | Refused | Ask | Answer

MESSAGES: dict[str, type[Message]] = {
    "hello": Hello,
    "data": Data,
    "stored": Stored,
    "flush": Flush,
    "report": Report,
    "goodbye": Goodbye,
    "welcome": Welcome,
    "ack": Ack,
    "unknown": Unknown,
    "refused": Refused,
    "ask": Ask,
    "answer": Answer,
}
_NAMES = {kind: name for name, kind in MESSAGES.items()}
_TYPES: dict[str, type] = {"bytes": bytes, "int": int, "str": str, "dict": dict}
_FIELDS = {  # not by typing.get_type_hints, which takes a millisecond of every import
    name: [
        _TYPES[kind.__annotations__[key].__forward_arg__.partition("[")[0]] for key in kind._fields if key != "payload"
    ]
    for name, kind in MESSAGES.items()
}
# How many of them there have to be: the rest were added later, and have defaults.
_FIELDS_MIN = {name: len(_FIELDS[name]) - len(kind._field_defaults) for name, kind in MESSAGES.items()}


def pack(message: Message, version: int = 0) -> list[bytes]:
    """Return the frames of a message, in a version that the other side speaks; 0 is our newest."""
    version = version or VERSION
    if isinstance(message, Data):
        if len(message.payload) > DATA_BYTES_MAX:
            raise LocalProtocolError(f"{len(message.payload):,} bytes in one message; at most {DATA_BYTES_MAX:,}")
        head = [version, "data", message.session, message.stream, message.position]
        return [msgpack.packb(head), message.payload]
    return [msgpack.packb([version, _NAMES[type(message)], *message], unicode_errors=PATH_ERRORS)]


def unpack(frames: list[bytes]) -> Message:
    """Return the message in ``frames``; raises as `unpack_with_version`."""
    return unpack_with_version(frames)[1]


def parts(runs: dict[int, Any]) -> Iterator[dict[int, Any]]:
    """Split the counts of a `Report` or an `Ack` into parts, one for each message; at least one, even if empty."""
    part: dict[int, Any] = {}
    size = 0
    for number, counts in runs.items():
        if size > PART_BYTES:
            yield part
            part, size = {}, 0
        part[number] = counts
        size += _COUNT_BYTES * 2 + sum(len(reason) * 4 + _COUNT_BYTES for reason in counts[1])
    yield part


def unpack_with_version(frames: list[bytes], bytes_max: int = MESSAGE_BYTES_MAX) -> tuple[int, Message]:
    """Return the version of the message in ``frames``, and the message.

    Args:
        frames: as received.
        bytes_max: the size limit of the first of them.

    Raises:
        OtherVersion: the message has a version that this side does not speak.
        TooLong: the message is too long and dispensable.
        RemoteProtocolError: the frames are not a message; the text says why.
    """
    if not 1 <= len(frames) <= 2 or len(frames[0]) > bytes_max:
        wrong = f"a message of {len(frames)} frames and {len(frames[0]) if frames else 0:,} bytes"
        report = len(frames) == 1 and frames[0][:_REPORT_END].endswith(_REPORT)
        raise (TooLong if report else RemoteProtocolError)(f"{wrong}; at most {bytes_max:,} are possible")
    try:
        values = msgpack.unpackb(
            frames[0],
            strict_map_key=False,
            unicode_errors=PATH_ERRORS,
            max_array_len=100_000,
            max_map_len=100_000,
            max_str_len=TEXT_BYTES_MAX,
            max_bin_len=TEXT_BYTES_MAX,
            max_ext_len=0,
        )
    except Exception as error:  # msgpack raises ValueError, its own classes, UnicodeDecodeError, RecursionError
        raise RemoteProtocolError(f"not a message: {type(error).__name__}: {error}") from error
    if type(values) is not list or len(values) < 2 or type(values[0]) is not int or type(values[1]) is not str:
        raise RemoteProtocolError("a message is an array of a version, a name and fields")
    version, name, *fields = values
    if not OLDEST <= version <= VERSION and (name not in ALWAYS or version < 1):
        raise OtherVersion(version)
    kind = MESSAGES.get(name)
    if kind is None:
        raise RemoteProtocolError(f"unknown message {name[:40]!r}")
    expected = _FIELDS[name]
    if len(fields) < _FIELDS_MIN[name]:
        raise RemoteProtocolError(f"{name}: {len(fields)} fields; {_FIELDS_MIN[name]} are expected")
    fields = fields[: len(expected)]  # a later version may add fields at the end
    for value, wanted in zip(fields, expected, strict=False):
        if type(value) is not wanted or (isinstance(value, int) and not 0 <= value < 1 << 63):
            raise RemoteProtocolError(f"{name}: {type(value).__name__} where {wanted.__name__} is expected")
    if expected[0] is bytes and len(fields[0]) != SESSION_BYTES:
        raise RemoteProtocolError(f"{name}: a session has {SESSION_BYTES} bytes")
    if kind is Data:
        if len(frames) != 2 or len(frames[1]) > DATA_BYTES_MAX:
            raise RemoteProtocolError("data without its stretch of the stream, or with one that is too long")
        fields.append(frames[1])
    elif len(frames) != 1:
        raise RemoteProtocolError(f"{name}: {len(frames)} frames")
    return version, kind(*fields)
