"""A journal without files, for when there is no place for any: the last that can be done before records are dropped.

What is in it is sent through the socket. It lives as long as its process: a kill loses what no daemon has got yet.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

from ..process.descriptors import Map
from .journal import SEGMENT_BYTES_MIN, Journal, JournalClosed
from .journal_files import CONTROL_BYTES, DEFINITIONS_BYTES_MAX, SEGMENT_HEAD_BYTES
from .segment import Segment

BYTES_MAX = 64 << 20  # of memory that may wait, whatever the setting for a journal on a disk is


def _memory(size: int) -> Map:
    """Memory of this process alone, which a forked child does not share.

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


class MemoryJournal(Journal):
    """A journal in the memory of this process.

    Args:
        wake, bytes_max, block_seconds: as for `Journal`.

    Raises:
        OSError: there is no memory.
    """

    def __init__(self, wake: Callable[[], bool], bytes_max: int, block_seconds: float) -> None:
        super().__init__(Path(), wake, min(bytes_max, BYTES_MAX), block_seconds)

    @property
    def place(self) -> str:
        return "memory"

    @property
    def folder(self) -> Path | None:
        return None

    def _make(self, spool: Path) -> None:
        self.path = spool
        self._definitions = b""
        self._use_control(_memory(CONTROL_BYTES))
        self._live = (MemorySegment(self._number(), 0, min(SEGMENT_BYTES_MIN, self.bytes_max)),)
        self._enter(self._live[0])

    def define(self, definition: bytes) -> None:
        with self.lock:
            if self._closed:
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

    def _make_segment(self, capacity: int, smallest: int) -> Segment:
        try:
            return MemorySegment(self._number(), self.position, capacity)
        except OSError:
            if smallest == capacity:
                raise
        return MemorySegment(self._number(), self.position, smallest)

    def _delete(self, segment: Segment) -> None:
        segment.close()

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

    @property
    def is_found(self) -> bool:
        return False

    def _remove(self) -> None:
        """There is nothing to remove."""

    def _close_files(self) -> None:
        """There are none."""
