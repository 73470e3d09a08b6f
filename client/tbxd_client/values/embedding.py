"""Checks of the arguments of ``add_embedding``, in the call itself."""

from __future__ import annotations

from typing import Any

from ..protocol.limits import NUMBERS_MAX, POINTS_MAX, SPRITE_SIDE_MAX
from .arrays import Array, check_real, snapshot
from .names import text_of


def arrays_of(mat: Any, metadata: Any, label_img: Any, header: Any) -> dict[str, Array]:
    """Return the arrays of an embedding: ``mat``, and optionally ``metadata`` (bytes of a table) and ``images``.

    Args:
        mat: shape (points, dimensions).
        metadata: None, a label for each point, or with a header a list of as many labels for each.
        label_img: None, or a picture for each point, shape (points, channels, height, width). The daemon adds a black
            border to pictures that are not square, which TensorBoard would squeeze.
        header: None, or the names of the columns of ``metadata``.

    Raises:
        TypeError: a value is not a number, or metadata or header is not a list.
        ValueError: the shapes do not fit each other, or there are too many points.
    """
    arrays = {"mat": snapshot(mat, "mat")}
    check_real(arrays["mat"], "mat")
    shape = arrays["mat"].shape
    if len(shape) != 2 or shape[0] > POINTS_MAX or shape[0] * shape[1] > NUMBERS_MAX or (shape[0] and not shape[1]):
        raise ValueError(
            f"mat of shape {shape}; (points, dimensions) with at most {POINTS_MAX:,} points and {NUMBERS_MAX:,} "
            "numbers is expected"
        )
    if metadata is not None:
        text = _table(metadata, header, shape[0]).encode("utf-8", "backslashreplace")
        arrays["metadata"] = Array("|u1", (len(text),), text)
    if label_img is not None:
        pictures = arrays["images"] = snapshot(label_img, "label_img")
        check_real(pictures, "label_img")
        sizes = pictures.shape
        if len(sizes) != 4 or sizes[0] != shape[0] or sizes[1] not in (1, 3, 4) or 0 in sizes[1:]:
            raise ValueError(
                f"label_img of shape {sizes} for {shape[0]} points; (points, 1, 3 or 4, height, width) is expected"
            )
        side = columns_of(sizes[0]) * max(sizes[2:])
        if side > SPRITE_SIDE_MAX:
            raise ValueError(
                f"label_img of shape {sizes} makes a picture of {side:,} pixels a side; at most {SPRITE_SIDE_MAX:,} "
                "are possible"
            )
    return arrays


def columns_of(points: int) -> int:
    """Return the number of columns of the square grid that holds this many pictures."""
    columns = int(points**0.5)
    return columns if columns * columns >= points else columns + 1


def _table(metadata: Any, header: Any, points: int) -> str:
    """Return the labels as a table with tabs between columns; tabs and newlines in labels become spaces."""
    labels, columns = _length(metadata), _length(header) if header is not None else 0
    for name, length, value in (("metadata", labels, metadata), ("metadata_header", columns, header)):
        if length < 0:
            raise TypeError(f"{name} is {type(value).__name__}; a list is expected")
    if labels != points:
        raise ValueError(f"{labels:,} labels for {points:,} points; as many are expected")
    rows = list(metadata)
    if columns == 1:
        # TensorBoard takes the first line of a table of one column for a label and not for its header
        # (projector_plugin.py looks for a tab in it): a header would shift all labels by one.
        return "".join(f"{_cell(row[0] if _length(row) == 1 else row)}\n" for row in rows)
    if not columns:
        return "".join(f"{_cell(row)}\n" for row in rows)
    if any(_length(row) != columns for row in rows):
        raise ValueError(f"metadata_header has {columns} names; a list of as many labels for each point is expected")
    return "".join("\t".join(map(_cell, row)) + "\n" for row in [list(header), *rows])


def _length(value: Any) -> int:
    """Return the length of a list; -1 for any other value."""
    try:
        return len(value) if not isinstance(value, str) and hasattr(value, "__iter__") else -1
    except Exception:  # of any kind: it is the caller's code
        return -1


def _cell(value: Any) -> str:
    return " ".join(text_of(value).splitlines()).replace("\t", " ") or " "
