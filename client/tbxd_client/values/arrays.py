"""The values that users pass, as plain bytes and plain numbers.

This module imports no framework to identify a value: a tensor of torch cannot exist before torch is in
``sys.modules``. numpy is imported with the first array. Memory that can be read as it is is not copied; the caller has
to copy it before the user's code continues.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Sequence
from struct import calcsize
from typing import Any

from ..config.settings import warn
from ..protocol.limits import BFLOAT16, DIMENSIONS_MAX, DTYPES
from ..protocol.records import RECORD_BYTES_MAX, STEP_MAX, STEP_MIN

_DTYPES = frozenset(DTYPES)
# The same by the names of the buffer protocol, which tells all that is needed in half the time.
_FORMATS = (
    {"?": "|b1", "b": "|i1", "h": "<i2", "i": "<i4", "l": f"<i{calcsize('l')}", "q": "<i8", "B": "|u1", "H": "<u2"}
    | {"I": "<u4", "L": f"<u{calcsize('L')}", "Q": "<u8", "e": "<f2", "f": "<f4", "d": "<f8"}
    if sys.byteorder == "little"
    else {}
)
_PLAIN = frozenset((float, int, bool, complex))
_WANTED = "a number, an array, a tensor or a list of these is expected"


class TooLarge:
    """Placeholder for the bytes of an array that no record can hold, so that no memory is allocated for them."""

    __slots__ = ("_size",)

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        raise ValueError(f"an array of {self._size:,} bytes; at most {RECORD_BYTES_MAX:,} are possible")


class Array:
    """An array in C order, little endian.

    ``dtype`` is numpy's (``<f4``, ``|u1``, …) or ``bfloat16``; ``data`` has one dimension of bytes and may share
    the memory of the value it was made from. It is `TooLarge` only where it would have to be copied.
    """

    __slots__ = ("data", "dtype", "owner", "shape")

    def __init__(
        self, dtype: str, shape: tuple[int, ...], data: memoryview | bytes | TooLarge, owner: Any = None
    ) -> None:
        self.dtype = dtype
        self.shape = shape
        self.data = data
        self.owner = owner  # numpy's array over the same memory, where known

    @property
    def address(self) -> int | None:
        """The memory address of ``data``; None if unknown."""
        return None if self.owner is None else int(self.owner.__array_interface__["data"][0])


# --- arrays ----------------------------------------------------------------------------------------------------


def snapshot(value: Any, what: str, once: bool = False) -> Array:
    """Return the numbers of ``value``, without a copy if possible.

    Args:
        value: a Python or numpy number, an array or tensor of any framework on any device, or a (nested) sequence of
            these. Tensors of torch may require grad, be sparse or quantized; floating point that numpy lacks is
            widened to float32, except bfloat16, which is kept. Of a DTensor it is the part that this process holds,
            whose axes may be empty. Masked elements of a masked array become NaN if it is floating point; otherwise
            they keep the value below the mask.
        what: names the value in errors, such as ``add_histogram 'weights'``.
        once: a part that several ranks hold of a DTensor counts for the first of them; it is empty, shape (0,), for the
            others. So the parts of all ranks make up the tensor.

    Raises:
        TypeError: an element is not a number, or the value is a DTensor with partial sums.
        ValueError: the parts have different shapes, or there are more than `DIMENSIONS_MAX` dimensions.
    """
    np = sys.modules.get("numpy")
    if np is not None and type(value) is np.ndarray:
        return _from_numpy(value, what)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, getattr(torch, "Tensor", ())):
        if type(value) is not torch.Tensor and isinstance(value, _dtensor()):
            value = _part_of(value, what, once)
        return _from_torch(torch, value, what)
    return _from_numpy(_as_numpy(value, what, 0), what)


def _from_numpy(array: Any, what: str) -> Array:
    try:
        view = memoryview(array)
    except (ValueError, BufferError):  # a dtype that the buffer protocol lacks
        pass
    else:
        known = _FORMATS.get(view.format)
        if known is not None and view.c_contiguous and view.nbytes and view.ndim <= DIMENSIONS_MAX:
            return Array(known, view.shape or (), view.cast("B"), array)
    dtype = array.dtype.str
    if dtype not in _DTYPES:
        if array.dtype.name == BFLOAT16:  # ml_dtypes, which jax uses
            bits = _from_numpy(array.view("<u2"), what)
            return Array(BFLOAT16, bits.shape, bits.data)
        if array.nbytes > RECORD_BYTES_MAX:
            return Array(dtype, array.shape, TooLarge(array.nbytes))
        array = usual(array, what)
        dtype = array.dtype.str
    shape = array.shape
    if len(shape) > DIMENSIONS_MAX:
        raise ValueError(f"{what}: {len(shape)} dimensions; at most {DIMENSIONS_MAX} are allowed")
    if not array.flags.c_contiguous:
        if array.nbytes > RECORD_BYTES_MAX:
            return Array(dtype, shape, TooLarge(array.nbytes))
        array = array.copy()
    return Array(dtype, shape, array.reshape(-1).view("u1").data)


def usual(array: Any, what: str) -> Any:
    """Convert an array of an unusual dtype (big endian, long double, float8, …) to a usual one."""
    dtype = array.dtype
    if dtype.kind == "O":  # of numbers, it is hoped: pandas and its like make these
        return _numbers_of(array, what)
    if dtype.kind in "SUMmT" or dtype.names is not None:
        raise TypeError(f"{what}: an array of dtype {dtype} was given; {_WANTED}")
    target = dtype.newbyteorder("<").str
    if target not in _DTYPES:
        target = {"f": "<f8", "c": "<c16"}.get(dtype.kind, "<f4") if dtype.itemsize > 2 else "<f4"
    import numpy as np

    try:
        with np.errstate(all="ignore"):  # beyond float64 is infinite
            return array.astype(target)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what}: an array of dtype {dtype} was given; {_WANTED}") from error


def _numbers_of(array: Any, what: str) -> Any:
    """Convert an array of objects to an array of numbers."""
    import numpy as np

    if not array.size:
        return np.zeros(array.shape)
    try:
        numbers = _from_sequence(np, array.reshape(-1).tolist(), what, 0)
    except RecursionError:
        raise ValueError(f"{what}: an array of objects that holds itself") from None
    return numbers.reshape(array.shape + numbers.shape[1:])


def _dtensor() -> Any:
    """Return the DTensor class, for isinstance; () if it is not imported."""
    for name in ("torch.distributed.tensor", "torch.distributed._tensor"):  # the second before torch 2.5
        module = sys.modules.get(name)
        if module is not None:
            return getattr(module, "DTensor", ())
    return ()


def _part_of(tensor: Any, what: str, once: bool) -> Any:
    """Return the local part of a DTensor; it asks no other process, so that no rank waits for another."""
    part = tensor._local_tensor  # to_local() is made for gradients, and gives the same numbers
    if any(placement.is_partial() for placement in tensor.placements):
        raise TypeError(
            f"{what}: each rank of this DTensor ({', '.join(map(str, tensor.placements))}) has numbers that are still "
            "to be added up; give full_tensor(), or what redistribute() makes of it, which all ranks have to call"
        )
    if hasattr(part, "trigger_wait"):  # a collective that was begun and not waited for
        part = part.trigger_wait()
    if not once:
        return part
    place = tensor.device_mesh.get_coordinate()  # None for a rank that has no part in it
    copies = (at for at, placement in zip(place or (), tensor.placements, strict=False) if placement.is_replicate())
    return part.new_empty(0) if any(copies) else part


def _from_torch(torch: Any, tensor: Any, what: str) -> Array:
    try:
        size = tensor.numel() * tensor.element_size()
        if size > RECORD_BYTES_MAX:
            return Array("<f4", tuple(tensor.shape), TooLarge(size))
        if is_freed(tensor):
            raise RuntimeError("its memory has been freed")
        if tensor.requires_grad:
            tensor = tensor.detach()
        if tensor.layout is not torch.strided:
            tensor = tensor.to_dense()
        if tensor.is_quantized:
            tensor = tensor.dequantize()
        if tensor.device.type != "cpu":
            tensor = tensor.cpu()
        if tensor.is_conj() or tensor.is_neg():
            tensor = tensor.resolve_conj().resolve_neg()
        dtype = str(tensor.dtype)[6:]  # without "torch."
        if dtype == BFLOAT16:
            bits = _from_numpy(numpy_of(tensor.contiguous().view(torch.int16)), what)
            return Array(BFLOAT16, bits.shape, bits.data)
        if dtype not in _TORCH_LIKE_NUMPY:
            tensor = tensor.to(torch.complex64 if tensor.is_complex() else torch.float32)
        return _from_numpy(numpy_of(tensor), what)
    except Exception as error:  # of any kind: modes and transforms of torch raise their own
        raise TypeError(f"{what}: the values of this tensor cannot be read: {error}") from error


def numpy_of(tensor: Any) -> Any:
    """Return numpy's array over the memory of a tensor of torch.

    Raises:
        RuntimeError: it has none, as under a mode or a transform of torch that computes without values.
    """
    array = tensor.numpy()
    if array.size and array.flags.owndata:  # without an address numpy takes memory of its own, with any bytes in it
        raise RuntimeError("it has no memory")
    return array


def is_freed(tensor: Any) -> bool:
    """Return True if a tensor of torch has elements and no memory, which torch does not check when it is read.

    So are parameters that are sharded (FSDP) between two uses: to read one ends the process, or gives any bytes.
    """
    try:
        return not tensor.untyped_storage().nbytes() and bool(tensor.numel())
    except Exception:  # of a layout, a device or a torch without a storage
        return False


_TORCH_LIKE_NUMPY = frozenset(
    [
        "float32",
        "float64",
        "float16",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "bool",
        "complex64",
        "complex128",
    ]
)


def _as_numpy(value: Any, what: str, depth: int) -> Any:
    """Convert any other value than a plain numpy array or a tensor to a numpy array."""
    import numpy as np

    if type(value) in _PLAIN or isinstance(value, np.generic | np.ndarray):
        return _numbers(np, _unmasked(value), what)
    if value is None or isinstance(value, str | bytes | bytearray):
        raise TypeError(f"{what}: {value!r:.80} was given; {_WANTED}")
    if isinstance(value, list | tuple | range):
        return _from_sequence(np, value, what, depth)
    trouble = ""
    for read in _readers(np, value):
        try:
            array = read()
        except Exception as error:  # the framework's own: another device, no such dtype, a tracer
            trouble = f" ({type(error).__name__}: {error!s:.200})"
            continue
        return array if isinstance(array, np.ndarray) else widened(snapshot(array, what))
    if isinstance(value, Sequence):
        return _from_sequence(np, value, what, depth)
    if hasattr(value, "__float__"):
        return np.asarray(to_float(value, what))
    raise TypeError(f"{what}: a {type(value).__name__} was given{trouble}; {_WANTED}")


def _unmasked(value: Any) -> Any:
    """Convert a masked array to a plain one; return any other value as it is."""
    masked = sys.modules.get("numpy.ma")
    if masked is None or not isinstance(value, masked.MaskedArray):
        return value
    return value.filled(math.nan) if value.dtype.kind in "fc" else value.data


def _readers(np: Any, value: Any) -> list[Callable[[], Any]]:
    """Return the ways to read the values of another framework's array, the likeliest first."""
    readers: list[Callable[[], Any]] = []
    if hasattr(value, "__array__") or hasattr(value, "__array_interface__"):
        readers.append(lambda: np.asarray(value))
    if hasattr(value, "__dlpack__"):
        readers.append(lambda: np.from_dlpack(value))
        torch = sys.modules.get("torch")
        if torch is not None:  # it reads what is on an accelerator, and bfloat16
            readers.append(lambda: torch.from_dlpack(value))
    if type(value).__module__ == "array" or isinstance(value, memoryview):
        readers.append(lambda: np.asarray(value))
    return readers


def _from_sequence(np: Any, values: Sequence[Any], what: str, depth: int) -> Any:
    if depth >= DIMENSIONS_MAX:  # also what ends a list that holds itself
        raise ValueError(f"{what}: lists in more than {DIMENSIONS_MAX} levels")
    if set(map(type, values)) <= _PLAIN:
        return _numbers(np, values, what)
    parts = [_part(np, value, what, depth + 1) for value in values]
    shapes = {part.shape for part in parts}
    if len(shapes) > 1:
        some = ", ".join(str(shape) for shape in sorted(shapes)[:3])
        raise ValueError(f"{what}: the parts of a list have different shapes: {some}; they have to be the same")
    return np.stack(parts)


def _part(np: Any, value: Any, what: str, depth: int) -> Any:
    if isinstance(value, list | tuple):
        return _from_sequence(np, value, what, depth)
    return widened(snapshot(value, what))


def check_real(array: Array, what: str) -> None:
    """Refuse complex numbers.

    Raises:
        TypeError: the numbers are complex.
    """
    if array.dtype[1:2] == "c":
        raise TypeError(f"{what} of complex numbers; take their real part or their magnitude")


def real_part(array: Array, what: str) -> Array:
    """Return the real part of complex numbers, with one warning, as both originals do; real numbers as they are."""
    if array.dtype[1:2] != "c" or isinstance(array.data, TooLarge):
        return array
    say_real_part(what)
    return snapshot(widened(array).real, what)


def say_real_part(what: str) -> None:
    """Say once that the real part is taken of complex numbers."""
    warn(f"{what}: of complex numbers the real part is taken; log their magnitude for another picture", once="complex")


def widened(array: Array) -> Any:
    """Convert a snapshot to a numpy array, bfloat16 to float32. It may share the memory of the snapshot.

    Raises:
        ValueError: the array is `TooLarge`.
    """
    import numpy as np

    data = array.data if not isinstance(array.data, TooLarge) else bytes(array.data)  # which raises
    if array.dtype != BFLOAT16:
        return np.frombuffer(data, array.dtype).reshape(array.shape)
    high = np.frombuffer(data, "<u2").astype("<u4") << 16
    return high.view("<f4").reshape(array.shape)


def _numbers(np: Any, value: Any, what: str) -> Any:
    """Convert Python numbers, or a numpy scalar, to an array."""
    array = np.asarray(value)
    if array.dtype.kind == "O" and not isinstance(value, np.ndarray):  # integers beyond 64 bits
        try:
            return array.astype("<f8")
        except OverflowError:
            raise ValueError(f"{what}: an integer that no float64 holds") from None
    return array


# --- single numbers --------------------------------------------------------------------------------------------


def to_float(value: Any, what: str) -> float:
    """Convert one number to a float.

    Args:
        value: a number of any kind, or an array, tensor or list of one element.
        what: names the value in errors.

    Raises:
        TypeError: the value is not a number.
        ValueError: the value does not have exactly one element, or is an integer that no float64 holds.
    """
    if type(value) is float:
        return value
    item = _item(value, what)
    if isinstance(item, str | bytes | bytearray) or not hasattr(item, "__float__"):
        raise TypeError(f"{what}: {_shown(item)} was given; one real number is expected")
    try:
        return float(item)
    except OverflowError:
        raise ValueError(f"{what}: an integer that no float64 holds") from None
    except Exception as error:  # of any kind: it is another's code
        raise TypeError(f"{what}: {_shown(item)} was given; one real number is expected: {error}") from error


def to_number(value: Any, what: str) -> float:
    """Convert one number to a float, as `to_float`, or the text of one, which both originals pass to ``float()``.

    Args:
        value: as for `to_float`, or a text such as ``"0.5"``.
        what: names the value in errors.

    Raises:
        TypeError, ValueError: as `to_float`; text that is not a number is a TypeError.
    """
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass  # said better below
    return to_float(value, what)


def to_step(value: Any) -> int:
    """Convert a step to an integer; None is 0.

    A fraction is cut off, as ``int()`` does in both originals, with one warning.

    Raises:
        TypeError: the step is not a number.
        ValueError: the step is NaN or infinite, does not fit 64 bits, or does not have exactly one element.
    """
    if value is None:
        return 0
    if type(value) is not int:
        item = _item(value, "global_step")
        try:
            value = operator.index(item)
        except Exception:  # mostly TypeError, but it is another's code
            number = to_number(item, "global_step")
            if not math.isfinite(number):
                raise ValueError(f"global_step is {number}; an integer is expected") from None
            value = int(number)
            if value != number:
                warn(f"global_step {number!r} is not whole; {value} is logged, the integer part", once="step")
    if not STEP_MIN <= value <= STEP_MAX:
        shown = str(value) if value.bit_length() < 256 else f"of {value.bit_length():,} bits"
        raise ValueError(f"global_step {shown} does not fit 64 bits")
    return int(value)


def _item(value: Any, what: str) -> Any:
    """Return the single element of an array, tensor or list; any other value as it is."""
    for _ in range(DIMENSIONS_MAX):  # lists in lists
        if not isinstance(value, list | tuple):
            break
        if len(value) != 1:
            raise ValueError(f"{what}: a {type(value).__name__} of {len(value)} was given where one number is expected")
        value = value[0]
    value = _unmasked(value)
    if not hasattr(value, "item") and not hasattr(value, "__float__"):
        if not any(hasattr(value, way) for way in ("__array__", "__array_interface__", "__dlpack__")):
            return value
        value = widened(snapshot(value, what))
    try:
        shape = getattr(value, "shape", None)
        if not isinstance(shape, tuple):
            return value
        if math.prod(shape) == 1:
            return value.item() if hasattr(value, "item") else value
    except Exception as error:  # a tensor without values, a tracer, whatever another's code may raise
        raise TypeError(f"{what}: the value of this {type(value).__name__} cannot be read: {error}") from error
    raise ValueError(f"{what}: shape {tuple(shape)} was given where one number is expected")


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.80} ({type(value).__name__})"
    except Exception:  # integers of thousands of digits, and another's code
        return f"a {type(value).__name__}"
