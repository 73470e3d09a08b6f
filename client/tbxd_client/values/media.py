"""Checks of the arguments of pictures and histograms, in the call itself.

Each ``*_attrs`` function returns the attributes of a record beyond the array's dtype and shape. Nothing here imports
numpy or matplotlib; a figure can only exist if matplotlib is loaded already.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import islice
from typing import Any

from ..config.settings import warn
from ..protocol.limits import (
    BIN_RULES,
    BINS_MAX,
    BOXES_MAX,
    CHANNELS_MAX,
    COLORMAPS,
    LABEL_CHARS_MAX,
    LABELS_MAX,
    RESCALE_MAX,
    SAMPLE_RATE_MAX,
    SOUND_CHANNELS_MAX,
)
from .arrays import Array, TooLarge, check_real, snapshot, to_float, widened
from .names import text_of

PICTURES_LOOKED_AT_MAX = 16  # in one process, for the note about their range; a look takes 10 µs
PIXELS_LOOKED_AT = 4096
FLOAT_PICTURE_SUSPECT = 1.5  # slightly more than 1 is common, after an interpolation say

_LAYOUTS = (set("HW"), set("CHW"), set("NHW"), set("NCHW"))


# --- pictures --------------------------------------------------------------------------------------------------


def image_attrs(array: Array, dataformats: str, batched: bool) -> dict[str, Any]:
    """Return the attributes of a picture or, with an ``N`` axis, of several.

    Args:
        array: real numbers.
        dataformats: the meaning of each axis: ``CHW``, ``HW`` or ``NCHW`` in any order and case.
        batched: several pictures are meant; a format for one of them gets an ``N`` here.

    Raises:
        TypeError: complex numbers, or a format that is not a string.
        ValueError: a shape that does not fit the format, an empty one, or another number of channels.
    """
    check_real(array, "a picture")
    layout = _layout(dataformats)
    if batched and "N" not in layout and len(array.shape) == len(layout) + 1:
        layout = "N" + layout
    if len(layout) != len(array.shape):
        raise ValueError(
            f"shape {array.shape} has {len(array.shape)} axes, dataformats {dataformats!r} names {len(dataformats)}; "
            f"for this shape it would be one such as {_suggestion(array.shape)!r}"
        )
    if 0 in array.shape:
        raise ValueError(f"a picture of shape {array.shape} has no pixels")
    channels = array.shape[layout.index("C")] if "C" in layout else 1
    if channels > CHANNELS_MAX:
        raise ValueError(
            f"shape {array.shape} as {layout} has {channels} channels; 1 to {CHANNELS_MAX} are allowed, "
            f"so another order of dataformats may be meant"
        )
    if array.dtype[1:2] == "f":
        _note_range(array)
    return {"dataformats": layout}


_looked_at = 0  # pictures whose range has been looked at


def _note_range(array: Array) -> None:
    """Warn once if a floating-point picture seems to have values up to 255: all above 1 is white, as in torch."""
    global _looked_at
    if _looked_at >= PICTURES_LOOKED_AT_MAX or isinstance(array.data, TooLarge):
        return
    _looked_at += 1
    numbers = widened(array).reshape(-1)
    some = numbers[:: max(1, len(numbers) // PIXELS_LOOKED_AT)]
    if (some > FLOAT_PICTURE_SUSPECT).any():  # false for NaN
        _looked_at = PICTURES_LOOKED_AT_MAX
        warn(
            f"a floating-point picture has values up to {float(some.max()):g} and more; 0 to 1 is expected, what is "
            "above is white. Pass uint8 for 0 to 255, or divide by 255",
            once="picture range",
        )


def _layout(dataformats: Any) -> str:
    if not isinstance(dataformats, str):
        raise TypeError(f"dataformats is {type(dataformats).__name__}; a string such as 'CHW' is expected")
    layout = dataformats.upper()
    if set(layout) not in _LAYOUTS or len(set(layout)) != len(layout):
        raise ValueError(
            f"dataformats {dataformats!r:.40}: 'CHW', 'HW' or 'NCHW', their letters in any order, are expected"
        )
    return layout


def _suggestion(shape: tuple[int, ...]) -> str:
    last = bool(shape) and shape[-1] <= CHANNELS_MAX
    return {2: "HW", 3: "HWC" if last else "CHW"}.get(len(shape), "NHWC" if last else "NCHW")


def heatmap_attrs(
    array: Array,
    colormap: str,
    vmin: Any,
    vmax: Any,
    row_labels: Sequence[Any] | None,
    column_labels: Sequence[Any] | None,
) -> dict[str, Any]:
    """Return the attributes of a heat map.

    Args:
        array: two axes, rows and columns, of real numbers.
        colormap: one of `COLORMAPS`.
        vmin, vmax: the ends of the scale; None is the least and the greatest value.
        row_labels, column_labels: a text, or anything with one, for each row and column; cut to `LABEL_CHARS_MAX`.

    Raises:
        TypeError: complex numbers, or an end of the scale that is not a number.
        ValueError: another number of axes, an empty matrix, an unknown colour map, or labels that do not fit.
    """
    check_real(array, "a heat map")
    if len(array.shape) != 2:
        raise ValueError(f"a heat map of shape {array.shape}; two axes, rows and columns, are expected")
    if 0 in array.shape:
        raise ValueError(f"a heat map of shape {array.shape} has no cells")
    if not isinstance(colormap, str):
        raise TypeError(f"colormap is {type(colormap).__name__}; one of {', '.join(COLORMAPS)} is expected")
    if colormap not in COLORMAPS:
        raise ValueError(f"colormap {colormap!r:.40}; known are {', '.join(COLORMAPS)}")
    attrs: dict[str, Any] = {"colormap": colormap}
    for name, value in (("vmin", vmin), ("vmax", vmax)):
        if value is not None:
            attrs[name] = to_float(value, name)
            if not math.isfinite(attrs[name]):
                raise ValueError(f"{name} is {attrs[name]}; a finite number is expected")
    if "vmin" in attrs and "vmax" in attrs and attrs["vmin"] > attrs["vmax"]:
        raise ValueError(f"vmin {attrs['vmin']:g} is greater than vmax {attrs['vmax']:g}")
    for name, labels, count in (
        ("row_labels", row_labels, array.shape[0]),
        ("column_labels", column_labels, array.shape[1]),
    ):
        if labels is not None:
            attrs[name] = _labels(name, labels, count)
    return attrs


def _labels(name: str, labels: Any, count: int) -> list[str]:
    if isinstance(labels, str):
        raise TypeError(f"{name} is one string; a list of {count} is expected")
    texts = _texts(name, labels, count)
    if texts is None:
        given = f"{len(labels):,}" if hasattr(labels, "__len__") else "other than so many"
        raise ValueError(f"{name} has {given} texts for {count} {name.partition('_')[0]}s")
    if count > LABELS_MAX:
        raise ValueError(f"{name} has {count:,} texts; at most {LABELS_MAX:,} are allowed")
    return texts


def _texts(name: str, labels: Any, count: int) -> list[str] | None:
    """Return the labels as text; None if there are not ``count`` of them."""
    try:
        if hasattr(labels, "__len__") and len(labels) != count:
            return None
        some = list(islice(labels, count + 1))
    except Exception as error:  # of any kind: it is the caller's code
        raise TypeError(f"{name} is {type(labels).__name__}; a list of texts is expected") from error
    return [text_of(label)[:LABEL_CHARS_MAX] for label in some] if len(some) == count else None


# --- histograms ------------------------------------------------------------------------------------------------


def histogram_attrs(bins: Any, max_bins: Any) -> dict[str, Any]:
    """Return the attributes of a histogram.

    Args:
        bins: one of `BIN_RULES`, a number of bins, or their edges.
        max_bins: None, or the approximate maximum of written bins; neighbours are added up.

    Raises:
        TypeError: bins of another kind.
        ValueError: an unknown rule, a number of bins out of range, or edges that decrease or are NaN.
    """
    attrs: dict[str, Any] = {"bins": _bins(bins)}
    if max_bins is not None:
        attrs["max_bins"] = _count("max_bins", max_bins)
    return attrs


def _bins(bins: Any) -> str | int | list[float]:
    if isinstance(bins, str):
        if bins not in BIN_RULES:
            raise ValueError(f"bins {bins!r:.40}; known are {', '.join(BIN_RULES)}")
        return bins
    edges = snapshot(bins, "bins")
    if not edges.shape and hasattr(bins, "__index__") and not isinstance(bins, bool):
        return _count("bins", bins)
    check_real(edges, "edges of bins")
    if len(edges.shape) != 1 or not 2 <= edges.shape[0] <= BINS_MAX + 1:
        raise ValueError(f"edges of bins of shape {edges.shape}; a list of 2 to {BINS_MAX + 1:,} is expected")
    numbers = _floats(edges)
    if any(math.isnan(number) for number in numbers) or any(map(float.__gt__, numbers, numbers[1:])):
        raise ValueError("edges of bins have to grow, and none may be NaN")
    return numbers


def _count(name: str, value: Any) -> int:
    try:
        count = int(value.__index__())
    except Exception:  # of any kind: it is the caller's code
        raise TypeError(f"{name} is {type(value).__name__}; an integer is expected") from None
    if not 1 <= count <= BINS_MAX:
        raise ValueError(f"{name} is {count}; 1 to {BINS_MAX:,} are allowed")
    return count


def _floats(array: Array) -> list[float]:
    return [float(number) for number in widened(array).tolist()]


# --- matplotlib ------------------------------------------------------------------------------------------------


def figure_to_array(figure: Any, close: bool) -> Array:
    """Return a figure as uint8 pixels, shape (height, width, 3); a list of figures adds an axis before these.

    Figures of different sizes get a white border below and to the right. The canvas that a figure had, perhaps the
    one of a window, is its canvas again afterwards.

    Args:
        figure: a figure of matplotlib or a list of them.
        close: close them afterwards, if pyplot knows them.

    Raises:
        TypeError: an argument is not a figure.
        ValueError: an empty list.
    """
    import numpy as np

    figures = list(figure) if isinstance(figure, list | tuple) else [figure]
    if not figures:
        raise ValueError("an empty list of figures")
    kinds = getattr(sys.modules.get("matplotlib.figure"), "Figure", ())
    for one in figures:
        if not isinstance(one, kinds):
            raise TypeError(
                f"a {type(one).__name__} was given; a matplotlib.figure.Figure or a list of them is expected"
            )
    pixels = [_drawn(one) for one in figures]
    pyplot = sys.modules.get("matplotlib.pyplot")
    if close and pyplot is not None:
        for one in figures:
            pyplot.close(one)
    if not isinstance(figure, list | tuple):
        return snapshot(pixels[0], "figure")
    height, width = (max(picture.shape[axis] for picture in pixels) for axis in (0, 1))
    batch = np.full((len(pixels), height, width, 3), 255, np.uint8)
    for place, picture in zip(batch, pixels, strict=True):
        place[: picture.shape[0], : picture.shape[1]] = picture
    return snapshot(batch, "figure")


def _drawn(figure: Any) -> Any:
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    before = figure.canvas
    try:
        canvas: Any = FigureCanvasAgg(figure)  # makes itself the figure's canvas
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[:, :, :3]
    finally:
        figure.set_canvas(before)


# --- what moves and what sounds --------------------------------------------------------------------------------


def boxes_attrs(boxes: Array, labels: Any, rescale: Any) -> dict[str, Any]:
    """Return the attributes of boxes on a picture.

    Args:
        boxes: shape (N, 4); left, top, right, bottom of each, in pixels.
        labels: None, or N texts, cut to `LABEL_CHARS_MAX`. Another number of labels is left out, as in the originals.
        rescale: the factor by which the picture is enlarged.

    Raises:
        TypeError: complex numbers, labels that are not a list, or a rescale that is not a number.
        ValueError: another shape, more than `BOXES_MAX`, or a rescale out of range.
    """
    check_real(boxes, "boxes")
    if len(boxes.shape) != 2 or boxes.shape[1] != 4 or boxes.shape[0] > BOXES_MAX:
        raise ValueError(f"boxes of shape {boxes.shape}; (N, 4) with at most {BOXES_MAX:,} is expected")
    factor = to_float(rescale, "rescale")
    if not 0 < factor <= RESCALE_MAX:
        raise ValueError(f"rescale is {factor:g}; more than 0 and at most {RESCALE_MAX} is possible")
    attrs: dict[str, Any] = {"rescale": factor}
    if labels is not None:
        texts = _texts("labels", [labels] if isinstance(labels, str) else labels, boxes.shape[0])
        if texts is None:
            warn(f"not as many labels as boxes, {boxes.shape[0]}; they are left out", once="labels")
        else:
            attrs["labels"] = texts
    return attrs


def video_attrs(array: Array, dataformats: Any, fps: Any) -> dict[str, Any]:
    """Return the attributes of a video.

    Args:
        array: real numbers, 4 or 5 axes.
        dataformats: the letters of ``NTCHW``, or ``TCHW``, in the order of the axes.
        fps: frames a second; None is 4.

    Raises:
        TypeError: complex numbers, a format that is not a string, or a rate that is not a number.
        ValueError: a shape that does not fit the format, an empty one, another number of channels, or a rate that is
            not positive.
    """
    check_real(array, "a video")
    if not isinstance(dataformats, str):
        raise TypeError(f"dataformats is {type(dataformats).__name__}; a string such as 'NTCHW' is expected")
    layout = dataformats.upper()
    if set(layout) not in (set("NTCHW"), set("TCHW")) or len(set(layout)) != len(layout):
        raise ValueError(f"dataformats {dataformats!r:.40}: the letters of 'NTCHW', or of 'TCHW', are expected")
    if len(array.shape) == 4 and len(layout) == 5:  # torch takes (N, T, C, H, W) only; one video is meant here
        layout = layout.replace("N", "")
    if len(layout) != len(array.shape):
        raise ValueError(f"a video of shape {array.shape} with dataformats {dataformats!r}: as many axes are expected")
    if 0 in array.shape:
        raise ValueError(f"a video of shape {array.shape} has no pixels")
    channels = array.shape[layout.index("C")]
    if channels > CHANNELS_MAX:
        raise ValueError(f"shape {array.shape} as {layout} has {channels} channels; 1 to {CHANNELS_MAX} are allowed")
    rate = 4.0 if fps is None else to_float(fps, "fps")
    if not 0 < rate < math.inf:
        raise ValueError(f"fps is {rate:g}; a positive number is expected")
    return {"dataformats": layout, "fps": rate}


def audio_attrs(array: Array, sample_rate: Any) -> dict[str, Any]:
    """Return the attributes of a sound.

    Args:
        array: shape (frames,), (frames, 1 or 2) or (1 or 2, frames), perhaps among axes of length 1; real numbers.
        sample_rate: frames a second; None is 44,100.

    Raises:
        TypeError: complex numbers, or a sample rate that is not a number.
        ValueError: another shape, an empty one, or a sample rate that is not an integer or out of range.
    """
    check_real(array, "a sound")
    shape = array.shape if len(array.shape) <= 2 else tuple(size for size in array.shape if size != 1)
    if not array.shape or len(shape) > 2 or 0 in shape or (len(shape) == 2 and min(shape) > SOUND_CHANNELS_MAX):
        raise ValueError(f"a sound of shape {array.shape}; (frames,), (frames, 1 or 2) or (1 or 2, frames) is expected")
    rate = 44_100.0 if sample_rate is None else to_float(sample_rate, "sample_rate")
    if not 1 <= rate <= SAMPLE_RATE_MAX or rate != int(rate):
        raise ValueError(f"sample_rate is {rate:g}; an integer from 1 to {SAMPLE_RATE_MAX:,} is expected")
    return {"sample_rate": int(rate)}


def raw_histogram(limits: Any, counts: Any, **statistics: Any) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the arrays and attributes of a precomputed histogram.

    Raises:
        TypeError: a value is not a number.
        ValueError: the numbers of limits and counts differ, are 0, or exceed `BINS_MAX`.
    """
    arrays = {"limits": snapshot(limits, "bucket_limits"), "counts": snapshot(counts, "bucket_counts")}
    for name, array in arrays.items():
        check_real(array, name)
    shapes = {array.shape for array in arrays.values()}
    if len(shapes) != 1 or not 1 <= math.prod(arrays["limits"].shape) <= BINS_MAX:
        raise ValueError(
            f"bucket_limits of shape {arrays['limits'].shape} and bucket_counts of shape {arrays['counts'].shape}; "
            f"as many of both, 1 to {BINS_MAX:,}, are expected"
        )
    return arrays, {name: to_float(value, name) for name, value in statistics.items()}
