"""docs/COMPATIBILITY.md and the installed originals name the same methods, and ours take the same arguments."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import tensorboardX
from torch.utils.tensorboard import SummaryWriter as TorchWriter

from tbxd_client import SummaryWriter

PAGE = (Path(__file__).parent.parent / "docs" / "COMPATIBILITY.md").read_text()
ROWS = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", PAGE, re.M))
ORIGINALS = {"tensorboardX": tensorboardX.SummaryWriter, "torch": TorchWriter}
# Where the originals differ, their calls are told apart by type, and so ours has other parameters.
TOLD_APART = {"add_hparams": {*ORIGINALS}, "add_image_with_boxes": {*ORIGINALS}, "add_scalar": {"torch"}}


def methods(writer: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(writer).items() if callable(value) and not name.startswith("_")}


def test_every_method_of_the_originals_has_a_row_and_no_other() -> None:
    assert ROWS.keys() == set().union(*map(methods, ORIGINALS.values()))
    assert set(ROWS.values()) <= {"same", "better", "different", "missing"}


def test_what_is_not_missing_is_there_and_what_is_missing_is_not() -> None:
    assert {name for name, how in ROWS.items() if how != "missing"} == {
        name for name in ROWS if hasattr(SummaryWriter, name)
    }
    (missing,) = re.findall(r"^Also missing: (.*)\.$", PAGE, re.M)
    assert not [name for name in re.findall(r"`(\w+)`", missing) if hasattr(SummaryWriter, name)]
    (beyond,) = re.findall(r"^Beyond both: (.*)\.$", PAGE, re.M)
    assert all(hasattr(SummaryWriter, name) for name in re.findall(r"`(\w+)`", beyond))


@pytest.mark.parametrize(
    ("original", "name"),
    [(original, name) for original, writer in ORIGINALS.items() for name in methods(writer) if ROWS[name] != "missing"],
)
def test_ours_takes_what_the_original_takes(original: str, name: str) -> None:
    ours = inspect.signature(getattr(SummaryWriter, name)).parameters
    theirs = inspect.signature(getattr(ORIGINALS[original], name)).parameters
    if original in TOLD_APART.get(name, ()):
        assert {parameter for parameter in theirs if parameter != "kwargs"} <= ours.keys()
        return
    assert list(theirs) == list(ours)[: len(theirs)]
    for parameter in theirs.values():
        assert (parameter.default is parameter.empty) == (ours[parameter.name].default is parameter.empty)
