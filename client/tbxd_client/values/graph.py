"""The graph of a model for ``add_graph``: traced by torch, and told in plain words.

A trace is a list of operations on values. What users know of the GRAPHS tab is how torch's own writer shows a trace,
so the nodes are its nodes, in its order:

- each input of the model that is used, ``input/<value>``;
- each output, ``output/output.<n>``;
- each value that an operation makes, ``<scope>/<value>``. The scope of an operation is the way through the modules to
  where it ran, that of a parameter the way to where it is kept: ``Net/Block[first]/Linear[fc]``. A value that no node
  stands for (a module on the way to its parameters) is named by the scope of the last operation that takes it.

torch is used where it is loaded, which it is before there can be a model, and never imported. No protobuf here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..protocol.limits import (
    GRAPH_BYTES_MAX,
    NODE_ATTRIBUTES_BYTES_MAX,
    NODE_DIMENSIONS_MAX,
    NODE_NAME_BYTES_MAX,
    NODES_MAX,
)

_TOP = "__module"  # how a trace calls the model itself
_GET_ATTRIBUTE = "prim::GetAttr"
_CLASS = "ClassType"  # the type of a value that is a module
_NO_SHAPE = (1,)  # what torch's writer says of an input or output that is no tensor
_CUT = "…"


@dataclass(slots=True)
class Node:
    """What is shown as one node; ``shape`` is that of its value, None where that is no tensor or unknown."""

    name: str
    op: str
    inputs: list[str]
    attributes: str = ""
    shape: list[int] | None = None


@dataclass(slots=True)
class _Operation:
    """An operation of a trace, with the values it takes and makes."""

    kind: str
    scope: str
    attributes: str
    takes: list[str]
    makes: list[tuple[str, list[int] | None]]


def text_of(model: Any, inputs: Any, verbose: bool, strict: bool) -> str:
    """The graph of a model as JSON, {nodes: [[name, op, [input], attributes, shape or null]]}.

    Args:
        model: a ``torch.nn.Module``, or one that has been traced or scripted already.
        inputs: what it is called with: a tensor, a dictionary, or a tuple or list of arguments.
        verbose: print torch's own graph.
        strict: as in ``torch.jit.trace``.

    Raises:
        TypeError: ``model`` is no module of torch.
        ValueError: the graph is over the limits above.
        Exception: whatever the model raises when it is called, or torch when it traces it.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None or not isinstance(model, torch.nn.Module):
        raise TypeError(f"model is {type(model).__name__}; a torch.nn.Module is expected")
    with _in_eval_mode(model), _same_random_numbers(torch, model):
        trace, graph = _traced(torch, model, inputs, strict)
    if verbose:
        print(graph)
    return _text(_nodes(graph, _module_names(torch, trace)))


# --- tracing ---------------------------------------------------------------------------------------------------


def _traced(torch: Any, model: Any, inputs: Any, strict: bool) -> tuple[Any, Any]:
    """A module that knows its graph, and that graph with the submodules' inside it."""
    if isinstance(model, torch.jit.ScriptModule):  # torch would give it back; inlining its own graph would change it
        return model, model.inlined_graph
    # Unchecked: a check runs the model three times more, and fails where a model is right to do something else
    # without gradients, as nn.TransformerEncoderLayer does.
    trace = torch.jit.trace(model, inputs, strict=strict, check_trace=False)
    graph = trace.graph
    torch._C._jit_pass_inline(graph)  # `inlined_graph` would give the values other numbers than torch's writer shows
    return trace, graph


@contextmanager
def _in_eval_mode(model: Any) -> Iterator[None]:
    """A model without dropout meanwhile. Afterwards each module is as it was, also one that is kept in eval mode
    while the model trains."""
    modes = [(module, module.training) for module in model.modules()]
    training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(training)  # a model may do more in it than set the modes
        for module, mode in modes:
            if module.training != mode:
                module.training = mode


def _same_random_numbers(torch: Any, model: Any) -> Any:
    """A context after which training draws the random numbers that it would have drawn without it."""
    devices: set[int] = set()
    if torch.cuda.is_initialized():  # only GPUs that are in use: asking another one costs it hundreds of megabytes
        devices = {parameter.device.index for parameter in model.parameters() if parameter.is_cuda}
        devices.add(torch.cuda.current_device())
    return torch.random.fork_rng(sorted(devices))


# --- from a trace to nodes -------------------------------------------------------------------------------------


def _module_names(torch: Any, trace: Any) -> dict[str, str]:
    """How a module is shown, by the name that the trace has for it: its class, and where it is kept."""
    names = {}
    for path, module in trace.named_modules(prefix=_TOP):
        traced = isinstance(module, torch.jit.TracedModule)
        kind = module._get_name() if traced else getattr(module, "original_name", "Module")
        names[path] = kind if path == _TOP else f"{kind}[{path.rpartition('.')[2]}]"
    return names


def _nodes(graph: Any, modules: dict[str, str]) -> list[Node]:
    operations = list(_operations(graph, modules))
    inputs = [value for value in graph.inputs() if value.uses() and value.type().kind() != _CLASS]
    names: dict[str, str] = {}
    for operation in operations:
        names.update((taken, f"{operation.scope}/{taken}") for taken in operation.takes)
    names.update((value.debugName(), f"input/{value.debugName()}") for value in inputs)
    for operation in operations:
        names.update((made, f"{operation.scope}/{made}") for made, _ in operation.makes)

    nodes = [Node(names[value.debugName()], "IO Node", [], shape=_shape_at_the_edge(value)) for value in inputs]
    for number, value in enumerate(graph.outputs(), 1):
        source = value.debugName()
        nodes.append(
            Node(f"output/output.{number}", "IO Node", [names.get(source, source)], shape=_shape_at_the_edge(value))
        )
    for operation in operations:
        takes = [names[taken] for taken in operation.takes]
        for made, shape in operation.makes:
            nodes.append(Node(names[made], operation.kind, takes, operation.attributes, shape))
    if len(nodes) > NODES_MAX:
        raise ValueError(f"a graph of {len(nodes):,} nodes; at most {NODES_MAX:,} are possible")
    return nodes


def _operations(graph: Any, modules: dict[str, str]) -> Iterator[_Operation]:
    """What a trace does, without its steps from module to module: these are in the scopes."""
    paths: dict[str, str] = {}  # of the values that are modules, or attributes of one
    for node in graph.nodes():
        kind, takes = node.kind(), [value.debugName() for value in node.inputs()]
        made = list(node.outputs())
        path = node.scopeName()
        if kind == _GET_ATTRIBUTE:
            above = paths.get(takes[0], "")
            step = f"{above.rpartition('/')[2] or _TOP}.{node.s('name')}"
            path = paths[made[0].debugName()] = f"{above}/{step}" if above else step
            if made[0].type().kind() == _CLASS:
                continue
        yield _Operation(
            kind,
            _scope(path, modules),
            _attributes(node),
            takes,
            [(value.debugName(), _shape(value) if value.isCompleteTensor() else None) for value in made],
        )


def _scope(path: str, modules: dict[str, str]) -> str:
    """``__module.a/__module.a.b`` as ``Net/Block[a]/Linear[b]``; what is no module keeps its own name."""
    steps = [modules.get(step) or step.rpartition(".")[2] for step in path.split("/")]
    return "/".join([modules[_TOP], *steps] if any(steps) else [modules[_TOP]])


def _attributes(node: Any) -> str:
    """What an operation was given that is no value of the graph, as text."""
    found = {}
    for name in node.attributeNames():
        kind = node.kindOf(name)
        read = getattr(node, kind, None)
        found[name] = read(name) if read is not None else f"<{kind}>"
    text = str(found).replace("'", " ")  # TensorBoard's parser ends a text at a quote
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= NODE_ATTRIBUTES_BYTES_MAX:
        return text
    return data[: NODE_ATTRIBUTES_BYTES_MAX - len(_CUT.encode())].decode("utf-8", "ignore") + _CUT


def _shape(value: Any) -> list[int] | None:
    sizes = value.type().sizes()
    return None if sizes is None or len(sizes) > NODE_DIMENSIONS_MAX else list(sizes)


def _shape_at_the_edge(value: Any) -> list[int] | None:
    """The shape of an input or output of the model."""
    try:
        return _shape(value)
    except RuntimeError:  # a dictionary, a tuple, a number
        return list(_NO_SHAPE)


def _text(nodes: list[Node]) -> str:
    for node in nodes:
        size = max(len(text.encode("utf-8", "backslashreplace")) for text in (node.name, node.op))
        if size > NODE_NAME_BYTES_MAX:
            raise ValueError(
                f"node {node.name[:80]!r}… has a name of {size:,} bytes; at most {NODE_NAME_BYTES_MAX:,} are possible"
            )
    rows = [[node.name, node.op, node.inputs, node.attributes, node.shape] for node in nodes]
    text = json.dumps({"nodes": rows}, separators=(",", ":"))
    if len(text) > GRAPH_BYTES_MAX:
        raise ValueError(f"a graph of {len(text):,} bytes; at most {GRAPH_BYTES_MAX:,} are possible")
    return text
