"""The hub: from messages to sessions, from sessions to runs, and acknowledgements the same way back.

It lives on the daemon's main thread. Runs are written on the threads of a pool; what they have written comes back
through a queue, so sessions are never touched by two threads.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tbxd_client.config.paths import may_be_used, spools
from tbxd_client.distributed import process_identity
from tbxd_client.journal.journal_files import DEFINITIONS_BYTES_MAX
from tbxd_client.protocol import wire
from tbxd_client.protocol.records import POSITION_MAX, RemoteProtocolError

from ..batch import Batch
from ..config.settings import Settings
from ..metrics.histograms import Meters
from ..process.walls import Walls
from ..reduce.expected_ranks import Coming
from ..reduce.unread_records import Reads
from ..runs.run_writer import RunWriter
from ..scheduler.run_registry import RUNS_MAX, RunState
from ..scheduler.run_scheduler import BATCH_BYTES, RunScheduler
from ..scheduler.run_sink import RunSink
from ..tfevents.checkpoint import Checkpoints
from ..tfevents.ledger import OVER
from ..transport.allowed_roots import Roots
from ..transport.server_socket import Peer
from .acknowledgements import Acknowledgements
from .client import SESSIONS_MAX, Client, Held, Seen, Send, Wanting
from .ended_sessions import Ended
from .folder_looks import FolderLooks
from .live_journal import StoredSegment, Unreadable, readable_journal
from .presence import Presence
from .quotas import TRY_SECONDS, OverQuota, Quotas
from .refusals import Refusals
from .session import Session
from .session_rows import SessionRows
from .told_drops import ToldDrops

log = logging.getLogger(__name__)

LEDGERS = "ledgers"  # of the spool: what event files held, for the daemon that comes next


class Hub:
    """All sessions and all runs of a daemon.

    Args:
        settings: the daemon's.
        wake: wakes the main thread; called from the pool.
        send: sends a message to a peer.
        roots: where clients on other hosts may log.
        walls: is told what breaks.
    """

    def __init__(
        self,
        settings: Settings,
        wake: Callable[[], None],
        send: Send,
        roots: Roots | None = None,
        walls: Walls | None = None,
    ) -> None:
        self.clients: dict[bytes, Client] = {}
        self.written_records = 0  # since the start
        self.received_records = self.received_bytes = 0  # since the start
        self.meters = Meters()
        self.asks_system = False  # a run wants the node to be sampled
        self.walls = walls or Walls()
        self._settings = settings
        self._wake = wake
        self._send = send
        self._roots = roots or Roots("")
        self._quotas = Quotas(settings)
        self.scheduler = RunScheduler(settings, self._make_run, self._on_round, self.walls)
        self.runs = self.scheduler.runs
        self._registry = self.scheduler.registry
        self._coming = Coming()
        # In a spool that is there: it makes what is missing of its folder, and a /var/tmp that is missing is not ours.
        places = spools(settings.spool)
        spool = next(filter(may_be_used, places), settings.spool)
        self._checkpoints = Checkpoints(spool / LEDGERS)
        self._written: queue.SimpleQueue[Batch | Held | RunState | Seen] = queue.SimpleQueue()
        self.wanting: dict[bytes, Wanting] = {}  # by session
        self.newcomers: dict[bytes, Client] = {}  # by session
        self.gated = False  # somebody admits them
        self.ended = Ended(spool / LEDGERS)
        self.refusals = Refusals(self._coming, send, self.walls)
        self.drops = ToldDrops(self.scheduler, self._run)
        self.folder_looks = FolderLooks(self.scheduler.strand, self._on_seen, self.walls)
        self._rows = SessionRows(self.clients, self.walls)
        self.acks = Acknowledgements(self.clients, self._registry, self._quotas, send, self.walls)
        self.presence = Presence(self.clients, places, self.ended, self.scheduler.housekeeping, send)
        self._sessions = Reads(self.presence.read, self._coming, self.clients, places)
        self.scheduler.housekeeping.submit(self._checkpoints.sweep)

    def configure(self, settings: Settings) -> None:
        """Take over what is changed in the settings while it runs."""
        self._settings = settings
        self._quotas.configure(settings)
        self.scheduler.configure(settings)

    # --- messages --------------------------------------------------------------------------------------------

    def handle(self, peer: Peer, message: wire.Message) -> None:
        """Take a message of a client. What is wrong with it, or goes wrong with it here, ends its session alone."""
        try:
            self._handle(peer, message, time.monotonic())
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            session = getattr(message, "session", bytes(12))
            why = self.walls.broke(f"message {type(message).__name__.lower()}", error, f"session {session.hex()}")
            client = self.clients.get(session)
            if client is not None and client.peer == peer:
                self.refusals.disconnect_for_now(client, why)
            else:
                self.refusals.refuse(peer, session, why)

    def _handle(self, peer: Peer, message: wire.Message, now: float) -> None:
        if isinstance(message, wire.Hello):
            self._hello(peer, message, now)
            return
        if not isinstance(message, wire.Data | wire.Stored | wire.Flush | wire.Report | wire.Goodbye):
            self.refusals.count += 1
            return
        client = self.clients.get(message.session)
        if client is None or client.peer != peer:
            self._send(peer, wire.Unknown(message.session))
            return
        client.heard, client.gone = now, False
        if client.broken:
            if self.forgiven(client, now):
                self._send(peer, wire.Unknown(message.session))  # it begins anew
            return
        try:
            match message:
                case wire.Data():
                    self._data(client, message)
                case wire.Stored():
                    self._stored(client, message)
                case wire.Flush():
                    self._flush(client, message)
                case wire.Report():
                    self._report(client, message)
                case wire.Goodbye():
                    self.forget(client)
                    self.presence.leave(client)
        except RemoteProtocolError as error:
            self.refusals.disconnect_for(client, error)

    def forgiven(self, client: Client, now: float) -> bool:
        """Whether a session that was disconnected for a quota or a fault of ours is forgotten, and may try again.

        Nothing of it is under way then, so that what comes again is compared with all that is written.
        """
        if not client.again or now - client.again < TRY_SECONDS or client.under_way:
            return False
        self.forget(client)
        return True

    def _hello(self, peer: Peer, hello: wire.Hello, now: float) -> None:
        client = self.clients.get(hello.session)
        if client is not None and client.peer is not None and client.peer.owner == peer.owner:
            client = None if self.forgiven(client, now) else client
        if client is None:
            if len(self.clients) >= SESSIONS_MAX:
                self.refusals.refuse(peer, hello.session, f"{SESSIONS_MAX:,} sessions are open already")
                return
            if hello.session in self.ended or hello.session == OVER:  # what a connection before the last has left
                self.refusals.refuse(peer, hello.session, "the session is over")
                return
            if hello.start > POSITION_MAX:
                self.refusals.refuse(
                    peer, hello.session, f"records from position {hello.start:,}; at most {POSITION_MAX:,}"
                )
                return
            try:
                if peer.key:
                    self._quotas.enter(peer.key, now)
            except RemoteProtocolError as error:
                self.refusals.refuse(peer, hello.session, str(error))
                return
            session = Session(hello.session, hello.start, self._roots.place if peer.key else None)
            journal = "" if peer.key else hello.journal  # a path of another host says nothing here
            client = self.clients[hello.session] = Client(
                session, peer, hello.pid, hello.host, journal, hello.program, now, key=peer.key, newcomer=self.gated
            )
            if self.gated:
                self.newcomers[hello.session] = client
            self._coming.come(hello.session, session.runs, now)
            log.info("session %s of pid %d (%s)", hello.session.hex(), hello.pid, hello.program)
        elif client.broken:
            self.refusals.refuse(peer, hello.session, client.broken)
            return
        elif client.peer is not None and client.peer.owner != peer.owner:
            self.refusals.refuse(peer, hello.session, "the session belongs to another process")
            return
        client.peer = peer
        client.heard, client.gone = now, False
        client.boot, client.ahead = hello.boot, process_identity.clock() - hello.clock
        session = client.session
        client.readable = None if client.unreadable or peer.key else readable_journal(hello.journal, hello.session)
        self.acks.welcome(client)
        if session.written > hello.start:  # acknowledgements that got lost
            self.acks.send(client, moved=True)

    def _report(self, client: Client, report: wire.Report) -> None:
        for number, dropped in client.reported.take(report.runs).items():
            self.drops.tell(client, number, dropped)

    def see_folders(self, client: Client, known: int) -> None:
        """Take note of the folders of runs that a client has defined, and compare them with those under the same paths
        here, where the client sees other files.

        Until that is done nothing of the client is written.

        Args:
            known: so many of its runs were compared before.
        """
        self._registry.hold(client.holds, (run.directory for run in client.session.runs[known:] if run is not None))
        if client.local and not client.key:
            self.folder_looks.look(client, known)

    def _decide(self, seen: Seen) -> None:
        client = seen.client
        if self.clients.get(client.session.id) is not client:
            return
        client.undecided -= 1
        if not seen.same and not client.elsewhere:
            client.elsewhere = (
                f"{wire.ELSEWHERE}: {seen.directory} is not the folder that pid {client.pid} logs to, which is in "
                "another mount namespace or under another root"
            )
            if client.peer is not None:
                log.info("session %s goes to another daemon: %s", client.session.id.hex(), client.elsewhere)
                self._send(client.peer, wire.Refused(client.session.id, client.elsewhere[:1000]))
                self.forget(client)
            return
        self._release(client)

    def _data(self, client: Client, data: wire.Data) -> None:
        session = client.session
        if data.stream == wire.DEFINITIONS:
            known = len(session.runs)
            accepted = session.feed_definitions(data.position, data.payload)
            self.asks_system = self.asks_system or session.asks_system
            if session.definitions_expected > DEFINITIONS_BYTES_MAX:
                raise RemoteProtocolError(f"definitions of more than {DEFINITIONS_BYTES_MAX:,} bytes")
            self.see_folders(client, known)
            for run in session.runs[known:]:
                if run is not None:  # a report may have been there first
                    self.drops.tell(client, run.id, client.reported.dropped(run.id))
            if client.key:
                self.presence.place_in_time(client, known)
                fresh, client.tags = session.places - client.tags, session.places
                folders = (run.directory for run in session.runs[known:] if run is not None)
                self._quotas.define(client.key, folders, fresh)
        else:
            self.acks.check(client, data.position + len(data.payload))
            accepted = self.feed(client, data.position, data.payload)
        if not accepted:
            self.acks.welcome(client)

    def _stored(self, client: Client, stored: wire.Stored) -> None:
        """Read records where they are. A client whose journal turns out not to be readable is told to send them."""
        session, end = client.session, stored.position + stored.length
        if client.readable is None or stored.position > session.expected:
            self.acks.welcome(client)
            return
        self.acks.check(client, end)  # a message of 60 bytes must not make this process read a gigabyte
        if end <= session.expected:
            return
        try:
            with StoredSegment(client.readable, session.id, stored.segment) as segment:
                while session.expected < end:
                    room = session.room(end - session.expected, segment.offset(session.expected))
                    segment.read_into(room, session.expected)
                    self._offer(client, session.take(len(room)))
        except Unreadable as error:
            log.warning("session %s has to send its records: %s", session.id.hex(), error)
            client.readable, client.unreadable = None, str(error)
            self.acks.welcome(client)

    def feed(self, client: Client, position: int, payload: bytes) -> bool:
        """Take a stretch of a client's records. False: there is a gap before it.

        Raises:
            RemoteProtocolError: it is broken.
        """
        before = client.session.expected
        batches = client.session.feed_records(position, payload)
        if batches is None:
            return False
        if client.key:
            self._quotas.spend(client.key, client.session.expected - before)
        self._offer(client, batches)
        return True

    def adopt(self, client: Client) -> None:
        """What the process of a session has left is read here."""
        self.clients[client.session.id] = client
        self._coming.come(client.session.id, client.session.runs, time.monotonic())

    def admit(self, client: Client) -> None:
        """All that processes before a client have left in journals has come: what it has logged follows."""
        self.newcomers.pop(client.session.id, None)
        client.newcomer = False
        self._release(client)

    def _release(self, client: Client) -> None:
        if client.undecided or client.elsewhere or client.newcomer:
            return
        held, client.held = client.held, []
        try:
            self._offer(client, held)
            for number, dropped in client.reported.drops():
                self.drops.tell(client, number, dropped)
            if client.complete:
                self.complete(client)
        except RemoteProtocolError as error:
            self.refusals.disconnect_for(client, error)
            return
        if held and client.flush_to > client.session.written:
            self.flush(client)

    def _offer(self, client: Client, batches: list[Batch]) -> None:
        now = client.moved = time.monotonic()
        if not client.has_more:
            client.read = now
        if client.undecided or client.elsewhere or client.newcomer:
            client.held += batches
            batches = []
        elif batches:
            self._coming.gone(client.session.id)
        at_once = self.acks.is_hurried(client)
        for batch in batches:
            client.received[batch.run.id] = client.received.get(batch.run.id, 0) + batch.records
            self.received_records += batch.records
            self.received_bytes += batch.size
            state = self._run(batch.run.directory)
            state.used = batch.arrived = now
            queued = state.writer.offer(batch)
            client.under_way += 1
            if at_once or queued >= BATCH_BYTES:
                self.scheduler.write(state)
            else:
                self.scheduler.soon(state)
        self._see_end(client)
        self.acks.send(client)  # a stretch without records for a run, or a limit that has to grow

    def _run(self, directory: str) -> RunState:
        state = self.scheduler.run(directory)
        if state is None:
            raise OverQuota(
                f"{RUNS_MAX:,} runs are logged to already; it waits until some of their scripts have ended, and "
                "tries again"
            )
        return state

    # --- writing ---------------------------------------------------------------------------------------------

    def _make_run(self, directory: str) -> RunSink:
        settings = self._settings
        return RunWriter(
            Path(directory),
            self._on_written,
            settings.durable,
            settings.ranks_seconds,
            self.meters,
            self._checkpoints,
            lambda batch: self._written.put(Held(batch)),
            self.ended,
            self._sessions,
            self.presence.alive,
        )

    def _on_round(self, state: RunState) -> None:  # on a thread of the pool
        self._written.put(state)
        self._wake()

    def _on_seen(self, seen: Seen) -> None:  # on a thread of the pool
        self._written.put(seen)
        self._wake()

    def _on_written(self, batch: Batch) -> None:  # on a thread of the pool
        self._written.put(batch)  # first, whatever comes of the rest: nobody else would say that it is written
        self.meters.lag.observe(time.monotonic() - batch.arrived)

    def collect(self) -> None:
        """Take note of what the pool has written, and acknowledge it."""
        moved: dict[bytes, Client] = {}
        while True:
            try:
                item = self._written.get_nowait()
            except queue.Empty:
                break
            with self.walls.around("what was written"):
                if isinstance(item, Seen):
                    self._decide(item)
                elif isinstance(item, RunState):
                    if self.scheduler.come_back(item):
                        moved.update(self.acks.flushing(item))
                elif isinstance(item, Held):
                    self._hold(item.batch, moved)
                else:
                    self._settle(item, moved)
        for client in moved.values():
            with self.walls.around("acknowledgements", f"session {client.session.id.hex()}"):
                self.acks.send(client, moved=True)
        if moved:
            self.acks.grant()

    def _hold(self, batch: Batch, moved: dict[bytes, Client]) -> None:
        """A batch waits for other ranks, and for nothing else."""
        client = self.clients.get(batch.session)
        if client is not None and client.session.hold(batch):
            if client.flush_to > client.session.written:
                moved[batch.session] = client
            elif self.acks.has_gained(client):
                self.acks.send(client)  # what waits takes nothing of what it may send

    def _settle(self, batch: Batch, moved: dict[bytes, Client]) -> None:
        """A batch is in the event files."""
        self.written_records += batch.records
        client = self.clients.get(batch.session)
        if client is not None:
            client.under_way = max(0, client.under_way - 1)
            client.news[batch.run.id] = self.runs[batch.run.directory]
            if client.session.done(batch):
                moved[batch.session] = client

    def _flush(self, client: Client, flush: wire.Flush) -> None:
        client.flush_to = max(client.flush_to, flush.position)
        client.ends = client.ends or bool(flush.last)
        self._see_end(client)
        if flush.leftovers > client.leftovers:
            client.leftovers = flush.leftovers
            rounds = [(state, state.rounds) for state in self._registry.warm_of(client.holds) if state.has_to_do]
            self.wanting[client.session.id] = Wanting(client, rounds)
        self.flush(client)

    def _see_end(self, client: Client) -> None:
        """Records before its end may still have to come: what was lost or could not be read is sent anew."""
        if client.ends and not client.complete and client.session.expected >= client.flush_to:
            self.complete(client)

    def flush(self, client: Client) -> None:
        """Write now what is queued for the runs of a session, and say how far it is.

        Where something is being written, that is said when it is: a client that is told twice wakes its trainer twice.
        """
        for state in self._registry.warm_of(client.holds):
            if state.has_to_do:
                self.scheduler.write(state)
        if not client.under_way or self.acks.trouble(client):
            self.acks.send(client, moved=True)

    def satisfy(self, wanting: Wanting) -> None:
        """Tell a client that what it wanted besides its own is written."""
        client = wanting.client
        self.wanting.pop(client.session.id, None)
        client.leftovers_written = client.leftovers
        self.acks.send(client, moved=True)

    def tick(self, now: float) -> float:
        """Write the runs that are due, and let clients go on; returns when there is something to do next."""
        soonest = self.scheduler.tick(now)
        return min(soonest, self.acks.tick(now))

    def drain(self, deadline: float) -> bool:
        """Write everything that is queued; for the end. False when the deadline came first."""
        while True:
            self.collect()
            if not self.scheduler.busy:
                return True
            if time.monotonic() > deadline or not self.scheduler.hurry():
                return False
            with contextlib.suppress(queue.Empty):
                self._written.put(self._written.get(timeout=0.05))

    def close(self, seconds: float) -> bool:
        """Sync and close all files. False when a disk took longer than ``seconds``."""
        with self.walls.around("the look for sessions that are over"):
            self.presence.note_over()
        return self.scheduler.close(seconds)

    # --- ends ------------------------------------------------------------------------------------------------

    def forget(self, client: Client) -> None:
        """A session is over."""
        self.clients.pop(client.session.id, None)
        self.newcomers.pop(client.session.id, None)
        self.presence.note_end(client)
        self.wanting.pop(client.session.id, None)
        if client.key:
            self._quotas.leave(client.key, client.tags)
        self.complete(client)
        self._registry.release(client.holds, time.monotonic())
        self.acks.forget(client)
        self._coming.gone(client.session.id)
        log.info("session %s of pid %d is over", client.session.id.hex(), client.pid)

    def complete(self, client: Client) -> None:
        """Nothing more comes of a session than what has come: ranks are not waited for in vain."""
        client.complete = True
        holds = (client.undecided or client.newcomer) and self.clients.get(client.session.id) is client
        if client.left or holds:  # what it holds comes before its end: see `_release`
            return
        client.left = True
        for run in client.session.runs:
            state = self.runs.get(run.directory) if run is not None and run.reduce else None
            if run is not None and state is not None:
                state.writer.leave(client.session.id, run)
                self.scheduler.soon(state)

    def reap(self, now: float) -> None:
        """Forget clients that have gone without a word and left nothing behind."""
        self.presence.note_over()
        for client in list(self.clients.values()):
            with self.walls.around("the look for sessions that are gone", f"session {client.session.id.hex()}"):
                if self.presence.is_gone(client, now):
                    self.forget(client)

    @property
    def busy(self) -> bool:
        """Whether there is a session or something to write."""
        return bool(self.clients or self.scheduler.busy)

    # --- status ----------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What was accepted, written, dropped and is pending, by run and by session."""
        accounts = self._registry.accounts()
        sessions, pending = self._rows.tell(accounts)
        total = self._registry.total(accounts.values(), sum(pending.values()))
        return {
            "runs": {
                directory: account.told if directory not in pending else account.with_pending(pending[directory])
                for directory, account in accounts.items()
            },
            "runs_forgotten": self._registry.forgotten,
            "sessions": sessions,
            "totals": total.counts(),
            "keys": self._quotas.status(time.monotonic()),
            "refused_messages": self.refusals.count,
            "homeless_drops": self.drops.homeless,
            "internal_errors": self.walls.status(),
        }

    def metrics(self) -> dict[str, Any]:
        """What else is to be known of how it is: the part of the status for which metrics are there."""
        return {
            "received_records": self.received_records,
            "received_bytes": self.received_bytes,
            "settled_records": self.written_records,
            "written_bytes": int(self.meters.batch_bytes.sum),
            "sessions": len(self.clients),
            "sessions_broken": sum(bool(client.broken) for client in self.clients.values()),
            **self.scheduler.metrics(),
            "internal_errors": self.walls.count,
            "histograms": self.meters.status(),
        }

    def runs_of(self, key: str) -> set[str]:
        """The folders of the runs that a client on another host logs into, or has."""
        return self._quotas.folders(key)
