"""The data of the tab's charts, from TensorBoard's data provider alone, which both of its loaders have.

Beside a run of several ranks are the runs ``<run>/ranks/min`` and ``<run>/ranks/max`` (docs/RANKS.md): here they are
not curves but the band of that run's curve.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from ..encode.metadata import color_of

SCALARS = "scalars"  # the plugin whose data these are
POINTS_MAX = 1000  # of a curve, that are read; TensorBoard itself keeps as many by default
CHART_POINTS_MAX = 20_000  # of all curves of a chart, that it is sent: with more runs, fewer of each
CURVE_POINTS_LEAST = 100  # of one of them, however many there are
RUNS_MAX = 200  # of a tag, that a chart is sent
SIDES = ("ranks/min", "ranks/max")
TOP = "."  # TensorBoard's name for the run that is the log folder itself
EXACT_MAX = 1 << 53  # steps beyond are no whole numbers any more where a page reads JSON


class Filter(NamedTuple):
    """The runs and tags to read, as a data provider expects them."""

    runs: list[str]
    tags: list[str]


def listing(provider: Any, context: Any, experiment: str) -> dict[str, Any]:
    """Return all tags and the runs that have them.

    Args:
        provider: TensorBoard's data provider.
        context: the context of the request.
        experiment: the id of the experiment.

    Returns:
        ``runs``, in the order of their starts; ``sets``: lists of places in ``runs``; and ``tags``: tag to the place in
        ``sets`` of the runs that have it, and to their logged colours (place in ``runs``, as text, to ``#rrggbb``).
        Most tags are of the same runs, so there are few sets.
    """
    found = provider.list_scalars(context, experiment_id=experiment, plugin_name=SCALARS)
    begun = {run.run_id: run.start_time for run in provider.list_runs(context, experiment_id=experiment)}
    tags: dict[str, dict[str, str]] = {}
    for run, series in found.items():
        owner: Any = next((found[name] for name in _owners(run) if name in found), {})
        for tag, about in series.items():
            if tag not in owner:
                tags.setdefault(tag, {})[run] = color_of(about.plugin_content) if about.plugin_content else ""
    runs = sorted({run for names in tags.values() for run in names}, key=lambda run: (_moment(begun.get(run)), run))
    places = {run: place for place, run in enumerate(runs)}
    sets: dict[tuple[int, ...], int] = {}
    listed = {}
    for tag in sorted(tags):
        colors = tags[tag]
        one = sets.setdefault(tuple(sorted(places[run] for run in colors)), len(sets))
        listed[tag] = [one, {str(places[run]): color for run, color in colors.items() if color}]
    return {"runs": runs, "sets": [list(one) for one in sets], "tags": listed}


def _moment(began: float | None) -> float:
    return began if began is not None and math.isfinite(began) else math.inf


def _owners(run: str) -> list[str]:
    """Return the runs that a run may be the band of."""
    return [TOP if run == side else run.removesuffix("/" + side) for side in SIDES if run.endswith(side)]


def _beside(run: str) -> list[str]:
    return [side if run == TOP else f"{run}/{side}" for side in SIDES]


def points(provider: Any, context: Any, experiment: str, tag: str, runs: list[str]) -> dict[str, Any]:
    """Return the curves of a tag.

    Args:
        provider, context, experiment: as for `listing`.
        tag: the tag.
        runs: the wanted runs; those beyond `RUNS_MAX` are left out, and counted.

    Returns:
        ``left_out``, a number of runs, and ``curves``: run to ``steps``, ``times`` (seconds since 1970) and ``values``,
        of one length, and ``points``, their number in TensorBoard: if these are too many for a chart, the least and the
        greatest of each stretch are sent. With ranks also ``low`` and ``high``, which have the same three.

        A value that is not finite is the text "NaN", "inf" or "-inf", as JSON has none, and ``odd`` counts them;
        ``not_above_0`` counts those that a logarithmic axis does not have. A time that is not finite is None. If steps
        are beyond 2^53, ``exact`` has them as text.
    """
    wanted = runs[:RUNS_MAX]
    read = provider.read_scalars(
        context,
        experiment_id=experiment,
        plugin_name=SCALARS,
        downsample=POINTS_MAX,
        run_tag_filter=Filter([name for run in wanted for name in (run, *_beside(run))], [tag]),
    )
    most = max(CURVE_POINTS_LEAST, CHART_POINTS_MAX // max(1, len(wanted)))
    curves: dict[str, Any] = {}
    for run in wanted:
        curve = read.get(run, {}).get(tag)
        if not curve:
            continue
        curves[run] = _curve(curve, most)
        sides = [read.get(side, {}).get(tag) for side in _beside(run)]
        if all(sides):
            curves[run]["low"], curves[run]["high"] = (_curve(side, most) for side in sides)
    return {"curves": curves, "left_out": len(runs) - len(wanted)}


def _curve(points: Any, most: int) -> dict[str, Any]:
    values = np.fromiter((point.value for point in points), np.float64, len(points))
    finite = np.isfinite(values)
    kept = [points[place] for place in _kept(values, finite, most)]
    curve: dict[str, Any] = {
        "steps": [point.step for point in kept],
        "times": [point.wall_time if math.isfinite(point.wall_time) else None for point in kept],
        "values": [told(float(point.value)) for point in kept],
        "points": len(points),
        "not_above_0": int((finite & (values <= 0)).sum()),
    }
    if not finite.all():
        curve["odd"] = Counter(str(told(value)) for value in values[~finite].tolist())
    if any(abs(step) > EXACT_MAX for step in curve["steps"]):
        curve["exact"] = [str(step) for step in curve["steps"]]
    return curve


def told(value: float) -> float | str:
    """Return a value for JSON: one that is not finite as "NaN", "inf" or "-inf"."""
    return value if math.isfinite(value) else str(value).replace("nan", "NaN")


def _kept(values: Any, finite: Any, most: int) -> list[int]:
    """Return the places of the points to send: all, or the first, the last, and the extremes of each stretch."""
    count = len(values)
    if count <= most:
        return list(range(count))
    stretches = max(1, (most - 2) // 2)
    size = -(-count // stretches)
    places = {0, count - 1}
    for empty, find in ((np.inf, np.argmin), (-np.inf, np.argmax)):
        padded = np.full(stretches * size, empty)
        padded[:count] = np.where(finite, values, empty)
        found = find(padded.reshape(stretches, size), axis=1) + np.arange(stretches) * size
        places.update(found[found < count].tolist())
    return sorted(places)
