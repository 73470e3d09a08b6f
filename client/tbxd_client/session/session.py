"""The session of this process: one journal and one sender for all its writers.

It is made with the first record and not before; a forked child makes its own. What a writer has to know of it is the
numbers of its runs and tags, which are only good for one session: `Run.bind` gives them.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config import settings
from ..config.paths import (
    RUNTIME_VARIABLE,
    SPOOL_VARIABLE,
    address_in_environment,
    configured_address,
    default_address,
    is_remote,
    private_dir,
    remote_spool,
    runtime_dir,
    spool_dir,
    spools,
    view_runtime,
)
from ..config.runtime_folders import NOT_THERE, leave_spool, lock_trouble, make_runtime, runtime_trouble, why
from ..config.settings import warn
from ..distributed import process_identity
from ..distributed.rank_detection import Identity, launched
from ..journal.fill_limits import read_shares
from ..journal.journal import Journal
from ..journal.memory_journal import MemoryJournal
from ..process import descriptors
from ..process.doorbell import Doorbell
from ..process.native import RLock, let_in, monotonic
from ..process.reentrancy import Turns
from ..process.view import umask, view
from ..protocol.records import Definition, RowDefinition, RunDefinition, TagDefinition, pack_definition
from ..transport.launcher import Forwarder, Launcher
from ..transport.local_connection import SCHEME
from ..transport.sender import Sender
from ..transport.sender import load as load_link
from ..values.names import text_of

END_LOCK_SECONDS = 0.2
STOP_SECONDS = 0.3  # for the sender to end, at the least
WAIT_SECONDS_MAX = 3600.0  # for the journal's lock: that is for ever
RETRY_SECONDS = 5.0  # after a journal could not be made, before it is tried again
BEFORE_SECONDS = 5.0  # without getting on that the session before holds up the one that has followed it
BRIEF_SECONDS, AVOID_SECONDS = 10.0, 60.0  # a place where a journal was lost so soon is left alone for so long


class Counts:
    """The counts of what this process has logged in one folder: accepted = written + pending + dropped.

    ``accepted``: calls' records, dropped ones included. ``dropped``: those that were not kept here, by reason.
    ``settled``: those that the daemon is done with, as it last said; ``refused``: those of them that it did not write,
    by reason, replaced as a whole.

    Whoever counts holds the lock of the run's journal, which is that of `SummaryWriter.add_scalar`, too.
    """

    __slots__ = ("accepted", "dropped", "refused", "settled")

    def __init__(self) -> None:
        self.accepted = 0
        self.dropped: dict[str, int] = {}
        self.settled = 0
        self.refused: dict[str, int] = {}

    def add(self, other: Counts) -> None:
        """Add the counts of another."""
        self.accepted += other.accepted
        self.settled += other.settled
        add_counts(self.dropped, other.dropped)
        self.refused = dict(self.refused)
        add_counts(self.refused, other.refused)

    def told(self) -> list[Any]:
        """Return the counts as in `wire.Report`. Without a lock, so drops are read first: they were accepted before."""
        dropped = dict(self.dropped)
        return [self.accepted, dropped]

    def drop(self, reason: str, accepted: int = 1) -> None:
        """Count a record that is not kept; ``accepted`` is 0 where it has been counted as accepted before."""
        self.accepted += accepted
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        with _counting:
            _dropped[reason] = _dropped.get(reason, 0) + 1

    def lose(self, reason: str) -> None:
        """Count records as dropped that were accepted and will not be written any more."""
        lost = self.accepted - self.settled - sum(self.dropped.values())
        if lost > 0:
            self.dropped[reason] = self.dropped.get(reason, 0) + lost
            with _counting:
                _dropped[reason] = _dropped.get(reason, 0) + lost

    @property
    def written(self) -> int:
        """The number of records in the event files."""
        return self.settled - sum(self.refused.values())

    @property
    def missing(self) -> dict[str, int]:
        """The numbers of records that will not be in the event files, by reason."""
        total = dict(self.dropped)
        add_counts(total, self.refused)
        return total


def add_counts(into: dict[str, int], counts: dict[str, int]) -> None:
    """Add counts by reason to others."""
    for reason, count in counts.items():
        into[reason] = into.get(reason, 0) + count


_left_behind: list[str] = []  # journals of this process that were left to daemons which it does not reach
_dropped: dict[str, int] = {}  # by this process, by reason, for the word at its end
_counting = RLock()  # while something is counted in it: it is of all journals
_refused_before: dict[str, int] = {}  # by the daemon, of sessions of this process that have ended
_told_missing = 0  # records that had not been kept at the last flush


class Defined:
    """A run in a session: what all writers of its folder share, so that one opened again defines nothing again."""

    __slots__ = ("counts", "file", "number", "rows", "scalars", "tags")

    def __init__(self, number: int, counts: Counts, file: str) -> None:
        self.number = number
        self.counts = counts
        self.file = file  # the event file's name that was asked for
        self.scalars: dict[str, int] = {}  # tags to what their scalars begin with
        self.tags: dict[tuple[str, str, str, str], int] = {}  # those that have a colour, name or text
        self.rows: dict[tuple[str, ...], Any] = {}


class Session:
    """One journal, one sender, and the numbers of the runs, tags and rows defined in them.

    Args:
        before: the session that this one follows, because its journal is out of reach. What that holds is written
            first, so that each tag is in its order.

    Raises:
        OSError: there is no place for a journal.
    """

    def __init__(self, before: Session | None = None) -> None:
        descriptors.fill_standard()  # before anything is opened
        address = configured_address()
        runtime = runtime_dir()
        if address is None:
            with contextlib.suppress(OSError):  # the launcher says so
                runtime = make_runtime()
            wanted, named = runtime_dir(), RUNTIME_VARIABLE in os.environ
            # With neither named both are in one place, and what is said of the spool is enough.
            apart = named or SPOOL_VARIABLE in os.environ
            if runtime != wanted and (trouble := runtime_trouble(wanted, named) if apart else lock_trouble(wanted)):
                warn(f"{trouble}. Until then the daemon is in {runtime}", once="runtime")
        descriptors.know(runtime)
        self._forwarder: Forwarder | None = None  # of journals for a daemon on another host
        self._doorbell = Doorbell()
        try:
            self.journal = self._make_journal(address)
        except BaseException:
            self._doorbell.close()
            raise
        self.shares = read_shares()  # by kind of record: how much of the journal it may fill
        self.pid = os.getpid()
        self.ended = False
        self._before = before
        self._follows = before is not None
        self._after: Session | None = None
        self._begun = monotonic()
        self._got_to, self._got_on = 0, 0.0  # how far its sender was when it was last asked for that, and when
        self._stuck = 0.0  # since when nothing can come of its journal here, as it seems
        self._kept = False  # what the daemon has refused is counted elsewhere
        # When each folder was first logged to. A session that goes on in another journal is the same life of the run.
        self._created: dict[str, float] = dict(before._created) if before is not None else {}
        self._lock = RLock()
        self._runs: dict[str, Defined] = {}  # by their folders
        self._numbered: dict[int, Defined] = {}  # the same with their numbered tags
        self._removed: dict[str, Defined] = {}  # runs whose files somebody has removed, and that begin anew
        self._counts: dict[int, Counts] = {}
        self._folders: dict[int, str] = {}  # by numbers of runs, also of those whose definition was interrupted
        self._ranked = False  # one of the runs is that of several ranks
        # What tells this process from others. A session that takes the place of one is of the same life.
        self._origin: dict[str, Any] = dict(before._origin) if before is not None else {}
        self._launched: str | None = None
        self._numbers = {"run": 0, "tag": 0, "row": 0}  # the next ones
        launcher = Launcher(runtime, spool_dir()) if address is None else None
        self.sender = Sender(
            self.journal,
            self._doorbell,
            address or default_address(runtime),
            launcher,
            self._report,
            self._settled,
            self._forwarder,
            elsewhere=None if self._forwarder is not None else lambda: _elsewhere(runtime, spool_dir()),
            waits=self._waits,
            is_over=self._is_over,
            ended=self._finish,
        )
        self.sender.start()

    def _make_journal(self, address: str | None) -> Journal:
        """Make a journal in the first spool that can be used, or in memory if there is none.

        Raises:
            OSError: there is none, also no memory; or no descriptors, which are to be had later.
        """
        bytes_max, block = int(settings.read(settings.JOURNAL_BYTES)), settings.read(settings.BLOCK_MS) / 1000
        durable = settings.read_choice(settings.SYNC) == settings.ALWAYS
        # One that can be none is told by the sender; what is logged then waits where a daemon of this host finds it.
        remote = address if address and not address_in_environment() and is_remote(address) else None
        wanted, reasons, quiet = spool_dir(), [], True
        for spool in spools(wanted):
            try:
                folder = private_dir(spool)
                if remote:
                    folder = private_dir(remote_spool(spool, remote))
                if _avoided.get(folder, 0.0) > monotonic():
                    raise OSError(errno.ESTALE, "journals do not last there")
                descriptors.know(folder)
                journal = Journal(folder, self._wake, bytes_max, block, durable)
            except (OSError, ValueError) as error:
                if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
                    raise
                reasons.append(why(spool, error))
                leave_spool(spool, wanted)
                quiet = quiet and SPOOL_VARIABLE not in os.environ and getattr(error, "errno", None) in NOT_THERE
                continue
            if reasons and not quiet:
                warn(f"no journal can be made in {'; '.join(reasons)}. It is in {folder}", once="spool")
            if remote:
                self._forwarder = Forwarder(wanted, folder, remote)
            return journal
        if _left:
            raise OSError("; ".join(reasons))
        held = MemoryJournal(self._wake, bytes_max, block)
        warn(
            f"no journal can be made in {'; '.join(reasons)}. Records are kept in memory: they are written while this "
            f"process lives, and a kill loses those that are not. {SPOOL_VARIABLE} names another folder",
            once="spool",
        )
        return held

    def _wake(self) -> bool:
        return self.sender.wake()

    @property
    def over(self) -> bool:
        """True if another session takes the next record."""
        return self.ended or bool(self.journal.sealed)

    def _waits(self) -> bool:
        """Return True if the session before is to be written first, and makes progress."""
        before = self._before
        if before is None or before.ended or before.sender.refused:
            return False
        return before.sender.settled < before.journal.committed and before._gets_on

    def _is_over(self) -> bool:
        """Return True if all that can be read is written, and another session goes on. For the sender's thread."""
        if not self.journal.look():
            return False
        # Where it is one of several ranks, no moment comes in which the daemon knows of no session of this one.
        after = self._after
        done = self.sender.acknowledged >= self.journal.committed and after is not None and after.sender.settled > 0
        if not done and not self._in_vain:
            return False
        if self.journal.torn:
            self._lose()  # now, so that the daemon is told
        return True

    @property
    def _in_vain(self) -> bool:
        """True if nothing more will be written from here: the rest cannot be read, or only by others.

        A daemon finds it when this process lets go of it.
        """
        now = monotonic()
        if not self.journal.torn and (self.sender.connected or not self.journal.files.is_found):
            self._stuck = 0.0
            return False
        self._stuck = self._stuck or now
        return not self._gets_on and now - self._stuck > BEFORE_SECONDS

    @property
    def _gets_on(self) -> bool:
        """True if more is written than a while ago."""
        at, now = self.sender.settled, monotonic()
        if at > self._got_to or not self._got_on:
            self._got_to, self._got_on = at, now
        return now - self._got_on < BEFORE_SECONDS

    def _finish(self) -> None:
        """Close a journal out of reach of which all is written. On the sender's thread, at its end."""
        with self._lock:
            if self.ended:
                return
            self.ended = True
        if self._is_left and not self.journal.torn:
            _left_behind.append(self.journal.place)
        self._keep_refusals()
        self._close(delivered=False)

    def _keep_refusals(self) -> None:
        """Keep the counts of refused records for the message at the end of the program, also of an ended session."""
        for refused in self.refusals():
            add_counts(_refused_before, refused)
        self._kept = True

    def file_of(self, directory: str) -> str | None:
        """Return the name that was requested for the event file of a folder; None if nobody has logged to it."""
        run = self._runs.get(directory)
        return run.file if run is not None else None

    def begin_anew(self, directory: str) -> None:
        """A new writer finds no event file in a folder in which this process has logged: somebody has removed them.

        The run and those below it are defined once more with their next record: so the daemon knows that nothing is
        missed.

        Args:
            directory: as the daemon is told it.
        """
        with self._lock:
            run = self._runs.get(directory)
            if run is None or not run.counts.settled:
                return
            below = directory.rstrip("/") + "/"
            for folder in [known for known in self._runs if known == directory or known.startswith(below)]:
                self._removed[folder] = self._runs.pop(folder)

    def define_run(
        self, directory: str, suffix: str, file: str, numbered: bool, who: Identity, reduce: bool, **more: Any
    ) -> Defined:
        """Return the run of a folder with its number: one for each folder, as its first writer has requested it.

        Args:
            more: further fields of its definition, which are the first one's, too.

        Raises (also the others of its kind):
            LocalProtocolError: it is one that the daemon would not take.
            OSError: it cannot be written.
        """
        with self._lock:
            run = self._runs.get(directory)
            if run is None:
                number = self._numbers["run"]
                host = text_of(os.uname().nodename)
                rank = who.rank, who.world, who.job, who.attempt, reduce
                self._origin = self._origin or process_identity.fields()
                more = {"umask": umask(), **self._origin, **more}
                if reduce and who.world > 1:
                    self._launched = launched(who) if self._launched is None else self._launched
                    more["launched"] = self._launched
                created = self._created.setdefault(directory, time.time())
                definition = RunDefinition(number, directory, host, self.pid, created, suffix, file, *rank, **more)
                self._folders[number] = directory  # first: what comes of an interruption may be there, or not
                self._define("run", definition)
                self._ranked = self._ranked or (reduce and who.world > 1)
                before = self._removed.pop(directory, None)
                run = self._runs[directory] = Defined(number, Counts() if before is None else before.counts, file)
                if before is None:
                    self._counts[number] = run.counts
            if not numbered:
                return run
            return self._numbered.setdefault(run.number, Defined(run.number, run.counts, run.file))

    def define_tag(
        self, run: int, tag: str, color: str, display_name: str, description: str, numbered: bool, reduce: str
    ) -> int:
        """Define a tag of a run; return its number."""
        with self._lock:
            number = self._numbers["tag"]
            self._define("tag", TagDefinition(number, run, tag, color, display_name, description, numbered, reduce))
            return number

    def define_row(self, run: int, tags: tuple[int, ...]) -> int:
        """Define a row of tags of a run; return its number."""
        with self._lock:
            number = self._numbers["row"]
            self._define("row", RowDefinition(number, run, tags))
            return number

    def _define(self, kind: str, definition: Definition) -> None:
        packed = pack_definition(definition)
        self._numbers[kind] += 1  # first: a number is never given twice, whatever interrupts this
        try:
            self.journal.define(packed)
        except OSError:  # nothing of it is there, and the daemon takes few numbers that are left out
            self._numbers[kind] = definition.id
            raise

    def _report(self) -> dict[int, Any]:
        with self._lock:
            report: dict[int, Any] = {number: counts.told() for number, counts in self._counts.items()}
        self.journal.note_records(sum(accepted for accepted, _ in report.values()))
        return report

    def _settled(self, runs: dict[int, Any]) -> None:
        """Note the daemon's counts of its runs."""
        for number, news in runs.items():
            counts = self._counts.get(number)
            # The daemon names the first number of a folder: that of a definition which a handler's exception has ended.
            folder = self._folders.get(number, "")
            if counts is None and (run := self._runs.get(folder) or self._removed.get(folder)) is not None:
                counts = run.counts
            if counts is not None and type(news) is list and len(news) == 2 and type(news[0]) is int:
                counts.settled = max(counts.settled, news[0])
                if type(news[1]) is dict and all(type(count) is int for count in news[1].values()):
                    counts.refused = news[1]

    def flush(self, timeout: float | None = None, last: bool = False, closing: bool = False) -> bool:
        """Wait until everything logged so far is in the event files, or waits there for other ranks and nothing else.

        In a signal handler that has interrupted a call which logs it cannot be, and False is returned.

        Args:
            timeout: seconds; None is ``TBXD_FLUSH_MS``, and ``TBXD_FLUSH_SECONDS`` for the next two. Where no daemon is
                to be had or none gets on, all calls without a time of their own wait once together.
            last: whether no record follows.
            closing: wait as well for what children of this process that have ended have logged in the same runs.
        """
        if turns.interrupted or self.journal.interrupts:
            return False
        seconds = timeout
        if seconds is None:
            seconds = settings.read(settings.FLUSH_MS) / 1000
            if last or closing:
                seconds = settings.read(settings.FLUSH_SECONDS)
        seconds = max(0.0, seconds)
        deadline = monotonic() + seconds
        position = self.journal.commit(min(seconds, WAIT_SECONDS_MAX))
        if position < 0:
            return False
        before = self.before
        if before is not None and not before.sender.flush(
            before.journal.committed, seconds, deadline, again=timeout is not None, last=last
        ):
            return False
        return self.sender.flush(
            position,
            seconds,
            deadline,
            again=timeout is not None,
            last=last,
            leftovers=(last or closing) and (had_children() or (last and self._ranked and self.sender.connected)),
            # What waits for other ranks is in this journal until it is written. A daemon on another host cannot see it,
            # nor anybody what is in memory.
            written=last and (self._forwarder is not None or self.journal.folder is None),
        )

    @property
    def before(self) -> Session | None:
        """The session that this one has followed, while not all that it holds is written."""
        if self._before is not None and self._before.ended:
            self._before = None
        return self._before

    @property
    def waiting(self) -> int:
        """The bytes of records that are not known to be in the event files."""
        before = self.before
        return self.journal.committed - self.sender.acknowledged + (before.waiting if before is not None else 0)

    @property
    def all_written(self) -> bool:
        """True if everything logged so far is in the event files."""
        return self.waiting <= 0

    def refusals(self) -> list[dict[str, int]]:
        """Return how many records the daemon did not write, by reason, for each folder."""
        return [] if self._kept else [counts.refused for counts in self._counts.values()]

    def abandon(self) -> None:
        """In a forked child: leave what is the parent's."""
        if self._before is not None:
            self._before.abandon()
        self.ended = True
        let_in(self._lock)
        self.journal.abandon()
        self.sender.abandon()

    def end(self) -> None:
        """Flush, close, and say on stderr what could not be delivered and where it is.

        A signal handler that raises (Ctrl-C once more) ends the waiting only: the exception comes when that is done.
        """
        # Whoever has it may wait for a lock that a handler's exception has left held: the end of a script is not to.
        mine = self._lock.acquire(timeout=END_LOCK_SECONDS)
        try:
            if self.ended:
                return
            self.ended = True
        finally:
            if mine:
                self._lock.release()
        started = monotonic()
        delivered, seconds = False, STOP_SECONDS
        try:
            delivered = self.flush(last=True)
            seconds = max(seconds, settings.read(settings.FLUSH_SECONDS) - (monotonic() - started))
        finally:
            self._stop(delivered, seconds)

    def _stop(self, delivered: bool, seconds: float) -> None:
        before = self.before
        try:
            if before is not None:
                before.ended = True
                before._stop(delivered, STOP_SECONDS)
                before._keep_refusals()
            self.journal.note_records(sum(count.accepted for count in self._counts.values()))
            self.sender.stop(seconds)
        finally:
            self._close(delivered)

    def _close(self, delivered: bool) -> None:
        if not self.journal.close() and not (delivered or self.journal.torn) and self._is_left:
            if self.journal.folder is None or (self.journal.sealed and not self.journal.files.is_found):
                self._lose()
            else:
                self._say_what_waits()
        leave_spool(self.journal.path.parent, spool_dir())
        self._doorbell.close()

    @property
    def _is_left(self) -> bool:
        """True if the journal holds records that were not written when the session ended."""
        return self.sender.settled < self.journal.committed

    def _lose(self) -> None:
        """Count records as dropped that are in memory, or in files that nobody finds, and no daemon has taken."""
        for counts in self._counts.values():
            counts.lose("no_journal")

    def _say_what_waits(self) -> None:
        """Tell the user what the daemon has not written in time, unless it will without anybody's help."""
        if self._forwarder is not None:
            self._forwarder.leave()
            what = (
                "they are tried for another half minute; then the next script that logs from this host to the same "
                "address sends them, or `tbxd drain`"
            )
        elif self.journal.sealed or self.sender.estranged:
            what = "the daemon of the user whose folder that is writes them"
        elif self.sender.left_to_daemon:
            return  # it is busy: it has the records, or reads them in the journal that is left to it
        elif self.sender.held_up:
            what = f"{self.sender.held_up}. The daemon writes them when it can (`tbxd status`)"
        elif self.sender.connected or self.sender.awaited:
            what = "the daemon writes them when it can (`tbxd status`)"
        else:
            what = "the next daemon of this user on this host writes them (`tbxd serve`)"
        waiting = self.journal.committed - self.sender.settled
        warn(f"{waiting:,} bytes of records wait in {self.journal.path}; {what}")


_forks = 0  # of this process
_usage: Callable[[], int] | None = None  # page faults of children that were waited for; None where nobody counts them


def had_children() -> bool:
    """Return True if this process may have had children that have ended, and so may have left records."""
    if _forks or "multiprocessing.forkserver" in sys.modules:
        return True
    return _usage is None or _usage() > 0  # one has, and was waited for


def _elsewhere(runtime: Path, spool: Path) -> tuple[str, Launcher]:
    """Return the daemon of this process's mount namespace and root, for runs that the usual one does not see."""
    own = view_runtime(runtime, view())
    return default_address(own), Launcher(own, spool)


def load() -> None:
    """Import what else a session needs, and register for the program's end. The sender tries again."""
    global _registered, _usage
    with contextlib.suppress(ImportError):
        from resource import RUSAGE_CHILDREN, getrusage

        _usage = lambda: getrusage(RUSAGE_CHILDREN).ru_minflt  # noqa: E731
    try:
        load_link(configured_address() or SCHEME)
    except (ImportError, OSError, MemoryError) as error:
        warn(f"the sender cannot be loaded: {error}; records are kept, and tbxd tries again", once="load")
    if not _registered:  # behind pyzmq: what that does at the end is to come after this
        atexit.register(_at_exit)
        _registered = True


_registered = False
_current: Session | None = None
_avoided: dict[Path, float] = {}  # folders where a journal did not last, and until when none is made there
_lock = RLock()
_next_try = 0.0


def current() -> Session | None:
    """Return the session of this process, made if there is none; None if there is no place for a journal.

    Then the caller counts the record as dropped; the journal is tried again after ``RETRY_SECONDS``.
    """
    global _current, _next_try
    session = _current
    if session is not None and not session.over:
        return session
    with _lock:
        if _current is not None and not _current.over:
            return _current
        load()
        if monotonic() < _next_try:
            return None
        before = _current
        follows = before is not None and bool(before.journal.sealed)
        if before is not None and follows and before._follows and monotonic() - before._begun < BRIEF_SECONDS:
            _avoided[before.journal.path.parent] = monotonic() + AVOID_SECONDS
        try:
            _current = Session(before if follows else None)
        except (OSError, ValueError, MemoryError) as error:
            _next_try = monotonic() + RETRY_SECONDS
            warn(
                f"no journal ({error}); records are dropped and counted until there is one. {SPOOL_VARIABLE} and "
                f"{RUNTIME_VARIABLE} name other folders for it and the daemon",
                once="journal",
            )
            return None
        if _left:
            warn(
                f"something was logged when the program had ended; it is kept in {_current.journal.place}, and the "
                "daemon that runs or the next one writes it",
                once="late",
            )
        if before is not None and not follows:
            before._keep_refusals()
        elif before is not None:
            before._after = _current
            before._doorbell.ring()
            warn(
                f"{before.journal.place} is out of reach ({before.journal.sealed}). Its records are sent through the "
                f"descriptors that are still open; new records are kept in {_current.journal.place}",
                once="moved",
            )
        return _current


def active() -> Session | None:
    """Return the session of this process; None if there is none."""
    return _current if _current is not None and not _current.ended else None


def flush(timeout: float | None = None) -> bool:
    """Wait until everything that this process has logged is in the event files.

    Args:
        timeout: as for `Session.flush`.

    Returns:
        True when it is, and this process has kept all that was logged since the last flush. What makes no sense, and is
        refused for that here or by the daemon, counts as done with.
    """
    global _told_missing
    session = active()
    done = session is None or session.flush(timeout)
    missing = sum(count for reason, count in _dropped.items() if reason != "bad_argument")
    before, _told_missing = _told_missing, missing
    return done and missing <= before and not _left_behind


def _missing() -> dict[str, int]:
    """Return the numbers of records of this process that will be in no event file, by reason."""
    missing = dict(_dropped)
    add_counts(missing, _refused_before)
    session = _current
    while session is not None:
        for refused in session.refusals():
            add_counts(missing, refused)
        session = session.before
    return missing


leaving: list[Callable[[], None]] = []  # what is called at the end of the program
_left = False  # whether it is there


def _at_exit() -> None:
    global _left
    _left = True
    raised: BaseException | None = None
    for call in (*leaving, _end_current):
        try:
            call()
        except (KeyboardInterrupt, SystemExit):
            pass  # who ends a script once more does not want it to wait, and it does not
        except BaseException as error:
            raised = error  # of a handler, for Python to show: what is to be said is said before
    _say_what_is_missing()
    if raised is not None:
        raise raised


def _end_current() -> None:
    if _current is not None:
        _current.end()


def _say_what_is_missing() -> None:
    missing = _missing()
    if missing:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in missing.items())
        warn(f"{sum(missing.values()):,} records were dropped in this process: {reasons}")


turns = Turns()  # everything but the hot path of add_scalar, one call at a time

_inherited: list[Session] = []  # keeps a parent's objects from being finalised in a child


def _after_fork_in_parent() -> None:
    global _forks
    _forks += 1


def _after_fork_in_child() -> None:
    global _counting, _current, _forks, _lock, _next_try, _told_missing, turns
    _forks = 0
    let_in(_lock)
    _lock = RLock()
    turns.leave()
    turns = Turns()
    _dropped.clear()
    _left_behind.clear()
    _refused_before.clear()
    _told_missing = 0
    let_in(_counting)
    _counting = RLock()
    _next_try = 0.0
    if _current is not None:
        _inherited.append(_current)
        _current.ended = True
        _current.abandon()
        _current = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child, after_in_parent=_after_fork_in_parent)
