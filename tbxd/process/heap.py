"""The heap of glibc: kept while it is used, given back when much of it is unused.

``mallopt(3)``, ``malloc_trim(3)``. With another C library nothing changes.
"""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KEPT_BLOCK_BYTES, KEPT_BYTES = 4 << 20, 8 << 20


def keep() -> None:
    """Keep freed buffers, so that the system does not have to provide each page of the next one again.

    Otherwise that would cost half as much as scalars cost. There is one heap, because each thread would keep as much in
    its own. Freed blocks up to `KEPT_BLOCK_BYTES` are kept, and `KEPT_BYTES` at the heap's end.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_ARENA_MAX, 1)
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def give_back() -> None:
    """Give unused memory between used blocks back; takes milliseconds for a large heap. For any thread."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(KEPT_BYTES)
