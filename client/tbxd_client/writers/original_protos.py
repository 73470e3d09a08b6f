"""Records as protocol buffers of the originals, for file writers that a program has put in the place of ours.

The originals' own functions make them, so that such code gets what it expects: tensorboardX's, or those of torch with
TensorBoard's messages. This module is only imported if a program overrides something.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import struct
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..config.settings import warn
from ..protocol import kinds
from ..protocol.protowire import FIXED32, encoded, field
from ..statistics.tensorflow_bins import tensorflow_edges
from ..values.arrays import Array, widened

# The package as the program imports it, its functions, its events, and how modules of file writers for it begin.
_PACKAGES = (
    ("tensorboardX", "tensorboardX.summary", "tensorboardX.proto.event_pb2", ("tensorboardX",)),
    (
        "torch.utils.tensorboard",
        "torch.utils.tensorboard.summary",
        "tensorboard.compat.proto.event_pb2",
        ("torch.utils.tensorboard", "tensorboard."),
    ),
)
_ONE_TAG = frozenset(
    (
        *(kinds.HISTOGRAM, kinds.HISTOGRAM_RAW, kinds.IMAGE, kinds.BOXES, kinds.VIDEO, kinds.AUDIO),
        *(kinds.PR_CURVE, kinds.PR_CURVE_RAW, kinds.TENSOR),
    )
)  # kinds whose message has one value, with the tag as it was given


class Made(NamedTuple):
    """The functions of one of the originals that make summaries, and its class of events."""

    functions: Any
    event: Any


def made_by(reader: Any = None) -> Made | None:
    """Return the functions of the original that ``reader`` belongs to, else of one already imported, else of any.

    Args:
        reader: the file writer that messages are for.

    Returns:
        None if none is installed.
    """
    modules = [kind.__module__ for kind in type(reader).__mro__]

    def order(package: tuple[Any, ...]) -> tuple[bool, bool]:
        name, _, _, begins = package
        return not any(module.startswith(begins) for module in modules), name not in sys.modules

    for _, functions, events, _ in sorted(_PACKAGES, key=order):
        with contextlib.suppress(Exception):  # not there, or with another version of protobuf than it can use
            return Made(importlib.import_module(functions), importlib.import_module(events).Event)
    return None


def scalar(reader: Any, tag: str, value: float, name: str = "", description: str = "") -> Any:
    """Return the summary of a scalar; its bytes if no original is installed."""
    made = made_by(reader)
    if made is None:
        return field(1, field(1, tag.encode()) + encoded(2, FIXED32, struct.pack("<f", _float32(value))))
    summary = made.functions.Summary()
    one = summary.value.add(tag=tag, simple_value=_float32(value))
    if name or description:
        one.metadata.display_name, one.metadata.summary_description = name, description
    return summary


def _float32(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def text(reader: Any, kind: int, tag: str, payload: str) -> Any:
    """Return the summary of a text or of a layout of charts; None for other kinds, or if no original is installed."""
    made = made_by(reader)
    if made is None:
        return None
    if kind == kinds.TEXT:
        summary = made.functions.text(tag, payload)
        summary.value[0].tag = f"{tag}/text_summary"
        return summary
    if kind == kinds.CUSTOM_SCALARS:
        return made.functions.custom_scalars(json.loads(payload))
    return None


def array(reader: Any, kind: int, tag: str, arrays: Array | Mapping[str, Array], attrs: Mapping[str, Any]) -> Any:
    """Return the summary of a record with arrays; None if the originals have none, or fail, with a warning."""
    made = made_by(reader)
    make = _MAKERS.get(kind)
    if made is None or make is None:
        return None
    try:
        given = widened(arrays) if isinstance(arrays, Array) else {name: widened(one) for name, one in arrays.items()}
        summary = make(made.functions, tag, given, attrs)
    except Exception as error:  # of any kind: it is another's code, given what only ours takes
        warn(
            f"{kinds.KIND_NAMES[kind]} {tag!r:.80}: {made.functions.__name__} makes no summary of it "
            f"({error!s:.200}); the {type(reader).__name__} gets none",
            once=f"message {kind}",
        )
        return None
    if summary is not None and kind in _ONE_TAG:
        summary.value[0].tag = tag
    return summary


def graph(model: Any, inputs: Any, verbose: bool, strict: bool) -> Any:
    """Return ``GraphDef`` and ``RunMetadata`` of a model, made by torch and TensorBoard; None if these fail."""
    try:
        made = importlib.import_module("torch.utils.tensorboard._pytorch_graph")
        return made.graph(model, inputs, verbose, strict)
    except Exception as error:  # of any kind: TensorBoard is not there, or the model's own
        warn(f"add_graph: torch makes no graph of it ({error!s:.200}); the file writer gets none", once="graph")
        return None


# --- the kinds -------------------------------------------------------------------------------------------------


def _histogram(functions: Any, tag: str, values: Any, attrs: Mapping[str, Any]) -> Any:
    bins = attrs["bins"]
    return functions.histogram(tag, values, tensorflow_edges() if bins == "tensorflow" else bins, attrs.get("max_bins"))


def _histogram_raw(functions: Any, tag: str, given: Any, attrs: Mapping[str, Any]) -> Any:
    statistics = [attrs[name] for name in ("min", "max", "num", "sum", "sum_squares")]
    return functions.histogram_raw(tag, *statistics, given["limits"].tolist(), given["counts"].tolist())


def _image(functions: Any, tag: str, picture: Any, attrs: Mapping[str, Any]) -> Any:
    return functions.image(tag, picture, dataformats=attrs["dataformats"])


def _boxes(functions: Any, tag: str, given: Any, attrs: Mapping[str, Any]) -> Any:
    return functions.image_boxes(
        tag, given["image"], given["boxes"], attrs["rescale"], attrs["dataformats"], attrs.get("labels")
    )


def _video(functions: Any, tag: str, video: Any, attrs: Mapping[str, Any]) -> Any:
    layout = attrs["dataformats"]
    if "N" not in layout:
        layout, video = f"N{layout}", video[None]
    return functions.video(tag, video.transpose([layout.index(axis) for axis in "NTCHW"]), attrs["fps"])


def _audio(functions: Any, tag: str, sound: Any, attrs: Mapping[str, Any]) -> Any:
    return functions.audio(tag, sound, attrs["sample_rate"])


def _curve(functions: Any, tag: str, given: Any, attrs: Mapping[str, Any]) -> Any:
    return functions.pr_curve(tag, given["labels"], given["predictions"], attrs["num_thresholds"], given.get("weights"))


def _curve_raw(functions: Any, tag: str, rows: Any, attrs: Mapping[str, Any]) -> Any:
    return functions.pr_curve_raw(tag, *rows, rows.shape[1])


def _mesh(functions: Any, tag: str, given: Any, attrs: Mapping[str, Any]) -> Any:
    config = json.loads(attrs["config"]) or None
    return functions.mesh(tag, given["vertices"], given.get("colors"), given.get("faces"), config)


def _tensor(functions: Any, tag: str, numbers: Any, attrs: Mapping[str, Any]) -> Any:
    if not hasattr(functions, "tensor_proto"):
        return None  # tensorboardX has none
    torch: Any = sys.modules["torch"]
    return functions.tensor_proto(tag, torch.from_numpy(numbers.copy()))


_MAKERS = {
    kinds.HISTOGRAM: _histogram,
    kinds.HISTOGRAM_RAW: _histogram_raw,
    kinds.IMAGE: _image,
    kinds.BOXES: _boxes,
    kinds.VIDEO: _video,
    kinds.AUDIO: _audio,
    kinds.PR_CURVE: _curve,
    kinds.PR_CURVE_RAW: _curve_raw,
    kinds.MESH: _mesh,
    kinds.TENSOR: _tensor,
}
