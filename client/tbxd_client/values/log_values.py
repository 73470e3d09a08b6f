"""The argument of ``log({...})``: flattens nested dictionaries and finds the kind of each value."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..protocol.limits import CHANNELS_MAX
from .arrays import Array, snapshot, to_float
from .names import clean_tag, text_of

NESTED_MAX = 32  # dictionaries within each other; also what ends one that holds itself

SCALAR, TEXT, FIGURE, PICTURE, HISTOGRAM = "scalar", "text", "figure", "picture", "histogram"


class Told(NamedTuple):
    """One value: its tag, its kind (one of those above), and the data to log.

    ``value`` is a float, a text, a matplotlib figure, or an `Array`; ``dataformats`` is a picture's.
    """

    tag: str
    kind: str
    value: Any
    dataformats: str = ""


def told_apart(values: Mapping[Any, Any]) -> list[Told]:
    """Return the values of a dictionary with their kinds; those of nested dictionaries have tags ``outer/inner``.

    A number, or an array of one element, is a scalar; a text is a text; a figure of matplotlib and an image of Pillow
    are pictures, and so is a uint8 array of shape (height, width), (height, width, 1 to 4) or (1, 3 or 4, height,
    width); any other array, tensor or list of numbers is a histogram.

    Raises:
        TypeError, ValueError: a tag or a value is invalid, or dictionaries are nested too deeply.
    """
    found: list[Told] = []
    _tell(values, "", 1, found)
    return found


def _tell(values: Mapping[Any, Any], above: str, depth: int, found: list[Told]) -> None:
    if depth > NESTED_MAX:
        raise ValueError(f"log: dictionaries in more than {NESTED_MAX} levels")
    for key, value in values.items():
        tag = above + (key if isinstance(key, str) else text_of(key) if isinstance(key, int) else clean_tag(key))
        if isinstance(value, Mapping):
            _tell(value, tag + "/", depth + 1, found)
        else:
            found.append(_told(clean_tag(tag), value))


def _told(tag: str, value: Any) -> Told:
    if isinstance(value, str):
        return Told(tag, TEXT, text_of(value))
    if isinstance(value, bool | int | float):
        return Told(tag, SCALAR, to_float(value, tag))
    if isinstance(value, getattr(sys.modules.get("matplotlib.figure"), "Figure", ())):
        return Told(tag, FIGURE, value)
    pillow: Any = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(value, pillow.Image):
        value = _pixels(value)
    elif not isinstance(value, list | tuple) and not _has_shape(value):
        return Told(tag, SCALAR, to_float(value, tag))
    array = snapshot(value, tag)
    if len(array.data) and math.prod(array.shape) == 1:
        return Told(tag, SCALAR, to_float(value, tag))
    layout = _layout(array)
    return Told(tag, PICTURE if layout else HISTOGRAM, array, layout)


def _has_shape(value: Any) -> bool:
    try:
        return hasattr(value, "shape")
    except Exception:  # of any kind: it is another's code, and `arrays` says what is wrong
        return True


def _pixels(image: Any) -> Any:
    """Return the pixels of a Pillow image as uint8; palettes, CMYK and 16 bits become red, green, blue and alpha."""
    import numpy as np

    return np.asarray(image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGBA"))


def _layout(array: Array) -> str:
    """Return the axes of an array that is a picture; "" if it is not one."""
    shape = array.shape
    if array.dtype != "|u1" or 0 in shape:
        return ""
    if len(shape) == 2:
        return "HW"
    if len(shape) != 3:
        return ""
    if shape[2] <= CHANNELS_MAX:
        return "HWC"
    return "CHW" if shape[0] in (1, 3, 4) else ""
