"""The client's own sockets: with high numbers, and harmless if a number has become another file's.

A program that closes all descriptors gets the same numbers for its own files. Ours are checked before use, but between
check and use one may have become such a file, and ``write`` would write into it. ``send`` fails on a file that is not a
socket, and the system gives a high number to no file, because it always takes the lowest free one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

# Those of C: nobody replaces them (gevent does those of `socket`), and importing `socket` takes 2 ms.
from _socket import AF_UNIX, MSG_DONTWAIT, MSG_NOSIGNAL, SOCK_CLOEXEC, SOCK_NONBLOCK, SOCK_STREAM, socketpair
from _socket import socket as Socket

from .descriptors import STANDARD, Descriptor, limit, uncut

NUMBER_MAX = 1024  # the numbers are below: `select` of the program knows no others, and a table of them costs a fork
ROOM = 64  # and in the last so many of these, or of those that the process may have
FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL  # a program may have SIGPIPE end it


class OwnSocket(Descriptor):
    """A socket of this process that never blocks and never raises SIGPIPE.

    Args:
        opened: the socket to take over.

    Raises:
        OSError: the socket is gone.
    """

    __slots__ = ("_socket",)

    def __init__(self, opened: Socket) -> None:
        super().__init__(_raised(opened.detach()))
        try:
            # Whatever `socket.setdefaulttimeout` says: with one, a `send` would wait.
            self._socket = Socket(AF_UNIX, SOCK_STREAM, 0, self.number)
            self._socket.setblocking(False)
        except OSError:
            super().close()
            raise

    def send(self, buffers: list[bytes | memoryview]) -> int:
        """Send as much as possible without blocking; return the number of bytes sent.

        Raises:
            OSError: nothing could be sent, or this is not a socket any more.
        """
        return self._socket.sendmsg(buffers, (), FLAGS)

    def receive(self, size: int) -> bytes:
        """Return received bytes, ``size`` at most; b"" if the other end is closed.

        Raises:
            OSError: nothing has been received, or this is not a socket any more.
        """
        return self._socket.recv(size, FLAGS)

    def connect(self, path: str | bytes) -> None:
        """Connect to a listening socket.

        Raises:
            OSError: no socket listens, or its queue is full.
        """
        self._socket.connect(path)

    def close(self) -> None:
        """As `Descriptor.close`; also in a forked child."""
        self._socket.detach()  # first: it would close what has its number by then
        super().close()

    def forget(self) -> None:
        """As `Descriptor.forget`."""
        self._socket.detach()
        super().forget()


def open_socket() -> OwnSocket:
    """Return a stream socket of this host, not connected.

    Raises:
        OSError: no descriptors are left.
    """
    with uncut:
        return OwnSocket(Socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC))


def open_pair() -> tuple[OwnSocket, OwnSocket]:
    """Return two connected sockets.

    Raises:
        OSError: no descriptors are left.
    """
    with uncut:
        ends = socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC)
        try:
            first = OwnSocket(ends[0])
        except OSError:
            ends[1].close()
            raise
        try:
            return first, OwnSocket(ends[1])
        except OSError:
            first.close()
            raise


def _raised(number: int) -> int:
    """Move a socket to one of the highest descriptor numbers; keep its number if none of these is free."""
    least = min(limit(), NUMBER_MAX) - ROOM
    if least > max(number, STANDARD):
        with contextlib.suppress(OSError):
            high = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, least)
            os.close(number)
            return high
    return number
