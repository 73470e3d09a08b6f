"""Find the daemon of this user and host, or start one.

A file lock decides everything: the daemon holds ``daemon.lock`` while it lives, so a client can tell without
connecting whether there is one; ``launch.lock`` is held by the client that starts one until it answers, so that
64 processes that begin at once start one daemon and not 64.

Where a service is installed (`paths.awaited_service`) its daemon is waited for and no other is started: one that took
its place would run without its limits, keep it from starting, and write while an administrator has stopped it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..config.paths import (
    ADDRESS_VARIABLE,
    KEY_VARIABLE,
    RUNTIME_VARIABLE,
    SPOOL_VARIABLE,
    awaited_service,
    lock_path,
    private_dir,
)
from ..config.runtime_folders import NO_LOCKS, lock_error
from ..config.settings import PYTHON, warn
from ..journal.journal_files import CONTROL_NAME, journals
from ..process import descriptors
from ..process.descriptors import Descriptor
from ..process.native import monotonic

if TYPE_CHECKING:
    from ..process.helper import Helper

LOOK_SECONDS = 0.1  # between looks while another process starts the daemon
RETRY_SECONDS_MIN, RETRY_SECONDS_MAX = 5.0, 60.0  # between attempts of this process
AT_ONCE_MAX = 5  # attempts without a pause, for daemons that were killed before they answered
START_SECONDS_MAX = 15.0  # a daemon that has not answered by then is given up
LOG_BYTES_MAX = 1 << 20
FORWARD_SECONDS = 20.0  # between looks for what trainers of this host have left for a daemon on another one
SERVICE_SECONDS = 10.0  # a service that is started anew is back by then; after that the user is told


def load() -> None:
    """Import what starts a process, which most scripts never do; not on the sender's thread."""
    from ..process import helper  # noqa: F401
    from . import executable  # noqa: F401


def is_locked(path: Path) -> bool:
    """Return True if a living process holds the lock file ``path``; False on a file system without locks."""
    try:
        file = descriptors.open_file(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a FIFO would hold it up
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in NO_LOCKS
    finally:
        file.close()
    return False


class Launcher:
    """Starts the daemon when there is none. Called from the sender's thread; never blocks."""

    def __init__(self, runtime: Path, spool: Path) -> None:
        self._runtime = runtime
        self._spool = spool
        self._next_look = 0.0
        self._retry_seconds = RETRY_SECONDS_MIN
        self._lock: Descriptor | None = None  # of launch.lock, while a daemon is started here
        self._daemon: Helper | None = None
        self._deadline = 0.0
        self._lost = 0  # daemons in a row that were killed before they had answered
        self._missed = 0.0  # since when a service has not been there

    def is_there(self) -> bool:
        """Return True if a daemon runs, answering or about to."""
        return is_locked(lock_path(self._runtime))

    def ensure(self) -> None:
        """Start a daemon if none runs and nobody else is starting one. To be called until one answers."""
        now = monotonic()
        if self._lock is not None:
            self._look_after(now)
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        try:
            if self._lock is None and not is_locked(lock_path(self._runtime)):
                unit = awaited_service(self._runtime)
                if unit:
                    self._await(unit, now)
                else:
                    self._launch(now)
        except OSError as error:
            if error.errno == errno.EBADF:  # the program has closed all descriptors meanwhile
                self._next_look = now + LOOK_SECONDS
                return
            self._next_look = now + RETRY_SECONDS_MAX
            warn(f"cannot start the daemon: {error}; records are kept in {self._spool}", once="launch")

    def _look_after(self, now: float) -> None:
        """Check on the daemon that this process has started."""
        from ..process.helper import IMPOSTOR

        gone = self._daemon is None or self._daemon.gone()
        code = self._daemon.code if self._daemon is not None else None
        if code == IMPOSTOR:
            self._next_look = math.inf
            warn(
                f"the program that was started as the daemon is not tbxd, perhaps another run of this program; it is "
                f"not tried again. Records are kept in {self._spool} until there is a daemon: run `tbxd serve`, or let "
                f"{PYTHON.variable} name a Python that has tbxd",
                once="python",
            )
            self.done()
        elif code:
            warn(
                f"the daemon did not start (exit code {code}); records are kept in "
                f"{self._spool}. See {self._runtime / 'daemon.log'}",
                once="launch",
            )
            self.done()
        elif now > self._deadline:
            self.done()
        elif gone:  # killed
            self.done()
            self._lost += 1
            if self._lost <= AT_ONCE_MAX:
                self._next_look = now
                self._retry_seconds = RETRY_SECONDS_MIN

    def _await(self, unit: str, now: float) -> None:
        self._missed = self._missed or now
        if now - self._missed > SERVICE_SECONDS:
            warn(
                f"the service of {unit} does not run; records are kept in {self._spool} until it does. Start it with "
                "systemctl, or remove it (`tbxd service remove`) to have daemons started by themselves",
                once="service",
            )

    def _launch(self, now: float) -> None:
        from ..process.helper import STARTED_VARIABLE, Helper, is_started, say_impostor
        from .executable import environment, find_python

        python, why = find_python()
        if is_started():
            say_impostor()
            why = f"this process was itself started to be the daemon ({STARTED_VARIABLE} is set), and is none"
        if why:
            self._next_look = now + RETRY_SECONDS_MAX
            warn(
                f"no daemon is started: {why}. Records are kept in {self._spool} until there is one: run `tbxd serve`, "
                f"or let {PYTHON.variable} name a Python that has tbxd",
                once="python",
            )
            return
        private_dir(self._runtime)
        lock = descriptors.open_file(self._runtime / "launch.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return
        except OSError as error:
            lock.close()
            raise lock_error(self._runtime / "launch.lock", error) from error
        if is_locked(lock_path(self._runtime)):  # started since we looked
            lock.close()
            return
        self._lock = lock
        self._deadline = now + START_SECONDS_MAX
        self._next_look = now + self._retry_seconds
        self._retry_seconds = min(2 * self._retry_seconds, RETRY_SECONDS_MAX)
        log_path = self._runtime / "daemon.log"
        with contextlib.suppress(OSError):
            if log_path.stat().st_size > LOG_BYTES_MAX:
                log_path.replace(self._runtime / "daemon.log.1")
        log = descriptors.open_file(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW)
        try:
            self._daemon = Helper(
                [python, "-m", "tbxd", "serve", "--embedded"],
                environment({RUNTIME_VARIABLE: str(self._runtime), SPOOL_VARIABLE: str(self._spool)}),
                log,
            )
        except OSError:
            self.done()
            raise
        finally:
            log.close()

    def done(self) -> None:
        """Free the lock, so that others try: a daemon answers, or the attempt is given up."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if self._daemon is not None:
            self._daemon.close()
            self._daemon = None

    def answered(self) -> None:
        """Note that a daemon answers: the next attempt, if one is ever needed, is made at once."""
        self.done()
        self._retry_seconds = RETRY_SECONDS_MIN
        self._next_look = 0.0
        self._lost = 0
        self._missed = 0.0


class Forwarder:
    """Has the journals sent that trainers of this host have left for a daemon on another one, which cannot see them.

    A process of its own does it (``tbxd drain``), so that it costs a trainer nothing but a look at their locks.

    Args:
        spool: the whole spool of this host.
        folder: where the journals for that daemon are (`paths.remote_spool`).
        address: the daemon's.
    """

    def __init__(self, spool: Path, folder: Path, address: str) -> None:
        self._folder = folder
        self._environ = {ADDRESS_VARIABLE: address, SPOOL_VARIABLE: str(spool)}
        if key := os.environ.get(KEY_VARIABLE):
            self._environ[KEY_VARIABLE] = str(Path(key).absolute())
        self._next_look = 0.0
        self._drain: Helper | None = None

    def look(self, now: float) -> None:
        """Start the process when there is something to send. To be called while the daemon answers; never blocks."""
        if now < self._next_look:
            return
        self._next_look = now + FORWARD_SECONDS
        try:
            if self._drain is not None and not self._drain.gone():
                return
            if any(not is_locked(path / CONTROL_NAME) for path in journals(self._folder)):
                self._start()
        except OSError as error:
            warn(f"the records in {self._folder} are not sent: {error}; `tbxd drain` sends them", once="forward")

    def leave(self) -> None:
        """Have what this process itself leaves sent, if the daemon can be had within half a minute."""
        try:
            self._start()
        except OSError as error:
            warn(f"nothing sends the records in {self._folder}: {error}", once="forward")

    def _start(self) -> None:
        from ..process.helper import STARTED_VARIABLE, Helper, is_started
        from .executable import environment, find_python

        python, why = find_python()
        if why or is_started():
            raise OSError(why or f"{STARTED_VARIABLE} is set")
        if self._drain is not None:
            self._drain.close()
        self._drain = Helper([python, "-m", "tbxd", "drain", "--embedded"], environment(self._environ))
