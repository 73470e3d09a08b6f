"""add_hparams: both originals' calls, what the HPARAMS tab reads, and no curve that it spoils."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import backend_context, plugin_data_pb2

from harness import World, scalars, wait_for, world
from tb import LOADERS, board
from tbxd_client.values import hparams

SESSION_TAGS = {f"_hparams_/{name}" for name in ("session_start_info", "session_end_info")}
TAGS = SESSION_TAGS | {"_hparams_/experiment"}
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


def contents(shown: Any, run: str, tags: set[str]) -> dict[str, Any]:
    return {
        tag: plugin_data_pb2.HParamsPluginData.FromString(shown.metadata(run, tag, "hparams").plugin_content)
        for tag in tags
    }


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("ours", "theirs", "tags"), [("tbxd", "tensorboardX", SESSION_TAGS), ("tbxd as torch", "torch", TAGS)]
)
def test_the_tab_reads_the_same_as_from_the_originals(
    logged: Path, ours: str, theirs: str, tags: set[str], loader: str
) -> None:
    with board(logged, loader) as shown:
        for run, expected in ((ours, tags), (theirs, TAGS)):
            shown.until(lambda run=run, all=expected: shown.tags("hparams").get(f"{run}/named") == all, "the tags")
            shown.until(lambda run=run: shown.scalars(f"{run}/named", "hparam/loss") == [(7, 0.5)], "the metric")
        assert contents(shown, f"{ours}/named", tags) == contents(shown, f"{theirs}/named", tags)


def table(shown: Any, logdir: Path) -> tuple[set[str], set[str], list[tuple[dict[str, Any], dict[str, float]]]]:
    """Return the HPARAMS tab's table: columns of parameters, columns of metrics, and rows of both."""
    context = backend_context.Context(base_plugin.TBContext(data_provider=shown._provider, logdir=str(logdir)))
    request = RequestContext()
    metadata = context.hparams_metadata(request, "")
    experiment = context.experiment_from_metadata(
        request, "", True, metadata, context.hparams_from_data_provider(request, "", None)
    )
    rows = []
    for run, tags in metadata.items():
        begin = plugin_data_pb2.HParamsPluginData.FromString(tags["_hparams_/session_start_info"])
        values = {name: getattr(value, value.WhichOneof("kind")) for name, value in _sorted(begin)}
        metrics = {info.name.tag: shown.scalars(run, info.name.tag)[-1:] for info in experiment.metric_infos}
        rows.append((values, {name: round(points[0][1], 5) for name, points in metrics.items() if points}))
    columns = {info.name for info in experiment.hparam_infos}, {info.name.tag for info in experiment.metric_infos}
    return (*columns, sorted(rows, key=str))


def _sorted(begin: Any) -> list[tuple[str, Any]]:
    return sorted(begin.session_start_info.hparams.items())


ROWS = """
from {0} import SummaryWriter
with SummaryWriter("logs/r") as writer:
    for step in range(10):
        writer.add_scalar("acc", step / 10, step)
"""
ROW = """
from {0} import SummaryWriter
with SummaryWriter("logs/r") as writer:
    writer.add_hparams({1}, {2})
"""


@pytest.mark.parametrize("loader", LOADERS)
def test_rows_touch_no_curve_and_no_other_row_whoever_writes_them(place: World, loader: str) -> None:
    for script in (
        ROWS.format("tbxd_client"),
        ROW.format("tbxd_client", {"lr": 0.1}, {"acc": 0.9}),
        *(ROW.format("tbxd_client", {"lr": lr}, {"acc": lr * 10}) for lr in (0.2, 0.3)),
        ROW.format("tbxd_client", {"p1": 2, "p2": 4}, {"m1": 3, "m2": 2}),
    ):
        result = place.run(script)
        assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journals to be drained")
    with board(place.logdir, loader) as shown:
        shown.until(lambda: len(shown.tags("hparams")) == 4, "the rows")
        shown.until(lambda: len(shown.scalars("r", "acc")) == 10, "the curve")
        assert shown.scalars("r", "acc") == [(step, pytest.approx(step / 10)) for step in range(10)]
        parameters, metrics, rows = table(shown, place.logdir)
        assert parameters == {"lr", "p1", "p2"} and metrics == {"acc", "m1", "m2"}
        assert rows == [
            ({"lr": 0.1}, {"acc": 0.9}),
            ({"lr": 0.2}, {"acc": 2.0}),
            ({"lr": 0.3}, {"acc": 3.0}),
            ({"p1": 2.0, "p2": 4.0}, {"m1": 3.0, "m2": 2.0}),
        ]


def test_rows_of_one_moment_have_folders_of_their_own(place: World) -> None:
    result = place.run(
        """
        import os
        from tbxd_client import SummaryWriter
        writer = SummaryWriter("logs/r")
        with writer.use_metadata(walltime=5.0):
            for lr in (1, 2):
                writer.add_hparams({"lr": lr}, {"acc": lr})
            if os.fork() == 0:
                writer.add_hparams({"lr": 3}, {"acc": 3})
                os._exit(0)
            os.wait()
        writer.close()
        """
    )
    assert result.returncode == 0, result.stderr
    wait_for(place.drained, "the journals to be drained")
    found = {folder.name: scalars(folder) for folder in (place.logdir / "r").iterdir() if folder.is_dir()}
    assert found == {"5.0": {"acc": [(0, 1.0)]}, "5.0_1": {"acc": [(0, 2.0)]}, "5.0_2": {"acc": [(0, 3.0)]}}


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
