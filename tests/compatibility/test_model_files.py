"""add_onnx_graph and add_openvino_graph: what both originals show of a file, without its weights, safely read."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tensorboardX.onnx_graph
import tensorboardX.openvino_graph
import torch.utils.tensorboard._onnx_graph as torch_onnx_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tensorboard.compat.proto.graph_pb2 import GraphDef

from harness import World, events, wait_for
from tbxd.drop_reasons import HINTS, ONNX_NOT_INSTALLED
from tbxd.encode.onnx_graph import graph_of as onnx_graph_of
from tbxd.encode.openvino_graph import graph_of as openvino_graph_of
from tbxd.encode.rejections import Refused
from tbxd_client import SummaryWriter
from tbxd_client.protocol.kinds import ONNX_GRAPH, OPENVINO_GRAPH
from tbxd_client.protocol.protowire import field
from tbxd_client.protocol.records import Record
from tbxd_client.values import model_files
from tbxd_client.values.model_files import DEPTH_MAX, TENSOR_BYTES_MAX

XML = """<?xml version="1.0"?>
<net name="model" version="11">
    <layers>
        <layer id="0" name="input" type="Parameter" version="opset1"><data shape="1,3"/><output/></layer>
        <layer id="1" name="weights &amp; &#xfc;" type="Const"/>
        <layer id="2" name="multiply" type="MatMul"/>
        <layer id="3" name="result" type="Result"/>
    </layers>
    <edges>
        <edge from-layer="0" from-port="0" to-layer="2" to-port="0"/>
        <edge from-layer="1" from-port="0" to-layer="2" to-port="1"/>
        <edge from-layer="2" from-port="2" to-layer="3" to-port="0"/>
    </edges>
    <layers><layer id="0" name="not looked at"/></layers>
    <rt_info><edges><edge/></edges></rt_info>
</net>
"""


def tensor(name: str, numbers: int) -> Any:
    return numpy_helper.from_array(np.arange(numbers, dtype=np.float32), name)


def model(weights: int = 8, constant: int = 8, depth: int = 1) -> Any:
    """A model of every kind of attribute, with initializers, a constant of ``constant`` numbers, and nested graphs."""

    def branch(level: int) -> Any:
        output = helper.make_tensor_value_info(f"inner{level}", TensorProto.FLOAT, [constant])
        nodes = [helper.make_node("Constant", [], [f"inner{level}"], value=tensor("value", constant))]
        if level > 1:
            nodes.append(helper.make_node("If", ["cond"], [f"if{level}"], then_branch=branch(level - 1)))
        return helper.make_graph(nodes, f"branch{level}", [], [output], [tensor("inner weights", constant)])

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Constant", [], ["constant"], name="a name", value=tensor("value", constant)),
        helper.make_node("Conv", ["product", "", "w"], ["folded"], kernel_shape=[3, 3], auto_pad="SAME_UPPER", group=2),
        helper.make_node(
            "Odd", ["folded"], ["odd", "second output"], alpha=0.1, betas=[1.5, 2.0], texts=["ü", b"\xff"]
        ),
        helper.make_node("If", ["cond"], ["chosen"], then_branch=branch(depth), else_branch=branch(1)),
        helper.make_node(
            "Few", ["odd"], ["few"], tensors=[tensor("one", 2), tensor("two", constant)], doc_string="doc"
        ),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, None]),
        helper.make_tensor_value_info("cond", TensorProto.BOOL, []),
        helper.make_tensor_value_info("half", TensorProto.BFLOAT16, [1 << 40]),
        helper.make_tensor_sequence_value_info("sequence", TensorProto.FLOAT, [1]),
    ]
    outputs = [helper.make_tensor_value_info("few", TensorProto.FLOAT, [2])]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, [tensor("w", weights)], "doc", value_info=inputs[:1])
    made = helper.make_model(graph, producer_name="somebody")
    made.metadata_props.add(key="key", value="value")
    return made


def onnx_nodes(data: bytes) -> Any:
    return GraphDef.FromString(onnx_graph_of(Record(ONNX_GRAPH, 0, 0, 0.0, {}, data)))


def openvino_nodes(data: bytes | str) -> Any:
    payload = data.encode() if isinstance(data, str) else data
    return GraphDef.FromString(openvino_graph_of(Record(OPENVINO_GRAPH, 0, 0, 0.0, {}, payload)))


def theirs(module: Any, path: Path) -> Any:
    return GraphDef.FromString(module.load_onnx_graph(str(path)).SerializeToString())


# --- the same graph --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("original", [tensorboardX.onnx_graph, torch_onnx_graph], ids=["tensorboardX", "torch"])
@pytest.mark.parametrize("weights", [8, 1_000_000])
def test_a_graph_of_onnx_is_that_of_both_originals(tmp_path: Path, original: Any, weights: int) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model(weights).SerializeToString())
    data = model_files.onnx_graph(path)
    assert len(data) < 4000, "weights are left out"
    found = onnx_nodes(data)
    assert found == theirs(original, path) and len(found.node) == 5 + 6


def test_of_large_constants_all_but_their_numbers_is_there(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model(constant=TENSOR_BYTES_MAX, depth=5).SerializeToString())
    data = model_files.onnx_graph(path)
    assert len(data) < 6000
    found, reference = onnx_nodes(data), theirs(tensorboardX.onnx_graph, path)
    assert [(node.name, node.op, node.input) for node in found.node] == [
        (node.name, node.op, node.input) for node in reference.node
    ]
    shown = {node.name: node.attr["parameters"].s.decode() for node in found.node}
    assert shown["constant"] == f'value = dims: {TENSOR_BYTES_MAX}\ndata_type: 1\nname: "value"\n = 4'
    assert f"dims: {TENSOR_BYTES_MAX}" in shown["chosen"] and shown["chosen"].count("Constant") == 6
    assert "raw_data" not in shown["chosen"] and shown["few"].count("raw_data") == 1


def test_a_graph_of_openvino_is_tensorboardxs(tmp_path: Path) -> None:
    path = tmp_path / "model.xml"
    for text in (XML, XML.replace('<?xml version="1.0"?>', '<?xml version="1.0" encoding="utf-16"?>')):
        path.write_bytes(text.encode("utf-16" if "utf-16" in text else "utf-8"))
        reference = tensorboardX.openvino_graph.load_openvino_graph(str(path))
        found = openvino_nodes(model_files.openvino_xml(path))
        assert found == GraphDef.FromString(reference.SerializeToString())
        assert [(node.name, *node.input) for node in found.node] == [
            ("multiply", "input"),
            ("multiply", "weights & ü"),
            ("result", "multiply"),
        ]


def test_both_are_in_the_event_file_as_tensorboardx_has_them(place: World) -> None:
    place.root.mkdir(exist_ok=True)
    (place.root / "model.onnx").write_bytes(model().SerializeToString())
    (place.root / "model.xml").write_text(XML)
    script = """
        import io, pathlib, sys
        from {package} import SummaryWriter
        with SummaryWriter("logs/{package}") as writer:
            writer.add_onnx_graph("model.onnx")
            writer.add_openvino_graph("model.xml")
        if "{package}" == "tbxd_client":
            with SummaryWriter("logs/more") as writer, open("model.onnx", "rb") as file:
                writer.add_onnx_graph(file)
                writer.add_onnx_graph(prototxt=pathlib.Path("model.onnx"))
                writer.add_openvino_graph(io.BytesIO(pathlib.Path("model.xml").read_bytes()))
        """
    for package in ("tbxd_client", "tensorboardX"):
        result = place.run(script.format(package=package))
        assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be drained")
    graphs = {
        run: [GraphDef.FromString(event.graph_def) for event in events(place.logdir / run) if event.graph_def]
        for run in ("tbxd_client", "tensorboardX", "more")
    }
    assert graphs["tbxd_client"] == graphs["tensorboardX"] and len(graphs["tensorboardX"]) == 2
    assert graphs["more"] == [graphs["tensorboardX"][0], *graphs["tensorboardX"]]


# --- what cannot be --------------------------------------------------------------------------------------------


def test_without_onnx_the_record_is_counted_under_a_reason_that_says_what_to_install(place: World) -> None:
    (place.root / "absent" / "onnx").mkdir(parents=True)
    (place.root / "absent" / "onnx" / "__init__.py").write_text("raise ModuleNotFoundError('there is no onnx')\n")
    place.extra["PYTHONPATH"] = f"{place.root / 'absent'}:{os.environ.get('PYTHONPATH', '')}"
    (place.root / "model.onnx").write_bytes(model().SerializeToString())
    result = place.run(
        """
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/a") as writer:
            writer.add_onnx_graph("model.onnx")
            writer.add_scalar("value", 1.0, 1)
        assert writer.stats()["dropped"] == {"onnx_not_installed": 1}, writer.stats()
        """
    )
    assert result.returncode == 0, result.stderr
    assert "1 onnx_not_installed" in result.stderr
    wait_for(place.drained, "the journal to be drained")
    shown = place.tbxd("status").stdout
    assert "1 onnx_not_installed" in shown and HINTS[ONNX_NOT_INSTALLED] in shown
    assert "pip install onnx" in HINTS[ONNX_NOT_INSTALLED]


def test_a_file_that_cannot_be_read_raises_in_the_call_as_in_tensorboardx(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with (
        SummaryWriter(tmp_path / "ours") as ours,
        tensorboardX.SummaryWriter(str(tmp_path / "theirs")) as original,
    ):
        for writer in (ours, original):
            for method in (writer.add_onnx_graph, writer.add_openvino_graph):
                for path, kind in (("no such file", FileNotFoundError), ("folder", IsADirectoryError)):
                    with pytest.raises(kind):
                        method(str(tmp_path / path))
        for method in (ours.add_onnx_graph, ours.add_openvino_graph):
            with pytest.raises(TypeError):
                method(None)
    (event,) = events(tmp_path / "ours")
    assert event.file_version, "nothing was logged"
    with SummaryWriter(tmp_path / "off", write_to_disk=False) as off:
        off.add_onnx_graph("no such file")
        off.add_openvino_graph("no such file")


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"PK\x03\x04 a zip file", b"\x08\x07", b"\x3a\x05abc", b"\x3a\x03\x0a\x05a"]
)
def test_what_is_no_model_of_onnx_raises_in_the_call(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.onnx is no model of ONNX in protobuf"):
        model_files.onnx_graph(path)


def test_limits_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model"
    path.write_bytes(model(depth=1).SerializeToString())
    monkeypatch.setattr(model_files, "MODEL_BYTES_MAX", 100)
    for read in (model_files.onnx_graph, model_files.openvino_xml):
        with pytest.raises(ValueError, match="more than 100 bytes"):
            read(path)
    monkeypatch.setattr(model_files, "NODE_BYTES_MAX", 10)
    with pytest.raises(ValueError, match="at most 10 are possible"):
        model_files.onnx_graph(path)


def nested(depth: int) -> bytes:
    """A model with so many graphs in each other, each in an attribute of a node."""
    graph = field(2, bytes(2 * TENSOR_BYTES_MAX))
    for _ in range(depth):
        graph = field(1, field(5, field(6, graph)))
    return field(7, graph)


def test_graphs_within_graphs_without_end_are_refused_on_both_sides() -> None:
    assert model_files.onnx_graph(io.BytesIO(nested(DEPTH_MAX))) == nested(DEPTH_MAX)
    assert onnx_nodes(nested(DEPTH_MAX)).node
    with pytest.raises(ValueError, match=f"more than {DEPTH_MAX} deep"):
        model_files.onnx_graph(io.BytesIO(nested(1000)))
    with pytest.raises(Refused, match="no model of ONNX"):
        onnx_nodes(nested(1000))


@settings(max_examples=300)
@given(st.data())
def test_a_model_that_is_cut_or_changed_raises_a_value_error_or_is_a_graph(data: st.DataObject) -> None:
    whole = bytearray(model(constant=2 * TENSOR_BYTES_MAX).SerializeToString())
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, min(600, len(whole) - 1)))] = data.draw(st.integers(0, 255))
    part = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        found = model_files.onnx_graph(io.BytesIO(part))
    except ValueError:
        return
    try:
        onnx_nodes(found)
    except Refused as refused:
        assert refused.reason == "bad_record"


BOMB = '<!DOCTYPE net [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE net [<!ENTITY a SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize(
    "text",
    [
        XML.replace("<net", BOMB + "<net").replace("multiply", "&b;"),
        XML.replace("<net", OUTSIDE + "<net").replace("multiply", "&a;"),
        XML.replace("<net", '<!DOCTYPE net SYSTEM "http://localhost/net.dtd"><net'),
        XML.replace('id="2"', ""),
        XML.replace('name="result"', ""),
        XML.replace('from-layer="0"', 'from-layer="9"'),
        XML.replace('to-layer="3"', ""),
        XML.replace("layers>", "others>"),
        XML.replace("edges>", "others>"),
        XML.replace("multiply", "m" * (1 << 15)),
        XML[:-20],
        XML + "<more/>",
        "",
        "<net/>",
        "no xml",
    ],
)
def test_a_file_of_openvino_with_a_dtd_or_without_sense_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refused:
        openvino_nodes(text)
    assert refused.value.reason == "bad_record"


@given(st.binary(max_size=200) | st.text(alphabet="<>/=\"'& layersedg-id!?[]xml", max_size=200).map(str.encode))
def test_any_payload_is_a_graph_or_refused(data: bytes) -> None:
    for make in (onnx_nodes, openvino_nodes):
        try:
            make(data)
        except Refused as refused:
            assert refused.reason == "bad_record"
    for make, kind in ((onnx_graph_of, ONNX_GRAPH), (openvino_graph_of, OPENVINO_GRAPH)):
        for payload in ("text", None):
            with pytest.raises(Refused):
                make(Record(kind, 0, 0, 0.0, {}, payload))


def test_the_models_of_these_tests_are_valid_protobuf_of_onnx() -> None:
    assert onnx.load_model_from_string(model().SerializeToString()).graph.node[0].op_type == "MatMul"


def test_a_graph_in_very_many_parts_takes_no_longer_than_in_one() -> None:
    """The parts were counted anew with each of them: 20,000 took 9 s, 100,000 minutes."""
    part = field(7, field(1, b""))
    begin = time.monotonic()
    assert model_files.onnx_graph(io.BytesIO(part * 100_000)) == field(7, field(1, b"") * 100_000)
    assert time.monotonic() - begin < 30
