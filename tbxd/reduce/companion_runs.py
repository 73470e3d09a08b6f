"""The runs beside a run of several ranks: the least, the greatest, and further statistics."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tbxd_client.protocol.records import STEP_MIN, RunDefinition

from ..tfevents.checkpoint import Checkpoints
from ..tfevents.ledger import encode_ranks
from ..tfevents.rank_points import Curve, Place
from .aggregate import Floats, Groups, Integers
from .companion_run import Side, SideStart
from .encoder import Curves
from .purges import Scope

SPREAD = ("std", "lowest", "highest")
COUNTS = ("tbxd/ranks/missing", "tbxd/ranks/late")


class Folders:
    """``ranks/min``, ``ranks/max`` and ``ranks`` in the folder of a run, for all jobs that log into it.

    Args:
        directory: of the run.
        run: as whoever comes first defines it.
        checkpoints: of what folders hold.
    """

    def __init__(self, directory: Path, run: RunDefinition, checkpoints: Checkpoints) -> None:
        folder = directory / "ranks"
        self.all = tuple(
            Side(path, run.host, run.pid, checkpoints, run.umask) for path in (folder / "min", folder / "max", folder)
        )

    def write(self) -> None:
        """Write the taken points, before the run itself is written.

        Raises:
            FileLost, OSError: it cannot be; the next call goes on.
        """
        for side in self.all:
            side.write()

    def sync(self) -> None:
        """Sync to disk.

        Raises:
            OSError: it cannot be.
        """
        for side in self.all:
            side.sync()

    @property
    def dirty(self) -> bool:
        """True if written data may not be on disk."""
        return any(side.dirty for side in self.all)

    def park(self) -> None:
        """Close the descriptors.

        Raises:
            OSError: of one or more; they are given back all the same.
        """
        with contextlib.ExitStack() as stack:  # each of them, whatever another raises
            for side in self.all:
                stack.callback(side.park)

    def close(self) -> None:
        """Close the files."""
        for side in self.all:
            side.close()


class Sides:
    """The points of one start of a job there.

    Args:
        folders: they.
        generation: whose points are written.
    """

    def __init__(self, folders: Folders, generation: str) -> None:
        self._min, self._max, self._about = self._all = tuple(SideStart(side, generation) for side in folders.all)
        self._shown = (0, 0)

    def read(self) -> None:
        """Read the existing points.

        Raises:
            OSError: it cannot be read at this moment, or somebody else writes it.
        """
        for side in self._all:
            side.read()

    def last(self, curve: Curve) -> Place:
        """Return the last place of a curve; `STEP_MIN` if it has none."""
        return max(side.history.last.get(curve, (0, STEP_MIN)) for side in (self._min, self._max))

    def excludes(self, curve: Curve, stretch: int, step: int, rank: int) -> bool:
        """Return True if there is a point here without this rank."""
        return self._min.history.excludes(curve, stretch, step, rank)

    def add(self, order: Integers, names: list[str], groups: Groups, marks: list[str]) -> None:
        """Take groups to write.

        Args:
            order: which of them, in the order of their steps.
            names: the tag of each.
            marks: which ranks each is of.
        """
        if not len(order):
            return
        self._min.add(curves_of(order, names, groups, groups.min, marks))
        self._max.add(curves_of(order, names, groups, groups.max, marks))
        self._about.add(_spread(order, names, groups, marks))

    def meet(self, tags: dict[str, int]) -> None:
        """Note the last steps of tags of another start of a job, which this one continues."""
        for tag, last in tags.items():
            self._min.meet(tag, last)
            self._max.meet(tag, last)
            for word in SPREAD:
                self._about.meet(f"tbxd/ranks/{word}/{tag}", last)

    def show(self, missing: int, late: int, step: int) -> None:
        """Show the numbers of missing and of late values, if they have changed.

        Args:
            step: the last of the run.
        """
        counts = (missing, late)
        if counts == self._shown:
            return
        history = self._about.history
        step = max(step, *(history.last.get((name, False), (0, STEP_MIN))[1] + 1 for name in COUNTS))
        for name, count, shown in zip(COUNTS, counts, self._shown, strict=True):
            if count != shown:
                number = history.numbers.get(name, 0.0) + count - shown  # goes on where an earlier daemon's ended
                wall_time = np.array([time.time()])
                stretch, mark = np.zeros(1, np.int64), [encode_ranks(None)]
                self._about.add(Curves([name], stretch, np.array([step]), wall_time, np.array([number]), mark))
                history.numbers[name] = number
                history.last[name, False] = (0, step)
        self._shown = counts

    def restart(self, step: int, asked: float, scope: Scope, staying: frozenset[bytes]) -> None:
        """Continue all tags from a step.

        Args:
            asked: when that was said, in seconds since the epoch.
            scope: what it takes.
            staying: lives of whose tags it takes nothing.

        Raises:
            FileLost: a file is not there any more.
        """
        for side in self._all:
            side.restart(step, asked, scope, staying)


def curves_of(order: Integers, names: list[str], groups: Groups, numbers: Floats, marks: list[str]) -> Curves:
    """Return some groups, in an order, with a name and a number for each."""
    places = order.tolist()
    return Curves(
        [names[place] for place in places],
        groups.stretches[order],
        groups.steps[order],
        groups.wall_times[order],
        numbers[order],
        [marks[place] for place in places],
    )


def _spread(order: Integers, names: list[str], groups: Groups, marks: list[str]) -> Curves:
    """Return three curves beside the extremes for each tag, those of a step together."""
    parts = [
        curves_of(order, [f"tbxd/ranks/{word}/{name}" for name in names], groups, numbers, marks)
        for word, numbers in (
            ("std", groups.std),
            ("lowest", groups.lowest.astype(np.float64)),
            ("highest", groups.highest.astype(np.float64)),
        )
    ]
    places = np.argsort(np.tile(np.cumsum(_breaks(parts[0])), 3), kind="stable")
    tags, marks = [tag for part in parts for tag in part.tags], [mark for part in parts for mark in part.marks]
    return Curves(
        tags,
        np.concatenate([part.stretches for part in parts]),
        np.concatenate([part.steps for part in parts]),
        np.concatenate([part.wall_times for part in parts]),
        np.concatenate([part.numbers for part in parts]),
        marks,
    ).where(places.tolist())


def _breaks(curves: Curves) -> npt.NDArray[np.bool_]:
    """Return a mask of the points that begin another step or other ranks."""
    result = np.zeros(len(curves.tags), np.bool_)
    result[1:] = curves.steps[1:] != curves.steps[:-1]
    for index in range(1, len(curves.marks)):
        if curves.marks[index] != curves.marks[index - 1]:
            result[index] = True
    return result
