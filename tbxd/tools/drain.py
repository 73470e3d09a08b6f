"""``tbxd drain``: have the journals of ended trainers written now, and wait until it is done."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tbxd_client.config.paths import (
    ADDRESS_VARIABLE,
    RUNTIME_VARIABLE,
    SPOOL_VARIABLE,
    default_address,
    lock_path,
    private_dir,
    spools,
    view_runtime,
)
from tbxd_client.process.view import view
from tbxd_client.transport.launcher import is_locked

from ..config.settings import Settings
from ..ingest.journal_recovery import WHAT_TO_DO
from ..transport import control_client
from . import leftovers

LOOK_SECONDS = 0.1
HOLDERS_SECONDS = 0.5  # between two looks who holds what is locked, which take longer
START_SECONDS = 15.0  # for a daemon to answer
AGAIN_SECONDS = 4.0  # without a daemon before another is started: the first was idle, and has left
STALL_SECONDS = 30.0  # without a byte written before it is given up
TAKE_SECONDS = 5.0  # for a daemon to find what nobody holds, however little it is to be waited for
IDLE_SECONDS = 1  # how long a daemon that was started for this stays
LOG_BYTES = 4096  # of what a daemon that did not start has logged


class CannotDrain(Exception):
    """No daemon drains this spool, and none can be started."""


@dataclass(slots=True)
class Progress:
    """The progress of a drain. ``journals`` and ``bytes`` still wait, ``written`` were written since it began;
    ``reasons`` has the obstacle of each run, journal or address; ``quarantined`` invalid journals were put aside
    meanwhile, ``put_aside`` at any time; ``elsewhere`` are journals and bytes for other hosts, by address."""

    journals: int = 0
    bytes: int = 0
    written: int = 0
    quarantined: int = 0
    put_aside: int = 0
    living: int = 0
    reasons: dict[str, str] = field(default_factory=dict)
    elsewhere: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """True if everything is written."""
        return not (self.journals or self.quarantined or self.elsewhere)


def drain(settings: Settings, show: Callable[[Progress], None], stall_seconds: float = STALL_SECONDS) -> Progress:
    """Have a daemon write the journals of ended trainers; return when none is left, or when there is no progress.

    Journals that the usual daemon does not see, because it is in another mount namespace, are left to a daemon of this
    process's namespace.

    Args:
        settings: the places of the daemon and the spool.
        show: called with the progress, several times a second.
        stall_seconds: the longest time without progress.

    Raises:
        CannotDrain: the running daemon has another spool, or none can be started.
    """
    try:
        settings = settings.settled()
    except OSError as error:
        raise CannotDrain(str(error)) from error
    usual = _Drain(settings, show, stall_seconds)
    progress, here = usual.run(), view()
    if not usual.elsewhere or usual.view == here:
        return progress
    # That daemon sees other files than this process. Perhaps what is left is of one that sees these.
    runtime = view_runtime(settings.runtime_dir, here)
    own = _Drain(replace(settings, runtime_dir=runtime, address=default_address(runtime)), show, stall_seconds)
    result = own.run()
    result.written += progress.written
    result.quarantined += progress.quarantined
    result.reasons = {**progress.reasons, **result.reasons} if result.journals else result.reasons
    return result


class _Drain:
    def __init__(self, settings: Settings, show: Callable[[Progress], None], stall_seconds: float) -> None:
        self._settings = settings
        self._spools = spools(settings.spool)
        self._show = show
        self._stall_seconds = stall_seconds
        self._progress = Progress()
        self._total = -1  # bytes there were, as far as has been seen
        self._left = leftovers.Leftovers()
        self._next_look = 0.0
        self.view = ""  # which files the daemon sees
        self.elsewhere: dict[str, str] = {}  # journals that it leaves to others, and why

    def run(self) -> Progress:
        settings, progress = self._settings, self._progress
        daemon, aside = None, leftovers.put_aside(self._spools)
        if not is_locked(lock_path(settings.runtime_dir)):
            self._total = leftovers.look(self._spools).size  # it may be done before it is asked
            daemon = _Daemon(settings)
        status = _first_status(settings, daemon)
        if status["spool"] != str(settings.spool):
            raise CannotDrain(
                f"the daemon (pid {status['pid']}) drains {status['spool']}, not {settings.spool}; "
                "use another --runtime-dir, or stop it first (`tbxd stop`)"
            )
        pid = status["pid"]
        before = status["quarantined_journals"] if daemon is None else 0  # it may have met some before it was asked
        moved = time.monotonic()
        while True:
            if self._look(status):
                moved = time.monotonic()
            told = status["quarantined_journals"] - before if status["pid"] == pid else 0
            progress.quarantined = max(progress.quarantined, told, progress.put_aside - aside)
            self._show(progress)
            stalled = time.monotonic() - moved
            if self._is_over(stalled):
                self._find_reasons()
                return progress
            time.sleep(LOOK_SECONDS)
            try:
                status = control_client.ask(settings, "status")
            except control_client.NotRunning:  # it has left, for it was idle; what was held may be free now
                status = {**status, "sessions": [], "runs": {}}
                if self._left.free and not is_locked(lock_path(settings.runtime_dir)):
                    status = _first_status(settings, _Daemon(settings))

    def _look(self, status: dict[str, Any]) -> bool:
        """Update the progress; return True if there is any."""
        progress, now = self._progress, time.monotonic()
        self.view = status.get("view", "")
        self.elsewhere = status.get("elsewhere_journals", {})
        adopted = {session["session"] for session in status["sessions"] if session["adopted"]}
        if self._left.held and now < self._next_look:
            fresh = leftovers.look(self._spools, adopted | {Path(path).name for path in self._left.held})
            for path in self._left.held:
                fresh.free.pop(Path(path).name, None)
            fresh.held, fresh.living = self._left.held, self._left.living
            left = fresh
        else:
            left = leftovers.look(self._spools, adopted)
            self._next_look = now + HOLDERS_SECONDS
        gone = left.held.keys() != self._left.held.keys()
        self._left = left
        self._total = max(self._total, left.size + progress.written)
        written = self._total - left.size
        gets_on = written > progress.written or gone
        progress.journals, progress.bytes, progress.written = left.count, left.size, written
        progress.living = left.living
        progress.elsewhere = leftovers.for_other_hosts(self._spools)
        left.elsewhere = progress.elsewhere
        errors = {run: counts["error"] for run, counts in status["runs"].items() if counts["error"]}
        apart = {path: f"{why}. {WHAT_TO_DO}" for path, why in self.elsewhere.items() if why}
        progress.reasons = {**errors, **left.reasons, **apart}
        progress.put_aside = leftovers.put_aside(self._spools)
        return gets_on

    def _is_over(self, stalled: float) -> bool:
        if self._left.free.keys() - {
            Path(path).name for path in self.elsewhere
        }:  # at least so long that the daemon has looked for it
            return stalled > max(self._stall_seconds, TAKE_SECONDS)
        return not self._left.held or stalled > self._stall_seconds

    def _find_reasons(self) -> None:
        """Find out why free journals are not taken, if no run has an error."""
        for path in self._left.places.values():
            if not is_locked(path) and (why := leftovers.why_not_taken(path)):
                self._progress.reasons[str(path)] = why


class _Daemon:
    """A daemon that is started for the drain and exits by itself. Its messages go to its log."""

    def __init__(self, settings: Settings) -> None:
        environ = {
            **os.environ,
            RUNTIME_VARIABLE: str(settings.runtime_dir),
            SPOOL_VARIABLE: str(settings.spool),
            "TBXD_IDLE_SECONDS": str(IDLE_SECONDS),
        }
        environ.pop(ADDRESS_VARIABLE, None)
        if settings.address != default_address(settings.runtime_dir):
            environ[ADDRESS_VARIABLE] = settings.address
        try:
            private_dir(settings.runtime_dir)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._log = os.open(settings.runtime_dir / "daemon.log", flags, 0o600)
        except OSError as error:
            raise CannotDrain(f"no daemon can be started: {error}") from error
        self._begin = os.fstat(self._log).st_size
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tbxd", "serve", "--embedded"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            cwd="/",
            env=environ,
            start_new_session=True,
        )

    @property
    def trouble(self) -> str:
        """The reason why it did not start; "" while it may."""
        code = self._process.poll()
        if code is None:
            return ""
        said = os.pread(self._log, LOG_BYTES, self._begin).decode("utf-8", "replace").strip()
        lines = [line.removeprefix("tbxd: ") for line in said.splitlines() if line.startswith(("tbxd: ", "Error: "))]
        if not code and not lines:  # it has detached itself, and is not heard of otherwise any more
            return ""
        why = lines[-1] if lines else f"exit code {code}; try `tbxd serve`"
        return f"the daemon did not start: {why}"


def _first_status(settings: Settings, daemon: _Daemon | None) -> dict[str, Any]:
    """Return the status of the running daemon, or of one that is starting; if it exits meanwhile, start another."""
    deadline = time.monotonic() + START_SECONDS
    started = time.monotonic() if daemon is not None else 0.0
    while True:
        if daemon is not None and (trouble := daemon.trouble):
            raise CannotDrain(trouble)
        try:
            return control_client.ask(settings, "status", timeout=1.0)
        except control_client.NotRunning as error:
            if time.monotonic() > deadline or isinstance(error, control_client.Refuses):
                raise CannotDrain(str(error)) from error
            if not is_locked(lock_path(settings.runtime_dir)) and time.monotonic() - started > AGAIN_SECONDS:
                daemon, started = _Daemon(settings), time.monotonic()
            time.sleep(LOOK_SECONDS)
