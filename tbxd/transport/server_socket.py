"""The receiver: a socket of the daemon, which receives and sends bytes and checks the sender.

libzmq calls abort() if it accepts an ipc connection and the process has no descriptor left (src/ipc_listener.cpp:
EMFILE is not among the errors it expects). So while few are left, new connections are closed: the client tries again
until there is room, and its records wait. Existing connections stay.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import stat
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path

import zmq

from tbxd_client.config.paths import check_address, is_loopback
from tbxd_client.protocol import wire
from tbxd_client.protocol.records import SESSION_BYTES, RemoteProtocolError
from tbxd_client.transport.connection import expect_silence

from ..process.fd_budget import in_use
from .zap_auth import Gate, Revoked

log = logging.getLogger(__name__)

NO_SESSION = bytes(SESSION_BYTES)
BACKLOG = 1024
# What a monitor tells: number of the event and its value, here the descriptor (zmq_socket_monitor(3)). Not by
# zmq.utils.monitor, which imports asyncio: a sixth of a daemon's start.
MONITOR_EVENT = struct.Struct("=Hi")
SPARE_SHARE = 4  # one in so many descriptors is kept free of connections: many may begin before we are on the processor


@dataclass(slots=True, frozen=True)
class Peer:
    """The sender of a message: the receiver and the route for the answer (each receiver numbers its routes by itself).

    ``pid`` is the process according to the kernel, on ipc; ``key`` the name of the client's key, from another host.
    ``version``: the protocol version of the answer: that of its message, if we speak it (0: our newest).
    """

    route: bytes
    pid: int | None
    key: str = ""
    receiver: int = 0
    version: int = field(default=0, compare=False)

    @property
    def owner(self) -> tuple[int | None, str]:
        """The owner of a session of this peer."""
        return self.pid, self.key


class Receiver:
    """A ROUTER socket at one address.

    Args:
        address: where to listen.
        gate: the admitted keys; without one, this machine only.
        number: the number of this receiver, for its peers.

    Raises:
        ValueError: the address cannot be used, or is open to other machines.
        OSError: the address cannot be bound.
    """

    def __init__(self, address: str, gate: Gate | None = None, number: int = 0) -> None:
        check_address(address, listening=True)
        self.address = address
        self.gate = gate
        self._number = number
        self.refused = 0  # messages that were none, or another user's
        self.turned_away = 0  # connections for which there were too few descriptors
        self.is_ipc = address.startswith("ipc:")
        if gate is None and not self.is_ipc and not is_loopback(address):
            raise ValueError(
                f"address {address!r}: without keys tbxd listens on this machine only (tcp://127.0.0.1:PORT); anybody "
                "who reaches it from another host could write files as you. With keys: `tbxd keys new NAME`, then "
                f"`tbxd serve --listen {address} --roots FOLDER`"
            )
        if gate is not None and self.is_ipc:
            raise ValueError(f"listen {address!r}: tcp://INTERFACE:PORT is expected; local trainers use --address")
        self._context = zmq.Context()
        self._room = 0  # connections that may begin before the descriptors are counted again
        self.socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        # Credit bounds what is under way, in bytes; what goes to a peer that is gone is of no use to anybody.
        self.socket.sndhwm = self.socket.rcvhwm = 0
        self.socket.linger = 200
        self.socket.router_mandatory = True  # who is gone is told with the next message
        self.socket.backlog = BACKLOG
        self.socket.maxmsgsize = wire.FRAME_BYTES_MAX
        if not self.is_ipc:
            expect_silence(self.socket)
            self.socket.ipv6 = "[" in address
        self.monitor: zmq.Socket[bytes] = self.socket.get_monitor_socket(
            zmq.EVENT_ACCEPTED | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        )
        try:
            if gate is not None:
                gate.guard(self._context, self.socket)
            if self.is_ipc:
                self._bind_private(Path(address.removeprefix("ipc://")))
            else:
                self.socket.bind(address)
                self.address = self.socket.last_endpoint.decode().rstrip("\0")  # type: ignore[union-attr]
        except zmq.ZMQError as error:
            self.close()
            raise OSError(error.errno, f"cannot listen at {address}: {error.strerror}") from error

    def _bind_private(self, path: Path) -> None:
        # bind() takes a stale socket's place without a word; the lock has made sure that it is stale.
        if os.path.lexists(path):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise OSError(17, f"{path} is in the way and is not a socket; remove it")
            path.unlink()
        old = os.umask(0o077)
        try:
            self.socket.bind(f"ipc://{path}")
        finally:
            os.umask(old)

    def watch(self) -> None:
        """Close new connections while few descriptors are left. Call it when `monitor` has news."""
        while self.monitor.poll(0):
            event, fd = MONITOR_EVENT.unpack(self.monitor.recv_multipart(zmq.NOBLOCK)[0])
            if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                self.refused += 1
                log.warning("a connection to %s with an invalid handshake was refused", self.address)
            if event != zmq.EVENT_ACCEPTED:
                continue
            self._room -= 1
            if self._room <= 0:
                most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
                left = most - in_use()
                self._room = (left - most // SPARE_SHARE) // 2
                if self._room <= 0:
                    self.turned_away += 1
                    if self.turned_away == 1:
                        log.warning(
                            "of %d file descriptors %d are left: connections are refused (ulimit -n)", most, left
                        )
                    _hang_up(fd)

    def receive(self) -> tuple[Peer, wire.Message] | None:
        """Return the next message; None if there is none. Invalid messages are refused, counted and skipped."""
        while True:
            try:
                route, *frames = self.socket.recv_multipart(flags=zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return None
            peer = Peer(route.bytes, None, "", self._number)
            try:
                if self.is_ipc:
                    peer = Peer(route.bytes, _trusted_pid(frames[0] if frames else route), "", self._number)
                elif self.gate is not None:
                    peer = Peer(route.bytes, None, self.gate.client(frames[0] if frames else route), self._number)
                version, message = wire.unpack_with_version([frame.bytes for frame in frames])
                return replace(peer, version=min(version, wire.VERSION)), message
            except Revoked as error:
                self.refused += 1
                log.warning("%s: its connection is ended", error)
                _hang_up(
                    (frames[0] if frames else route).get(zmq.SRCFD)
                )  # when it comes again it is told why it may not
            except wire.OtherVersion as error:  # a refusal can be read in any version; ours says what we speak
                self.refused += 1
                peer = replace(peer, version=max(0, min(error.version, wire.VERSION)))
                self.send(peer, wire.Refused(NO_SESSION, str(error)[:1000]))
            except wire.TooLong as error:  # a refusal would be the end of its session; records go on without this
                self.refused += 1
                log.warning("message ignored: %s. Update the script's tbxd_client", error)
            except RemoteProtocolError as error:
                self.refused += 1
                self.send(peer, wire.Refused(NO_SESSION, str(error)[:1000]))
            except Exception as error:  # a fault of ours, which the caller counts
                self.refused += 1
                self.send(peer, wire.Refused(NO_SESSION, f"internal error: {type(error).__name__}"))
                raise

    def send(self, peer: Peer, message: wire.Message) -> bool:
        """Send to a peer; return False if it is gone."""
        try:
            self.socket.send_multipart([peer.route, *wire.pack(message, peer.version)], flags=zmq.NOBLOCK)
        except zmq.ZMQError as error:
            return error.errno != zmq.EHOSTUNREACH
        return True

    def close(self) -> None:
        """Close the socket, with a moment for messages in transit to clients."""
        self.socket.disable_monitor()
        self.monitor.close()
        self.socket.close()
        if self.gate is not None:
            self.gate.close()
        self._context.term()
        if self.is_ipc:
            Path(self.address.removeprefix("ipc://")).unlink(missing_ok=True)


def _hang_up(fd: int) -> None:
    """Shut down a connection of libzmq, which then closes it; the number may already belong to another file."""
    with contextlib.suppress(OSError):
        connection = socket.socket(fileno=fd)
        try:
            connection.shutdown(socket.SHUT_RDWR)
        finally:
            connection.detach()


def _trusted_pid(frame: zmq.Frame) -> int:
    """Return the process of an ipc connection, which must be this user's (or root's)."""
    try:
        # "localhost:<uid>:<gid>:<pid>": SO_PEERCRED, as libzmq hands it on (zmq_msg_gets, "Peer-Address").
        _, uid, _, pid = str(frame.get("Peer-Address")).split(":")
    except (zmq.ZMQError, ValueError) as error:
        raise RemoteProtocolError(f"a connection without credentials: {error}") from error
    if int(uid) not in (os.getuid(), 0):
        raise RemoteProtocolError(f"uid {uid} may not log as uid {os.getuid()}")
    return int(pid)
