"""The points of several ranks in the event files of a folder, so that nothing is reduced twice."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tbxd_client.protocol.records import STEP_MIN

from .ledger import decode_ranks, decode_stretch
from .rank_notes import LOOKED, MEMBER, RESTARTED, Restarted, decode_looked, decode_member, decode_restarted

POINTS_MAX = 100_000  # that are remembered with their ranks: only of the latest can records come again
JOBS_MAX = 16  # in a folder, of which something can come again: those that have logged last
RESTARTS_MAX = 1000  # of a job that are remembered

Curve = tuple[str, bool]
Place = tuple[int, int]  # a stretch and a step
Begins = list[tuple[int, int]]  # of stretches in a session: positions, growing, and which stretch


@dataclass(slots=True)
class History:
    """The points of one generation in a folder. A curve is a tag and True for histograms.

    ``last``: the last place of each curve; ``points``: the ranks in a point, by curve and place, None for all;
    ``alone``: the session that has written a curve as it is, and its last step; ``numbers``: the last of each tag;
    ``restarts``: those of ranks. The rest is for `place`.
    """

    last: dict[Curve, Place] = field(default_factory=dict)
    points: dict[tuple[Curve, int, int], frozenset[int] | None] = field(default_factory=dict)
    alone: dict[Curve, tuple[bytes, int]] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    restarts: list[Restarted] = field(default_factory=list)
    looked: dict[bytes, int] = field(default_factory=dict)  # sessions: up to where
    begins: dict[bytes, dict[int, Begins]] = field(default_factory=dict)  # of stretches, by the session's tags
    settled: dict[bytes, int] = field(default_factory=dict)  # sessions: behind so many points
    settled_ranks: dict[int, int] = field(default_factory=dict)  # the same of the sessions of a rank
    order: dict[Curve, list[tuple[int, int, int, frozenset[int] | None]]] = field(default_factory=dict)

    def holds(self, curve: Curve, stretch: int, step: int, rank: int) -> bool:
        """Return True if a rank's record is in an existing point, which `last` shows."""
        if (curve, stretch, step) not in self.points:
            return len(self.points) >= POINTS_MAX
        return not self.excludes(curve, stretch, step, rank)

    def excludes(self, curve: Curve, stretch: int, step: int, rank: int) -> bool:
        """Return True if there is a point without this rank."""
        ranks = self.points.get((curve, stretch, step))
        return ranks is not None and rank not in ranks

    def place(self, curve: Curve, session: bytes, rank: int, tag: int, position: int) -> Place:
        """Return the place of a rank in a curve, before the first record that a session has yet to settle.

        Args:
            curve: the curve.
            session, rank: those of the record.
            tag: the number of the curve's tag in the session.
            position: the end of the record.

        Returns:
            The stretch, and its last step; `STEP_MIN` if the record continues in the stretch.
        """
        begins = self.begins.get(session, {}).get(tag)
        if begins and begins[0][0] <= position <= self.looked.get(session, 0):
            return begins[bisect_right([begin for begin, _ in begins], position) - 1][1], STEP_MIN
        known = self.order.get(curve)
        if not known:
            return self.last.get(curve, (0, STEP_MIN))
        settled, stretch = self._settled(session, rank), -1
        for number, point_stretch, step, ranks in reversed(known):  # places grow
            if number >= settled:
                continue
            if stretch < 0:
                stretch = point_stretch
            if point_stretch < stretch:
                break
            if ranks is None or rank in ranks:
                return stretch, step
        return max(stretch, 0), STEP_MIN

    def outstanding(self, session: bytes, rank: int) -> dict[Curve, Place]:
        """Return the last points of a rank without a note of the settled position after them: its records come again,
        and no note is possible before they have."""
        found: dict[Curve, Place] = {}
        settled = self._settled(session, rank)
        for curve, known in self.order.items():
            for number, stretch, step, ranks in reversed(known):
                if number < settled:
                    break
                if ranks is None or rank in ranks:
                    found[curve] = (stretch, step)
                    break
        return found

    def _settled(self, session: bytes, rank: int) -> int:
        """Return the number of points that the notes of a session cover."""
        return self.settled.get(session, self.settled_ranks.get(rank, 0))


class _Start:
    """The state of one start of a job."""

    def __init__(self, generation: str) -> None:
        self.generation = generation
        self.curves: list[Curve] = []
        self.last: dict[int, Place] = {}  # by the curve's place in the list
        self.alone: dict[int, tuple[bytes, int]] = {}
        self.numbers: dict[str, float] = {}
        self.marks: list[str] = []  # which ranks
        # Of each point, in the order of the files: curve and mark by their places, stretch and step.
        self.columns: list[array[int]] = [array("q") for _ in range(4)]
        self.forgotten = 0  # so many points before these
        self.restarts: list[Restarted] = []
        self.looked: dict[bytes, int] = {}
        self.looking: dict[bytes, int] = {}  # the same, before notes of how far sessions are
        self.begins: dict[bytes, dict[int, Begins]] = {}
        self.settled: dict[bytes, int] = {}
        self.settled_ranks: dict[int, int] = {}
        self.ranks: dict[bytes, int] = {}  # of sessions
        self.places: dict[Curve, int] = {}
        self.mark_places: dict[str, int] = {}

    @property
    def count(self) -> int:
        """The number of points, including forgotten ones."""
        return self.forgotten + len(self.columns[0])

    def place(self, curve: Curve) -> int:
        """Return the place of a curve in the list."""
        place = self.places.get(curve)
        if place is None:
            place = self.places[curve] = len(self.curves)
            self.curves.append(curve)
        return place

    def mark(self, text: str) -> int:
        """Return the place of a mark in the list."""
        mark = self.mark_places.get(text)
        if mark is None:
            mark = self.mark_places[text] = len(self.marks)
            self.marks.append(text)
        return mark

    def add(self, curve: Curve, mark: str, stretch: int, step: int) -> None:
        """Add a point."""
        place = self.place(curve)
        self.last[place] = max(self.last.get(place, (0, STEP_MIN)), (stretch, step))
        for column, number in zip(self.columns, (place, self.mark(mark), stretch, step), strict=True):
            column.append(number)

    def trim(self) -> None:
        """Forget all but the last points."""
        if len(self.columns[0]) > 2 * POINTS_MAX:
            self.forgotten += len(self.columns[0]) - POINTS_MAX
            for column in self.columns:
                del column[:-POINTS_MAX]

    def look(self, text: str) -> None:
        """Take a note of `rank_notes.encode_looked`."""
        for item in decode_looked(text):
            if item.tag < 0:
                self.looking[item.session] = item.position
                continue
            begins = self.begins.setdefault(item.session, {}).setdefault(item.tag, [])
            if not begins or item.begin > begins[-1][0]:
                begins.append((item.begin, item.stretch))

    def settle(self, sessions: Iterable[bytes]) -> None:
        """Note that the notes of these sessions cover all points up to here."""
        for session in sessions:
            self.settled[session] = self.count
            if session in self.looking:  # what was said before this came whole
                # A daemon that has just begun may have seen less of it than the one before.
                self.looked[session] = max(self.looking.pop(session), self.looked.get(session, 0))
            if session in self.ranks:
                self.settled_ranks[self.ranks[session]] = self.count

    def history(self, ordered: bool) -> History:
        """Return the history; ``ordered``: also for `History.place`."""
        curves, ranks = self.curves, [decode_ranks(mark) for mark in self.marks]
        points: dict[tuple[Curve, int, int], frozenset[int] | None] = {}
        order: dict[Curve, list[tuple[int, int, int, frozenset[int] | None]]] = {}
        first = max(0, len(self.columns[0]) - POINTS_MAX)
        columns = (column[first:] for column in self.columns)
        for number, (curve, mark, stretch, step) in enumerate(zip(*columns, strict=True), self.forgotten + first):
            points[curves[curve], stretch, step] = ranks[mark]
            if ordered:
                order.setdefault(curves[curve], []).append((number, stretch, step, ranks[mark]))
        return History(
            {curves[place]: last for place, last in self.last.items()},
            points,
            {curves[place]: known for place, known in self.alone.items()},
            dict(self.numbers),
            list(self.restarts),
            dict(self.looked),
            {session: {tag: list(begins) for tag, begins in tags.items()} for session, tags in self.begins.items()},
            dict(self.settled),
            dict(self.settled_ranks),
            order,
        )

    # --- for checkpoints -------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """Return the state without the points, for JSON."""
        return {
            "generation": self.generation,
            "curves": self.curves,
            "last": list(self.last.items()),
            "alone": [[place, session.hex(), step] for place, (session, step) in self.alone.items()],
            "numbers": self.numbers,
            "marks": self.marks,
            "points": len(self.columns[0]),
            "forgotten": self.forgotten,
            "restarts": [restart.encode() for restart in self.restarts],
            "looked": {session.hex(): position for session, position in self.looked.items()},
            "looking": {session.hex(): position for session, position in self.looking.items()},
            "begins": [[session.hex(), list(tags.items())] for session, tags in self.begins.items()],
            "settled": {session.hex(): count for session, count in self.settled.items()},
            "settled_ranks": list(self.settled_ranks.items()),
            "ranks": {session.hex(): rank for session, rank in self.ranks.items()},
        }

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> _Start:
        """The inverse of `dump`.

        Raises:
            ValueError, KeyError, TypeError: it is none of those.
        """
        start = cls(dumped["generation"])
        start.curves = [(tag, histogram) for tag, histogram in dumped["curves"]]
        start.last = {place: (stretch, step) for place, (stretch, step) in dumped["last"]}
        start.alone = {place: (bytes.fromhex(session), step) for place, session, step in dumped["alone"]}
        start.numbers, start.marks, start.forgotten = dumped["numbers"], dumped["marks"], dumped["forgotten"]
        start.restarts = [known for known in map(decode_restarted, dumped["restarts"]) if known is not None]
        start.looked = {bytes.fromhex(session): position for session, position in dumped["looked"].items()}
        start.looking = {bytes.fromhex(session): position for session, position in dumped["looking"].items()}
        start.begins = {
            bytes.fromhex(session): {tag: [(begin, stretch) for begin, stretch in begins] for tag, begins in tags}
            for session, tags in dumped["begins"]
        }
        start.settled = {bytes.fromhex(session): count for session, count in dumped["settled"].items()}
        start.settled_ranks = dict(dumped["settled_ranks"])
        start.ranks = {bytes.fromhex(session): rank for session, rank in dumped["ranks"].items()}
        start.places = {curve: place for place, curve in enumerate(start.curves)}
        start.mark_places = {mark: place for place, mark in enumerate(start.marks)}
        return start


class Reduced:
    """Follows the events of a folder, and keeps the points of each job's last start.

    A point takes 32 bytes of memory, for any number of ranks; except for the last `POINTS_MAX` of a job, only the last
    place of each curve is kept.
    """

    def __init__(self) -> None:
        self.generation = ""  # that logs; nothing is followed before one does
        self.past: set[str] = set()  # those that another start of their job has followed
        self._starts: dict[str, _Start] = {}  # by the job; who has logged last comes last
        self._start: _Start | None = None  # that of the generation
        self.mark: str | None = None  # of the events that follow: which ranks; None where a session's records do
        self._stretch = 0

    def begin_file(self) -> None:
        """Begin a file: a mark is valid only in its file."""
        self.mark, self._stretch = None, 0

    @property
    def generations(self) -> list[str]:
        """The known generations that no other start of their job has followed."""
        return [start.generation for start in self._starts.values()]

    def follow(self, writer: str, settled: Iterable[bytes] = ()) -> None:
        """Take the mark of the next event, which has one.

        Args:
            writer: the mark.
            settled: the sessions that it settles further, if it is such a note.
        """
        self.mark = None
        kind, start = writer[:1], self._start
        if kind == "R":
            self.mark, self._stretch = writer, decode_stretch(writer)
        elif kind == "G":
            self._begin(writer[1:])
        elif start is None:
            return
        elif kind == "S":
            start.settle(settled)
        elif kind == MEMBER:
            member = decode_member(writer)
            if member is not None:
                start.ranks[member[1]] = member[0]
        elif kind == LOOKED:
            start.look(writer)
        elif kind == RESTARTED:
            restart = decode_restarted(writer)
            if restart is not None and len(start.restarts) < RESTARTS_MAX:
                start.restarts.append(restart)

    def _begin(self, generation: str) -> None:
        self.generation = generation
        job = generation.partition(".")[0]
        start = self._starts.pop(job, None)
        if start is None or start.generation != generation:
            if start is not None:
                self.past.add(start.generation)
            start = _Start(generation)
            self.past.discard(generation)
        self._start = self._starts[job] = start
        while len(self._starts) > JOBS_MAX:
            del self._starts[next(iter(self._starts))]

    def values(self, session: bytes, step: int, values: Iterable[tuple[str, bool, float]]) -> None:
        """Take the values of an event.

        Args:
            session: the session of the record; empty if it belongs to none.
            step: its step.
            values: tag, True for a histogram, and the number of a scalar.
        """
        start = self._start
        if start is None:
            return
        for tag, histogram, number in values:
            if self.mark is None:
                start.alone[start.place((tag, histogram))] = (session, step)
                continue
            start.add((tag, histogram), self.mark, self._stretch, step)
            start.numbers[tag] = number
        start.trim()

    def history(self, generation: str, ordered: bool = True) -> History:
        """Return the points of one generation, in the order of arrival; ``ordered``: also for `History.place`."""
        for start in self._starts.values():
            if start.generation == generation:
                return start.history(ordered)
        return History()

    # --- for checkpoints -------------------------------------------------------------------------------------

    COLUMNS: ClassVar = "qqqq"  # of `points`

    def points(self) -> list[array[int]]:
        """Return the points in columns, each of its type in `COLUMNS`, those of each start together."""
        columns: list[array[int]] = [array(kind) for kind in self.COLUMNS]
        for start in self._starts.values():
            for column, more in zip(columns, start.columns, strict=True):
                column.extend(more)
        return columns

    def dump(self) -> dict[str, Any]:
        """Return the state without the points, for JSON."""
        return {
            "generation": self.generation,
            "past": sorted(self.past),
            "mark": self.mark,
            "starts": [start.dump() for start in self._starts.values()],
        }

    @classmethod
    def load(cls, dumped: dict[str, Any], points: list[array[int]]) -> Reduced:
        """The inverse of `dump` and `points`.

        Raises:
            ValueError, KeyError, TypeError: it is none of those.
        """
        reduced = cls()
        reduced.generation, reduced.mark = dumped["generation"], dumped["mark"]
        reduced._stretch = decode_stretch(reduced.mark or "")
        reduced.past = set(dumped["past"])
        at = 0
        for known in dumped["starts"]:
            start, count = _Start.load(known), known["points"]
            start.columns = [column[at : at + count] for column in points]
            reduced._starts[start.generation.partition(".")[0]] = start
            at += count
        if {len(column) for column in points} != {at}:
            raise ValueError("columns of other lengths")
        if reduced.generation:
            reduced._start = reduced._starts[reduced.generation.partition(".")[0]]
        return reduced
