"""How far each client may send, and what it is told of how far its records are written.

A client's limit is the window and the grant that it has of the daemon's memory (`transport.credit`), as far as the
quota of its key goes. A limit that was told is a promise: it is never taken back.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from tbxd_client.protocol import wire
from tbxd_client.protocol.records import RemoteProtocolError

from ..process.walls import Walls
from ..scheduler.run_registry import Keeping, RunState
from ..transport.credit import Credit, presses, window
from .client import Client, Send
from .quotas import Quotas


class Acknowledgements:
    """Limits and acknowledgements of all clients.

    Args:
        clients: by session.
        registry: the runs that the daemon knows.
        quotas: of the keys of clients on other hosts.
        send: sends a message to a peer.
        walls: is told what breaks.
    """

    def __init__(
        self, clients: Mapping[bytes, Client], registry: Keeping, quotas: Quotas, send: Send, walls: Walls
    ) -> None:
        self._clients = clients
        self._registry = registry
        self._quotas = quotas
        self._send = send
        self._walls = walls
        self._credit = Credit()

    def limit(self, client: Client) -> int:
        """The position up to which a client may send."""
        session, now = client.session, time.monotonic()
        room = self._quotas.room(client.key, now) if client.key else float("inf")
        if not room:  # nor a grant, which others can use
            return max(session.expected, client.announced)
        limit = self._credit.limit(
            session.id,
            self._credit.base(session.written, session.held, len(self._clients)),
            session.expected,
            session.record_end,
            len(self._clients),
            now,
            client.key,
        )
        return limit if limit <= session.expected + room else max(client.announced, session.expected + int(room))

    @staticmethod
    def check(client: Client, end: int) -> None:
        """See that a client sends no further than it was ever told.

        Raises:
            RemoteProtocolError: it does.
        """
        if end > client.promised:
            raise RemoteProtocolError(f"records up to position {end:,}; the limit was {client.promised:,}")

    def is_hurried(self, client: Client) -> bool:
        """Whether what has come of a client is to be written at once: see `presses`."""
        return presses(client.session.expected, client.announced, window(len(self._clients)))

    def has_gained(self, client: Client) -> bool:
        """Whether the limit of a client has grown so much that it is worth a message."""
        return self.limit(client) - client.announced >= window(len(self._clients)) // 4

    def welcome(self, client: Client) -> None:
        """Tell a client where to go on."""
        if client.peer is None:
            return
        session = client.session
        self._announce(client, self.limit(client))
        self._send(
            client.peer,
            wire.Welcome(
                session.id,
                session.expected,
                session.definitions_expected,
                client.announced,
                int(client.readable is not None),
                leftovers=1,
                reports=1,
            ),
        )

    @staticmethod
    def _announce(client: Client, limit: int) -> None:
        client.announced = limit
        client.promised = max(client.promised, limit)

    def send(self, client: Client, moved: bool = False) -> None:
        """Tell a client how far it is and how far it may send, where that is further than it knows.

        Args:
            client: which.
            moved: it is to be told in any case.
        """
        limit = self.limit(client)
        if (moved or limit > client.announced) and client.peer is not None:
            self._announce(client, limit)
            counts = {}
            for number, state in client.news.items():
                entry = state.writer.entry(client.session.id)
                counts[number] = [entry.count, entry.refused]
            client.news = {}
            session = client.session
            trouble = self.trouble(client) if session.held < client.flush_to else ""
            more = session.held, client.leftovers_written, trouble
            for part in wire.parts(counts):
                self._send(client.peer, wire.Ack(session.id, session.written, limit, part, *more))

    def trouble(self, client: Client) -> str:
        """What keeps one of its runs from being written; "" for nothing."""
        for state in self._registry.warm_of(client.holds):
            if state.writer.error:
                return f"{state.writer.directory}: {state.writer.error}"[:1000]
        return ""

    def flushing(self, state: RunState) -> dict[bytes, Client]:
        """Clients that wait for a run to be written."""
        directory = state.directory
        return {
            session: client
            for session, client in self._clients.items()
            if client.flush_to > client.session.held and directory in client.holds
        }

    def grant(self) -> None:
        """Let those go on whose record is larger than their window, as far as there is room now."""
        for session in list(self._credit.waiting):
            client = self._clients.get(session)
            if client is None:
                self._credit.forget(session)
                continue
            with self._walls.around("grants", f"session {session.hex()}"):
                self.send(client)

    def tick(self, now: float) -> float:
        """Let clients go on that had to wait for memory or for their quota; returns when to look again."""
        self.grant()
        if freed := self._quotas.freed(now):
            for client in list(self._clients.values()):
                if client.key in freed:
                    self.send(client)
        return self._quotas.due(now)

    def forget(self, client: Client) -> None:
        """A session is over."""
        self._credit.forget(client.session.id)
