"""The table of kinds of record, the only place that defines a kind.

A new ``add_*`` of `SummaryWriter` is a row here, a method of a writer (``writers/``) and an encoder in the daemon
(``tbxd/encode/``). Client and daemon take from the row what they need to know: how full the journal may be, whether
the payload is arrays, under which tags TensorBoard shows the record, and what its metadata says.

``docs/PROTOCOL.md`` describes the payloads; a test compares the numbers and names.
"""

from __future__ import annotations

from typing import NamedTuple

# How full a journal may be, from 0 to 1, when a record is stored. Scalars may fill all of it. What is large stops
# earlier, so that a daemon which is away, or too slow for the pictures, costs pictures and not the curves.
SCALAR_SHARE, MIDDLE_SHARE, LARGE_SHARE = 1.0, 0.9, 0.75

SCALAR_DATA, TENSOR_DATA, BLOB_DATA = 1, 2, 3  # DataClass of TensorBoard's summary.proto


class Kind(NamedTuple):
    """The properties of a kind of record, for client and daemon.

    ``number`` and ``name`` are those of the protocol. ``share``: how full the journal may be when such a record is
    stored. ``arrays``: the payload is one or several arrays. ``plugin`` and ``data_class``: those of TensorBoard's
    metadata, "" and 0 if a record has none. ``needs_metadata``: without metadata, TensorBoard shows nothing of it.
    ``suffixes``: a record is shown under its tag with each of these behind it; none if it is shown under no tag.
    ``is_single``: a run shows one record of it, whichever process logs it.
    """

    number: int
    name: str
    share: float = LARGE_SHARE
    arrays: bool = False
    plugin: str = ""
    data_class: int = 0
    needs_metadata: bool = False
    suffixes: tuple[str, ...] = ("",)
    is_single: bool = False


KINDS: dict[int, Kind] = {}
UNKNOWN = Kind(0, "unknown")  # what a newer client may send


def _kind(kind: Kind) -> int:
    assert kind.number not in KINDS
    KINDS[kind.number] = kind
    return kind.number


_SCALARS = ("scalars", SCALAR_DATA)
_HISTOGRAMS = ("histograms", TENSOR_DATA)
_IMAGES = ("images", BLOB_DATA)
_CURVES = ("pr_curves", TENSOR_DATA)

SCALAR = _kind(Kind(1, "scalar", SCALAR_SHARE, False, *_SCALARS))
# Several scalars of one step, `SummaryWriter.log`.
ROW = _kind(Kind(2, "row", SCALAR_SHARE, False, *_SCALARS))
HISTOGRAM = _kind(Kind(3, "histogram", MIDDLE_SHARE, True, *_HISTOGRAMS))
IMAGE = _kind(Kind(4, "image", LARGE_SHARE, True, *_IMAGES))
# tensorboardX and torch add the suffix: scripts and saved dashboards know the tags with it.
TEXT = _kind(Kind(5, "text", MIDDLE_SHARE, False, "text", TENSOR_DATA, True, ("/text_summary",)))
HEATMAP = _kind(Kind(6, "heatmap", LARGE_SHARE, True, *_IMAGES))
# A run goes on from an earlier step, `purge_step`.
RESTART = _kind(Kind(7, "restart", SCALAR_SHARE))
# A histogram whose bins the user has computed.
HISTOGRAM_RAW = _kind(Kind(8, "histogram_raw", MIDDLE_SHARE, True, *_HISTOGRAMS))
# A picture with boxes on it.
BOXES = _kind(Kind(9, "boxes", LARGE_SHARE, True, *_IMAGES))
VIDEO = _kind(Kind(10, "video", LARGE_SHARE, True, *_IMAGES))
AUDIO = _kind(Kind(11, "audio", LARGE_SHARE, True, "audio", BLOB_DATA))
PR_CURVE = _kind(Kind(12, "pr_curve", MIDDLE_SHARE, True, *_CURVES, True))
# A curve whose points the user has computed.
PR_CURVE_RAW = _kind(Kind(13, "pr_curve_raw", MIDDLE_SHARE, True, *_CURVES, True))
MESH = _kind(Kind(14, "mesh", LARGE_SHARE, True, "mesh", TENSOR_DATA, True, ("_VERTEX", "_FACE", "_COLOR")))
TENSOR = _kind(Kind(15, "tensor", LARGE_SHARE, True, "tensor", TENSOR_DATA, True))
# Which scalars the CUSTOM SCALARS tab puts in one chart.
CUSTOM_SCALARS = _kind(
    Kind(16, "custom_scalars", MIDDLE_SHARE, False, "custom_scalars", TENSOR_DATA, True, is_single=True)
)
# What a run was trained with.
HPARAMS = _kind(
    Kind(
        *(17, "hparams", MIDDLE_SHARE, False, "hparams", TENSOR_DATA, True),
        suffixes=("/experiment", "/session_start_info", "/session_end_info"),
    )
)
# Points for the PROJECTOR tab: files beside the event file.
EMBEDDING = _kind(Kind(18, "embedding", LARGE_SHARE, True, suffixes=()))
# An event that the caller has made; it says itself under which tags it is shown.
EVENT = _kind(Kind(19, "event"))
# What a model does with its inputs, and the same of a file of ONNX and of one of OpenVINO.
GRAPH = _kind(Kind(20, "graph", suffixes=()))
ONNX_GRAPH = _kind(Kind(21, "onnx_graph", suffixes=()))
OPENVINO_GRAPH = _kind(Kind(22, "openvino_graph", suffixes=()))

KIND_NAMES = {number: kind.name for number, kind in KINDS.items()}
ARRAY_KINDS = frozenset(number for number, kind in KINDS.items() if kind.arrays)


def kind_of(number: int) -> Kind:
    """Return the kind of a number; `UNKNOWN` for a number that is not in the table."""
    return KINDS.get(number, UNKNOWN)
