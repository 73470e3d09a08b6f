"""Graphs of models: the client's nodes as TensorFlow's ``GraphDef``."""

from __future__ import annotations

import json
from typing import Any

from tbxd_client.protocol.limits import GRAPH_BYTES_MAX, NODE_ATTRIBUTES_BYTES_MAX, NODE_DIMENSIONS_MAX, NODES_MAX
from tbxd_client.protocol.records import Record

from ..tfevents import schema
from .graph_nodes import graph_def, node_def, node_text
from .rejections import Refused

_DIGITS_MAX = 20  # of a number; Python takes long over those with millions
_SIZE_MIN, _SIZE_MAX = -1, (1 << 63) - 1  # of a dimension; -1 is unknown


def graph_of(record: Record) -> bytes:
    """Return a ``GraphDef`` in bytes; the payload is JSON, {nodes: [[name, op, [input], attributes, shape or null]]}.

    A node's ``attr`` is the same as with torch's writer: ``attr``, its attributes as text, and ``_output_shapes``.

    Raises:
        Refused: ``bad_record``.
    """
    text = record.payload
    if not isinstance(text, str) or len(text) > GRAPH_BYTES_MAX:
        raise Refused("bad_record", f"a graph in {type(text).__name__} or of more than {GRAPH_BYTES_MAX:,} bytes")
    try:
        given = json.loads(text, parse_int=_integer)
        found = given.get("nodes") if isinstance(given, dict) else None
        if not isinstance(found, list) or len(found) > NODES_MAX:
            raise Refused("bad_record", f"a graph without a list of at most {NODES_MAX:,} nodes")
        return graph_def(map(_node, found))
    except (ValueError, RecursionError) as error:  # also where what is wrong lies too deep to be shown
        raise Refused("bad_record", f"a graph that makes no sense: {error!r:.80}") from error


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS_MAX:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _node(given: object) -> Any:
    if not isinstance(given, list) or len(given) != 5 or not isinstance(given[2], list):
        raise Refused("bad_record", f"a node that is {given!r:.80}")
    name, op, inputs, attributes, shape = given
    attr = {"attr": schema.AttrValue(s=node_text(attributes, NODE_ATTRIBUTES_BYTES_MAX).encode())}
    if shape is not None:
        attr["_output_shapes"] = schema.AttrValue(list=schema.AttrValue.ListValue(shape=[_shape(shape)]))
    return node_def(name, op, inputs, **attr)


def _shape(sizes: object) -> Any:
    if not isinstance(sizes, list) or len(sizes) > NODE_DIMENSIONS_MAX:
        raise Refused("bad_record", f"a node of shape {sizes!r:.80}")
    if not all(type(size) is int and _SIZE_MIN <= size <= _SIZE_MAX for size in sizes):
        raise Refused("bad_record", f"a node of shape {sizes!r:.80}")
    return schema.TensorShapeProto(dim=[schema.TensorShapeProto.Dim(size=size) for size in sizes])
