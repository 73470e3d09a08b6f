"""Records and definitions: the contents of a session's streams, as bytes and as values.

A session's journal holds two streams of plain msgpack. Each call that logs adds a *record*, one array, in the order of
the calls. The *definitions* give names to the numbers in records (runs, tags, rows), so that a scalar is 34 bytes of
fixed layout. A position in a stream is a byte offset since the session began; it only grows, and a record is identified
by the position of its end. Nothing here does I/O or reads a clock.

``docs/PROTOCOL.md`` is the description of these bytes; a test compares the two.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgpack

from .kinds import ARRAY_KINDS, SCALAR
from .limits import LIST_MAX, ROW_VALUES_MAX

# --- limits, checked on both sides -----------------------------------------------------------------------------

RECORD_BYTES_MAX = 1 << 30  # one record, payload included
ATTRS_BYTES_MAX = 2 << 20  # everything of a record that is not its tag, time or payload
DEFINITION_BYTES_MAX = 1 << 20  # one run, tag or row definition
TAG_BYTES_MAX = 1024  # TensorBoard serves 500 characters without trouble
DESCRIPTION_BYTES_MAX = 16 << 10
PATH_ERRORS = "surrogateescape"  # how bytes of a path that are no UTF-8 are in a text, and become those bytes again
_PATHS = ("dir", "above")  # what may hold such
PATH_BYTES_MAX = 4096  # PATH_MAX of Linux
RUNS_MAX = 100_000  # runs a session may define
TAGS_MAX = 1_000_000  # tags a session may define
ROWS_MAX = 100_000  # rows a session may define
RANKS_MAX = 100_000  # processes of a job
JOB_BYTES_MAX = 255  # its name
SYSTEM_SECONDS_MIN, SYSTEM_SECONDS_MAX = 1, 3600  # between samples of the node that a run asks for
UMASK_MAX = 0o777
VIEW_BYTES_MAX = 100
LAUNCHED_BYTES_MAX = 200
ORIGIN_BYTES_MAX = 100  # of each text that tells a process from others
REDUCE_BYTES_MAX = 16  # what becomes of a tag's values of several ranks, a word

# --- layout of records -------------------------------------------------------------------------------------------

# A scalar: [1, tag: uint32, step: int64, wall time: float64, value: float64], every number in its widest msgpack
# form, so that each scalar has 34 bytes and many of them are one structured array.
SCALAR_FIELDS = (  # name and type as in `struct`, big-endian; h, k and m* are msgpack's markers between the numbers
    *(("h", "B"), ("k", "B"), ("m0", "B"), ("tag", "I"), ("m1", "B"), ("step", "q")),
    *(("m2", "B"), ("wall_time", "d"), ("m3", "B"), ("value", "d")),
)
SCALAR_STRUCT = struct.Struct(">" + "".join(kind for _, kind in SCALAR_FIELDS))
SCALAR_BYTES = SCALAR_STRUCT.size
# The same with all before the step as one number, `scalar_head`: seven arguments instead of eleven take 60 ns less.
SCALAR_HEAD_STRUCT = struct.Struct(">Qqcdcd")
assert SCALAR_HEAD_STRUCT.size == SCALAR_BYTES
SCALAR_HEAD = 0x95  # array of 5
UINT32, INT64, FLOAT64, BIN32 = 0xCE, 0xD3, 0xCB, 0xC6
FLOAT64_BYTE = bytes([FLOAT64])  # which struct copies, where it looks at a number for 10 ns

# Every other record: [kind, bytes of the whole record: uint32, tag, step, wall time, attrs: map, payload]. Its
# length stands where the scalar has its tag, so a reader steps over what it does not know.
RECORD_HEAD_STRUCT = struct.Struct(">BBBIBIBqBd")
RECORD_HEAD = 0x97  # array of 7
_PREFIX = struct.Struct(">BBBI")
PREFIX_BYTES = _PREFIX.size
_PAYLOAD_HEAD = struct.Struct(">BI")

# A large payload of a kind with arrays is not copied when it is read, if its attributes are short.
_VIEWED_BYTES_MIN = 64 << 10
_VIEWED_ATTRS_BYTES = 4096
_RECORD_LIMITS: dict[str, int] = {
    "max_array_len": LIST_MAX,
    "max_map_len": 64,
    "max_str_len": RECORD_BYTES_MAX,
    "max_bin_len": RECORD_BYTES_MAX,
    "max_ext_len": 0,
}

# An attribute without meaning makes a record longer, so that its payload begins where it is copied to fastest.
ALIGNMENT = 64  # a processor's cache line
_FILL = b"\xa0\xc4"  # the empty string, and the mark of up to 255 bytes, whose number comes next
_FIXMAP = 0x80
_NO_ATTRS = bytes((_FIXMAP,))
FILL_BYTES_MAX = ALIGNMENT + len(_FILL)

SESSION_BYTES = 12  # the id of a session
POSITION_MAX = (1 << 60) - 1  # of a stream: no session gets there; 15 hexadecimal digits in a ledger
STEP_MIN, STEP_MAX = -(1 << 63), (1 << 63) - 1


class ProtocolError(Exception):
    """The bytes do not follow ``docs/PROTOCOL.md``."""


class LocalProtocolError(ProtocolError):
    """This program tried to make bytes that the protocol does not allow."""


class RemoteProtocolError(ProtocolError):
    """The other side sent, or a file holds, bytes that the protocol does not allow."""


class RunDefinition(NamedTuple):
    """A folder that TensorBoard shows as one run.

    ``directory`` is absolute. ``host``, ``pid`` and ``created`` (seconds since the epoch) are the trainer's and go
    into the event file's name; ``file_name`` is the whole of it, as the trainer would have it, or empty.

    The process is ``rank`` of ``world`` processes of ``job``, at the job's start number ``attempt``, from 0 on.
    ``reduce``: the values of several ranks at one tag and step become one point.

    ``system``: seconds between samples of the node to show beside the run; 0 for none, None for the daemon's setting.
    ``above``: the folder of the writer that this run is a part of, if another. ``umask``: the trainer's, None if
    unknown. ``view``: the file system view of the trainer, and ``folder``: device and inode there of the folder (or of
    ``above``, if given), so that a daemon that sees other files under the same path notices. ``launched``: the process
    that has launched all ranks, if all are on one host (`job_identity.launched`).
    """

    id: int
    directory: str
    host: str
    pid: int
    created: float
    filename_suffix: str = ""
    file_name: str = ""
    rank: int = 0
    world: int = 1
    job: str = ""
    attempt: int = 0
    reduce: bool = False
    system: float | None = None
    above: str = ""
    umask: int | None = None
    view: str = ""
    folder: tuple[int, int] | None = None
    script: str = ""
    kin: str = ""
    parent: str = ""
    boot: str = ""
    began: int = 0
    resume: str = ""
    launched: str = ""


class TagDefinition(NamedTuple):
    """A tag of a run, with its metadata for TensorBoard. ``color`` is ``#rrggbb`` or empty.

    ``numbered``: its records have no step; the daemon gives each the step after the tag's last.
    ``reduce``: the reduction of the values of several ranks; empty is the default of its kind.
    """

    id: int
    run: int
    tag: str
    color: str = ""
    display_name: str = ""
    description: str = ""
    numbered: bool = False
    reduce: str = ""


class RowDefinition(NamedTuple):
    """The tags of the values of a row, in their order."""

    id: int
    run: int
    tags: tuple[int, ...]


Definition = RunDefinition | TagDefinition | RowDefinition


class Record:
    """The record of one call. ``payload`` is text, the bytes of an array (C order, little endian), or None.

    A large array is a view of the buffer that it was read from.
    """

    __slots__ = ("attrs", "kind", "payload", "step", "tag", "wall_time")

    def __init__(
        self,
        kind: int,
        tag: int,
        step: int,
        wall_time: float,
        attrs: dict[str, Any] | None = None,
        payload: bytes | memoryview | str | None = None,
    ) -> None:
        self.kind = kind
        self.tag = tag
        self.step = step
        self.wall_time = wall_time
        self.attrs = {} if attrs is None else attrs
        self.payload = payload

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]


# --- making bytes ----------------------------------------------------------------------------------------------


class _Packer(threading.local):
    """One packer for each thread: a new one for each call would allocate a megabyte, which takes longer."""

    def __init__(self) -> None:
        self.pack: Callable[[object], bytes] = msgpack.Packer().pack
        self.pack_paths: Callable[[object], bytes] = msgpack.Packer(unicode_errors=PATH_ERRORS).pack


_packer = _Packer()


def pack_scalar(tag: int, step: int, wall_time: float, value: float) -> bytes:
    """Return the 34 bytes of a scalar."""
    return SCALAR_STRUCT.pack(SCALAR_HEAD, SCALAR, UINT32, tag, INT64, step, FLOAT64, wall_time, FLOAT64, value)


def scalar_head(tag: int) -> int:
    """Return the first 8 bytes of the scalars of a tag, as a big-endian number."""
    return SCALAR_HEAD << 56 | SCALAR << 48 | UINT32 << 40 | tag << 8 | INT64


def tag_of_head(head: int) -> int:
    """Return the tag of scalars with this head."""
    return head >> 8 & 0xFFFFFFFF


def pack_record_head(
    kind: int,
    tag: int,
    step: int,
    wall_time: float,
    attrs: dict[str, Any],
    payload_bytes: int,
) -> bytes:
    """Return a record up to its binary payload, which follows in the stream.

    Raises:
        LocalProtocolError: the record or its attrs exceed the limits.
    """
    packed = _packer.pack(attrs)
    length = RECORD_HEAD_STRUCT.size + len(packed) + _PAYLOAD_HEAD.size + payload_bytes
    _check_record_length(length, len(packed))
    head = _head(kind, length, tag, step, wall_time)
    return head + packed + _PAYLOAD_HEAD.pack(BIN32, payload_bytes)


def filled(head: bytes, excess: int) -> bytes:
    """Lengthen the result of `pack_record_head`, so that the payload begins ``excess`` bytes further (modulo
    `ALIGNMENT`). It adds at most `FILL_BYTES_MAX` bytes, and none if they would exceed a limit."""
    fill = excess % ALIGNMENT
    attributes = head[RECORD_HEAD_STRUCT.size]
    if fill < len(_FILL) + 1:
        fill += ALIGNMENT
    first, kind, mark, length = _PREFIX.unpack_from(head)
    if excess % ALIGNMENT == 0 or not _FIXMAP <= attributes < _FIXMAP + 15 or length + fill > RECORD_BYTES_MAX:
        return head
    return b"".join(
        (
            _PREFIX.pack(first, kind, mark, length + fill),
            head[PREFIX_BYTES : RECORD_HEAD_STRUCT.size],
            bytes((attributes + 1,)),
            head[RECORD_HEAD_STRUCT.size + 1 : -_PAYLOAD_HEAD.size],
            _FILL,
            bytes((fill - len(_FILL) - 1,)),
            bytes(fill - len(_FILL) - 1),
            head[-_PAYLOAD_HEAD.size :],
        )
    )


def pack_text_record(
    kind: int, tag: int, step: int, wall_time: float, attrs: dict[str, Any], text: str | None
) -> bytes:
    """Return a whole record whose payload is text or nothing."""
    pack = _packer.pack
    packed = pack(attrs) if attrs else _NO_ATTRS
    payload = pack(text)
    length = RECORD_HEAD_STRUCT.size + len(packed) + len(payload)
    _check_record_length(length, len(packed))
    return _head(kind, length, tag, step, wall_time) + packed + payload


def _head(kind: int, length: int, tag: int, step: int, wall_time: float) -> bytes:
    return RECORD_HEAD_STRUCT.pack(RECORD_HEAD, kind, UINT32, length, UINT32, tag, INT64, step, FLOAT64, wall_time)


def _check_record_length(length: int, attrs_length: int) -> None:
    if length > RECORD_BYTES_MAX:
        raise LocalProtocolError(f"a record of {length:,} bytes; at most {RECORD_BYTES_MAX:,} are allowed")
    if attrs_length > ATTRS_BYTES_MAX:
        raise LocalProtocolError(f"attributes of {attrs_length:,} bytes; at most {ATTRS_BYTES_MAX:,}")


def pack_definition(definition: Definition) -> bytes:
    """Return a definition as a msgpack map. Empty fields are left out; a reader ignores unknown keys.

    Raises:
        LocalProtocolError: the definition exceeds the limits, or a field is invalid.
    """
    match definition:
        case RunDefinition():
            _check_number(definition.id, RUNS_MAX, "runs")
            fields: dict[str, Any] = {
                "k": "run",
                "id": definition.id,
                "dir": definition.directory,
                "host": definition.host,
                "pid": definition.pid,
                "created": definition.created,
                "suffix": definition.filename_suffix,
                "file": definition.file_name,
                "rank": definition.rank or None,
                "world": definition.world if definition.world > 1 else None,
                "job": definition.job,
                "attempt": definition.attempt or None,
                "reduce": definition.reduce or None,
                "system": definition.system,
                "above": definition.above,
                "umask": definition.umask,
                "view": definition.view,
                "folder": None if definition.folder is None else list(definition.folder),
                "script": definition.script,
                "kin": definition.kin,
                "parent": definition.parent,
                "boot": definition.boot,
                "began": definition.began or None,
                "resume": definition.resume,
                "launched": definition.launched,
            }
        case TagDefinition():
            _check_number(definition.id, TAGS_MAX, "tags")
            fields = {
                "k": "tag",
                "id": definition.id,
                "run": definition.run,
                "tag": definition.tag,
                "color": definition.color,
                "name": definition.display_name,
                "desc": definition.description,
                "numbered": definition.numbered or None,
                "reduce": definition.reduce,
            }
        case RowDefinition():
            _check_number(definition.id, ROWS_MAX, "rows of tags")
            fields = {
                "k": "row",
                "id": definition.id,
                "run": definition.run,
                "tags": list(definition.tags),
            }
    given = {key: value for key, value in fields.items() if value not in ("", None)}
    try:
        unpack_definition(given)  # one that the daemon does not take would be the end of the session
        packed = _packer.pack_paths(given)
    except (RemoteProtocolError, UnicodeEncodeError) as error:
        raise LocalProtocolError(str(error)) from error
    if len(packed) > DEFINITION_BYTES_MAX:
        raise LocalProtocolError(f"a definition of {len(packed):,} bytes; at most {DEFINITION_BYTES_MAX:,} are allowed")
    return packed


def _check_number(number: int, below: int, what: str) -> None:
    if number >= below:
        raise LocalProtocolError(f"more than {below:,} {what} in one process")


# --- reading bytes ---------------------------------------------------------------------------------------------


def record_length(buffer: bytes | bytearray | memoryview, offset: int = 0) -> int | None:
    """Return the length in bytes of the record at ``offset``, or None if the buffer ends before it is known.

    Raises:
        RemoteProtocolError: no record begins here.
    """
    if len(buffer) - offset < PREFIX_BYTES:
        return None
    head, kind, marker, number = _PREFIX.unpack_from(buffer, offset)
    if head == SCALAR_HEAD and kind == SCALAR and marker == UINT32:
        return SCALAR_BYTES
    if head != RECORD_HEAD or marker != UINT32 or kind > 0x7F:
        raise RemoteProtocolError(f"no record begins with bytes {head:02x} {kind:02x} {marker:02x}")
    if not RECORD_HEAD_STRUCT.size < number <= RECORD_BYTES_MAX:
        raise RemoteProtocolError(
            f"a record says that it has {number:,} bytes; "
            f"{RECORD_HEAD_STRUCT.size + 1} to {RECORD_BYTES_MAX:,} are allowed"
        )
    return int(number)


def unpack_record(buffer: bytes | memoryview) -> Record:
    """Return the record in the bytes of one whole record.

    Raises:
        RemoteProtocolError: the bytes are not a record.
    """
    try:
        if buffer[0] == SCALAR_HEAD:
            _, kind, _, tag, m1, step, m2, wall_time, m3, value = SCALAR_STRUCT.unpack(buffer)
            if (m1, m2, m3) != (INT64, FLOAT64, FLOAT64):
                raise RemoteProtocolError("a scalar whose numbers have other types than int64 and float64")
            return Record(kind, tag, step, wall_time, {}, struct.pack(">d", value))
        values = _unpack_large(buffer) or msgpack.unpackb(buffer, **_RECORD_LIMITS)
        head = RECORD_HEAD_STRUCT.unpack_from(buffer)
        kind, _, tag, step, wall_time, attrs, payload = values
    except RemoteProtocolError:
        raise
    except Exception as error:  # msgpack raises ValueError, its own classes, UnicodeDecodeError, RecursionError
        raise RemoteProtocolError(f"not a record: {type(error).__name__}: {error}") from error
    if (
        type(kind) is not int
        or type(tag) is not int
        or type(step) is not int
        or type(wall_time) is not float
        or type(attrs) is not dict
        or not (payload is None or type(payload) in (bytes, memoryview, str))
    ):
        raise RemoteProtocolError("a record whose fields have the wrong types")
    if head[2::2] != (UINT32, UINT32, INT64, FLOAT64):  # whose it is would stand elsewhere than a reader looks
        raise RemoteProtocolError("a record whose numbers have other types than uint32, int64 and float64")
    if len(buffer) > ATTRS_BYTES_MAX:  # else they are not longer
        size = len(payload.encode()) if isinstance(payload, str) else len(payload or b"")
        if len(buffer) - RECORD_HEAD_STRUCT.size - size - _PAYLOAD_HEAD.size > ATTRS_BYTES_MAX:
            raise RemoteProtocolError(f"attributes of more than {ATTRS_BYTES_MAX:,} bytes")
    if not STEP_MIN <= step <= STEP_MAX:
        raise RemoteProtocolError(f"step {step} does not fit 64 bits")
    return Record(kind, tag, step, wall_time, attrs, payload)


def _unpack_large(buffer: bytes | memoryview) -> tuple[Any, ...] | None:
    """Return the fields of a large record with an array, without copying it; None for other records."""
    if len(buffer) < _VIEWED_BYTES_MIN or buffer[1] not in ARRAY_KINDS:
        return None
    head, kind, m1, _, m2, tag, m3, step, m4, wall_time = RECORD_HEAD_STRUCT.unpack_from(buffer)
    if (head, m1, m2, m3, m4) != (RECORD_HEAD, UINT32, UINT32, INT64, FLOAT64):
        return None
    unpacker = msgpack.Unpacker(**_RECORD_LIMITS)
    view = memoryview(buffer)[RECORD_HEAD_STRUCT.size :].toreadonly()
    unpacker.feed(view[:_VIEWED_ATTRS_BYTES])
    try:
        attrs = unpacker.unpack()
    except msgpack.OutOfData:  # they are longer
        return None
    begin = unpacker.tell() + _PAYLOAD_HEAD.size
    payload = view[begin:]
    if _PAYLOAD_HEAD.unpack_from(view, begin - _PAYLOAD_HEAD.size) != (BIN32, len(payload)):
        return None
    return kind, len(buffer), tag, step, wall_time, attrs, payload


def unpack_definition(fields: object) -> Definition | None:
    """Return the definition in an unpacked map; None for an unknown kind, of a newer client.

    Raises:
        RemoteProtocolError: the map is not a definition.
    """
    if not isinstance(fields, dict):
        raise RemoteProtocolError(f"a definition is a map, not {type(fields).__name__}")
    kind = fields.get("k")
    if not isinstance(kind, str):  # no later version's either: a megabyte of empty maps would be a million definitions
        raise RemoteProtocolError(f"a definition is of a kind with a name; its 'k' is {kind!r:.40}")
    match kind:
        case "run":
            world = _number({"world": 1, **fields}, "world", RANKS_MAX + 1)
            return RunDefinition(
                _number(fields, "id", RUNS_MAX),
                _text(fields, "dir", PATH_BYTES_MAX),
                _text(fields, "host", 255),
                _number(fields, "pid", 1 << 32),
                _seconds(fields, "created"),
                _text(fields, "suffix", 255),
                _text(fields, "file", 255),
                _number({"rank": 0, **fields}, "rank", max(1, world)),
                max(1, world),
                _text(fields, "job", JOB_BYTES_MAX),
                _number({"attempt": 0, **fields}, "attempt", 1 << 32),
                _flag(fields, "reduce"),
                _interval(fields, "system", SYSTEM_SECONDS_MIN, SYSTEM_SECONDS_MAX),
                _text(fields, "above", PATH_BYTES_MAX),
                None if fields.get("umask") is None else _number(fields, "umask", UMASK_MAX + 1),
                _text(fields, "view", VIEW_BYTES_MAX),
                _folder(fields),
                _text(fields, "script", ORIGIN_BYTES_MAX),
                _text(fields, "kin", ORIGIN_BYTES_MAX),
                _text(fields, "parent", ORIGIN_BYTES_MAX),
                _text(fields, "boot", ORIGIN_BYTES_MAX),
                _number({"began": 0, **fields}, "began", 1 << 48),
                _text(fields, "resume", ORIGIN_BYTES_MAX),
                _text(fields, "launched", LAUNCHED_BYTES_MAX),
            )
        case "tag":
            return TagDefinition(
                _number(fields, "id", TAGS_MAX),
                _number(fields, "run", RUNS_MAX),
                _text(fields, "tag", TAG_BYTES_MAX),
                _text(fields, "color", 7),
                _text(fields, "name", TAG_BYTES_MAX),
                _text(fields, "desc", DESCRIPTION_BYTES_MAX),
                _flag(fields, "numbered"),
                _text(fields, "reduce", REDUCE_BYTES_MAX),
            )
        case "row":
            return RowDefinition(
                _number(fields, "id", ROWS_MAX),
                _number(fields, "run", RUNS_MAX),
                _numbers(fields, "tags"),
            )
    return None


def _number(fields: Mapping[str, Any], key: str, below: int) -> int:
    value = fields.get(key)
    if type(value) is not int or not 0 <= value < below:
        raise RemoteProtocolError(f"{key!r} of a definition is {value!r}; an integer below {below} is expected")
    return value


def _numbers(fields: Mapping[str, Any], key: str) -> tuple[int, ...]:
    value = fields.get(key)
    if (
        not isinstance(value, Sequence)
        or len(value) > ROW_VALUES_MAX
        or not all(type(item) is int and 0 <= item < TAGS_MAX for item in value)
    ):
        raise RemoteProtocolError(f"{key!r} of a definition is no list of at most {ROW_VALUES_MAX} tags")
    return tuple(value)


def _folder(fields: Mapping[str, Any]) -> tuple[int, int] | None:
    value = fields.get("folder")
    if value is None:
        return None
    if type(value) is not list or len(value) != 2 or not all(type(item) is int and item >= 0 for item in value):
        raise RemoteProtocolError(f"'folder' of a definition is {value!r}; a device and an inode are expected")
    return value[0], value[1]


def _flag(fields: Mapping[str, Any], key: str) -> bool:
    value = fields.get(key, False)
    if type(value) is not bool:
        raise RemoteProtocolError(f"{key!r} of a definition is {value!r}; true or false is expected")
    return value


def _seconds(fields: Mapping[str, Any], key: str) -> float:
    value = fields.get(key, 0.0)
    if type(value) is not float or not 0 <= value < 1e11:
        raise RemoteProtocolError(f"{key!r} of a definition is {value!r}; seconds since the epoch are expected")
    return value


def _interval(fields: Mapping[str, Any], key: str, least: float, most: float) -> float | None:
    value = fields.get(key)
    if value is None or (type(value) is float and (value == 0 or least <= value <= most)):
        return value
    raise RemoteProtocolError(f"{key!r} of a definition is {value!r}; 0.0 or {least} to {most} seconds are expected")


def _text(fields: Mapping[str, Any], key: str, bytes_max: int) -> str:
    value = fields.get(key, "")
    if type(value) is str and "\0" not in value:
        try:
            if len(value.encode("utf-8", PATH_ERRORS if key in _PATHS else "strict")) <= bytes_max:
                return value
        except UnicodeEncodeError:
            pass
    raise RemoteProtocolError(f"{key!r} of a definition is no text of at most {bytes_max} bytes")
