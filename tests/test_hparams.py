"""add_hparams: both originals' calls, what the HPARAMS tab reads, and no curve that it spoils."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.plugins.hparams import plugin_data_pb2

from harness import World, scalars, wait_for, world
from tb import LOADERS, board
from tbxd_client import hparams

TAGS = {f"_hparams_/{name}" for name in ("experiment", "session_start_info", "session_end_info")}
SCRIPT = """
{0}
writer = SummaryWriter("logs/{1}")
hparams = {{"lr": 0.1, "layers": 3, "optimizer": "adam", "none": None}}
if "{1}" != "torch":
    hparams |= {{"augment": True, "activation": max}}
    writer.add_hparams(hparams, {{"hparam/loss": 0.5}}, "named", 7)
else:
    writer.add_hparams(hparams, {{"hparam/loss": 0.5}}, {{"lr": [0.1, 0.2], "optimizer": ["adam", "sgd"]}}, "named", 7)
writer.close()
"""
TORCH_WITH_TBXD = SCRIPT.replace('"{1}" != "torch"', "False")
IMPORTS = {
    "tbxd": "from tbxd_client import SummaryWriter",
    "tensorboardX": "from tensorboardX import SummaryWriter",
    "torch": "from torch.utils.tensorboard import SummaryWriter",
}


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log folder of tensorboardX, torch, and tbxd with the calls of either."""
    with world(tmp_path_factory.mktemp("hparams") / "world") as place:
        scripts = {flavour: SCRIPT.format(line, flavour) for flavour, line in IMPORTS.items()}
        scripts["tbxd as torch"] = TORCH_WITH_TBXD.format(IMPORTS["tbxd"], "tbxd as torch")
        for script in scripts.values():
            subprocess.run([sys.executable, "-c", script], env=place.environ, cwd=place.root, check=True, timeout=120)
        wait_for(place.drained, "the journal to be drained")
        return place.logdir


def contents(shown: Any, run: str) -> dict[str, Any]:
    return {
        tag: plugin_data_pb2.HParamsPluginData.FromString(shown.metadata(run, tag, "hparams").plugin_content)
        for tag in TAGS
    }


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(("ours", "theirs"), [("tbxd", "tensorboardX"), ("tbxd as torch", "torch")])
def test_the_tab_reads_the_same_as_from_the_originals(logged: Path, ours: str, theirs: str, loader: str) -> None:
    with board(logged, loader) as shown:
        for run in (ours, theirs):
            shown.until(lambda run=run: shown.tags("hparams").get(f"{run}/named") == TAGS, "the tags")
            shown.until(lambda run=run: shown.scalars(f"{run}/named", "hparam/loss") == [(7, 0.5)], "the metric")
        assert contents(shown, f"{ours}/named") == contents(shown, f"{theirs}/named")


def test_without_a_name_a_row_and_its_curves_are_one_run_unless_that_would_spoil_a_curve(place: World) -> None:
    result = place.run(
        """
        from tbxd_client import SummaryWriter
        with SummaryWriter("logs/first") as writer:
            writer.add_hparams({"lr": 0.1}, {"best": 0.5})
            writer.add_hparams({"lr": 0.2}, {"best": 0.4})
        with SummaryWriter("logs/curve") as writer:
            for step in range(100):
                writer.add_scalar("loss", 1.0, step)
            writer.add_hparams({"lr": 0.2}, {"loss": 0.4})
        """
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journal to be drained")
    first, curve = place.logdir / "first", place.logdir / "curve"
    assert scalars(first) == {"best": [(0, 0.5)]}
    (second,) = (path for path in first.iterdir() if path.is_dir())
    assert scalars(second) == {"best": [(0, pytest.approx(0.4))]}
    assert scalars(curve) == {"loss": [(step, 1.0) for step in range(100)]}
    (below,) = (path for path in curve.iterdir() if path.is_dir())
    assert scalars(below) == {"loss": [(0, pytest.approx(0.4))]}


def test_values_of_every_kind() -> None:
    given = {
        "bool": np.True_,
        "int": np.int64(3),
        "array": np.array([2.5]),
        "list": [1, 2],
        "nan": float("nan"),
        "large": 10**400,
        "class": dict,
        "none": None,
        "other": object,
    }
    found = hparams.values_of(given)
    assert (found["bool"], found["int"], found["array"], found["list"]) == (True, 3.0, 2.5, "[1, 2]")
    assert found["nan"] != found["nan"]
    assert found["large"] == str(10**400)[: hparams.SHOWN_MAX]
    assert (found["class"], found["other"]) == ("dict", "object")
    assert "none" not in found
    torch = pytest.importorskip("torch")
    assert hparams.values_of({"tensor": torch.tensor(0.5), "flag": torch.tensor(True)}) == {"tensor": 0.5, "flag": 1.0}


@pytest.mark.parametrize(
    ("arguments", "name", "step", "domains"),
    [
        ((), "", None, None),
        (("run",), "run", None, None),
        (("run", 5), "run", 5, None),
        ((None, 5), "", 5, None),
        (({"lr": [0.1]},), "", None, {"lr": [0.1]}),
        ((None, "run"), "run", None, None),
        ((None, "run", 5), "run", 5, None),
        (({"lr": [0.1]}, "run", 5), "run", 5, {"lr": [0.1]}),
        ((None, None, 5), "", 5, None),
    ],
)
def test_calls_of_both_originals_are_told_apart(arguments: Any, name: str, step: Any, domains: Any) -> None:
    assert hparams.positional(arguments) == hparams.Positional(name, step, domains)


@pytest.mark.parametrize(
    "call",
    [
        lambda: hparams.positional(("a", "b")),
        lambda: hparams.positional((5, "a")),
        lambda: hparams.positional(("a", {})),
        lambda: hparams.positional((1, 2, 3, 4)),
        lambda: hparams.values_of([1]),
        lambda: hparams.metrics_of({"a": "text"}),
        lambda: hparams.domains_of({"a": [1]}, {}),
        lambda: hparams.domains_of({"a": ["x"]}, {"a": 1.0}),
        lambda: hparams.domains_of({"a": 1.0}, {"a": 1.0}),
    ],
)
def test_wrong_arguments_raise(call: Any) -> None:
    with pytest.raises(TypeError):
        call()
