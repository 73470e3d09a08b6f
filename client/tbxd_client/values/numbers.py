"""The numbers of an array of any size: as they are in memory, or block by block where they are only counted."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import Any

from ..protocol.limits import BFLOAT16, DIMENSIONS_MAX
from ..protocol.records import RECORD_BYTES_MAX
from ..statistics.moments import BLOCK
from .arrays import Array, TooLarge, is_freed, numpy_of, real_part, say_real_part, snapshot, usual

# Those of torch whose memory numpy reads as it is. Of float8 and their like each block is widened.
_READABLE = frozenset(["float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "bool"])
_DEVICE_COUNT = 1 << 22  # numbers that are copied from an accelerator at a time


class Numbers:
    """The real numbers of a value, which is read when they are asked for.

    Args:
        value: see `snapshot`; or what that has returned.
        what: names the value in errors.
        once: see `snapshot`.

    Attributes:
        count: how many there are.
        nbytes: how many bytes they have.

    Raises:
        TypeError, ValueError: see `snapshot`; also later, when the numbers are read.
    """

    __slots__ = ("_array", "_once", "_value", "_what", "count", "nbytes")

    def __init__(self, value: Any, what: str, once: bool = False) -> None:
        self._value, self._what, self._once = value, what, once
        self._array = real_part(value, what) if isinstance(value, Array) else None
        if _is_numpy(value):
            self.count: int = value.size
            self.nbytes: int = value.nbytes
        elif (sizes := _torch_sizes(value)) is not None:
            self.count, self.nbytes = sizes
        else:
            self.count = math.prod(self.array.shape)
            self.nbytes = len(self.array.data)

    @property
    def array(self) -> Array:
        """All of them, in C order. Their memory is the value's where that can be.

        Raises:
            TypeError, ValueError: see `snapshot`.
        """
        if self._array is None:
            self._array = real_part(snapshot(self._value, self._what, self._once), self._what)
        return self._array

    def blocks(self) -> tuple[Iterator[Any], Any, int] | None:
        """Read one block after the other, in no order; no more memory is taken than for a few of these.

        Returns:
            None where they have to be copied first and are too many for that. Else arrays of numpy, (N,) with N up to
            `BLOCK`; their dtype, or "bfloat16" where they are uint16; and how many numbers
            there are in all.

        Raises:
            TypeError, ValueError: see `snapshot`; also while blocks are taken.
        """
        found = None
        if self.nbytes > RECORD_BYTES_MAX and _is_repeated(self._value):
            return None
        if self._array is None and _is_numpy(self._value):
            found = self._of_numpy(self._value)
        elif self._array is None and _is_torch(self._value):
            found = self._of_torch(self._value)
        return self._of_array() if found is None else found

    def _of_numpy(self, array: Any) -> tuple[Iterator[Any], Any, int] | None:
        import numpy as np

        kind, name = array.dtype.kind, array.dtype.name
        if kind not in "biufcV" or array.dtype.names is not None or array.ndim > DIMENSIONS_MAX:
            return None  # `snapshot` says what is wrong
        if name == BFLOAT16:
            return strided_blocks(array.view(np.uint16)), BFLOAT16, array.size
        if kind == "c":
            say_real_part(self._what)
            array = array.real
        if kind in "biufc" and array.dtype.isnative and array.dtype.itemsize <= 8:
            return strided_blocks(array), array.dtype, array.size
        # Big endian, long double, float8: each block as a usual type.
        first = usual(array.reshape(-1)[:0], self._what).dtype
        return (usual(block, self._what) for block in strided_blocks(array)), first, array.size

    def _of_torch(self, tensor: Any) -> tuple[Iterator[Any], Any, int] | None:
        import numpy as np

        torch = sys.modules["torch"]
        try:
            plain = tensor.layout is torch.strided and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
            if not plain or is_freed(tensor):
                return None
            if tensor.requires_grad:  # else nothing is done to it: a mode or a trace would note each operation
                tensor = tensor.detach()
            if tensor.is_complex():
                say_real_part(self._what)
                tensor = tensor.real
            name, size = str(tensor.dtype)[6:], tensor.numel()  # without "torch."
            is_narrow_float = name.startswith("float") and tensor.element_size() == 1
            if name == BFLOAT16:
                tensor = tensor.view(torch.int16)
            elif is_narrow_float:
                tensor = tensor.view(torch.uint8)
            blocks = self._read(tensor)
        except Exception:  # of any kind: modes and transforms of torch raise their own
            return None  # `snapshot` says what is wrong
        if blocks is None:
            return None
        if name == BFLOAT16:
            return (block.view(np.uint16) for block in blocks), BFLOAT16, size
        if is_narrow_float:
            return self._widened(blocks, getattr(torch, name)), np.dtype(np.float32), size
        return blocks, np.dtype(name), size

    def _read(self, tensor: Any) -> Iterator[Any] | None:
        """The blocks of a tensor of torch, where numpy has its dtype and they can be read one by one."""
        if str(tensor.dtype)[6:] not in _READABLE:
            return None
        if tensor.device.type == "cpu":
            return strided_blocks(numpy_of(tensor))
        return self._from_device(tensor.reshape(-1)) if tensor.is_contiguous() else None

    def _widened(self, blocks: Iterator[Any], narrow: Any) -> Iterator[Any]:
        torch = sys.modules["torch"]
        for block in blocks:
            try:
                wide = torch.from_numpy(block).view(narrow).float().numpy()
            except Exception as error:  # types that torch stores and cannot compute with
                raise self._unreadable(error) from error
            yield wide

    def _from_device(self, flat: Any) -> Iterator[Any]:
        for first in range(0, flat.numel(), _DEVICE_COUNT):
            try:
                part = numpy_of(flat[first : first + _DEVICE_COUNT].cpu())
            except Exception as error:
                raise self._unreadable(error) from error
            yield from strided_blocks(part)

    def _unreadable(self, error: Exception) -> TypeError:
        return TypeError(f"{self._what}: the values of this tensor cannot be read: {error}")

    def _of_array(self) -> tuple[Iterator[Any], Any, int] | None:
        import numpy as np

        array = self.array
        if isinstance(array.data, TooLarge):
            return None
        if array.dtype == BFLOAT16:
            flat = np.frombuffer(array.data, np.uint16)
            return strided_blocks(flat), BFLOAT16, flat.size
        flat = np.frombuffer(array.data, np.dtype(array.dtype))
        return strided_blocks(flat), flat.dtype, flat.size


def _is_numpy(value: Any) -> bool:
    return type(value) is getattr(sys.modules.get("numpy"), "ndarray", None)


def _is_torch(value: Any) -> bool:
    """Whether it is a tensor of torch that is no other library's kind of one."""
    torch = sys.modules.get("torch")  # another thread may be importing it
    return type(value) in (getattr(torch, "Tensor", None), getattr(getattr(torch, "nn", None), "Parameter", None))


def _torch_sizes(value: Any) -> tuple[int, int] | None:
    """How many numbers and bytes a tensor of torch has; None for other values, and where it does not say."""
    if not _is_torch(value):
        return None
    try:
        count = int(value.numel())  # a tensor in torch.jit.trace
        return count, count * int(value.element_size())
    except Exception:
        return None  # `snapshot` says what is wrong


def _is_repeated(value: Any) -> bool:
    """Whether an array has more elements than its memory: to read one of 2**50 would never end."""
    if _is_numpy(value):
        return 0 in value.strides
    try:
        return not _is_torch(value) or value.layout is not sys.modules["torch"].strided or 0 in value.stride()
    except Exception:  # nested tensors have no strides
        return True


def strided_blocks(array: Any) -> Iterator[Any]:
    """The elements of an array in contiguous blocks, (N,) with N up to `BLOCK`, in the order of its memory.

    Only what does not lie side by side is copied, block by block.
    """
    import numpy as np

    array = array.transpose(sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis])))
    if array.flags.c_contiguous:
        flat = array.reshape(-1)
        for first in range(0, flat.size, BLOCK):
            yield flat[first : first + BLOCK]
        return
    rows = max(1, BLOCK * len(array) // array.size)
    for first in range(0, len(array), rows):
        part = array[first : first + rows]
        if part.size <= BLOCK:
            yield np.ascontiguousarray(part).reshape(-1)
        else:
            yield from strided_blocks(part[0])
