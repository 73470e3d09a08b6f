"""Graphs of OpenVINO models, as tensorboardX shows them: a node for each edge, named by the layer it leads to.

The input is not trusted. A DTD is refused, so there are no entities, and no other file is read.
"""

from __future__ import annotations

from typing import Any
from xml.parsers import expat

from tbxd_client.protocol.limits import MODEL_BYTES_MAX, NODES_MAX
from tbxd_client.protocol.records import Record

from ..tfevents import schema
from .graph_nodes import graph_def, node_def
from .rejections import Refused


def graph_of(record: Record) -> bytes:
    """Return a ``GraphDef`` in bytes; the payload is the ``.xml`` file of a model.

    Raises:
        Refused: ``bad_record``: the payload is not a model, has a DTD, or is too large.
    """
    data = record.payload
    if not isinstance(data, bytes) or len(data) > MODEL_BYTES_MAX:
        raise Refused("bad_record", f"a model in {type(data).__name__} or of more than {MODEL_BYTES_MAX:,} bytes")
    found = _Model()
    try:
        found.parse(data)
        return graph_def(found.node(*edge) for edge in found.edges)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise Refused("bad_record", f"no model of OpenVINO: {error!r:.80}") from error


class _Model:
    """The layers and edges of a model: the children of the first ``layers`` and ``edges`` in its root."""

    def __init__(self) -> None:
        self.layers: dict[str, str] = {}  # id to name
        self.edges: list[tuple[str, str]] = []  # ids
        self._path: list[str] = []
        self._seen: set[str] = set()  # which of them have ended

    def parse(self, data: bytes) -> None:
        """Parse a document.

        Raises:
            Refused, ExpatError, KeyError: the document is not an acceptable model.
        """
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._refuse
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.Parse(data, True)
        if self._seen != {"layers", "edges"}:
            raise Refused("bad_record", "a model of OpenVINO without layers or without edges")

    def node(self, source: str, target: str) -> Any:
        """Return the node that an edge leads to."""
        return node_def(self.layers[target], "op", [self.layers[source]], parameters=schema.AttrValue(s=b""))

    def _refuse(self, *_: object) -> None:
        raise Refused("bad_record", "a model of OpenVINO with a DTD, of which none is taken")

    def _begin(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name)
        if len(self._path) != 3 or self._path[1] in self._seen:
            return
        if self._path[1] == "layers":
            self.layers[attributes["id"]] = attributes["name"]
        elif self._path[1] == "edges":
            self.edges.append((attributes["from-layer"], attributes["to-layer"]))
        if max(len(self.layers), len(self.edges)) > NODES_MAX:
            raise Refused("bad_record", f"a model of OpenVINO with more than {NODES_MAX:,} layers or edges")

    def _end(self, name: str) -> None:
        if len(self._path) == 2 and name in ("layers", "edges"):
            self._seen.add(name)
        self._path.pop()
