"""Encoders from records to summaries: pure functions, without I/O, clocks or threads.

`encode` is the entry point; `ENCODERS` has the encoder of each kind of record: a function from record and tag to a list
of ``Summary.Value``. It raises `Refused` for a record that it cannot encode.
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
    """Return the ``Summary.Value`` messages of a record, with any attributes and payload.

    Raises:
        Refused: the record cannot be encoded. No other exception is raised.
    """
    encoder = ENCODERS.get(record.kind)
    if encoder is None:
        raise Refused("unknown_kind", f"records of kind {KIND_NAMES.get(record.kind, record.kind)} have no summaries")
    return encoder(record, tag)
