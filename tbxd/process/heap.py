"""The memory that glibc has given this process: kept while it is used, given back when much of it is not.

``mallopt(3)``, ``malloc_trim(3)``. Where there is another library of C it is as it is.
"""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KEPT_BLOCK_BYTES, KEPT_BYTES = 4 << 20, 8 << 20


def keep() -> None:
    """Do not give memory back to the system with every buffer, to have each page of the next one made anew.

    That costs as much as half of what scalars cost otherwise. One heap, because each thread would keep as much in
    its own. Blocks up to `KEPT_BLOCK_BYTES` are kept when they are freed, and `KEPT_BYTES` at the heap's end.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_ARENA_MAX, 1)
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BLOCK_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def give_back() -> None:
    """Give back what lies unused between blocks that are in use; milliseconds for a large heap. For any thread."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(KEPT_BYTES)
