"""``tbxd drain``: write what dead trainers have left in their journals now, and see it done."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tbxd_client.journal_files import CONTROL_NAME, JournalError, journals, read_state
from tbxd_client.launch import is_locked
from tbxd_client.paths import RUNTIME_VARIABLE, SPOOL_VARIABLE, lock_path

from . import ask
from .settings import Settings

LOOK_SECONDS = 0.1
START_SECONDS = 15.0  # for a daemon to answer
STALL_SECONDS = 30.0  # without a byte written before it is given up
IDLE_SECONDS = 1  # how long a daemon that was started for this stays


class CannotDrain(Exception):
    """There is no daemon to be had that drains this spool."""


@dataclass(slots=True)
class Progress:
    """How far it is. ``journals`` and ``bytes`` wait still, ``written`` were written since it began; ``reasons`` says
    what holds up which run; ``quarantined`` journals made no sense and were put aside."""

    journals: int = 0
    bytes: int = 0
    written: int = 0
    quarantined: int = 0
    reasons: dict[str, str] = field(default_factory=dict)


def drain(settings: Settings, show: Callable[[Progress], None], stall_seconds: float = STALL_SECONDS) -> Progress:
    """Have a daemon write the journals that have no trainer any more; returns when none is left, or nothing gets on.

    Args:
        settings: where the daemon and the spool are.
        show: called with how far it is, several times a second.
        stall_seconds: how long nothing may be written before it is given up.

    Raises:
        CannotDrain: the daemon that runs has another spool, or none can be started.
    """
    daemon, total = None, -1
    if not is_locked(lock_path(settings.runtime_dir)):
        total = sum(size for _, size in _orphans(settings, set()))  # it may be done before it is asked
        daemon = _start(settings)
    status = _first_status(settings, daemon)
    if status["spool"] != str(settings.spool):
        raise CannotDrain(
            f"the daemon (pid {status['pid']}) drains {status['spool']}, not {settings.spool}; "
            "give another --runtime-dir, or stop it first (`tbxd stop`)"
        )
    before = status["quarantined_journals"]
    progress, moved = Progress(), time.monotonic()
    while True:
        adopted = {session["session"]: session for session in status["sessions"] if session["adopted"]}
        waiting = dict(_orphans(settings, set(adopted)))
        left = sum(waiting.values())
        total = max(total, left + progress.written)
        if total - left > progress.written:
            moved = time.monotonic()
        progress.journals, progress.bytes, progress.written = len(waiting), left, total - left
        progress.quarantined = status["quarantined_journals"] - before
        progress.reasons = {run: counts["error"] for run, counts in status["runs"].items() if counts["error"]}
        show(progress)
        if not waiting or time.monotonic() - moved > stall_seconds:
            return progress
        time.sleep(LOOK_SECONDS)
        with contextlib.suppress(ask.NotRunning):
            status = ask.ask(settings, "status")


def _orphans(settings: Settings, adopted: set[str]) -> list[tuple[str, int]]:
    """Journals without a trainer, and the bytes that wait in each."""
    found = []
    for path in journals(settings.spool):
        if path.name not in adopted and is_locked(path / CONTROL_NAME):
            continue  # its trainer lives, and sends by itself
        with contextlib.suppress(JournalError):
            state = read_state(path)
            found.append((path.name, state.readable_end - state.released))
    return found


def _start(settings: Settings) -> subprocess.Popen[bytes]:
    environ = {
        **os.environ,
        RUNTIME_VARIABLE: str(settings.runtime_dir),
        SPOOL_VARIABLE: str(settings.spool),
        "TBXD_IDLE_SECONDS": str(IDLE_SECONDS),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tbxd", "serve", "--embedded"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd="/",
        env=environ,
        start_new_session=True,
    )


def _first_status(settings: Settings, daemon: subprocess.Popen[bytes] | None) -> dict[str, Any]:
    deadline = time.monotonic() + START_SECONDS
    while True:
        if daemon is not None and daemon.poll() not in (None, 0):
            raise CannotDrain(f"the daemon did not start (exit code {daemon.returncode}); try `tbxd serve`")
        try:
            return ask.ask(settings, "status", timeout=1.0)
        except ask.NotRunning as error:
            if time.monotonic() > deadline:
                raise CannotDrain(str(error)) from error
            time.sleep(LOOK_SECONDS)
