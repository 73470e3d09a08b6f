"""The contents of a folder's event files, read once and then only as far as they have grown.

One pass, in the order of the files, yields all that a daemon needs of a folder: the ledger, the last step of each tag,
and the points of several ranks. It depends on the bytes of the files alone, so a copy elsewhere (`checkpoint`) is a
short cut, never another truth.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from tbxd_client.logdir.event_names import event_files

from . import schema, trust
from .crc import masked_crc
from .event_file import NOT_OURS, open_to_read
from .ledger import NOTE, OVER, Ledger, LedgerReader, copied, merge
from .lineage import UNKNOWN, Lineage, life_of
from .plain_scalars import (
    FRAME_BYTES,
    MANY_BYTES,
    Plain,
    alike,
    following,
    intact,
    number_at,
    read_plain,
    steps_of,
    wall_time_of,
)
from .rank_points import Reduced
from .tag_steps import KINDS, Tags
from .tape import Tape
from .tfrecord import HEAD, RECORD_BYTES_MAX, TAIL, DamagedFile

CHUNK_BYTES = 1 << 20  # read at a time
FOREIGN_BYTES_MAX = 64 << 20  # of a file that is not believed: how long it takes to read one is another user's matter
ALIKE_MIN = 16  # events of one form that are looked at all at once; fewer cost less one by one
FORMS_MAX = 4096  # lengths whose checksums are remembered
APART_MAX = 4096  # events that are taken one by one, after others have turned out to be of several forms

_KINDS = {kind: place for place, kind in enumerate(KINDS)}


@dataclass(slots=True)
class FileRead:
    """An event file, and the position read so far. ``size`` and ``changed`` (its ctime, ns) are of the last look."""

    name: str
    device: int
    inode: int
    position: int = 0
    size: int = 0
    changed: int = 0
    ended: bool = False  # it is ours, and not the newest

    def is_same(self, state: os.stat_result) -> bool:
        """Return True if a file is this one, possibly grown."""
        return (self.device, self.inode) == (state.st_dev, state.st_ino) and state.st_size >= self.position

    def is_untouched(self, state: os.stat_result) -> bool:
        """Return True if the file is unchanged since the last look."""
        return self.is_same(state) and (self.size, self.changed) == (state.st_size, state.st_ctime_ns)


class Contents:
    """The contents of a folder, as far as `update` has read.

    Args:
        directory: the folder.
        folder: a descriptor of it, used instead of the path if given; may be replaced before each call.
    """

    def __init__(self, directory: Path, folder: int | None = None) -> None:
        self.directory = directory
        self.folder = folder
        self.believed = trust.own()  # whose files say what is written; of others only tags and steps are taken in
        self._begin()

    def _begin(self) -> None:
        self.files: dict[str, FileRead] = {}
        self.tags = Tags()
        self._tape = Tape()
        self.reduced = Reduced()
        self.lineage = Lineage()
        self._ending = UNKNOWN  # who begins the tags anew that end here
        self._owner_of, self._owner = b"", UNKNOWN  # the last session whose place was looked up, and that
        self._strange = False  # what is read is another's, and says nothing of who has logged it
        self.reader = LedgerReader()
        self.earlier: Ledger = {}  # what the files before the newest hold
        self.in_order = True  # everything has been read in the order of the files
        self.unsaved = 0  # bytes that have been read since there was nothing, or a checkpoint,
        self.kept_bytes = 0  # which took so many,
        self.keep_after = 0.0  # and before this, by the monotonic clock, there is no other
        self._newest = ""
        self._forms: dict[bytes, int] = {}
        self._apart, self._apart_next = 0, ALIKE_MIN  # events to take one by one, now and next time

    def update(self, own: str = "") -> None:
        """Read additions since the last time; everything if files have been removed, cut or replaced.

        Args:
            own: the file that this process writes, whose checksums are right.

        Raises:
            OSError: a file cannot be read at this moment. The next call continues.
        """
        if not self._look(own):
            self._begin()
            self._look(own)

    def _look(self, own: str) -> bool:
        names = self.names()
        if not self.files.keys() <= set(names):
            return False
        for name in names:
            known = self.files.get(name)
            if known is not None and known.ended and name != self._newest:
                continue  # a daemon has left it behind, and nobody adds to it
            try:
                state = self.state(name)
            except OSError as error:
                if error.errno not in NOT_OURS:
                    raise
                continue  # somebody has just removed it
            if known is not None and not known.is_same(state):
                return False
            believed = name == own or self.believed.holds(state)
            if known is None:
                known = FileRead(name, state.st_dev, state.st_ino)
                self._enter(known, believed)
            elif known.size == state.st_size:
                continue
            self._read(known, state, name != own, believed)
        return True

    def go_on(
        self,
        files: list[FileRead],
        tags: Tags,
        reduced: Reduced,
        reader: LedgerReader,
        earlier: Ledger,
        lineage: Lineage,
        kept_bytes: int,
    ) -> None:
        """Restore the state of an earlier reading, in the order of the files."""
        self._begin()
        self.files = {file.name: file for file in files}
        self.tags, self.reduced, self.reader, self.earlier = tags, reduced, reader, earlier
        self.lineage = lineage
        self.kept_bytes = kept_bytes
        self._newest = files[-1].name

    def names(self) -> list[str]:
        """Return the event files that the folder has now, in order.

        Raises:
            OSError: the folder cannot be read.
        """
        return event_files(self.directory if self.folder is None else self.folder)

    def state(self, name: str) -> os.stat_result:
        """Return the stat of a name in the folder.

        Raises:
            OSError: the name does not exist, or cannot be accessed.
        """
        if self.folder is None:
            return (self.directory / name).lstat()
        return os.stat(name, dir_fd=self.folder, follow_symlinks=False)

    def open(self, name: str) -> int:
        """Open a file of the folder for reading; return its descriptor, -1 if it is not a file or may not be read.

        Raises:
            OSError: the file cannot be opened at this moment.
        """
        return open_to_read(self.directory / name, self.folder)

    def ledger(self) -> Ledger:
        """The records of each session in the files."""
        ledger = copied(self.reader.ledger)
        if not self.reader.complete:
            ledger.pop(OVER, None)  # of sessions that the file before may name one by one
            merge(ledger, copied(self.earlier))
        return ledger

    def feed(self, data: bytes) -> None:
        """Take whole records that are not yet in the newest file; only into a `view`."""
        self._feed(data, verify=False)

    def relax(self) -> None:
        """Release memory that only saves time while a run is written."""
        self._tape = Tape()

    def view(self) -> Contents:
        """Return a copy of tags and lineage alone, for records that are not in the files yet."""
        other = Contents(self.directory, self.folder)
        other.tags = self.tags.copy()
        other.lineage = self.lineage.copy()
        return other

    # --- reading ---------------------------------------------------------------------------------------------

    def _enter(self, file: FileRead, believed: bool) -> None:
        """Add a new file."""
        self.files[file.name] = file
        if file.name < self._newest or not believed:
            self.in_order = False
            return
        if self._newest:
            self.files[self._newest].ended = self.reader.ours
        self.earlier = self.ledger()
        self.reader = LedgerReader()
        self.reduced.begin_file()
        self._newest = file.name

    def _read(self, file: FileRead, state: os.stat_result, verify: bool, believed: bool) -> None:
        if file.name == self._newest and believed:
            self._read_on(file, state, verify, state.st_size)
            return
        # It is another writer's, or not believed. What it holds of tags is taken in, as late as it is.
        self.in_order = False
        others = (self.reader, self.reduced)
        self.reader, self.reduced, self._strange = LedgerReader(), Reduced(), not believed
        try:
            self._read_on(file, state, verify, state.st_size if believed else min(state.st_size, FOREIGN_BYTES_MAX))
        finally:
            (self.reader, self.reduced), self._strange = others, False

    def _read_on(self, file: FileRead, state: os.stat_result, verify: bool, size: int) -> None:
        fd = self.open(file.name) if stat.S_ISREG(state.st_mode) else -1
        try:
            while fd >= 0 and file.position < size:
                data = os.pread(fd, min(CHUNK_BYTES, size - file.position), file.position)
                used = self._feed(data, verify)
                if not used:
                    used = self._feed(self._one(fd, file.position, data, size), verify)
                    if not used:
                        break  # a record that is cut, or damaged: what stands before it stands
                file.position += used
                self.unsaved += used
        finally:
            if fd >= 0:
                os.close(fd)
        file.size, file.changed = state.st_size, state.st_ctime_ns

    @staticmethod
    def _one(fd: int, position: int, data: bytes, size: int) -> bytes:
        """Return the bytes of a record that is longer than a chunk; b"" if the file does not have all of it."""
        if len(data) < HEAD.size:
            return b""
        whole = HEAD.unpack_from(data)[0] + FRAME_BYTES
        return os.pread(fd, whole, position) if len(data) < whole <= size - position else b""

    def _feed(self, data: bytes, verify: bool) -> int:
        """Take the whole records at the beginning of ``data``, up to a damaged one; return their size in bytes."""
        at, size = 0, len(data)
        try:
            while at + HEAD.size <= size:
                head = data[at : at + HEAD.size]
                whole = self._forms.get(head) or self._form(head, at)
                end = at + whole
                if end > size:
                    break
                taken = 0
                if data[end : end + HEAD.size] == head:
                    taken = self._several(data, at, whole, verify)
                if not taken:
                    taken = whole
                    if verify:
                        _check(data, at, end)
                    self._event(data, at + HEAD.size, end - TAIL.size)
                at += taken
        except DamagedFile:
            pass
        return at

    def _form(self, head: bytes, at: int) -> int:
        length, checksum = HEAD.unpack(head)
        if masked_crc(head[:8]) != checksum or length > RECORD_BYTES_MAX:
            raise DamagedFile(at, "the checksum of a length is wrong")
        if len(self._forms) >= FORMS_MAX:
            self._forms.clear()
        self._forms[head] = int(length) + FRAME_BYTES
        return int(length) + FRAME_BYTES

    def _several(self, data: bytes, at: int, whole: int, verify: bool) -> int:
        """Take events with the same tags all at once; return their size in bytes, 0 if there are too few."""
        self._apart = max(0, self._apart - 1)
        count = following(data, at, whole) if not self._apart else 0
        first = read_plain(data, at + HEAD.size, at + whole - TAIL.size) if count >= ALIKE_MIN else None
        # What several ranks have logged is told apart step by step, and what a file begins with is looked at.
        if first is None or first.mark or self.reduced.generation or not self.reader.begun:
            return 0
        rows = alike(data, at, whole, min(count, 4 * ALIKE_MIN), first)
        if len(rows) == 4 * ALIKE_MIN < count:
            rows = alike(data, at, whole, count, first)
        if len(rows) < ALIKE_MIN:
            self._apart = self._apart_next
            self._apart_next = min(2 * self._apart_next, APART_MAX)
            return 0
        self._apart_next = ALIKE_MIN
        if verify:
            rows = rows[: intact(rows, at, first)]
        places = self._places(first)
        if not len(rows) or not places:
            return 0
        steps = steps_of(rows, first)
        self.reader.pass_over(len(rows), len(rows) * len(places))
        self.tags.note(places, int(steps[-1]), int(steps.max()), wall_time_of(rows[-1]), owner=self._who())
        return len(rows) * whole

    def _event(self, data: bytes, begin: int, end: int) -> None:
        plain = read_plain(data, begin, end, None if self.reduced.generation else self._tape)
        if plain is not None and plain.places is not None:
            self._mark(plain.mark.decode(), len(plain.places))
            self.tags.note(plain.places, plain.step, plain.step, plain.wall_time, owner=self._who())
            return
        if plain is not None and (places := self._places(plain)):
            self._plain(data, plain, places)
            if plain.ends[-1] - plain.begin >= MANY_BYTES:
                self._tape.add(data, plain.begin, plain.tags, plain.ends, places)
            return
        event = schema.Event()
        try:
            event.ParseFromString(data[begin:end])
        except schema.DecodeError:
            raise DamagedFile(begin, "no event") from None
        values = event.summary.value
        self._mark(event.source_metadata.writer, len(values))
        step, tags, owner = event.step, self.tags, self._who()
        if event.session_log.status == schema.SESSION_START:
            tags.start(step)
        for value in values:
            kind = value.WhichOneof("value")
            if kind == schema.END_KIND:
                known = tags.get(value.tag)
                if known is not None:
                    tags.cut(known, step, self._ending)
            elif kind is not None:
                place = tags.place(value.tag)
                tags.note((place,), step, step, event.wall_time, _KINDS.get(kind, len(KINDS) - 1), owner)
                if place not in tags.metadata and value.HasField("metadata"):
                    tags.metadata[place] = value.metadata.SerializeToString(deterministic=True)
        if self.reduced.generation:
            self.reduced.values(
                self.reader.session,
                step,
                [
                    (value.tag, value.HasField("histo"), value.simple_value)
                    for value in values
                    if not value.HasField(schema.END_KIND)
                ],
            )

    def _places(self, plain: Plain) -> list[int]:
        """Return the places of the tags; none if one of them is not UTF-8, which protobuf has to refuse."""
        try:
            return self.tags.places(plain.tags)
        except UnicodeDecodeError:
            return []

    def _plain(self, data: bytes, plain: Plain, places: list[int]) -> None:
        self._mark(plain.mark.decode(), len(places))
        self.tags.note(places, plain.step, plain.step, plain.wall_time, owner=self._who())
        if self.reduced.generation:
            names = self.tags.names
            self.reduced.values(
                self.reader.session,
                plain.step,
                [(names[place], False, number_at(data, end)) for place, end in zip(places, plain.ends, strict=True)],
            )

    def _mark(self, writer: str, values: int) -> None:
        self.reader.follow(writer, values)
        if writer:
            self.reduced.follow(writer, self.reader.settled)
            if writer.startswith(NOTE) and not self._strange and self.reader.ours:
                self._ending = self.lineage.follow(writer)
                self._owner_of = b""

    def _who(self) -> int:
        """Return the place of the life that has logged the event of the last mark."""
        session = self.reader.session
        if self._strange or not session:
            reduced = self.reduced
            if self._strange or not reduced.generation or reduced.mark is None:
                return UNKNOWN
            return self.lineage.place(life_of(reduced.generation))
        if session != self._owner_of:
            self._owner_of, self._owner = session, self.lineage.place(session)
        return self._owner


def _check(data: bytes, at: int, end: int) -> None:
    """
    Raises:
        DamagedFile: the checksum of a framed event is wrong.
    """
    if masked_crc(data[at + HEAD.size : end - TAIL.size]) != TAIL.unpack_from(data, end - TAIL.size)[0]:
        raise DamagedFile(at, "the checksum of a record is wrong")


def contents_of(directory: Path) -> Contents:
    """Return the present contents of a folder.

    Raises:
        OSError: a file cannot be read at this moment.
    """
    contents = Contents(directory)
    contents.update()
    return contents
