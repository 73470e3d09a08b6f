"""Batches, from sessions to runs: records of one session for one run, and their acknowledgement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tbxd_client.protocol.records import (
    SCALAR_BYTES,
    SCALAR_FIELDS,
    Record,
    RowDefinition,
    RunDefinition,
    TagDefinition,
)

# A scalar's bytes as a row of a structured array.
_TYPES = {"B": "u1", "I": ">u4", "q": ">i8", "d": ">f8"}
SCALAR_DTYPE = np.dtype([(name, _TYPES[kind]) for name, kind in SCALAR_FIELDS])
assert SCALAR_DTYPE.itemsize == SCALAR_BYTES


@dataclass(slots=True)
class Scalars:
    """Consecutive scalars: ``values`` of `SCALAR_DTYPE`, ``ends`` the positions after them (int64)."""

    values: npt.NDArray[Any]
    ends: npt.NDArray[np.int64]


@dataclass(slots=True)
class Single:
    """One record of another kind; ``record`` is None if it was refused, for ``reason``."""

    record: Record | None
    end: int
    size: int
    reason: str = ""


@dataclass(slots=True)
class Token:
    """A stretch of a session's records that ``runs`` runs have yet to write; ``untaken`` of them have not taken it."""

    end: int
    runs: int
    untaken: int = 0


@dataclass(slots=True)
class Batch:
    """The records of a stretch of a session for one run, in order."""

    session: bytes
    run: RunDefinition
    tags: list[TagDefinition | None]
    rows: list[RowDefinition | None]
    token: Token
    items: list[Scalars | Single] = field(default_factory=list)
    size: int = 0  # bytes of the records
    records: int = 0
    numbered: bool = False  # some of its tags may leave their steps to the run
    arrived: float = 0.0  # by the monotonic clock
    held: bool = False  # for other ranks, and nothing else keeps it from being written
    definition: int = 0  # the number of the last that the session had given for this folder

    def tag(self, number: int) -> TagDefinition:
        """Return a tag of a record of this batch, which is known to be defined."""
        tag = self.tags[number]
        assert tag is not None
        return tag

    def row(self, number: int) -> RowDefinition:
        """Return a row of a record of this batch."""
        row = self.rows[number]
        assert row is not None
        return row
