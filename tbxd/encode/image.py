"""Pictures: any layout of axes and any type of number as one PNG."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.protocol.kinds import IMAGE
from tbxd_client.protocol.limits import CHANNELS_MAX, PIXELS_MAX
from tbxd_client.protocol.records import Record, TagDefinition

from ..tfevents import schema
from .arrays import AnyArray, array_of, check_real
from .metadata import summary_value
from .rejections import Refused

GRID_COLUMNS = 8  # as tensorboardX and torch do

# zlib's level. On a photograph 1 takes half the time of Pillow's default 6 (256 by 256: 4.0 ms for 8.0 ms) for 5 to 8 %
# more bytes; a training run makes many pictures and looks at few.
PNG_LEVEL = 1

Pixels = npt.NDArray[np.uint8]


def encode(record: Record, tag: TagDefinition) -> list[Any]:
    """Encode one picture: attributes ``dtype``, ``shape`` and ``dataformats``; several pictures become one grid.

    Raises:
        Refused: ``bad_record`` or ``too_large``.
    """
    pixels = pixels_of(array_of(record), record.attrs.get("dataformats"))
    return [picture_value(IMAGE, tag, pixels)]


def picture_value(kind: int, tag: TagDefinition, pixels: Pixels) -> Any:
    """Return the ``Summary.Value`` of (height, width, channels) pixels."""
    height, width, channels = pixels.shape
    image = schema.Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=png(pixels))
    return summary_value(kind, tag, image=image)


def png(pixels: Pixels) -> bytes:
    """Return a PNG of (height, width, channels) pixels; 2 channels are grey and alpha, 3 RGB, 4 RGBA."""
    from PIL import Image  # with the first picture: it takes a tenth of a daemon's start

    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "PNG", compress_level=PNG_LEVEL)
    return out.getvalue()


def pixels_of(array: AnyArray, dataformats: object) -> Pixels:
    """Convert a picture, or N as a grid, to uint8 of shape (height, width, channels); grey becomes RGB.

    uint8 stays as it is, bool is 0 or 255, floating point is multiplied by 255. Other integers stay as they are, unless
    none is greater than 1: these are black and white, as with the originals. Values outside 0 to 255 are then clipped,
    NaN is 0.

    Args:
        array: axes as in ``dataformats``.
        dataformats: the letters H and W and optionally C and N, in the order of the axes.

    Raises:
        Refused: ``bad_record`` or ``too_large``.
    """
    check_real(array)
    batch = _as_nhwc(array, dataformats)
    count, height, width, channels = batch.shape
    if channels > CHANNELS_MAX:
        raise Refused("bad_record", f"a picture of {channels} channels")
    if not batch.size:
        raise Refused("bad_record", "a picture without pixels")
    columns = min(count, GRID_COLUMNS)
    rows = math.ceil(count / columns)
    if rows * height * columns * width > PIXELS_MAX:
        raise Refused("too_large", f"a picture of {columns * width} by {rows * height} pixels")
    batch = as_bytes(batch)
    if count == 1:
        grid = batch[0]
    else:
        grid = np.zeros((rows * height, columns * width, channels), np.uint8)
        for place, one in enumerate(batch):
            row, column = divmod(place, columns)
            grid[row * height : (row + 1) * height, column * width : (column + 1) * width] = one
    return np.repeat(grid, 3, axis=2) if channels == 1 else grid


def _as_nhwc(array: AnyArray, dataformats: object) -> AnyArray:
    layout = dataformats.upper() if isinstance(dataformats, str) else ""
    letters = set(layout)
    if not set("HW") <= letters <= set("NHWC") or len(letters) != len(layout) or len(layout) != array.ndim:
        raise Refused("bad_record", f"a picture of {array.ndim} axes with dataformats {dataformats!r:.40}")
    for axis, letter in ((0, "N"), (3, "C")):
        if letter not in letters:
            array = np.expand_dims(array, axis if axis == 0 else array.ndim)
            layout = letter + layout if axis == 0 else layout + letter
    nhwc: AnyArray = array.transpose([layout.index(letter) for letter in "NHWC"])
    return nhwc


def as_bytes(array: AnyArray) -> Pixels:
    """Convert numbers to bytes of a picture; see `pixels_of`."""
    if array.dtype == np.uint8:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        if array.dtype.kind in "bf":  # in its own precision, so that the result is tensorboardX's
            array = array * np.array(255, np.uint8 if array.dtype.kind == "b" else array.dtype)
            array = np.nan_to_num(array, copy=False, posinf=255, neginf=0) if array.dtype.kind == "f" else array
        elif array.max(initial=0) <= 1:
            return np.multiply(array > 0, 255, dtype=np.uint8)
        return np.clip(array, 0, 255).astype(np.uint8)
