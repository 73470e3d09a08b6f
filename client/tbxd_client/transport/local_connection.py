"""The local link: a client's connection to a daemon of its own host, over a socket in the file system.

It is one descriptor, with no thread and nothing of libzmq: a program may close it, fork, or run out of threads at any
moment. What it closes is opened again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections import deque

from ..config.paths import check_address, socket_trouble
from ..config.settings import warn
from ..process.descriptors import DescriptorsClosed, uncut
from ..process.native import monotonic, poller
from ..process.own_sockets import OwnSocket, open_socket
from ..protocol.wire import FRAME_BYTES_MAX
from .zmtp import Decoder, NoZeroMQ, encoded, opening

SCHEME = "ipc://"
NO_SOCKET = "there is no socket"
DEAD_SOCKET = "there is a socket, and nobody answers: the daemon that has made it is gone or stopped"
LOOK_SECONDS = 0.05  # between looks whether somebody listens
RETRY_SECONDS_MIN, RETRY_SECONDS_MAX = 1.0, 15.0  # before what is wrong with a socket is looked at again
LINGER_SECONDS = 0.2  # for the goodbye
READ_BYTES = 64 << 10  # at a time,
READS_MAX = 16  # so often in a row, while a record may wait
_UID = os.getuid()  # of this program as it began
_CLOSED = frozenset({errno.EBADF, errno.ENOTSOCK})
_LATER = frozenset({errno.EAGAIN, errno.EINTR, errno.ENOBUFS})


class LocalLink:
    """One connection to a daemon of this host. Used by one thread; has what `connection.Link` has.

    Args:
        address: the daemon's endpoint, ipc.
        aloud: whether the user is told on stderr what is wrong with a socket.
        bytes_max: of a message that comes; whoever sends a longer one is not listened to.

    Raises:
        ValueError: no such endpoint can be.
    """

    remote = False

    def __init__(self, address: str, aloud: bool = True, bytes_max: int = FRAME_BYTES_MAX) -> None:
        self.address = check_address(address)
        self._aloud = aloud
        self._bytes_max = bytes_max
        self.trouble = ""  # why there is no connection, where the owner of the socket is the reason
        self._connection: OwnSocket | None = None
        self._decoder = Decoder(bytes_max)
        self._out: deque[bytes] = deque()  # what the connection has not taken yet
        self._due = 0.0
        self._delay = RETRY_SECONDS_MIN

    @property
    def is_open(self) -> bool:
        """True if there is a connection, or about to be."""
        return self._connection is not None

    @property
    def how(self) -> str:
        """A sentence on the last attempt to reach a daemon and its outcome."""
        there = os.path.exists(self.address.removeprefix(SCHEME))  # noqa: PTH110 - raises nothing (setuid)
        return self.trouble or (DEAD_SOCKET if there else NO_SOCKET)

    @property
    def estranged(self) -> bool:
        """True if this process has become another user (``setuid``), to whom the daemon's folder is closed."""
        if os.getuid() == _UID:
            return False
        trouble, folder = socket_trouble(self.address), os.path.dirname(self.address.removeprefix(SCHEME))  # noqa: PTH120
        return trouble is not None and (bool(trouble) or not os.access(folder, os.X_OK))

    @property
    def _partner(self) -> bool:
        """Return True if a daemon is at the other end."""
        return self._connection is not None and self._decoder.ready

    def look(self, now: float) -> None:
        """Connect when it is time. To be called whenever `poll` returns.

        Raises:
            OSError: there is no descriptor for it.
        """
        if self._connection is None and now >= self._due:
            self._due = now + LOOK_SECONDS
            self._open(now)

    def _open(self, now: float) -> None:
        trouble = socket_trouble(self.address)
        if trouble is None:
            return
        if trouble:
            self._fail(f"no connection to {self.address}: {trouble}", now)
            return
        self.trouble = ""
        path = os.fsencode(self.address.removeprefix(SCHEME))
        connection = open_socket()
        try:
            connection.connect(b"\0" + path[1:] if path.startswith(b"@") else path)
        except OSError as error:
            connection.close()
            if error.errno in _CLOSED:
                raise DescriptorsClosed from error
            return
        self._connection, self._decoder = connection, Decoder(self._bytes_max)
        self._out.append(opening())
        self._pass_on()

    def _fail(self, why: str, now: float) -> None:
        """Say what is wrong, once, and try again later: the socket may be another by then."""
        self.trouble = why
        if self._aloud:
            warn(f"{why}. Records wait in the journal", once=f"socket: {why}")
        self._drop()
        self._due = now + self._delay
        self._delay = min(2 * self._delay, RETRY_SECONDS_MAX)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self._out.clear()
        self._decoder.ready = False

    def poll(self, seconds: float, bell: int = -1, partner: bool = False) -> tuple[bool, bool]:
        """Wait for a message, or until the descriptor ``bell`` is rung; return which of them there is.

        Args:
            seconds: at most.
            bell: -1 for none.
            partner: return, too, when somebody is at the other end, so that `send` can.

        Raises:
            DescriptorsClosed: the program has closed one of them; of this link nothing is used any more but `close`.
        """
        until = monotonic() + seconds
        while True:
            here = self._valid()
            waiting = poller()
            if here >= 0:
                waiting.register(here, select.POLLIN | (select.POLLOUT if self._out else 0))
            if bell >= 0:
                waiting.register(bell, select.POLLIN)
            there = bool(self._decoder.messages) or (partner and self._partner)
            ready = dict(waiting.poll(0 if there else int(1000 * max(0.0, until - monotonic()))))
            if (ready.get(bell, 0) & ~select.POLLIN) or (ready.get(here, 0) & select.POLLNVAL):
                raise DescriptorsClosed
            if ready.get(here, 0) & select.POLLOUT:
                self._pass_on()
            if ready.get(here, 0) & ~select.POLLOUT:
                self._hear()
            heard, rung = bool(self._decoder.messages), bell in ready
            if heard or rung or (partner and self._partner) or not ready or monotonic() >= until:
                return heard, rung

    def _valid(self) -> int:
        """The connection's descriptor; -1 when there is none.

        Raises:
            DescriptorsClosed: the program has closed it.
        """
        if self._connection is None:
            return -1
        if not self._connection.mine:
            raise DescriptorsClosed
        return self._connection.number

    def _hear(self) -> None:
        if self._valid() < 0:
            return
        assert self._connection is not None
        for _ in range(READS_MAX):
            try:
                stretch = self._connection.receive(READ_BYTES)
                if stretch:
                    self._decoder.feed(stretch)
            except NoZeroMQ as error:
                self._fail(f"the server at {self.address} is not tbxd: {error}", monotonic())
                return
            except OSError as error:
                self._broken(error)
                return
            if not stretch:
                self._drop()
            if len(stretch) < READ_BYTES:
                return

    def send(self, frames: list[bytes]) -> bool:
        """Send a message; return False if nobody is at the other end.

        Raises:
            DescriptorsClosed: as `poll`.
        """
        if not self._partner:
            return False
        self._out.extend(map(bytes, encoded(frames)))
        self._pass_on()
        return self._partner

    def _pass_on(self) -> None:
        """Hand over what waits, as much as the connection takes."""
        while self._out and self._valid() >= 0:
            assert self._connection is not None
            waiting = [self._out[number] for number in range(min(len(self._out), 64))]
            try:
                sent = self._connection.send(list(waiting))
            except OSError as error:
                self._broken(error)
                return
            for buffer in waiting:
                if sent < len(buffer):
                    self._out[0] = buffer[sent:]
                    break
                sent -= len(buffer)
                self._out.popleft()

    def _broken(self, error: OSError) -> None:
        """React to an error of the connection.

        Raises:
            DescriptorsClosed: the program has closed it.
        """
        if error.errno in _CLOSED:
            raise DescriptorsClosed from error
        if error.errno not in _LATER:
            self._drop()

    def receive(self) -> list[bytes] | None:
        """Return the next message; None if there is none now.

        Raises:
            DescriptorsClosed: as `poll`.
        """
        messages = self._decoder.messages
        if not messages:
            self._hear()
        return messages.popleft() if messages else None

    def abandon(self) -> None:
        """In a forked child: there is nothing to let go of, what is open was closed with the fork."""

    def close(self) -> None:
        """End it; what has been sent has a moment to leave."""
        until = monotonic() + LINGER_SECONDS
        with contextlib.suppress(DescriptorsClosed, OSError):
            while self._out and (remaining := until - monotonic()) > 0:
                waiting = poller()
                waiting.register(self._valid(), select.POLLOUT)
                if not waiting.poll(1000 * remaining):
                    break
                self._pass_on()
        with uncut:
            self._drop()
