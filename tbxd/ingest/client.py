"""A session and who is behind it, as the daemon's main thread knows it; and what comes back to it from the pool."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tbxd_client.protocol import wire

from ..batch import Batch
from ..scheduler.run_registry import RunState
from ..transport.server_socket import Peer
from .client_counts import Reported
from .session import Session
from .session_status import Row

SESSIONS_MAX = 100_000  # at a time

Send = Callable[[Peer, wire.Message], object]  # False where the peer is gone


@dataclass(slots=True)
class Client:
    """A session and who is behind it."""

    session: Session
    peer: Peer | None
    pid: int
    host: str
    journal: str
    program: str
    heard: float
    key: str = ""  # the name of the client's key, where it is on another host
    tags: int = 0  # that were counted for it
    journal_seen: bool = False
    announced: int = 0  # the limit that the client was told
    promised: int = 0  # the furthest that it ever was
    # By the monotonic clock: up to when all that it has logged had come, and when something last did.
    read: float = field(default_factory=time.monotonic)
    moved: float = field(default_factory=time.monotonic)
    readable: Path | None = None  # its journal, where the records can be read in its files
    unreadable: str = ""  # why that is not tried again
    broken: str = ""
    again: float = 0.0  # disconnected for a quota, or a fault of ours: since when, as it may try again; 0: it may not
    under_way: int = 0  # batches of it that runs have, and have not given back
    ends: bool = False  # it has said that it ends with what it wants to have written (`flush_to`),
    complete: bool = False  # nothing more comes,
    left: bool = False  # and its runs know
    holds: set[str] = field(default_factory=set)  # the folders of its runs
    reported: Reported = field(default_factory=Reported)
    received: dict[int, int] = field(default_factory=dict)
    local: bool = True  # of this boot of this host, so that what it says of its folders can be compared
    undecided: int = 0  # runs of which it is not known yet whether their folders are those that are seen here
    held: list[Batch] = field(default_factory=list)  # until that is known, and
    newcomer: bool = False  # until all that processes before it have left has come: see `journal_recovery`
    boot: str = ""  # the start of its system, where it is on another host, and by how much this one's clock is ahead
    ahead: int = 0  # of that one's, in milliseconds
    gone: bool = False  # its connection was
    elsewhere: str = ""  # a run whose folder is another one here
    news: dict[int, RunState] = field(default_factory=dict)  # runs that have written since the last acknowledgement
    flush_to: int = 0  # the position that it wants to have written,
    leftovers: int = 0  # the number of its last flush that wants more than its own written: see `Hub.wanting`
    leftovers_written: int = 0  # and the last that has it
    row: Row | None = None  # what the status has told of it last

    @property
    def has_more(self) -> bool:
        """Whether it may have logged more than has come: it sends all there is, or as far as it may."""
        session = self.session
        if self.peer is None:  # its journal is read from here, to its end: see `journal_recovery`
            return not self.complete
        expected = session.expected
        return expected >= self.announced or session.record_end > expected or self.flush_to > expected


class Held(NamedTuple):
    """A batch that a run keeps for other ranks, and for nothing else."""

    batch: Batch


@dataclass(slots=True)
class Wanting:
    """A client that waits for what processes that have ended have left in the journals of its runs."""

    client: Client
    rounds: list[tuple[RunState, int]]  # its runs that are to be written first, and how often they had been
    looked: bool = False  # at the journals, since it asked

    @property
    def ready(self) -> bool:
        """Whether its own runs are written as they were to be when it asked."""
        return all(state.rounds > before + state.has_to_do for state, before in self.rounds)


@dataclass(slots=True)
class Seen:
    """Whether the folder of a run of a client is the one that is seen here."""

    client: Client
    directory: str
    same: bool
