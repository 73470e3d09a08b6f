"""The points of `add_scalars` kept in memory, if this host has no event file to read them back from."""

from __future__ import annotations

from array import array

from ..config.settings import warn

# 24 bytes each: of a writer that writes nothing, and of one whose daemon is on another host.
UNWRITTEN_POINTS_MAX = 1_000_000
REMOTE_POINTS_MAX = 200_000
_NUMBERS = 3  # of a point: wall time, step, value


class KeptPoints:
    """Points by the folders of their curves.

    Args:
        points_max: the most points kept; further ones are left out, with one warning, until `clear`.
    """

    def __init__(self, points_max: int) -> None:
        self._points_max = points_max
        self._count = 0
        self._curves: dict[str, array[float]] = {}

    def add(self, curve: str, wall_time: float, step: int, value: float) -> None:
        """Keep a point; steps are exact up to 2**53."""
        if self._count >= self._points_max:
            warn(
                f"scalar_dict is full ({self._points_max:,} points): it leaves out further points until "
                "export_scalars_to_json; event files are complete",
                once="kept",
            )
            return
        self._count += 1
        self._curves.setdefault(curve, array("d")).extend((wall_time, step, value))

    def read(self) -> dict[str, list[list[float]]]:
        """Return [wall time, step, value] of each point by curve, in the order of `add`."""
        return {
            curve: [
                [numbers[first], int(numbers[first + 1]), numbers[first + 2]]
                for first in range(0, len(numbers), _NUMBERS)
            ]
            for curve, numbers in self._curves.items()
        }

    def clear(self) -> None:
        """Forget all points."""
        self._curves.clear()
        self._count = 0
