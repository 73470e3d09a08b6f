"""A journal in memory, for processes that can make files nowhere: the last resort before records are dropped.

What is in it is sent through the socket. It lives as long as its process: a kill loses what no daemon has got yet.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

from ..process.descriptors import Map
from .journal import Journal, JournalClosed
from .journal_files import CONTROL_BYTES, DEFINITIONS_BYTES_MAX, SEGMENT_HEAD_BYTES
from .own_files import OwnFiles
from .segment import Segment
from .segments import first_capacity

BYTES_MAX = 64 << 20  # of memory that may wait, whatever the setting for a journal on a disk is


def _memory(size: int) -> Map:
    """Return memory of this process alone, which a forked child does not share.

    Raises:
        OSError: there is none.
    """
    return Map(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class MemorySegment(Segment):
    """A stretch of the journal in memory; as `Segment`, but for the file."""

    __slots__ = ()

    def __init__(self, number: int, base: int, capacity: int) -> None:
        self.path = Path()
        self.number = number
        self.base = self.end = base
        self.capacity = capacity
        self.touched = 0
        self.mapped = True
        self.rests = False
        self.map = memory = _memory(SEGMENT_HEAD_BYTES + capacity)
        self.view = memoryview(memory)

    def rebase(self, base: int) -> None:
        """Let it begin at another position, of which no file says anything."""
        self.base = self.end = base

    def rest(self) -> None:
        """It has no descriptor, and its memory holds what it holds."""

    def close(self) -> None:
        self.view.release()
        if self.map is not None:
            self.map.close()


class MemoryFiles(OwnFiles):
    """Memory in the place of a journal's files; as `OwnFiles`.

    Args:
        session, bytes_max: as for `OwnFiles`.

    Raises:
        OSError: there is no memory.
    """

    def __init__(self, session: bytes, bytes_max: int) -> None:
        self._session = session
        self.path = Path()
        self.numbers = 0
        self.mapped = True
        self._begin_page(_memory(CONTROL_BYTES))
        self.first = self.make_segment(0, first_capacity(bytes_max))

    @property
    def place(self) -> str:
        return "memory"

    @property
    def folder(self) -> Path | None:
        return None

    def make_segment(self, base: int, capacity: int) -> Segment:
        return MemorySegment(self._number(), base, capacity)

    def delete(self, segment: Segment) -> None:
        segment.close()

    def sync_control(self) -> None:
        """Nothing of it is on a disk."""

    def trouble(self, last: Segment, definitions_end: int) -> OSError | None:
        """Nobody else can reach it."""
        return None

    @property
    def is_found(self) -> bool:
        return False

    def remove(self) -> None:
        """There is nothing to remove."""

    def close(self) -> None:
        self.page.close()


class MemoryJournal(Journal):
    """A journal in the memory of this process.

    Args:
        wake, bytes_max, block_seconds: as for `Journal`.

    Raises:
        OSError: there is no memory.
    """

    def __init__(self, wake: Callable[[], bool], bytes_max: int, block_seconds: float) -> None:
        super().__init__(Path(), wake, min(bytes_max, BYTES_MAX), block_seconds)

    def _make_files(self, spool: Path) -> OwnFiles:
        self._definitions = b""
        return MemoryFiles(self.session, self.bytes_max)

    def define(self, definition: bytes) -> None:
        with self.lock:
            if self.closed:
                raise JournalClosed
            if self.definitions_end + len(definition) > DEFINITIONS_BYTES_MAX:
                raise OSError(f"over {DEFINITIONS_BYTES_MAX:,} bytes of runs and tags in one session")
            self._definitions += definition
            self.definitions_end = len(self._definitions)

    def _write(self, size: int, parts: tuple[bytes | memoryview, ...]) -> str:
        offset = self.position - self.base
        for part in parts:
            self.buffer[offset : offset + len(part)] = part
            offset += len(part)
        self.position += size
        return ""

    def read(self, position: int, length: int) -> bytes:
        segment, there = self.locate(position)
        offset = SEGMENT_HEAD_BYTES + position - segment.base
        return bytes(segment.view[offset : offset + min(length, there)])

    def read_definitions(self, position: int, length: int) -> bytes:
        return self._definitions[position : position + length]

    def sync(self, wait: float = 0.0) -> None:
        """Nothing of it is on a disk."""

    def look(self) -> bool:
        """Nobody else can reach it."""
        return False
