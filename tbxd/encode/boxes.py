"""Pictures with boxes on them, as detectors find them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tbxd_client.protocol.kinds import BOXES
from tbxd_client.protocol.limits import BOXES_MAX, LABEL_CHARS_MAX, PIXELS_MAX, RESCALE_MAX
from tbxd_client.protocol.records import Record, TagDefinition

from .arrays import AnyArray, arrays_of, check_real, number_attr, shown
from .image import Pixels, picture_value, pixels_of
from .rejections import Refused

INK, PAPER = (255, 0, 0), (255, 255, 255)
LINE = 2  # pixels


def encode(record: Record, tag: TagDefinition) -> list[Any]:
    """Encode one picture: arrays ``image``, ``boxes``; attributes ``dataformats``, ``rescale``, optionally ``labels``.

    Raises:
        Refused: ``bad_record`` or ``too_large``.
    """
    arrays, labels, rescale = arrays_of(record), record.attrs.get("labels"), number_attr(record, "rescale")
    if arrays.keys() != {"image", "boxes"} or rescale is None or not 0 < rescale <= RESCALE_MAX:
        raise Refused("bad_record", f"a picture with {sorted(arrays)!r:.60}, rescale {rescale}")
    boxes = arrays["boxes"]
    check_real(boxes)
    if boxes.ndim != 2 or (boxes.size and boxes.shape[1] != 4) or len(boxes) > BOXES_MAX:
        raise Refused("bad_record", f"boxes of shape {boxes.shape}")
    if labels is not None and not (
        isinstance(labels, list)
        and len(labels) == len(boxes)
        and all(isinstance(label, str) and len(label) <= LABEL_CHARS_MAX for label in labels)
    ):
        raise Refused("bad_record", f"labels {labels!r:.60} of {len(boxes)} boxes")
    pixels = pixels_of(arrays["image"], record.attrs.get("dataformats"))
    height, width, _ = pixels.shape
    if height * rescale * width * rescale > PIXELS_MAX:
        raise Refused("too_large", f"a picture of {width} by {height} pixels, {rescale:g} times larger")
    return [picture_value(BOXES, tag, drawn(pixels, boxes, labels, rescale))]


def drawn(pixels: Pixels, boxes: AnyArray, labels: list[str] | None, rescale: float) -> Pixels:
    """Draw the boxes on the picture and enlarge it; return RGB or RGBA of shape (height, width, 3 or 4).

    Args:
        pixels: uint8 of shape (height, width, channels).
        boxes: shape (N, 4): left, top, right, bottom; those with a number that is not finite are left out.
        labels: None, or a text for each, inside its lower left corner.
        rescale: the factor of enlargement.
    """
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGBA" if pixels.shape[2] in (2, 4) else "RGB")
    draw = ImageDraw.Draw(image)
    limit = 4 * max(image.size)  # far outside is as good as any number, and Pillow has 32 bits
    for place, box in enumerate(boxes.astype(np.float64)):
        if not np.isfinite(box).all():
            continue
        left, top, right, bottom = box.clip(-limit, limit).tolist()
        draw.line([(left, top), (left, bottom), (right, bottom), (right, top), (left, top)], fill=INK, width=LINE)
        if labels is not None:
            text = shown(" ".join(labels[place].split()))
            right, lower = ImageFont.load_default().getbbox(text)[2:]
            draw.rectangle([(left, bottom - lower - 2), (left + right + 2, bottom)], fill=INK)
            draw.text((left + 1, bottom - lower - 1), text, fill=PAPER, font=ImageFont.load_default())
    if rescale != 1:
        size = [max(1, int(side * rescale)) for side in image.size]
        image = image.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    return np.asarray(image)
