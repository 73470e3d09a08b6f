"""Groups scalars into events: consecutive ones of a session, with one step, about one wall time, and distinct tags.

An event of one scalar takes 39 bytes beside its tag; each further scalar in it takes 9. All of them have the step and
the wall time of the first, so a wall time may differ by `WALL_SECONDS` from the logged one. A repeated tag begins a new
event, because TensorBoard's fast loader keeps only the last value of a tag in an event.

Two functions give the same result: `walk`, one by one, and `starts_of`, for arrays.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

WALL_SECONDS = 0.01  # how much later or earlier than the first of its event a scalar may have been logged
VALUES_MAX = 1000  # in one event: what a torn write costs, and a reader's memory, stay small

Indices = npt.NDArray[np.int64]


def walk(steps: Sequence[int], wall_times: Sequence[float], tags: Sequence[Hashable]) -> list[int]:
    """Return the first scalars of events, among consecutive scalars of one session.

    Args:
        steps: the step of each scalar.
        wall_times: the wall time of each, in seconds, finite.
        tags: the tag of each; equal for one tag.
    """
    starts: list[int] = []
    seen: set[Hashable] = set()
    step, wall_time = 0, 0.0
    for index, tag in enumerate(tags):
        if (
            not seen
            or steps[index] != step
            or tag in seen
            or abs(wall_times[index] - wall_time) > WALL_SECONDS
            or len(seen) >= VALUES_MAX
        ):
            starts.append(index)
            step, wall_time = steps[index], wall_times[index]
            seen = {tag}
        else:
            seen.add(tag)
    return starts


def starts_of(
    begins: npt.NDArray[np.bool_], steps: npt.NDArray[np.int64], wall_times: npt.NDArray[Any], tags: npt.NDArray[Any]
) -> Indices:
    """As `walk` for arrays, (N,) each; ``begins`` is true for a scalar that does not follow the one before it.

    ``tags`` are numbers, equal for one tag; it is fastest if they grow within a step.
    """
    breaks = begins.copy()
    breaks[1:] |= (steps[1:] != steps[:-1]) | (tags[1:] == tags[:-1])
    starts: Indices = np.flatnonzero(breaks)
    count = len(breaks)
    if len(starts) == count:
        return starts
    sizes = np.diff(starts, append=count)
    which = np.repeat(np.arange(len(starts)), sizes)
    bad = np.zeros(len(starts), np.bool_)
    with np.errstate(over="ignore"):
        far = np.abs(wall_times - wall_times[starts][which]) > WALL_SECONDS
    bad[which[far]] = True
    if not ((tags[1:] > tags[:-1]) | breaks[1:]).all():
        bad[which[_repeated(tags, which)]] = True
    long = sizes > VALUES_MAX
    if not (bad | long).any():
        return starts
    found = [starts]
    for stretch in np.flatnonzero(bad | long).tolist():
        begin = int(starts[stretch])
        part = slice(begin, begin + int(sizes[stretch]))
        if not bad[stretch]:
            found.append(np.arange(begin + VALUES_MAX, part.stop, VALUES_MAX))
            continue
        more = walk(steps[part].tolist(), wall_times[part].tolist(), tags[part].tolist())
        found.append(np.array(more[1:], np.int64) + begin)
    return np.sort(np.concatenate(found))


def _repeated(tags: npt.NDArray[Any], which: Indices) -> Indices:
    """Return the places of tags that are repeated in the same stretch."""
    small = tags.astype(np.uint16) if int(tags.max()) <= 0xFFFF else tags  # these are sorted many times faster
    order = np.argsort(small, kind="stable")
    again = (tags[order[1:]] == tags[order[:-1]]) & (which[order[1:]] == which[order[:-1]])
    result: Indices = order[1:][again]
    return result
