"""Histograms are those of tensorboardX, bucket for bucket."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorboardX.summary import make_histogram
from tensorboardX.writer import SummaryWriter

from harness import World, events, wait_for
from tbxd.encode import Refused
from tbxd.encode.histogram import histogram_of
from tbxd_client.protocol.limits import BINS_MAX
from tbxd_client.statistics.moments import BLOCK
from tbxd_client.statistics.tensorflow_bins import tensorflow_edges
from tbxd_client.values.media import histogram_attrs

EDGES = SummaryWriter(write_to_disk=False).default_bins
DTYPES = ["?", "i1", "<i4", "<i8", "u1", "<u8", "<f2", "<f4", "<f8"]


def same(array: Any, bins: Any = "tensorflow", max_bins: int | None = None) -> None:
    """The histogram of an array is that of tensorboardX for its finite numbers."""
    array = np.asarray(array)
    ours = histogram_of(array, bins, max_bins)
    values = array.astype(float).reshape(-1)
    values = values[np.isfinite(values)]
    with np.errstate(all="ignore"):
        theirs = make_histogram(values, EDGES if bins == "tensorflow" else bins, max_bins)
    known = ours.statistics
    assert ours.limits.tolist() == list(theirs.bucket_limit)
    assert ours.counts.tolist() == list(theirs.bucket)
    assert (known.min, known.max, known.num) == (theirs.min, theirs.max, theirs.num)
    assert known.left_out == array.size - len(values)
    magnitude = float(np.abs(values).sum())
    assert known.sum == theirs.sum or abs(known.sum - theirs.sum) <= 1e-12 * magnitude
    assert known.sum_squares == pytest.approx(theirs.sum_squares, rel=1e-12, abs=0)


def test_the_edges_are_those_of_tensorboardx() -> None:
    assert tensorflow_edges().tolist() == [float(edge) for edge in EDGES]


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
@pytest.mark.parametrize("toward", [-math.inf, None, math.inf])
def test_numbers_on_edges_and_beside_them_are_in_the_right_bins(dtype: str, toward: float | None) -> None:
    numbers = tensorflow_edges().astype(dtype)
    same(numbers if toward is None else np.nextafter(numbers, np.dtype(dtype).type(toward)))


def test_the_numbers_at_the_ends_of_every_cell_are_in_the_right_bins() -> None:
    bits = np.arange(1 << 16, dtype=np.uint32) << 16
    numbers = np.concatenate([bits, bits | 0xFFFF]).view("<f4")
    same(numbers)
    wide = numbers[np.isfinite(numbers)].astype(float)
    same(np.nextafter(wide, math.inf))
    same(np.nextafter(wide, -math.inf))


@given(
    st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, st.integers(1, 50))),
    st.none() | st.integers(1, 2000),
)
def test_any_numbers_of_any_type_have_the_same_histogram(numbers: Any, max_bins: int | None) -> None:
    inside = np.append(numbers, numbers.dtype.type(1))  # tensorboardX raises where all are outside the bins
    same(inside, "tensorflow", max_bins)


@given(
    hnp.arrays("<f8", st.integers(1, 60), elements=st.floats(-1024, 1024, width=16)),
    st.sampled_from(["auto", "doane", "rice", "sturges", "sqrt"]) | st.integers(1, 100),
    st.none() | st.integers(1, 10),
)
def test_numpys_bins_are_the_same(numbers: Any, bins: str | int, max_bins: int | None) -> None:
    try:
        make_histogram(numbers, bins, max_bins)
    except ValueError:  # numpy's: too many bins for numbers so close together
        with pytest.raises(Refused):
            histogram_of(numbers, bins, max_bins)
    else:
        same(numbers, bins, max_bins)


@pytest.mark.parametrize("bins", ["auto", "fd", "doane", "scott", "stone", "rice", "sturges", "sqrt", 1, 64])
@pytest.mark.parametrize("max_bins", [None, 7])
def test_every_rule_of_numpy_gives_the_same_histogram(bins: Any, max_bins: int | None) -> None:
    same(np.random.default_rng(0).standard_normal(3000).astype("<f4"), bins, max_bins)


def test_edges_of_ones_own_are_kept() -> None:
    numbers = np.random.default_rng(1).standard_normal(5000)
    same(numbers, [-1.0, 0.0, 0.0, 0.5, 2.0])
    same([0.0, 1.0, 2.0, 3.0], [0, 1, 2])


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 1_000_003])
def test_arrays_of_any_size_have_the_same_histogram(size: int) -> None:
    numbers = np.random.default_rng(size).standard_normal(size)
    same(numbers)
    same(numbers.astype("<f4"))
    same(numbers, 50)


@pytest.mark.parametrize(
    "numbers", [[0.0], [-0.0], [1e-300, -1e-300], [5.0] * 9, [1.0, 1e300, -1e300], [True, False], [1e19, -1e19]]
)
def test_peculiar_numbers_have_the_same_histogram(numbers: list[Any]) -> None:
    same(np.array(numbers))


def test_what_is_not_finite_is_left_out_and_counted() -> None:
    same([1.0, math.nan, math.inf, -math.inf, 2.0])
    same(np.array([1.0, math.nan, 2.0], "<f2"), 10)
    assert histogram_of(np.array([1.0, math.nan, math.inf])).statistics.left_out == 2


@pytest.mark.parametrize("bins", ["tensorflow", "auto", 10, [0.0, 1.0]])
@pytest.mark.parametrize("numbers", [[], [math.nan], [math.inf, -math.inf]])
def test_without_finite_numbers_it_is_refused(numbers: list[float], bins: Any) -> None:
    with pytest.raises(Refused) as refused:
        histogram_of(np.array(numbers), bins)
    assert refused.value.reason == "no_finite_values"


@pytest.mark.parametrize(
    ("bins", "max_bins"),
    [("more", None), (0, None), (BINS_MAX + 1, None), (True, None), ([1.0], None), ([1.0, 0.0], None), (None, None),
     ([0.0, math.nan], None), (["a", "b"], None), ([0, 10**400], None), (1.5, None), ("auto", 0), ("auto", "x")],
)  # fmt: skip
def test_absurd_bins_are_refused(bins: Any, max_bins: Any) -> None:
    with pytest.raises(Refused) as refused:
        histogram_of(np.arange(5.0), bins, max_bins)
    assert refused.value.reason == "bad_bins"


@pytest.mark.parametrize(
    ("numbers", "bins"),
    [([1e25], "tensorflow"), ([-1.0, 5.0], [0.0, 1.0]), ([-1.7e308, 1.7e308], 10), ([0.0] * 4 + [1e-300, 1.0], "fd"),
     (np.append(np.linspace(0, 1e-9, 1000), 1e12), "fd"), (np.array([1.0, np.nextafter(1, 2)]), 1000)],
)  # fmt: skip
def test_numbers_that_their_bins_cannot_hold_are_refused_or_written_but_never_fail(numbers: Any, bins: Any) -> None:
    try:
        histogram_of(np.array(numbers), bins)
    except Refused as refused:
        assert refused.reason == "bad_bins"


def test_one_outlier_does_not_make_auto_take_all_memory() -> None:
    result = histogram_of(np.append(np.linspace(0, 1e-9, 1000), 1e12), "auto")
    assert result.counts.sum() == 1001


@pytest.mark.long
def test_of_complex_numbers_the_real_part_is_taken_and_that_is_said_once(place: World) -> None:
    """As both originals do: a loop over all parameters of a model is not ended by one that is complex."""
    script = """
        import numpy as np, torch
        from {} import SummaryWriter
        with SummaryWriter("logs/{}") as writer:
            for step in range(2):
                writer.add_histogram("torch", torch.fft.fft(torch.arange(8.0)), step)
                writer.add_histogram("numpy", np.array([1 + 2j, -3j]), step)
    """
    ours = place.run(script.format("tbxd_client", "ours"))
    assert ours.returncode == 0 and ours.stderr.count("complex") == 1, ours.stderr
    assert place.run(script.format("tensorboardX", "theirs")).returncode == 0
    wait_for(place.drained, "the journal")
    found = {}
    for name in ("ours", "theirs"):
        values = [value for event in events(place.logdir / name) for value in event.summary.value]
        found[name] = [(value.tag, value.histo.sum, value.histo.num, list(value.histo.bucket)) for value in values]
    assert found["ours"] == found["theirs"] and len(found["ours"]) == 4


def test_complex_numbers_are_refused() -> None:
    with pytest.raises(Refused):
        histogram_of(np.array([1j]))


@settings(max_examples=50)
@given(st.sampled_from(["auto", "stone"]) | st.integers(1, 50) | st.lists(st.integers(-5, 5), min_size=2).map(sorted))
def test_bins_that_the_client_lets_pass_are_good(bins: Any) -> None:
    array = np.append(np.arange(-6.0, 7.0), 0.5)
    attrs = histogram_attrs(bins, np.int64(5))
    try:
        histogram_of(array, **attrs)
    except Refused as refused:
        assert "no number is in any of the bins" in str(refused)


@pytest.mark.parametrize("bins", ["more", 0, BINS_MAX + 1, [1.0], [1.0, 0.0], [0.0, math.nan], [[1.0, 2.0]]])
def test_the_client_raises_value_error_for_bad_bins(bins: Any) -> None:
    with pytest.raises(ValueError, match="bins"):
        histogram_attrs(bins, None)


@pytest.mark.parametrize(("bins", "max_bins"), [(None, None), (10, 1.5), (10, "x"), ([1j, 2j], None), (["a"], None)])
def test_the_client_raises_type_error_for_what_is_no_bins(bins: Any, max_bins: Any) -> None:
    with pytest.raises(TypeError, match="bins"):
        histogram_attrs(bins, max_bins)
