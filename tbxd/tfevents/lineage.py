"""The lives of a run: processes, and starts of jobs whose ranks are reduced, in the order of their arrival.

They are in notes of the ledger (`ledger.NOTE`), which older readers ignore. Every text begins with ``N``:

``!<life>/<kin>/<job>.<attempt>/<boot>.<began>/<parent>``
    who it is, once: see `tbxd_client.distributed.process_identity`. ``life`` is its session, or that of a start of
    a job, `life_of`.
``!<session>/=<life>``
    a rank: what it logs alone is of that life.
``@<session>/<position>[/<tag>]``
    the records of a session behind a position, all or those of one tag (a digest), are in a folder beside the run.
``%<life>/<step>``
    it has said that the run goes on from a step (`purge_step`).
``~<life>``
    with the end of tags (`resume_marks`): who begins them anew.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import astuple, dataclass, field
from typing import Any

from tbxd_client.protocol.records import RunDefinition

from .ledger import NOTE, decode_session, encode_session

UNKNOWN = 0  # the place of whoever nobody knows: in files of other writers, and of the daemon's own notes
LIVES_MAX = 1_000_000  # of a run; whoever comes later is nobody
ALL = ""  # all tags of a session
_WHO = re.compile(
    NOTE + r"!([\w-]{16})/([0-9a-f]{0,16})/([0-9a-f]{0,16})\.([0-9a-f]{1,8})/([0-9a-f]{0,16})\.([0-9a-f]{1,12})"
    r"/([0-9a-f]{0,16})",
    re.ASCII,
)
_RANK = re.compile(NOTE + r"!([\w-]{16})/=([\w-]{16})", re.ASCII)
_BESIDE = re.compile(NOTE + r"@([\w-]{16})/([0-9a-f]{1,15})(?:/([0-9a-f]{16}))?", re.ASCII)
_PURGE = re.compile(NOTE + r"%([\w-]{16})/(-?\d{1,19})", re.ASCII)
_END = re.compile(NOTE + r"~([\w-]{16})", re.ASCII)
_HEX = re.compile(r"[0-9a-f]{1,16}")


@dataclass(slots=True)
class Life:
    """A process, or a start of a job. Empty texts, and 0 for ``began``, mean unknown."""

    key: bytes
    kin: str = ""
    job: str = ""
    attempt: int = 0
    boot: str = ""
    began: int = 0
    parent: str = ""
    known: bool = False  # it has said who it is

    def text(self) -> str:
        """The note of this life."""
        return (
            f"{NOTE}!{encode_session(self.key)}/{self.kin}/{self.job}.{self.attempt:x}/{self.boot}.{self.began:x}"
            f"/{self.parent}"
        )


def digest_of(text: str) -> str:
    """Return a digest of 16 digits of a text, such as a tag or the name of a job."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def life_of(generation: str) -> bytes:
    """Return the key of a start of a job, named as in `reduce.job_starts.generation_of`."""
    return hashlib.sha256(b"G" + generation.encode()).digest()[:12]


def introduced(key: bytes, run: RunDefinition) -> Life:
    """Return the life of a process from its run definition."""
    job = digest_of(run.job) if run.job else ""
    kin, boot, parent = (text if _HEX.fullmatch(text) else "" for text in (run.kin, run.boot, run.parent))
    return Life(key, kin, job, run.attempt, boot, run.began if boot else 0, parent, True)


def is_after(other: Life, other_place: int, who: Life, place: int) -> bool:
    """Return True if a life began after another, ``who``: by attempts, then by the clock since one boot, then by
    their places, the order of their arrival in the folder."""
    if who.job and who.job == other.job and who.attempt != other.attempt:
        return other.attempt > who.attempt
    if who.boot and who.boot == other.boot and who.began and other.began:
        return other.began > who.began
    return other_place > place


def rank_text(session: bytes, life: bytes) -> str:
    """Return the note of a rank of a life."""
    return f"{NOTE}!{encode_session(session)}/={encode_session(life)}"


def beside_text(session: bytes, position: int, tag: str) -> str:
    """Return the note of records in a folder beside the run; ``tag`` is a digest, or `ALL`."""
    return f"{NOTE}@{encode_session(session)}/{position:x}" + (f"/{tag}" if tag else "")


def session_beside(text: str) -> bytes | None:
    """Return the session of such a note; None for another note."""
    match = _BESIDE.fullmatch(text)
    return decode_session(match[1]) if match else None


def purge_text(life: bytes, step: int) -> str:
    """Return the note of a life that continues from a step by its own request."""
    return f"{NOTE}%{encode_session(life)}/{step}"


def end_text(life: bytes) -> str:
    """Return the mark of the end of tags that a life begins again; ``life`` may be empty."""
    return f"{NOTE}~{encode_session(life)}" if life else NOTE


@dataclass(slots=True)
class Lineage:
    """The lives in the files of a folder. Places are numbers from 1 on, in the order of arrival."""

    lives: list[Life] = field(default_factory=lambda: [Life(b"")])  # by their places
    beside: dict[bytes, dict[str, int]] = field(default_factory=dict)  # session to digests of tags to positions
    purges: list[tuple[int, int]] = field(default_factory=list)  # place and step
    _places: dict[bytes, int] = field(default_factory=dict)  # of lives, and of ranks of one
    _processes: dict[tuple[str, int, str, str], int] = field(default_factory=dict)  # by what they say of themselves

    def place(self, key: bytes) -> int:
        """Return the place of a session or life, a new one if needed."""
        place = self._places.get(key)
        if place is None:
            if len(self.lives) > LIVES_MAX:
                return UNKNOWN
            place = self._places[key] = len(self.lives)
            self.lives.append(Life(key))
        return place

    def find(self, key: bytes) -> int:
        """Return the place of a session or life; -1 if it has none."""
        return self._places.get(key, -1)

    def enter(self, life: Life) -> int:
        """Return the place of a life with an identity: that of an earlier session of the same process, if there is one,
        which has lost its journal and begun another."""
        if life.key not in self._places and life.boot and life.began and not life.job:
            same = self._processes.get((life.boot, life.began, life.kin, life.parent), UNKNOWN)
            if same != UNKNOWN:
                self._places[life.key] = same
                return same
        place = self.place(life.key)
        if not self.lives[place].known and place != UNKNOWN:
            self.lives[place] = life
            self._remember(life, place)
        return place

    def _remember(self, life: Life, place: int) -> None:
        if life.boot and life.began and not life.job:
            self._processes.setdefault((life.boot, life.began, life.kin, life.parent), place)

    def join(self, session: bytes, life: bytes) -> int:
        """Return the place of a rank's life."""
        place = self._places[session] = self.place(life)
        return place

    def knows(self, key: bytes) -> bool:
        """Return True if a session or life has a place and an identity."""
        place = self._places.get(key)
        return place is not None and (self.lives[place].known or self.lives[place].key != key)

    def follow(self, text: str) -> int:
        """Take a note; return the place of the life that begins tags again, `UNKNOWN` for other notes."""
        kind = text[len(NOTE) : len(NOTE) + 1]
        if kind == "~" and (match := _END.fullmatch(text)):
            return self.place(decode_session(match[1]))
        if kind == "!" and (match := _WHO.fullmatch(text)):
            key, kin, job, attempt, boot, began, parent = match.groups()
            self.enter(Life(decode_session(key), kin, job, int(attempt, 16), boot, int(began, 16), parent, True))
        elif kind == "!" and (match := _RANK.fullmatch(text)):
            self.join(decode_session(match[1]), decode_session(match[2]))
        elif kind == "@" and (match := _BESIDE.fullmatch(text)):
            positions = self.beside.setdefault(decode_session(match[1]), {})
            positions.setdefault(match[3] or ALL, int(match[2], 16))
        elif kind == "%" and (match := _PURGE.fullmatch(text)):
            self.purges.append((self.place(decode_session(match[1])), int(match[2])))
        return UNKNOWN

    def copy(self) -> Lineage:
        """Return an independent copy."""
        beside = {session: dict(positions) for session, positions in self.beside.items()}
        return Lineage(list(self.lives), beside, list(self.purges), dict(self._places), dict(self._processes))

    def dump(self) -> dict[str, Any]:
        """Return the state for JSON."""
        return {
            "lives": [[life.key.hex(), *astuple(life)[1:]] for life in self.lives],
            "beside": {session.hex(): positions for session, positions in self.beside.items()},
            "purges": self.purges,
            "places": {key.hex(): place for key, place in self._places.items()},
        }

    @classmethod
    def load(cls, dumped: dict[str, Any]) -> Lineage:
        """The inverse of `dump`.

        Raises:
            ValueError, KeyError, TypeError: the data are invalid.
        """
        found = cls(
            [Life(bytes.fromhex(key), *fields) for key, *fields in dumped["lives"]],
            {bytes.fromhex(session): dict(positions) for session, positions in dumped["beside"].items()},
            [(place, step) for place, step in dumped["purges"]],
            {bytes.fromhex(key): place for key, place in dumped["places"].items()},
        )
        for place, life in enumerate(found.lives):
            found._remember(life, place)
        return found
