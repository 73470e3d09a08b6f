"""From a record to summaries: the right message, or `Refused`, whatever the record holds."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.compat.proto import summary_pb2
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboardX.summary import text as tensorboardx_text

from amount import examples
from tbxd.encode import Refused, color_of, encode, metadata_for
from tbxd.encode.arrays import array_of
from tbxd.tfevents import schema
from tbxd_client.protocol.kinds import (
    CUSTOM_SCALARS,
    HEATMAP,
    HISTOGRAM,
    HPARAMS,
    IMAGE,
    KIND_NAMES,
    MESH,
    PR_CURVE,
    PR_CURVE_RAW,
    RESTART,
    ROW,
    SCALAR,
    TENSOR,
    TEXT,
)
from tbxd_client.protocol.limits import DIMENSIONS_MAX
from tbxd_client.protocol.records import Record, TagDefinition
from tbxd_client.values.arrays import snapshot

TAG = TagDefinition(1, 0, "t")
COLOURED = TagDefinition(2, 0, "t", "#ff8000", "a name", "a *description*")


def record_of(kind: int, array: Any, **attrs: Any) -> Record:
    """A record as the client makes it."""
    taken = snapshot(array, "test")
    return Record(kind, 1, 5, 1.0, {"dtype": taken.dtype, "shape": list(taken.shape), **attrs}, bytes(taken.data))


RECORDS = {
    SCALAR: Record(SCALAR, 1, 5, 1.0, {}, struct.pack(">d", 0.1)),
    TEXT: Record(TEXT, 1, 5, 1.0, {}, "# tïtle"),
    HISTOGRAM: record_of(HISTOGRAM, np.arange(5.0), bins="tensorflow"),
    IMAGE: record_of(IMAGE, np.zeros((3, 2, 4), np.uint8), dataformats="CHW"),
    HEATMAP: record_of(HEATMAP, np.eye(3), colormap="viridis"),
}
FIELDS = {SCALAR: "simple_value", TEXT: "tensor", HISTOGRAM: "histo", IMAGE: "image", HEATMAP: "image"}


@pytest.mark.parametrize("kind", RECORDS)
def test_each_kind_becomes_its_field_of_a_value(kind: int) -> None:
    (value,) = encode(RECORDS[kind], TAG)
    assert value.WhichOneof("value") == FIELDS[kind]
    assert value.tag == ("t/text_summary" if kind == TEXT else "t")
    assert value.HasField("metadata") == (kind == TEXT)
    summary_pb2.Summary.Value.FromString(value.SerializeToString())


def test_a_text_is_that_of_tensorboardx() -> None:
    (value,) = encode(RECORDS[TEXT], TAG)
    theirs = tensorboardx_text("t", "# tïtle").value[0]
    value.metadata.data_class = 0  # tensorboardX leaves it to TensorBoard to find out
    assert value.SerializeToString(deterministic=True) == theirs.SerializeToString(deterministic=True)


@pytest.mark.parametrize(("number", "written"), [(1e300, np.inf), (0.1, float(np.float32(0.1))), (-np.inf, -np.inf)])
def test_a_scalar_is_a_float32_and_beyond_it_infinite(number: float, written: float) -> None:
    (value,) = encode(Record(SCALAR, 1, 5, 1.0, {}, struct.pack(">d", number)), TAG)
    assert value.simple_value == written


@pytest.mark.parametrize(
    ("kind", "plugin", "data_class", "parse"),
    [(SCALAR, "scalars", 1, scalar_metadata), (ROW, "scalars", 1, scalar_metadata),
     (HISTOGRAM, "histograms", 2, histogram_metadata), (IMAGE, "images", 3, image_metadata),
     (HEATMAP, "images", 3, image_metadata), (TEXT, "text", 2, text_metadata)],
)  # fmt: skip
def test_metadata_say_what_a_tag_has_and_tensorboards_plugins_read_them(
    kind: int, plugin: str, data_class: int, parse: Any
) -> None:
    metadata = metadata_for(kind, COLOURED)
    assert metadata is not None
    assert (metadata.plugin_data.plugin_name, metadata.data_class) == (plugin, data_class)
    assert (metadata.display_name, metadata.summary_description) == ("a name", "a *description*")
    assert color_of(metadata.plugin_data.content) == "#ff8000"
    parse.parse_plugin_metadata(metadata.plugin_data.content)
    if kind in RECORDS:
        assert encode(RECORDS[kind], COLOURED)[0].metadata == metadata


def test_a_tag_without_anything_to_say_has_metadata_only_where_its_values_are_tensors() -> None:
    tensors = [TEXT, PR_CURVE, PR_CURVE_RAW, MESH, TENSOR, CUSTOM_SCALARS, HPARAMS]
    assert [kind for kind in KIND_NAMES if metadata_for(kind, TAG) is not None] == tensors
    assert metadata_for(RESTART, COLOURED) is None


@given(st.binary(max_size=20))
def test_the_content_of_any_plugin_can_be_asked_for_a_colour(content: bytes) -> None:
    assert isinstance(color_of(content), str)
    ours = schema.PluginContent(color="#123456").SerializeToString()
    assert ours == b"\xc2\x3e\x07#123456"  # field 1000
    assert color_of(b"\x08\x00" + ours) == "#123456"  # behind a plugin's own fields


@pytest.mark.parametrize("dtype", ["|b1", "|i1", "<i8", "<u2", "<f2", "<f4", "<f8", "<c8"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3, 4)])
def test_an_array_comes_out_as_it_went_in(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    result = array_of(record_of(HISTOGRAM, array))
    assert result.dtype == array.dtype
    assert result.tolist() == array.tolist() or not array.size


def test_bfloat16_comes_out_as_float32() -> None:
    record = Record(HISTOGRAM, 1, 0, 0.0, {"dtype": "bfloat16", "shape": [2]}, struct.pack("<HH", 0x3FC0, 0xC000))
    assert array_of(record).tolist() == [1.5, -2.0]


def test_any_byte_but_zero_is_true() -> None:
    record = Record(HISTOGRAM, 1, 0, 0.0, {"dtype": "|b1", "shape": [3]}, b"\x00\x01\x02")
    assert array_of(record).astype(int).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("dtype", "shape", "payload"),
    [("|O8", [1], bytes(8)), ("O", [1], bytes(8)), (">f4", [1], bytes(4)), ("f4", [1], bytes(4)),
     ("|V4", [1], bytes(4)),
     (None, [1], bytes(4)), (4, [1], bytes(4)), ("<f4", None, bytes(4)), ("<f4", [-1, -1], bytes(4)),
     ("<f4", [2], bytes(4)), ("<f4", [1.0], bytes(4)), ("<f4", [True], bytes(4)),
     ("<f4", [1] * (DIMENSIONS_MAX + 1), bytes(4)),
     ("<f4", [1 << 62, 4], b""), ("<f4", [1], "abcd"), ("<f4", [1], None)],
)  # fmt: skip
def test_an_array_that_is_not_what_it_says_is_refused(dtype: Any, shape: Any, payload: Any) -> None:
    with pytest.raises(Refused) as refused:
        array_of(Record(HISTOGRAM, 1, 0, 0.0, {"dtype": dtype, "shape": shape}, payload))
    assert refused.value.reason == "bad_record"


def test_empty_axes_of_any_size_are_harmless() -> None:
    record = Record(HISTOGRAM, 1, 0, 0.0, {"dtype": "<f4", "shape": [0, 1 << 62, 1 << 62]}, b"")
    assert array_of(record).size == 0


SIZES = st.integers(-1, 4) | st.sampled_from([1 << 31, 1 << 62, 1.5, None, "1"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text(max_size=4)
    | st.binary(max_size=4),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=2), values, max_size=2),
    max_leaves=5,
)


def _or_any(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(values, values, values, VALUES)


NAMES = ["labels", "predictions", "weights", "vertices", "faces", "colors", "image", "boxes", "limits", "counts"]
DESCRIBED = _or_any(
    st.tuples(
        st.sampled_from(NAMES),
        st.sampled_from(["<f4", "|u1", "<c8"]),
        st.lists(st.integers(0, 3), max_size=3),
    ).map(list)
)
JSON = [
    '{"a": {"b": ["Margin", ["c"]]}}',
    '{"a": {"b": ["Multiline", ["c"]]}}',
    '{"hparams": {"a": 1}, "metrics": ["b"], "domains": {}}',
    '{"hparams": {"a": 1e999, "b": 1%s}, "metrics": "b", "domains": {"a": [[]]}}' % ("0" * 400),
    "[[]]",
    "1",
]
ATTRS = st.fixed_dictionaries(
    {},
    optional={
        "dtype": _or_any(st.sampled_from(["<f4", "|u1", "<f2", "|b1", "<i8", "<c8", "bfloat16", "<f8", "|O8"])),
        "shape": _or_any(st.lists(SIZES, max_size=5)),
        "dataformats": _or_any(st.sampled_from(["CHW", "hwc", "HW", "NCHW", "NHW", "CH", "HWX", "TCHW", "NTHWC"])),
        "bins": _or_any(st.sampled_from(["tensorflow", "auto", "fd", "stone", 5, 0, -1, [0.0, 1.0], [1.0, 0.0]])),
        "max_bins": _or_any(st.integers(-1, 5)),
        "colormap": _or_any(st.sampled_from(["viridis", "gray", "jet"])),
        "vmin": _or_any(st.floats()),
        "vmax": _or_any(st.floats()),
        "arrays": _or_any(st.lists(DESCRIBED, max_size=3)),
        "fps": _or_any(st.floats()),
        "sample_rate": _or_any(st.integers(-1, 50_000)),
        "num_thresholds": _or_any(st.integers(-1, 20)),
        "rescale": _or_any(st.floats()),
        "labels": _or_any(st.lists(st.text(st.characters(), max_size=5), max_size=2)),
        "config": _or_any(st.sampled_from(["{}", "null", ""])),
        **dict.fromkeys(("min", "max", "num", "sum", "sum_squares"), _or_any(st.floats())),
        "row_labels": _or_any(st.lists(st.text(st.characters(), max_size=5), max_size=4)),
        "column_labels": _or_any(st.lists(st.text(st.characters(), max_size=5), max_size=4)),
    },
)


@settings(max_examples=examples(1500), deadline=None)
@given(
    st.sampled_from([*KIND_NAMES, 99]),
    ATTRS,
    st.none()
    | st.text(st.characters(), max_size=10)
    | st.binary(max_size=64)
    | st.sampled_from(
        [
            '{"a": {"b": ["Margin", ["c"]]}}',
            '{"a": {"b": ["Multiline", ["c"]]}}',
            "[[]]",
            "1",
            '{"hparams": {"a": 1}, "metrics": ["b"], "domains": {}}',
        ]
    ),
    st.text(st.characters(), max_size=5),
    st.booleans(),
)
def test_no_record_whatever_raises_anything_but_refused(
    kind: int, attrs: dict[str, Any], payload: bytes | str | None, text: str, fitting: bool
) -> None:
    shape = attrs.get("shape")
    if fitting and isinstance(payload, bytes) and isinstance(shape, list):  # so that not all stop at the length
        attrs["shape"] = shape = [size for size in shape if type(size) is int and 0 <= size <= 4]
        digits = str(attrs.get("dtype"))[2:]
        size = int(np.prod(shape)) * int(digits) if digits.isdecimal() and len(digits) == 1 else 0
        payload = (payload * size)[:size] if payload else bytes(size)
    described = attrs.get("arrays")
    if (
        fitting
        and isinstance(described, list)
        and all(isinstance(entry, list) and len(entry) == 3 for entry in described)
    ):
        described[:] = [entry for entry in described if entry[0] in NAMES and isinstance(entry[2], list)]
        payload = bytes(sum(int(np.prod(shape)) * int(str(dtype)[2:]) for _, dtype, shape in described))
    record = Record(kind, 1, 0, 0.0, attrs, payload)
    try:
        values = encode(record, TagDefinition(1, 0, text, text[:7], text, text))
    except Refused as refused:
        assert refused.reason.isidentifier()
    else:
        schema.Summary(value=values).SerializeToString()


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=36, max_size=36), st.sampled_from(["<f4", "<f2", "|i1", "<i4", "bfloat16"]), st.data())
def test_any_numbers_give_summaries_of_every_kind(payload: bytes, dtype: str, data: st.DataObject) -> None:
    count = len(payload) // (2 if dtype == "bfloat16" else int(dtype[2:]))
    kind = data.draw(st.sampled_from([HISTOGRAM, IMAGE, HEATMAP]))
    attrs = {
        "dtype": dtype,
        "shape": [3, count // 3],
        "dataformats": "HW",
        "bins": data.draw(st.sampled_from(["auto", 7])),
    }
    try:
        encode(Record(kind, 1, 0, 0.0, attrs, payload), COLOURED)
    except Refused as refused:
        assert refused.reason in {"no_finite_values", "bad_bins"}
