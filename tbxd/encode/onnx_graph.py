"""Graphs of ONNX models as both originals show them: inputs and outputs, and nodes by their first output."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tbxd_client.protocol.limits import NODE_ATTRIBUTES_BYTES_MAX, NODE_DIMENSIONS_MAX
from tbxd_client.protocol.records import Record

from ..drop_reasons import ONNX_NOT_INSTALLED
from ..tfevents import schema
from .graph_nodes import graph_def, node_def
from .rejections import Refused

_CUT = "…".encode()


def graph_of(record: Record) -> bytes:
    """Return a ``GraphDef`` in bytes; the payload is a ``ModelProto``.

    Raises:
        Refused: ``bad_record``; ``onnx_not_installed``.
    """
    try:
        import onnx
    except ImportError as error:
        raise Refused(ONNX_NOT_INSTALLED, f"a graph of ONNX, and no onnx to read it: {error}") from error
    if not isinstance(record.payload, bytes):
        raise Refused("bad_record", f"a model in {type(record.payload).__name__}")
    try:
        model = onnx.load_model_from_string(record.payload)
    except (schema.DecodeError, ValueError) as error:
        raise Refused("bad_record", f"no model of ONNX: {error!r:.80}") from error
    return graph_def(_nodes(model.graph))


def _nodes(graph: Any) -> Iterator[Any]:
    for value in (*graph.input, *graph.output):
        kind = value.type.tensor_type
        sizes = [dim.dim_value for dim in kind.shape.dim]
        if len(sizes) > NODE_DIMENSIONS_MAX:
            raise Refused(
                "bad_record", f"a value of {len(sizes):,} dimensions; at most {NODE_DIMENSIONS_MAX} are allowed"
            )
        shape = schema.TensorShapeProto(dim=[schema.TensorShapeProto.Dim(size=size) for size in sizes])
        yield node_def(
            value.name,
            "Variable",
            (),
            dtype=schema.AttrValue(type=kind.elem_type),  # ONNX's number of the type, as in the originals
            shape=schema.AttrValue(shape=shape),
        )
    for node in graph.node:
        name = node.output[0] if node.output else node.name
        yield node_def(name, node.op_type, node.input, parameters=schema.AttrValue(s=_parameters(node)))


def _parameters(node: Any) -> bytes:
    """Return a node's attributes as text, in the originals' form; long text is cut."""
    texts = []
    for attribute in node.attribute:
        if attribute.ByteSize() > NODE_ATTRIBUTES_BYTES_MAX:
            texts.append(f"{attribute.name} = …")
        else:
            texts.append(" = ".join(str(value) for _, value in attribute.ListFields()))
    text = ", ".join(texts).encode("utf-8", "backslashreplace")
    if len(text) <= NODE_ATTRIBUTES_BYTES_MAX:
        return text
    return text[: NODE_ATTRIBUTES_BYTES_MAX - len(_CUT)].decode("utf-8", "ignore").encode() + _CUT
