"""Heat maps show every cell in the colour of its number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tbxd.encode import Refused
from tbxd.encode.heatmap import CELLS_MAX, HATCH, LONG_SIDE, Scale, colors, heatmap_of, pooled
from tbxd_client.protocol.limits import COLORMAPS, LABELS_MAX
from tbxd_client.values.arrays import snapshot
from tbxd_client.values.media import heatmap_attrs


def counted(pixels: Any) -> dict[tuple[int, ...], int]:
    """Return the number of pixels of each colour."""
    values, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    return {tuple(value): int(count) for value, count in zip(values.tolist(), counts, strict=True)}


@pytest.mark.parametrize("colormap", ["viridis", "magma", "coolwarm", "gray"])
def test_the_colours_are_those_of_matplotlib(colormap: str) -> None:
    colormaps = pytest.importorskip("matplotlib").colormaps
    theirs = np.rint(colormaps[colormap](np.linspace(0, 1, 256))[:, :3] * 255)
    assert np.abs(colors(colormap).astype(float) - theirs).max() <= 9


def test_each_cell_has_the_colour_of_its_number() -> None:
    pixels = counted(heatmap_of(np.array([[0.0, 1.0], [2.0, 3.0]]), "viridis"))
    for number in range(4):
        assert pixels[tuple(colors("viridis")[85 * number].tolist())] >= 128 * 128


@pytest.mark.parametrize("shape", [(10, 10), (32, 64), (1, 5), (300, 1), (1, 1), (2000, 700)])
def test_a_picture_is_neither_tiny_nor_huge(shape: tuple[int, int]) -> None:
    pixels = heatmap_of(np.arange(math.prod(shape), dtype=float).reshape(shape))
    assert 120 <= max(pixels.shape) <= LONG_SIDE + 150


@pytest.mark.parametrize("rows", [1, 7, 60, 5000])
def test_few_columns_do_not_make_a_picture_narrow(rows: int) -> None:
    height, width, _ = heatmap_of(np.arange(rows, dtype=float)[:, None]).shape
    assert height <= 1.5 * width


def test_labels_take_their_room() -> None:
    matrix = np.eye(10)
    labels = [f"class {number}" for number in range(10)]
    plain, labelled = heatmap_of(matrix), heatmap_of(matrix, row_labels=labels, column_labels=labels)
    assert labelled.shape[0] > plain.shape[0]
    assert labelled.shape[1] > plain.shape[1]


def test_what_is_not_finite_is_hatched_and_nothing_else() -> None:
    hatch = {tuple(color) for color in HATCH.tolist()}
    matrix = np.array([[0.0, math.nan], [math.inf, 1.0]])
    assert hatch <= counted(heatmap_of(matrix)).keys()
    finite = counted(heatmap_of(np.nan_to_num(matrix, posinf=1.0)))
    assert sum(finite.get(color, 0) for color in hatch) < 50, "no more than the soft edges of letters"
    assert hatch <= counted(heatmap_of(np.full((3, 3), math.nan))).keys()


def test_the_ends_of_the_scale_can_be_fixed() -> None:
    low = heatmap_of(np.array([[5.0, 6.0]]), vmin=0, vmax=100)
    assert counted(low)[tuple(colors("viridis")[13].tolist())] >= 128 * 128  # 5 of 100
    beyond = counted(heatmap_of(np.array([[5.0, 6.0]]), vmax=1))
    assert beyond[tuple(colors("viridis")[255].tolist())] >= 2 * 128 * 128


def test_a_large_matrix_is_the_means_of_its_parts() -> None:
    matrix = np.random.default_rng(0).random((2 * CELLS_MAX, 3 * CELLS_MAX))
    matrix[0, 0] = math.nan
    expected = np.nanmean(matrix.reshape(CELLS_MAX, 2, CELLS_MAX, 3), axis=(1, 3))
    assert np.allclose(pooled(matrix), expected, rtol=1e-12, atol=0)
    assert pooled(np.full((1, 1000), math.nan)).shape == (1, CELLS_MAX)
    assert pooled(np.ones((700, 513), np.float16)).tolist() == np.ones((512, 512)).tolist()


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [(0, 1, ["0", "0.2", "0.4", "0.6", "0.8", "1"]), (0, 100, ["0", "20", "40", "60", "80", "100"]),
     (-1, 1, ["-1", "-0.5", "0", "0.5", "1"]),
     (12.0, 12.0005, ["12", "12.0001", "12.0002", "12.0003", "12.0004", "12.0005"]),
     (0.1, 0.1, ["0.1"]), (0, 1e-9, ["0", "2e-10", "4e-10", "6e-10", "8e-10", "1e-09"])],
)  # fmt: skip
def test_the_scale_has_round_numbers(low: float, high: float, texts: list[str]) -> None:
    assert [text for _, text in Scale(low, high).ticks()] == texts


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300))
def test_every_scale_has_a_few_numbers_within_its_ends(one: float, other: float) -> None:
    scale = Scale(min(one, other), max(one, other))
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 7
    for number, text in ticks:
        slack = 1e-9 * (abs(scale.low) + abs(scale.high)) + 1e-3 * (scale.high - scale.low)
        assert scale.low - slack <= number <= scale.high + slack
        assert math.isclose(float(text), number, rel_tol=1e-4, abs_tol=slack)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(st.sampled_from(["<f8", "<f2", "<i8", "?"]), hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)),
    st.sampled_from(COLORMAPS),
    st.none() | st.floats(-10, 10),
    st.none() | st.floats(-10, 10),
)
def test_any_matrix_can_be_drawn(matrix: Any, colormap: str, vmin: float | None, vmax: float | None) -> None:
    try:
        pixels = heatmap_of(matrix, colormap, vmin, vmax)
    except Refused:
        assert vmin is not None
        assert vmax is not None
        assert vmin > vmax
    else:
        assert pixels.dtype == np.uint8
        assert pixels.shape[2] == 3


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(), max_size=40), min_size=3, max_size=3))
def test_any_text_can_be_a_label(labels: list[str]) -> None:
    attrs = heatmap_attrs(snapshot(np.eye(3), "m"), "gray", None, None, labels, None)
    heatmap_of(np.eye(3), row_labels=attrs["row_labels"], column_labels=labels)


@pytest.mark.parametrize("shape", [(3,), (0, 3), (1, 1, 1), ()])
def test_what_has_not_two_axes_is_refused_on_both_sides(shape: tuple[int, ...]) -> None:
    with pytest.raises(Refused):
        heatmap_of(np.zeros(shape))
    with pytest.raises(ValueError, match="heat map"):
        heatmap_attrs(snapshot(np.zeros(shape), "m"), "gray", None, None, None, None)


def test_a_matrix_that_is_too_large_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        heatmap_of(np.broadcast_to(np.uint8(0), (1 << 14, 1 << 14)))
    assert refused.value.reason == "too_large"


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"colormap": "jet"}, "viridis"), ({"vmin": math.nan}, "finite"), ({"vmin": 2, "vmax": 1}, "greater"),
     ({"row_labels": ["a"]}, "1 texts for 2 rows"), ({"column_labels": ["a", "b"]}, "2 texts for 3 columns")],
)  # fmt: skip
def test_wrong_arguments_raise_and_say_what_is_right(changes: dict[str, Any], message: str) -> None:
    arguments = {"colormap": "gray", "vmin": None, "vmax": None, "row_labels": None, "column_labels": None} | changes
    with pytest.raises(ValueError, match=message):
        heatmap_attrs(snapshot(np.zeros((2, 3)), "m"), **arguments)


def test_there_may_be_only_so_many_labels() -> None:
    with pytest.raises(ValueError, match="at most"):
        heatmap_attrs(snapshot(np.zeros((LABELS_MAX + 1, 1)), "m"), "gray", None, None, range(LABELS_MAX + 1), None)


@pytest.mark.parametrize("least", [5e-324, 1e-323, 1e-310])
def test_numbers_next_to_the_least_of_float64_have_a_scale(least: float) -> None:
    assert Scale(0.0, least).parts(np.array([[0.0, least]])).tolist() == [[0.0, 1.0]]
    assert heatmap_of(np.array([[0.0, least]])).shape
