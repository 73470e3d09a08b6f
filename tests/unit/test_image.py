"""Pictures have the pixels that tensorboardX gives them."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorboardX.summary import image as tensorboardx_image

from tbxd.encode import Refused
from tbxd.encode.image import pixels_of, png
from tbxd_client.protocol.limits import PIXELS_MAX
from tbxd_client.values.arrays import snapshot, widened
from tbxd_client.values.media import figure_to_array, image_attrs


def decoded(data: bytes) -> Any:
    """The pixels of a PNG."""
    return np.asarray(Image.open(io.BytesIO(data)))


@st.composite
def pictures(draw: st.DrawFn) -> tuple[Any, str]:
    """uint8 pixels and their layout, as tensorboardX can take it."""
    letters = draw(st.sampled_from(["HW", "CHW", "NCHW"]))
    layout = "".join(draw(st.permutations(letters)))
    sizes = {"H": draw(st.integers(1, 5)), "W": draw(st.integers(1, 5)), "N": draw(st.integers(1, 19))}
    sizes["C"] = draw(st.sampled_from([1, 3, 4]))
    seed = draw(st.integers(0, 100))
    pixels = np.random.default_rng(seed).integers(0, 256, [sizes[letter] for letter in layout], dtype=np.uint8)
    return pixels, layout.lower() if draw(st.booleans()) else layout


@given(pictures())
def test_uint8_pictures_in_any_layout_have_tensorboardxs_pixels(picture: tuple[Any, str]) -> None:
    array, layout = picture
    theirs = tensorboardx_image("t", array, dataformats=layout.upper()).value[0].image
    ours = pixels_of(array, layout)
    assert ours.shape == (theirs.height, theirs.width, theirs.colorspace)
    assert (ours == decoded(theirs.encoded_image_string)).all()
    assert (decoded(png(ours)) == ours).all()


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
def test_floats_from_0_to_1_have_tensorboardxs_pixels(dtype: str) -> None:
    array = np.random.default_rng(0).random((3, 20, 20)).astype(dtype)
    theirs = tensorboardx_image("t", array).value[0].image
    assert (pixels_of(array, "CHW") == decoded(theirs.encoded_image_string)).all()


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (np.array([[-1.0, 0.5, 2.0, math.nan, math.inf, -math.inf]], "<f4"), [0, 127, 255, 0, 255, 0]),
        (np.array([[60000.0]], "<f2"), [255]),
        (np.array([[True, False]]), [255, 0]),
        (np.array([[-5, 7, 300]]), [0, 7, 255]),
        (np.array([[2**64 - 1, 7]], np.uint64), [255, 7]),
        (np.array([[-5, 127]], np.int8), [0, 127]),
        (np.array([[0, 1, -3]]), [0, 255, 0]),  # a mask
    ],
)
def test_numbers_of_every_type_are_clipped_to_bytes(numbers: Any, expected: list[int]) -> None:
    before = numbers.copy()
    assert pixels_of(numbers, "HW")[0, :, 0].tolist() == expected
    assert np.array_equal(numbers, before, equal_nan=numbers.dtype.kind == "f")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_one_to_four_channels_survive_the_png(channels: int) -> None:
    pixels = pixels_of(np.random.default_rng(0).integers(0, 256, (7, 5, channels), dtype=np.uint8), "HWC")
    assert (decoded(png(pixels)) == pixels).all()


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((5, 2, 2), "CHW"), ((2, 2), "CHW"), ((2, 2), "HH"), ((2, 2), "NC"), ((0, 2), "HW"), ((0, 3, 2, 2), "NCHW"),
     ((2, 2), None), ((2, 2), "HX"), ((), ""), ((2, 2, 2, 2, 2), "NTCHW")],
)  # fmt: skip
def test_what_is_no_picture_is_refused(shape: tuple[int, ...], layout: Any) -> None:
    with pytest.raises(Refused) as refused:
        pixels_of(np.zeros(shape, np.uint8), layout)
    assert refused.value.reason == "bad_record"


def test_a_picture_that_is_too_large_is_refused_before_memory_is_taken() -> None:
    huge = np.broadcast_to(np.uint8(0), (65535, 65535))
    with pytest.raises(Refused) as refused:
        pixels_of(huge, "HW")
    assert refused.value.reason == "too_large"
    many = np.broadcast_to(np.uint8(0), (PIXELS_MAX // 8, 3, 3, 3))  # each is small, the grid is not
    with pytest.raises(Refused):
        pixels_of(many, "NCHW")


# --- the client's side -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "layout", "batched", "expected"),
    [((3, 2, 2), "chw", False, "CHW"), ((2, 2), "WH", False, "WH"), ((4, 3, 2, 2), "NCHW", True, "NCHW"),
     ((4, 3, 2, 2), "CHW", True, "NCHW"), ((4, 2, 2), "HW", True, "NHW"), ((4, 3, 2, 2), "NCHW", False, "NCHW")],
)  # fmt: skip
def test_a_picture_gets_its_layout(shape: tuple[int, ...], layout: str, batched: bool, expected: str) -> None:
    array = np.zeros(shape, np.uint8)
    assert image_attrs(snapshot(array, "p"), layout, batched) == {"dataformats": expected}
    pixels_of(array, expected)


@pytest.mark.parametrize(
    ("shape", "layout", "message"),
    [((2, 2), "CHW", "'HW'"), ((28, 28, 3), "HW", "'HWC'"), ((28, 28, 3), "CHW", "28 channels"),
     ((3, 0, 2), "CHW", "no"),
     ((2, 2), "HX", "'CHW'"), ((2, 2), "HH", "'CHW'")],
)  # fmt: skip
def test_a_wrong_shape_or_layout_raises_and_says_what_is_right(shape: Any, layout: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image_attrs(snapshot(np.zeros(shape, np.uint8), "p"), layout, False)


def test_a_layout_that_is_no_text_and_complex_pixels_raise_type_error() -> None:
    with pytest.raises(TypeError):
        image_attrs(snapshot(np.zeros((2, 2)), "p"), 3, False)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        image_attrs(snapshot(np.zeros((2, 2), complex), "p"), "HW", False)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 5), max_size=5), st.text("nchwNCHWx", max_size=5), st.booleans())
def test_a_picture_that_the_client_lets_pass_can_be_encoded(shape: list[int], layout: str, batched: bool) -> None:
    array = np.zeros(shape, np.uint8)
    try:
        attrs = image_attrs(snapshot(array, "p"), layout, batched)
    except ValueError:
        return
    png(pixels_of(array, attrs["dataformats"]))


def test_a_figure_has_tensorboardxs_pixels_and_keeps_its_canvas() -> None:
    figure_module = pytest.importorskip("matplotlib.figure")
    from tensorboardX.utils import figure_to_image

    figure = figure_module.Figure(figsize=(2, 1))
    figure.subplots().plot([1, 3, 2])
    canvas = figure.canvas
    ours = widened(figure_to_array(figure, close=False))
    assert figure.canvas is canvas
    assert (ours == figure_to_image(figure, close=False).transpose(1, 2, 0)).all()


def test_a_list_of_figures_is_padded_to_one_size_with_white() -> None:
    figure_module = pytest.importorskip("matplotlib.figure")
    figures = [figure_module.Figure(figsize=size, facecolor="black") for size in ((1, 1), (2, 0.5))]
    pixels = widened(figure_to_array(figures, close=True))
    assert pixels.shape == (2, 100, 200, 3)
    assert (pixels[0, :, 100:] == 255).all()
    assert (pixels[1, 50:] == 255).all()
    assert (pixels[1, :50] == 0).all()


def test_a_figure_is_closed_only_where_pyplot_knows_it() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    kept, closed = pyplot.figure(figsize=(1, 1)), pyplot.figure(figsize=(1, 1))
    figure_to_array(closed, close=True)
    figure_to_array(kept, close=False)
    assert pyplot.fignum_exists(kept.number)
    assert not pyplot.fignum_exists(closed.number)
    assert pyplot.gcf() is kept
    pyplot.close(kept)


@pytest.mark.parametrize("figure", [None, "fig", [1]])
def test_what_is_no_figure_raises_type_error(figure: Any) -> None:
    with pytest.raises(TypeError, match="Figure"):
        figure_to_array(figure, close=True)


def test_an_empty_list_of_figures_raises_value_error() -> None:
    with pytest.raises(ValueError, match="empty"):
        figure_to_array([], close=True)
