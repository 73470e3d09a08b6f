"""add_graph: the GRAPHS tab shows what it shows of torch's own writer, and the model is left as it was."""

from __future__ import annotations

import functools
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.graph_pb2 import GraphDef
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.graph.graphs_plugin import GraphsPlugin
from torch import nn
from torch.utils.tensorboard import _pytorch_graph

import graph_models as models
from harness import World, events, scalars, wait_for, world
from tb import LOADERS, board
from tbxd.encode.graph import graph_of
from tbxd.encode.rejections import Refused
from tbxd_client import SummaryWriter
from tbxd_client.protocol.kinds import GRAPH
from tbxd_client.protocol.records import Record
from tbxd_client.values import graph

TESTS = Path(__file__).parents[1]
TABS = ("graphs", "graph_tagged_run_metadata")
SHOWN = ["nested", "convolutions", "two inputs", "a dictionary"]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """torch says of what it does here that there is something newer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def record(payload: Any) -> Record:
    return Record(GRAPH, 0, 0, 0.0, {}, payload)


def ours(model: Any, inputs: Any, strict: bool = False) -> Any:
    """What the daemon makes of what the client says, as TensorBoard reads it."""
    return GraphDef.FromString(graph_of(record(graph.text_of(model, inputs, False, strict))))


def theirs(monkeypatch: pytest.MonkeyPatch, model: Any, inputs: Any) -> Any:
    """torch's own; without the check of the trace, which some models do not pass."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.jit, "trace", functools.partial(torch.jit.trace, check_trace=False))
        return _pytorch_graph.graph(model, inputs, use_strict_trace=False)[0]


def numbered_anew(found: Any) -> Any:
    """A graph whose values without a name of their own have numbers in the order of the nodes."""
    names: dict[str, str] = {}
    for node in sorted(found.node, key=lambda node: int(re.sub(r"\D", "", node.name.rpartition("/")[2]) or 0)):
        scope, _, name = node.name.rpartition("/")
        if name.isdecimal():
            names[node.name] = f"{scope}/#{len(names)}"
    for node in found.node:
        node.name = names.get(node.name, node.name)
        node.input[:] = [names.get(name, name) for name in node.input]
    return found


# --- the same graph --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", models.cases())
def test_a_graph_is_torchs_node_for_node(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = models.cases()[name]
    found = ours(model, inputs)
    assert found == theirs(monkeypatch, *models.cases()[name])
    assert len({node.name for node in found.node}) == len(found.node) > 1


def test_scopes_and_shapes_are_those_of_the_modules() -> None:
    nodes = {node.name: node for node in ours(*models.cases()["nested"]).node}
    weight = "Nested/ModuleList[blocks]/Inner[1]/Linear[lin]/weight/weight"
    (linear,) = (node for node in nodes.values() if weight in node.input)
    assert linear.op == "aten::linear" and linear.name.startswith("Nested/Inner[1]/Linear[lin]/")
    assert [dim.size for dim in linear.attr["_output_shapes"].list.shape[0].dim] == [2, 4]
    assert nodes["output/output.1"].op == "IO Node" and nodes["output/output.1"].input[0] in nodes


def test_a_model_that_has_been_traced_already_is_shown_and_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = models.Nested(), torch.ones(2, 4)
    for ready in (torch.jit.trace(model, x), torch.jit.script(model.first)):
        before = str(ready.graph)
        found = ours(ready, x)
        assert str(ready.graph) == before
        assert numbered_anew(found) == numbered_anew(theirs(monkeypatch, ready, x))


def test_an_output_is_not_lost_to_a_value_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = models.NamedOutput(), torch.ones(2, 4)
    found, reference = ours(model, x), theirs(monkeypatch, model, x)
    output = next(node for node in found.node if node.name == "output/output.1")
    assert output.input[0] in {node.name for node in found.node if node.op == "aten::add"}
    found.node.remove(output)
    assert sorted(found.node, key=str) == sorted(reference.node, key=str)


def test_parts_of_attributes_beyond_the_limit_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "NODE_ATTRIBUTES_BYTES_MAX", 20)
    cut = [node.attr["attr"].s.decode() for node in ours(*models.cases()["constants"]).node]
    assert all(len(text.encode()) <= 20 for text in cut)
    assert "{ value : tensor(…" in cut


# --- the model afterwards --------------------------------------------------------------------------------------


@pytest.mark.parametrize("strict", [True, False])
def test_modes_parameters_and_random_numbers_are_as_before(strict: bool) -> None:
    model, x = models.Draws().train(), torch.ones(2, 4)
    model.frozen.eval()
    model.frozen.weight.grad = torch.ones(4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = (torch.manual_seed(3), torch.rand(5))[1]
    torch.manual_seed(3)
    ours(model, x, strict)
    assert torch.equal(torch.rand(5), expected)
    assert model.calls == 1
    assert (model.training, model.drop.training, model.frozen.training) == (True, True, False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(model.frozen.weight.grad, torch.ones(4))


def test_a_model_in_eval_mode_and_a_traced_one_keep_their_modes() -> None:
    model, x = models.Convolutions().eval(), torch.ones(2, 3, 8, 8)
    ours(model, x)
    assert not any(module.training for module in model.modules())
    traced = torch.jit.trace(model.train(), x, check_trace=False)
    traced.head.eval()
    modes = [module.training for module in traced.modules()]
    ours(traced, x)
    assert [module.training for module in traced.modules()] == modes and len(set(modes)) == 2


def test_modes_are_restored_when_a_model_fails() -> None:
    model = nn.Sequential(models.Fails(), nn.Dropout()).train()
    with pytest.raises(KeyError):
        graph.text_of(model, torch.ones(1), False, True)
    assert all(module.training for module in model.modules())


# --- what cannot be ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "inputs", "error", "said"),
    [
        (3, None, TypeError, "int; a torch.nn.Module is expected"),
        (lambda x: x, torch.ones(1), TypeError, "function; a torch.nn.Module"),
        (models.branching, torch.ones(1), TypeError, "ScriptFunction; a torch.nn.Module"),
        (models.UsedTwice(), None, RuntimeError, "example_kwarg_inputs"),
        (models.UsedTwice(), torch.ones(2, 5), RuntimeError, "shapes cannot be multiplied"),
        (models.UsedTwice(), (torch.ones(2, 4), torch.ones(1)), TypeError, "positional argument"),
        (models.DictOutput(), torch.ones(2, 4), RuntimeError, "dict at the output"),
        (models.Fails(), torch.ones(1), KeyError, "nothing of ours"),
    ],
)
def test_what_torch_cannot_trace_raises_what_torch_raises(
    model: Any, inputs: Any, error: type[Exception], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(error, match=said):
        graph.text_of(model, inputs, False, True)
    assert capsys.readouterr().out == ""
    if isinstance(model, nn.Module):
        with pytest.raises(error, match=said):
            _pytorch_graph.graph(model, inputs)


@pytest.mark.parametrize("limit", ["NODES_MAX", "NODE_NAME_BYTES_MAX", "GRAPH_BYTES_MAX"])
def test_a_graph_beyond_a_limit_raises(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, limit, 5)
    with pytest.raises(ValueError, match="at most 5 are possible"):
        graph.text_of(*models.cases()["nested"], False, True)


def test_with_write_to_disk_off_the_model_is_not_even_looked_at(tmp_path: Path) -> None:
    model = models.Draws()
    with SummaryWriter(tmp_path / "off", write_to_disk=False) as writer:
        writer.add_graph(model, torch.ones(2, 4))
        writer.add_graph("no model")
        writer.file_writer.add_graph((GraphDef(), None))
    assert model.calls == 0 and not (tmp_path / "off").exists()


# --- the way to the tab ----------------------------------------------------------------------------------------

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import graph_models
from {0} import SummaryWriter
for name in sys.argv[2:]:
    writer = SummaryWriter("logs/{0} " + name)
    writer.add_graph(*graph_models.cases()[name], verbose=name == "nested")
    writer.close()
loaded = {{"tensorboard", "tensorboardX", "google.protobuf", "torch.utils.tensorboard"}} & set(sys.modules)
assert "{0}" != "tbxd_client" or not loaded, loaded
"""
PACKAGES = ("tbxd_client", "torch.utils.tensorboard")


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """The log folder of tbxd and of torch, and what they printed."""
    with world(tmp_path_factory.mktemp("graph") / "world") as place:
        printed = {}
        for package in PACKAGES:
            result = place.run(SCRIPT.format(package), TESTS, *SHOWN, timeout=180)
            assert result.returncode == 0, result.stderr
            printed[package] = result.stdout
        wait_for(place.drained, "the journal to be drained")
        yield place.logdir, printed


def test_verbose_prints_what_torch_prints(logged: tuple[Path, dict[str, str]]) -> None:
    mine, reference = (logged[1][package] for package in PACKAGES)
    assert mine == reference and mine.startswith("graph(%self")


@pytest.mark.parametrize("loader", LOADERS)
def test_the_tab_is_served_the_same(logged: tuple[Path, dict[str, str]], loader: str) -> None:
    with board(logged[0], loader) as shown:
        plugin = GraphsPlugin(TBContext(data_provider=shown._provider))
        context = RequestContext()
        for name in SHOWN:
            mine, reference = (f"{package} {name}" for package in PACKAGES)
            for run in (mine, reference):
                shown.until(lambda run=run: shown.blobs(run, "__run_graph__", TABS[0]), "the graph")
                shown.until(lambda run=run: shown.blobs(run, "step1", TABS[1]), "the run metadata")
            [(step, [data])], [(_, [other])] = (shown.blobs(run, "__run_graph__", TABS[0]) for run in (mine, reference))
            assert step == 0 and GraphDef.FromString(data) == GraphDef.FromString(other)
            assert shown.blobs(mine, "step1", TABS[1]) == shown.blobs(reference, "step1", TABS[1])
            info = plugin.info_impl(context, "")
            assert info[mine]["run_graph"] and info[mine]["tags"]["step1"]["profile"]
            assert {**info[mine], "run": ""} == {**info[reference], "run": ""}
            graphs = [plugin.graph_impl(context, run, None, False, "", 1024, "_too_large") for run in (mine, reference)]
            assert graphs[0] == graphs[1]
            metadata = [plugin.run_metadata_impl(context, "", run, "step1") for run in (mine, reference)]
            assert metadata[0] == metadata[1] and "/device:CPU:0" in metadata[0][0]


def test_event_accumulator_reads_the_same(logged: tuple[Path, dict[str, str]]) -> None:
    for name in SHOWN:
        mine, reference = (EventAccumulator(str(logged[0] / f"{package} {name}")).Reload() for package in PACKAGES)
        assert mine.Tags() == reference.Tags() and mine.Tags()["graph"] is True
        assert mine.Graph() == reference.Graph() and len(mine.Graph().node) > 5
        assert mine.RunMetadata("step1") == reference.RunMetadata("step1")


def test_time_step_and_counts_are_as_for_any_record(place: World) -> None:
    result = place.run(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        import graph_models, torch
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/a")
        model, x = graph_models.DictOutput(), torch.ones(2, 4)
        try:
            writer.add_graph(model, x)
        except RuntimeError:
            assert writer.stats()["accepted"] == 0
        else:
            raise AssertionError
        writer.add_graph(model, x, use_strict_trace=False, walltime=1_700_000_000.5)
        with writer.use_metadata(global_step=7, walltime=1_700_000_001.5):
            writer.add_graph(graph_models.UsedTwice(), x)
        assert writer.flush(60) and writer.stats()["accepted"] == 4
        """,
        TESTS,
    )
    assert result.returncode == 0, result.stderr
    found = [
        (event.step, event.wall_time, event.WhichOneof("what"))
        for event in events(place.logdir / "a")
        if event.WhichOneof("what") in ("graph_def", "tagged_run_metadata")
    ]
    assert found == [
        (0, 1_700_000_000.5, "graph_def"),
        (0, 1_700_000_000.5, "tagged_run_metadata"),
        (7, 1_700_000_001.5, "graph_def"),
        (7, 1_700_000_001.5, "tagged_run_metadata"),
    ]
    assert len(EventAccumulator(str(place.logdir / "a")).Reload().Graph().node) == 11, "the last one is shown"


# --- whatever is sent ------------------------------------------------------------------------------------------

json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
texts = st.text(st.characters(), max_size=5)
shapes = st.none() | st.lists(st.integers(-2, 1 << 64), max_size=4) | json_values
nodes = st.tuples(texts, texts, st.lists(texts, max_size=3), texts, shapes)
payloads = (
    st.none()
    | st.binary(max_size=20)
    | st.text(st.characters(), max_size=20)
    | json_values.map(json.dumps)
    | st.fixed_dictionaries({"nodes": json_values | st.lists(nodes | json_values, max_size=4)}).map(json.dumps)
)


@settings(max_examples=400)
@given(payloads)
def test_whatever_the_payload_is_it_is_a_graph_or_refused(payload: Any) -> None:
    try:
        found = graph_of(record(payload))
    except Refused as refused:
        assert refused.reason == "bad_record"
        return
    read = GraphDef.FromString(found)
    assert len(read.node) == len(json.loads(payload)["nodes"])


@given(
    st.lists(st.tuples(texts, texts, st.lists(texts, max_size=3), texts, st.none() | st.just([2, -1, 0])), max_size=4)
)
def test_what_the_client_says_is_what_is_written(given_: list[Any]) -> None:
    def escaped(text: str) -> str:  # JSON joins two halves of a character
        return json.loads(json.dumps(text)).encode("utf-8", "backslashreplace").decode()

    read = GraphDef.FromString(graph_of(record(graph._text([graph.Node(*node) for node in given_]))))
    assert [(node.name, node.op, list(node.input), node.attr["attr"].s.decode()) for node in read.node] == [
        (escaped(name), escaped(op), [escaped(source) for source in inputs], escaped(attributes))
        for name, op, inputs, attributes, _ in given_
    ]


NODE = ["name", "op", ["input"], "attributes", [1]]


@pytest.mark.parametrize(
    "payload",
    [
        "[" * 200_000,
        '{"nodes":[["","",[],"",[' + "9" * 100_000 + "]]]}",
        json.dumps({"nodes": [0] * (graph.NODES_MAX + 1)}),
        '"' + "x" * graph.GRAPH_BYTES_MAX + '"',
        json.dumps({"nodes": [["x" * (graph.NODE_NAME_BYTES_MAX + 1), *NODE[1:]]]}),
        json.dumps({"nodes": [[NODE[0], "\ud800" * graph.NODE_NAME_BYTES_MAX, *NODE[2:]]]}),
        json.dumps({"nodes": [[*NODE[:2], ["ä" * graph.NODE_NAME_BYTES_MAX], *NODE[3:]]]}),
        json.dumps({"nodes": [[*NODE[:3], "x" * (graph.NODE_ATTRIBUTES_BYTES_MAX + 1), NODE[4]]]}),
        json.dumps({"nodes": [[*NODE[:4], [1] * (graph.NODE_DIMENSIONS_MAX + 1)]]}),
        json.dumps({"nodes": [[*NODE[:4], [1 << 63]]]}),
        json.dumps({"nodes": [[*NODE[:4], [-2]]]}),
        json.dumps({"nodes": [[*NODE[:4], [True]]]}),
        json.dumps({"nodes": [NODE[:4]]}),
        json.dumps({"nodes": {}}),
        json.dumps({}),
        json.dumps([]),
        b"{}",
        None,
    ],
    ids=range(18),
)
def test_what_is_beyond_a_limit_is_refused(payload: Any) -> None:
    with pytest.raises(Refused) as caught:
        graph_of(record(payload))
    assert caught.value.reason == "bad_record"
    assert len(str(caught.value)) < 300


def test_a_daemon_that_is_sent_anything_as_a_graph_counts_it_and_goes_on(place: World) -> None:
    result = place.run(
        """
        from tbxd_client import SummaryWriter
        from tbxd_client.protocol import kinds
        with SummaryWriter("logs/a") as writer:
            for text in ("", "null", "[" * 100_000, '{"nodes":[1]}', '{"nodes":[["","",[],"",[-9]]]}', None):
                writer._tbxd_run.text(kinds.GRAPH, "", 0, 1.0, text)
            writer._tbxd_run.text(kinds.GRAPH, "", 0, 1.0, '{"nodes":[]}')
            writer.add_scalar("after", 1.0, 1)
        """
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be drained")
    assert scalars(place.logdir / "a")["after"] == [(1, 1.0)]
    status = place.status()
    assert status is not None
    assert status["runs"][str(place.logdir / "a")]["dropped"] == {"bad_record": 6}
