"""The gate: admits connections from other hosts, and checks the key of each message.

libzmq asks for each connection if its key is admitted (ZAP, ZeroMQ RFC 27): a message on a socket in this process
("inproc://zeromq.zap.01"), which the daemon's loop answers. The answer has a "User-Id", which libzmq passes on with
each message of the connection. It is the client's public key: so the next message of a revoked client is refused, and
a client admitted under the same name with another key is a different one.
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
    """The client of a message is no longer admitted."""


class Gate:
    """Keys at a listening socket.

    Args:
        folder: the daemon's keys.

    Raises:
        BadKey: the keys are missing or invalid.
    """

    def __init__(self, folder: KeyFolder) -> None:
        self._key: DaemonKey = folder.daemon_key()
        self.allowed = AllowList(folder)
        self.allowed.name("", now=True)
        self.denied = 0  # connections with keys that are not let in
        self._told: list[str] = []
        self._tell_wrong()

    def guard(self, context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes]) -> None:
        """Restrict a socket, which is not bound yet, to clients that `answer` admits."""
        self.socket: zmq.Socket[bytes] = context.socket(zmq.REP)
        self.socket.linger = 0
        self.socket.bind(ZAP_ADDRESS)
        socket.curve_server = 1
        socket.curve_secretkey = self._key.secret.encode()
        socket.zap_domain = ZAP_DOMAIN.encode()

    def answer(self) -> None:
        """Answer libzmq's requests. Call it when `socket` has news."""
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
                log.warning("a key that is not admitted (%.8s…) was refused, from %s", public, address)
            code, text = ACCEPTED if name else DENIED
            request = frames[1] if len(frames) > 1 else b""
            self.socket.send_multipart([b"1.0", request, code, text, public.encode() if name else b"", b""])

    def client(self, frame: zmq.Frame) -> str:
        """Return the name of the client that has sent a frame.

        Raises:
            Revoked: the client is no longer admitted.
        """
        try:
            public = str(frame.get("User-Id"))
        except zmq.ZMQError:
            public = ""
        name = self.allowed.name(public)
        if not name:
            raise Revoked(f"the key {public[:8]}… is no longer admitted")
        return name

    def _tell_wrong(self) -> None:
        if self.allowed.wrong != self._told:
            self._told = self.allowed.wrong
            for what in self._told:
                log.warning("a key is not admitted: %s", what)

    def close(self) -> None:
        """Stop answering."""
        if hasattr(self, "socket"):
            self.socket.close()
