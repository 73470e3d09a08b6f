"""The files of a journal that this process makes: its folder, the control page, the definitions and the segments.

They are made under another name and renamed when they are whole and locked.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from ..process import descriptors
from ..process.descriptors import Descriptor
from .journal_files import (
    CONTROL_BYTES,
    CONTROL_HEAD,
    CONTROL_NAME,
    DEFINITIONS_NAME,
    MAGIC,
    MAKING,
    boot_id,
    remove_journal,
    session_name,
)
from .reach import is_found, root, trouble
from .segment import Segment, remove
from .segments import first_capacity
from .storing import FileWords, hardly_any_room, is_in_place


class OwnFiles:
    """The files of one journal, made and locked by this process.

    Attributes:
        path: the journal's folder.
        mapped: small records are stored through maps.
        page: the map of the control page.
        words: the control page as words of 8 bytes.
        first: the segment that holds position 0.
        numbers: how many segments were made.

    Args:
        spool: the folder that holds journals; it has to exist.
        session: the journal's.
        bytes_max: of segment files.
        durable: each record is synced by itself.

    Raises:
        OSError: the files cannot be made; nothing is left of them then.
    """

    path: Path
    mapped: bool
    page: descriptors.Map
    words: memoryview | FileWords
    first: Segment
    numbers: int

    def __init__(self, spool: Path, session: bytes, bytes_max: int, durable: bool) -> None:
        self._session = session
        self.numbers = 0
        self.path = spool / session_name(session)
        # Who finds the files under the journal's own name finds them locked.
        staging = spool / (MAKING + self.path.name)
        staging.mkdir(mode=0o700)
        if not os.access(staging, os.X_OK, effective_ids=True):
            staging.chmod(0o700)  # the umask is 0777
        self._made_under = root()
        self._files: list[Descriptor] = []
        self._maps: list[descriptors.Map] = []
        self._segments: list[Segment] = []
        self.words = memoryview(b"")
        try:
            self._make(staging, bytes_max, durable)
            staging.rename(self.path)
        except (OSError, MemoryError):
            self._give_back()
            remove_journal(staging)
            raise
        self._move()

    def _make(self, folder: Path, bytes_max: int, durable: bool) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        # By it files are made and deleted, also when another folder is "/", or something is mounted over the spool.
        self.folder_file = descriptors.open_file(folder, os.O_RDONLY | os.O_DIRECTORY)
        self._files.append(self.folder_file)
        path = folder / CONTROL_NAME
        self.control_file = descriptors.open_file(path, flags)
        self._files.append(self.control_file)
        fcntl.flock(self.control_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A page that is synced after each record is stored into for the first time again with the next.
        in_place = is_in_place(self.control_file)
        self.mapped = in_place and not durable
        if not in_place and (full := hardly_any_room(self.control_file)) is not None:
            raise full
        self._in_place = in_place
        os.posix_fallocate(self.control_file.number, 0, CONTROL_BYTES)
        # The lock belongs to the open file, which lasts as long as a descriptor or a map of it. With a map of its own a
        # program that closes all descriptors keeps it; children do not have that one.
        self._lock_map = descriptors.map_file(self.control_file, CONTROL_BYTES, inherited=False)
        self._maps.append(self._lock_map)
        # They do have this one, so it is of another open file, which is not locked.
        unlocked = descriptors.open_file(path, os.O_RDWR)
        try:
            self._maps.append(descriptors.map_file(unlocked, CONTROL_BYTES))
            self._begin_page(self._maps[-1])
        finally:
            unlocked.close()
        self.definitions_file = descriptors.open_file(folder / DEFINITIONS_NAME, flags | os.O_APPEND)
        self._files.append(self.definitions_file)
        self.first = self.make_segment(0, first_capacity(bytes_max))
        self._segments.append(self.first)

    def _begin_page(self, page: descriptors.Map) -> None:
        """Store the head of the control page."""
        self.page = page
        head = CONTROL_HEAD.pack(MAGIC, self._session, os.getpid(), boot_id(), os.getuid(), time.time())
        if self.mapped:
            page[: len(head)] = head
            self.words = memoryview(page).cast("Q")
        else:
            os.pwrite(self.control_file.number, head, 0)
            self.words = FileWords(self.control_file, head.ljust(CONTROL_BYTES, b"\0"))

    def _give_back(self) -> None:
        """Close what a failed attempt has opened and mapped, at once: the next attempt needs it."""
        for segment in self._segments:
            segment.close()
        self.words.release()
        for page in self._maps:
            page.close()
        for file in self._files:
            file.close()

    def _move(self) -> None:
        """Note the new paths of the files after the rename."""
        for file in self._files:
            file.path = self.path / file.path.name if file.path is not None else None
        self.folder_file.path = self.path
        self.first.move(self.path)

    @property
    def place(self) -> str:
        """The place of the files, for people."""
        return str(self.path)

    @property
    def folder(self) -> Path | None:
        """The folder that holds them; None where there is none."""
        return self.path

    def _number(self) -> int:
        self.numbers += 1
        return self.numbers

    def make_segment(self, base: int, capacity: int) -> Segment:
        """Make a segment.

        Args:
            base: the position of its first byte.
            capacity: bytes of records.

        Raises:
            OSError: there is no room for it.
        """
        return Segment(self.folder_file, self._number(), self._session, base, capacity, self.mapped)

    def delete(self, segment: Segment) -> None:
        """Delete a segment and close it."""
        remove(segment.path, self.folder_file)
        segment.close()

    def sync_control(self) -> None:
        """Bring the control page onto the disk.

        Raises:
            OSError: the disk cannot take it.
        """
        os.fdatasync(self.control_file.valid())

    def trouble(self, last: Segment, definitions_end: int) -> OSError | None:
        """Return the reason why the files cannot be used any more; None if they can.

        Args:
            last: the segment in use.
            definitions_end: how many bytes the definitions have.
        """
        files = (
            (self.control_file, CONTROL_BYTES),
            (self.definitions_file, definitions_end),
            (last.file, last.file_bytes),
        )
        error = trouble(self.control_file, files, self._made_under)
        if error is None and not self._in_place:
            error = hardly_any_room(self.control_file)
        return error

    @property
    def is_found(self) -> bool:
        """True if a daemon would find the journal where it was made, once this process has closed it."""
        return is_found(self.control_file, self._made_under)

    def remove(self) -> None:
        """Delete the journal."""
        remove_journal(self.path)

    def close(self) -> None:
        """Close the files but for the segments; the lock is free then."""
        self.page.close()
        self.folder_file.close()
        self.definitions_file.close()
        self._lock_map.close()
        self.control_file.close()
