"""What becomes of a batch of a run that several have logged into: which tags end before which of its records, and which
records go beside the run (`runs_beside`).

It is made before the batch is encoded, as what goes beside the run has to be known, and written there, before anything
of the batch is settled in the run itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.protocol.kinds import (
    EVENT,
    RESTART,
    ROW,
    kind_of,
)
from tbxd_client.protocol.records import Record

from ..batch import Batch, Scalars, Single
from ..encode.raw_event import what_of
from ..encode.rejections import Refused
from ..tfevents.lineage import ALL, UNKNOWN, beside_text, digest_of, purge_text
from .resume import Known, Lives, Member, Restart

COUNTED = np.iinfo(np.int64).max  # instead of a step that whoever writes the file counts: nobody goes back there
NOBODY = -1  # as the owner of a tag: it has not been logged here
Mask = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Plan:
    """By the places of a batch's items: what is written before one, and which of its records go beside the run."""

    before: dict[int, bytes] = field(default_factory=dict)
    restarts: dict[int, Restart] = field(default_factory=dict)
    away: dict[int, Mask] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # that have to be in the file before anything goes beside it
    why: str = ""  # what was the first of it, where that begins
    offered: bool = False  # what goes beside the run is on its way there

    def parts(self, batch: Batch) -> Iterator[tuple[int, Scalars | Single, bool]]:
        """The items of a batch with their places, cut where records begin or end to go beside the run; and whether."""
        for index, item in enumerate(batch.items):
            away = self.away.get(index)
            if away is None or isinstance(item, Single):
                yield index, item, away is not None
                continue
            edges = [0, *(np.flatnonzero(away[1:] != away[:-1]) + 1).tolist(), len(away)]
            for begin, end in pairwise(edges):
                yield index, Scalars(item.values[begin:end], item.ends[begin:end]), bool(away[begin])


class Planner:
    """Makes the plans of a run.

    Args:
        lives: of the run.
    """

    def __init__(self, lives: Lives) -> None:
        self._lives = lives

    def whole(self, batch: Batch) -> Plan | None:
        """The plan of a batch that goes beside the run as a whole; None where it does not."""
        position = self._lives.members[batch.session].beside.get(ALL)
        first = batch.items[0]
        if position is None or (int(first.ends[0]) if isinstance(first, Scalars) else first.end) <= position:
            return None
        sizes = (len(item.values) if isinstance(item, Scalars) else 1 for item in batch.items)
        return Plan(away={index: np.ones(size, np.bool_) for index, size in enumerate(sizes)})

    def is_quiet(self, batch: Batch, settled: int) -> bool:
        """Whether nothing of a batch concerns anybody else. It is then taken note of; else everything that is encoded
        has to be in the files, and be read, before `plan`.

        Args:
            settled: the position up to which the run has the session.
        """
        lives = self._lives
        if any(isinstance(item, Single) and _is(item, RESTART) and item.end > settled for item in batch.items):
            return False
        known, member = lives.known, lives.members[batch.session]
        if member.beside or lives.reduces:
            return False
        if known is None:
            return True
        lives.later(member)
        taken = []
        for item in batch.items:
            _, places, steps, ends = self._points(known, member, batch, item)
            if not len(places):
                continue
            if int(ends[0]) <= settled:
                fresh = ends > settled
                places, steps = places[fresh], steps[fresh]
            own = not member.followed and bool((known.owner[places] == member.place).all())
            if not own and bool(self._conflicts(known, member, places, steps).any()):
                return False
            taken.append((places, steps, own))
        for places, steps, own in taken:
            _take(known, member, places, steps, batch.numbered, own)
        return True

    def plan(self, batch: Batch, settled: int) -> Plan:
        """What becomes of a batch."""
        lives = self._lives
        known, member = lives.known, lives.members[batch.session]
        assert known is not None
        plan = Plan()
        lives.later(member)
        for index, item in enumerate(batch.items):
            if isinstance(item, Single) and item.end <= settled:
                continue
            if isinstance(item, Single) and self._beside(member, "", item.end):
                plan.away[index] = np.ones(1, np.bool_)
            elif isinstance(item, Single) and _is(item, RESTART):
                plan.restarts[index] = self._restart(known, member, item.record)
            else:
                self._item(plan, known, member, batch, index, settled)
        return plan

    def _item(self, plan: Plan, known: Known, member: Member, batch: Batch, index: int, settled: int) -> None:
        """What becomes of an item that logs something, and is not settled as a whole."""
        item = batch.items[index]
        names, places, steps, ends = self._points(known, member, batch, item)
        fresh = ends > settled
        away = fresh & self._away(member, names, places, ends)
        cuts: dict[str, int] = {}
        seen: set[int] = set()
        others = self._conflicts(known, member, places, steps, firsts=True)
        for place in np.flatnonzero(fresh & ~away & others).tolist():
            tag, step = int(places[place]), int(steps[place])
            purged = member.purged is not None and step != COUNTED and step >= member.purged
            if away[place] or (tag in seen and not purged):
                continue
            seen.add(tag)  # what follows is this life's own, up to where a later one has said that it goes on
            if not self._goes_back(known, member, tag, step):
                continue
            if self._ends(known, member, tag, step, item):
                cuts[known.names[tag]] = step
                known.era[tag] = member.place
                continue
            self._divert(plan, known, member, batch, tag, int(ends[place]) - 1, step)
            away = fresh & self._away(member, names, places, ends)
        here = fresh & ~away
        _take(known, member, places[here], steps[here], batch.numbered)
        if cuts:
            plan.before[index] = self._lives.resume.end(cuts, member.who.key)
        if away.any():
            plan.away[index] = np.ones(1, np.bool_) if isinstance(item, Single) else away

    # --- points ----------------------------------------------------------------------------------------------

    def _points(
        self, known: Known, member: Member, batch: Batch, item: Scalars | Single
    ) -> tuple[list[str], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Names (of a record that is no scalar), places of tags, steps and positions of what an item logs."""
        if isinstance(item, Scalars):
            numbers = item.values["tag"].astype(np.int64)
            high = int(numbers.max())
            if high >= len(member.tags):
                grown = np.full(2 * high, -1, np.int32)
                grown[: len(member.tags)] = member.tags
                member.tags = grown
            if bool((member.tags.take(numbers) < 0).any()):
                for number in sorted(set(numbers[member.tags.take(numbers) < 0].tolist())):
                    member.tags[number] = known.place(batch.tag(number).tag)
            places = member.tags.take(numbers).astype(np.int64)
            steps, ends = item.values["step"].astype(np.int64), item.ends
            if batch.numbered:  # who writes the file counts these: nobody goes back
                counted = np.array([batch.tag(number).numbered for number in numbers.tolist()], np.bool_)
                steps = np.where(counted, COUNTED, steps)
            return [], places, steps, ends
        names = _names_of(batch, item.record) if item.record is not None else []
        places = np.array([known.place(name) for name in names], np.int64)
        steps = np.full(len(names), item.record.step if item.record is not None else 0, np.int64)
        if batch.numbered and item.record is not None and names and _is_numbered(batch, item.record):
            steps[:] = COUNTED
        return names, places, steps, np.full(len(names), item.end, np.int64)

    def _conflicts(
        self, known: Known, member: Member, places: Any, steps: Any, firsts: bool = False
    ) -> npt.NDArray[np.bool_]:
        """Which points are of a tag that somebody else was the last to log, and behind that; with ``firsts``, of such a
        tag at all."""
        owners = known.owner[places]
        foreign = (owners != member.place) & (owners != NOBODY)
        if not firsts:
            foreign &= steps <= known.last[places]
            if self._lives.reduces:  # ranks go on in their curve: nobody may come between their points
                others = set(owners[(owners != member.place) & (owners != NOBODY)].tolist())
                foreign |= np.isin(owners, [owner for owner in others if self._lives.is_held(owner)])
        later = self._lives.later(member)
        if member.followed:
            foreign |= later[known.era[places]]
            if member.purged is not None:
                foreign |= (steps >= member.purged) & (steps != COUNTED)
        result: npt.NDArray[np.bool_] = foreign
        return result

    def _goes_back(self, known: Known, member: Member, tag: int, step: int) -> bool:
        return bool(self._conflicts(known, member, np.array([tag]), np.array([step]))[0])

    def _is_superseded(self, known: Known, member: Member, tag: int, step: int) -> bool:
        later = self._lives.later(member)
        return bool(later[known.era[tag]]) or (member.purged is not None and step >= member.purged)

    def _ends(self, known: Known, member: Member, tag: int, step: int, item: Scalars | Single) -> bool:
        """Whether a session takes the place of who was the last to log a tag."""
        if self._is_superseded(known, member, tag, step):
            return False
        one = isinstance(item, Single) and item.record is not None and kind_of(item.record.kind).is_single
        return one or self._lives.goes_on(member, int(known.owner[tag]), step)

    # --- beside the run --------------------------------------------------------------------------------------

    def _divert(
        self, plan: Plan, known: Known, member: Member, batch: Batch, tag: int, position: int, step: int
    ) -> None:
        """All of a session goes beside the run from here on; or a tag, of one that goes on with the run's work, or was
        here before whoever is further in it."""
        lives = self._lives
        late = self._is_superseded(known, member, tag, step)
        name = known.names[tag]
        which = ALL
        owner = int(known.owner[tag])
        first = lives.is_after(owner, member) or lives.has_predecessor(member, step)
        once = not lives.is_alive(owner, member) and known.is_said_once(tag)
        if not late and (first or once or batch.numbered):  # of a run that is counted together the counts go on in it
            which = digest_of(name)
        member.beside.setdefault(which, position)
        plan.notes.append(beside_text(batch.session, position, which))
        plan.why = f"{name!r} at step {step}"

    def _beside(self, member: Member, name: str, end: int) -> bool:
        position = member.beside.get(ALL)
        if position is not None and end > position:
            return True
        position = member.beside.get(digest_of(name)) if name else None
        return position is not None and end > position

    def _away(self, member: Member, names: list[str], places: Any, ends: Any) -> npt.NDArray[np.bool_]:
        """Which points go beside the run. Of a record with several tags all do where one does."""
        away = np.zeros(len(places), np.bool_)
        known = self._lives.known
        if not member.beside or known is None:
            return away
        position = member.beside.get(ALL)
        if position is not None:
            away |= ends > position
        if len(member.beside) > (position is not None):
            for place in set(places.tolist()):
                position = member.beside.get(digest_of(known.names[place]))
                if position is not None:
                    away |= (places == place) & (ends > position)
        if names and away.any():
            away[:] = True
        return away

    # --- restarts --------------------------------------------------------------------------------------------

    def _restart(self, known: Known, member: Member, record: Record | None) -> Restart:
        """A session says itself from where on the run goes: what has come before it ends there, but for tags of those
        that live and of those that have begun later."""
        assert record is not None
        lives, step = self._lives, record.step
        count = len(known.names)
        furthest = np.maximum(known.last[:count], known.most[:count])
        found = np.flatnonzero((known.owner[:count] != NOBODY) & (furthest >= step)).tolist()
        stay: dict[int, bool] = {}
        for owner in {int(known.owner[tag]) for tag in found}:
            other = lives.lineage.lives[owner]
            mine = owner in (UNKNOWN, member.place) or lives.precedes(member, owner)
            stay[owner] = (
                not mine and (lives.is_alive(owner, member) or lives.is_after(owner, member)) and bool(other.key)
            )
        tags = [tag for tag in found if not stay[int(known.owner[tag])] and not known.names[tag].startswith(lives.keep)]
        if tags:
            known.last[tags] = np.minimum(known.last[tags], step - 1)
            known.most[tags] = np.minimum(known.most[tags], step - 1)
            known.era[tags] = member.place
        lives.lineage.purges.append((member.place, step))
        names = [known.names[tag] for tag in tags]
        events = lives.resume.end(dict.fromkeys(names, step), member.who.key)
        return Restart(names, events, all=len(tags) == len(found), note=purge_text(member.who.key, step))


def _take(known: Known, member: Member, places: Any, steps: Any, numbered: bool, own: bool = False) -> None:
    """Points of a session are logged here; ``own``: whose tags are its own."""
    if not len(places):
        return
    if numbered:
        counted = steps == COUNTED
        places, steps = places[~counted], steps[~counted]
    known.last[places] = steps
    np.maximum.at(known.most, places, steps)
    if not own:
        known.owner[places] = member.place


def _is(item: Single, kind: int) -> bool:
    return item.record is not None and item.record.kind == kind


def _is_numbered(batch: Batch, record: Record) -> bool:
    """Whether who writes the file counts the steps of a record; of a row its first tag says so."""
    return batch.tag(batch.row(record.tag).tags[0] if record.kind == ROW else record.tag).numbered


def _names_of(batch: Batch, record: Record) -> list[str]:
    """The tags under which TensorBoard shows a record."""
    if record.kind == ROW:
        return [batch.tag(tag).tag for tag in batch.row(record.tag).tags]
    if record.kind == EVENT:
        try:
            summary = what_of(record).get("summary")
        except (Refused, ValueError):
            return []
        return [value.tag for value in summary.value] if summary is not None else []
    tag = batch.tag(record.tag).tag
    return [tag + suffix for suffix in kind_of(record.kind).suffixes]
