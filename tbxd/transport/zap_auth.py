"""The gate: who may connect from other hosts, and whose messages are still taken.

libzmq asks for each connection whether its key is let in (ZAP, ZeroMQ RFC 27): a message on a socket in this process
("inproc://zeromq.zap.01"), which the daemon's loop answers among its others. With the answer goes a "User-Id", which
libzmq hands on with each message of the connection. It is the client's public key: so a client that was revoked
meanwhile is found out with its next message, and one that is let in under the same name with another key is another.
"""

from __future__ import annotations

import logging

import zmq
from zmq.utils import z85

from tbxd_client.protocol.records import RemoteProtocolError

from .keyring import AllowList, DaemonKey, KeyFolder

log = logging.getLogger(__name__)

ZAP_ADDRESS = "inproc://zeromq.zap.01"
ZAP_FRAMES = 7  # version, request, domain, address, identity, mechanism, the key
ZAP_DOMAIN = "tbxd"
ACCEPTED, DENIED = (b"200", b"OK"), (b"400", b"this key is not let in")


class Revoked(RemoteProtocolError):
    """A message of a client that is not let in any more."""


class Gate:
    """Keys at a listening socket.

    Args:
        folder: the daemon's keys.

    Raises:
        BadKey: they are not there, or not as they should be.
    """

    def __init__(self, folder: KeyFolder) -> None:
        self._key: DaemonKey = folder.daemon_key()
        self.allowed = AllowList(folder)
        self.allowed.name("", now=True)
        self.denied = 0  # connections with keys that are not let in
        self._told: list[str] = []
        self._tell_wrong()

    def guard(self, context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes]) -> None:
        """Let nobody onto a socket, which is not bound yet, but whom `answer` lets in."""
        self.socket: zmq.Socket[bytes] = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind(ZAP_ADDRESS)
        socket.curve_server = 1
        socket.curve_secretkey = self._key.secret.encode()
        socket.zap_domain = ZAP_DOMAIN.encode()

    def answer(self) -> None:
        """Answer what libzmq asks. To be called when `socket` has news."""
        while True:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            name = public = ""
            if len(frames) == ZAP_FRAMES and frames[5] == b"CURVE" and len(frames[6]) == 32:
                public = z85.encode(frames[6]).decode()
                name = self.allowed.name(public, now=True)
            self._tell_wrong()
            if not name:
                self.denied += 1
                address = frames[3].decode(errors="replace")[:100] if len(frames) > 3 else ""
                log.warning("a key that is not let in (%.8s…) was refused, from %s", public, address)
            code, text = ACCEPTED if name else DENIED
            request = frames[1] if len(frames) > 1 else b""
            self.socket.send_multipart([b"1.0", request, code, text, public.encode() if name else b"", b""])

    def client(self, frame: zmq.Frame) -> str:
        """The name of the client that has sent a frame.

        Raises:
            Revoked: it is not let in any more.
        """
        try:
            public = str(frame.get("User-Id"))
        except zmq.ZMQError:
            public = ""
        name = self.allowed.name(public)
        if not name:
            raise Revoked(f"the key {public[:8]}… is not let in any more")
        return name

    def _tell_wrong(self) -> None:
        if self.allowed.wrong != self._told:
            self._told = self.allowed.wrong
            for what in self._told:
                log.warning("a key is not let in: %s", what)

    def close(self) -> None:
        """Answer no longer."""
        if hasattr(self, "socket"):
            self.socket.close()
