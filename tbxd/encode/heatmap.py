"""Heat maps: a matrix as coloured cells, with labels and a legible scale.

The steps, each a function: `pooled` reduces the matrix to a size that can be shown, a `Scale` maps its numbers to 0 to
1, a table of 256 colours paints them, and `_draw` puts cells, labels and scale on one canvas. Values that are not
finite are drawn as a grey hatching, in cells and scale alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.protocol.kinds import HEATMAP
from tbxd_client.protocol.limits import COLORMAPS, LABEL_CHARS_MAX, LABELS_MAX, MATRIX_AXIS_MAX, MATRIX_VALUES_MAX
from tbxd_client.protocol.records import Record, TagDefinition

from .arrays import AnyArray, array_of, check_real, number_attr, shown
from .image import Pixels, picture_value
from .rejections import Refused

CELLS_MAX = 512  # cells drawn on one axis; of a larger matrix the means of neighbours
LONG_SIDE = 512  # pixels; the longer side of the cells has more than half of it, but for very few cells
CELL_PIXELS_MAX = 128
SHORT_SIDE_MIN = 24  # pixels; a single row of many cells is drawn higher than wide
BAR_WIDTH, BAR_HEIGHT_MIN, GAP, TICK = 14, 120, 6, 4  # pixels of the scale
FONT_PIXELS = 20  # to be read on a card of TensorBoard: a picture this wide has half its size there, unsmoothed
TALLEST = 1.5  # height to width: TensorBoard makes any picture as wide as a card, and what is narrow very tall with it
TICKS = 5  # about so many numbers on the scale

PAPER, INK = (255, 255, 255), (32, 32, 32)
HATCH = np.array([(200, 200, 200), (150, 150, 150)], np.uint8)

# 17 evenly spaced colours of each map, between which colours are interpolated; at most 9 of 255 from the originals.
# viridis and magma: Nathaniel Smith and Stéfan van der Walt, CC0 (https://bids.github.io/colormap). coolwarm: Kenneth
# Moreland, "Diverging Color Maps for Scientific Visualization", 2009, who gives it free of copyright.
_CONTROL_POINTS = {
    "viridis": "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c "
    "1fa088 28ae80 3fbc73 5ec962 84d44b addc30 d8e219 fde725",
    "magma": "000004 0a0822 1d1147 36106b 51127c 6a1c81 832681 9c2e7f b73779 "
    "d0416f e75263 f56b5c fc8961 fea772 fec488 fde2a3 fcfdbf",
    "coolwarm": "3b4cc0 4e68d8 6282ea 779af7 8db0fe a3c2fe b9d0f9 ccd9ed dddcdc "
    "ecd3c5 f5c4ac f7b093 f4987a eb7d62 dd5f4b ca3b37 b40426",
    "gray": "000000 ffffff",
}

Matrix = npt.NDArray[np.float64]


def encode(record: Record, tag: TagDefinition) -> list[Any]:
    """Encode one picture: attributes ``dtype``, ``shape`` (rows, columns), ``colormap``, ``vmin``, ``vmax`` and labels.

    Raises:
        Refused: ``bad_record`` or ``too_large``.
    """
    attrs = record.attrs
    array = array_of(record)
    pixels = heatmap_of(
        array,
        attrs.get("colormap", COLORMAPS[0]),
        number_attr(record, "vmin"),
        number_attr(record, "vmax"),
        _labels(attrs.get("row_labels"), array, 0),
        _labels(attrs.get("column_labels"), array, 1),
    )
    return [picture_value(HEATMAP, tag, pixels)]


def heatmap_of(
    array: AnyArray,
    colormap: object = COLORMAPS[0],
    vmin: float | None = None,
    vmax: float | None = None,
    row_labels: list[str] | None = None,
    column_labels: list[str] | None = None,
) -> Pixels:
    """Draw a matrix as a picture, RGB of shape (height, width, 3).

    Args:
        array: real numbers of two axes, rows from top to bottom.
        colormap: one of `COLORMAPS`.
        vmin, vmax: the ends of the scale; None is the least and the greatest number that is drawn.
        row_labels, column_labels: a text for each row and column; if they are too close together, only every n-th is
            drawn.

    Raises:
        Refused: ``bad_record`` or ``too_large``.
    """
    check_real(array)
    if array.ndim != 2 or not array.size:
        raise Refused("bad_record", f"a heat map of shape {array.shape}")
    if array.size > MATRIX_VALUES_MAX or max(array.shape) > MATRIX_AXIS_MAX:
        raise Refused("too_large", f"a heat map of shape {array.shape}")
    if not isinstance(colormap, str) or colormap not in _CONTROL_POINTS:
        raise Refused("bad_record", f"colormap {colormap!r:.40}")
    matrix = pooled(array)
    if vmin is not None and vmax is not None and vmin > vmax:
        raise Refused("bad_record", f"vmin {vmin:g} is greater than vmax {vmax:g}")
    scale = _scale(matrix[np.isfinite(matrix)], vmin, vmax)
    rows = _Axis(matrix.shape[0], array.shape[0], row_labels)
    columns = _Axis(matrix.shape[1], array.shape[1], column_labels)
    return _draw(matrix, scale, colors(colormap), rows, columns)


def pooled(array: AnyArray) -> Matrix:
    """Reduce the matrix to at most `CELLS_MAX` rows and columns: means of the finite numbers of neighbouring cells.

    A mean without any finite number is NaN.
    """
    rows, columns = (_starts(size) for size in array.shape)
    if len(rows) == array.shape[0] and len(columns) == array.shape[1]:
        return array.astype(np.float64)
    result = np.empty((len(rows), len(columns)))
    for place, (first, last) in enumerate(zip(rows, [*rows[1:], array.shape[0]], strict=True)):
        band = array[first:last].astype(np.float64)  # not the whole matrix as float64
        finite = np.isfinite(band)
        counts = np.add.reduceat(finite.sum(axis=0), columns)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            sums = np.add.reduceat(np.where(finite, band, 0.0).sum(axis=0), columns)
            result[place] = sums / counts
    return result


def _starts(size: int) -> npt.NDArray[np.intp]:
    """Return the first row or column of each cell."""
    cells = min(size, CELLS_MAX)
    return np.arange(cells, dtype=np.intp) * size // cells


# --- numbers to colours ----------------------------------------------------------------------------------------


@cache
def colors(colormap: str) -> Pixels:
    """Return the 256 colours of a map, of shape (256, 3)."""
    points = np.array([list(bytes.fromhex(point)) for point in _CONTROL_POINTS[colormap].split()], np.float64)
    at = np.linspace(0, 1, len(points))
    channels = [np.interp(np.linspace(0, 1, 256), at, points[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


@dataclass(slots=True, frozen=True)
class Scale:
    """The scale of the drawn numbers. ``low`` equals ``high`` if there is only one number."""

    low: float
    high: float

    def parts(self, numbers: Matrix) -> Matrix:
        """Map numbers to 0 at the low end and 1 at the high end, clipped; 0.5 if both ends are equal; NaN stays."""
        with np.errstate(all="ignore"):
            span = self.high - self.low
            if self.low == self.high:
                parts = np.sign(numbers - self.low) / 2 + 0.5
            elif math.isfinite(span):
                parts = (numbers - self.low) / span
            else:  # halves, as the ends are further apart than float64 reaches
                parts = (numbers / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return np.clip(parts, 0, 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Return round numbers on the scale and their texts, ascending; the ends if there is none between."""
        step = _round_step((self.high / 2 - self.low / 2) / TICKS * 2)
        largest = max(abs(self.low), abs(self.high))
        if not step or largest / step > 1e12:
            return [(end, f"{end:.10g}") for end in sorted({self.low, self.high}) if math.isfinite(end)]
        first, last = math.ceil(self.low / step - _CLOSE), math.floor(self.high / step + _CLOSE)
        digits = max(6, math.floor(math.log10(largest)) - math.floor(math.log10(step)) + 2)
        return [(count * step, f"{count * step:.{digits}g}") for count in range(first, last + 1)]


_CLOSE = 1e-3  # of a step: an end that is round but for float64's last digits counts as round


def _round_step(step: float) -> float:
    """Return 1, 2, 2.5 or 5 times a power of ten, not below ``step``; 0 if there is none."""
    if not 1e-290 < step < 1e300:  # false for NaN
        return 0.0
    power = 10.0 ** math.floor(math.log10(step))
    return next((times * power for times in (1, 2, 2.5, 5, 10) if times * power >= step * (1 - _CLOSE)), 10 * power)


def _scale(finite: Matrix, vmin: float | None, vmax: float | None) -> Scale:
    """Return the scale of the finite numbers, of which there may be none, with the given ends."""
    low = vmin if vmin is not None else float(finite.min(initial=math.inf))
    high = vmax if vmax is not None else float(finite.max(initial=-math.inf))
    if low <= high:
        return Scale(low, high)
    given = vmin if vmin is not None else vmax  # every number is beyond the end that was given
    return Scale(math.nan, math.nan) if given is None else Scale(given, given)


# --- the canvas ------------------------------------------------------------------------------------------------


class _Axis:
    """The cells of one axis: their number, their size in pixels, and their labels."""

    def __init__(self, cells: int, size: int, labels: list[str] | None) -> None:
        self.cells = cells
        self.labels = [] if labels is None else [_text(labels[first]) for first in _starts(size)]
        self.cell_pixels = 1

    @property
    def pixels(self) -> int:
        return self.cells * self.cell_pixels

    def fit(self, longest: int) -> None:
        """Choose the size of a cell, given the cells of the longer axis."""
        self.cell_pixels = max(1, min(LONG_SIDE // longest, CELL_PIXELS_MAX))
        if self.pixels < SHORT_SIDE_MIN:
            self.cell_pixels = math.ceil(SHORT_SIDE_MIN / self.cells)

    def shown(self, room: float) -> list[tuple[int, str]]:
        """Return the drawn labels, with ``room`` pixels for each, and the middles of their cells in pixels."""
        every = max(1, math.ceil(room / self.cell_pixels))
        return [
            (place * self.cell_pixels + self.cell_pixels // 2, label)
            for place, label in enumerate(self.labels)
            if place % every == 0
        ]


def _draw(matrix: Matrix, scale: Scale, table: Pixels, rows: _Axis, columns: _Axis) -> Pixels:
    font = _font()
    line = _extent("0gÅ")[1]
    longest = max(rows.cells, columns.cells)
    rows.fit(longest)
    columns.fit(longest)
    ticks = scale.ticks()
    some_missing = not np.isfinite(matrix).all()

    left = max((_extent(label)[0] for label in rows.labels), default=-GAP) + 2 * GAP
    top = GAP + line // 2
    bar_left = left + columns.pixels + 2 * GAP
    bar_height = max(rows.pixels, BAR_HEIGHT_MIN)
    tick_width = max((_extent(text)[0] for _, text in [*ticks, (0.0, "not finite")]), default=0)
    width = bar_left + BAR_WIDTH + TICK + GAP + tick_width + GAP
    below_cells = rows.pixels + (line + GAP if columns.labels else 0)
    below_bar = bar_height + (2 * line + GAP if some_missing else line // 2)
    height = top + max(below_cells, below_bar) + GAP
    width = max(width, math.ceil(height / TALLEST))

    canvas = np.full((height, width, 3), PAPER, np.uint8)
    cells = np.repeat(np.repeat(matrix, rows.cell_pixels, axis=0), columns.cell_pixels, axis=1)
    canvas[top : top + rows.pixels, left : left + columns.pixels] = _paint(cells, scale, table)
    ramp = np.repeat(np.linspace(1, 0, bar_height)[:, None], BAR_WIDTH, axis=1)
    canvas[top : top + bar_height, bar_left : bar_left + BAR_WIDTH] = _paint(ramp, Scale(0, 1), table)
    swatch = top + bar_height + GAP + line // 2
    if some_missing:
        missing = np.full((line, BAR_WIDTH), np.nan)
        canvas[swatch : swatch + line, bar_left : bar_left + BAR_WIDTH] = _paint(missing, scale, table)

    from PIL import Image, ImageDraw

    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for middle, label in rows.shown(line + 2):
        _write(draw, font, left - GAP - _extent(label)[0], top + middle, label)
    for middle, label in columns.shown(max((_extent(label)[0] for label in columns.labels), default=0) + GAP):
        _write(draw, font, left + middle - _extent(label)[0] // 2, top + rows.pixels + GAP // 2 + line // 2, label)
    for number, text in ticks:
        part = float(scale.parts(np.array([[number]]))[0, 0])
        y = top + round((1 - part) * (bar_height - 1))
        draw.line([(bar_left + BAR_WIDTH, y), (bar_left + BAR_WIDTH + TICK - 1, y)], fill=INK)
        _write(draw, font, bar_left + BAR_WIDTH + TICK + GAP // 2, y, text)
    if some_missing:
        _write(draw, font, bar_left + BAR_WIDTH + TICK + GAP // 2, swatch + line // 2, "not finite")
    return np.asarray(image)


def _paint(numbers: Matrix, scale: Scale, table: Pixels) -> Pixels:
    """Paint numbers, one pixel each, shape (height, width, 3); diagonal stripes for values that are not finite."""
    parts = scale.parts(numbers)
    finite = np.isfinite(numbers) & np.isfinite(parts)
    painted = table[np.where(finite, parts * 255 + 0.5, 0).astype(np.uint8)]
    rows, columns = np.nonzero(~finite)
    painted[rows, columns] = HATCH[(rows + columns) // 3 % 2]
    return painted


@cache
def _font() -> Any:
    from PIL import ImageFont

    try:
        return ImageFont.load_default(FONT_PIXELS)
    except (TypeError, ImportError):  # Pillow before 10.1, or without FreeType, has one small font
        return ImageFont.load_default()


@lru_cache(4096)
def _extent(text: str) -> tuple[int, int]:
    """Return the width and height of a text in pixels."""
    left, top, right, bottom = _font().getbbox(text)
    return math.ceil(right - left), math.ceil(bottom - top)


def _write(draw: Any, font: Any, x: int, middle: int, text: str) -> None:
    """Write a text that begins at ``x`` and whose digits are centred on ``middle``."""
    _, top, _, bottom = font.getbbox("0")
    draw.text((x, middle - (top + bottom) // 2), text, fill=INK, font=font)


def _text(text: str) -> str:
    """Return a label in one line with letters that the font has: that of an old Pillow has only Latin-1."""
    line = " ".join(text.split())[:LABEL_CHARS_MAX]
    line = "".join(character if character.isprintable() else "?" for character in line)
    return shown(line) if _draws_all() else line.encode("latin-1", "replace").decode("latin-1")


@cache
def _draws_all() -> bool:
    from PIL import ImageFont

    return isinstance(_font(), getattr(ImageFont, "FreeTypeFont", ()))


def _labels(labels: object, array: AnyArray, axis: int) -> list[str] | None:
    """Return the labels of an axis, checked.

    Raises:
        Refused: a label is not text, or the number of labels differs from that of cells.
    """
    if labels is None:
        return None
    if (
        not isinstance(labels, list | tuple)
        or array.ndim != 2
        or len(labels) != array.shape[axis]
        or len(labels) > LABELS_MAX
        or not all(isinstance(label, str) for label in labels)
    ):
        raise Refused("bad_record", f"labels that are no {array.shape} texts: {labels!r:.80}")
    return list(labels)
