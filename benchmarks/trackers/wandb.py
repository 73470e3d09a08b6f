"""wandb, offline. Its core is a process of its own."""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
import wandb

# The file is LevelDB's log behind seven bytes of its own: blocks of 32 KiB, pieces with checksum, length and type.
BLOCK_BYTES = 1 << 15
HEAD_BYTES = 7
PIECE = struct.Struct("<IHB")
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


class SummaryWriter:
    """One run of wandb."""

    def __init__(self, folder: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(project="benchmark", dir=folder)
        self._log = self._run.log
        self.close = self._run.finish

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self._log({tag: value}, step)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._log(values, step)

    def add_histogram(self, tag: str, values: Any, step: int) -> None:
        self._log({tag: wandb.Histogram(values)}, step)

    def add_image(self, tag: str, picture: Any, step: int, dataformats: str = "HWC") -> None:
        self._log({tag: wandb.Image(picture)}, step)

    def flush(self) -> None:
        pass  # there is none


def kept(folder: Path) -> Counter[str]:
    """Points by tag."""
    from wandb.proto import wandb_internal_pb2

    found: Counter[str] = Counter()
    for path in folder.glob("wandb/offline-run-*/*.wandb"):
        for data in _records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            found.update({item.key or item.nested_key[0] for item in record.history.item})
    return found


def _records(log: bytes) -> Iterator[bytes]:
    position, parts = HEAD_BYTES, b""
    while position + PIECE.size <= len(log):
        if BLOCK_BYTES - position % BLOCK_BYTES < PIECE.size:
            position += BLOCK_BYTES - position % BLOCK_BYTES
            continue
        _, length, kind = PIECE.unpack_from(log, position)
        position += PIECE.size
        if not FULL <= kind <= LAST or position + length > len(log):
            return  # the torn end
        parts = (
            log[position : position + length] if kind in (FULL, FIRST) else parts + log[position : position + length]
        )
        position += length
        if kind in (FULL, LAST):
            yield parts
