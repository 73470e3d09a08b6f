"""Checks of the arguments of curves, meshes and layouts of charts, in the call itself."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..protocol.limits import CONFIG_BYTES_MAX, LAYOUT_BYTES_MAX, THRESHOLDS_MAX
from .arrays import Array, check_real, snapshot, to_float, widened
from .names import clean_tag

VERTEX_AXES = 3  # batch, vertex, coordinate


def curve(labels: Any, predictions: Any, num_thresholds: Any, weights: Any) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays and attributes of a precision-recall curve.

    Args:
        labels: true or false, any shape.
        predictions: from 0 to 1, one for each label.
        num_thresholds: the number of points of the curve.
        weights: None, one number, or one for each label.

    Raises:
        TypeError: a value is not a number.
        ValueError: the numbers of values differ, or the number of thresholds is not positive.
    """
    arrays = {"labels": snapshot(labels, "labels"), "predictions": snapshot(predictions, "predictions")}
    if weights is not None:
        arrays["weights"] = snapshot(weights, "weights")
    count = math.prod(arrays["labels"].shape)
    for name, array in arrays.items():
        check_real(array, name)
        size = math.prod(array.shape)
        if size != count and not (name == "weights" and size == 1):
            raise ValueError(f"{size:,} {name} for {count:,} labels; as many are expected")
    return arrays, {"num_thresholds": thresholds(num_thresholds)}


def raw_curve(rows: Mapping[str, Any]) -> Any:
    """Return the points of a precomputed precision-recall curve, shape (6, thresholds).

    Raises:
        TypeError: a value is not a number.
        ValueError: the numbers of values differ, or are 0.
    """
    import numpy as np

    arrays = {name: snapshot(values, name) for name, values in rows.items()}
    for name, array in arrays.items():
        check_real(array, name)
    sizes = {math.prod(array.shape) for array in arrays.values()}
    if len(sizes) != 1 or not 1 <= next(iter(sizes)) <= THRESHOLDS_MAX:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise ValueError(f"{shapes}; as many of each, 1 to {THRESHOLDS_MAX:,}, are expected")
    with np.errstate(all="ignore"):  # beyond float32 is infinite
        numbers = [widened(array).reshape(-1).astype(np.float32) for array in arrays.values()]
    return snapshot(np.stack(numbers), "curve")


def thresholds(value: Any) -> int:
    """Return a number of thresholds, at most `THRESHOLDS_MAX`.

    Raises:
        TypeError: the value is not a number.
        ValueError: the number is not a positive integer.
    """
    number = min(to_float(value, "num_thresholds"), THRESHOLDS_MAX)
    if not number >= 1 or number != int(number):
        raise ValueError(f"num_thresholds is {number:g}; a positive integer is expected")
    return int(number)


def mesh(vertices: Any, colors: Any, faces: Any, config: Any) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays and attributes of a mesh or a point cloud.

    Args:
        vertices: shape (B, N, 3).
        colors: None, or shape (B, N, 3), from 0 to 255.
        faces: None, or shape (B, M, 3): the numbers of three vertices.
        config: None, or the configuration for three.js, a mapping that JSON can hold.

    Raises:
        TypeError: a value is not a number, or JSON cannot hold the config.
        ValueError: another shape, or a config of more than `CONFIG_BYTES_MAX`.
    """
    arrays: dict[str, Array] = {}
    for name, values in (("vertices", vertices), ("faces", faces), ("colors", colors)):
        if values is None:
            continue
        array = snapshot(values, name)
        check_real(array, name)
        if len(array.shape) != VERTEX_AXES or array.shape[2] != VERTEX_AXES:
            raise ValueError(f"{name} of shape {array.shape}; (batch, number, 3) is expected")
        if name != "vertices" and array.shape[0] != arrays["vertices"].shape[0]:
            raise ValueError(f"{name} of shape {array.shape} for vertices of shape {arrays['vertices'].shape}")
        arrays[name] = array
    if "colors" in arrays and arrays["colors"].shape != arrays["vertices"].shape:
        raise ValueError(f"colors of shape {arrays['colors'].shape} for vertices of shape {arrays['vertices'].shape}")
    try:
        text = json.dumps({} if config is None else config, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"config_dict: {error}") from error
    if len(text) > CONFIG_BYTES_MAX:
        raise ValueError(f"config_dict of {len(text):,} bytes as JSON; at most {CONFIG_BYTES_MAX:,} are possible")
    return arrays, {"config": text}


def layout(wanted: Any) -> dict[str, dict[str, list[Any]]]:
    """Return a layout of the CUSTOM SCALARS tab as plain data: category to chart to ``[kind, tags]``.

    Args:
        wanted: {category: {chart: ["Multiline", [tags]] or ["Margin", [value, lower, upper]]}}.

    Raises:
        TypeError: the layout has another form.
        ValueError: a margin chart does not have three tags.
    """
    if not isinstance(wanted, Mapping) or not all(isinstance(charts, Mapping) for charts in wanted.values()):
        raise TypeError("a layout is {category: {chart: [kind, tags]}}")
    found: dict[str, dict[str, list[Any]]] = {}
    for category, charts in wanted.items():
        found.setdefault(clean_tag(category), {})
        for title, chart in charts.items():
            if isinstance(chart, str) or not isinstance(chart, Sequence) or len(chart) < 2:
                raise TypeError(f"chart {title!r:.60} is {chart!r:.80}; ['Multiline' or 'Margin', [tags]] is expected")
            kind, tags = chart[:2]
            if isinstance(tags, str) or not isinstance(tags, Sequence):
                raise TypeError(f"the tags of chart {title!r:.60} are {tags!r:.60}; a list of texts is expected")
            if kind == "Margin" and len(tags) != 3:
                raise ValueError(
                    f"margin chart {title!r:.60} has {len(tags)} tags; three, [value, lower, upper], are expected"
                )
            entry = ["Margin" if kind == "Margin" else "Multiline", [clean_tag(tag) for tag in tags]]
            found[clean_tag(category)][clean_tag(title)] = entry
    return found


def layout_text(charts: Mapping[str, Any]) -> str:
    """Return the JSON of a layout.

    Raises:
        ValueError: the JSON is too large.
    """
    text = json.dumps(charts)
    if len(text) > LAYOUT_BYTES_MAX:
        raise ValueError(f"a layout of more than {LAYOUT_BYTES_MAX:,} bytes")
    return text
