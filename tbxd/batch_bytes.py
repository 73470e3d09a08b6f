"""Batches as bytes, complete for an engine between the sessions and the event files.

A batch shares its session's tables of tags and rows. Its bytes hold the definitions that its records name, so a reader
needs no session. They are a msgpack map; a reader ignores unknown keys. They are for daemons of one version: `VERSION`
is compared.
"""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

from tbxd_client.protocol.kinds import ROW
from tbxd_client.protocol.records import (
    RECORD_BYTES_MAX,
    SCALAR_BYTES,
    SESSION_BYTES,
    Definition,
    Record,
    RemoteProtocolError,
    RowDefinition,
    RunDefinition,
    TagDefinition,
    pack_definition,
    unpack_definition,
)

from .batch import SCALAR_DTYPE, Batch, Scalars, Single, Token

VERSION = 1
_LIMITS: dict[str, int] = {"max_str_len": RECORD_BYTES_MAX, "max_bin_len": RECORD_BYTES_MAX, "max_ext_len": 0}


def to_bytes(batch: Batch) -> bytes:
    """Return the bytes of a batch with its definitions, without its arrival and its token."""
    tags: set[int] = set()
    rows: set[int] = set()
    items: list[Any] = []
    for item in batch.items:
        if isinstance(item, Scalars):
            tags.update(np.unique(item.values["tag"]).tolist())
            items.append([item.values.tobytes(), item.ends.astype("<i8").tobytes()])
            continue
        fields = None
        if (record := item.record) is not None:
            (rows if record.kind == ROW else tags).add(record.tag)
            payload = bytes(record.payload) if isinstance(record.payload, memoryview) else record.payload
            fields = [record.kind, record.tag, record.step, record.wall_time, record.attrs, payload]
        items.append([item.end, item.size, item.reason, fields])
    for number in rows:
        tags.update(batch.row(number).tags)
    made = {
        "version": VERSION,
        "session": batch.session,
        "run": pack_definition(batch.run),
        "tags": [pack_definition(batch.tag(number)) for number in sorted(tags)],
        "rows": [pack_definition(batch.row(number)) for number in sorted(rows)],
        "items": items,
        "end": batch.token.end,
        "size": batch.size,
        "records": batch.records,
        "numbered": batch.numbered,
        "definition": batch.definition,
    }
    return bytes(msgpack.packb(made))


def from_bytes(data: bytes) -> Batch:
    """Return the batch of such bytes, with tables of its own.

    Raises:
        RemoteProtocolError: the bytes are not a batch.
    """
    try:
        found = msgpack.unpackb(data, **_LIMITS)
        if found["version"] != VERSION:
            raise RemoteProtocolError(f"a batch of version {found['version']!r:.20}; {VERSION} is expected")
        session, end = bytes(found["session"]), int(found["end"])
        if len(session) != SESSION_BYTES:
            raise RemoteProtocolError(f"a session of {len(session)} bytes")
        run = _definition(found["run"], RunDefinition)
        tags = _table(found["tags"], TagDefinition)
        rows = _table(found["rows"], RowDefinition)
        batch = Batch(session, run, tags, rows, Token(end, 1))
        batch.items = [_item(fields) for fields in found["items"]]
        batch.size, batch.records = int(found["size"]), int(found["records"])
        batch.numbered, batch.definition = bool(found["numbered"]), int(found["definition"])
        _check(batch)
    except RemoteProtocolError:
        raise
    except Exception as error:
        raise RemoteProtocolError(f"not a batch: {type(error).__name__}: {error!s:.200}") from error
    return batch


def _definition(data: bytes, kind: type[Any]) -> Any:
    definition: Definition | None = unpack_definition(msgpack.unpackb(data, **_LIMITS))
    if not isinstance(definition, kind):
        raise RemoteProtocolError(f"a {type(definition).__name__} where a {kind.__name__} is expected")
    return definition


def _table(packed: list[bytes], kind: type[Any]) -> list[Any]:
    found = {definition.id: definition for definition in (_definition(data, kind) for data in packed)}
    return [found.get(number) for number in range(max(found, default=-1) + 1)]


def _item(fields: list[Any]) -> Scalars | Single:
    if len(fields) == 2:
        values, ends = np.frombuffer(fields[0], SCALAR_DTYPE), np.frombuffer(fields[1], "<i8").astype(np.int64)
        if len(fields[0]) != SCALAR_BYTES * len(ends):
            raise RemoteProtocolError(f"{len(fields[0])} bytes of scalars with {len(ends)} ends")
        return Scalars(values, ends)
    end, size, reason, record = fields
    return Single(None if record is None else Record(*record), int(end), int(size), str(reason))


def _check(batch: Batch) -> None:
    """Check that every tag and row that a record names is defined."""
    for item in batch.items:
        if isinstance(item, Scalars):
            named = np.unique(item.values["tag"]).tolist()
        elif item.record is None:
            continue
        elif item.record.kind == ROW:
            named = batch.row(item.record.tag).tags
        else:
            named = [item.record.tag]
        for number in named:
            batch.tag(number)
