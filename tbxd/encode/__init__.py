"""From a record to what an event file holds of it: pure functions, without I/O, clocks or threads.

`encode` is the way in; `ENCODERS` says which module makes the summaries of which kind of record. A module has a
function from record and tag to a list of ``Summary.Value``; whatever it cannot write it refuses with `Refused`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tbxd_client.protocol.kinds import (
    AUDIO,
    BOXES,
    CUSTOM_SCALARS,
    HEATMAP,
    HISTOGRAM,
    HISTOGRAM_RAW,
    HPARAMS,
    IMAGE,
    KIND_NAMES,
    MESH,
    PR_CURVE,
    PR_CURVE_RAW,
    SCALAR,
    TENSOR,
    TEXT,
    VIDEO,
)
from tbxd_client.protocol.records import Record, TagDefinition

from . import (
    audio,
    boxes,
    custom_scalars,
    heatmap,
    histogram,
    hparams,
    image,
    mesh,
    pr_curve,
    scalar,
    tensor,
    text,
    video,
)
from .metadata import color_of, metadata_for
from .rejections import Refused

__all__ = ["ENCODERS", "Refused", "color_of", "encode", "metadata_for"]

Encoder = Callable[[Record, TagDefinition], list[Any]]

ENCODERS: dict[int, Encoder] = {
    SCALAR: scalar.encode,
    HISTOGRAM: histogram.encode,
    IMAGE: image.encode,
    TEXT: text.encode,
    HEATMAP: heatmap.encode,
    HISTOGRAM_RAW: histogram.encode_raw,
    BOXES: boxes.encode,
    VIDEO: video.encode,
    AUDIO: audio.encode,
    PR_CURVE: pr_curve.encode,
    PR_CURVE_RAW: pr_curve.encode_raw,
    MESH: mesh.encode,
    TENSOR: tensor.encode,
    CUSTOM_SCALARS: custom_scalars.encode,
    HPARAMS: hparams.encode,
}


def encode(record: Record, tag: TagDefinition) -> list[Any]:
    """The ``Summary.Value`` messages of a record, whatever its attributes and payload are.

    Raises:
        Refused: nothing can be written for it. No other exception is raised.
    """
    encoder = ENCODERS.get(record.kind)
    if encoder is None:
        raise Refused("unknown_kind", f"records of kind {KIND_NAMES.get(record.kind, record.kind)} have no summaries")
    return encoder(record, tag)
