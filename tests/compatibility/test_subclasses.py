"""Writers as people subclass them: an attribute or a method of theirs may have any name, and meets none of ours."""

from __future__ import annotations

import ast
import inspect
import tempfile
from typing import Any

import pytest
import tensorboardX
import tensorboardX.event_file_writer
import tensorboardX.record_writer
import tensorboardX.torchvis
import tensorboardX.writer
import torch.utils.tensorboard.writer
from tensorboard.summary.writer import event_file_writer

import tbxd_client
from every_call import CALLS, content
from harness import World
from tbxd_client.event_file_writer import EventFileWriter
from tbxd_client.writers.base import WriterBase
from tbxd_client.writers.media_methods import MediaMethods
from tbxd_client.writers.plugin_methods import PluginMethods

OURS = "_tbxd_"  # how a private name of a class that people subclass begins
KINDS = [*(getattr(tbxd_client, name) for name in tbxd_client.__all__), EventFileWriter]


def private_names(kind: type) -> set[str]:
    """The private names that the classes of this package below a class have, set or read of themselves."""
    found: set[str] = set()
    for one in kind.__mro__:
        if not one.__module__.startswith("tbxd_client"):
            continue
        found |= {*vars(one), *inspect.get_annotations(one)}
        for node in ast.walk(ast.parse(inspect.getsource(one))):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in ("self", "cls")
            ):
                found.add(node.attr)
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def names_of_the_originals() -> set[str]:
    """The private names that the originals' own classes have: people's code touches these."""
    found = set()
    for module in (
        *(tensorboardX.writer, tensorboardX.event_file_writer, tensorboardX.record_writer, tensorboardX.torchvis),
        *(torch.utils.tensorboard.writer, event_file_writer),
    ):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
                found.add(node.attr)
            elif isinstance(node, ast.FunctionDef):
                found.add(node.name)
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_a_private_name_of_a_class_that_people_subclass_is_ours_alone_or_an_originals(kind: type) -> None:
    allowed = names_of_the_originals()
    assert {name for name in private_names(kind) if not name.startswith(OURS)} <= allowed
    assert all(private_names(one) for one in (WriterBase, MediaMethods, PluginMethods)), "they are looked into"


def test_what_a_writer_keeps_in_itself_is_ours_alone_or_public_in_both_originals(place: World) -> None:
    public = {"file_writer", "all_writers"}
    result = place.run(
        CALLS
        + """
w = SummaryWriter("logs/r")
every_call(w)
g = GlobalSummaryWriter("logs/g")
g.add_scalar("x", 1.0)
f = w.file_writer
print([name for one in (w, g, f, f.event_writer) for name in vars(one) if not name.startswith("_tbxd_")])
w.close()
print([name for name in vars(w) if not name.startswith("_tbxd_")])
"""
    )
    assert result.returncode == 0, result.stderr
    for line in result.stdout.splitlines():
        assert set(ast.literal_eval(line)) <= {*public, "smw", "event_writer"}


# --- names of a subclass's own ---------------------------------------------------------------------------------


def names_to_meet() -> list[str]:
    """Names that a subclass may well have: ours without their prefix, and those that one original does not have."""
    found = {name.removeprefix(OURS) for kind in KINDS for name in private_names(kind)}
    theirs = [
        {*dir(kind), *vars(made(kind))} for kind in (tensorboardX.SummaryWriter, torch.utils.tensorboard.SummaryWriter)
    ]
    found |= {name.lstrip("_") for name in found} | {f"_{name}" for name in found}
    found |= {"_step", "_time", "_text", "_image", "_now", "_array", "_run", "_runs", "_folder", "_write", "_logdir"}
    found |= theirs[0] ^ theirs[1]
    called = {"log", "stats", "use_metadata"}  # by `every_call`
    return sorted(
        name
        for name in found - called - (theirs[0] & theirs[1])
        if name.isidentifier() and not name.startswith(("__", "add_"))
    )


def made(kind: Any) -> Any:
    with tempfile.TemporaryDirectory() as folder, kind(folder) as writer:
        return writer


HOW = {
    "attribute of the class": "body = dict.fromkeys(NAMES, 'nonsense')",
    "method": "body = {name: (lambda self, *a, **k: 1 / 0) for name in NAMES}",
    "property": "body = {name: property(lambda self: 1 / 0) for name in NAMES}",
    "set before": "body = {'__init__': lambda s, *a, **k: (vars(s).update(dict.fromkeys(NAMES, 'nonsense')),"
    " SummaryWriter.__init__(s, *a, **k))[1]}",
    "set after": "body = {'__init__': lambda s, *a, **k: (SummaryWriter.__init__(s, *a, **k),"
    " [setattr(s, name, 'nonsense') for name in NAMES])[0]}",
}


@pytest.mark.parametrize(
    "how", ["method", *(pytest.param(how, marks=pytest.mark.long) for how in HOW if how != "method")]
)
def test_a_subclass_may_have_any_name_of_its_own(place: World, how: str) -> None:
    names = names_to_meet()
    assert len(names) > 60
    result = place.run(
        CALLS
        + f"""
NAMES = {names!r}
{HOW[how]}
with SummaryWriter("logs/plain") as w:
    every_call(w)
with type("Own", (SummaryWriter,), body)("logs/own") as w:
    every_call(w)
    stats = w.stats()
print(stats["dropped"])
"""
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.strip() == "{}"
    place.ensure()
    plain, own = content(place.logdir / "plain"), content(place.logdir / "own")
    assert own == plain
    assert sum(map(len, plain.values())) > 25


OTHERS = [
    pytest.param(kind, how, id=f"{kind}-{how}", marks=[pytest.mark.long] if how != "method" else [])
    for kind in ("GlobalSummaryWriter", "FileWriter")
    for how in ("attribute of the class", "method", "property")
]


@pytest.mark.parametrize(("kind", "how"), OTHERS)
def test_so_may_a_subclass_of_the_other_writers(place: World, kind: str, how: str) -> None:
    made_by = {name for one in KINDS for name in private_names(one)}
    names = sorted({f"_{name.removeprefix(OURS).lstrip('_')}" for name in made_by} - {"_get_file_writer"})
    use = {
        "GlobalSummaryWriter": "w.add_scalar('x', 1.0); w.add_scalar('x', 2.0); w.add_text('t', 'hi');"
        " w.log({'y': 3.0}); w.add_scalars('m', {'a': 4.0}); w.add_custom_scalars({})",
        "FileWriter": "s = Summary(value=[Summary.Value(tag='x', simple_value=7.0)]); w.add_summary(s, 1);"
        " w.event_writer.add_event(Event(step=2, summary=s)); w.add_graph(GraphDef()); w.flush()",
    }[kind]
    result = place.run(
        CALLS
        + f"""
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.graph_pb2 import GraphDef
NAMES = {names!r}
{HOW[how]}
for name, made in (("plain", {kind}), ("own", type("Own", ({kind},), body))):
    w = made("logs/" + name)
    {use}
    w.close()
"""
    )
    assert result.returncode == 0, result.stderr[-3000:]
    place.ensure()
    plain = content(place.logdir / "plain")
    assert content(place.logdir / "own") == plain
    assert sum(map(len, plain.values())) >= 2
