"""The resource use of this process, from ``/proc`` (proc(5)) and getrusage(2)."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

from .fd_budget import in_use

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def vitals() -> dict[str, Any]:
    """Return memory in bytes, now and at its peak, processor time in seconds, file descriptors and their limit."""
    use = resource.getrusage(resource.RUSAGE_SELF)
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {
        "memory_bytes": _resident(),
        "memory_peak_bytes": use.ru_maxrss << 10,
        "cpu_seconds": use.ru_utime + use.ru_stime,
        "descriptors": in_use(),
        "descriptors_most": None if most == resource.RLIM_INFINITY else most,
    }


def _resident() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):  # no /proc here
        return 0
