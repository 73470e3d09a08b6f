"""docs/COMPATIBILITY.md and the installed originals name the same, and ours take the same arguments.

A release of tensorboardX or torch that adds something fails here.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from typing import Any

import pytest
import tensorboardX
import torch.utils.tensorboard

import tbxd
import tbxd_client
from harness import World
from tbxd_client import SummaryWriter

PAGE = (Path(__file__).parents[2] / "docs" / "COMPATIBILITY.md").read_text()
ROWS = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", PAGE, re.M))
MEMBERS = dict(re.findall(r"^\| `([A-Z]\w+\.\w+)` \| (\w+) \|", PAGE, re.M))
MODULES = dict(re.findall(r"^\| `((?:tensorboardX|torch\.utils\.tensorboard)\.\w+)` \| (\w+) \|", PAGE, re.M))
PACKAGES = {"tensorboardX": tensorboardX, "torch.utils.tensorboard": torch.utils.tensorboard}
ORIGINALS = {"tensorboardX": tensorboardX.SummaryWriter, "torch": torch.utils.tensorboard.SummaryWriter}
# Where the originals differ, their calls are told apart by type, and so ours has other parameters.
TOLD_APART = {
    "add_hparams": {*ORIGINALS},
    "add_onnx_graph": {*ORIGINALS},
    "add_image_with_boxes": {*ORIGINALS},
    "add_scalar": {"torch"},
    "FileWriter.__init__": {"torch"},
    "RecordWriter.__init__": {"torch"},
    "SummaryWriter.__init__": {"torch"},
}


def methods(writer: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(writer).items() if callable(value) and not name.startswith("_")}


def classes(package: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(package).items() if inspect.isclass(value) and name[0].isupper()}


def members(package: Any) -> dict[str, Any]:
    """Return the public members of a package's classes, but for `SummaryWriter`, which has a table of its own."""
    return {
        f"{name}.{member}": value
        for name, kind in classes(package).items()
        if name != "SummaryWriter"
        for member, value in vars(kind).items()
        if not member.startswith("_")
    }


def test_every_method_of_the_originals_has_a_row_and_no_other() -> None:
    assert ROWS.keys() == set().union(*map(methods, ORIGINALS.values()))
    assert MEMBERS.keys() == set().union(*map(members, PACKAGES.values()))
    assert {*ROWS.values(), *MEMBERS.values()} <= {"same", "better", "different", "missing"}


def test_what_is_not_missing_is_there_and_what_is_missing_is_not() -> None:
    assert {name for name, how in ROWS.items() if how != "missing"} == {
        name for name in ROWS if hasattr(SummaryWriter, name)
    }
    for name, how in MEMBERS.items():
        kind, member = name.split(".")
        assert hasattr(getattr(tbxd_client, kind), member) == (how != "missing"), name
    (beyond,) = re.findall(r"^Beyond both: (.*)\.$", PAGE, re.M)
    assert all(hasattr(SummaryWriter, name) for name in re.findall(r"`(\w+)`", beyond))


def test_every_class_and_module_of_the_packages_is_there_or_said_to_differ() -> None:
    for package, module in PACKAGES.items():
        assert classes(module).keys() <= set(tbxd_client.__all__)
        found = {info.name for info in pkgutil.iter_modules(module.__path__) if not info.name.startswith("_")}
        assert {name for name in MODULES if name.startswith(f"{package}.")} == {f"{package}.{name}" for name in found}
        for name in found:
            ours = None
            try:
                ours = importlib.import_module(f"tbxd_client.{name}")
            except ModuleNotFoundError:
                pass
            if MODULES[f"{package}.{name}"] == "same":
                theirs = importlib.import_module(f"{package}.{name}")
                for kind in classes(theirs).keys() & set(tbxd_client.__all__):
                    assert getattr(ours, kind) is getattr(tbxd_client, kind)
    assert set(torch.utils.tensorboard.__all__) <= set(tbxd_client.__all__)
    assert tbxd_client.__version__ == tbxd.__version__


def calls() -> list[Any]:
    """(package, name, ours, original) of everything that can be called in both."""
    found = []
    for package, writer in ORIGINALS.items():
        for name, value in methods(writer).items():
            if ROWS[name] != "missing":
                found.append((package, name, getattr(SummaryWriter, name), value))
    for package, module in (("tensorboardX", tensorboardX), ("torch", torch.utils.tensorboard)):
        for name, kind in classes(module).items():
            ours = getattr(tbxd_client, name)
            found.append((package, f"{name}.__init__", ours.__init__, kind.__init__))
        for name in members(module):
            kind, member = name.split(".")
            original = getattr(getattr(module, kind), member)
            if callable(original) and MEMBERS[name] != "missing":
                found.append((package, name, getattr(getattr(tbxd_client, kind), member), original))
    return [pytest.param(*call, id=f"{call[0]}-{call[1]}") for call in found]


@pytest.mark.parametrize(("package", "name", "ours", "original"), calls())
def test_ours_takes_what_the_original_takes(package: str, name: str, ours: Any, original: Any) -> None:
    mine = inspect.signature(ours).parameters
    theirs = inspect.signature(original).parameters
    if package in TOLD_APART.get(name, ()):
        assert {parameter for parameter in theirs if parameter != "kwargs"} <= mine.keys()
        return
    assert [item for item in theirs if item != "kwargs"] == [item for item in mine if item != "kwargs"][
        : len(theirs) - ("kwargs" in theirs)
    ]
    assert ("kwargs" in theirs) <= ("kwargs" in mine)
    if name.endswith("__init__"):  # where the two name one thing differently, ours has to let either be left out
        return
    for parameter in theirs.values():
        assert (parameter.default is parameter.empty) == (mine[parameter.name].default is parameter.empty)


def test_a_writer_has_the_attributes_of_the_originals(place: World) -> None:
    ours = SummaryWriter(place.logdir / "ours")
    for package, kind in ORIGINALS.items():
        with kind(str(place.logdir / package)) as theirs:
            names = {name for name in vars(theirs) if not name.startswith("_")}
            assert {name for name in names if not hasattr(ours, name)} == set()
            assert all(f"`{name}`" in PAGE for name in names)
            assert ours.default_bins == theirs.default_bins


def test_a_script_needs_no_more_than_another_import(place: World) -> None:
    script = """
        import {package} as tensorboardX
        from {package}.writer import FileWriter, SummaryWriter
        from {package}.global_writer import GlobalSummaryWriter
        from {package}.record_writer import RecordWriter
        from {package}.torchvis import TorchVis
        from {package}.utils import figure_to_image
        import matplotlib.figure
        assert tensorboardX.SummaryWriter is SummaryWriter and tensorboardX.FileWriter is FileWriter
        assert tensorboardX.RecordWriter is RecordWriter and tensorboardX.TorchVis is TorchVis
        assert tensorboardX.GlobalSummaryWriter is GlobalSummaryWriter and tensorboardX.__version__
        figure = matplotlib.figure.Figure(figsize=(2, 1))
        figure.add_subplot().plot([1, 2])
        one, batch = figure_to_image(figure), figure_to_image([figure, figure], close=False)
        print(one.shape, batch.shape, one.dtype, one.sum(), batch.sum())
        """
    ours, theirs = (place.run(script.format(package=name)) for name in ("tbxd_client", "tensorboardX"))
    assert ours.returncode == theirs.returncode == 0, ours.stderr + theirs.stderr
    assert ours.stdout == theirs.stdout
