"""Videos: animated GIFs, which TensorBoard shows among the images."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np

from tbxd_client.protocol.kinds import VIDEO
from tbxd_client.protocol.limits import CHANNELS_MAX, GIF_FRAMES_MAX, GIF_HUNDREDTHS_MAX, GIF_SIDE_MAX, PIXELS_MAX
from tbxd_client.protocol.records import Record, TagDefinition

from ..tfevents import schema
from .arrays import AnyArray, array_of, check_real, number_attr
from .image import Pixels, as_bytes
from .metadata import summary_value
from .rejections import Refused

HUNDREDTHS_MIN = 2  # of a second for one frame; browsers slow down what asks for less


def encode(record: Record, tag: TagDefinition) -> list[Any]:
    """Encode one video: attributes ``dtype``, ``shape``, ``dataformats`` and ``fps``; several are put side by side.

    Raises:
        Refused: ``bad_record`` or ``too_large``.
    """
    rate = number_attr(record, "fps")
    if rate is None or rate <= 0:
        raise Refused("bad_record", f"a video with fps {rate}")
    frames = frames_of(array_of(record), record.attrs.get("dataformats"))
    _, height, width, channels = frames.shape
    image = schema.Summary.Image(
        height=height, width=width, colorspace=channels, encoded_image_string=gif(frames, rate)
    )
    return [summary_value(VIDEO, tag, image=image)]


def frames_of(array: AnyArray, dataformats: object) -> Pixels:
    """Return the frames of a video, or of N videos in a grid, as uint8 of shape (frames, height, width, 3).

    The grid is tensorboardX's: N up to a power of 2, and 2 to the power of half the digits of N (binary) rows. Numbers
    are read as in a picture.

    Args:
        array: axes as in ``dataformats``.
        dataformats: the letters of ``NTCHW``, optionally without N, in the order of the axes.

    Raises:
        Refused: ``bad_record`` or ``too_large``.
    """
    check_real(array)
    layout = dataformats if isinstance(dataformats, str) else ""
    if set(layout) not in (set("NTCHW"), set("TCHW")) or not len(set(layout)) == len(layout) == array.ndim:
        raise Refused("bad_record", f"a video of {array.ndim} axes with dataformats {dataformats!r:.40}")
    if "N" not in layout:
        array, layout = array[None], "N" + layout
    videos = array.transpose([layout.index(letter) for letter in "NTHWC"])
    count, times, height, width, channels = videos.shape
    if channels > CHANNELS_MAX or not videos.size:
        raise Refused("bad_record", f"a video of shape {array.shape}")
    rows = 2 ** ((count.bit_length() - 1) // 2)
    columns = 2 ** (count - 1).bit_length() // rows
    if times * rows * height * columns * width > PIXELS_MAX:
        raise Refused("too_large", f"a video of {times} frames of {columns * width} by {rows * height} pixels")
    if times > GIF_FRAMES_MAX or max(rows * height, columns * width) > GIF_SIDE_MAX:
        raise Refused("too_large", f"a GIF of {times} frames of {columns * width} by {rows * height} pixels")
    grid = np.zeros((times, rows * height, columns * width, channels), np.uint8)
    for place, video in enumerate(as_bytes(videos)):
        row, column = divmod(place, columns)
        grid[:, row * height : (row + 1) * height, column * width : (column + 1) * width] = video
    # A GIF has no half transparent pixels, so alpha is left out.
    return np.repeat(grid[..., :1], 3, axis=3) if channels < 3 else grid[..., :3]


def gif(frames: Pixels, rate: float) -> bytes:
    """Return an endless GIF of (frames, height, width, 3) pixels at ``rate`` frames a second.

    A GIF counts in hundredths of a second; they are distributed so that the whole has the right length.
    """
    longest = [GIF_HUNDREDTHS_MAX * (number + 1) for number in range(len(frames))]
    ends = [round(min(100 * (number + 1) / rate, end)) for number, end in enumerate(longest)]
    lengths = [max(HUNDREDTHS_MIN, end - begin) for begin, end in zip([0, *ends], ends, strict=False)]
    try:
        return _saved(frames, lengths)
    except (OverflowError, struct.error):  # frames that are equal become one, which would have to last too long
        most = GIF_HUNDREDTHS_MAX // len(frames)
        return _saved(frames, [min(length, most) for length in lengths])


def _saved(frames: Pixels, lengths: list[int]) -> bytes:
    """Return a GIF with the length of each frame in hundredths of a second."""
    from PIL import Image

    first, *others = (Image.fromarray(np.ascontiguousarray(frame)) for frame in frames)
    out = io.BytesIO()
    first.save(
        out,
        "GIF",
        save_all=True,
        append_images=others,
        duration=[10 * length for length in lengths] if others else 10 * lengths[0],
        loop=0,
    )
    return out.getvalue()
