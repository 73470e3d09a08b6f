"""Notes of the ledger with the settled positions of sessions whose records are in points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from ..tfevents.event_builder import note
from ..tfevents.ledger import Entry, Marker
from ..tfevents.rank_notes import Looked, Restarted, encode_looked, encode_member
from ..tfevents.scalar_columns import Piece
from .pending import Member, Shared
from .watermarks import Frontier


class SettledNotes:
    """Writes notes behind the points that they settle.

    Args:
        members: the sessions.
        frontier: what is out.
        marker: gives the marker of the file that is being written.
        entry: gives the working ledger of a session.
    """

    def __init__(
        self,
        members: Mapping[bytes, Member],
        frontier: Frontier,
        marker: Callable[[], Marker],
        entry: Callable[[bytes], Entry],
    ) -> None:
        self._members, self._frontier, self._marker, self._entry = members, frontier, marker, entry
        self._restarts: list[Restarted] = []  # that have come
        self._settled: set[bytes] = set()  # sessions that what is encoded takes further
        self._out: set[int] = set()  # ranks that are in points which are encoded, without notes behind them

    def restarted(self, restart: Restarted) -> None:
        """Note that a session has reached a restart."""
        self._restarts.append(restart)

    def went_out(self, ranks: Iterable[int]) -> None:
        """Note that points with these ranks were written."""
        self._out.update(ranks)

    def write(self, pieces: list[Piece]) -> None:
        """Append notes of the read and settled positions of sessions with encoded points."""
        known = [member for member in self._members.values() if not member.outstanding]
        moved, looked = [], []
        for member in known:
            said = self._look(member) if member.unmarked or member.rank in self._out else []
            looked += said
            if said or member.unmarked:
                moved.append(member)
        texts = [restart.encode() for restart in self._restarts]
        for member in moved:
            if not member.named:
                texts.append(encode_member(member.rank, member.session))
                member.named = True
        texts += encode_looked(looked)
        if moved or texts:
            marker = self._marker()
            marker.interrupt()
            texts += marker.settle({member.session: self._entry(member.session) for member in moved})
            pieces += [note(text) for text in texts]
        for member in moved:
            member.unmarked = False
            self._settled.add(member.session)
        self._restarts.clear()
        self._out.clear()

    def take_settled(self) -> list[bytes]:
        """Return the sessions with notes since the last call."""
        settled, self._settled = list(self._settled), set()
        return settled

    def _look(self, member: Member) -> list[Looked]:
        """Return the notes of a session with records in points, and earlier ones that are not."""
        parts = [part for part in member.parts if isinstance(part, Shared)]
        outs = [self._frontier.is_out(part.tags, part.stretches, part.steps) for part in parts]
        if not any(out.any() for out in outs):
            return []
        for part, out in zip(parts, outs, strict=True):
            member.listed.update(set(part.tags[out].tolist()))
        taken = member.taken()
        return [*_begins(member, parts, taken), Looked(member.session, taken)]


def _begins(member: Member, parts: list[Shared], taken: int) -> list[Looked]:
    """Return the begins of stretches of a session's listed tags that have no note yet."""
    found = []
    listed = np.array(sorted(member.listed), np.int64)
    for part in parts:
        places = np.flatnonzero(np.isin(part.tags, listed))
        keys = np.stack([part.tags[places], part.stretches[places]])
        _, firsts = np.unique(keys, axis=1, return_index=True)
        for index in np.sort(firsts).tolist():
            place = int(places[index])
            key = int(part.tags[place]), int(part.stretches[place])
            if key not in member.said:
                member.said.add(key)
                begin = int(part.ends[place])
                found.append(Looked(member.session, taken, member.ids[key[0]], begin, key[1]))
    return found
