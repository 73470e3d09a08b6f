"""Eight ranks in TensorBoard, in a browser: mean and spread of a tag are three curves of one chart."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import Page, answer, chromium, missing, tensorboard
from harness import absent, scalars, wait_for, world

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "ranks.py"
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "8")
RUNS = ("digits", "digits/ranks/max", "digits/ranks/min")  # of a tag that all ranks log, in the order of its table
STEPS = 300
NEAR = 24  # how far a pixel's colour may be from that of a curve
PIXELS = 3  # how far a curve may be drawn from where the others' scale puts it, in the middle of all places


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, Path]]:
    """A browser on what the example of RANKS.md has logged, and the folder of that."""
    if what := missing():
        absent(what)
    folder = tmp_path_factory.mktemp("ranks")
    with world(folder / "world") as place:
        done = subprocess.run(
            [sys.executable, *TORCHRUN, str(EXAMPLE), "logs/digits"],
            env=place.environ,
            cwd=place.root,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert done.returncode == 0, done.stderr
        wait_for(place.drained, "the journals of the ranks")
        status = place.status()
        assert status is not None and status["totals"]["dropped"] == {}, status
        with tensorboard(place.logdir, folder / "tensorboard.log") as address, chromium() as driver:
            assert "Using experimental fast data loading logic" in (folder / "tensorboard.log").read_text()
            wait_for(lambda: set(answer(f"{address}data/runs")) == {*RUNS, "digits/ranks"}, "the run and its sides")
            yield Page(driver, address, folder), place.logdir


@pytest.mark.long
def test_mean_and_spread_of_eight_ranks_are_in_one_chart(browser: tuple[Page, Path]) -> None:
    page, logdir = browser
    curves = {run: scalars(logdir / run)["train/loss"] for run in RUNS}
    assert all([step for step, _ in curve] == list(range(STEPS)) for curve in curves.values())
    page.open("timeseries", "&tagFilter=%5Etrain%2Floss%24&smoothing=0")
    table = """
    const cards = found('scalar-card').filter(visible);
    const rows = cards.flatMap(card => found('tb-data-table-content-row', card));
    return cards.length === 1 && rows.length === 3 && rows.map(row => [
      words(row), getComputedStyle(found('.row-circle span', row)[0]).backgroundColor.match(/\\d+/g).map(Number)]);
    """
    rows = page.shows(table, "one card with three curves in its table")
    for run, (shown, _) in zip(RUNS, rows, strict=True):
        assert shown[0] == run and float(shown[1]) == pytest.approx(curves[run][-1][1], abs=1e-4), rows
    colors = [tuple(color) for _, color in rows]
    assert len(set(colors)) == 3

    def drawn() -> bool:
        pixels = page.pixels("return found('line-chart canvas').find(visible)")
        return bool(pixels.size) and on_one_scale(pixels, colors, [[value for _, value in curves[run]] for run in RUNS])

    page.until(drawn, "the curves, on one scale")
    assert page.errors() == []


def on_one_scale(pixels: Any, colors: list[tuple[int, ...]], curves: list[list[float]]) -> bool:
    """Whether each curve is drawn in its colour, where the scale of the first has its values."""
    places = [np.nonzero(np.abs(pixels.astype(int) - color).max(axis=-1) <= NEAR) for color in colors]
    across = np.unique(np.concatenate([columns for _, columns in places]))
    if len(across) < 200:
        return False
    scale: Any = None
    for (rows, columns), values in zip(places, curves, strict=True):
        seen = np.unique(columns)
        if len(seen) < len(across) / 2:  # others are drawn over it where they are close together
            return False
        heights = np.array([rows[columns == column].mean() for column in seen])
        steps = np.interp(seen, across[[0, -1]], [0, STEPS - 1])
        logged = np.interp(steps, np.arange(STEPS), values)
        scale = np.polyfit(logged, heights, 1) if scale is None else scale
        if scale[0] >= 0 or np.median(np.abs(np.polyval(scale, logged) - heights)) > PIXELS:
            return False
    return True


def test_what_one_rank_alone_logs_is_one_curve(browser: tuple[Page, Path]) -> None:
    page, logdir = browser
    (last,) = scalars(logdir / "digits")["train/weight_norm"][-1:]
    page.open("timeseries", "&tagFilter=%5Etrain%2Fweight_norm%24&smoothing=0")
    table = """
    const cards = found('scalar-card').filter(visible);
    const rows = cards.flatMap(card => found('tb-data-table-content-row', card));
    return cards.length === 1 && rows.length === 1 && words(rows[0]);
    """
    shown = page.shows(table, "one card with one curve")
    assert shown[0] == "digits" and float(shown[1]) == pytest.approx(last[1], abs=1e-4)
    assert page.errors() == []
