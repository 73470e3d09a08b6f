"""Events made by callers: parsed, checked and encoded again, never passed through."""

from __future__ import annotations

from typing import Any

from tbxd_client.protocol.records import Record

from ..tfevents import schema
from .rejections import Refused

FILE_VERSION = "brain.Event:2"  # of all files here: who says it says nothing new
# What an event may say; its version and its ledger are the daemon's.
ALLOWED = frozenset(("summary", "graph_def", "session_log", "log_message", "tagged_run_metadata", "meta_graph_def"))


def what_of(record: Record) -> dict[str, Any]:
    """Return the content of an event, by the name of its field; the payload is an ``Event``.

    Returns:
        Nothing for the file version, which the daemon writes itself.

    Raises:
        Refused: ``bad_record``: the payload is not an event, is empty, or has content that only the daemon may write.
    """
    if not isinstance(record.payload, bytes):
        raise Refused("bad_record", f"an event in {type(record.payload).__name__}")
    try:
        event = schema.Event.FromString(record.payload)
    except schema.DecodeError as error:
        raise Refused("bad_record", f"no event: {error}") from error
    what = event.WhichOneof("what")
    if what == "file_version" and event.file_version == FILE_VERSION:  # as a restart by hand begins
        return {}
    if what not in ALLOWED:
        raise Refused("bad_record", f"an event with {what}")
    if what == "graph_def":  # bytes to the event, and the GRAPHS tab fails on others
        try:
            return {what: schema.GraphDef.FromString(event.graph_def).SerializeToString()}
        except schema.DecodeError as error:
            raise Refused("bad_record", f"no graph: {error}") from error
    return {what: getattr(event, what)}
