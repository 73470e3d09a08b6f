"""A run as one writer sees it: its folder, the numbers of its tags, and the way into the journal.

Nothing here raises because logging is in trouble: what cannot be kept is counted in `Counts`, with a reason.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..config import settings
from ..config.paths import configured_address, is_remote, native_path, told_path
from ..config.settings import ALL, warn
from ..distributed.rank_policy import Member
from ..journal.journal import CLOSED, NO_ROOM, Journal, JournalClosed
from ..logdir import event_names, folder_names
from ..logdir.folder_lock import is_held
from ..process.native import RLock
from ..process.reentrancy import Wait
from ..process.view import seen
from ..protocol.kinds import HISTOGRAM, ROW, SCALAR
from ..protocol.protowire import FIXED64, encoded, field
from ..protocol.records import (
    BIN32,
    FLOAT64,
    INT64,
    PATH_BYTES_MAX,
    RECORD_BYTES_MAX,
    RECORD_HEAD,
    RECORD_HEAD_STRUCT,
    UINT32,
    LocalProtocolError,
    filled,
    pack_record_head,
    pack_scalar,
    pack_text_record,
    scalar_head,
    tag_of_head,
)
from ..statistics.moments import Moments
from ..values.arrays import Array
from ..values.counted import TENSORFLOW, counted, described
from ..values.media import histogram_attrs
from ..values.names import text_of
from ..values.numbers import Numbers
from . import copy_budget
from . import session as session_module
from .calls import Call, Firsts, Pieces
from .session import Counts, Session

LOCAL = "file://"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # of an address, such as s3://; one letter may be a drive's
SUFFIX_BYTES_MAX = 100  # of the event file's name
FILE_VERSION = b"brain.Event:2"  # of an event file; TensorFlow, tsl/lib/io or core/util/events_writer.h
NAME_CHARS_MAX = 60  # of a job's name in that of a folder
_PLAIN: Mapping[str, Any] = {}
_named_here = itertools.count()
ALIGNED_BYTES_MIN = 64 << 10  # a smaller array is not worth the few microseconds that alignment takes

_ROW_HEAD = RECORD_HEAD_STRUCT.format + "BBI"  # an empty map of attrs, and the head of the payload


class _NotLogged(Exception):
    """There is no record to make; the reason has been counted in the journal."""


class NoJournal:
    """Stands where a journal is missing: no record fits, so every call takes the long way and looks for one."""

    __slots__ = ("base", "limit", "lock", "position")

    def __init__(self) -> None:
        self.lock = RLock()
        self.position = 0
        self.limit = CLOSED
        self.base = 0


class Row:
    """The layout of one `log` call's record: same keys, same bytes but for the numbers."""

    __slots__ = ("head", "length", "number", "pack", "payload_bytes", "placed")

    def __init__(self, number: int, values: int) -> None:
        layout = struct.Struct(f"{_ROW_HEAD}{values}d")
        self.number = number
        self.pack = layout.pack
        self.length = layout.size
        self.payload_bytes = 8 * values
        self.placed = False  # a record of it has its place, so that those that follow need no turn

    def record(self, step: int, wall_time: float, values: list[Any]) -> bytes:
        """The bytes of a row of scalars.

        Raises:
            struct.error, TypeError, ValueError: a value is no number.
        """
        return self.pack(
            RECORD_HEAD,
            ROW,
            UINT32,
            self.length,
            UINT32,
            self.number,
            INT64,
            step,
            FLOAT64,
            wall_time,
            0x80,
            BIN32,
            self.payload_bytes,
            *values,
        )


class Run:
    """One folder that TensorBoard shows as a run.

    Args:
        directory: absolute.
        member: of which job this process is.
        suffix: of the event file's name.
        numbered: the records have no steps; the daemon counts them, tag by tag.
        file: the event file's name; "" leaves it to the daemon, None chooses one when it is first asked for.
        described: further fields of its `records.RunDefinition`.
        seen: those that say what the folder is, as `view.seen` has found it.

    ``journal`` and ``scalars`` (tag to `records.scalar_head`) are for the hot path of `SummaryWriter.add_scalar`; they
    belong to the session that the run is bound to.
    """

    __slots__ = (
        "_file",
        "_firsts",
        "_member",
        "_named",
        "_number",
        "_numbered",
        "_rows",
        "_seen",
        "_session",
        "_suffix",
        "_tags",
        "counts",
        "described",
        "directory",
        "earlier",
        "journal",
        "scalars",
    )

    def __init__(
        self,
        directory: str,
        member: Member,
        suffix: str = "",
        numbered: bool = False,
        file: str | None = "",
        described: Mapping[str, Any] = _PLAIN,
        seen: Mapping[str, Any] = _PLAIN,
    ) -> None:
        self.directory = directory
        self._member = member
        self.described = dict(described)
        self._seen = dict(seen)
        self._suffix = suffix
        self._numbered = numbered
        self._file = file
        self.counts = Counts()
        self.earlier: tuple[Counts, ...] = ()  # of sessions of this process that the last one has followed
        self._session: Session | None = None
        self._number = 0
        self._named = 0  # names that `new_name` has given to a job's ranks
        self.journal: Journal | NoJournal = NoJournal()
        self.scalars: dict[str, int] = {}
        self._tags: dict[tuple[str, str, str, str], int] = {}
        self._rows: dict[tuple[str, ...], Row] = {}
        self._firsts = Firsts()

    def __getstate__(self) -> tuple[Any, ...]:
        return self.directory, self._member, self._suffix, self._numbered, self.file, self.described, self._seen

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)  # type: ignore[misc]  # a run in another process starts without a session

    def merges(self, tag: str) -> bool:
        """Return True if values that several ranks log with this tag and one step are reduced to one."""
        return self._reduces and self._member.word(tag) != ALL

    @property
    def _reduces(self) -> bool:
        """True if values of several ranks are reduced. If the daemon counts steps, no two calls share one: False."""
        return self._member.reduces and not self._numbered

    def bind(self) -> Session | None:
        """Return the session to log in, with this run defined in it; None if there is no journal."""
        session = self.session
        if session is not None:
            return session
        session = session_module.current()
        if session is None:
            return None
        who, reduces = self._member.who, self._reduces
        file = "" if reduces and who.rank else self.file  # one file for all ranks, named as rank 0 would have it
        told = dict(self.described)
        if "above" in told:
            told["above"] = told_path(told["above"])
        run = session.define_run(
            told_path(self.directory), self._suffix, file, self._numbered, who, reduces, **told, **self._seen
        )
        self._file = run.file
        self._number, self.scalars, self._tags, self._rows = run.number, run.scalars, run.tags, run.rows
        with self.journal.lock, session.journal.lock:
            if isinstance(self.journal, NoJournal):  # what had to be dropped before there was one
                run.counts.add(self.counts)
            else:
                self.earlier = (*self.earlier, self.counts) if self.journal.sealed else ()
            self.counts = run.counts
            self.journal = session.journal
        self._session = session
        return session

    def tag(self, session: Session, tag: str, color: str = "", name: str = "", description: str = "") -> int:
        """Return the number of a tag in ``session``, which `bind` has returned."""
        key = (tag, color, name, description)
        plain = not (color or name or description)
        if plain:
            head = self.scalars.get(tag)
            if head is not None:
                return tag_of_head(head)
        number = self._tags.get(key)
        if number is None:
            word = self._member.word(tag) if self._reduces else ""
            number = session.define_tag(self._number, *key, self._numbered, word)
            self._tags[key] = number
        return number

    def _tag_is_known(self, key: Any) -> None:
        if key in self._tags:
            self.scalars[key[0]] = scalar_head(self._tags[key])
            self._tags.pop(key, None)

    def _row_is_known(self, key: Any) -> None:
        if key in self._rows:
            self._rows[key].placed = True

    def row(self, session: Session, tags: tuple[str, ...]) -> Row:
        """Return the layout of a row of tags."""
        row = self._rows.get(tags)
        if row is None:
            numbers = tuple(self.tag(session, tag) for tag in tags)
            row = self._rows[tags] = Row(session.define_row(self._number, numbers), len(tags))
        return row

    def known_row(self, tags: tuple[str, ...]) -> Row | None:
        """Return the layout of a row that has been logged before in this session; else None."""
        row = self._rows.get(tags) if self.session is not None else None
        return row if row is not None and row.placed else None

    @property
    def session(self) -> Session | None:
        """The session this run has logged in, while it lasts."""
        session = self._session
        return session if session is not None and not session.over else None

    @property
    def file(self) -> str:
        """The event file's name that this run asks for, in this process and in those the run is passed to.

        "" where it is left to the daemon.
        """
        return self.choose_file() if self._file is None else self._file

    def new_name(self, wanted: str) -> str:
        """Make a folder below this one under a name that no other process and no earlier call has; return the name.

        The ranks of a job whose runs are reduced have one name for the call that each makes.

        Args:
            wanted: the name, where it is not taken.
        """
        who = self._member.who
        if self._member.reduces and who.job:
            self._named += 1
            return f"{who.job.replace('/', '_')[:NAME_CHARS_MAX]}.{self._named}"
        for number in itertools.count():
            name = f"{wanted}_{number}" if number else wanted
            try:
                os.mkdir(os.path.join(self.directory, name))  # noqa: PTH102, PTH118 - as the folder of the run
            except FileExistsError:
                continue
            except OSError:  # the folder is on another host, or its disk is full: nobody can be asked
                return f"{wanted}_{os.uname().nodename}_{os.getpid()}_{next(_named_here)}"
            return name
        raise AssertionError

    def named_as(self, other: Run) -> None:
        """Ask for the event file that another run of the same folder has asked for."""
        self._file = other._file

    def leave_file(self) -> None:
        """Make the event file that both originals leave of a writer that has logged nothing, where there is none.

        It says its version and nothing else. Where it cannot be made, nobody misses a record.
        """
        session = session_module.active()
        if self.counts.accepted or self._session is not None or (session and session.file_of(self.directory)):
            return
        if is_remote(configured_address() or ""):
            return
        from ..logdir.record_writer import RecordWriter

        with contextlib.suppress(OSError):
            if event_names.event_files(self.directory) or is_held(self.directory):
                return
            name = self.file or self.choose_file()
            with open(os.path.join(self.directory, name), "xb") as file:  # noqa: PTH118
                version = field(3, FILE_VERSION)  # Event.file_version; 1 is Event.wall_time
                RecordWriter(file).write(encoded(1, FIXED64, struct.pack("<d", time.time())) + version)

    def choose_file(self) -> str:
        """Choose the event file's name, as `file` has it from then on; looks into the folder."""
        session = session_module.active()
        known = session.file_of(told_path(self.directory)) if session is not None else None
        self._file = event_names.choose(self.directory, self._suffix) if known is None else known
        return self._file

    @property
    def event_file(self) -> str:
        """Return the path of the event file that the next record goes to, as far as it can be known.

        It is the one that was asked for, unless a daemon is writing another already, or has begun a later one.
        """
        wanted = self.file
        try:
            newest = max(event_names.event_files(self.directory), default="")
        except OSError:
            newest = ""
        if newest and (newest >= wanted or self.counts.settled or is_held(self.directory)):
            name = newest
        else:
            name = wanted or event_names.choose(self.directory, self._suffix)
        return os.path.join(self.directory, name)  # noqa: PTH118 - a string, as in the originals

    @property
    def session_id(self) -> bytes:
        """The number of the session that this run has logged in last, ended or not; empty before its first record."""
        return self._session.journal.session if self._session is not None else b""

    def packed(self, record: bytes) -> bool:
        """Log a record made with `known_row`. Return False if its session is over: make it anew."""
        session = self.session
        if session is None:
            return False
        try:
            # A signal handler that has interrupted a turn waits for no room: all threads that log would, with it.
            patience = session.journal.patience(False) if session_module.turns.mine else None
            self._count(session.journal.append(record, patience=patience, dropped=self._count_late))
        except JournalClosed:
            return False
        return True

    def scalar(
        self,
        tag: str,
        step: int,
        wall_time: float,
        value: float,
        color: str = "",
        name: str = "",
        description: str = "",
    ) -> None:
        """Log a scalar the long way.

        One of a tag that is known needs no turn, so that it stays behind what else was logged with its tag.
        """
        head = self.scalars.get(tag) if self.session is not None else None
        plain = not (color or name or description)
        if head is not None and plain and self.packed(pack_scalar(tag_of_head(head), step, wall_time, value)):
            return

        def make(session: Session) -> Pieces:
            return (pack_scalar(self.tag(session, tag, color, name, description), step, wall_time, value),), None

        if plain:
            self._append_first((tag, "", "", ""), SCALAR, make, self._tag_is_known)
        else:
            self._append(SCALAR, make)

    def values(self, tags: tuple[str, ...], step: int, wall_time: float, values: list[float]) -> None:
        """Log a row of scalars."""

        def make(session: Session) -> Pieces:
            return (self.row(session, tags).record(step, wall_time, values),), None

        self._append_first(tags, ROW, make, self._row_is_known)

    def array(
        self,
        kind: int,
        tag: str,
        step: int,
        wall_time: float,
        arrays: Array | Mapping[str, Array],
        attrs: dict[str, Any],
        color: str = "",
    ) -> None:
        """Log a record whose payload is an array, or several by their names; copied before this returns."""
        if isinstance(arrays, Array):
            attrs = {"dtype": arrays.dtype, "shape": list(arrays.shape), **attrs}
            parts = [arrays]
        else:
            described = [[name, array.dtype, list(array.shape)] for name, array in arrays.items()]
            attrs = {"arrays": described, **attrs}
            parts = list(arrays.values())
        data: list[Any] = [part.data for part in parts]
        size = sum(map(len, data))
        # A record that is put off would come after its caller may have changed the array.
        copied = size <= RECORD_BYTES_MAX and session_module.turns.interrupted
        if copied:
            data = [bytes(part) for part in data]
        address = parts[0].address if size >= ALIGNED_BYTES_MIN and not copied else None

        def make(session: Session) -> Pieces:
            head = pack_record_head(kind, self.tag(session, tag, color), step, wall_time, attrs, size)
            return (head, *data), None if address is None else lambda offset: filled(head, address - offset)

        self._append(kind, make)

    def histogram(
        self, tag: str, step: int, wall_time: float, numbers: Numbers, attrs: dict[str, Any], color: str = ""
    ) -> None:
        """Log a histogram: its numbers are copied where they are few, and else counted before this returns.

        Raises:
            TypeError, ValueError: the numbers cannot be read.
        """
        found = None
        if not self._copies(numbers.nbytes):
            # To count takes some MiB, and to copy none: without memory it is copied, or dropped and counted.
            with contextlib.suppress(MemoryError):
                found = counted(numbers, attrs["bins"], self.merges(tag), f"add_histogram {tag!r}")
        if found is None:
            self.array(HISTOGRAM, tag, step, wall_time, numbers.array, attrs, color)
        else:
            arrays, moments = found
            self.array(HISTOGRAM, tag, step, wall_time, arrays, {**attrs, "moments": described(moments)}, color)

    def distribution(self, tag: str, step: int, wall_time: float, numbers: Numbers) -> Moments | None:
        """Log a histogram with TensorFlow's bins that is counted here, however small; returns what is known of it.

        None where it cannot be counted here: the histogram is logged all the same.

        Raises:
            TypeError, ValueError: the numbers cannot be read.
        """
        attrs = histogram_attrs(TENSORFLOW, None)
        found = counted(numbers, TENSORFLOW, self.merges(tag), f"the histogram {tag!r}")
        if found is None:
            self.array(HISTOGRAM, tag, step, wall_time, numbers.array, attrs)
            return None
        arrays, moments = found
        self.array(HISTOGRAM, tag, step, wall_time, arrays, {**attrs, "moments": described(moments)})
        return moments

    def _copies(self, size: int) -> bool:
        """Return True if an array of so many bytes is copied, and not counted in the call."""
        if size <= copy_budget.ARRAY_BYTES_MIN:
            return True
        if size > copy_budget.ARRAY_BYTES_MAX:
            return False
        journal, waiting = self.journal, 0
        if isinstance(journal, Journal):
            bytes_max, waiting = journal.bytes_max, journal.position - journal.released
        else:  # the first record makes one
            bytes_max = int(settings.read(settings.JOURNAL_BYTES))
        session = self._session
        share = session.shares[HISTOGRAM] if session is not None else 1.0  # a user may leave histograms little
        return waiting + size <= copy_budget.FILL_MAX * share * bytes_max and copy_budget.budget.take(size)

    def text(self, kind: int, tag: str, step: int, wall_time: float, text: str | None, color: str = "") -> None:
        """Log a record whose payload is text or nothing."""
        self._append(
            kind,
            lambda session: ((pack_text_record(kind, self.tag(session, tag, color), step, wall_time, {}, text),), None),
        )

    def refuse(self, reason: str) -> None:
        """Count a call of which nothing is logged, for one of the journal's reasons."""

        def make(session: Session) -> Pieces:
            raise _NotLogged(session.journal.count_drop(reason))

        self._append(SCALAR, make)

    def below(self, directory: str) -> Run:
        """Return a further run of the same writer, in a folder of its own."""
        described = {"above": self.directory, **self.described}
        return Run(directory, self._member, numbered=self._numbered, described=described, seen=self._seen)

    def _append(self, kind: int, make: Callable[[Session], Pieces]) -> None:
        self._run(Call(self._append_now, kind, make))

    def _append_first(
        self, key: tuple[str, ...], kind: int, make: Callable[[Session], Pieces], known: Callable[[Any], None]
    ) -> None:
        """Log a record of a tag or row that is not known yet, as it is once `Firsts` calls ``known``."""
        call = Call(self._append_now, kind, make)
        self._firsts.begin(key, call, known)
        self._run(call)

    def _run(self, call: Call) -> None:
        if not self._member.writes:  # a writer that another process has made, before anybody knew what this one is
            return
        if not session_module.turns.run(call):
            self._count("reentrant")

    def _append_now(self, call: Call, patient: bool) -> Wait | None:
        """Take a turn of a call that logs; return the wait before its next one, None if it is done."""
        while True:
            session = None
            try:
                session = self.bind()
                if session is None:
                    self._count("no_journal")
                    return None
                parts, aligned = call.record(session)
                patience, share = call.patience(session.journal, patient), session.shares[call.kind]
                reason = session.journal.append(
                    *parts, aligned=aligned, share=share, patience=patience, dropped=self._count_late
                )
                if reason == NO_ROOM:
                    return patience.wait
                if call.placed is not None:
                    call.placed()
            except JournalClosed:  # a fork, or the end of the program: go on in a new session
                self._session = None
                continue
            except _NotLogged as refused:
                reason = str(refused)
            except LocalProtocolError as error:
                warn(f"{self.directory}: {error}; such records are dropped and counted", once="too_large")
                reason = "too_large"
                if session is not None:
                    session.journal.count_drop(reason)
            except OSError as error:
                warn(f"{self.directory}: {error}; records are dropped and counted", once="definition")
                reason = "journal_error"
            self._count(reason)
            return None

    def _count_late(self, reason: str) -> None:
        """Count a record as dropped that was put off, and so has been counted as accepted."""
        with self.journal.lock:
            self.counts.drop(reason, accepted=0)

    def _count(self, reason: str) -> None:
        with self.journal.lock:  # the one that `add_scalar` holds while it counts
            if reason:
                self.counts.drop(reason)
            else:
                self.counts.accepted += 1


def run_of(
    logdir: str,
    member: Member,
    suffix: str,
    numbered: bool = False,
    make: bool = True,
    described: Mapping[str, Any] = _PLAIN,
) -> Run:
    """Return the run of a log folder, as it is at this moment, whatever chdir comes later; one name for one folder.

    Args:
        logdir: the folder as the user has given it.
        member: of which job this process is.
        suffix: of the event file's name.
        numbered, described: as for `Run`.
        make: make the folder, which frameworks list to number their versions. For a daemon on another host, too: on a
            disk that both have it is the same folder; else it stays empty, or is not made.

    Raises:
        TypeError: the suffix is no text.
        ValueError: a folder or a suffix that cannot be.
    """
    if not isinstance(suffix, str):
        raise TypeError(f"filename_suffix is {type(suffix).__name__}; a text is expected")
    if "\0" in logdir:
        raise ValueError(f"the log folder {logdir[:80]!r} has a NUL in its name")
    if logdir.startswith(LOCAL):  # as for torch: it is behind it, also a relative one
        logdir = logdir[len(LOCAL) :]
    scheme = _SCHEME.match(logdir)
    if scheme is not None:
        raise ValueError(
            f"the log folder {logdir[:80]!r} is an address ({scheme[0]}), and tbxd writes to folders of a file system: "
            "give a folder, or the path below which that storage is mounted (s3fs, gcsfuse, NFS); `aws s3 sync`, "
            "`gsutil rsync` and their like copy a folder there"
        )
    try:
        directory = os.path.realpath(native_path(logdir))
    except UnicodeEncodeError as error:
        raise ValueError(f"the log folder {logdir[:80]!r}: no file system has such a name ({error.reason})") from error
    long = next((part for part in directory.split("/") if len(os.fsencode(part)) > event_names.NAME_BYTES_MAX), None)
    if long is not None:
        raise ValueError(
            f"the log folder has a part of {len(os.fsencode(long))} bytes, {long[:40]!r}…; file systems take "
            f"{event_names.NAME_BYTES_MAX}"
        )
    if len(os.fsencode(directory)) > PATH_BYTES_MAX:
        raise ValueError(f"the log folder {logdir[:80]!r}: at most {PATH_BYTES_MAX} bytes are possible")
    if os.sep in suffix or "\0" in suffix or text_of(suffix) != suffix or len(suffix.encode()) > SUFFIX_BYTES_MAX:
        raise ValueError(
            f"filename_suffix {suffix[:120]!r}: at most {SUFFIX_BYTES_MAX} bytes of UTF-8, no '/', no NUL are possible"
        )
    if make:
        session_module.load()
        _make_folder(directory, suffix)
    led = member.reduces and member.who.rank > 0  # by rank 0, who alone chooses a name
    what = seen(directory) if make else _PLAIN
    run = Run(directory, member, suffix, numbered, "" if led else None, described, what)
    if make:
        _see_removed(directory)
        if not led:
            run.choose_file()  # now, with the folder just made: no call that logs may wait for its disk
    return run


def _see_removed(directory: str) -> None:
    """Check if the event files of this process in a folder were removed; a new writer then begins anew there."""
    session = session_module.active()
    if session is None or session.file_of(told_path(directory)) is None or is_remote(configured_address() or ""):
        return
    with contextlib.suppress(OSError):
        if not event_names.event_files(directory):
            session.begin_anew(told_path(directory))


def _make_folder(directory: str, suffix: str) -> None:
    try:
        os.makedirs(directory, exist_ok=True)  # noqa: PTH103
    except OSError as error:
        if not is_remote(configured_address() or ""):  # there it may be a folder of the daemon's host only
            folder_names.check(directory, error)
            warn(f"{directory}: {error.strerror}; records wait until the daemon can make it")
    else:
        if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True) and not is_remote(
            configured_address() or ""
        ):
            warn(f"{directory}: this user may not write there; records wait until the daemon can")
        folder_names.check_suffix(directory, suffix)
