"""The sender: the one thread and the one socket of a client, between the journal and the daemon.

It reads what the journal has gained, pushes it over ZeroMQ as far as the daemon's credit goes, and releases what is
acknowledged. It owns the socket; nobody else touches it. It holds no lock while it sends and needs none to read the
journal, so a trainer that is stopped in the middle of a call cannot stop it, nor the other way round.

While records come, it wakes every ``TICK_SECONDS``; when none have come for a while, or now and then only, it asks the
journal to ring: a script that logs five scalars a second then costs half as many wake-ups.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from . import wire
from .doorbell import Doorbell
from .journal import Journal
from .launch import Forwarder, Launcher
from .link import Link
from .paths import check_address, token_path
from .records import ProtocolError
from .settings import warn

TICK_SECONDS = 0.05  # between two looks at a journal that is being filled
QUIET_SECONDS = 2.0  # without records before the sender sleeps until it is rung,
BUSY_SECONDS = 0.25  # where they have come at every look for so long; else it does when a look finds none
HELLO_SECONDS = 0.25  # between greetings while nobody answers
SILENCE_SECONDS = 3.0  # without a word of the daemon, while it owes one, before it is greeted again
REPORT_SECONDS = 1.0  # between reports of counts that have changed
HEARTBEAT_SECONDS = 15.0  # between reports that have not
SYNC_SECONDS = 1.0  # between fdatasyncs of a journal that nobody empties
READ_BYTES = 256 << 10  # of the journal at a time: pyzmq copies them with the interpreter's lock held, 25 µs
assert READ_BYTES <= wire.DATA_BYTES_MAX
DESCRIPTORS = 24  # that a ZeroMQ context and its socket may need; libzmq ends the process when it gets none
DESCRIPTORS_SECONDS = 1.0  # between two looks whether there are so many


class Sender:
    """Sends one journal to one address until it is stopped.

    Args:
        journal: what to send; the sender alone reads and releases it.
        doorbell: what the journal rings.
        address: a ZeroMQ endpoint.
        launcher: starts the daemon when nobody answers; None when the address was configured.
        reports: gives the counts of the runs, as in `wire.Report`.
        settled: takes the counts of the runs, as in `wire.Ack`.
        forwarder: sends what others have left for a daemon on another host; None where the daemon finds it by itself.
    """

    def __init__(
        self,
        journal: Journal,
        doorbell: Doorbell,
        address: str,
        launcher: Launcher | None,
        reports: Callable[[], dict[int, Any]],
        settled: Callable[[dict[int, Any]], None],
        forwarder: Forwarder | None = None,
    ) -> None:
        self._journal = journal
        self._doorbell = doorbell
        self._address = address
        self._launcher = launcher
        self._reports = reports
        self._settled = settled
        self._forwarder = forwarder
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._link: Link | None = None
        self.refused = ""  # why the daemon takes nothing, once it has said so
        # What the daemon has and wants; positions in the two streams.
        self.acknowledged = 0
        self._welcomed = False
        self._sent = 0
        self._sent_definitions = 0
        self._limit = 0
        self._by_reference = False  # the daemon reads records in the journal's files
        self._flush_to = 0
        self._flush_sent = 0
        self._ending = False  # nothing follows what is there,
        self._end_sent = False  # and the daemon knows
        self._given_up_at = -1  # what had been acknowledged when a flush ended in vain; -1 when a daemon came since
        # When things are due, by the monotonic clock.
        self._heard = 0.0
        self._next_hello = 0.0
        self._next_report = 0.0
        self._next_sync = 0.0
        self._sync_mark = 0
        self._last_growth = 0.0
        self._growing_since = 0.0  # since when each look has found records
        self._last_report: tuple[float, dict[int, Any]] = (0.0, {})

    # --- called by the trainer's threads ---------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread. Where none can be had, the journal keeps everything for a daemon to find."""
        self._thread = threading.Thread(target=self._run, name="tbxd-sender", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._thread = None
            warn(f"no thread to send from ({error}); records stay in {self._journal.path}", once="thread")

    def flush(self, position: int, timeout: float, again: bool = True, last: bool = False) -> bool:
        """Wait until everything before ``position`` is in the event files; False when that takes too long.

        Args:
            position: in the records.
            timeout: seconds.
            again: whether to wait at all when an earlier wait was in vain and nothing has moved since.
            last: whether no record follows.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            self._flush_to = max(self._flush_to, position)
            self._ending = self._ending or last
            self._doorbell.ring()
            while self.acknowledged < position:
                if self._thread is None or not self._thread.is_alive() or self.refused:
                    return False
                if not again and self.acknowledged == self._given_up_at:
                    return False
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    self._given_up_at = self.acknowledged
                    return False
                self._changed.wait(min(remaining, 0.2))
            return True

    @property
    def connected(self) -> bool:
        """Whether a daemon answers."""
        return self._welcomed

    def stop(self, timeout: float) -> None:
        """Say goodbye if all is acknowledged, close the socket and end the thread."""
        self._stopping = True
        self._doorbell.ring()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def greeted(self) -> bool:
        """Whether the daemon knows the session, and has been sent all its definitions."""
        return self._welcomed and self._sent_definitions >= self._journal.definitions_end

    @property
    def trouble(self) -> str:
        """Why there is no connection, where a key is the reason."""
        return self._link.trouble if self._link is not None else ""

    # --- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            check_address(self._address)
            if not self._have_descriptors():
                return
            # Kept as an attribute, so that a forked child does not finalise what belongs to its parent.
            self._link = Link(self._address)
            try:
                self._loop(self._link)
            finally:
                self._link.close()
        except Exception as error:
            warn(
                f"sending stopped: {type(error).__name__}: {error}; records are kept in {self._journal.path}",
                once="sender",
            )
        finally:
            if self._launcher is not None:
                self._launcher.done()
            with self._changed:
                self._changed.notify_all()

    def _have_descriptors(self) -> bool:
        """Wait until this process may open what ZeroMQ needs. False when it ends before that.

        libzmq calls abort() where an eventfd or an epoll cannot be had while a context begins (src/epoll.cpp): training
        would die of it.
        """
        while not _spare_descriptors(DESCRIPTORS):
            warn(
                f"this process has hardly any file descriptors left (ulimit -n); records wait in {self._journal.path}",
                once="descriptors",
            )
            if self._stopping:
                return False
            self._wait_for_the_bell(DESCRIPTORS_SECONDS)
        return True

    def _wait_for_the_bell(self, seconds: float) -> None:
        poller = select.poll()
        poller.register(self._doorbell.read_fd, select.POLLIN)
        if poller.poll(seconds * 1000):
            self._doorbell.clear()

    def _loop(self, link: Link) -> None:
        self._last_growth = time.monotonic()
        while True:
            now = time.monotonic()
            link.look(now)
            self._greet(link, now)
            moved = self._send(link) if self._welcomed else False
            if moved:
                self._has_grown(now)
            self._report(link, now)
            self._sync(now)
            if self._forwarder is not None and self._welcomed:
                self._forwarder.look(now)
            if self._stopping:
                self._say_goodbye(link)
                return
            answered, rung = link.poll(self._patience(now), self._doorbell.read_fd)
            if answered:
                self._receive(link)
            if rung:
                self._doorbell.clear()
                self._has_grown(time.monotonic())
            self._journal.release(self.acknowledged)

    def _has_grown(self, now: float) -> None:
        if now - self._last_growth > 2 * TICK_SECONDS:
            self._growing_since = now
        self._last_growth = now

    def _patience(self, now: float) -> float:
        """Seconds until the next thing to do by itself."""
        committed = self._journal.committed
        if not self._welcomed:
            return HELLO_SECONDS / 5
        quiet = QUIET_SECONDS if self._last_growth - self._growing_since > BUSY_SECONDS else TICK_SECONDS
        if now - self._last_growth < quiet or self._sent < min(committed, self._limit):
            return TICK_SECONDS
        if self.acknowledged < committed or self._journal.released < self.acknowledged:
            return SILENCE_SECONDS / 10
        # All is written. Sleep until the journal rings; a record that came just now keeps us up.
        if not self._journal.arm(committed):
            return TICK_SECONDS
        told = self._reports() == self._last_report[1]
        return HEARTBEAT_SECONDS if told else max(self._next_report - now, TICK_SECONDS)

    def _greet(self, link: Link, now: float) -> None:
        owed = self.acknowledged < self._sent or self._sent_definitions == 0
        if self._welcomed and not (owed and now - self._heard > SILENCE_SECONDS):
            return
        if self._launcher is not None and not self._welcomed:
            self._launcher.ensure()
        if now < self._next_hello:
            return
        self._next_hello = now + (SILENCE_SECONDS if self._welcomed else HELLO_SECONDS)
        hello = wire.Hello(
            self._journal.session,
            self.acknowledged,
            os.getpid(),
            os.uname().nodename,
            "" if link.remote else str(self._journal.path),
            (sys.argv[0] if getattr(sys, "argv", None) else "")[:1000],
            "" if link.remote else self._token(),
        )
        self._push(link, hello)

    def _token(self) -> str:
        if self._address.startswith("ipc:"):
            return ""
        try:
            return token_path().read_text()
        except OSError:
            return ""

    def _send(self, link: Link) -> bool:
        """Send what is new, as far as the limit goes. True when there was something."""
        journal, session = self._journal, self._journal.session
        committed = journal.committed  # before the definitions: those it needs are then there
        moved = self._sent < committed
        while self._sent_definitions < journal.definitions_end:
            stretch = journal.read_definitions(self._sent_definitions, READ_BYTES)
            if not self._push(link, wire.Data(session, wire.DEFINITIONS, self._sent_definitions, stretch)):
                return moved
            self._sent_definitions += len(stretch)
        end = min(committed, self._limit)
        while self._sent < end:
            message = self._records(end)
            if not self._push(link, message):
                return moved
            self._sent += message.length if isinstance(message, wire.Stored) else len(message.payload)
        due = self._flush_sent < self._flush_to or (self._ending and not self._end_sent)
        if due and self._flush_to <= self._sent:
            ending = self._ending
            self._push(link, wire.Flush(session, self._flush_to, int(ending)))
            self._flush_sent, self._end_sent = self._flush_to, ending
        return moved

    def _records(self, end: int) -> wire.Data | wire.Stored:
        """The next records up to ``end``, or where they are."""
        journal = self._journal
        if self._by_reference:
            segment, length = journal.locate(self._sent)
            return wire.Stored(journal.session, self._sent, min(length, end - self._sent), segment.number)
        stretch = journal.read(self._sent, min(READ_BYTES, end - self._sent))
        return wire.Data(journal.session, wire.RECORDS, self._sent, stretch)

    def _push(self, link: Link, message: wire.Message) -> bool:
        if link.send(wire.pack(message)):
            return True
        self._welcomed = False
        return False

    def _receive(self, link: Link) -> None:
        while (frames := link.receive()) is not None:
            try:
                message = wire.unpack(frames)
            except ProtocolError as error:
                warn(
                    f"the daemon at {self._address} sent something else than expected: {error}",
                    once="protocol",
                )
                continue
            if getattr(message, "session", b"") == self._journal.session or isinstance(message, wire.Refused):
                self._handle(message)

    def _handle(self, message: wire.Message) -> None:
        self._heard = time.monotonic()
        committed = self._journal.committed
        match message:
            case wire.Welcome():
                if not (self.acknowledged <= message.records <= committed):
                    return  # not about the journal that we have
                if not self._welcomed:
                    self._given_up_at = -1
                self._welcomed = True
                self.refused = ""  # whatever it was, it is over
                self._sent = message.records
                self._sent_definitions = min(message.definitions, self._journal.definitions_end)
                self._limit = message.limit
                self._by_reference = bool(message.journal)
                self._flush_sent, self._end_sent = 0, False
                self._next_report = 0.0
                if self._launcher is not None:
                    self._launcher.answered()
            case wire.Ack():
                self._limit = max(self._limit, message.limit)
                self._settled(message.runs)
                if self.acknowledged < message.written <= min(self._sent, committed):
                    with self._changed:
                        self.acknowledged = message.written
                        self._changed.notify_all()
            case wire.Unknown():
                self._welcomed = False
                self._next_hello = 0.0
            case wire.Refused():
                self.refused = message.reason
                self._limit = 0
                warn(f"the daemon refuses the records: {message.reason}; they stay in {self._journal.path}")

    def _report(self, link: Link, now: float) -> None:
        if now < self._next_report or not self._welcomed:
            return
        self._next_report = now + REPORT_SECONDS
        counts = self._reports()
        sent, last = self._last_report
        if counts != last or now - sent > HEARTBEAT_SECONDS:
            self._last_report = (now, counts)
            self._push(link, wire.Report(self._journal.session, counts))

    def _sync(self, now: float) -> None:
        """Once a second, bring onto the disk what nobody has acknowledged for a second."""
        if now < self._next_sync:
            return
        if self.acknowledged < self._sync_mark:
            try:
                self._journal.sync()
            except OSError as error:
                warn(
                    f"{self._journal.path}: {error}; a crash of the machine would lose what waits",
                    once="sync",
                )
        self._sync_mark = self._journal.committed
        self._next_sync = time.monotonic() + SYNC_SECONDS

    def _say_goodbye(self, link: Link) -> None:
        if self._welcomed:
            self._push(link, wire.Report(self._journal.session, self._reports()))
            if self.acknowledged >= self._journal.committed:
                self._push(link, wire.Goodbye(self._journal.session))


def _spare_descriptors(count: int) -> bool:
    """Whether this process could open ``count`` more files now."""
    held: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while len(held) < count:
                held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        return len(held) == count
    finally:
        for fd in held:
            os.close(fd)
