"""One record of a run becomes what its event says: a summary, a graph, or an event that a program has made itself."""

from __future__ import annotations

import os
import threading
from contextlib import nullcontext
from typing import Any

import numpy as np

from tbxd_client.protocol.kinds import EMBEDDING, EVENT, GRAPH, ONNX_GRAPH, OPENVINO_GRAPH, RESTART, ROW
from tbxd_client.protocol.records import Record

from ..batch import Batch
from ..encode import Refused, encode
from ..encode.embedding import embedding_of
from ..encode.graph import graph_of
from ..encode.onnx_graph import graph_of as onnx_graph_of
from ..encode.openvino_graph import graph_of as openvino_graph_of
from ..encode.raw_event import what_of
from ..encode.scalar_batcher import float32
from ..tfevents import schema
from ..tfevents.event_folder import EventFolder
from . import projector

SESSION_LOG_START = 1  # SessionLog.SessionStatus.START of event.proto

# Records that are large take several times their size in memory while they are encoded: as many at a time, over all
# runs, as there are processors to do it.
LARGE_BYTES = 256 << 10
_large = threading.BoundedSemaphore(len(os.sched_getaffinity(0)))

GRAPHS = {GRAPH: graph_of, ONNX_GRAPH: onnx_graph_of, OPENVINO_GRAPH: openvino_graph_of}


def what_happened(batch: Batch, record: Record, folder: EventFolder) -> dict[str, Any]:
    """The part of an event that says what happened.

    Args:
        batch: says what the numbers in the record mean.
        record: any but a scalar.
        folder: the run's, which is locked; a projector's files are written there.

    Raises:
        Refused: the record can never be shown, with a reason.
    """
    if record.kind == ROW:
        return {"summary": schema.Summary(value=_row_values(batch, record))}
    tag = batch.tag(record.tag)
    if record.kind == EMBEDDING:
        try:
            projector.write(folder.descriptor, embedding_of(record, tag), folder.umask)
        except OSError as error:
            raise Refused("file_error", f"{error}") from error
        return {}
    if record.kind == EVENT:
        return what_of(record)
    if record.kind in GRAPHS:
        return {"graph_def": GRAPHS[record.kind](record)}
    if record.kind == RESTART:
        return {"session_log": schema.SessionLog(status=SESSION_LOG_START)}
    with _large if len(record.payload or b"") >= LARGE_BYTES else nullcontext():
        return {"summary": schema.Summary(value=encode(record, tag))}


def _row_values(batch: Batch, record: Record) -> list[Any]:
    tags = batch.row(record.tag).tags
    payload = record.payload
    if not isinstance(payload, bytes) or len(payload) != 8 * len(tags):
        raise Refused("bad_record", f"a row of {len(tags)} tags with another number of values")
    result = []
    for number, tag_id in zip(float32(np.frombuffer(payload, ">f8")).tolist(), tags, strict=True):
        result.append(schema.Summary.Value(tag=batch.tag(tag_id).tag, simple_value=number))
    return result
