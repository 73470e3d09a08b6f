"""The graph of a model for ``add_graph``: traced by torch, and described in JSON.

A trace is a list of operations on values. Users know the GRAPHS tab as torch's own writer fills it, so the nodes are
the same, in the same order:

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
    """A node of the GRAPHS tab; ``shape`` is that of its value, None if it is not a tensor or unknown."""

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
    """Return the graph of a model as JSON, {nodes: [[name, op, [input], attributes, shape or null]]}.

    Args:
        model: a ``torch.nn.Module``, also a traced or scripted one.
        inputs: the input of the model: a tensor, a dictionary, or a tuple or list of arguments.
        verbose: print torch's own graph.
        strict: as in ``torch.jit.trace``.

    Raises:
        TypeError: ``model`` is not a torch module.
        ValueError: the graph exceeds the limits above.
        Exception: the model raises, or torch fails to trace it.
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
    """Return a traced module and its graph, with the graphs of submodules inlined."""
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
    """Put a model in eval mode. Afterwards each module has its own mode again, also one kept in eval mode while the
    model trains."""
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
    """Return a context that restores the state of the random number generators at its end."""
    devices: set[int] = set()
    if torch.cuda.is_initialized():  # only GPUs that are in use: asking another one costs it hundreds of megabytes
        devices = {parameter.device.index for parameter in model.parameters() if parameter.is_cuda}
        devices.add(torch.cuda.current_device())
    return torch.random.fork_rng(sorted(devices))


# --- from a trace to nodes -------------------------------------------------------------------------------------


def _module_names(torch: Any, trace: Any) -> dict[str, str]:
    """Return the displayed name of each module (its class and its attribute), by its name in the trace."""
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
    """Yield the operations of a trace, without attribute access to submodules: the scopes have that."""
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
    """Convert ``__module.a/__module.a.b`` to ``Net/Block[a]/Linear[b]``; names that are not modules stay."""
    steps = [modules.get(step) or step.rpartition(".")[2] for step in path.split("/")]
    return "/".join([modules[_TOP], *steps] if any(steps) else [modules[_TOP]])


def _attributes(node: Any) -> str:
    """Return the attributes of an operation, which are not values of the graph, as text."""
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
    """Return the shape of an input or output of the model."""
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
