"""What the event files of a folder hold of what several ranks have logged, so that nothing is reduced twice."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .ledger import decode_ranks

POINTS_MAX = 100_000  # that are remembered with their ranks: only of the latest can records come again

Curve = tuple[str, bool]


@dataclass(slots=True)
class History:
    """The points of one generation in a folder. A curve is a tag and whether it is one of histograms.

    ``last``: the last step of each curve; ``points``: which ranks are in a point, by curve and step, None for all;
    ``alone``: whose session has written a curve as it is, and its last step; ``numbers``: the last of each tag.
    """

    last: dict[Curve, int] = field(default_factory=dict)
    points: dict[tuple[Curve, int], frozenset[int] | None] = field(default_factory=dict)
    alone: dict[Curve, tuple[bytes, int]] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)

    def holds(self, curve: Curve, step: int, rank: int) -> bool:
        """Whether what a rank has logged is in a point that is there, which `last` tells."""
        if (curve, step) not in self.points:
            return len(self.points) >= POINTS_MAX
        return not self.excludes(curve, step, rank)

    def excludes(self, curve: Curve, step: int, rank: int) -> bool:
        """Whether there is a point that a rank is not in."""
        ranks = self.points.get((curve, step))
        return ranks is not None and rank not in ranks


class Reduced:
    """Follows the events of a folder, and knows the points of the generation that logs.

    A point takes 24 bytes of memory, whatever its ranks are; of all but the last `POINTS_MAX` only the last step of
    each curve is known.
    """

    def __init__(self) -> None:
        self.generation = ""  # that logs; nothing is followed before one does
        self.past: set[str] = set()  # those that another has followed
        self._forget()
        self.begin_file()

    def _forget(self) -> None:
        self.curves: list[Curve] = []
        self.last: dict[int, int] = {}  # by the curve's place
        self.alone: dict[int, tuple[bytes, int]] = {}
        self.numbers: dict[str, float] = {}
        self.marks: list[str] = []  # which ranks
        # Of each point, in the order of the files: curve and mark by their places, and step.
        self.point_curves, self.point_steps, self.point_marks = array("q"), array("q"), array("q")
        self._places: dict[Curve, int] = {}
        self._mark_places: dict[str, int] = {}

    def begin_file(self) -> None:
        """A mark holds in its file alone."""
        self.mark: str | None = None  # of the events that follow: which ranks; None where a session's records do

    def follow(self, writer: str) -> None:
        """Take note of the mark of the next event; it has one."""
        self.mark = None
        if writer.startswith("R"):
            self.mark = writer
        elif writer.startswith("G") and writer[1:] != self.generation:
            if self.generation:
                self.past.add(self.generation)
            self.generation = writer[1:]
            self.past.discard(self.generation)
            self._forget()

    def values(self, session: bytes, step: int, values: Iterable[tuple[str, bool, float]]) -> None:
        """An event has values.

        Args:
            session: whose record it is; empty where it is none's.
            step: its step.
            values: tag, whether it is a histogram, and the number of those that are one.
        """
        if not self.generation:
            return
        for tag, histogram, number in values:
            place = self._place((tag, histogram))
            if self.mark is None:
                _, last = self.alone.get(place, (b"", step))
                self.alone[place] = (session, max(step, last))
                continue
            mark = self._mark_places.get(self.mark)
            if mark is None:
                mark = self._mark_places[self.mark] = len(self.marks)
                self.marks.append(self.mark)
            self.last[place] = step
            self.numbers[tag] = number
            self.point_curves.append(place)
            self.point_steps.append(step)
            self.point_marks.append(mark)
        if len(self.point_steps) > 2 * POINTS_MAX:
            for column in (self.point_curves, self.point_steps, self.point_marks):
                del column[:-POINTS_MAX]

    def _place(self, curve: Curve) -> int:
        place = self._places.get(curve)
        if place is None:
            place = self._places[curve] = len(self.curves)
            self.curves.append(curve)
        return place

    def history(self, generation: str) -> History:
        """The points of one generation, in the order in which they came."""
        if generation != self.generation:
            return History()
        curves, ranks = self.curves, [decode_ranks(mark) for mark in self.marks]
        points: dict[tuple[Curve, int], frozenset[int] | None] = {}
        columns = (self.point_curves[-POINTS_MAX:], self.point_steps[-POINTS_MAX:], self.point_marks[-POINTS_MAX:])
        for curve, step, mark in zip(*columns, strict=True):
            points[curves[curve], step] = ranks[mark]
        return History(
            {curves[place]: step for place, step in self.last.items()},
            points,
            {curves[place]: known for place, known in self.alone.items()},
            dict(self.numbers),
        )

    # --- for checkpoints -------------------------------------------------------------------------------------

    COLUMNS: ClassVar = "qqq"  # of `points`

    def points(self) -> list[array[int]]:
        """The points, in columns, each of its type in `COLUMNS`."""
        return [self.point_curves, self.point_steps, self.point_marks]

    def dump(self) -> dict[str, Any]:
        """What else is known, as JSON has it."""
        return {
            "generation": self.generation,
            "past": sorted(self.past),
            "mark": self.mark,
            "curves": self.curves,
            "last": list(self.last.items()),
            "alone": [[place, session.hex(), step] for place, (session, step) in self.alone.items()],
            "numbers": self.numbers,
            "marks": self.marks,
        }

    @classmethod
    def load(cls, dumped: dict[str, Any], points: list[array[int]]) -> Reduced:
        """The inverse of `dump` and `points`.

        Raises:
            ValueError, KeyError, TypeError: it is none of those.
        """
        reduced = cls()
        reduced.generation, reduced.mark = dumped["generation"], dumped["mark"]
        reduced.past, reduced.marks, reduced.numbers = set(dumped["past"]), dumped["marks"], dumped["numbers"]
        reduced.curves = [(tag, histogram) for tag, histogram in dumped["curves"]]
        reduced.last = dict(dumped["last"])
        reduced.alone = {place: (bytes.fromhex(session), step) for place, session, step in dumped["alone"]}
        reduced._places = {curve: place for place, curve in enumerate(reduced.curves)}
        reduced._mark_places = {mark: place for place, mark in enumerate(reduced.marks)}
        reduced.point_curves, reduced.point_steps, reduced.point_marks = points
        if len({len(column) for column in points}) > 1:
            raise ValueError("columns of different lengths")
        return reduced
