"""The daemon's life: start, loop, stop. The only module that imports all parts."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import resource
import secrets
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import zmq

from tbxd_client.config.paths import (
    VIEW_PREFIX,
    addresses_path,
    lock_path,
    near,
    places,
    private_dir,
    service_path,
    spools,
    token_path,
)
from tbxd_client.config.runtime_folders import NOT_THERE, lock_error, runtime_trouble, why
from tbxd_client.process.doorbell import Doorbell
from tbxd_client.protocol import wire
from tbxd_client.transport.launcher import is_locked

from .. import __version__
from ..config.sources import Config
from ..ingest.hub import Hub
from ..ingest.journal_recovery import Adopter
from ..process import heap, logs
from ..process.incident_log import Troubles
from ..process.process_stats import vitals
from ..process.sd_notify import Notifier
from ..process.walls import PAUSE_SECONDS, Walls
from ..system.watch import System
from ..tfevents import modes
from ..transport import control_client
from ..transport.allowed_roots import Roots
from ..transport.keyring import KeyFolder
from ..transport.server_socket import Peer, Receiver
from ..transport.zap_auth import Gate
from . import reload

if TYPE_CHECKING:
    from ..metrics.http_endpoint import Endpoint  # http.server is imported where metrics are on

log = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0  # for what is queued when the daemon is told to stop
CLOSE_SECONDS = 1.0  # for the files, at least
VIEW_SECONDS = 86_400.0
TAKE_OVER_SECONDS = 20.0  # for a daemon that a writer has started, to leave to a service
TAKE_OVER_LOOK_SECONDS = 0.05
# Who looks whether a daemon is there (a trainer, `tbxd status`) holds the lock for some microseconds himself.
LOOKERS_SECONDS, LOOKERS_PAUSE_SECONDS = 0.5, 0.005
NOT_SHOWN = (
    "the token of this daemon is needed: it is tcp.token in its runtime folder (use the same TBXD_RUNTIME_DIR); with a "
    "key (TBXD_KEY) a daemon that listens with keys is spoken to"
)
MESSAGES_PER_TURN = 256  # taken from the socket before anything else is looked at


class AlreadyRunning(Exception):
    """Another daemon holds the lock of the runtime folder."""


class Daemon:
    """One daemon.

    Args:
        config: the settings, and their file.
        load: reads them again, for `tbxd reload` and SIGHUP.
        limiter: the limiter of the log.
        level: the log level without a setting.
        embedded: exit if nothing has been logged for ``idle_seconds``.
        service: the unit file of the service that this is. Writers then wait for it and start no other, and it replaces
            one that they have started already.
    """

    def __init__(
        self,
        config: Config,
        load: Callable[[], Config],
        limiter: logs.Limiter,
        level: str = "warning",
        embedded: bool = False,
        service: str = "",
    ) -> None:
        self._config = config
        self._load = load
        self._settings = config.settings
        self._limiter = limiter
        self._level = level
        self._embedded = embedded
        self._service = service
        # What a writer starts has the variables of the writer's service, which is another one.
        self._notifier = Notifier({} if embedded else os.environ)
        self._started = time.time()
        self._stopping = False
        self._forced = False
        self._idle_since = time.monotonic()
        self._walls = Walls()

    def run(self) -> None:
        """Serve until told to stop.

        Raises:
            AlreadyRunning: a daemon is running in this runtime folder.
            OSError, ValueError: the folders or the address cannot be used.
        """
        modes.take_over()
        _raise_limits()
        heap.keep()
        self._settle()
        self._heed_signals()
        if (folder := Path(self._settings.address.removeprefix("ipc://")).parent) in places():
            private_dir(folder)
        lock = self._take_lock()
        if lock < 0:
            return
        self._spools = spools(self._settings.spool)
        swept = [_keep_from_sweepers(folder) for folder in (self._settings.runtime_dir, *near(self._spools))]
        try:
            self._endpoint = self._metrics_endpoint()  # before anybody can take the daemon for ready
            roots = Roots(self._settings.roots or "")
            self._receiver = Receiver(self._settings.address)
            self._receivers = [self._receiver, *self._remote_receivers(roots)]
            self._token = "" if self._receiver.is_ipc else _make_token(token_path(self._settings.runtime_dir))
            self._hub = Hub(self._settings, self._doorbell.ring, self._send, roots, self._walls)
            self._runtime = self._settings.runtime_dir
            own_view = self._hub.folder_looks.view if self._runtime.name.startswith(VIEW_PREFIX) else ""
            self._adopter = Adopter(self._hub, self._spools, own_view)
            _remove_old_views(self._runtime)
            self._system = System(self._settings, self._hub, self._doorbell.ring)
            self._troubles = Troubles()
            addresses = "".join(f"{receiver.address}\n" for receiver in self._receivers)
            _write_private(addresses_path(self._settings.runtime_dir), addresses)  # for who looks for it elsewhere
            for receiver in self._receivers:
                log.info("tbxd %s listens at %s", __version__, receiver.address)
            try:
                self._loop()
            finally:
                self._stop()
        finally:
            for fd in (*swept, lock):
                if fd >= 0:
                    os.close(fd)

    def _settle(self) -> None:
        """Take the first usable runtime folder, and make one for journals, which only writers need.

        Raises:
            OSError: no runtime folder is usable.
        """
        self._settings = self._settings.settled()
        wanted, runtime = self._settings.runtime_wanted, self._settings.runtime_dir
        if wanted != runtime and (trouble := runtime_trouble(wanted, wanted.parent not in places())):
            log.warning("%s. Until then the daemon is in %s", trouble, runtime)
        wanted, reasons, quiet = self._settings.spool, [], self._settings.spool.parent in places()
        for spool in spools(wanted):
            try:
                private_dir(spool)
            except OSError as error:
                reasons.append(why(spool, error))
                quiet = quiet and error.errno in NOT_THERE
                continue
            if reasons and not quiet:
                log.warning("no journal can be made in %s. Scripts make theirs in %s", "; ".join(reasons), spool)
            return

    def _heed_signals(self) -> None:
        """Handle signals for stop and reload, before the lock shows that this is the daemon."""
        self._doorbell = Doorbell()
        self._reloader = reload.Reloader(self._config, self._load, self._doorbell.ring, self._notifier)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        signal.signal(signal.SIGHUP, self._on_hangup)  # also of a terminal that closes: it goes on

    def _remote_receivers(self, roots: Roots) -> list[Receiver]:
        """Make the sockets for trainers on other hosts, if configured.

        Raises:
            ValueError: there are no keys, or no roots.
        """
        listen = self._settings.listen
        if not listen:
            return []
        if self._embedded:
            log.info("started by a writer, so it ends when idle: it does not listen at %s", listen)
            return []
        try:
            gate = Gate(KeyFolder(self._settings.keys))
            if not roots.folders:
                raise ValueError(
                    "it would let trainers on other hosts write wherever you may write: say below which folders they "
                    "may log, --roots FOLDER (TBXD_ROOTS)"
                )
            return [Receiver(listen, gate, number=1)]  # its place in the list of receivers
        except (ValueError, OSError) as error:
            self._receiver.close()
            raise ValueError(f"cannot listen at {listen}: {error}") from error

    def _metrics_endpoint(self) -> Endpoint | None:
        """Make the endpoint for Prometheus, if configured.

        Raises:
            ValueError, OSError: the endpoint is not possible. A daemon that a writer has started continues without it.
        """
        if not self._settings.metrics:
            return None
        from ..metrics.http_endpoint import Endpoint

        try:
            endpoint = Endpoint(self._settings.metrics, self._doorbell.ring)
        except (ValueError, OSError) as error:
            if self._embedded:
                log.warning("it continues without metrics: %s", error)
                return None
            if isinstance(error, OSError):
                raise ValueError(f"metrics {self._settings.metrics!r}: {error.strerror or error}") from error
            raise
        log.info("metrics are at %s", endpoint.address)
        return endpoint

    def _send(self, peer: Peer, message: wire.Message) -> bool:
        return self._receivers[peer.receiver].send(peer, message)

    def _take_lock(self) -> int:
        """Take the lock of the runtime folder; a service takes it over from a daemon that a writer has started.

        Return -1 if told to stop meanwhile.
        """
        path = lock_path(self._settings.runtime_dir)
        if not self._service:
            return _take_lock(path)
        _write_private(service_path(self._settings.runtime_dir), self._service + "\n")
        deadline = time.monotonic() + TAKE_OVER_SECONDS
        while not self._stopping:
            try:
                return _take_lock(path)
            except AlreadyRunning:
                if time.monotonic() > deadline:
                    raise
                with contextlib.suppress(control_client.NotRunning):  # it is just coming, or going
                    found = control_client.ask(self._settings, "status", timeout=1.0)
                    if not found["embedded"]:
                        raise
                    log.info("the daemon that a writer has started (pid %d) makes way", found["pid"])
                    control_client.ask(self._settings, "stop", timeout=1.0)
            time.sleep(TAKE_OVER_LOOK_SECONDS)
        return -1

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._forced = self._stopping  # the second one does not wait for a slow disk
        self._stopping = True
        self._doorbell.ring()

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        self._reloader.ask()
        self._doorbell.ring()

    def _reload(self, now: float) -> None:
        """Apply changed settings, once a requested reload has read them."""
        done = self._reloader.step(self._settings)
        if done is None:
            return
        self._settings, answer, askers = done
        if answer["changed"]:
            self._hub.configure(self._settings)
            self._system.configure(self._settings, now)
            logs.set_level(self._settings.log_level or self._level)
        said = "; ".join(reload.lines(answer))
        if answer["problem"]:
            log.error("%s", said)
        else:
            level = logging.WARNING if answer["restart"] or answer["hidden"] else logging.INFO
            log.log(level, "%s read again: %s", answer["file"] or "settings", said)
        for peer in askers:
            self._send(peer, wire.Answer({**self.status(), "reload": answer}))

    def _loop(self) -> None:
        poller = zmq.Poller()
        for receiver in self._receivers:
            poller.register(receiver.socket, zmq.POLLIN)
            poller.register(receiver.monitor, zmq.POLLIN)
            if receiver.gate is not None:
                poller.register(receiver.gate.socket, zmq.POLLIN)
        poller.register(self._doorbell.read_fd, zmq.POLLIN)
        if self._adopter.fd >= 0:
            poller.register(self._adopter.fd, zmq.POLLIN)
        due = 0.0
        while not self._stopping:
            for source, _ in poller.poll(max(0, round((due - time.monotonic()) * 1000))):
                if source == self._doorbell.read_fd:
                    self._doorbell.clear()
            due = self._turn()
            if self._embedded and self._is_idle(time.monotonic()):
                log.info("nobody has logged for %g seconds", self._settings.idle_seconds)
                return

    def _turn(self) -> float:
        """Do everything that is due; return the time of the next turn. A failure in one part does not reach others."""
        broken = self._walls.count
        for receiver in self._receivers:
            with self._walls.around("connections", receiver.address):
                receiver.watch()
                if receiver.gate is not None:
                    receiver.gate.answer()
            with self._walls.around("messages", receiver.address):
                self._receive(receiver)
        with self._walls.around("what was written"):
            self._hub.collect()
        now = time.monotonic()
        with self._walls.around("reload"):
            self._reload(now)
        dues: list[float] = []
        with self._walls.around("adoption"):
            dues.append(self._adopter.step(now))
        with self._walls.around("the look at runs"):
            dues.append(self._hub.tick(now))
        with self._walls.around("the metrics of the node"):
            dues.append(self._system.step(now))
        with self._walls.around("the service manager"):
            dues.append(self._notifier.turned(now, self._hub.scheduler.gets_on, self._headline))
        with self._walls.around("the look for troubles"):
            self._troubles.look(now, self._hub.scheduler.gets_on, self._hub.scheduler.looks())
        if self._endpoint is not None:
            with self._walls.around("the metrics endpoint"):
                self._endpoint.answer(self.status)
        with self._walls.around("the log"):
            self._limiter.tell(now)
        if self._walls.count != broken:
            dues.append(now + PAUSE_SECONDS)
        return min(dues)

    def _receive(self, receiver: Receiver) -> None:
        for _ in range(MESSAGES_PER_TURN):
            received = receiver.receive()
            if received is None:
                return
            peer, message = received
            # Who has a key needs no token.
            if isinstance(message, wire.Hello | wire.Ask) and not (
                peer.key or secrets.compare_digest(message.token.encode(), self._token.encode())
            ):
                self._hub.refusals.refuse(peer, getattr(message, "session", bytes(12)), NOT_SHOWN)
            elif isinstance(message, wire.Ask):
                self._answer(peer, message.what)
            else:
                self._hub.handle(peer, message)
        self._doorbell.ring()  # there may be more: the socket tells only once

    def _answer(self, peer: Peer, what: str) -> None:
        """Answer a question, or refuse it with a reason."""
        try:
            self._say(peer, what)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._hub.refusals.refuse(peer, bytes(12), self._walls.broke("a question", error, repr(what[:20])))

    def _say(self, peer: Peer, what: str) -> None:
        if peer.key:
            if what == "status":
                self._send(peer, wire.Answer(self._status_for(peer.key)))
            else:
                self._hub.refusals.refuse(
                    peer, bytes(12), f"{what[:20]!r} is only answered for the daemon's owner, on its own host"
                )
            return
        if what == "reload":
            self._reloader.ask(peer)  # and answered when it is done
            return
        if what == "stop":
            self._stopping = True
        self._send(peer, wire.Answer(self.status()))

    def _is_idle(self, now: float) -> bool:
        if self._hub.busy or self._adopter.busy:
            self._idle_since = now
        return now - self._idle_since >= self._settings.idle_seconds

    def _headline(self) -> str:
        """Return the state in a line, for `systemctl status`."""
        hub = self._hub
        errors = hub.scheduler.held_up()
        held_up = f", {len(errors)} held up ({errors[0]})" if errors else ""
        hangs = "" if hub.scheduler.gets_on else "; every thread hangs on a disk"
        counts = f"{_some(len(hub.clients), 'session')}, {_some(len(hub.runs), 'run')}"
        return f"{counts}{held_up}, {_some(hub.written_records, 'record')} written{hangs}"

    def status(self) -> dict[str, Any]:
        """Return the output of `tbxd status --json`."""
        return {
            "version": __version__,
            "protocol": wire.VERSION,
            "protocol_oldest": wire.OLDEST,
            "pid": os.getpid(),
            "address": self._receiver.address,
            "spool": str(self._settings.spool),
            "embedded": self._embedded,
            "config": str(self._reloader.file or ""),
            "settings": self._settings.values(),
            "sync": self._settings.sync,
            "service": self._service,
            "started": self._started,
            "stopping": self._stopping,
            **self._hub.status(),
            "system": self._system.status(),
            "refused_messages": self._hub.refusals.count + sum(receiver.refused for receiver in self._receivers),
            "connections_turned_away": sum(receiver.turned_away for receiver in self._receivers),
            "listen": [
                {"address": one.address, "clients": len(one.gate.allowed), "denied": one.gate.denied}
                for one in self._receivers
                if one.gate is not None
            ],
            "quarantined_journals": self._adopter.quarantined,
            "lost_bytes_at_crash": self._adopter.lost_bytes,
            "elsewhere_journals": {str(path): why for path, (why, _) in self._adopter.elsewhere.items()},
            "view": self._hub.folder_looks.view,
            "views": [str(folder) for folder in _views(self._runtime) if is_locked(lock_path(folder))],
            "metrics": {
                "endpoint": self._endpoint.address if self._endpoint is not None else "",
                **self._hub.metrics(),
                "journals_adopting": self._adopter.draining,
                **vitals(),
            },
        }

    def _status_for(self, key: str) -> dict[str, Any]:
        """Return the status for a client on another host: only its own runs and sessions."""
        status = self.status()
        runs = self._hub.runs_of(key)
        kept = ("version", "protocol", "started", "stopping", "sync", "embedded", "service", "pid")
        return {
            **{name: status[name] for name in kept},
            "key": key,
            "runs": {directory: counts for directory, counts in status["runs"].items() if directory in runs},
            "sessions": [session for session in status["sessions"] if session["key"] == key],
            "keys": {name: share for name, share in status["keys"].items() if name == key},
        }

    def _stop(self) -> None:
        """Write queued records, acknowledge them, close. Records that remain stay in the journals."""
        around = self._walls.around
        with around("the end"):
            self._notifier.stopping("writing what is queued")
        if self._endpoint is not None:
            with around("the end of the metrics endpoint"):
                self._endpoint.close()
        deadline = time.monotonic() + (0 if self._forced else DRAIN_SECONDS)
        with around("the last writes"):
            if not self._hub.drain(deadline):
                log.warning("not everything could be written; it stays in the journals")
        with around("the end of the metrics of the node"):
            self._system.close()
        with around("the end of the runs"):
            if not self._hub.close(max(CLOSE_SECONDS, deadline - time.monotonic())):
                log.warning("a disk does not answer; its files are left as they are")
        with around("the end of adoption"):
            self._adopter.close()
        for receiver in self._receivers:
            with around("the end of connections", receiver.address):
                receiver.close()
        self._doorbell.close()
        with around("the log"):
            self._limiter.tell()
        log.info("stopped")


def _some(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _take_lock(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + LOOKERS_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(LOOKERS_PAUSE_SECONDS)
                continue
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
            os.close(fd)
            raise AlreadyRunning(
                f"a daemon is running already (pid {holder or 'unknown'}, {path}); "
                "`tbxd status` shows it, `tbxd stop` ends it"
            ) from None
        except OSError as error:
            os.close(fd)
            raise lock_error(path, error) from error
    with contextlib.suppress(OSError):  # a full disk: who holds it cannot be read then
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _views(runtime: Path) -> list[Path]:
    """Return the runtime folders of daemons that see other files than this one, made by trainers."""
    return sorted(runtime.glob(VIEW_PREFIX + "*"))


def _remove_old_views(runtime: Path) -> None:
    """Remove those unused for long: each container leaves one behind."""
    for folder in _views(runtime):
        with contextlib.suppress(OSError):
            old = time.time() - folder.stat().st_mtime > VIEW_SECONDS
            if old and not is_locked(lock_path(folder)) and not is_locked(folder / "launch.lock"):
                shutil.rmtree(folder)


def _raise_limits() -> None:
    """Raise the limits of file descriptors and file sizes as far as this process may.

    Each client takes a descriptor, and each open run two. A daemon that a trainer has started inherits its limits: a
    limit for the checkpoints of one script (`ulimit -f`) is not meant for the event files of all.
    """
    for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE):
        soft, hard = resource.getrlimit(limit)
        if soft != hard:
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(limit, (hard, hard))
    with contextlib.suppress(OSError, ValueError):  # with CAP_SYS_RESOURCE
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _make_token(path: Path) -> str:
    """Write a secret that only this user can read: over tcp the kernel does not identify the caller."""
    token = secrets.token_urlsafe(24)
    _write_private(path, token)
    return token


def _write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read, replacing an existing one."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, os.fsencode(text))
    finally:
        os.close(fd)


def _keep_from_sweepers(folder: Path) -> int:
    """Lock a folder so that systemd-tmpfiles deletes nothing below it; return the descriptor, -1 for none.

    It deletes files in /var/tmp that have not been used for 30 days: the lock and the socket of a daemon, the
    definitions of a journal. A shared BSD lock on a folder prevents that (tmpfiles.d(5), "Age").
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # it is not there, or none of ours
        return -1
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return fd
