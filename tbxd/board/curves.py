"""What the tab's charts show, from TensorBoard's data provider alone, which both of its loaders have.

Beside a run of several ranks are the runs ``<run>/ranks/min`` and ``<run>/ranks/max`` (docs/RANKS.md): they are no
curves here but the band of that run's curve.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..summaries.metadata import color_of

SCALARS = "scalars"  # the plugin whose data these are
POINTS_MAX = 1000  # of a curve, that a chart is sent; TensorBoard itself keeps as many by default
RUNS_MAX = 200  # of a tag, that a chart is sent
SIDES = ("ranks/min", "ranks/max")
TOP = "."  # TensorBoard's name for the run that is the log folder itself


class Filter(NamedTuple):
    """Which runs and tags are read, as a data provider asks for it."""

    runs: list[str]
    tags: list[str]


def listing(provider: Any, context: Any, experiment: str) -> dict[str, Any]:
    """All tags and the runs that have them.

    Args:
        provider: TensorBoard's.
        context: of the request.
        experiment: its id.

    Returns:
        ``runs``, sorted; and ``tags``: tag to the runs that have it, each with the colour that it was logged with
        (``#rrggbb``, or "").
    """
    found = provider.list_scalars(context, experiment_id=experiment, plugin_name=SCALARS)
    tags: dict[str, dict[str, str]] = {}
    for run, series in found.items():
        for tag, about in series.items():
            if not _is_side(found, run, tag):
                tags.setdefault(tag, {})[run] = color_of(about.plugin_content)
    names = sorted({run for runs in tags.values() for run in runs})
    return {"runs": names, "tags": {tag: dict(sorted(tags[tag].items())) for tag in sorted(tags)}}


def _is_side(found: Any, run: str, tag: str) -> bool:
    for side in SIDES:
        owner = TOP if run == side else run.removesuffix("/" + side)
        if owner != run and tag in found.get(owner, {}):
            return True
    return False


def _beside(run: str) -> list[str]:
    return [side if run == TOP else f"{run}/{side}" for side in SIDES]


def points(provider: Any, context: Any, experiment: str, tag: str, runs: list[str]) -> dict[str, Any]:
    """The curves of a tag.

    Args:
        provider, context, experiment: as for `listing`.
        tag: whose.
        runs: those that are wanted; beyond `RUNS_MAX` they are left out, and counted.

    Returns:
        ``left_out``, a number of runs, and ``curves``: run to ``steps``, ``times`` (seconds since 1970) and ``values``,
        of one length; with ranks also to ``low`` and ``high``, which have the same three. A value that is not finite
        is None: JSON has no NaN.
    """
    wanted = runs[:RUNS_MAX]
    read = provider.read_scalars(
        context,
        experiment_id=experiment,
        plugin_name=SCALARS,
        downsample=POINTS_MAX,
        run_tag_filter=Filter([name for run in wanted for name in (run, *_beside(run))], [tag]),
    )
    curves: dict[str, Any] = {}
    for run in wanted:
        curve = read.get(run, {}).get(tag)
        if not curve:
            continue
        curves[run] = _curve(curve)
        sides = [read.get(side, {}).get(tag) for side in _beside(run)]
        if all(sides):
            curves[run]["low"], curves[run]["high"] = (_curve(side) for side in sides)
    return {"curves": curves, "left_out": len(runs) - len(wanted)}


def _curve(points: Any) -> dict[str, Any]:
    values = (float(point.value) for point in points)
    return {
        "steps": [point.step for point in points],
        "times": [point.wall_time for point in points],
        "values": [value if math.isfinite(value) else None for value in values],
    }
