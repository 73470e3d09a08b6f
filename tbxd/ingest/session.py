"""A session as the daemon sees it: stretches of a stream come in, in whatever order; batches for runs go out, in order.

No sockets, threads or clocks. The streams are put together by position: what is known already is cut off, what leaves a
gap is turned away, so a batch that comes twice counts once. What a record belongs to is looked up in the session's
definitions. A record that makes no sense is refused and counted alone, as long as it says where the next one
begins; after that the session is broken.
"""

from __future__ import annotations

import posixpath
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeVar

import msgpack
import numpy as np
import numpy.typing as npt

from tbxd_client.protocol.kinds import ROW, SCALAR
from tbxd_client.protocol.records import (
    ALIGNMENT,
    DEFINITION_BYTES_MAX,
    FLOAT64,
    INT64,
    PATH_ERRORS,
    POSITION_MAX,
    SCALAR_BYTES,
    SCALAR_HEAD,
    TAG_BYTES_MAX,
    UINT32,
    Record,
    RemoteProtocolError,
    RowDefinition,
    RunDefinition,
    TagDefinition,
    record_length,
    unpack_definition,
    unpack_record,
)

from ..batch import SCALAR_DTYPE, Batch, Scalars, Single, Token

DEFINITIONS_LEFT_OUT_MAX = 1000
STRETCH_BYTES = 256 << 10  # records that are gathered at a time
# For a record at once, as it says how long it is. Memory that is not touched costs nothing; more is had as it comes.
ROOM_BYTES = 64 << 20
NO_RUN = -1

T = TypeVar("T")

KNOWN_TAGS_MAX = 100_000  # that sessions share: the ranks of a job define the same ones
_known_tags: dict[TagDefinition, TagDefinition] = {}

_NOTHING = memoryview(b"")


class Session:
    """The state of one session.

    Args:
        id: the session's own bytes.
        start: position of the first record that its client still has.
        place: where the folder is that a client names (`allowed_roots.Roots.place`); None takes any.
    """

    def __init__(self, id: bytes, start: int, place: Callable[[str], str] | None = None) -> None:
        self.id = id
        self._place = place
        self.expected = start  # the records' next byte
        self.definitions_expected = 0
        self._definition_begin = 0  # of the one that is not whole yet
        self._unpacked = 0  # bytes that its unpacker has had
        self.written = start  # everything before this is in the event files,
        self.held = start  # and before this it is, or waits for other ranks and nothing else
        # By their numbers; None where a number was given but not used.
        self.runs: list[RunDefinition | None] = []
        self.tags: list[TagDefinition | None] = []
        self.rows: list[RowDefinition | None] = []
        # Runs of one folder have one ledger, so their records go there in one batch: that of the first of them.
        self._firsts: dict[str, int] = {}  # folder to run
        self._latest: dict[int, int] = {}  # and to the last of its runs, where it has several
        self._batch_runs: list[int] = []  # run to run
        self._numbered: set[int] = set()  # of these, the ones that have numbered tags
        self.asks_system = False  # one of the runs wants the node to be sampled
        self.homeless = 0  # records that name a tag which is not defined
        self._row_places = 0
        self._room = _NOTHING  # for a record that is not whole yet,
        self._held = 0  # of which so many bytes have come
        self._tokens: deque[Token] = deque()
        self._untaken: deque[Token] = deque()  # of these, the ones behind `held`
        self._unpacker: Any = None  # of the definition that is not whole yet: each takes 43 kB
        self._tag_runs = np.full(64, NO_RUN, np.int32)  # tag to the run in whose batch it goes

    @staticmethod
    def _new_unpacker() -> Any:
        return msgpack.Unpacker(
            max_buffer_size=4 * DEFINITION_BYTES_MAX,
            max_str_len=DEFINITION_BYTES_MAX,
            max_array_len=100_000,
            max_map_len=64,
            max_bin_len=TAG_BYTES_MAX,
            max_ext_len=0,
            unicode_errors=PATH_ERRORS,
        )

    @property
    def record_end(self) -> int:
        """The end of the record that has begun to come, as far as that is known."""
        length = record_length(self._room[: self._held])
        return self.expected - self._held + (length or 0)

    @property
    def places(self) -> int:
        """How many tags it has, those that stand in its rows once more for each row."""
        return len(self.tags) + self._row_places

    @property
    def outstanding(self) -> bool:
        """Whether runs have yet to write some of it."""
        return bool(self._tokens)

    def run(self, number: int) -> RunDefinition | None:
        """The run with a number, if it is defined."""
        return _get(self.runs, number) if number >= 0 else None

    def feed_definitions(self, position: int, payload: bytes) -> bool:
        """Take a stretch of the definitions. False: there is a gap before it.

        Raises:
            RemoteProtocolError: it is broken, and the session with it.
        """
        if position > self.definitions_expected:
            return False
        fresh = payload[self.definitions_expected - position :]
        self.definitions_expected += len(fresh)
        try:
            if self._unpacker is None:
                self._unpacker = self._new_unpacker()
            unpacker, begin = self._unpacker, self.definitions_expected - len(fresh) - self._unpacked
            unpacker.feed(fresh)
            for fields in unpacker:
                self._define(fields)
                self._definition_begin = begin + unpacker.tell()
            self._unpacked += len(fresh)
            if self._definition_begin == self.definitions_expected:
                self._unpacker, self._unpacked = None, 0
        except RemoteProtocolError:
            raise
        except Exception as error:  # msgpack raises ValueError, its own classes, UnicodeDecodeError, RecursionError
            raise RemoteProtocolError(f"definitions: {type(error).__name__}: {error}") from error
        if self.definitions_expected - self._definition_begin > DEFINITION_BYTES_MAX:  # it may never end
            raise RemoteProtocolError(f"a definition of more than {DEFINITION_BYTES_MAX:,} bytes")
        return True

    def _define(self, fields: object) -> None:
        definition = unpack_definition(fields)
        match definition:
            case RunDefinition():
                _make_place(definition.id, self.runs)
                if not definition.directory.startswith("/"):
                    raise RemoteProtocolError(f"the folder of a run has to be absolute: {definition.directory[:80]!r}")
                directory, above = _folder(definition.directory), _folder(definition.above)  # one name for one folder
                if self._place is not None:
                    directory = self._place(directory)
                    above = self._place(above) if definition.above else above
                if not definition.above or not directory.startswith(above + "/"):  # part of nothing
                    above = ""
                self.runs[definition.id] = definition._replace(directory=directory, above=above)
                self.asks_system = self.asks_system or bool(definition.system)
                self._batch_runs.extend([NO_RUN] * (len(self.runs) - len(self._batch_runs)))
                first = self._batch_runs[definition.id] = self._firsts.setdefault(directory, definition.id)
                if first != definition.id:
                    self._latest[first] = definition.id
            case TagDefinition():
                _make_place(definition.id, self.tags)
                if _get(self.runs, definition.run) is None:
                    raise RemoteProtocolError("a tag of a run that is not defined")
                if len(_known_tags) >= KNOWN_TAGS_MAX:
                    _known_tags.clear()
                self.tags[definition.id] = _known_tags.setdefault(definition, definition)
                if definition.id >= len(self._tag_runs):
                    grown = np.full(max(64, 2 * len(self.tags)), NO_RUN, np.int32)
                    grown[: len(self._tag_runs)] = self._tag_runs
                    self._tag_runs = grown
                self._tag_runs[definition.id] = self._batch_runs[definition.run]
                if definition.numbered:
                    self._numbered.add(self._batch_runs[definition.run])
            case RowDefinition():
                _make_place(definition.id, self.rows)
                tags = [_get(self.tags, tag) for tag in definition.tags]
                if any(tag is None or tag.run != definition.run for tag in tags):
                    raise RemoteProtocolError("a row of tags that are not defined in its run")
                self.rows[definition.id] = definition
                self._row_places += len(tags)

    def feed_records(self, position: int, payload: bytes) -> list[Batch] | None:
        """Take a stretch of the records; what it completes, by run. None: there is a gap before it.

        Raises:
            RemoteProtocolError: it is broken, and the session with it.
        """
        if position > self.expected:
            return None
        self._check_position(position + len(payload))
        fresh = memoryview(payload)[self.expected - position :]
        batches: list[Batch] = []
        while fresh and self._held:
            room = self.room(len(fresh))
            room[:] = fresh[: len(room)]
            fresh = fresh[len(room) :]
            batches += self.take(len(room))
        if fresh:
            self.expected += len(fresh)
            batches += self._cut(fresh)
        return batches

    def room(self, most: int, phase: int = 0) -> memoryview:
        """Memory for the next bytes of the records: up to the end of one that has begun, or for a stretch.

        Who has filled it calls `take`.

        Args:
            most: at most so many bytes.
            phase: the address of the first, modulo `ALIGNMENT`, if the memory is new.

        Raises:
            RemoteProtocolError: there cannot be so many.
        """
        self._check_position(self.expected + most)
        held = self._held
        length = record_length(self._room[:held]) or 0
        end = min(max(length, STRETCH_BYTES), held + most)
        if end > len(self._room):
            grown = _memory(max(end, min(length, max(ROOM_BYTES, 2 * held))), phase - held)
            grown[:held] = self._room[:held]
            self._room = grown
        return self._room[held:end]

    def take(self, count: int) -> list[Batch]:
        """Take the first ``count`` bytes of `room`; what they complete, by run.

        Raises:
            RemoteProtocolError: the stream is broken, and the session with it.
        """
        self.expected += count
        room, held = self._room, self._held + count
        self._room, self._held = _NOTHING, 0
        length = record_length(room[:held])
        if length is None or held < length:
            self._room, self._held = room, held
            return []
        return self._cut(room[:held])

    def _cut(self, data: memoryview) -> list[Batch]:
        """Take what ends at `expected`, and keep the record that is not whole."""
        used, batches = self._split(data, self.expected - len(data))
        self._held = len(data) - used
        self._room = memoryview(bytearray(data[used:]))
        return batches

    @staticmethod
    def _check_position(end: int) -> None:
        if end > POSITION_MAX:
            raise RemoteProtocolError(f"records up to position {end:,}; at most {POSITION_MAX:,}")

    def _split(self, data: memoryview, begin: int) -> tuple[int, list[Batch]]:
        """Cut ``data``, which begins at position ``begin``, into records. Returns how much is used, and the batches."""
        batches: dict[int, Batch] = {}
        token = Token(begin, 0)
        offset = 0
        while (length := record_length(data, offset)) is not None and offset + length <= len(data):
            if data[offset] == SCALAR_HEAD:
                offset += self._scalars(data, offset, begin, token, batches)
            else:
                offset += length
                self._single(data[offset - length : offset], begin + offset, token, batches)
        token.end = begin + offset
        token.runs = token.untaken = len(batches)
        if offset:
            self._tokens.append(token)
            self._untaken.append(token)
            self._settle()
        return offset, list(batches.values())

    def _batch(self, run: int, token: Token, batches: dict[int, Batch]) -> Batch:
        batch = batches.get(run)
        if batch is None:
            definition = self.runs[run]
            assert definition is not None  # a tag is only taken with its run
            batch = Batch(self.id, definition, self.tags, self.rows, token, numbered=run in self._numbered)
            latest = self._latest.get(run)
            if latest is not None and (last := self.runs[latest]) is not None:  # the file that it has told its user
                batch.definition, batch.run = latest, definition._replace(file_name=last.file_name)
            else:
                batch.definition = run
            batches[run] = batch
        return batch

    def _scalars(self, data: memoryview, offset: int, begin: int, token: Token, batches: dict[int, Batch]) -> int:
        """Take all scalars that follow each other from ``offset``; returns their bytes."""
        values = np.frombuffer(data, SCALAR_DTYPE, (len(data) - offset) // SCALAR_BYTES, offset)
        count = _count_scalars(values)
        if count == 0:
            raise RemoteProtocolError("a scalar whose numbers have other types than int64 and float64")
        values = values[:count]
        ends = begin + offset + SCALAR_BYTES * np.arange(1, count + 1, dtype=np.int64)
        runs = self._runs_of(values["tag"].astype(np.int64))
        first = int(runs[0])
        if (runs == first).all():
            self._take(first, values, ends, token, batches)
        else:
            order = np.argsort(runs, kind="stable")
            values, ends, runs = values[order], ends[order], runs[order]
            begins = [0, *(np.flatnonzero(runs[1:] != runs[:-1]) + 1).tolist(), count]
            for index, stop in pairwise(begins):
                self._take(int(runs[index]), values[index:stop], ends[index:stop], token, batches)
        return count * SCALAR_BYTES

    def _runs_of(self, tags: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """In the batches of which runs the records of these tags go."""
        known = len(self._tag_runs)
        if int(tags.max()) < known:
            return self._tag_runs.take(tags)
        return np.where(tags < known, self._tag_runs.take(np.minimum(tags, known - 1)), NO_RUN)

    def _take(
        self,
        run: int,
        values: npt.NDArray[Any],
        ends: npt.NDArray[np.int64],
        token: Token,
        batches: dict[int, Batch],
    ) -> None:
        """Scalars of one run go into its batch."""
        if run == NO_RUN:
            self.homeless += len(values)
            return
        batch = self._batch(run, token, batches)
        batch.items.append(Scalars(values, ends))
        batch.size += values.nbytes
        batch.records += len(values)

    def _single(self, view: memoryview, end: int, token: Token, batches: dict[int, Batch]) -> None:
        record: Record | None
        reason = ""
        try:
            record = unpack_record(view)
        except RemoteProtocolError:
            record, reason = None, "bad_record"
        # Whose it is stands at a fixed place, so that a record which makes no sense is counted with its run.
        target = int.from_bytes(view[8:12], "big")
        known = _get(self.rows, target) if view[1] == ROW else _get(self.tags, target)
        if known is None:
            self.homeless += 1
            return
        batch = self._batch(self._batch_runs[known.run], token, batches)
        batch.items.append(Single(record, end, len(view), reason))
        batch.size += len(view)
        batch.records += 1

    def done(self, batch: Batch) -> bool:
        """A run has written its part of a stretch. True when `written` has moved."""
        before = self.written
        batch.token.runs -= 1
        self.hold(batch)
        return self.written > before

    def hold(self, batch: Batch) -> bool:
        """A run has looked at its part of a stretch, and keeps it for other ranks. True when `held` has moved."""
        before = self.held
        if not batch.held:
            batch.held = True
            batch.token.untaken -= 1
        self._settle()
        return self.held > before

    def _settle(self) -> None:
        while self._tokens and self._tokens[0].runs <= 0:
            self.written = self._tokens.popleft().end
        while self._untaken and self._untaken[0].untaken <= 0:
            self.held = self._untaken.popleft().end


def _get(known: list[T | None], number: int) -> T | None:
    return known[number] if number < len(known) else None


def _memory(size: int, phase: int) -> memoryview:
    """So many bytes at an address of that phase, whose contents are whatever was there."""
    block = np.empty(size + ALIGNMENT, np.uint8)
    first = (phase - block.__array_interface__["data"][0]) % ALIGNMENT
    return block.data[first : first + size]


def _folder(path: str) -> str:
    return "/" + posixpath.normpath(path).lstrip("/")


def _make_place(number: int, known: list[Any]) -> None:
    """Numbers grow; a client that was interrupted leaves one out."""
    if not len(known) <= number <= len(known) + DEFINITIONS_LEFT_OUT_MAX:
        raise RemoteProtocolError(f"definition {number} where {len(known)} is next")
    known.extend([None] * (number + 1 - len(known)))


def _count_scalars(values: npt.NDArray[Any]) -> int:
    """How many of ``values``, from the first on, are scalars. Looks ahead in growing steps, because another kind of
    record may follow soon, but in few, because each costs as much as a thousand scalars."""
    count, step = 0, 16
    while count < len(values):
        part = values[count : count + step]
        good = (
            (part["h"] == SCALAR_HEAD)
            & (part["k"] == SCALAR)
            & (part["m0"] == UINT32)
            & (part["m1"] == INT64)
            & (part["m2"] == FLOAT64)
            & (part["m3"] == FLOAT64)
        )
        if not good.all():
            return count + int(good.argmin())
        count += len(part)
        step *= 64
    return count
