"""The messages between client and daemon: bytes in, values out.

A message is one ZeroMQ message of one frame, a msgpack array ``[version, name, field, …]``, and for `Data` a second
frame with a stretch of a session's stream. No sockets, clocks or threads here. A message is a named tuple and a row in
``MESSAGES``; ``docs/PROTOCOL.md`` describes each.

The stretches of `Data` may be cut anywhere: the receiver puts the stream together again, knows by the position what
it already has, and says with `Welcome` where to go on. What has been written is told with `Ack`; how far a client may
send ahead of that is its ``limit``, the flow control.
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
    """A message that others can do without is longer than one may be: an older client's `Report` of very many runs."""


class Hello(NamedTuple):
    """A session begins, or goes on with a daemon that may not know it.

    ``start`` is the position of the first record that the client still has. ``journal`` is the folder of its
    journal on ``host``, where a daemon on the same host may look when the trainer is gone. ``token`` is empty on ipc.
    ``boot`` and ``clock`` say what time it is there, as `process_identity` has it: milliseconds since the start of
    which system. Older clients do not say these two.
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
    """Write everything before ``position`` now instead of with the next batch. ``last`` is 1 where nothing follows.

    ``leftovers`` is a number that grows with each flush which also wants to have written what processes that have ended
    have left in their journals for the same runs; it comes back in an `Ack` when that is so. 0: it is not wanted.
    """

    session: bytes
    position: int
    last: int = 0
    leftovers: int = 0


class Report(NamedTuple):
    """What the client has counted: ``runs`` maps the number of a run to [accepted, {reason: dropped}].

    To a daemon whose `Welcome` says that it keeps them, only runs of which that has changed; of very many runs in
    several messages.
    """

    session: bytes
    runs: dict[int, Any]


class Goodbye(NamedTuple):
    """The session is over; nothing of it will come again."""

    session: bytes


class Welcome(NamedTuple):
    """Where to go on: the daemon has the streams up to here, and takes records up to ``limit``.

    ``journal`` is 1 where it can read the session's journal, and takes `Stored`; older daemons do not say.
    ``leftovers`` is 1 where it answers a `Flush` with such a number; older daemons do not. ``reports`` is 1 where it
    keeps what it was told of runs that a `Report` does not name; older daemons forget it.
    """

    session: bytes
    records: int
    definitions: int
    limit: int
    journal: int = 0
    leftovers: int = 0
    reports: int = 0


class Ack(NamedTuple):
    """Everything before ``written`` is in the event files; records are taken up to ``limit``.

    ``runs`` maps the numbers of the runs that this is news of to [records settled, {reason: refused among them}],
    counted since the session began; of very many runs in several messages. Everything before ``held`` is written, or
    waits for other ranks of the job and for nothing else. ``leftovers`` is the number of the last `Flush` whose
    leftovers are written. ``trouble`` is what keeps a run of the session from being written, "" for nothing. Older
    daemons do not say these three.
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
    """The daemon takes nothing more of this session, or of this connection where ``session`` is zero."""

    session: bytes
    reason: str


class Ask(NamedTuple):
    """A question of the command line: ``status``, ``stop`` or ``reload``."""

    what: str
    token: str


class Answer(NamedTuple):
    """What was asked for."""

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
    """The frames of a message, in a version that the other side speaks; 0 is our newest."""
    version = version or VERSION
    if isinstance(message, Data):
        if len(message.payload) > DATA_BYTES_MAX:
            raise LocalProtocolError(f"{len(message.payload):,} bytes in one message; at most {DATA_BYTES_MAX:,}")
        head = [version, "data", message.session, message.stream, message.position]
        return [msgpack.packb(head), message.payload]
    return [msgpack.packb([version, _NAMES[type(message)], *message], unicode_errors=PATH_ERRORS)]


def unpack(frames: list[bytes]) -> Message:
    """The message in ``frames``; raises as `unpack_with_version`."""
    return unpack_with_version(frames)[1]


def parts(runs: dict[int, Any]) -> Iterator[dict[int, Any]]:
    """What a `Report` or an `Ack` says of runs, in pieces for a message each; one that is empty where it is."""
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
    """The message in ``frames``, and the version that it is written in.

    Args:
        frames: as they have come.
        bytes_max: of the first of them.

    Raises:
        OtherVersion: it is of a version that this side does not speak.
        TooLong: it is too long, and of no importance.
        RemoteProtocolError: it is none; the text says why.
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
