"""Checkpoints of a folder's event files: their contents at the last look, so that the next daemon reads only what they
have gained since.

A checkpoint is a short cut, never a second truth. It names its files, its end, and a digest of the last bytes before
that, and it is used only if all of that is still true: if a file was cut, replaced, copied or edited, or another one
has come in between, everything is read. After a reboot everything is read, too, because the contents of a file may
not have reached its disk. A checkpoint that is torn, old, another user's, or of another version is ignored.

Checkpoints are in the user's own folder (``ledgers`` in the spool), not with the event files: others who may write
there may not write here.

=====  ===========================================================
bytes  what
=====  ===========================================================
8      ``tbxdled3``
32     SHA-256 of all that follows
8      length of the next part, little endian
…      JSON: see `_head`
…      columns of 8 bytes a number, or 1, in the order of `_head`
=====  ===========================================================
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import stat
import time
from array import array
from pathlib import Path
from typing import Any

from tbxd_client.config.paths import private_dir
from tbxd_client.journal.journal_files import boot_id

from .contents import Contents, FileRead
from .event_file import NOT_OURS
from .ledger import LedgerReader, dump_ledger, load_ledger
from .lineage import Lineage
from .rank_points import Reduced
from .tag_steps import COLUMNS, Tags

log = logging.getLogger(__name__)

MAGIC = b"tbxdled3"
NO_BOOT = bytes(16)
BUSY_BYTES = 32 << 20  # of event files between two checkpoints of a run that is being written,
IDLE_BYTES = 1 << 20  # and of one that is let go of: fewer are read sooner than a checkpoint is worth
TIMES = 6.0  # as long as making the last one took, before another of a run that is being written
SHARE = 8  # while it is written, as many times what the last one took
HEAD_BYTES, LAST_BYTES = 4 << 10, 64 << 10  # of the newest file that are compared
SIZE_MAX = 256 << 20
AGE_SECONDS_MAX = 30 * 86_400.0  # since it was written
COUNT_MAX, BYTES_MAX = 4096, 1 << 30  # of all of them; the oldest go
MAKING = ".new-"
MAKING_SECONDS_MAX = 3600.0


class Checkpoints:
    """The checkpoints of a user.

    Args:
        place: their folder, made with the first one; None keeps none.
    """

    def __init__(self, place: Path | None = None) -> None:
        self._place = place

    def load(self, contents: Contents) -> bool:
        """Load the contents of an unread folder from its checkpoint. Return False if there is none."""
        if self._place is None or contents.files or not self._place.is_dir():
            return False
        try:
            data = self._read(self._path(contents))
            return data is not None and _restore(contents, data)
        except OSError:
            return False
        except Exception as error:  # whatever makes no sense in it
            log.info("%s: its checkpoint makes no sense: %s: %s", contents.directory, type(error).__name__, error)
            return False

    def keep(self, contents: Contents, own: str, size: int, idle: bool) -> None:
        """Make a checkpoint of a folder, if it has gained enough since the last one.

        Args:
            contents: the contents of the folder, which this process has locked.
            own: the file that it writes.
            size: the size of that file in bytes.
            idle: the folder is released.
        """
        known = contents.files.get(own)
        unsaved = contents.unsaved + size - (known.position if known is not None else 0)
        least = max(IDLE_BYTES, contents.kept_bytes) if idle else max(BUSY_BYTES, SHARE * contents.kept_bytes)
        begun = time.monotonic()
        if idle:
            contents.relax()
        if self._place is None or unsaved < least or (not idle and begun < contents.keep_after):
            return
        try:
            contents.update(own)
            if contents.in_order and boot_id() != NO_BOOT:
                contents.kept_bytes = self._write(self._path(contents), _packed(contents))
        except OSError as error:
            log.info("%s: no checkpoint: %s", contents.directory, error)
        except Exception:  # a fault of ours: a daemon that comes next reads more, which must cost this one nothing
            log.exception("%s: no checkpoint", contents.directory)
        contents.unsaved = 0
        took = time.monotonic() - begun
        contents.keep_after = begun + took * TIMES

    def _path(self, contents: Contents) -> Path:
        """Return the path of a folder's checkpoint.

        Raises:
            OSError: the folder is gone, or the place is not this user's own.
        """
        assert self._place is not None
        state = contents.directory.stat() if contents.folder is None else os.fstat(contents.folder)
        return private_dir(self._place) / f"{state.st_dev:x}-{state.st_ino:x}"

    @staticmethod
    def _read(path: Path) -> bytes | None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in NOT_OURS:
                return None
            raise
        with open(fd, "rb") as file:
            state = os.fstat(fd)
            if not stat.S_ISREG(state.st_mode) or state.st_uid != os.geteuid() or state.st_size > SIZE_MAX:
                return None
            return file.read(SIZE_MAX)

    @staticmethod
    def _write(path: Path, data: bytes) -> int:
        making = path.with_name(f"{MAKING}{path.name}-{os.getpid()}")
        making.unlink(missing_ok=True)
        fd = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(data)
            making.rename(path)
        except BaseException:
            with contextlib.suppress(OSError):
                making.unlink()
            raise
        return len(data)

    def sweep(self) -> None:
        """Delete checkpoints that are too old, too many, or half written."""
        if self._place is None:
            return
        found = []
        now = time.time()
        with contextlib.suppress(OSError), os.scandir(self._place) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    state = entry.stat(follow_symlinks=False)
                    most = MAKING_SECONDS_MAX if entry.name.startswith(MAKING) else AGE_SECONDS_MAX
                    if now - state.st_mtime > most:
                        os.unlink(entry.path)  # noqa: PTH108 - what scandir gives
                    else:
                        found.append((state.st_mtime, state.st_size, entry.path))
        size = 0
        for count, (_, more, path) in enumerate(sorted(found, reverse=True), 1):
            size += more
            if count > COUNT_MAX or size > BYTES_MAX:
                with contextlib.suppress(OSError):
                    os.unlink(path)  # noqa: PTH108


def _packed(contents: Contents) -> bytes:
    columns = [*contents.tags.columns(), *contents.reduced.points()]
    head = json.dumps(_head(contents, [len(column) for column in columns])).encode()
    parts = [len(head).to_bytes(8, "little"), head, *(column.tobytes() for column in columns)]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return b"".join((MAGIC, digest.digest(), *parts))


def _head(contents: Contents, lengths: list[int]) -> dict[str, Any]:
    files = list(contents.files.values())
    return {
        "boot": boot_id().hex(),
        "files": [
            [file.name, file.device, file.inode, file.position, file.size, file.changed, file.ended]
            for file in sorted(files, key=lambda file: file.name)
        ],
        "bytes": _fingerprint(contents, max(files, key=lambda file: file.name)) if files else "",
        "earlier": dump_ledger(contents.earlier),
        "reader": contents.reader.dump(),
        "lineage": contents.lineage.dump(),
        "tags": contents.tags.names,
        "metadata": {place: data.hex() for place, data in contents.tags.metadata.items()},
        "reduced": contents.reduced.dump(),
        "lengths": lengths,
    }


def _restore(contents: Contents, data: bytes) -> bool:
    """
    Raises:
        ValueError, KeyError, TypeError, IndexError, OverflowError: the data are not a checkpoint of ours.
        OSError: a file cannot be accessed at this moment.
    """
    begin = len(MAGIC) + 32
    if data[: len(MAGIC)] != MAGIC or hashlib.sha256(memoryview(data)[begin:]).digest() != data[len(MAGIC) : begin]:
        raise ValueError("a checksum is wrong, or it is of another version")
    at = begin + 8 + int.from_bytes(data[begin : begin + 8], "little")
    head = json.loads(data[begin + 8 : at])
    files = [FileRead(*fields) for fields in head["files"]]
    if bytes.fromhex(head["boot"]) != boot_id() or not _are_there(contents, files, head["bytes"]):
        return False
    columns: list[Any] = []
    for kind, length in zip(COLUMNS + Reduced.COLUMNS, head["lengths"], strict=True):
        column: array[Any] = array(kind)
        column.frombytes(data[at : at + length * column.itemsize])
        if len(column) != length:
            raise ValueError("a column is cut")
        at += length * column.itemsize
        columns.append(column)
    metadata = {int(place): bytes.fromhex(text) for place, text in head["metadata"].items()}
    contents.go_on(
        files,
        Tags.of(head["tags"], columns[: len(COLUMNS)], metadata),
        Reduced.load(head["reduced"], columns[len(COLUMNS) :]),
        LedgerReader.load(head["reader"]),
        load_ledger(head["earlier"]),
        Lineage.load(head["lineage"]),
        len(data),
    )
    return True


def _are_there(contents: Contents, files: list[FileRead], fingerprint: str) -> bool:
    """Return True if a folder has these files unchanged, except for additions to the last, and none before that."""
    names = contents.names()
    if not files or names[: len(files)] != [file.name for file in files]:
        return False
    states = [contents.state(file.name) for file in files]
    *before, last = zip(files, states, strict=True)
    believed = all(contents.believed.holds(state) for state in states)
    if not believed or not all(file.is_untouched(state) for file, state in before):
        return False
    file, state = last
    grown = state.st_size > file.size and file.is_same(state)
    return (grown or file.is_untouched(state)) and _fingerprint(contents, file) == fingerprint


def _fingerprint(contents: Contents, file: FileRead) -> str:
    """Return a digest of the beginning of a file and of the last bytes that were read; "" if it may not be read.

    Raises:
        OSError: the file cannot be read at this moment.
    """
    fd = contents.open(file.name)
    if fd < 0:
        return ""
    try:
        first = max(0, file.position - LAST_BYTES)
        digest = hashlib.sha256(os.pread(fd, min(HEAD_BYTES, file.position), 0))
        digest.update(os.pread(fd, file.position - first, first))
        return digest.hexdigest()
    finally:
        os.close(fd)
