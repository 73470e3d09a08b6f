"""How far each session of a run is in its event files, and what its trainer could not keep. Any thread may ask."""

from __future__ import annotations

import threading
from collections.abc import Container, Iterable

from tbxd_client.protocol.records import RunDefinition

from ..batch import Batch
from ..tfevents.ledger import Entry, Ledger, forgotten
from . import unwritable


class RunLedger:
    """Of one run.

    Args:
        ended: the sessions that are over for good.
    """

    def __init__(self, ended: Container[bytes] = ()) -> None:
        self.entries: Ledger = {}  # what the files hold; replaced or changed under the lock
        self.teller: RunDefinition | None = None  # the run as who has told something last defines it, while it is news
        self._ended = ended
        self._found: Ledger = {}  # of a run that the daemon had let go of before: what its files held then
        self._read = False  # the files have been
        self._told: dict[bytes, dict[str, int]] = {}  # what trainers could not keep, as they say
        self._lock = threading.Lock()

    # --- from any thread -------------------------------------------------------------------------------------

    def tell(self, run: RunDefinition, session: bytes, dropped: dict[str, int]) -> bool:
        """Take note of what a trainer could not keep, by reason, since its session began. True when it is news."""
        with self._lock:
            known = self._told.get(session)
            if known is None:
                entry = self.entries.get(session)
                known = entry.dropped if entry is not None else {}
            merged = {reason: max(known.get(reason, 0), dropped.get(reason, 0)) for reason in {**known, **dropped}}
            if merged == known:
                return False
            self._told[session] = merged
            self.teller = run
            return True

    def read_for(self, run: RunDefinition) -> bool:
        """Have the folder's files read with the next write, if they have not been. True when that is so."""
        with self._lock:
            if not self._read:
                self.teller = run
            return not self._read

    def known(self) -> tuple[dict[bytes, Entry], Ledger]:
        """How far each session is, and what of it was in the files when a run came back that had been let go of."""
        with self._lock:
            result = dict(self.entries)
            for session, dropped in self._told.items():
                entry = result[session] = result[session].copy() if session in result else Entry()
                entry.dropped = dropped
            return result, self._found

    def entry(self, session: bytes) -> Entry:
        """How far one session is."""
        with self._lock:
            return self.entries.get(session) or Entry()

    # --- by who writes the run -------------------------------------------------------------------------------

    def news(self, encoded: Ledger) -> dict[bytes, dict[str, int]]:
        """What trainers could not keep, by session, where what is encoded does not say it. It is no news any more."""
        with self._lock:
            self.teller = None
            return {
                session: dropped
                for session, dropped in self._told.items()
                if session not in encoded or encoded[session].dropped != dropped
            }

    def settle(self, encoded: Ledger, sessions: Iterable[bytes], whole: bool) -> None:
        """The files hold what has been encoded.

        Args:
            encoded: how far that is.
            sessions: that it takes further.
            whole: it may be further for any session.
        """
        with self._lock:
            if whole:
                self.entries = {session: entry.copy() for session, entry in encoded.items()}
            for session in sessions:
                self.entries[session] = encoded[session].copy()

    def take_up(self, found: Ledger, past: Iterable[bytes], comes_back: bool) -> None:
        """The files have been read.

        Args:
            found: what they hold.
            past: sessions of which nothing is to be known any more.
            comes_back: the daemon had let go of the run before.
        """
        with self._lock:
            self.entries = found
            if comes_back and not self._read:
                self._found = dict(found)
            self._read = True
            for session in past:
                self._told.pop(session, None)

    def forget_ended(self, other: Ledger) -> tuple[Ledger, frozenset[bytes]]:
        """Of sessions that are over it need not be known one by one how far they were, nor in ``other``; returns that
        without them, and which they are.

        They are asked for once: more may be at any moment. One whose trainer could not keep more than the files say
        stays until that is noted.
        """
        with self._lock:
            over = frozenset(
                session
                for session in {*self.entries, *other}
                if session in self._ended
                and self._told.get(session, {}) in ({}, other[session].dropped if session in other else {})
            )
            self.entries = forgotten(self.entries, over)
            for session in over:
                self._told.pop(session, None)
        return forgotten(other, over), over

    def start_over(self, run: RunDefinition | None) -> None:
        """A file is lost, and with it maybe a note of what trainers could not keep."""
        with self._lock:
            self.teller = run if self._told else None

    def refuse(self, batches: Iterable[Batch]) -> None:
        """Count as dropped what can never be written; there are no files to be read."""
        with self._lock:
            self.teller, self._read = None, True
            self.entries = unwritable.refused(self.entries, batches)
