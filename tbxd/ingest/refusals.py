"""Sessions that are turned away, and clients that are disconnected: who is told what, and whether it may try again."""

from __future__ import annotations

import logging
import time

from tbxd_client.protocol import wire
from tbxd_client.protocol.records import RemoteProtocolError

from ..process.walls import Walls
from ..reduce.expected_ranks import Coming
from ..transport.server_socket import Peer
from .client import Client, Send
from .quotas import OverQuota

log = logging.getLogger(__name__)


class Refusals:
    """Refuses sessions and disconnects clients.

    Args:
        coming: who has said hello and is not seen by a run yet.
        send: sends a message to a peer.
        walls: is told what breaks.
    """

    def __init__(self, coming: Coming, send: Send, walls: Walls) -> None:
        self.count = 0  # messages and sessions that were turned away
        self._coming = coming
        self._send = send
        self._walls = walls

    def refuse(self, peer: Peer, session: bytes, reason: str) -> None:
        """Turn a session away."""
        self.count += 1
        log.warning("session %s refused: %s", session.hex(), reason)
        self._send(peer, wire.Refused(session, reason[:1000]))

    def disconnect(self, client: Client, reason: str) -> None:
        """Take nothing more of a session whose streams make no sense."""
        client.broken = reason
        client.again = 0.0
        self._coming.gone(client.session.id)
        self.count += 1
        log.warning("session %s of pid %d is broken: %s", client.session.id.hex(), client.pid, reason)
        if client.peer is not None:
            self._send(client.peer, wire.Refused(client.session.id, reason[:1000]))

    def disconnect_for(self, client: Client, error: RemoteProtocolError) -> None:
        """Take nothing more of a session for what it has sent; after a quota is exceeded, until it may try again."""
        self.disconnect(client, str(error))
        client.again = time.monotonic() if isinstance(error, OverQuota) else 0.0

    def disconnect_for_now(self, client: Client, why: str) -> None:
        """Take nothing more of a session with which something has gone wrong here, until it may begin anew.

        How far its streams have been taken is not certain any more. Its records are in its journal, and the ledger
        knows which of them are written.
        """
        with self._walls.around("a disconnection", f"session {client.session.id.hex()}"):
            self.disconnect(client, why)
        client.again = time.monotonic()
