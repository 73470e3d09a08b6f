"""Whatever users pass becomes the same bytes that numpy would make of it."""

from __future__ import annotations

import subprocess
import sys
from array import array
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tbxd_client.protocol.limits import DIMENSIONS_MAX
from tbxd_client.protocol.records import RECORD_BYTES_MAX, STEP_MAX, STEP_MIN
from tbxd_client.values.arrays import TooLarge, snapshot, to_float, to_step, widened

DTYPES = ["?", "i1", "<i2", "<i4", "<i8", "u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16", ">f4", ">i8"]


def check(value: Any, expected: Any) -> None:
    """A snapshot of ``value`` holds ``expected``."""
    result = snapshot(value, "test")
    expected = np.asarray(expected)
    assert result.dtype == expected.dtype.newbyteorder("<").str
    assert result.shape == expected.shape
    assert bytes(result.data) == expected.astype(expected.dtype.newbyteorder("<")).tobytes()
    assert len(result.data) == expected.nbytes


@given(
    st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0))),
    st.sampled_from(["as is", "transposed", "reversed", "strided", "read-only"]),
)
def test_any_numpy_array_is_taken_in_c_order_and_little_endian(numbers: Any, how: str) -> None:
    match how:
        case "transposed":
            numbers = numbers.T
        case "reversed" if numbers.ndim:
            numbers = numbers[::-1]
        case "strided" if numbers.ndim:
            numbers = numbers[..., ::2]
        case "read-only":
            numbers.flags.writeable = False
    check(numbers, numbers)


@pytest.mark.parametrize("make", [lambda: np.arange(12.0).reshape(3, 4), lambda: torch.arange(12.0).reshape(3, 4)])
def test_the_memory_of_a_contiguous_array_is_not_copied(make: Any) -> None:
    value = make()
    before = snapshot(value, "test")
    value[0, 0] = 99
    assert bytes(before.data) == bytes(snapshot(value, "test").data)


@pytest.mark.parametrize(
    "dtype",
    "float32 float64 float16 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool complex64 complex128".split(),  # noqa: SIM905
)
def test_a_tensor_is_as_its_numpy_array(dtype: str) -> None:
    tensor = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))
    check(tensor, tensor.numpy())
    check(tensor.T, tensor.numpy().T)


def test_bfloat16_keeps_its_bytes() -> None:
    tensor = torch.tensor([[1.5, -2.0, float("inf")]], dtype=torch.bfloat16, requires_grad=True)
    result = snapshot(tensor.T, "test")
    assert (result.dtype, result.shape, len(result.data)) == ("bfloat16", (3, 1), 6)
    assert widened(result).tolist() == [[1.5], [-2.0], [float("inf")]]


def test_tensors_of_every_sort_are_read() -> None:
    plain = torch.tensor([[1.0, 0.0], [0.0, -2.0]])
    check(torch.nn.Parameter(plain), plain.numpy())
    check(plain.clone().requires_grad_() * 1, plain.numpy())
    check(plain.to_sparse(), plain.numpy())
    check(plain.to(torch.float8_e4m3fn), plain.numpy())
    check(torch.quantize_per_tensor(plain, 0.5, 0, torch.qint8), plain.numpy())
    complexes = torch.tensor([1 + 2j])
    check(complexes.conj(), np.array([1 - 2j], np.complex64))
    check(complexes.conj().imag, np.array([-2], np.float32))
    check(plain[:0], np.zeros((0, 2), np.float32))


def test_a_tensor_without_values_raises_type_error() -> None:
    with pytest.raises(TypeError, match="weights: the values of this tensor"):
        snapshot(torch.empty(2, device="meta"), "weights")


def test_python_numbers_and_sequences_are_as_numpy_has_them() -> None:
    for value in (1, 1.5, True, 2 + 1j, [], [1, 2], (1, 2.5), [[1, 2], [3, 4]], [True, False], range(3), np.float32(2)):
        check(value, value)
    check(array("f", [1, 2]), np.array([1, 2], np.float32))
    check([Decimal("0.5"), Fraction(1, 4)], [0.5, 0.25])
    check([1 << 70, 1], [2.0**70, 1.0])


def test_lists_of_arrays_and_tensors_are_stacked() -> None:
    check([np.zeros(2, np.float32), np.ones(2, np.float32)], np.array([[0, 0], [1, 1]], np.float32))
    check([torch.zeros(2), torch.ones(2, requires_grad=True)], np.array([[0, 0], [1, 1]], np.float32))
    check((torch.tensor(1.0), 2.0), [1.0, 2.0])
    check([torch.ones(2, dtype=torch.bfloat16)] * 2, np.ones((2, 2), np.float32))


class _Foreign:
    """An array of another framework."""

    def __init__(self, numbers: Any, through: str) -> None:
        self._numbers = numbers
        if through == "array":
            self.__class__ = type("A", (_Foreign,), {"__array__": lambda self, dtype=None, copy=None: self._numbers})
        else:
            self.__class__ = type(
                "D",
                (_Foreign,),
                {
                    "__dlpack__": lambda self, **options: self._numbers.__dlpack__(**options),
                    "__dlpack_device__": lambda self: self._numbers.__dlpack_device__(),
                },
            )


@pytest.mark.parametrize("through", ["array", "dlpack"])
def test_arrays_of_other_frameworks_are_read(through: str) -> None:
    check(_Foreign(np.arange(3.0), through), np.arange(3.0))
    check([_Foreign(np.arange(3.0), through)] * 2, np.stack([np.arange(3.0)] * 2))


def test_bfloat16_of_another_framework_is_read_through_dlpack() -> None:
    foreign = _Foreign(torch.tensor([1.5, 2.5], dtype=torch.bfloat16), "dlpack")
    assert widened(snapshot(foreign, "test")).tolist() == [1.5, 2.5]


def test_arrays_of_jax_are_read() -> None:
    jnp = pytest.importorskip("jax.numpy")
    check(jnp.arange(6.0).reshape(2, 3).T, np.arange(6, dtype="f4").reshape(2, 3).T)
    check([jnp.ones(2), jnp.zeros(2)], np.array([[1, 1], [0, 0]], "f4"))
    check(jnp.array([True, False]), np.array([True, False]))
    check(jnp.zeros((0, 3), jnp.int8), np.zeros((0, 3), "i1"))
    bits = snapshot(jnp.array([[1.5, -2.0]], jnp.bfloat16), "test")
    assert (bits.dtype, bits.shape, widened(bits).tolist()) == ("bfloat16", (1, 2), [[1.5, -2.0]])
    for narrow in (jnp.float8_e4m3fn, jnp.float8_e5m2, jnp.int4):
        check(jnp.array([1.0, 2.0]).astype(narrow), np.array([1, 2], "f4"))
    assert (to_float(jnp.array([[0.5]]), "loss"), to_step(jnp.array(7))) == (0.5, 7)


def test_a_value_that_jax_only_traces_raises_type_error() -> None:
    jax = pytest.importorskip("jax")
    for read in (lambda x: snapshot(x, "loss"), lambda x: to_float(x, "loss"), to_step):
        with pytest.raises(TypeError, match=r"(?s)(loss|global_step): .*(racer|traced)"):
            jax.jit(lambda x, read=read: read(x) and x)(1.0)


def test_what_is_masked_is_nan_where_that_can_be() -> None:
    check(np.ma.array([1.0, 2.0, 3.0], mask=[0, 1, 0]), np.array([1.0, np.nan, 3.0]))
    check([np.ma.array([1.0, 2.0], mask=[0, 1])] * 2, np.array([[1.0, np.nan]] * 2))
    check(np.ma.array([1, 2, 3], mask=[0, 1, 0]), np.array([1, 2, 3]))
    check(np.ma.array([1.0, 2.0]), np.array([1.0, 2.0]))
    assert np.isnan(to_float(np.ma.masked, "loss")) and to_float(np.ma.array([2.5]), "loss") == 2.5


def test_objects_that_are_numbers_are_read_as_such() -> None:
    check(np.array([1, 2.5, True], object), np.array([1, 2.5, 1]))
    check(np.array([[1, 2], [3, 4]], object).T, np.array([[1, 3], [2, 4]]))
    check(np.array([np.float32(1), torch.tensor(2.0)], object), np.array([1, 2], "f4"))
    check(np.zeros((0, 2), object), np.zeros((0, 2)))
    itself = np.empty(1, object)
    itself[0] = itself
    with pytest.raises(ValueError, match="holds itself"):
        snapshot(itself, "w")


@pytest.mark.parametrize(
    "value",
    [
        np.broadcast_to(np.uint8(0), (65535, 65535)),
        np.broadcast_to(np.zeros((), ">f8"), (2**31, 2**20)),
        torch.zeros(1).expand(2**20, 2**20),
        torch.zeros(1, dtype=torch.bfloat16).expand(2**20, 2**20),
        torch.sparse_coo_tensor(size=(2**30, 2**20)),
        torch.empty(2**40, device="meta"),
    ],
    ids=lambda value: f"{type(value).__name__} {value.dtype}",
)
def test_no_memory_is_taken_for_what_no_record_can_hold(value: Any) -> None:
    result = snapshot(value, "test")
    assert result.shape == tuple(value.shape) and len(result.data) > RECORD_BYTES_MAX
    assert isinstance(result.data, TooLarge)
    with pytest.raises(ValueError, match="at most"):
        widened(result)


@pytest.mark.parametrize(
    "value",
    [None, "abc", b"abc", object(), {1, 2}, {"a": 1}, ["a"], [None], np.array(["a"]), np.array([object()]),
     np.array(["2020-01-01"], "M8[D]"), np.zeros(2, [("a", "f4")]), [object()]],
)  # fmt: skip
def test_what_holds_no_numbers_raises_type_error_and_names_the_call(value: Any) -> None:
    with pytest.raises(TypeError, match=r"add_histogram 'w': .*expected"):
        snapshot(value, "add_histogram 'w'")


def test_ragged_deep_and_endless_lists_raise_value_error() -> None:
    endless: list[Any] = []
    endless.append(endless)
    deep = np.zeros((1,) * (DIMENSIONS_MAX + 1))
    for value in ([[1, 2], [3]], [torch.zeros(2), torch.zeros(3)], endless, deep, [10**400]):
        with pytest.raises(ValueError, match="w: "):
            snapshot(value, "w")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1, 1.0), (True, 1.0), (2.5, 2.5), (np.float32(0.5), 0.5), (np.array([[3]]), 3.0), (torch.tensor(4.0), 4.0),
     (torch.tensor([5], dtype=torch.bfloat16), 5.0), (torch.tensor(6.0, requires_grad=True), 6.0),
     (Decimal("7.5"), 7.5),
     (Fraction(1, 2), 0.5), ([8.0], 8.0), ([torch.tensor([9.0])], 9.0), (_Foreign(np.array([2.0]), "array"), 2.0)],
)  # fmt: skip
def test_one_number_of_any_kind_is_a_float(value: Any, expected: float) -> None:
    assert to_float(value, "loss") == expected
    assert type(to_float(value, "loss")) is float


@pytest.mark.parametrize("value", [None, "1.5", b"1", 1j, torch.tensor(1j), object(), np.array("x"), {}])
def test_what_is_no_number_raises_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match=r"loss: .*one real number is expected"):
        to_float(value, "loss")


@pytest.mark.parametrize("value", [np.zeros(3), torch.zeros(3), [1, 2], [], np.zeros(0), 10**400])
def test_another_number_of_numbers_raises_value_error(value: Any) -> None:
    with pytest.raises(ValueError, match="loss: "):
        to_float(value, "loss")


def test_the_message_says_which_shape_was_given() -> None:
    with pytest.raises(ValueError, match=r"loss: shape \(3,\) was given where one number is expected"):
        to_float(torch.zeros(3), "loss")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, 0), (5, 5), (True, 1), (np.int32(6), 6), (7.0, 7), (np.float64(8), 8), (torch.tensor(9), 9),
     (torch.tensor([10.0]), 10), (np.array([STEP_MAX]), STEP_MAX), (STEP_MIN, STEP_MIN), (Decimal(3), 3)],
)  # fmt: skip
def test_a_step_is_any_whole_number(value: Any, expected: int) -> None:
    assert to_step(value) == expected
    assert type(to_step(value)) is int


@pytest.mark.parametrize("value", [float("nan"), float("inf"), STEP_MAX + 1, STEP_MIN - 1, 1e19, np.zeros(2)])
def test_a_step_that_is_not_finite_or_too_large_raises_value_error(value: Any) -> None:
    with pytest.raises(ValueError, match="global_step"):
        to_step(value)


@pytest.mark.parametrize("value", ["one", object(), 1j])
def test_a_step_that_is_no_number_raises_type_error(value: Any) -> None:
    with pytest.raises(TypeError, match="global_step"):
        to_step(value)


def test_nothing_heavy_is_imported_to_look_at_a_number() -> None:
    script = """
import sys
from tbxd_client.values import media
from tbxd_client.values import names
from tbxd_client.values import arrays as snapshot
snapshot.to_float(1, "x"); snapshot.to_step(3); names.clean_tag("a")
assert not {"numpy", "torch", "jax", "matplotlib"} & set(sys.modules)
snapshot.snapshot([1.0, 2.0], "x")
assert not {"torch", "jax", "matplotlib"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
