"""``RecordWriter``: writes the caller's own TFRecords to a file, in the calling process.

A record is its length (8 bytes, little endian), the masked CRC-32C of that (4), the data, and their masked CRC-32C (4).
Source: TensorFlow, ``tensorflow/core/lib/io/record_writer.h`` and ``tensorflow/core/lib/hash/crc32c.h``.
"""

from __future__ import annotations

import os
import struct
from types import TracebackType
from typing import Any

REMOTE = ("s3://", "gs://")


class RecordWriter:
    """Writes records to a file, without the daemon.

    Args:
        path: the file, replaced if it exists; or as for torch, an object with ``write``, ``flush`` and ``close``.
        writer: torch's name of ``path``.

    Raises:
        OSError: the file cannot be made; from `write` and `flush`: the disk is full.
        TypeError, ValueError: the path is missing, or is that of an object store.
    """

    def __init__(self, path: Any = None, *, writer: Any = None) -> None:
        from crc32c import crc32c

        path = writer if path is None else path
        self.path = path
        self._tbxd_crc = crc32c
        if hasattr(path, "write"):
            self._writer = path
            return
        if str(path).startswith(REMOTE):
            raise ValueError(
                f"{path}: only local files are written; copy them there, or give an open object to write to"
            )
        self._writer = open(path, "wb")  # noqa: SIM115 - closed by `close`

    def write(self, data: bytes) -> None:
        """Append one record."""
        head = struct.pack("<Q", len(data))
        self._writer.write(b"".join((head, self._tbxd_masked(head), data, self._tbxd_masked(data))))

    def _tbxd_masked(self, data: bytes) -> bytes:
        crc = self._tbxd_crc(data)
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    def flush(self) -> None:
        """Pass everything to the system, and sync the file to disk if this writer has opened it."""
        self._writer.flush()
        if self._writer is not self.path:
            os.fsync(self._writer.fileno())

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    @property
    def closed(self) -> bool:
        """True if the file is closed."""
        return bool(self._writer.closed)

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
