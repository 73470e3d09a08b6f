"""``GraphDef`` messages, for all formats of graphs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tbxd_client.protocol.limits import NODE_NAME_BYTES_MAX, NODES_MAX

from ..tfevents import schema
from .arrays import shown
from .rejections import Refused

_PRODUCER = 22  # the version of TensorFlow's graphs that both originals name


def graph_def(nodes: Iterable[Any]) -> bytes:
    """Return a ``GraphDef`` of ``NodeDef`` messages, in bytes.

    Raises:
        Refused: ``bad_record``: more than `NODES_MAX` nodes.
    """
    made = schema.GraphDef(versions=schema.VersionDef(producer=_PRODUCER))
    for number, node in enumerate(nodes):
        if number >= NODES_MAX:
            raise Refused("bad_record", f"a graph of more than {NODES_MAX:,} nodes")
        made.node.append(node)
    data: bytes = made.SerializeToString()
    return data


def node_def(name: object, op: object, inputs: Iterable[object], **attributes: Any) -> Any:
    """Return a ``NodeDef``; each keyword is an ``AttrValue`` under its name.

    Raises:
        Refused: ``bad_record``: a name is not text, or exceeds `NODE_NAME_BYTES_MAX`.
    """
    return schema.NodeDef(
        name=node_text(name, NODE_NAME_BYTES_MAX),
        op=node_text(op, NODE_NAME_BYTES_MAX),
        input=[node_text(source, NODE_NAME_BYTES_MAX) for source in inputs],
        attr=[schema.NodeDef.AttrEntry(key=key, value=value) for key, value in attributes.items()],
    )


def node_text(given: object, bytes_max: int) -> str:
    """Return a text of a node, checked.

    Raises:
        Refused: ``bad_record``: the value is not text, or too long.
    """
    if not isinstance(given, str):
        raise Refused("bad_record", f"a node with {given!r:.80} where a text is expected")
    clean = shown(given)
    size = len(clean.encode())
    if size > bytes_max:
        raise Refused("bad_record", f"a node with a text of {size:,} bytes; at most {bytes_max:,} are allowed")
    return clean
