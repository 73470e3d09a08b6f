"""One file of a journal and its map, preallocated, so that storing into it cannot fail."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from pathlib import Path

from ..process import descriptors
from ..process.descriptors import Descriptor
from .journal_files import MAGIC, SEGMENT_BASE_OFFSET, SEGMENT_HEAD, SEGMENT_HEAD_BYTES, segment_name
from .storing import is_in_place

SEGMENT_MODE = 0o400


class Segment:
    """One file of the journal and its map; ``base`` is the position of its first byte.

    ``touched``: an offset into the file, before which about everything has been stored to at some time.

    Args:
        mapped: it is stored into through a map; else by the system alone, and there is none.

    Raises:
        OSError: the file cannot be made, or the disk has no room for all of it; nothing is left of it then.
    """

    __slots__ = ("base", "capacity", "end", "file", "map", "mapped", "number", "path", "rests", "touched", "view")

    def __init__(
        self, folder: Descriptor, number: int, session: bytes, base: int, capacity: int, mapped: bool = True
    ) -> None:
        assert folder.path is not None
        self.path = path = folder.path / segment_name(number)
        self.number = number
        self.base = base
        self.end = base  # the end of what it holds, set when the next segment begins
        self.capacity = capacity
        self.touched = 0
        self.mapped = mapped
        self.rests = False  # whether it has given back its map and its descriptor
        self.map: descriptors.Map | None = None
        # Nobody but root opens it by its name to cut it: a store through a map behind the end would end this process.
        self.file = descriptors.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, SEGMENT_MODE, folder)
        try:
            if not mapped:
                is_in_place(self.file)  # ask for it
            # A map of a file with holes dies of SIGBUS on a full disk; this fails here and now instead.
            os.posix_fallocate(self.file.number, 0, SEGMENT_HEAD_BYTES + capacity)
            os.pwrite(self.file.number, SEGMENT_HEAD.pack(MAGIC, session, base), 0)
            if mapped:
                self.map = descriptors.map_file(self.file, SEGMENT_HEAD_BYTES + capacity)
                # Without this the first store reads ahead, 8 MB where the disk is set so: milliseconds in one call, and
                # pages one by one that pwrite would have made in large pieces.
                self.map.madvise(mmap.MADV_RANDOM)
        except BaseException:  # also of a signal handler: a file that stayed would say that it holds what the next does
            if self.map is not None:
                self.map.close()
            self.file.close()
            remove(path, folder)
            raise
        self.view = memoryview(b"" if self.map is None else self.map)

    def rebase(self, base: int) -> None:
        """Set the position of the first byte: one store, so a reader sees the old one or the new one.

        Raises:
            OSError: the disk does not take it.
        """
        # Not through the map: its first page may have been written back, and where the disk has ended since a store
        # into it would end this process.
        os.pwrite(self.file.valid(), struct.pack("=Q", base), SEGMENT_BASE_OFFSET)
        self.base = self.end = base

    def rest(self) -> None:
        """Close the map and the descriptor: nothing more is stored into it until it is deleted.

        If a signal handler raises in here, `close` does the rest.
        """
        self.rests = True
        self.view.release()
        if self.map is not None and not self.map.closed:
            self.map.close()
        self.file.close()

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the file. Another thread may call `rest` meanwhile.

        Raises:
            OSError: it is not there any more, or the disk fails.
        """
        if not self.rests:
            with contextlib.suppress(OSError):
                data = os.pread(self.file.valid(), length, offset)
                if self.file.mine:  # else it may have been that of another file that was read
                    return data
        file = descriptors.another(self.file)
        try:
            return os.pread(file.number, length, offset)
        finally:
            file.close()

    def move(self, folder: Path) -> None:
        """Note that the folder has another name now."""
        self.path = self.file.path = folder / self.path.name

    @property
    def file_bytes(self) -> int:
        """The size of the file in bytes."""
        return SEGMENT_HEAD_BYTES + self.capacity

    def rescued(self, offset: int, length: int) -> bytes:
        """Return bytes of the map of a file that cannot be read any more; fewer if the system has not kept all of them.

        The system copies them: a page that is gone is then an error, and not the end of this process.
        """
        data = b""
        with contextlib.suppress(OSError), descriptors.uncut:
            fd = os.memfd_create("tbxd", os.MFD_CLOEXEC)
            try:
                if self.map is not None and not self.rests:
                    os.write(fd, self.view[offset : offset + length])
                data = os.pread(fd, length, 0)
            finally:
                os.close(fd)
        return data

    def close(self) -> None:
        """Close the map and the descriptor."""
        self.rest()


def remove(path: Path, folder: Descriptor) -> None:
    """Delete a file of a folder, wherever the folder is now. If that fails, it is deleted with the folder."""
    with contextlib.suppress(OSError):
        os.unlink(path.name, dir_fd=folder.valid())
