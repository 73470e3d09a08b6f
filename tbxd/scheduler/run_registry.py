"""The runs that a daemon knows: those with sessions, and a few that are over.

An idle run costs memory and time as long as it is known, so it is forgotten some time later. A run is *warm* while it
has something to do or files open; only warm ones are looked at with each turn of the loop. It is *over* when no session
is left that has defined it, and is forgotten later, when everything is written, synced and closed. A run that comes
back is continued from its event files, as by a new daemon.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..process.serial_queue import Strand
from ..reduce.job_starts import is_reduced
from ..runs.accounting import Tally
from ..tfevents.ledger import Ledger
from .run_sink import RunSink

KEPT_MAX = 200  # runs that are over,
KEPT_SECONDS = 600.0  # each so long at most,
RANKS_KEPT_SECONDS = 60.0  # and one of ranks, which may know millions of points, so long
LET_GO_SECONDS = 0.02  # that are spent on it at a time
COOL_SECONDS = 5.0  # without anything to do before a run is not warm any more
RUNS_MAX = 100_000  # that are known at a time


class Account(NamedTuple):
    """The status of a run.

    ``ledger``: the counts of each session; ``tally``: their sum; ``found``: the part that its files held when it came
    back; ``more``: the rest of the status; ``told``: the whole status, with no records in transit.
    """

    ledger: Ledger
    tally: Tally
    found: Tally
    more: dict[str, Any]
    told: dict[str, Any]

    def with_pending(self, pending: int) -> dict[str, Any]:
        """Return the status with this number of records in transit."""
        return {**self.tally.counts(pending), **self.more}


@dataclass(slots=True)
class RunState:
    """A run and the time of its next write."""

    directory: str
    writer: RunSink
    strand: Strand
    due: float = 0.0  # 0: nothing to write
    submitted: bool = False
    used: float = 0.0
    since: float = 0.0  # it is submitted
    rounds: int = 0  # how often it was written
    tidied: bool = False  # a job is submitted that syncs or parks it
    still: float = 0.0  # since when nothing is to be done for it; 0 while something is
    account: Account | None = None  # what was told of it last, while nothing has been done for it since

    @property
    def has_to_do(self) -> bool:
        """True if there is something to write."""
        return self.writer.has_to_do

    def tidies(self) -> None:
        """Note that a job will sync or park the run; when it is done `tidied` is False again."""
        self.tidied = True
        self.account = None

    @property
    def is_still(self) -> bool:
        """True if nothing is in progress or due: everything is written, synced and closed."""
        writer = self.writer
        busy = self.due or self.submitted or self.tidied or self.has_to_do or writer.due
        return not (busy or writer.open or writer.dirty or writer.error)


@dataclass(slots=True)
class Keeping:
    """The warm runs, the runs that are over, and the counts of forgotten ones.

    Args:
        runs: the known runs, by their folders.
    """

    runs: dict[str, RunState]
    warm: dict[str, RunState] = field(default_factory=dict)
    forgotten: int = 0  # how often a run was let go of
    _holders: dict[str, int] = field(default_factory=dict)  # how many sessions have defined a folder
    _over: dict[str, float] = field(default_factory=dict)  # runs without any, in the order and at the time of it
    _gone: Tally = field(default_factory=Tally)  # what those had that were let go of
    _left: array[int] = field(default_factory=lambda: array("q"))  # hashes of their folders, in order

    def state(self, directory: str, make: Callable[[], RunState]) -> RunState | None:
        """Return the run of a folder, made if unknown; None if too many are known."""
        state = self.runs.get(directory)
        if state is None:
            if len(self.runs) >= RUNS_MAX and not self._forget(len(self.runs) - RUNS_MAX + 1, 0.0):
                return None
            state = self.runs[directory] = make()
            state.writer.comes_back = self._was_left(directory)
            if directory not in self._holders:
                self._over[directory] = time.monotonic()
        self.rouse(state)
        return state

    def rouse(self, state: RunState) -> None:
        """Make a run warm: it has something to do."""
        self.warm[state.directory] = state
        state.still = 0.0
        state.account = None

    def warm_of(self, directories: set[str]) -> list[RunState]:
        """Return the warm ones of these runs."""
        warm = self.warm
        if len(directories) < len(warm):
            return [warm[directory] for directory in directories if directory in warm]
        return [state for directory, state in warm.items() if directory in directories]

    # --- sessions --------------------------------------------------------------------------------------------

    def hold(self, held: set[str], directories: Iterable[str]) -> None:
        """Note the runs that a session has defined.

        Args:
            held: the folders that it has defined before; extended.
            directories: the folders of the runs.
        """
        for directory in directories:
            if directory not in held:
                held.add(directory)
                self._holders[directory] = self._holders.get(directory, 0) + 1
                self._over.pop(directory, None)

    def release(self, held: set[str], now: float) -> None:
        """Note that a session is over which has defined runs of these folders."""
        for directory in held:
            left = self._holders.pop(directory) - 1
            if left:
                self._holders[directory] = left
            elif directory in self.runs:
                self._over[directory] = now
        held.clear()

    # --- what time brings ------------------------------------------------------------------------------------

    def cool(self, now: float) -> bool:
        """Cool idle runs, and forget runs that are over. Call it now and then.

        Returns:
            True if runs were forgotten, so that much memory may be free now.
        """
        for directory, state in list(self.warm.items()):
            if not state.is_still:
                state.still = 0.0
            elif not state.still:
                state.still = now
            elif now - state.still > COOL_SECONDS:
                del self.warm[directory]
        return self._forget(len(self._over) - KEPT_MAX, now)

    def _forget(self, wanted: int, now: float) -> bool:
        """Forget runs that are over: the oldest ``wanted``, and all whose time is up. Return True if there was one."""
        found: list[str] = []
        for directory, since in self._over.items():
            state = self.runs[directory]
            if len(found) >= wanted and now - since <= RANKS_KEPT_SECONDS:
                break  # the others are over for a shorter time
            if directory in self.warm and (now or not state.is_still):
                continue
            run = state.writer.defined
            most = RANKS_KEPT_SECONDS if run is not None and is_reduced(run) else KEPT_SECONDS
            if len(found) < wanted or now - since > most:
                found.append(directory)
        begun = time.monotonic()
        for directory in found:
            self._let_go(directory)
            if time.monotonic() - begun > LET_GO_SECONDS:
                break
        return bool(found)

    def _let_go(self, directory: str) -> None:
        state = self.runs.pop(directory)
        del self._over[directory]
        self.warm.pop(directory, None)
        settled, found = state.writer.known()
        self._gone.merge(_tally(settled))
        self._gone.take_off(_tally(found))
        self.forgotten += 1
        if not state.writer.comes_back:
            mark = hash(directory)
            self._left.insert(bisect_left(self._left, mark), mark)
        state.writer.forget()

    def _was_left(self, directory: str) -> bool:
        mark = hash(directory)
        at = bisect_left(self._left, mark)
        return at < len(self._left) and self._left[at] == mark

    # --- counts ----------------------------------------------------------------------------------------------

    def accounts(self) -> dict[str, Account]:
        """Return the account of each run; that of an idle run is kept from before."""
        return {directory: state.account or self._account(state) for directory, state in self.runs.items()}

    def _account(self, state: RunState) -> Account:
        writer = state.writer
        # Jobs that change it are submitted on this thread: where none is under way, none is while it is asked.
        idle = not (state.submitted or state.tidied)
        ledger, found = writer.known()
        more = writer.told()
        tally = _tally(ledger)
        account = Account(ledger, tally, _tally(found) if found else _NOTHING, more, {**tally.counts(), **more})
        if idle:
            state.account = account
        return account

    def total(self, accounts: Iterable[Account], pending: int) -> Tally:
        """Return the sums of all runs, including forgotten ones: they never decrease.

        Args:
            accounts: the accounts of the known runs.
            pending: their records in transit.
        """
        total = Tally()
        total.merge(self._gone)
        for account in accounts:
            total.merge(account.tally)
            if account.found is not _NOTHING:
                total.take_off(account.found)
        total.accepted += pending
        return total

    def held_up(self) -> Iterator[RunState]:
        """Yield the runs that cannot be written at the moment."""
        return (state for state in self.warm.values() if state.writer.error)


_NOTHING = Tally()


def _tally(ledger: Ledger) -> Tally:
    tally = Tally()
    for entry in ledger.values():
        tally.settle(entry)
    return tally
