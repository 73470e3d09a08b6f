"""Sounds, videos, boxes, curves, meshes: what the daemon makes of them is what the originals make, or better."""

from __future__ import annotations

import io
import wave
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image, ImageSequence
from tensorboard.util import tensor_util
from tensorboardX.summary import compute_curve
from tensorboardX.utils import _prepare_video

from tbxd.encode import Refused, encode
from tbxd.encode.audio import frames_of as sound_of
from tbxd.encode.audio import wav
from tbxd.encode.boxes import drawn
from tbxd.encode.pr_curve import curve_of
from tbxd.encode.tensor import tensor_of
from tbxd.encode.video import frames_of as video_of
from tbxd.encode.video import gif
from tbxd_client.protocol import kinds
from tbxd_client.protocol.records import Record, TagDefinition
from tbxd_client.values import plots
from tbxd_client.values.arrays import snapshot
from tbxd_client.values.media import audio_attrs, boxes_attrs, raw_histogram, video_attrs

TAG = TagDefinition(1, 0, "t")


def record_of(kind: int, given: Any, attrs: dict[str, Any]) -> Record:
    """A record as the client makes it, of one array or of several."""
    if isinstance(given, dict):
        attrs = {"arrays": [[name, array.dtype, list(array.shape)] for name, array in given.items()], **attrs}
        return Record(kind, 1, 5, 1.0, attrs, b"".join(bytes(array.data) for array in given.values()))
    attrs = {"dtype": given.dtype, "shape": list(given.shape), **attrs}
    return Record(kind, 1, 5, 1.0, attrs, bytes(given.data))


# --- sounds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(50,), (50, 1), (50, 2)])
@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_a_sound_is_within_one_step_of_soundfiles(shape: tuple[int, ...], dtype: str) -> None:
    sound = np.random.default_rng(0).uniform(-1, 1, shape).astype(dtype)
    out = io.BytesIO()
    soundfile.write(out, sound, samplerate=8000, format="wav")
    theirs = soundfile.read(io.BytesIO(out.getvalue()), dtype="int16", always_2d=True)[0]
    ours, rate = soundfile.read(io.BytesIO(wav(sound_of(sound), 8000)), dtype="int16", always_2d=True)
    assert rate == 8000 and ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@given(arrays.arrays("<i2", st.tuples(st.integers(3, 20), st.sampled_from([1, 2]))), st.booleans())
def test_int16_is_kept_as_it_is_in_either_layout(sound: Any, transposed: bool) -> None:
    with wave.open(io.BytesIO(wav(sound_of(sound.T if transposed else sound), 44100))) as file:
        assert (file.getnchannels(), file.getnframes(), file.getsampwidth()) == (sound.shape[1], len(sound), 2)
        assert file.readframes(len(sound)) == sound.tobytes()


@given(arrays.arrays("<i2", st.integers(1, 50)))
def test_a_sound_that_was_read_as_floating_point_is_the_same_again(sound: Any) -> None:
    assert (sound_of((sound / 32768).astype("<f4")).reshape(-1) == sound).all()


@pytest.mark.parametrize(
    ("dtype", "numbers", "samples"),
    [
        ("i1", [-128, 0, 127], [-32768, 0, 32512]),
        ("u1", [0, 128, 255], [-32768, 0, 32512]),
        ("<i4", [-(2**31), 0, 2**31 - 1], [-32768, 0, 32767]),
        ("<i8", [-(2**40), 5, 2**40], [-32768, 5, 32767]),
        ("<u2", [0, 40_000], [0, 32767]),
        ("?", [False, True], [0, 32767]),
    ],
)
def test_integers_are_samples_of_their_own_width(dtype: str, numbers: list[int], samples: list[int]) -> None:
    assert sound_of(np.array(numbers, dtype)).reshape(-1).tolist() == samples


@pytest.mark.parametrize("shape", [(1, 1, 9), (9, 1, 1), (1, 9, 2), (1, 1, 1)])
def test_axes_of_length_one_are_taken_out_of_a_sound(shape: tuple[int, ...]) -> None:
    sound = np.zeros(shape, "f4")
    audio_attrs(snapshot(sound, ""), 1)
    assert sound_of(sound).shape == (9 if 9 in shape else 1, 2 if 2 in shape else 1)


def test_what_is_too_loud_is_clipped_and_nan_is_silence() -> None:
    sound = np.array([2.0, -3.0, np.nan, np.inf, -np.inf, 1.0, -1.0, 0.0])
    assert sound_of(sound).reshape(-1).tolist() == [32767, -32768, 0, 32767, -32768, 32767, -32768, 0]


# --- videos ----------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.permutations("NTCHW"))
def test_the_grid_of_videos_is_tensorboardxs(count: int, times: int, letters: list[str]) -> None:
    videos = np.random.default_rng(0).integers(0, 256, (count, times, 3, 4, 5), np.uint8)
    layout = "".join(letters)
    turned = videos.transpose(["NTCHW".index(letter) for letter in layout])
    theirs = np.rint(_prepare_video(videos.astype(np.float32))).astype(np.uint8)
    assert (video_of(turned, layout) == theirs).all()


@pytest.mark.parametrize("rate", [1, 3, 4, 7, 24, 30, 60])
def test_the_frames_and_their_timing_are_in_the_gif(rate: float) -> None:
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]], np.uint8)
    frames = np.broadcast_to(colors[:, None, None], (5, 6, 7, 3))
    with Image.open(io.BytesIO(gif(np.ascontiguousarray(frames), rate))) as image:
        shown = [(frame.convert("RGB"), frame.info["duration"]) for frame in ImageSequence.Iterator(image)]
        assert image.info["loop"] == 0
    assert [np.asarray(frame)[0, 0].tolist() for frame, _ in shown] == colors.tolist()
    expected = max(5 * 20, 5000 / rate)  # a GIF cannot be faster than 20 ms a frame
    assert abs(sum(duration for _, duration in shown) - expected) <= 10


def test_equal_frames_keep_their_time() -> None:
    with Image.open(io.BytesIO(gif(np.zeros((10, 4, 4, 3), np.uint8), 5))) as image:
        assert sum(frame.info.get("duration", 0) for frame in ImageSequence.Iterator(image)) == 2000


@pytest.mark.parametrize(("count", "rate"), [(3000, 4), pytest.param(65_535, 1, marks=pytest.mark.long)])
def test_a_film_that_stands_still_for_longer_than_a_frame_can_be_is_shown_shorter(count: int, rate: float) -> None:
    with Image.open(io.BytesIO(gif(np.zeros((count, 1, 1, 3), np.uint8), rate))) as image:
        assert 600_000 < image.info["duration"] <= 655_350


@pytest.mark.parametrize("shape", [[1, 1, 1, 65_536], [1, 1, 65_536, 1], [65_536, 1, 1, 1]])
def test_what_no_gif_can_hold_is_refused(shape: list[int]) -> None:
    record = Record(kinds.VIDEO, 1, 0, 0.0, {"dtype": "|u1", "shape": shape, "dataformats": "TCHW", "fps": 4})
    record.payload = bytes(max(shape))
    with pytest.raises(Refused) as caught:
        encode(record, TAG)
    assert caught.value.reason == "too_large"


def test_an_empty_mesh_of_any_shape_is_taken_or_refused() -> None:
    for size, taken in (((1 << 31) - 1, True), (1 << 31, False), (1 << 62, False)):
        attrs = {"arrays": [["vertices", "<f4", [0, size, 3]]], "config": "{}"}
        try:
            assert encode(Record(kinds.MESH, 1, 0, 0.0, attrs, b""), TAG) and taken
        except Refused as refused:
            assert not taken, refused


def test_labels_longer_than_those_of_the_client_are_refused() -> None:
    described = [["image", "|u1", [3, 4, 4]], ["boxes", "<f4", [1, 4]]]
    for length, taken in ((32, True), (33, False), (1_000_001, False)):  # Pillow raises for more than a million
        attrs = {"arrays": described, "dataformats": "CHW", "rescale": 1, "labels": ["x" * length]}
        try:
            assert encode(Record(kinds.BOXES, 1, 0, 0.0, attrs, bytes(48 + 16)), TAG) and taken
        except Refused:
            assert not taken


# --- boxes -----------------------------------------------------------------------------------------------------


def test_boxes_are_drawn_where_they_are_and_the_picture_grows() -> None:
    pixels = np.full((100, 200, 3), 7, np.uint8)
    result = drawn(pixels, np.array([[20.0, 30, 80, 60], [np.nan, 0, 1, 1]]), None, 1)
    assert result.shape == (100, 200, 3)
    assert result[45, 20].tolist() == result[30, 50].tolist() == [255, 0, 0]
    assert result[45, 50].tolist() == result[90, 150].tolist() == [7, 7, 7]
    assert drawn(pixels, np.zeros((0, 4)), None, 0.5).shape == (50, 100, 3)
    labelled = drawn(pixels, np.array([[20, 30, 80, 60]]), ["cät"], 2)
    assert labelled.shape == (200, 400, 3)
    assert (
        labelled[120:150, 40:80] != np.asarray(drawn(pixels, np.array([[20, 30, 80, 60]]), None, 2))[120:150, 40:80]
    ).any()


# --- curves ----------------------------------------------------------------------------------------------------


@given(st.data())
def test_a_curve_is_tensorboardxs_for_any_number_of_thresholds(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 50))
    predictions = data.draw(arrays.arrays("<f8", count, elements=st.floats(0, 1)))
    labels = data.draw(arrays.arrays(st.sampled_from(["|b1", "<i4", "<f4"]), count, elements=st.sampled_from([0, 1])))
    weights = data.draw(st.none() | st.just(2.0) | arrays.arrays("<f8", count, elements=st.floats(0, 10)))
    thresholds = data.draw(st.integers(2, 500))
    theirs = compute_curve(labels, predictions, thresholds, weights)
    ours = curve_of(labels, predictions, thresholds, None if weights is None else np.asarray(weights))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_predictions_that_are_no_share_are_left_out() -> None:
    labels, predictions = np.array([1, 0, 1, 1]), np.array([0.5, 0.5, np.nan, 7.0])
    assert (curve_of(labels, predictions, 5) == curve_of(labels[:2], predictions[:2], 5)).all()


# --- tensors ---------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(
        ["|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16"]
    ),
    arrays.array_shapes(min_dims=0, max_dims=4, max_side=4),
)
def test_tensorboard_reads_a_tensor_as_it_was(dtype: str, shape: tuple[int, ...]) -> None:
    from tensorboard.compat.proto.tensor_pb2 import TensorProto

    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    read = tensor_util.make_ndarray(TensorProto.FromString(tensor_of(array).SerializeToString()))
    assert read.dtype == array.dtype and read.shape == array.shape and (read == array).all()


# --- wrong input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: audio_attrs(snapshot(np.zeros((3, 4, 5), "f4"), ""), 1), ValueError, "a sound of shape"),
        (lambda: audio_attrs(snapshot(np.zeros((3, 4), "f4"), ""), 1), ValueError, "a sound of shape"),
        (lambda: audio_attrs(snapshot(np.zeros(0), ""), 1), ValueError, "a sound of shape"),
        (lambda: audio_attrs(snapshot(np.zeros(3, complex), ""), 1), TypeError, "complex"),
        (lambda: audio_attrs(snapshot(np.zeros(()), ""), 1), ValueError, "a sound of shape"),
        (lambda: audio_attrs(snapshot(np.zeros(3), ""), 0), ValueError, "sample_rate"),
        (lambda: audio_attrs(snapshot(np.zeros(3), ""), 1.5), ValueError, "sample_rate"),
        (lambda: video_attrs(snapshot(np.zeros((2, 3, 4)), ""), "NTCHW", 4), ValueError, "as many axes"),
        (lambda: video_attrs(snapshot(np.zeros((1, 1, 5, 2, 2)), ""), "NTCHW", 4), ValueError, "5 channels"),
        (lambda: video_attrs(snapshot(np.zeros((1, 0, 3, 2, 2)), ""), "NTCHW", 4), ValueError, "no pixels"),
        (lambda: video_attrs(snapshot(np.zeros((1, 1, 3, 2, 2)), ""), "NTCHX", 4), ValueError, "dataformats"),
        (lambda: video_attrs(snapshot(np.zeros((1, 1, 3, 2, 2)), ""), "NTCHW", 0), ValueError, "fps"),
        (lambda: boxes_attrs(snapshot(np.zeros((2, 5)), ""), None, 1), ValueError, "(N, 4)"),
        (lambda: boxes_attrs(snapshot(np.zeros((2, 4)), ""), 5, 1), TypeError, "labels"),
        (lambda: boxes_attrs(snapshot(np.zeros((2, 4)), ""), None, 0), ValueError, "rescale"),
        (lambda: raw_histogram([1, 2], [1], min=0, max=1, num=1, sum=1, sum_squares=1), ValueError, "as many of both"),
        (lambda: raw_histogram([1], [1], min="a", max=1, num=1, sum=1, sum_squares=1), TypeError, "min"),
        (lambda: plots.curve([1, 0], [0.5], 127, None), ValueError, "1 predictions for 2 labels"),
        (lambda: plots.curve([1], [0.5], 0, None), ValueError, "num_thresholds"),
        (lambda: plots.curve([1], [0.5], 3, [1, 2]), ValueError, "2 weights for 1 labels"),
        (lambda: plots.curve([1j], [0.5], 3, None), TypeError, "complex"),
        (lambda: plots.mesh(np.zeros((3, 3)), None, None, None), ValueError, "vertices of shape"),
        (lambda: plots.mesh(np.zeros((1, 4, 3)), np.zeros((1, 5, 3)), None, None), ValueError, "colors of shape"),
        (lambda: plots.mesh(np.zeros((1, 4, 3)), None, None, {"a": object()}), TypeError, "config_dict"),
        (lambda: plots.layout({"a": {"b": ["Margin", ["x"]]}}), ValueError, "value, lower, upper"),
        (lambda: plots.layout({"a": {"b": ["Multiline", "x"]}}), TypeError, "a list of texts"),
        (lambda: plots.layout([]), TypeError, "a layout is"),
    ],
)
def test_wrong_arguments_raise_and_say_why(call: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said.replace("(", r"\(").replace(")", r"\)")):
        call()


@pytest.mark.parametrize(
    "record",
    [
        Record(kinds.AUDIO, 1, 0, 0.0, {"dtype": "<f4", "shape": [1], "sample_rate": "x"}, bytes(4)),
        Record(kinds.VIDEO, 1, 0, 0.0, {"dtype": "|u1", "shape": [1, 1, 1, 1], "dataformats": "TCHW"}, bytes(1)),
        Record(kinds.MESH, 1, 0, 0.0, {"arrays": [["vertices", "<f4", [1, 1, 2]]], "config": "null"}, bytes(8)),
        Record(kinds.MESH, 1, 0, 0.0, {"arrays": [["faces", "<f4", [1, 1, 3]]], "config": "null"}, bytes(12)),
        Record(kinds.PR_CURVE, 1, 0, 0.0, {"arrays": [["labels", "<f4", [1]]], "num_thresholds": 5}, bytes(4)),
        Record(kinds.PR_CURVE_RAW, 1, 0, 0.0, {"dtype": "<f4", "shape": [5, 1]}, bytes(20)),
        Record(kinds.BOXES, 1, 0, 0.0, {"arrays": [["image", "|u1", [1, 1]]], "rescale": 1.0}, bytes(1)),
        Record(kinds.HISTOGRAM_RAW, 1, 0, 0.0, {"arrays": [["limits", "<f8", [1]]]}, bytes(8)),
        Record(kinds.HISTOGRAM_RAW, 1, 0, 0.0, {"arrays": [["limits", "<f8", [1]]]}, bytes(9)),
        Record(kinds.CUSTOM_SCALARS, 1, 0, 0.0, {}, '{"a": {"b": 3}}'),
        Record(kinds.CUSTOM_SCALARS, 1, 0, 0.0, {}, "[" * 100_000),
        Record(kinds.CUSTOM_SCALARS, 1, 0, 0.0, {}, None),
    ],
    ids=lambda record: kinds.KIND_NAMES[record.kind],
)
def test_records_that_make_no_sense_are_refused(record: Record) -> None:
    with pytest.raises(Refused):
        encode(record, TAG)


def test_records_of_the_client_are_taken() -> None:
    vertices = np.random.default_rng(0).random((1, 5, 3))
    made = [
        (kinds.AUDIO, sound := snapshot(np.zeros(9), ""), audio_attrs(sound, 8000)),
        (kinds.VIDEO, video := snapshot(np.zeros((2, 3, 4, 5)), ""), video_attrs(video, "NTCHW", 4)),
        (kinds.PR_CURVE, *plots.curve([1, 0], [0.2, 0.3], 5, None)),
        (kinds.PR_CURVE_RAW, plots.raw_curve({str(row): [1, 2, 3] for row in range(6)}), {}),
        (kinds.MESH, *plots.mesh(vertices, None, [[[0, 1, 2]]], None)),
        (kinds.TENSOR, snapshot(vertices, ""), {}),
        (kinds.HISTOGRAM_RAW, *raw_histogram([1, 2], [3, 4], min=0, max=2, num=7, sum=9, sum_squares=20)),
    ]
    for kind, given_, attrs in made:
        assert encode(record_of(kind, given_, attrs), TAG)
