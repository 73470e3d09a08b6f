"""The ledger: the records of each session in an event file, kept in the file itself.

A record must be written once, whatever is killed. So the event file has the position of each session's records in it;
file and ledger then cannot disagree. The ledger is in ``Event.source_metadata.writer``, which no reader shows:

``tbxd <version>``
    with the first event, ``brain.Event:2``: the file keeps a ledger.
``L<session>,<end>,<count>[,<refusals>[,<drops>]];…``
    what earlier files of the folder hold, carried over at the beginning of a file, so that only the newest has to
    be read. An event with nothing else in it ends the list with ``L.``
``M<ordinal>[=<session>],<end>,<delta>,<count>[,<refusals>]``
    a mark, with an event: that event is the record that ends at position ``end`` of the session, the ``count``-th of
    this run. Each event without a mark that follows is the next record of that session, ``delta`` bytes further on. A
    session is named in full with its first mark in a file and by its ordinal from then on. ``refusals`` says, since the
    session began, how many of the ``count`` were not written, and why: ``reason:number+…``.
``V<ordinal>…``
    the same of scalars, of which an event holds one or several: the event holds all records up to the one that ends
    at ``end``, and each event without a mark that follows holds as many records as it has values. ``delta`` is more
    than the size of a scalar where others stand between them: those of other runs of the session.
``G<generation>``
    ranks of one start of a job, named by this, are reduced from here on; no record.
``R[<ranks>][.<stretch>]``
    with an event: its values, and those of each event without a mark that follows, are what several ranks have logged,
    and no records of one session. ``ranks`` (``<first>[-<last>]+…``) says of which, where it is not all of them,
    ``stretch`` how often the tag had gone back before.
``S<ordinals>[=<session>],<end>,<count>[,<refusals>];…``
    a note, which is no record, of how far sessions are settled whose records are in such events. ``ordinals`` is one,
    or ``<first>-<last>`` of several that are equally far.
``U<session>,<position>[,<tag>,<from>,<stretch>];…``
    notes, before those, of sessions of which something is in such events that they are not settled up to: records up to
    a position have been looked at, and of a tag (its number in the session) those from ``from`` on are in this stretch.
    An item without a tag is the last one of its session, and all of it holds when a note of how far it is has followed.
``I<rank>,<session>``
    a note, before the first of those: a session is this rank's.
``P<number>,<rank>,<session>,<position>``
    a note: the restart (``purge_step``) that stands there is so many-th of its rank.
``N[<session>,<drops>;…]``
    a note of the daemon's own, which is no record: how many records the trainer of a session could not keep, since it
    began. They are no part of its ``count``.

A write that was cut by a kill leaves whole events before the cut; the marks tell exactly which records they are.
Numbers are hexadecimal; a session is 16 letters of URL-safe base64. The whole is described in ``docs/EVENT_FILE.md``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Any

from tbxd_client.protocol.records import RANKS_MAX

OPENING = "tbxd "
CARRY_END = "L."
DELTA_MAX = 0xFFFFFFFF  # bytes from record to record, as a mark may say
OVER = bytes(12)  # no session's id: the entry of all those that are over
NOTE = "N"  # of an event of the daemon's own, which is no record
TEXT_CHARS = 128  # of one event, where it can be: TensorBoard's slow loader logs an error for each longer one
# Numbers have at most 15 digits, the size of a record 8, so that they and their sums fit 64 bits whatever a file holds.
_MARK = re.compile(
    r"([MV])([0-9a-f]{1,15})(?:=([\w-]{16}))?,([0-9a-f]{1,15}),([0-9a-f]{1,8}),([0-9a-f]{1,15})(?:,([\w:+]+))?",
    re.ASCII,
)
# What is carried over may be a little more than a mark said: events that followed it have been added.
_CARRY = re.compile(
    r"([\w-]{16}),([0-7]?[0-9a-f]{1,15}),([0-7]?[0-9a-f]{1,15})\b(?:,([\w:+]*))?(?:,([\w:+]+))?", re.ASCII
)
_SETTLED = re.compile(
    r"([0-9a-f]{1,15})(?:-([0-9a-f]{1,15}))?(?:=([\w-]{16}))?,([0-9a-f]{1,15}),([0-9a-f]{1,15})(?:,([\w:+]+))?",
    re.ASCII,
)
_RANKS = re.compile(r"([0-9a-f]{1,8})(?:-([0-9a-f]{1,8}))?", re.ASCII)
_STRETCH = re.compile(r"[0-9a-f]{1,15}", re.ASCII)
_COUNT = re.compile(r"(\w+):([0-9a-f]{1,15})\b", re.ASCII)
_NOTE = re.compile(r"([\w-]{16}),([\w:+]+)", re.ASCII)


@dataclass(slots=True)
class Entry:
    """The settled records of a session in a run.

    ``end``: the position after its last settled record; ``count``: records settled, that is written or refused;
    ``refused``: those that were not written, by reason; ``dropped``: those that its trainer could not keep, by reason,
    which are not in ``count``. Both dictionaries are replaced, never changed.
    """

    end: int = 0
    count: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def written(self) -> int:
        """The records in the event files."""
        return self.count - sum(self.refused.values())

    def copy(self) -> Entry:
        """Return an independent copy."""
        return Entry(self.end, self.count, self.refused, self.dropped)


Ledger = dict[bytes, Entry]


def encode_session(session: bytes) -> str:
    """Encode 12 bytes as 16 letters."""
    return base64.urlsafe_b64encode(session).decode()


def decode_session(text: str) -> bytes:
    """The inverse of `encode_session`."""
    return base64.urlsafe_b64decode(text)


def _counts(counts: dict[str, int]) -> str:
    return "+".join(f"{reason}:{count:x}" for reason, count in counts.items())


def _refusals(refused: dict[str, int]) -> str:
    return f",{_counts(refused)}" if refused else ""


def _parse_counts(text: str | None) -> dict[str, int]:
    return {reason: int(count, 16) for reason, count in _COUNT.findall(text or "")}


def carry_over(ledger: Ledger) -> Iterator[str]:
    """Yield the texts that carry a ledger into a new file, one for each event."""
    items = [
        f"{encode_session(session)},{entry.end:x},{entry.count:x}"
        + (f",{_counts(entry.refused)},{_counts(entry.dropped)}" if entry.dropped else _refusals(entry.refused))
        for session, entry in ledger.items()
    ]
    yield from texts("L", items)
    yield CARRY_END


def notes(drops: dict[bytes, dict[str, int]]) -> list[str]:
    """Return the texts of notes, at least one, with the records that trainers have dropped since each session began."""
    return texts(NOTE, [f"{encode_session(session)},{_counts(counts)}" for session, counts in drops.items()]) or [NOTE]


def ranges(numbers: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of each range of consecutive numbers; ``numbers`` ascend."""
    begin = last = -2
    for number in numbers:
        if number != last + 1:
            if begin >= 0:
                yield begin, last
            begin = number
        last = number
    if begin >= 0:
        yield begin, last


def _range(begin: int, last: int) -> str:
    return f"{begin:x}" if begin == last else f"{begin:x}-{last:x}"


def encode_ranks(ranks: list[int] | None, stretch: int = 0) -> str:
    """Return the mark of events with points of these ranks, ascending; None: all of them.

    Args:
        stretch: the stretch of the tags of these events.
    """
    whose = "R" if ranks is None else "R" + "+".join(_range(*span) for span in ranges(ranks))
    return f"{whose}.{stretch:x}" if stretch else whose


def decode_stretch(text: str) -> int:
    """Return the stretch of a mark of `encode_ranks`."""
    digits = text.partition(".")[2]
    return int(digits, 16) if _STRETCH.fullmatch(digits) else 0


def decode_ranks(text: str) -> frozenset[int] | None:
    """Return the ranks of a mark of `encode_ranks`."""
    ranks: set[int] = set()
    for begin, last in _RANKS.findall(text[1:].partition(".")[0]):
        first = int(begin, 16)
        ranks.update(range(first, min(int(last or begin, 16), first + RANKS_MAX) + 1))
    return frozenset(ranks) if ranks else None


def texts(kind: str, items: list[str]) -> list[str]:
    """Join items to texts that begin with a letter, as many as fit in each."""
    found: list[str] = []
    for item in items:
        if found and len(found[-1]) + 1 + len(item) <= TEXT_CHARS:
            found[-1] += ";" + item
        else:
            found.append(kind + item)
    return found


class Marker:
    """Makes the marks of one file, for each event; "" for most."""

    def __init__(self) -> None:
        self.generation = ""  # that the file has named last
        self._ordinals: dict[bytes, int] = {}
        self._session = b""
        self._by_value = False
        self._end = 0  # behind the last record that is in an event
        self._delta = 0

    def mark(self, session: bytes, entry: Entry, delta: int, refused: bool = False) -> str:
        """Return the mark of the event that settles ``entry``; ``delta`` is the size of its one record.

        Call it for every event, in the order of the file. ``refused`` means that this record is not written: its event
        holds only the mark.
        """
        follows = session == self._session and not self._by_value and entry.end == self._end + self._delta
        if follows and not refused:
            self._end = entry.end
            return ""
        return self._mark("M", session, entry, delta)

    def mark_values(self, session: bytes, entry: Entry, delta: int, records: int) -> str:
        """Return the mark of an event whose values are each a record; ``records`` is their number.

        ``delta``: the bytes for each record by which a following event without a mark ends later.
        """
        if session == self._session and self._by_value and entry.end == self._end + records * self._delta:
            self._end = entry.end
            return ""
        return self._mark("V", session, entry, delta)

    def interrupt(self) -> None:
        """Note an event that belongs to no session."""
        self._session = b""

    def settle(self, entries: dict[bytes, Entry]) -> list[str]:
        """Return the texts of notes, one for each event, with the settled records of sessions."""
        self.interrupt()
        items = []
        equal: dict[tuple[int, int, str], list[int]] = {}
        for session, entry in entries.items():
            far = (entry.end, entry.count, _refusals(entry.refused))
            ordinal = self._ordinals.get(session)
            if ordinal is None:
                ordinal = self._ordinals[session] = len(self._ordinals)
                items.append(f"{ordinal:x}={encode_session(session)},{far[0]:x},{far[1]:x}{far[2]}")
            else:
                equal.setdefault(far, []).append(ordinal)
        for (end, count, refused), ordinals in equal.items():
            items += [f"{_range(*span)},{end:x},{count:x}{refused}" for span in ranges(sorted(ordinals))]
        return texts("S", items)

    def pass_over(self, end: int) -> None:
        """Note events without a mark, up to the one whose last record ends at ``end``."""
        self._end = end

    def _mark(self, letter: str, session: bytes, entry: Entry, delta: int) -> str:
        self._session = session
        self._by_value = letter == "V"
        self._delta = delta
        self._end = entry.end
        ordinal = self._ordinals.get(session)
        if ordinal is None:
            ordinal = self._ordinals[session] = len(self._ordinals)
            name = f"{letter}{ordinal:x}={encode_session(session)}"
        else:
            name = f"{letter}{ordinal:x}"
        return f"{name},{entry.end:x},{delta:x},{entry.count:x}{_refusals(entry.refused)}"


class LedgerReader:
    """Follows the events of one file, with the ledger after each."""

    def __init__(self) -> None:
        self.ledger: Ledger = {}
        self.begun = False  # there was an event
        self.ours = False  # the file keeps a ledger
        self.complete = False  # what earlier files hold has been carried over whole
        self.session = b""  # whose record the last event is; empty where it is none
        self.settled: list[bytes] = []  # the sessions that the last event, a note, has taken further
        self._owner = b""  # of the current entry
        self._sessions: dict[int, bytes] = {}
        self._current: Entry | None = None
        self._by_value = False
        self._delta = 0

    def follow(self, writer: str, values: int = 1) -> None:
        """Note the next event.

        Args:
            writer: its ``source_metadata.writer``, "" if it has none.
            values: the number of values of its summary.
        """
        if writer:
            self.session = b""
        if not self.begun:
            self.begun, self.ours = True, writer.startswith(OPENING)
        elif not self.ours:
            return
        elif not writer:
            self.pass_over(1, values)
        elif writer == CARRY_END:
            self.complete = True
        elif writer.startswith(("R", "G", "I", "U", "P")):
            self._current = None
        elif writer.startswith("S"):
            self._current = None
            self._settle(writer)
        elif writer.startswith("L"):
            for session, end, count, refused, dropped in _CARRY.findall(writer):
                entry = Entry(int(end, 16), int(count, 16), _parse_counts(refused), _parse_counts(dropped))
                self.ledger[decode_session(session)] = entry
        elif writer.startswith(NOTE):
            for session, dropped in _NOTE.findall(writer):
                self.ledger.setdefault(decode_session(session), Entry()).dropped = _parse_counts(dropped)
        else:
            self._mark(writer)

    def pass_over(self, events: int, values: int) -> None:
        """Note several events without a mark, and the sum of their values."""
        if self._current is not None:
            self.session = self._owner
            records = values if self._by_value else events
            self._current.end += records * self._delta
            self._current.count += records

    def dump(self) -> dict[str, Any]:
        """Return the state for JSON."""
        return {
            "ledger": dump_ledger(self.ledger),
            "begun": self.begun,
            "ours": self.ours,
            "complete": self.complete,
            "session": self.session.hex(),
            "sessions": {ordinal: session.hex() for ordinal, session in self._sessions.items()},
            "owner": self._owner.hex(),
            "counts": self._current is not None,
            "by_value": self._by_value,
            "delta": self._delta,
        }

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> LedgerReader:
        """The inverse of `dump`.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: the data are invalid.
        """
        reader = cls()
        reader.ledger = load_ledger(dumped["ledger"])
        reader.begun, reader.ours, reader.complete = dumped["begun"], dumped["ours"], dumped["complete"]
        reader.session, reader._owner = bytes.fromhex(dumped["session"]), bytes.fromhex(dumped["owner"])
        reader._sessions = {int(ordinal): bytes.fromhex(text) for ordinal, text in dumped["sessions"].items()}
        reader._current = reader.ledger[reader._owner] if dumped["counts"] else None
        reader._by_value, reader._delta = dumped["by_value"], dumped["delta"]
        return reader

    def _settle(self, writer: str) -> None:
        self.settled = []
        for first, last, session, end, count, refused in _SETTLED.findall(writer):
            begin = int(first, 16)
            if session:
                self._sessions[begin] = decode_session(session)
            for ordinal in range(begin, min(int(last or first, 16), begin + len(self._sessions)) + 1):
                named = self._sessions.get(ordinal)
                if named is not None:
                    self.settled.append(named)
                    entry = self.ledger.setdefault(named, Entry())
                    entry.end, entry.count, entry.refused = int(end, 16), int(count, 16), _parse_counts(refused)

    def _mark(self, writer: str) -> None:
        match = _MARK.fullmatch(writer)
        if match is None:
            return
        letter, ordinal, session, end, delta, count, refused = match.groups()
        if session:
            self._sessions[int(ordinal, 16)] = decode_session(session)
        named = self._sessions.get(int(ordinal, 16))
        if named is None:
            return
        self._current = self.ledger.setdefault(named, Entry())
        self._current.end = int(end, 16)
        self._current.count = int(count, 16)
        self._current.refused = _parse_counts(refused)
        self._by_value = letter == "V"
        self._delta = int(delta, 16)
        self.session = self._owner = named


def dump_ledger(ledger: Ledger) -> list[list[Any]]:
    """Return a ledger for JSON."""
    return [[session.hex(), entry.end, entry.count, entry.refused, entry.dropped] for session, entry in ledger.items()]


def load_ledger(dumped: list[list[Any]]) -> Ledger:
    """The inverse of `dump_ledger`.

    Raises:
        ValueError, TypeError: the data are not a ledger.
    """
    return {
        bytes.fromhex(session): Entry(end, count, refused, dropped) for session, end, count, refused, dropped in dumped
    }


def forgotten(ledger: Ledger, over: Container[bytes]) -> Ledger:
    """Return a ledger in which sessions that are over are one entry, `OVER`, with their sums."""
    rest: Ledger = {}
    total = ledger[OVER].copy() if OVER in ledger else Entry()
    for session, entry in ledger.items():
        if session == OVER:
            continue
        if session not in over:
            rest[session] = entry
            continue
        total.count += entry.count
        total.refused = _sum(total.refused, entry.refused)
        total.dropped = _sum(total.dropped, entry.dropped)
    total.end = total.count  # it grows with what is in it, so that the later one counts where two are merged
    if total.count or total.dropped:
        rest[OVER] = total
    return rest


def _sum(counts: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    return {reason: counts.get(reason, 0) + more.get(reason, 0) for reason in {**counts, **more}}


def copied(ledger: Ledger) -> Ledger:
    """Return an independent copy."""
    return {session: entry.copy() for session, entry in ledger.items()}


def merge(into: Ledger, other: Ledger) -> None:
    """Keep the entry with the greater end of each session."""
    for session, entry in other.items():
        mine = into.get(session)
        if mine is None or mine.end < entry.end:
            into[session] = entry
