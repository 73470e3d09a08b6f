"""Find the daemon of this user and host, or start one.

A file lock decides everything: the daemon holds ``daemon.lock`` while it lives, so a client can tell without
connecting whether there is one; ``launch.lock`` is held by the client that starts one until it answers, so that
64 processes that begin at once start one daemon and not 64.

Where a service is installed (`paths.awaited_service`) its daemon is waited for and no other is started: one that took
its place would run without its limits, keep it from starting, and write while an administrator has stopped it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .journal_files import CONTROL_NAME, journals
from .paths import (
    ADDRESS_VARIABLE,
    KEY_VARIABLE,
    RUNTIME_VARIABLE,
    SPOOL_VARIABLE,
    awaited_service,
    lock_path,
    private_dir,
)
from .settings import warn

if TYPE_CHECKING:
    import subprocess

LOOK_SECONDS = 0.1  # between looks while another process starts the daemon
RETRY_SECONDS_MIN, RETRY_SECONDS_MAX = 5.0, 60.0  # between attempts of this process
AT_ONCE_MAX = 5  # attempts without a pause, for daemons that were killed before they answered
START_SECONDS_MAX = 15.0  # a daemon that has not answered by then is given up
LOG_BYTES_MAX = 1 << 20
FORWARD_SECONDS = 20.0  # between looks for what trainers of this host have left for a daemon on another one
SERVICE_SECONDS = 10.0  # a service that is started anew is back by then; after that the user is told


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock file ``path``."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


class Launcher:
    """Starts the daemon when there is none. Called from the sender's thread; never blocks."""

    def __init__(self, runtime: Path, spool: Path) -> None:
        self._runtime = runtime
        self._spool = spool
        self._next_look = 0.0
        self._retry_seconds = RETRY_SECONDS_MIN
        self._launch_fd = -1
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline = 0.0
        self._lost = 0  # daemons in a row that were killed before they had answered
        self._alive_fd = -1  # of a pipe that ends with the daemon, which holds the other end
        self._missed = 0.0  # since when a service has not been there

    def ensure(self) -> None:
        """Start a daemon if none runs and nobody else is starting one. To be called until one answers."""
        now = time.monotonic()
        if self._launch_fd >= 0:
            self._look_after(now)
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        try:
            if self._launch_fd < 0 and not is_locked(lock_path(self._runtime)):
                unit = awaited_service(self._runtime)
                if unit:
                    self._await(unit, now)
                else:
                    self._launch(now)
        except OSError as error:
            self._next_look = now + RETRY_SECONDS_MAX
            warn(f"cannot start the daemon: {error}; records are kept in {self._spool}", once="launch")

    def _look_after(self, now: float) -> None:
        """See what has become of the daemon that this process has started."""
        code = self._process.poll() if self._process is not None else None
        if code and code > 0:
            warn(
                f"the daemon did not start (exit code {code}); records are kept in "
                f"{self._spool}. See {self._runtime / 'daemon.log'}",
                once="launch",
            )
            self.done()
        elif now > self._deadline:
            self.done()
        elif code is not None and self._is_gone():
            # Killed; or Ctrl-C, a notebook's stop button: meant for the trainer's process group, in which a child is
            # until it has a session of its own.
            self.done()
            self._lost += 1
            if self._lost <= AT_ONCE_MAX:
                self._next_look = now
                self._retry_seconds = RETRY_SECONDS_MIN

    def _is_gone(self) -> bool:
        """Whether the daemon that this process has started has ended, though it is no child of it any more."""
        poller = select.poll()
        poller.register(self._alive_fd, select.POLLIN)
        return bool(poller.poll(0))

    def _await(self, unit: str, now: float) -> None:
        self._missed = self._missed or now
        if now - self._missed > SERVICE_SECONDS:
            warn(
                f"the service of {unit} does not run; records are kept in {self._spool} until it does. Start it with "
                "systemctl, or remove it (`tbxd service remove`) to have daemons started by themselves",
                once="service",
            )

    def _launch(self, now: float) -> None:
        import subprocess  # only where a daemon has to be started

        private_dir(self._runtime)
        fd = os.open(self._runtime / "launch.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return
        if is_locked(lock_path(self._runtime)):  # started since we looked
            os.close(fd)
            return
        self._launch_fd = fd
        self._deadline = now + START_SECONDS_MAX
        self._next_look = now + self._retry_seconds
        self._retry_seconds = min(2 * self._retry_seconds, RETRY_SECONDS_MAX)
        environ = dict(os.environ)
        environ[RUNTIME_VARIABLE] = str(self._runtime)
        environ[SPOOL_VARIABLE] = str(self._spool)
        log_path = self._runtime / "daemon.log"
        with contextlib.suppress(OSError):
            if log_path.stat().st_size > LOG_BYTES_MAX:
                log_path.replace(self._runtime / "daemon.log.1")
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._alive_fd, held = os.pipe2(os.O_CLOEXEC)
        try:
            # In a session of its own, so that what ends the trainer's process group does not end it; in "/", so
            # that no module of the working directory shadows one of ours. It forks once more by itself: its
            # parent is then not this process, which therefore leaves no zombie behind.
            self._process = subprocess.Popen(
                [sys.executable or "python3", "-m", "tbxd", "serve", "--embedded"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environ,
                start_new_session=True,
                pass_fds=(held,),
            )
        finally:
            os.close(log)
            os.close(held)

    def done(self) -> None:
        """A daemon answers, or the attempt is given up: let others try."""
        if self._launch_fd >= 0:
            os.close(self._launch_fd)
            self._launch_fd = -1
        if self._alive_fd >= 0:
            os.close(self._alive_fd)
            self._alive_fd = -1
        if self._process is not None:
            self._process.poll()
            self._process = None

    def answered(self) -> None:
        """A daemon answers: the next attempt, if one is ever needed, is made at once."""
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
        self._process: subprocess.Popen[bytes] | None = None

    def look(self, now: float) -> None:
        """Start the process when there is something to send. To be called while the daemon answers; never blocks."""
        if now < self._next_look:
            return
        self._next_look = now + FORWARD_SECONDS
        try:
            if self._process is not None and self._process.poll() is None:
                return
            if any(not is_locked(path / CONTROL_NAME) for path in journals(self._folder)):
                self._start()
        except OSError as error:
            warn(f"what was left in {self._folder} is not sent: {error}; `tbxd drain` does it", once="forward")

    def leave(self) -> None:
        """Have what this process itself leaves sent, if the daemon can be had within half a minute."""
        try:
            self._start()
        except OSError as error:
            warn(f"nothing sends what is left in {self._folder}: {error}", once="forward")

    def _start(self) -> None:
        import subprocess  # only where there is something left

        self._process = subprocess.Popen(
            [sys.executable or "python3", "-m", "tbxd", "drain", "--embedded"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={**os.environ, **self._environ},
            start_new_session=True,
        )
