"""Notes in an event file about the records of ranks, so that a daemon that comes next can tell what comes again.

What several ranks have logged goes out when all of them have, and not in the order of any session. So of a session
that is settled up to a position, records behind it may be out already, and a rank that goes back logs a step that is
out and is another record. Which of both one is follows from its place in the stream: what is said here is about what
came in, so it is true whatever of a write is cut off.
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
    """The text of a note that says whose a session is."""
    return f"{MEMBER}{rank:x},{encode_session(session)}"


def decode_member(text: str) -> tuple[int, bytes] | None:
    """The inverse of `encode_member`; None where it is none."""
    match = _MEMBER.fullmatch(text)
    return None if match is None else (int(match[1], 16), decode_session(match[2]))


@dataclass(slots=True, frozen=True)
class Looked:
    """Records of a session up to a position have been looked at, and those of a tag from another one on are in a
    stretch of it. ``tag`` is its number in the session; -1 says that this was all of the session."""

    session: bytes
    position: int
    tag: int = -1
    begin: int = 0
    stretch: int = 0


def encode_looked(items: list[Looked]) -> list[str]:
    """The texts of notes, each an event's."""
    return texts(
        LOOKED,
        [
            f"{encode_session(item.session)},{item.position:x}"
            + (f",{item.tag:x},{item.begin:x},{item.stretch:x}" if item.tag >= 0 else "")
            for item in items
        ],
    )


def decode_looked(text: str) -> list[Looked]:
    """What one text of `encode_looked` says."""
    return [
        Looked(decode_session(session), int(position, 16), *(int(part, 16) for part in (tag, begin, stretch) if part))
        for session, position, tag, begin, stretch in _LOOKED.findall(text[1:])
    ]


@dataclass(slots=True, frozen=True)
class Restarted:
    """A restart of a rank: which of them it is, from 1 on, and where it stands."""

    number: int
    rank: int
    session: bytes
    position: int

    def encode(self) -> str:
        """The text of a note."""
        return f"{RESTARTED}{self.number:x},{self.rank:x},{encode_session(self.session)},{self.position:x}"


def decode_restarted(text: str) -> Restarted | None:
    """The inverse of `Restarted.encode`; None where it is none."""
    match = _RESTARTED.fullmatch(text)
    if match is None:
        return None
    number, rank, session, position = match.groups()
    return Restarted(int(number, 16), int(rank, 16), decode_session(session), int(position, 16))
