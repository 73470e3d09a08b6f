"""Sockets of the client's own: out of the way of the program's numbers, and harmless where one is another file's.

A program that closes all descriptors gets the same numbers for files of its own. Ours are looked at before they are
used, and between look and use one may have become such a file, into which ``write`` would go. A socket's ``send`` is
refused by what is no socket, and a high number is given to nobody who takes the lowest that is free, as all do.
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
    """A socket of this process, that never blocks and never raises SIGPIPE.

    Args:
        opened: which to take over.

    Raises:
        OSError: it has gone meanwhile.
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
        """Send as much as goes at once; how many bytes did.

        Raises:
            OSError: none did, or it is no socket any more.
        """
        return self._socket.sendmsg(buffers, (), FLAGS)

    def receive(self, size: int) -> bytes:
        """What has come, ``size`` bytes at the most; b"" when the other end is closed.

        Raises:
            OSError: nothing has come, or it is no socket any more.
        """
        return self._socket.recv(size, FLAGS)

    def connect(self, path: str | bytes) -> None:
        """Connect to a socket that listens.

        Raises:
            OSError: none does, or it has no room now.
        """
        self._socket.connect(path)

    def close(self) -> None:
        """As that of a descriptor; also in a forked child."""
        self._socket.detach()  # first: it would close what has its number by then
        super().close()

    def forget(self) -> None:
        """As that of a descriptor."""
        self._socket.detach()
        super().forget()


def open_socket() -> OwnSocket:
    """A stream socket of this host, not connected.

    Raises:
        OSError: there are no descriptors left.
    """
    with uncut:
        return OwnSocket(Socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC))


def open_pair() -> tuple[OwnSocket, OwnSocket]:
    """Two that are connected.

    Raises:
        OSError: there are no descriptors left.
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
    """A descriptor of the same socket among the last that there are; the same one where none of these is free."""
    least = min(limit(), NUMBER_MAX) - ROOM
    if least > max(number, STANDARD):
        with contextlib.suppress(OSError):
            high = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, least)
            os.close(number)
            return high
    return number
