"""What the client has counted of an array says the same as the array, however it is cut and merged."""

from __future__ import annotations

import itertools
import math
import sys
import types
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tbxd.encode import Refused
from tbxd.encode.histogram import encode_together
from tbxd_client.protocol.kinds import HISTOGRAM
from tbxd_client.protocol.records import Record, TagDefinition
from tbxd_client.statistics.distribution import Distribution
from tbxd_client.statistics.moments import BLOCK, Moments, Scratch, add_partial, total
from tbxd_client.values.arrays import Array, snapshot
from tbxd_client.values.counted import RULE_NUMBERS_MAX, counted, described
from tbxd_client.values.numbers import Numbers, strided_blocks

TAG = TagDefinition(0, 0, "weights")
DTYPES = ["?", "i1", "<i2", "<i4", "<i8", "u1", "<u2", "<u8", "<f2", "<f4", "<f8"]
RULES = ["auto", "fd", "doane", "scott", "stone", "rice", "sturges", "sqrt"]


def record(arrays: Any, attrs: dict[str, Any]) -> Record:
    """The record as it reaches the daemon."""
    if isinstance(arrays, Array):
        return Record(
            HISTOGRAM, 0, 0, 0.0, {"dtype": arrays.dtype, "shape": list(arrays.shape), **attrs}, bytes(arrays.data)
        )
    described = [[name, array.dtype, list(array.shape)] for name, array in arrays.items()]
    payload = b"".join(bytes(array.data) for array in arrays.values())
    return Record(HISTOGRAM, 0, 0, 0.0, {"arrays": described, **attrs}, payload)


def copied(values: Any, bins: Any = "tensorflow", max_bins: int | None = None) -> Record:
    """A record with the numbers."""
    attrs = {"bins": bins} if max_bins is None else {"bins": bins, "max_bins": max_bins}
    return record(snapshot(values, "w"), attrs)


def reduced(values: Any, bins: Any = "tensorflow", max_bins: int | None = None, merges: bool = False) -> Record:
    """A record with what was counted of them."""
    attrs = {"bins": bins} if max_bins is None else {"bins": bins, "max_bins": max_bins}
    found = counted(Numbers(values, "w"), bins, merges, "w")
    assert found is not None
    return record(found[0], {**attrs, "moments": described(found[1])})


def written(records: list[Record]) -> Any:
    """The histogram in the event file, or why there is none."""
    try:
        (value,) = encode_together(records, TAG)
    except Refused as refused:
        return refused.reason
    return value.histo


def same(one: Any, other: Any, magnitude: float = 0.0) -> None:
    """Two histograms are equal, but for the last bits of sums that were added up in another order."""
    if isinstance(one, str) or isinstance(other, str):
        assert one == other
        return
    assert list(one.bucket) == list(other.bucket) and list(one.bucket_limit) == list(other.bucket_limit)
    assert (one.min, one.max, one.num) == (other.min, other.max, other.num)
    assert one.sum == other.sum or abs(one.sum - other.sum) <= 1e-12 * magnitude
    assert one.sum_squares == pytest.approx(other.sum_squares, rel=1e-12, abs=0)


def magnitude(values: Any) -> float:
    wide = np.asarray(values).astype(float).reshape(-1)
    return float(np.abs(wide[np.isfinite(wide)]).sum())


def arrays_of(dtype: str) -> st.SearchStrategy[Any]:
    return hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=12))


@given(st.sampled_from(DTYPES).flatmap(arrays_of), st.none() | st.integers(1, 2000))
def test_what_was_counted_of_any_array_makes_its_histogram(values: Any, max_bins: int | None) -> None:
    same(
        written([reduced(values, max_bins=max_bins)]),
        written([copied(values, max_bins=max_bins)]),
        magnitude(values),
    )


@given(
    hnp.arrays("<f4", st.integers(0, 60), elements=st.floats(-1024, 1024, width=16) | st.just(math.nan)),
    st.sampled_from(RULES) | st.integers(1, 100) | st.lists(st.floats(-9, 9), min_size=2, max_size=9).map(sorted),
    st.none() | st.integers(1, 10),
)
def test_so_it_is_with_numpys_bins(values: Any, bins: Any, max_bins: int | None) -> None:
    same(written([reduced(values, bins, max_bins)]), written([copied(values, bins, max_bins)]), magnitude(values))


@given(st.sampled_from(DTYPES).flatmap(arrays_of), st.data())
def test_parts_merge_to_the_whole_in_any_order_and_form(values: Any, data: Any) -> None:
    flat = values.reshape(-1)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(flat)), max_size=4)))
    parts = [flat[a:b] for a, b in itertools.pairwise([0, *cuts, len(flat)])]
    forms = data.draw(st.lists(st.booleans(), min_size=len(parts), max_size=len(parts)))
    records = [reduced(part) if form else copied(part) for part, form in zip(parts, forms, strict=True)]
    first = written(records)
    same(first, written([copied(flat)]), magnitude(values))
    again = written(data.draw(st.permutations(records)))
    if not isinstance(first, str) and all(forms):
        assert again == first  # to the last bit: what is added up is not rounded on the way
    same(again, first, magnitude(values))


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<f2", "<u2", "u1"])
@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
def test_large_arrays_of_every_type_are_counted_as_small_ones(dtype: str, size: int) -> None:
    values = (np.random.default_rng(size).standard_normal(size) * 100).astype(dtype)
    same(written([reduced(values)]), written([copied(values)]), magnitude(values))
    if dtype[1] == "f":
        values[size // 2 : size // 2 + 5] = [math.nan, math.inf, -math.inf, 0.0, -0.0]
        one = reduced(values)
        same(written([one]), written([copied(values)]), magnitude(values))
        assert one.attrs["moments"][:5] == [size - 3, 1, 1, 1, int((values == 0).sum())]


def test_zeros_and_what_is_not_finite_are_counted_in_every_type() -> None:
    odd = [0.0, -0.0, 0.0, 1e-30, math.nan, math.inf, -math.inf, -math.inf, 5.0]
    for dtype, size in itertools.product(("<f2", "<f4", "<f8"), (1, 5000)):
        values = np.array(odd * size, dtype)
        zeros = int((values == 0).sum())
        assert reduced(values).attrs["moments"][:5] == [5 * size, size, 2 * size, size, zeros]


@given(
    hnp.array_shapes(min_dims=1, max_dims=4, max_side=9).flatmap(
        lambda shape: hnp.arrays("<i4", shape, elements=st.integers(-99, 99))
    ),
    st.data(),
)
def test_blocks_hold_each_element_of_any_view_once(values: Any, data: Any) -> None:
    view = values.transpose(data.draw(st.permutations(range(values.ndim))))
    for axis in range(view.ndim):
        step = data.draw(st.sampled_from([1, 1, 2, -1, -2]))
        view = view[(slice(None),) * axis + (slice(None, None, step),)]
    if data.draw(st.booleans()):
        view = np.broadcast_to(view, (3, *view.shape))
    assert sorted(itertools.chain.from_iterable(block.tolist() for block in strided_blocks(view))) == sorted(
        view.reshape(-1).tolist()
    )


def test_what_does_not_lie_side_by_side_is_read_in_blocks() -> None:
    values = np.arange(6 * BLOCK, dtype="<f4").reshape(2, -1, 3)
    for view in (values[:, :, 1], values.T, values[:, ::2], values[1], np.broadcast_to(values[0, 0, 0], (3 * BLOCK,))):
        blocks = list(strided_blocks(view))
        assert max(map(len, blocks)) <= BLOCK and sum(map(len, blocks)) == view.size
        same(written([reduced(view)]), written([copied(view)]), magnitude(view))
    assert all(block.base is not None for block in strided_blocks(values.T))  # nothing is copied


def test_tensors_of_every_type_and_layout_are_counted_as_they_are_copied() -> None:
    torch = pytest.importorskip("torch")
    plain = torch.randn(300, 70, requires_grad=True)
    narrow = [torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.uint8, torch.int64, torch.bool]
    narrow += [getattr(torch, name) for name in ("float8_e4m3fn", "float8_e5m2", "uint16") if hasattr(torch, name)]
    many = [plain, plain.t(), plain[::3, 1::2], plain.detach().to_sparse(), torch.nn.Parameter(plain.detach().clone())]
    many += [(plain.detach() * 3).to(dtype) for dtype in narrow] + [torch.tensor(2.0), torch.zeros(0)]
    many += [plain.detach().to(torch.bfloat16).t()[::2]]
    for tensor in many:
        values = tensor.detach().to_dense().to(torch.float64).numpy()
        same(written([reduced(tensor)]), written([copied(tensor)]), magnitude(values))
    same(written([reduced(torch.complex(plain, plain))]), written([copied(plain)]), magnitude(plain.detach().numpy()))


def test_what_would_never_end_is_not_read() -> None:
    torch = pytest.importorskip("torch")
    for values in (np.broadcast_to(1.0, (1 << 50,)), torch.zeros(1).expand(1 << 50),
                   torch.sparse_coo_tensor(size=(1 << 30, 1 << 20))):  # fmt: skip
        for bins in ("tensorflow", 10):
            assert counted(Numbers(values, "w"), bins, False, "w") is None


def test_arrays_of_unusual_types_are_counted_as_they_are_copied() -> None:
    base = np.random.default_rng(0).standard_normal(500)
    many = [base.astype(">f4"), base.astype(np.longdouble), base.astype(object), base.tolist(), base.astype("<c8")]
    many += [np.ma.masked_greater(base, 1.0), np.array(7), (base * 9).astype(">i8")]
    for values in many:
        plain = values.real if isinstance(values, np.ndarray) and values.dtype.kind == "c" else values
        same(written([reduced(values)]), written([copied(plain)]), 1e3)
    with pytest.raises(TypeError):
        reduced(np.array(["a", "b"]))


def test_bins_that_hang_on_all_numbers_are_tensorflows_where_ranks_share_them(capfd: Any) -> None:
    values = np.random.default_rng(2).standard_normal(1000)
    same(written([reduced(values[:500], 10, merges=True), reduced(values[500:], 10, merges=True)]),
         written([copied(values)]), magnitude(values))  # fmt: skip
    edges = [-1.0, 0.0, 0.5]
    same(written([reduced(values[:500], edges, merges=True), copied(values[500:], edges)]),
         written([copied(values, edges)]), magnitude(values))  # fmt: skip
    assert "those of TensorFlow" in capfd.readouterr().err
    assert written([reduced(values, 10), reduced(values, 11)]) == "bad_bins"


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), max_size=40), st.randoms())
@settings(max_examples=200)
def test_partial_sums_are_rounded_once_at_the_end(numbers: list[float], random: Any) -> None:
    partials: list[float] = []
    for number in numbers:
        add_partial(partials, number)
    try:
        exact = math.fsum(numbers)
    except OverflowError:
        return
    if all(map(math.isfinite, partials)):
        assert total(partials) == exact and len(partials) <= 64
    random.shuffle(numbers)
    again: list[float] = []
    for number in numbers:
        add_partial(again, number)
    assert not all(map(math.isfinite, again + partials)) or total(again) == total(partials)


def test_distributions_merge_to_that_of_all_numbers() -> None:
    values = np.random.default_rng(5).standard_normal(3 * BLOCK)
    whole, merged = Distribution(), Distribution()
    whole.add(strided_blocks(values), values.dtype, values.size)
    for part in (values[2 * BLOCK :], values[: 2 * BLOCK]):
        one = Distribution()
        one.add(strided_blocks(part), part.dtype, part.size)
        merged.merge(one)
    assert merged.places.tolist() == whole.places.tolist()
    names = Moments.__slots__
    assert [getattr(merged.moments, name) for name in names if name not in ("sums", "squares")] == [
        getattr(whole.moments, name) for name in names if name not in ("sums", "squares")
    ]
    assert (merged.moments.sum, merged.moments.sum_squares) == (whole.moments.sum, whole.moments.sum_squares)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=9),
)


@given(
    st.lists(VALUES, min_size=9, max_size=9) | VALUES,
    st.sampled_from([["places", "counts"], ["limits", "counts"], ["counts"], ["places"], []]),
    st.sampled_from(["<u2", "<u8", "<f8", "<i8"]),
    st.binary(max_size=64),
)
def test_nonsense_is_refused_and_never_fails(moments: Any, names: list[str], dtype: str, payload: bytes) -> None:
    size = int(dtype[2])
    count = len(payload) // size // max(1, len(names))
    described = [[name, dtype, [count]] for name in names]
    one = Record(HISTOGRAM, 0, 0, 0.0, {"arrays": described, "moments": moments}, payload[: count * size * len(names)])
    for records in ([one], [one, copied(np.arange(5.0))], [copied(np.arange(5.0)), one, one]):
        result = written(records)
        assert not isinstance(result, str) or result in ("bad_record", "bad_bins", "no_finite_values")


def test_a_record_that_contradicts_itself_is_refused() -> None:
    good = reduced(np.arange(100.0))
    moments = good.attrs["moments"]
    for place, value in (
        (0, 99),
        (0, -1),
        (0, True),
        (5, math.nan),
        (5, 200.0),
        (6, math.inf),
        (7, [1]),
        (8, [0.0] * 99),
    ):
        bad = [*moments[:place], value, *moments[place + 1 :]]
        record = Record(HISTOGRAM, 0, 0, 0.0, {**good.attrs, "moments": bad}, good.payload)
        assert written([record]) == "bad_record", (place, value)


def test_parts_that_claim_more_numbers_than_a_count_holds_are_refused() -> None:
    """Their counts would be negative in the event file."""
    most = 2**63 - 1
    moments = [most, 0, 0, 0, 0, 0.0, 1.0, [1.0], [1.0]]
    for name, numbers in (("places", np.array([5], "<u2")), ("limits", np.array([0.0, 1.0]))):
        counts = np.array([most], "<u8")
        described = [[name, numbers.dtype.str, list(numbers.shape)], ["counts", "<u8", [1]]]
        payload = numbers.tobytes() + counts.tobytes()
        one = Record(HISTOGRAM, 0, 0, 0.0, {"arrays": described, "moments": moments}, payload)
        assert written([one]).num == float(most)
        assert written([one, one]) == "bad_record"


class _Changing(np.ndarray[Any, Any]):
    """An array that another thread fills anew between any two looks at it."""

    def min(self, *args: Any, **kwargs: Any) -> Any:
        result = super().min(*args, **kwargs)
        self[:] = 3
        return result


def test_an_array_that_another_thread_fills_meanwhile_has_extremes_all_the_same() -> None:
    """A minimum above the maximum, or one that is not finite, would be refused by the daemon."""
    for late in (3.0, math.nan, math.inf, -math.inf):
        block = np.full(1000, 5, np.float32).view(_Changing)
        if late != 3.0:
            block.max = lambda late=late: late  # type: ignore[method-assign]
        moments = Moments()
        moments.take(block, Scratch(1000))
        assert (moments.num, moments.min, moments.max, moments.sum) == (1000, 5.0, 5.0, 5000.0)


@pytest.mark.parametrize("bins", ["tensorflow", *RULES, 10, [-1.0, 0.0, 1.0]])
def test_a_program_that_has_numpy_raise_for_rounding_is_not_ended(bins: Any) -> None:
    """Nor one that makes errors of warnings."""
    many = [np.linspace(0, 1e-320, 1000), np.full(1000, 1e-310), np.array([math.nan, math.inf, *[1e200] * 9, -1e200])]
    with np.errstate(all="raise"), warnings.catch_warnings():
        warnings.simplefilter("error")
        for values in many:
            assert counted(Numbers(values, "w"), bins, False, "w") is not None


def test_a_rule_that_would_hold_many_numbers_at_once_is_left_to_the_daemon() -> None:
    """As float64 they take eight times the memory of int8: the trainer may not have it."""
    values = np.zeros(RULE_NUMBERS_MAX + 1, np.int8)
    assert counted(Numbers(values, "w"), "sqrt", False, "w") is None
    assert counted(Numbers(values, "w"), 10, False, "w") is not None
    assert counted(Numbers(values, "w"), "tensorflow", False, "w") is not None


def test_tensors_are_read_without_an_operation_that_a_mode_of_torch_sees() -> None:
    """What a mode raises of its own is a TypeError."""
    torch = pytest.importorskip("torch")
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode

    seen = []

    class Watch(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(function)
            return function(*args, **(kwargs or {}))

    plain, learned = torch.ones(300), torch.nn.Parameter(torch.ones(300))
    with Watch():
        snapshot(plain, "w")
        before = len(seen)
        assert reduced(plain).attrs["moments"][0] == 300
    assert len(seen) == 2 * before
    with FakeTensorMode():
        for tensor in (plain, learned):
            with pytest.raises(TypeError, match="cannot be read"):
                reduced(tensor)


def test_what_torch_cannot_compute_with_is_a_type_error() -> None:
    torch = pytest.importorskip("torch")
    raw = torch.zeros(4096, dtype=torch.uint8)
    for name in ("float4_e2m1fn_x2", "float8_e8m0fnu", "uint4", "bits8"):
        if hasattr(torch, name):
            try:
                counted(Numbers(raw.view(getattr(torch, name)), "w"), "tensorflow", False, "w")
            except TypeError as error:
                assert "cannot be read" in str(error)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_sizes_of_tensors_are_numbers_also_in_a_trace() -> None:
    """There torch says how many elements a tensor has with a tensor, which would stay in the budget for copies."""
    torch = pytest.importorskip("torch")
    kinds = set()

    def forward(values: Any) -> Any:
        numbers = Numbers(values, "w")
        kinds.update((type(numbers.count), type(numbers.nbytes)))
        return values * 2

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(forward, torch.ones(5), check_trace=False)
    assert kinds == {int}


def test_a_torch_that_another_thread_is_importing_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its module is there then, and its classes are not."""
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    for values in ([1.0, 2.0], np.ma.array([1.0]), np.ones(9)):
        assert reduced(values).attrs["moments"][0] > 0


def test_a_tensor_whose_memory_is_freed_is_not_read() -> None:
    """The second has an address in the first page: to read it ends the process."""
    torch = pytest.importorskip("torch")
    for tensor in (torch.ones(1 << 16), torch.ones(1 << 16)[3:], torch.nn.Parameter(torch.ones(9))):
        tensor.untyped_storage().resize_(0)
        with pytest.raises(TypeError, match="freed"):
            snapshot(tensor, "w")
        with pytest.raises(TypeError, match="freed"):
            counted(Numbers(tensor, "w"), "tensorflow", False, "w")


@pytest.mark.parametrize("bins", [*RULES, 10, [-1.0, 0.0, 9.0]])
def test_an_array_that_another_thread_fills_between_two_looks_makes_no_nonsense(
    bins: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numpy's bins take two looks at an array: what is finite at one of them need not be at the other."""
    for first, then in ((1.0, math.nan), (math.nan, 1.0)):
        values = np.full(1000, first)
        values[:500] = np.linspace(0.0, 2.0, 500) if first == 1.0 else 1.0
        looks = []

        def parts(numbers: Numbers, values: Any = values, looks: list[int] = looks, then: float = then) -> Any:
            if looks:
                values[:] = then
            looks.append(1)
            yield values

        monkeypatch.setattr("tbxd_client.values.counted._parts", parts)
        result = written([reduced(values, bins)])
        assert result == "bad_bins" if math.isnan(then) else result.num == 1000


def test_a_part_without_a_finite_number_leaves_the_others_their_bins() -> None:
    """One rank's numbers are all NaN; where each has given the same edges, the others' histogram is written."""
    edges = [-1.0, 0.0, 1.0]
    nothing, some = np.full(100, math.nan), np.linspace(-0.9, 0.9, 100)
    wanted = written([copied(nothing, edges), copied(some, edges)])
    for parts in itertools.product((copied, reduced), repeat=2):
        for order in ((nothing, some), (some, nothing)):
            records = [part(values, edges) for part, values in zip(parts, order, strict=True)]
            same(written(records), wanted, 1.0)
    assert written([reduced(nothing, edges), copied(nothing, edges)]) == "no_finite_values"


def test_a_tensor_that_has_no_values_is_refused_and_not_logged_with_any_bytes() -> None:
    """Numpy is given no address for it then, and takes memory of its own."""
    torch = pytest.importorskip("torch")
    from torch._subclasses.fake_tensor import FakeTensorMode

    plain, refused = torch.ones(1 << 16), []

    def forward(tensor: Any) -> Any:
        for read in (lambda: snapshot(tensor, "w"), lambda: reduced(tensor)):
            with pytest.raises(TypeError, match="no memory"):
                read()
            refused.append(read)
        return tensor.sum()

    torch.func.functionalize(forward)(plain)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for dtype in (torch.float32, torch.bfloat16):
            with pytest.raises(TypeError):
                snapshot(plain.to(dtype), "w")
    assert len(refused) == 2
