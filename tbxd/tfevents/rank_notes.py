"""Notes in an event file about the records of ranks, so that the next daemon recognises repeated records.

A point of several ranks is written when all of them have logged it, and not in the order of any session. So records
after the settled position of a session may be written already; and a rank that goes back logs a step that is written,
as another record. The place of a record in the stream distinguishes both cases: these notes are about the input, so
they are true even if a write is cut off.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .ledger import decode_session, encode_session, texts

MEMBER, LOOKED, RESTARTED = "I", "U", "P"
_MEMBER = re.compile(r"I([0-9a-f]{1,8}),([\w-]{16})", re.ASCII)
_LOOKED = re.compile(
    r"([\w-]{16}),([0-9a-f]{1,15})\b(?:,([0-9a-f]{1,8}),([0-9a-f]{1,15}),([0-9a-f]{1,15})\b)?", re.ASCII
)
_RESTARTED = re.compile(r"P([0-9a-f]{1,8}),([0-9a-f]{1,8}),([\w-]{16}),([0-9a-f]{1,15})", re.ASCII)


def encode_member(rank: int, session: bytes) -> str:
    """Return the text of a note with the rank of a session."""
    return f"{MEMBER}{rank:x},{encode_session(session)}"


def decode_member(text: str) -> tuple[int, bytes] | None:
    """The inverse of `encode_member`; None for another text."""
    match = _MEMBER.fullmatch(text)
    return None if match is None else (int(match[1], 16), decode_session(match[2]))


@dataclass(slots=True, frozen=True)
class Looked:
    """A session's records up to a position have been read, and those of a tag from another position on are in a stretch
    of it. ``tag`` is its number in the session; -1 ends the notes of the session."""

    session: bytes
    position: int
    tag: int = -1
    begin: int = 0
    stretch: int = 0


def encode_looked(items: list[Looked]) -> list[str]:
    """Return the texts of notes, one for each event."""
    return texts(
        LOOKED,
        [
            f"{encode_session(item.session)},{item.position:x}"
            + (f",{item.tag:x},{item.begin:x},{item.stretch:x}" if item.tag >= 0 else "")
            for item in items
        ],
    )


def decode_looked(text: str) -> list[Looked]:
    """Decode one text of `encode_looked`."""
    return [
        Looked(decode_session(session), int(position, 16), *(int(part, 16) for part in (tag, begin, stretch) if part))
        for session, position, tag, begin, stretch in _LOOKED.findall(text[1:])
    ]


@dataclass(slots=True, frozen=True)
class Restarted:
    """A restart of a rank: its number, from 1 on, and its position."""

    number: int
    rank: int
    session: bytes
    position: int

    def encode(self) -> str:
        """Return the text of a note."""
        return f"{RESTARTED}{self.number:x},{self.rank:x},{encode_session(self.session)},{self.position:x}"


def decode_restarted(text: str) -> Restarted | None:
    """The inverse of `Restarted.encode`; None for another text."""
    match = _RESTARTED.fullmatch(text)
    if match is None:
        return None
    number, rank, session, position = match.groups()
    return Restarted(int(number, 16), int(rank, 16), decode_session(session), int(position, 16))
