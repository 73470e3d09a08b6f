"""The link over tcp: a client's socket of libzmq, connected to the daemon with keys, and again when one is not taken.

A daemon of this host is reached without libzmq (`local_connection`).

libzmq connects again by itself when a connection is lost, but never after a key was refused (``protocol_error`` in
src/session_base.cpp ends the session). So the link listens to what libzmq tells of handshakes, says to the user what is
wrong, and makes another socket after a while, with the key as it is then.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket as sockets
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

import zmq

from ..config.paths import KEY_VARIABLE, check_address, is_loopback, is_remote
from ..config.settings import warn
from ..process.descriptors import STANDARD, Descriptor, DescriptorsClosed, open_numbers, open_pipe, uncut
from ..process.native import monotonic, poller
from ..protocol.wire import FRAME_BYTES_MAX

# Here and not where it is needed, on the sender's thread: a child forked meanwhile would wait for that import for ever.
from .keys import BadKey, client_key_path, read_client_key

LINGER_MS = 200  # for the goodbye
# What becomes of an attempt to connect, in words.
NO_NAME = "its host is not known here (DNS, /etc/hosts)"
NO_ROUTE = "its host cannot be reached (no route)"
NO_LISTENER = "the connection is refused, nothing listens at this port"
NO_ANSWER = "its host does not answer: it is down, or a firewall drops what is sent"
NO_WORD = "there is a connection, and no daemon answers on it (one that is stopped, a tunnel, something else?)"
# Over tcp: a host that is gone, or a link that is cut, sends no word of it. Pings are answered by libzmq's own thread.
HEARTBEAT_MS = 5_000
SILENCE_MS = 15_000  # without an answer before a connection is given up
CONNECT_MS = 5_000  # for one attempt to connect; the system's own would take minutes
RETRY_SECONDS_MIN, RETRY_SECONDS_MAX = 1.0, 15.0  # before a key that was not taken is tried again
LOOPBACK = ("127.0.0.1", "::1")
VANISHED_MAX = 3  # handshakes in a row that end without a word: so does a daemon that has another key
REFUSED_SECONDS = 1.0  # a connection that fails so soon was refused; one that fails later has had no answer
_EVENTS = (
    zmq.EVENT_CONNECT_DELAYED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_CONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)


_IN, _OUT, _TOLD = int(zmq.POLLIN), int(zmq.POLLOUT), 1 << 16  # numbers: zmq's own are slow to compare
_EVENTS_OPTION = int(zmq.EVENTS)


def expect_silence(socket: zmq.Socket[bytes]) -> None:
    """Have a tcp socket, of either side, notice that the other one is gone without a word."""
    socket.heartbeat_ivl = HEARTBEAT_MS
    socket.heartbeat_timeout = socket.heartbeat_ttl = SILENCE_MS


def identities(numbers: Iterable[int]) -> dict[int, tuple[int, int]]:
    """Return the identities of the files behind descriptors, without those that are closed."""
    found = {}
    for number in numbers:
        with contextlib.suppress(OSError):
            state = os.fstat(number)
            found[number] = state.st_dev, state.st_ino
    return found


class Link:
    """One connection to a daemon. Used by one thread.

    Args:
        address: the daemon's endpoint, tcp.
        aloud: whether the user is told on stderr what is wrong with a key.
        bytes_max: of a message that comes; whoever sends a longer one is not listened to.

    Raises:
        ValueError: no such endpoint can be.
    """

    def __init__(self, address: str, aloud: bool = True, bytes_max: int = FRAME_BYTES_MAX) -> None:
        self.address = check_address(address)
        self.remote = is_remote(address)  # it takes a key
        self._key_path: Path | None = None
        if self.remote:
            self._key_path = client_key_path()  # now: the script may change its folder
        self._aloud = aloud
        self._bytes_max = bytes_max
        self.trouble = ""  # why there is no connection, where the key or the owner of the socket is the reason
        # Kept as attributes, so that a forked child does not finalise what belongs to its parent.
        # Made with the first socket and not before: a context has an eventfd from its first moment (`_term_mailbox` in
        # src/ctx.hpp) and reads it at its end. After a program has closed all, that would be one of its files.
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        # What libzmq waits with, by number, and the files behind. It ends the process where one is closed.
        self._own: dict[int, tuple[int, int]] = {}
        self._mark: Descriptor | None = None  # opened before them; eventfds all look alike, and this like no other
        self._lost = False  # one is
        self._news: list[int] = []  # descriptors that tell of news
        self._key = ""  # whose key is used
        self._connection = -1  # libzmq's descriptor, where it has said so
        self._due = 0.0
        self._delay = RETRY_SECONDS_MIN
        self._vanished = 0
        # Of the attempt to connect that is under way: since when, or 0, and whether its socket was closed again.
        self._trying = 0.0
        self._closed = False
        self._became = ""  # what has become of the last one

    estranged = False  # a key is whoever's has it

    @property
    def is_open(self) -> bool:
        """True if there is a socket, connected or about to be."""
        return self._socket is not None

    @property
    def how(self) -> str:
        """A sentence on the last attempt to reach a daemon and its outcome."""
        if self.trouble:
            return self.trouble
        shown = f"the key {self._key}" if self.remote else f"the token of this user ({KEY_VARIABLE} would name a key)"
        return f"{self._became or NO_ANSWER}; tried with {shown}"

    @property
    def out_of_reach(self) -> bool:
        """True if the last attempt to connect has failed."""
        return self._became not in ("", NO_WORD)

    def look(self, now: float) -> None:
        """Connect when it is time, and read how it went. Call this whenever `poll` returns.

        Raises:
            DescriptorsClosed: as `poll`.
        """
        if self._monitor is not None:
            self._check()
        while self._monitor is not None and self._monitor.poll(0):
            # Two frames: event (uint16) and value (uint32) in the order of the host, and the endpoint.
            frame = self._monitor.recv_multipart(zmq.NOBLOCK)[0]
            event = int.from_bytes(frame[:2], sys.byteorder)
            if event == zmq.EVENT_CONNECTED:
                self._connection = int.from_bytes(frame[2:6], sys.byteorder, signed=True)
            self._heard(event, now)
        if self._socket is None and now >= self._due:
            self._open(now)

    def _heard(self, event: int, now: float) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.trouble = self._became = ""
            self._vanished = 0
            self._delay = RETRY_SECONDS_MIN
        elif event == zmq.EVENT_CONNECT_DELAYED:
            self._trying = now
        elif event == zmq.EVENT_CLOSED:
            self._closed = True
        elif event == zmq.EVENT_CONNECTED:
            self._became = NO_WORD
        elif event == zmq.EVENT_CONNECT_RETRIED:
            self._became = self._outcome(now)
            self._trying, self._closed = 0.0, False
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._fail(
                f"the daemon at {self.address} does not know the key {self._key}: it was revoked, or made for another "
                "daemon. Where it runs: `tbxd keys list`, and `tbxd keys new` for another",
                now,
            )
        else:
            # Without a key a connection that ends in the midst of its handshake has been cut: libzmq makes another.
            self._vanished += self.remote
            if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL or self._vanished >= VANISHED_MAX:
                self._fail(self._no_handshake(), now)

    def _outcome(self, now: float) -> str:
        """Return the outcome of an attempt that libzmq repeats; libzmq reports the steps, but not the error."""
        if not self._closed:  # there was no socket yet, because there is no number for the name
            return NO_NAME
        if not self._trying:
            return NO_ROUTE
        return NO_LISTENER if now - self._trying < REFUSED_SECONDS else NO_ANSWER

    def _no_handshake(self) -> str:
        if not self.remote:
            return (
                f"the server at {self.address} refuses a connection without a key: it is a `tbxd serve --listen`, "
                "perhaps of another host at the end of a tunnel, or it is not tbxd. On loopback tbxd shows the token "
                f"of this user, unless {KEY_VARIABLE} names a key: set {KEY_VARIABLE} to the file of one that this "
                "daemon lets in (`tbxd keys new NAME` there)"
            )
        on_loopback = (
            f"; a daemon of this host takes the token instead, for which {KEY_VARIABLE} is to be unset"
            if is_loopback(self.address)
            else ""
        )
        return (
            f"the server at {self.address} refuses the key {self._key}: it is not a `tbxd serve --listen`, or it "
            f"has another key than the daemon for which this one was made (`tbxd keys show` there){on_loopback}"
        )

    def _fail(self, why: str, now: float) -> None:
        """Say what is wrong, once, and try again later: the key, or the socket, may be another by then."""
        self.trouble = why
        if self._aloud:
            warn(f"{why}. Records wait in the journal", once=f"key: {why}")
        self._close_socket()
        self._due = now + self._delay
        self._delay = min(2 * self._delay, RETRY_SECONDS_MAX)

    def _open(self, now: float) -> None:
        key = None
        if self.remote:
            try:
                with uncut:
                    key = read_client_key(self._key_path)
            except BadKey as error:
                self._fail(f"no connection to {self.address}: {error}", now)
                return
            self._key = f"{key.name!r} ({key.public[:8]}…)"
        self._vanished = 0
        before: set[int] = set()
        if self._context is None:
            before = set(open_numbers(STANDARD))
            self._mark, other = open_pipe()
            other.close()
            self._context = zmq.Context()
        self._check()
        socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        self._socket = socket
        if not self._own:
            mark = self._mark.number if self._mark is not None else -1
            own = sorted(set(open_numbers(STANDARD)) - before - {int(socket.FD), mark})
            self._own = identities({*own[:1], *own[-1:]})  # two of them: it is all that is closed, or ours is not
        self._check()  # closed meanwhile: those may be the program's
        socket.linger = LINGER_MS
        # The flow is controlled in bytes, by the daemon's limit; a message count would only get in the way.
        socket.sndhwm = socket.rcvhwm = 0
        socket.immediate = 1  # queue nothing for a daemon that is not there
        socket.reconnect_ivl, socket.reconnect_ivl_max = 50, 1000
        socket.maxmsgsize = self._bytes_max
        expect_silence(socket)
        socket.connect_timeout = CONNECT_MS
        socket.ipv6 = "[" in self.address
        if key is not None:
            socket.curve_serverkey = key.daemon.encode()
            socket.curve_publickey = key.public.encode()
            socket.curve_secretkey = key.secret.encode()
        self._trying, self._closed, self._became = 0.0, False, ""
        self._monitor = socket.get_monitor_socket(_EVENTS)
        self._news = [int(one.FD) for one in (socket, self._monitor) if one is not None]
        socket.connect(self.address)

    def poll(self, seconds: float, bell: int = -1, partner: bool = False) -> tuple[bool, bool]:
        """Wait for a message, or until the descriptor ``bell`` is rung; return which of them there is.

        Not with libzmq's own poll, which ends the process where somebody has closed the descriptors.

        Args:
            seconds: at most.
            bell: -1 for none.
            partner: return, too, when somebody is at the other end, so that `send` can.

        Raises:
            DescriptorsClosed: somebody has; of this link nothing may be used any more but `close`.
        """
        waiting = poller()
        for number in self._news:
            waiting.register(number, select.POLLIN)  # tells of what is new only, so one looks first
        if bell >= 0:
            waiting.register(bell, select.POLLIN)
        until = monotonic() + seconds
        news = self._events(partner)
        while True:
            patience = 0 if news else max(0, until - monotonic())
            ready = dict(waiting.poll(int(1000 * patience)))
            if ready.get(bell, 0) & ~_IN:
                self._lost = True  # closed by the program: libzmq's are, too, or will be in a moment
            news, rung = self._events(partner), bell in ready
            if news or rung or not ready or monotonic() >= until:
                return bool(news & _IN), rung

    def _events(self, partner: bool) -> int:
        """Return what there is to do: `_IN` for a message, another bit for an event of the monitor, or for a peer."""
        found = 0
        self._check()
        if self._socket is not None:
            found = int(self._socket.getsockopt(_EVENTS_OPTION)) & (_IN | (_OUT if partner else 0))
        if self._monitor is not None and int(self._monitor.getsockopt(_EVENTS_OPTION)) & _IN:
            found |= _TOLD
        return found

    def _check(self) -> None:
        """Check libzmq's descriptors before each use: it ends the process if they are closed or another's.

        Raises:
            DescriptorsClosed: they are.
        """
        closed = self._mark is not None and not self._mark.mine
        self._lost = self._lost or closed or identities(self._own) != self._own
        if self._lost:
            raise DescriptorsClosed

    def send(self, frames: list[bytes]) -> bool:
        """Send a message; return False if nobody is at the other end.

        Raises:
            DescriptorsClosed: as `poll`.
        """
        if self._socket is None:
            return False
        self._check()
        try:
            # Copied: to hand large messages over, pyzmq makes another thread, context and socket (zmq.utils.garbage),
            # in the middle of training.
            self._socket.send_multipart(frames, flags=zmq.NOBLOCK, copy=True)
            return True
        except zmq.Again:
            return False

    def receive(self) -> list[bytes] | None:
        """Return the next message; None if there is none now.

        Raises:
            DescriptorsClosed: as `poll`.
        """
        if self._socket is None:
            return None
        self._check()
        try:
            return self._socket.recv_multipart(flags=zmq.NOBLOCK)
        except zmq.Again:
            return None

    def _close_socket(self) -> None:
        if self._monitor is not None and self._socket is not None:
            with contextlib.suppress(zmq.ZMQError):
                self._socket.disable_monitor()
            self._monitor.close()
            self._monitor = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
            self._news = []

    def abandon(self) -> None:
        """In a forked child: let go of the parent's connection, so that the daemon notices when the parent ends.

        What else libzmq has open (eventfds and epolls, six of them) stays: nobody can wait for them, nothing is in
        them, and what they are in is closed.
        """
        for number in open_numbers(STANDARD):
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.fstat(number).st_mode) and self._leads_to_the_daemon(number):
                    os.close(number)

    def _leads_to_the_daemon(self, number: int) -> bool:
        own = sockets.socket(fileno=os.dup(number))
        try:
            peer = own.getpeername()
        finally:
            own.close()
        host, _, port = self.address.removeprefix("tcp://").rpartition(":")
        if type(peer) is not tuple or str(peer[1]) != port:
            return False
        return number == self._connection or peer[0] in ((host.strip("[]"),) if host != "localhost" else LOOPBACK)

    def close(self) -> None:
        """End it; what has been sent has a moment to leave."""
        try:
            self._check()
        except DescriptorsClosed:
            # Left as it is, for good: its threads sleep.
            if self._mark is not None:
                self._mark.close()
            for one in (self._context, self._socket, self._monitor):
                if one is not None:
                    one._shadow = True
            return
        self._close_socket()
        if self._context is not None:
            self._context.term()
        if self._mark is not None:
            self._mark.close()
