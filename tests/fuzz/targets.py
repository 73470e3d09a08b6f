"""What is fuzzed: a function for each reader of bytes, which takes any input and fails where the reader does not hold.

An input is one msgpack value, so that a mutation of the value (`mutate`) is still something that makes sense to the
reader in most places; what is no such value is taken as it is. A target raises nothing but for a fault: what a reader
may say of bad bytes is caught here, everything else is let out.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import one_by_one
from tbxd.batch import Batch, Scalars
from tbxd.config.settings import Settings
from tbxd.encode import Refused, encode
from tbxd.encode.embedding import embedding_of
from tbxd.encode.raw_event import what_of
from tbxd.ingest import hub
from tbxd.ingest.client_counts import Reported
from tbxd.ingest.live_journal import StoredSegment, Unreadable, readable_journal
from tbxd.ingest.session import Session
from tbxd.runs.record_event import GRAPHS
from tbxd.runs.run_writer import RunWriter
from tbxd.tfevents import contents as event_contents
from tbxd.tfevents import schema
from tbxd.tfevents.auto_steps import Steps
from tbxd.tfevents.ledger import Ledger, LedgerReader, carry_over, merge, notes
from tbxd.tfevents.scalar_parser import Peek, value_of
from tbxd.tfevents.scan import CUT, DAMAGED, GAP, TORN, WHOLE, scan
from tbxd.tfevents.tfrecord import DamagedFile, frame, read_records
from tbxd.transport.server_socket import Peer
from tbxd_client.journal.journal_files import (
    CONTROL_NAME,
    JournalBusy,
    JournalError,
    JournalReader,
    boot_id,
    read_state,
)
from tbxd_client.protocol import wire
from tbxd_client.protocol.kinds import EMBEDDING, EVENT, ONNX_GRAPH, RESTART, ROW, SCALAR
from tbxd_client.protocol.protowire import field
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
    unpack_record,
)
from tbxd_client.values.model_files import onnx_graph, openvino_xml
from tbxd_client.writers import readback

SESSION = bytes(range(12))
PAYLOAD_BYTES_MAX = 1 << 20  # an input says "these bytes again and again"; no more than this is made of it
TAG = TagDefinition(0, 0, "tag", "#ff8000", "name", "description")
BOOT_OFFSET = 28  # of the boot id in a control page, zeros in an input: those of another machine would be of no use

# What every session of the targets begins with: two runs, the second of which counts steps.
DEFINITIONS = b"".join(
    map(
        pack_definition,
        (
            RunDefinition(0, "/runs/a", "host", 1, 0.0),
            RunDefinition(1, "/runs/b", "host", 1, 0.0),
            TagDefinition(0, 0, "loss"),
            TagDefinition(1, 1, "loss", numbered=True),
            TagDefinition(2, 0, "accuracy", "#ff8000"),
            RowDefinition(0, 0, (0, 2)),
        ),
    )
)


def plan_of(data: bytes) -> Any:
    """The value in an input, or its bytes where it is none."""
    try:
        return msgpack.unpackb(data, strict_map_key=False, max_ext_len=0)
    except Exception:
        return data


def items_of(plan: Any) -> list[Any]:
    return plan if isinstance(plan, list) else [plan]


def number_of(value: Any, most: int) -> int:
    return value % most if isinstance(value, int) else 0


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder in memory, where there is one."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:
        yield Path(name)


# --- the wire ----------------------------------------------------------------------------------------------------


def wire_frames(data: bytes) -> None:
    """Frames, or values of which frames are made, are a message or a RemoteProtocolError, and so is what is in it."""
    frames = [item if isinstance(item, bytes) else msgpack.packb(item) for item in items_of(plan_of(data))]
    try:
        message = wire.unpack(frames)
    except RemoteProtocolError:
        return
    assert repr(wire.unpack(wire.pack(message))) == repr(message)
    if isinstance(message, wire.Report):
        with contextlib.suppress(RemoteProtocolError):
            Reported().take(message.runs)


# --- the hub ------------------------------------------------------------------------------------------------------


class NoThreads:
    """In the place of the pool: jobs are run when the target says so."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []

    def submit(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)

    def relieve(self) -> bool:
        while self.jobs:
            self.jobs.pop(0)()
        return True

    def status(self) -> dict[str, int]:
        return {"queued_jobs": len(self.jobs), "threads": 0, "threads_hanging": 0}


OTHER, OTHERS = Peer(b"other", 2), bytes(range(1, 13))


def hub_messages(data: bytes) -> None:
    """[message]: whatever a client says, the hub answers, tells how it is, and no other session is touched."""
    with folder() as place:
        sent: list[Any] = []
        made = hub.Hub(Settings.of({}), lambda: None, lambda peer, message: sent.append((peer, wire.pack(message))))
        made.scheduler._pool = pool = NoThreads()  # type: ignore[assignment]
        root = str(place)

        def say(peer: Peer, message: wire.Message) -> None:
            made.handle(peer, message)
            pool.relieve()
            made.collect()

        def begin(peer: Peer, session: bytes, name: str) -> None:
            say(peer, wire.Hello(session, 0, 1, "host", "", "program", ""))
            both = pack_definition(RunDefinition(0, f"{root}/{name}", "host", 1, 0.0))
            say(peer, wire.Data(session, wire.DEFINITIONS, 0, both + pack_definition(TagDefinition(0, 0, "loss"))))

        begin(OTHER, OTHERS, "other")
        peer = Peer(b"route", 1)
        begin(peer, SESSION, "own")
        for item in items_of(plan_of(data))[:40]:
            values = [*item] if isinstance(item, list) else [item]
            more = (
                [values.pop()] if len(values) > 2 and values[1:2] == ["data"] and isinstance(values[-1], bytes) else []
            )
            try:
                message = wire.unpack([msgpack.packb(values), *more])
            except (RemoteProtocolError, ValueError, OverflowError, TypeError):
                continue
            if isinstance(message, wire.Hello) and not message.journal.startswith(root):
                message = message._replace(journal="")  # nobody's folder is looked at for this
            if isinstance(message, wire.Data) and message.stream == wire.DEFINITIONS and b"/" in message.payload:
                continue  # nor written
            say(peer, message)
            told = {**made.status(), "metrics": made.metrics()}
            wire.pack(wire.Answer(told))
            json.dumps(told)
        made.reap(0.0)
        assert not made.walls.status(), made.walls.status()
        assert not made.clients[OTHERS].broken
        say(OTHER, wire.Data(OTHERS, wire.RECORDS, 0, pack_scalar(0, 1, 2.0, 3.0)))
        say(OTHER, wire.Flush(OTHERS, 34))
        assert made.clients[OTHERS].session.written == 34
        assert made.status()["runs"][f"{root}/other"]["written"] == 1
        for state in made.runs.values():
            state.writer.close()


# --- sessions ----------------------------------------------------------------------------------------------------


def payload_of(value: Any) -> bytes | str | None:
    """A payload: as it is, or [bytes, length] for these bytes again and again."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], bytes) and value[0]:
        length = number_of(value[1], PAYLOAD_BYTES_MAX + 1)
        return (value[0] * (length // len(value[0]) + 1))[:length]
    return value if isinstance(value, bytes | str) else None


def record_of(item: Any) -> bytes:
    """The bytes of a record: as they are, or of [kind, tag, step, wall time, attributes, payload]."""
    if isinstance(item, bytes):
        return item
    fields = [*(item if isinstance(item, list) else []), *[None] * 6]
    kind, tag, step = number_of(fields[0], 128), number_of(fields[1], 1 << 32), fields[2]
    step = max(-(1 << 63), min(step, (1 << 63) - 1)) if isinstance(step, int) else 0
    wall_time = fields[3] if isinstance(fields[3], float) else 0.0
    if kind == SCALAR and isinstance(fields[5], float):
        return pack_scalar(tag, step, wall_time, fields[5])
    attrs = fields[4] if isinstance(fields[4], dict) else {}
    payload = payload_of(fields[5])
    try:
        if isinstance(payload, bytes):
            return pack_record_head(kind, tag, step, wall_time, attrs, len(payload)) + payload
        return pack_text_record(kind, tag, step, wall_time, attrs, payload)
    except LocalProtocolError:
        return b""


Contents = list[tuple[int, str, int, str]]


def contents_of(batches: list[Batch]) -> Contents:
    """(end, folder, kind, reason) of every record."""
    found: Contents = []
    for batch in batches:
        for item in batch.items:
            if isinstance(item, Scalars):
                found += [(end, batch.run.directory, SCALAR, "") for end in item.ends.tolist()]
            else:
                found.append((item.end, batch.run.directory, item.record.kind if item.record else -1, item.reason))
    return sorted(found)


def session_stream(data: bytes) -> None:
    """[start, cuts, definitions, records]: cut in whatever way, a stream says the same, and a run can write it."""
    plan = [*items_of(plan_of(data)), *[None] * 4][:4]
    start = number_of(plan[0], 1 << 63)
    cuts = [number_of(cut, 1 << 16) + 1 for cut in items_of(plan[1])]
    defined = [DEFINITIONS] if plan[2] is None else []
    for item in items_of(plan[2]) if plan[2] is not None else []:
        defined.append(item if isinstance(item, bytes) else msgpack.packb(item))
    definitions, records = b"".join(defined), b"".join(map(record_of, items_of(plan[3])))
    whole, whole_found, whole_broken = _fed(start, definitions, records, [])
    pieces, pieces_found, pieces_broken = _fed(start, definitions, records, cuts)
    assert whole_broken == pieces_broken
    if not whole_broken:
        assert contents_of(whole_found) == contents_of(pieces_found)
        assert whole.homeless == pieces.homeless
        assert whole.record_end == pieces.record_end
    ends = [end for end, *_ in contents_of(whole_found)]
    assert all(start < end <= start + len(records) for end in ends) and len(set(ends)) == len(ends)
    _written(whole_found)
    _written(pieces_found)


def _fed(start: int, definitions: bytes, records: bytes, cuts: list[int]) -> tuple[Session, list[Batch], bool]:
    session = Session(SESSION, start)
    found: list[Batch] = []
    try:
        for begin, part in _parts(definitions, cuts):
            assert session.feed_definitions(begin, part)
        for begin, part in _parts(records, cuts):
            batches = session.feed_records(start + begin, part) if begin % 2 else _stored(session, part)
            assert batches is not None
            found += batches
            for batch in batches:
                session.done(batch)
            assert session.written <= session.expected
            assert not session.outstanding
    except RemoteProtocolError:
        return session, found, True
    return session, found, False


def _stored(session: Session, part: bytes) -> list[Batch]:
    """As `Session.feed_records`, but into the memory that the session has for it."""
    found: list[Batch] = []
    while part:
        room = session.room(len(part), len(part))
        assert 0 < len(room) <= len(part)
        room[:], part = part[: len(room)], part[len(room) :]
        found += session.take(len(room))
    return found


def _parts(data: bytes, cuts: list[int]) -> Iterator[tuple[int, bytes]]:
    begin = 0
    for cut in cuts:
        if begin < len(data):
            yield begin, data[begin : begin + cut]
            begin += cut
    if begin < len(data):
        yield begin, data[begin:]


def _written(batches: list[Batch]) -> None:
    """A run makes events of all batches, and the ledger in these has every record."""
    with folder() as place:
        writers: dict[str, RunWriter] = {}
        events: dict[str, list[bytes]] = {}
        for batch in batches:
            name = f"{len(writers)}"
            writer = writers.setdefault(batch.run.directory, RunWriter(place / name, lambda batch: None))
            if not writer.open:
                writer.files.folder.lock()
            if batch.numbered and not writer.encoder.counts_steps:
                writer.encoder.count_steps()
            pieces = events.setdefault(batch.run.directory, [])
            writer.encoder.join(batch, [])
            writer.encoder.encode(batch, pieces)
            if len(pieces) % 2:  # also several batches at a time
                writer.encoder.flush_scalars(pieces)
        for name, writer in writers.items():
            writer.encoder.flush_scalars(events[name])
            writer.close()
            reader = LedgerReader()
            reader.follow("tbxd 0")
            for _, data in read_records(io.BytesIO(b"".join(events[name])).read):
                event = schema.Event.FromString(data)
                reader.follow(event.source_metadata.writer, len(event.summary.value))
            assert reader.ledger == writer.encoder.entries
            for entry in reader.ledger.values():
                assert "internal_error" not in entry.refused, "see the log"
        counted = sum(batch.records for batch in batches)
        assert counted == sum(entry.count for writer in writers.values() for entry in writer.encoder.entries.values())


# --- records -----------------------------------------------------------------------------------------------------


def record_summaries(data: bytes) -> None:
    """A record is refused, or becomes what an event can hold."""
    packed = record_of(plan_of(data))
    try:
        if record_length(packed) != len(packed):
            return
        record = unpack_record(packed)
    except RemoteProtocolError:
        return
    try:
        event = _event_of(record)
    except Refused:
        return
    event_bytes = event.SerializeToString()
    assert schema.Event.FromString(event_bytes).SerializeToString() == event_bytes


def _event_of(record: Record) -> Any:
    if record.kind in (ROW, RESTART):
        return schema.Event()
    if record.kind == EMBEDDING:
        return schema.Event(file_version=f"{embedding_of(record, TAG).info!r}")
    if record.kind == EVENT:
        return schema.Event(step=record.step, **what_of(record))
    if record.kind in GRAPHS:
        return schema.Event(graph_def=GRAPHS[record.kind](record))
    return schema.Event(step=record.step, summary=schema.Summary(value=encode(record, TAG)))


# --- journals ----------------------------------------------------------------------------------------------------


def journal_folder(data: bytes) -> None:
    """{name: bytes}: a journal is read to its end, or a JournalError; no descriptor is left open."""
    plan = plan_of(data)
    files = plan if isinstance(plan, dict) else {CONTROL_NAME: data}
    before = os.listdir("/proc/self/fd")
    with folder() as place:
        for name, given in files.items():
            found = payload_of(given)
            content = found if isinstance(found, bytes) else b""
            head, boot, rest = content[:BOOT_OFFSET], content[BOOT_OFFSET:][:16], content[BOOT_OFFSET + 16 :]
            if name == CONTROL_NAME and boot == bytes(16):
                content = head + boot_id() + rest
            if isinstance(name, str) and name.isascii() and name.isprintable() and "/" not in name:
                with contextlib.suppress(OSError):
                    (place / name).write_bytes(content)
        with contextlib.suppress(JournalError):
            read_state(place)
        with contextlib.suppress(JournalError, JournalBusy):
            _read_journal(place)
        assert readable_journal(str(place), SESSION) is None, "the folder of a session has its name"
        for number in range(3):
            with contextlib.suppress(Unreadable), StoredSegment(place, SESSION, number) as segment:
                for position in (0, 34, 1 << 20, 1 << 62, (1 << 63) - 1):
                    with contextlib.suppress(Unreadable):
                        segment.read_into(memoryview(bytearray(34)), position)
    assert len(os.listdir("/proc/self/fd")) <= len(before)  # what an earlier test left may be closed meanwhile


def _read_journal(place: Path) -> None:
    reader = JournalReader(place)
    try:
        session = Session(reader.state.session, reader.state.released)
        while stretch := reader.definitions(session.definitions_expected, 1 << 16):
            session.feed_definitions(session.definitions_expected, stretch)
        while stretch := reader.read(session.expected, 1 << 16):
            assert len(stretch) <= 1 << 16
            session.feed_records(session.expected, stretch)
        assert session.expected >= reader.state.readable_end
        reader.release(session.written)
    except RemoteProtocolError:
        pass
    finally:
        reader.close()


# --- event files -------------------------------------------------------------------------------------------------


def ledger_texts(data: bytes) -> None:
    """[text]: any texts give a ledger that can be carried over, and that positions of the protocol can be held to."""
    reader = LedgerReader()
    reader.follow("tbxd 0")
    for text in items_of(plan_of(data)):
        reader.follow(text if isinstance(text, str) else "")
    check_ledger(reader.ledger)


def check_ledger(ledger: Ledger) -> None:
    for entry in ledger.values():
        assert all(count < 1 << 63 for counts in (entry.refused, entry.dropped) for count in counts.values())
        assert 0 <= entry.end < 1 << 63 and 0 <= entry.count < 1 << 63
    again = LedgerReader()
    again.follow("tbxd 0")
    for text in [*carry_over(ledger), *notes({session: entry.dropped for session, entry in ledger.items()})]:
        again.follow(text)
    assert again.ledger == ledger and again.complete
    merge(again.ledger, ledger)
    assert again.ledger == ledger


def event_folder(data: bytes) -> None:
    """[file], a file [part], a part bytes as they are, or [data of a record] or a ledger's text: read as far as it is
    whole, by the daemon and by the client."""
    with folder() as place:
        for number, parts in enumerate(items_of(plan_of(data))[:9]):
            content = b"".join(_part(part) for part in items_of(parts))
            (place / f"events.out.tfevents.{number:010d}.h.1.0").write_bytes(content)
            with contextlib.suppress(DamagedFile):
                end = 0
                for end, _ in read_records(io.BytesIO(content).read):  # noqa: B007
                    pass
                assert end <= len(content)
        found = event_contents.contents_of(place)
        check_ledger(found.ledger())
        Steps(found)
        one_by_one.check(found)
        readback.points(str(place), "loss", SESSION, 0)


def scanned_file(data: bytes) -> None:
    """[part] as in `event_folder`: what a file is made of has no hole, and begins with what TensorBoard reads of it."""
    content = b"".join(map(_part, items_of(plan_of(data))))[:PAYLOAD_BYTES_MAX]

    def read(position: int, length: int) -> bytes:
        return content[position : position + length]

    found = list(scan(read, len(content)))
    assert [begin for _, begin, _, _ in found] == [0, *(end for _, _, end, _ in found)][: len(found)]
    assert (found[-1][2] if found else 0) == len(content)
    for state, begin, end, held in found:
        assert begin < end and state in (WHOLE, DAMAGED, TORN, GAP, CUT)
        assert state != WHOLE or content[begin:end] == frame(held)
        assert state != CUT or end == len(content)
    wanted = []
    with contextlib.suppress(DamagedFile):
        wanted += [held for _, held in read_records(io.BytesIO(content).read)]
    first = list(itertools.takewhile(lambda item: item[0] == WHOLE, found))
    assert [held for *_, held in first][: len(wanted)] == wanted
    assert list(scan(lambda position, length: read(position, min(length, 7)), len(content))) == found, "read in pieces"
    half = len(content) // 2
    cut = list(scan(lambda position, length: read(position, length)[: max(0, half - position)], len(content)))
    assert all(end <= len(content) for _, _, end, _ in cut), "somebody cuts it meanwhile"


def peeked_events(data: bytes) -> None:
    """[part]: what is known of an event without protobuf is what protobuf reads in it."""
    known = Peek()
    for content in map(message_of, items_of(plan_of(data))):
        peeked = known.scalar(content)
        event = schema.Event()
        try:
            event.ParseFromString(content)
        except schema.DecodeError:
            assert peeked is None
            continue
        if peeked is not None:
            tag, step, wall_time, end = peeked
            (value,) = event.summary.value
            assert (value.tag, event.step, value.WhichOneof("value")) == (tag, step, "simple_value")
            pairs = (event.wall_time, wall_time), (value.simple_value, value_of(content, end))
            assert all(one == other or (one != one and other != other) for one, other in pairs)
        known.learn(event)


def _part(part: Any) -> bytes:
    if isinstance(part, str):
        event = schema.Event(wall_time=1.0)
        event.source_metadata.writer = part.encode("utf-8", "replace").decode()
        return frame(event.SerializeToString())
    if isinstance(part, list):
        return b"".join(frame(item) for item in part if isinstance(item, bytes))
    return part if isinstance(part, bytes) else b""


# --- files of models ---------------------------------------------------------------------------------------------


def message_of(part: Any) -> bytes:
    """Bytes of protobuf: as they are, [bytes, length] for them again and again, or [number of a field, parts of it]."""
    if isinstance(part, list) and len(part) == 2 and isinstance(part[0], int) and isinstance(part[1], list):
        return field(number_of(part[0], 64), b"".join(map(message_of, part[1])))
    payload = payload_of(part)
    return payload if isinstance(payload, bytes) else b""


def model_file(data: bytes) -> None:
    """[part of a message]: a model of ONNX without its weights, or a ValueError; what it becomes is not larger."""
    content = b"".join(map(message_of, items_of(plan_of(data))))
    assert openvino_xml(io.BytesIO(content)) == content
    try:
        graph = onnx_graph(io.BytesIO(content))
    except ValueError:
        return
    assert len(graph) <= len(content) + 16
    with contextlib.suppress(Refused):
        GRAPHS[ONNX_GRAPH](Record(ONNX_GRAPH, 0, 0, 0.0, {}, graph))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "wire": wire_frames,
    "hub": hub_messages,
    "session": session_stream,
    "record": record_summaries,
    "journal": journal_folder,
    "ledger": ledger_texts,
    "events": event_folder,
    "scan": scanned_file,
    "peek": peeked_events,
    "model": model_file,
}
