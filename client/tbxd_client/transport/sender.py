"""The sender: the one thread and the one socket of a client, between the journal and the daemon.

It reads what the journal has gained, pushes it as far as the daemon's credit goes, and releases what is
acknowledged. It owns the socket; nobody else touches it. It holds no lock while it sends and needs none to read the
journal, so a trainer that is stopped in the middle of a call cannot stop it, nor the other way round.

How often it wakes is in `pace`.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..config.paths import ADDRESS_VARIABLE, check_address
from ..config.settings import warn
from ..journal.journal import Journal
from ..process.descriptors import DescriptorsClosed
from ..process.doorbell import Doorbell
from ..process.native import RLock, Thread, allocate_lock, let_in, monotonic, poller, sleep
from ..protocol import wire
from ..protocol.records import ProtocolError
from . import greeting, headroom
from . import launcher as launch
from .count_reports import HEARTBEAT_SECONDS, Reports
from .daemon_version import DaemonVersion
from .journal_sync import SYNC_SECONDS, JournalSync
from .launcher import Forwarder, Launcher
from .local_connection import SCHEME, LocalLink
from .outage import Outage
from .pace import TICK_SECONDS, Pace

if TYPE_CHECKING:
    from _thread import LockType

    from .connection import Link

HELLO_SECONDS = 0.25  # between greetings while nobody answers
# That the daemon, which may be busy, owes an answer before a script that ends takes it for gone, where there is a
# processor for each process; else as much longer as everything takes there.
LIVES_SECONDS = 10.0
SILENCE_SECONDS = 3.0  # without a word of the daemon, while it owes one, before it is greeted again
LOOK_SECONDS = 0.1  # between looks whether the journal is within reach
WAIT_SECONDS = 0.2  # between looks whether a wait is still for something
READ_BYTES = 256 << 10  # of the journal at a time: pyzmq copies them with the interpreter's lock held, 25 µs
assert READ_BYTES <= wire.DATA_BYTES_MAX
HEADROOM_SECONDS = 1.0  # between two looks whether there is what ZeroMQ takes
RESTART_SECONDS = 1.0  # before the sender begins anew after something that nobody has thought of
CLOSED_SECONDS = 0.1  # for a program that closes all descriptors, to have done it
THREAD_SECONDS = 1.0  # between two attempts to have a thread

_link: type[Link] | None = None  # kept: in the end of the interpreter nothing can be imported, also what is there
_loaded = False
loading = RLock()  # while it is held no thread forks; a signal handler may, in the midst of the import


def load(address: str) -> type[Link] | type[LocalLink]:
    """Import what starts and reaches a daemon: over tcp that is pyzmq, which takes 20 ms.

    With a writer, not with its first record, which is to be quick. A thread that forks waits for it: in the child the
    locks of modules that are half imported would be held for ever by a thread that is not there.

    Not begun where memory would run out in the midst of it: hashlib, which pyzmq imports by way of `random`, writes a
    traceback for each of its algorithms then, and what is loaded so far leaves the journal nothing.

    Args:
        address: the daemon's.

    Raises:
        ImportError, OSError, MemoryError: it cannot be had now.
    """
    global _link, _loaded
    local = address.startswith(SCHEME)
    if not _loaded or not (local or _link):
        if not headroom.memory(headroom.BYTES_LOADING):
            raise MemoryError("hardly any memory is left (ulimit -v)")
        with loading:
            launch.load()
            _loaded = True
            if not local:
                from .connection import Link

                _link = Link
    return _link if _link is not None and not local else LocalLink


os.register_at_fork(before=loading.acquire, after_in_parent=loading.release, after_in_child=loading.release)


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
        aloud: whether the user is told on stderr why nobody answers.
        elsewhere: where the daemon is that sees the files which this process sees, and who starts it; asked for once,
            when the one at ``address`` says that it sees others.
        waits: True for as long as records of before are to be written first.
        is_over: called again and again; True when nothing more comes and all is written: the sender ends.
        ended: called at its end, where that has come without `stop`.
    """

    _moved = False  # to another address, with another link

    def __init__(
        self,
        journal: Journal,
        doorbell: Doorbell,
        address: str,
        launcher: Launcher | None,
        reports: Callable[[], dict[int, Any]],
        settled: Callable[[dict[int, Any]], None],
        forwarder: Forwarder | None = None,
        aloud: bool = True,
        elsewhere: Callable[[], tuple[str, Launcher]] | None = None,
        waits: Callable[[], bool] = lambda: False,
        is_over: Callable[[], bool] = lambda: False,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._journal = journal
        self._doorbell = doorbell
        self._address = address
        self._launcher = launcher
        self._reports = Reports(journal.session, reports)
        self._settled = settled
        self._forwarder = forwarder
        self._thread: Thread | None = None
        self._next_thread = 0.0
        self._starting = RLock()  # while it is looked whether there is a thread: two would share one connection's state
        # Who waits for an acknowledgement, by a lock each that is let go when one has come. No `threading.Condition`:
        # a signal handler that raises in the middle of its methods leaves its lock held, or not held, for ever.
        self._waiters: list[LockType] = []
        self._elsewhere = elsewhere
        self._waits, self._is_over, self._ended = waits, is_over, ended
        self._next_look = 0.0
        self._stopping = False
        self._abandoned = False  # it is the parent's of this process
        self._link: Link | LocalLink | None = None
        self._aloud = aloud
        self._outage = Outage(address, launcher is not None, journal.place) if aloud else None
        self.refused = ""  # why the daemon takes nothing, once it has said so
        self.left_to_daemon = False  # when this was stopped there was a daemon that gets on, see `gets_on`
        # What the daemon has and wants; positions in the two streams.
        self.acknowledged = 0
        self._welcomed = False
        self._version = DaemonVersion()
        self._sent = 0
        self._sent_definitions = 0
        self._limit = 0
        self._over = False  # all is written, and nothing more comes
        self._heard_of = False  # something has come that who waits wants to know
        self._unheard = False  # the last greeting could not be sent: it is, as soon as somebody is there
        self._by_reference = False  # the daemon reads records in the journal's files
        self._held = 0  # what is before it waits for other ranks at the most
        self._flush_to = 0
        self._flush_sent = 0
        self._ending = False  # nothing follows what is there,
        self._end_sent = False  # and the daemon knows
        # Flushes that want to have written what ended processes have left: the last one's number, as it was asked for,
        # sent and answered.
        self._leftovers = self._leftovers_sent = self._leftovers_written = 0
        self._knows_leftovers = True  # the daemon answers that, as far as is known
        self._held_up = ""  # what keeps a run from being written, as the daemon says
        # How far it was when a flush ended in vain, -1 when a daemon came since, and how long that had waited.
        self._given_up_at, self._given_up_seconds = -1, 0.0
        # When things are due, by the monotonic clock.
        self._heard = 0.0  # when the daemon last said something,
        self._owed = 0.0  # and when it was first sent what it answers since then
        self._next_hello = 0.0
        self._journal_sync = JournalSync(journal)
        self._pace = Pace()

    # --- called by the trainer's threads ---------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread. If there is none to be had, the journal keeps everything, and `wake` tries again."""
        if not self._have_thread():
            self._journal.arm(self._journal.position)

    def wake(self) -> bool:
        """Wake the thread, or start one; called when there is something to send. Does not block.

        Returns:
            True when it has to be called with the next record, too: there is no thread yet.
        """
        self._doorbell.ring()
        return not self._have_thread()

    def _have_thread(self) -> bool:
        if sys.is_finalizing() or self._abandoned:
            return False  # no other thread gets on any more, or is there
        if self.alive or self._stopping:
            return True
        with self._starting:
            if self.alive:
                return True
            now = monotonic()
            if now < self._next_thread:
                return False
            self._next_thread = now + THREAD_SECONDS
            try:
                self._thread = Thread(self._run)
            except (RuntimeError, MemoryError) as error:
                warn(
                    f"no thread to send from ({error}); records are kept in {self._journal.place}, and tbxd tries "
                    "again",
                    once="thread",
                )
                return False
            return True

    def flush(
        self,
        position: int,
        timeout: float,
        deadline: float | None = None,
        again: bool = True,
        last: bool = False,
        leftovers: bool = False,
        written: bool = False,
    ) -> bool:
        """Wait until everything before ``position`` is in the event files; return False if that takes too long.

        What the daemon has and keeps for other ranks of the job is not waited for: when it is written is theirs. On the
        sender's own thread, where a ``__del__`` may run that the garbage collector has found, it does not wait.

        Args:
            position: in the records.
            timeout: seconds for all of it.
            deadline: when they are over, by the monotonic clock; None counts them from now.
            again: whether to wait at all when an earlier wait, as long as this one, was in vain and nothing has moved
                since.
            last: whether no record follows.
            leftovers: wait as well for what processes that have ended have left in their journals for the same runs.
            written: wait for other ranks, too.
        """
        if deadline is None:
            deadline = monotonic() + timeout
        self._ending = self._ending or last
        self._leftovers += leftovers
        number = self._leftovers if leftovers else 0
        while True:
            waiter = allocate_lock()
            waiter.acquire()
            self._waiters.append(waiter)  # before the look, so that no acknowledgement comes unseen between them
            try:
                self._flush_to = max(self._flush_to, position)
                self._doorbell.ring()
                if self._is_there(position, number, written):
                    return True
                if not self._have_thread() or self.refused or self.estranged or self._is_sender:
                    return False
                if not again and self.settled == self._given_up_at and timeout <= self._given_up_seconds:
                    return False
                remaining = deadline - monotonic()
                if remaining <= 0:
                    if self.settled != self._given_up_at or timeout > self._given_up_seconds:
                        self._given_up_at, self._given_up_seconds = self.settled, timeout
                    return False
                waiter.acquire(True, min(remaining, WAIT_SECONDS))
            finally:
                with contextlib.suppress(ValueError):  # it has been told
                    self._waiters.remove(waiter)

    def _tell_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.release()

    @property
    def _is_sender(self) -> bool:
        return self._thread is not None and self._thread.is_this

    def _is_there(self, position: int, leftovers: int, written: bool) -> bool:
        if (self.acknowledged if written else self.settled) < position:
            return False
        return self._leftovers_written >= leftovers or (self._welcomed and not self._knows_leftovers)

    @property
    def settled(self) -> int:
        """The position before which everything is in the event files, or waits for other ranks and nothing else."""
        return max(self.acknowledged, self._held if self._welcomed else 0)  # a daemon that is gone has nothing

    @property
    def connected(self) -> bool:
        """True if a daemon answers."""
        return self._welcomed

    def stop(self, timeout: float) -> None:
        """Say goodbye if all is acknowledged, close the socket and end the thread."""
        # With the thread ends what it knows of the daemon; one that was killed just now may not be missed yet.
        self.left_to_daemon = self.gets_on and (self._launcher is None or self._launcher.is_there())
        self._stopping = True
        self._doorbell.ring()
        if self._thread is not None and not self._thread.is_this:
            self._thread.join(timeout)

    def abandon(self) -> None:
        """In a forked child: leave the parent's connection, and end a flush in which a signal handler has forked."""
        self._abandoned = True
        held, self._starting = self._starting, RLock()
        let_in(held)
        if self._link is not None:
            self._link.abandon()

    @property
    def alive(self) -> bool:
        """True if the thread runs."""
        return self._thread is not None and self._thread.alive

    @property
    def awaited(self) -> bool:
        """True if a daemon runs here, answering or not: it finds what is left to it."""
        return self._launcher is not None and self._launcher.is_there()

    @property
    def greeted(self) -> bool:
        """True if the daemon knows the session, and has been sent all its definitions."""
        return self._welcomed and self._sent_definitions >= self._journal.definitions_end

    @property
    def gets_on(self) -> bool:
        """True if a daemon reads this journal, and reports nothing that keeps it from writing."""
        there = self._welcomed and self._by_reference and self._knows_leftovers and not self.refused
        silent = self._owed > self._heard and monotonic() - self._owed > LIVES_SECONDS * headroom.crowding()
        return there and not self._held_up and not silent

    @property
    def held_up(self) -> str:
        """The reason why a run cannot be written, as the daemon reports it; "" if there is none."""
        return self._held_up

    @property
    def estranged(self) -> bool:
        """True if no daemon can answer, because this process is another user's now."""
        return not self._welcomed and self._link is not None and self._link.estranged

    @property
    def trouble(self) -> str:
        """The reason why there is no connection, if it is the key; else ""."""
        return self._link.trouble if self._link is not None else ""

    @property
    def how(self) -> str:
        """A sentence on the last attempt to reach the daemon and its outcome."""
        return self._link.how if self._link is not None else "it was not tried yet"

    # --- the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Send until told to stop. Whatever goes wrong, another try follows: a thread that ends sends nothing."""
        try:
            if not self._can_be(self._address):
                return
            while True:
                try:
                    self._attempt()
                except DescriptorsClosed:
                    sleep(CLOSED_SECONDS)
                    self._doorbell.clear()
                except Exception as error:
                    warn(
                        f"sending is interrupted: {type(error).__name__}: {error}; records are kept in "
                        f"{self._journal.place}, and tbxd tries again",
                        once="sender",
                    )
                if self._stopping or self._over:
                    return
                self._welcomed = False
                self._pause(RESTART_SECONDS)
        finally:
            if self._launcher is not None:
                self._launcher.done()
            self._welcomed = False
            self._tell_waiters()
            if self._over:
                self._ended()
            elif not self._stopping:  # no memory to wait with, say: the next record asks for another thread
                self._journal.arm(self._journal.position)

    def _can_be(self, address: str) -> bool:
        """Return True if the address is valid. If not, only keep the journal until this process ends."""
        try:
            check_address(address)
        except ValueError as error:
            self.refused = str(error)
            warn(f"{ADDRESS_VARIABLE}: {error}. Records are kept in {self._journal.place}", once="address")
            while not self._stopping:
                self._journal_sync.look(monotonic(), self.acknowledged)
                self._pause(SYNC_SECONDS)
            return False
        return True

    def _attempt(self) -> None:
        """Connect and send, until told to stop.

        Raises:
            Exception: of any kind.
        """
        while self._waits() and not self._stopping:
            self._pause(TICK_SECONDS)
        if not self._have_headroom():
            return
        while True:
            # Kept as an attribute, so that a forked child does not finalise what belongs to its parent.
            self._link = load(self._address)(self._address, self._aloud)
            self._moved = False
            try:
                self._loop(self._link)
            finally:
                self._link.close()
            if not self._moved:
                return

    def _have_headroom(self) -> bool:
        """Wait until this process may have what the link takes; return False if it ends before that."""
        while shortage := headroom.shortage(libzmq=not self._address.startswith(SCHEME)):
            warn(f"this process {shortage}; records are kept in {self._journal.place}", once="headroom")
            if self._stopping:
                return False
            self._pause(HEADROOM_SECONDS)
        return not self._stopping

    def _pause(self, seconds: float) -> None:
        """Wait so long, or until told to stop."""
        until = monotonic() + seconds
        while not self._stopping and (remaining := until - monotonic()) > 0:
            bell = poller()
            bell.register(self._doorbell.read_fd, select.POLLIN)
            if bell.poll(remaining * 1000):
                self._doorbell.clear()

    def _loop(self, link: Link | LocalLink) -> None:
        self._pace.begin(monotonic())
        while True:
            now = monotonic()
            # libzmq begins when there is a daemon: as long as it tries by itself, it waits ever longer between two
            # attempts, and ends this process when the program closes its descriptors.
            if link.is_open or self._launcher is None or self._launcher.is_there():
                link.look(now)
            if not headroom.memory(headroom.BYTES_SENDING):
                raise MemoryError("hardly any memory is left (ulimit -v)")
            self._greet(link, now)
            if self._outage is not None:
                known = bool(self.refused or link.trouble)
                self._outage.look(now, self._welcomed, known, lambda: link.how)
            moved = self._send(link) if self._welcomed else False
            if moved:
                self._pace.has_grown(now)
            self._report(link, now)
            self._journal_sync.look(now, self.acknowledged)
            if self._forwarder is not None and self._welcomed:
                self._forwarder.look(now)
            if now >= self._next_look:
                self._next_look = now + LOOK_SECONDS
                self._over = self._is_over()
            if self._stopping or self._over:
                self._say_goodbye(link)
                return
            patience = self._patience(now)
            if self._heard_of:  # told where libzmq is not in use: whoever has waited may close all descriptors next
                self._heard_of = False
                self._tell_waiters()
            answered, rung = link.poll(patience, self._doorbell.read_fd, self._unheard)
            if answered:
                self._receive(link)
                if self._moved:
                    return
            if rung:
                self._doorbell.clear()
                self._pace.has_grown(monotonic())
            self._journal.release(self.acknowledged)

    def _patience(self, now: float) -> float:
        """Return the seconds until the next thing to do by itself."""
        committed = self._journal.committed
        if not self._welcomed:
            return HELLO_SECONDS / 5
        if self._pace.stays_awake(now) or self._sent < min(committed, self._limit):
            return TICK_SECONDS
        if self.acknowledged < committed or self._journal.released < self.acknowledged:
            return SILENCE_SECONDS / 10
        # All is written. Sleep until the journal rings; a record that came just now keeps us up.
        if not self._journal.arm(committed):
            return TICK_SECONDS
        return HEARTBEAT_SECONDS if self._reports.settled else max(self._reports.due - now, TICK_SECONDS)

    def _greet(self, link: Link | LocalLink, now: float) -> None:
        owed = self.acknowledged < self._sent or self._sent_definitions == 0
        if self._welcomed and not (owed and now - self._heard > SILENCE_SECONDS):
            return
        if self._launcher is not None and not self._welcomed:
            self._launcher.ensure()
        if now < self._next_hello and not self._unheard:
            return
        self._next_hello = now + (SILENCE_SECONDS if self._welcomed else HELLO_SECONDS)
        journal = self._journal
        hello = greeting.hello(journal.session, self.acknowledged, journal.folder, self._address, link.remote)
        self._unheard = not self._push(link, hello)

    def _send(self, link: Link | LocalLink) -> bool:
        """Send what is new, up to the daemon's limit. Return True if there was something."""
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
            if isinstance(message, wire.Data) and not message.payload:
                return moved  # what is there cannot be read
            if not self._push(link, message):
                return moved
            self._sent += message.length if isinstance(message, wire.Stored) else len(message.payload)
        self._send_flush(link)
        return moved

    def _send_flush(self, link: Link | LocalLink) -> None:
        wanted, ending, leftovers = self._flush_to, self._ending, self._leftovers
        due = self._flush_sent < wanted or (ending and not self._end_sent) or self._leftovers_sent < leftovers
        if due and wanted <= self._sent:
            asked = leftovers if self._knows_leftovers and self._leftovers_written < leftovers else 0
            self._push(link, wire.Flush(self._journal.session, wanted, int(ending), asked))
            self._flush_sent, self._end_sent, self._leftovers_sent = wanted, ending, leftovers

    def _records(self, end: int) -> wire.Data | wire.Stored:
        """Return the next records up to ``end``, or a reference to them."""
        journal = self._journal
        if self._by_reference:
            segment, length = journal.locate(self._sent)
            return wire.Stored(journal.session, self._sent, min(length, end - self._sent), segment.number)
        stretch = journal.read(self._sent, min(READ_BYTES, end - self._sent))
        return wire.Data(journal.session, wire.RECORDS, self._sent, stretch)

    def _push(self, link: Link | LocalLink, message: wire.Message) -> bool:
        if link.send(wire.pack(message, self._version.spoken)):
            if self._owed <= self._heard and not isinstance(message, wire.Report | wire.Goodbye):
                self._owed = monotonic()
            return True
        self._welcomed = False
        self._version.begin()
        return False

    def _receive(self, link: Link | LocalLink) -> None:
        received = []
        while (frames := link.receive()) is not None:
            received.append(frames)
        # Whoever waits for one of them goes on when the socket is not in use: he may close all descriptors next.
        for frames in received:
            try:
                version, message = wire.unpack_with_version(frames, wire.FRAME_BYTES_MAX)
            except ProtocolError as error:
                warn(
                    f"the daemon at {self._address} sent something else than expected: {error}",
                    once="protocol",
                )
                continue
            if isinstance(message, wire.Refused) and not any(message.session) and version < self._version.spoken:
                self._fall_back(link, version)
            elif isinstance(message, wire.Answer):
                self._refuse_to_speak(self._version.take_answer(link, self._address, version, message.value))
            elif getattr(message, "session", b"") == self._journal.session or isinstance(message, wire.Refused):
                self._handle(message)

    def _fall_back(self, link: Link | LocalLink, version: int) -> None:
        """A daemon is older than this client: go on in its version, or ask it to make way."""
        if version >= wire.OLDEST:
            self._version.spoken = version
            self._next_hello = 0.0
            return
        starts = self._launcher is not None
        self._refuse_to_speak(self._version.ask(link, self._address, version, monotonic(), starts))

    def _refuse_to_speak(self, reason: str) -> None:
        """Note the reason why the daemon cannot be spoken to, if there is one, and tell the user."""
        if reason:
            self.refused = reason
            warn(f"{reason}. `tbxd status` names both versions; records stay in {self._journal.place}", once="version")

    def _handle(self, message: wire.Message) -> None:
        self._heard = monotonic()
        committed = self._journal.committed
        match message:
            case wire.Welcome():
                if not (self.acknowledged <= message.records <= committed):
                    return  # not about the journal that we have
                if not self._welcomed:
                    self._given_up_at = -1
                self._welcomed = True
                self.refused = ""  # whatever it was, it is over
                self._version.welcomed()
                self._held = 0  # another daemon may have less; this one says it again
                self._sent = message.records
                self._sent_definitions = min(message.definitions, self._journal.definitions_end)
                self._limit = message.limit
                self._by_reference = bool(message.journal)
                self._flush_sent, self._end_sent, self._leftovers_sent = 0, False, self._leftovers_written
                self._held_up = ""
                self._knows_leftovers = bool(message.leftovers)
                self._heard_of = True
                self._reports.begin(bool(message.reports))
                if self._launcher is not None:
                    self._launcher.answered()
            case wire.Ack():
                self._limit = max(self._limit, message.limit)
                self._settled(message.runs)
                self._held_up = message.trouble
                there = min(self._sent, committed)
                if self.acknowledged < message.written <= there:
                    self.acknowledged = message.written
                if self._held < message.held <= there:
                    self._held = message.held
                if self._leftovers_written < message.leftovers <= self._leftovers_sent:
                    self._leftovers_written = message.leftovers
                self._heard_of = True
            case wire.Unknown():
                self._welcomed = False
                self._next_hello = 0.0
            case wire.Refused() if self._moves(message.reason):
                return
            case wire.Refused():
                self.refused = message.reason
                self._limit = 0
                warn(f"the daemon refuses the records: {message.reason}; they stay in {self._journal.place}")

    def _moves(self, reason: str) -> bool:
        """Move to a daemon that sees this process's files, if this one reports that it does not."""
        if not reason.startswith(wire.ELSEWHERE) or self._elsewhere is None:
            return False
        if self._launcher is not None:
            self._launcher.done()
        self._address, self._launcher = self._elsewhere()
        self._elsewhere, self._moved = None, True
        self._welcomed = self._by_reference = False
        self._limit = self._sent_definitions = 0
        self._next_hello = 0.0
        return True

    def _report(self, link: Link | LocalLink, now: float, last: bool = False) -> None:
        if self._welcomed:
            for report in self._reports.messages(now, last):
                if not self._push(link, report):
                    return  # all of it is told to the daemon that says welcome next

    def _say_goodbye(self, link: Link | LocalLink) -> None:
        if self._welcomed:
            self._report(link, monotonic(), last=True)
            if self.acknowledged >= self._journal.committed:
                self._push(link, wire.Goodbye(self._journal.session))
