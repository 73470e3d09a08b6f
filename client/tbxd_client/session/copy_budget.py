"""Limits the bytes of large arrays that this process copies into its journal; beyond, it counts them in the call.

To copy an array costs its caller less than to count its numbers, but each byte is written to the disk of the spool and
counted by the daemon: all tensors of a model, as fast as they come, are more than either can take.
"""

from __future__ import annotations

from ..process.native import monotonic

ARRAY_BYTES_MIN = 64 << 10  # smaller arrays are copied: to count them takes longer than the copy and costs as much
ARRAY_BYTES_MAX = 16 << 20  # larger ones are counted
FILL_MAX = 0.5  # of what histograms may fill of the journal: beyond it, arrays are counted
BURST_BYTES = 128 << 20  # that may be copied at once, and
BYTES_PER_SECOND = 16 << 20  # how fast these come back


class CopyBudget:
    """The bytes that may still be copied. Several threads may ask; what they get then is about right."""

    __slots__ = ("_left", "_when")

    def __init__(self) -> None:
        self._left = float(BURST_BYTES)
        self._when = monotonic()

    def take(self, size: int) -> bool:
        """Take ``size`` bytes; return False if there are not as many left."""
        now = monotonic()
        left = min(float(BURST_BYTES), self._left + (now - self._when) * BYTES_PER_SECOND)
        self._when = now
        taken = size <= left
        self._left = left - size if taken else left
        return taken


budget = CopyBudget()  # of this process
