"""Reads the graphs of model files: ``add_onnx_graph``, ``add_openvino_graph``.

A model's weights are most of its file and no part of its graph. An ONNX file is read field by field, and other fields
are skipped, so that a file of gigabytes costs a few reads. Numbers of fields: ``onnx.proto`` of ONNX.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

from ..protocol.limits import MODEL_BYTES_MAX
from ..protocol.protowire import BYTES, FIXED32, FIXED64, VARINT, VARINT_BYTES_MAX, WireError, encoded, field, fields

NODE_BYTES_MAX = 1 << 28  # of a node as it is in the file
TENSOR_BYTES_MAX = 1 << 12  # of a tensor within a node; of a larger one the numbers are left out
DEPTH_MAX = 32  # of graphs within nodes

_MODEL_GRAPH = 7  # of ModelProto
_NODE = 1
_KEPT = (_NODE, 2, 11, 12)  # of its GraphProto: node, name, input, output
# Where in a graph there are tensors: message to the fields that are messages, and which.
_MESSAGES = {
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_NUMBERS = (4, 5, 6, 7, 9, 10, 11)  # of TensorProto: the fields that hold its numbers, one for each type


def onnx_graph(file: Any) -> bytes:
    """Return a ``ModelProto`` with only the graph, and in it only its nodes, inputs and outputs.

    Args:
        file: the path of the model, or an open file.

    Raises:
        OSError: the file cannot be read.
        TypeError: the argument is neither a path nor a file.
        ValueError: the file is not an ONNX model (in protobuf), or its graph is larger than `MODEL_BYTES_MAX`.
    """
    if hasattr(file, "read"):
        return _walked(file if getattr(file, "seekable", bool)() else io.BytesIO(file.read()), repr(file))
    with open(_path(file), "rb") as opened:
        return _walked(opened, os.fsdecode(file))


def _path(file: Any) -> str:
    """Return a path; a number is refused, because it would be a descriptor, which is closed afterwards."""
    path = os.fsdecode(file)
    if "\0" in path:
        raise ValueError(f"{path[:80]!r} is no path of a file: it has a NUL")
    return path


def _walked(file: BinaryIO, name: str) -> bytes:
    start = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(start)
    kept = bytearray()
    try:
        for number, length in _lengths(file, end):
            if number == _MODEL_GRAPH:
                _keep(file, file.tell() + length, kept, name)
            else:
                file.seek(length, os.SEEK_CUR)
    except WireError as error:
        raise ValueError(f"{name} is no model of ONNX in protobuf: {error}") from error
    if not kept:
        raise ValueError(f"{name} is no model of ONNX in protobuf: there is no graph in it")
    return field(_MODEL_GRAPH, bytes(kept))


def _keep(file: BinaryIO, end: int, kept: bytearray, name: str) -> None:
    for number, length in _lengths(file, end):
        if number not in _KEPT:
            file.seek(length, os.SEEK_CUR)
            continue
        if length > NODE_BYTES_MAX:
            raise ValueError(f"{name} has a node of {length:,} bytes; at most {NODE_BYTES_MAX:,} are possible")
        data = file.read(length)
        kept += field(number, _without_numbers(data, "node", DEPTH_MAX) if number == _NODE else data)
        if len(kept) > MODEL_BYTES_MAX:
            raise ValueError(f"{name} has a graph of more than {MODEL_BYTES_MAX:,} bytes without its weights")


def _lengths(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Yield number and length of each bytes field up to ``end``, with the file at its data; skip other fields."""
    while file.tell() < end:
        key = _varint(file)
        kind = key & 7
        length = {FIXED64: 8, FIXED32: 4}.get(kind, 0)
        if kind in (VARINT, BYTES):
            value = _varint(file)
            length = value if kind == BYTES else 0
        elif not length:
            raise WireError(f"a field of type {kind}")
        if file.tell() + length > end:
            raise WireError("a field that goes on behind the end of its message")
        if kind == BYTES:
            yield key >> 3, length
        else:
            file.seek(length, os.SEEK_CUR)


def _varint(file: BinaryIO) -> int:
    number = 0
    for place in range(VARINT_BYTES_MAX):
        byte = file.read(1)
        if not byte:
            break
        number |= (byte[0] & 0x7F) << 7 * place
        if byte[0] < 0x80:
            return number
    raise WireError("a number without an end")


def _without_numbers(data: bytes | memoryview, message: str, depth: int) -> bytes:
    """Return a message of `_MESSAGES` without the numbers of its large tensors."""
    if len(data) <= TENSOR_BYTES_MAX:
        return bytes(data)
    if depth < 0:
        raise WireError(f"graphs within nodes, more than {DEPTH_MAX} deep")
    inner = _MESSAGES.get(message, {})
    made = []
    for number, kind, value in fields(data):
        if message == "tensor" and number in _NUMBERS:
            continue
        if number in inner and isinstance(value, memoryview):
            made.append(encoded(number, kind, _without_numbers(value, inner[number], depth - (message == "node"))))
        else:
            made.append(encoded(number, kind, value))
    return b"".join(made)


def openvino_xml(file: Any) -> bytes:
    """Return the XML description of an OpenVINO model, as it is.

    Args:
        file: the path of the ``.xml`` file, or an open file.

    Raises:
        OSError: the file cannot be read.
        TypeError: the argument is neither a path nor a file.
        ValueError: the file is larger than `MODEL_BYTES_MAX`.
    """
    if hasattr(file, "read"):
        data = file.read(MODEL_BYTES_MAX + 1)
    else:
        with open(_path(file), "rb") as opened:
            data = opened.read(MODEL_BYTES_MAX + 1)
    if len(data) > MODEL_BYTES_MAX:
        raise ValueError(f"{file!r:.200} has more than {MODEL_BYTES_MAX:,} bytes")
    return data.encode() if isinstance(data, str) else bytes(data)
